//! The phases of a training, step by step: what a step learns, and how fast.
//!
//! All of it follows from the settings and the number of the step, so a training that goes on in
//! any phase needs nothing from its checkpoint but that number. A training without phases is one
//! phase in which everything learns.

use ams_model::schedule::Schedule;

use crate::settings::TrainConfig;
use crate::settings::phases::Learns;
use crate::step::{PartSteps, StepPlan};

/// The phases of a training.
#[derive(Debug)]
pub(crate) struct Phases {
    /// Never empty.
    all: Vec<Phase>,
    /// Whether the configuration has phases.
    are_set: bool,
}

#[derive(Debug)]
struct Phase {
    /// Steps before its first one.
    begin: u64,
    learns: Learns,
    /// Steps before its first one in which each part learns.
    before: PartSteps,
    /// Learning rates of the dense weights by the step of the training.
    rates: Schedule,
    /// The rows' learning rate over that of the dense weights.
    rows_rate: f32,
}

impl Phases {
    /// Those of the settings `train`, with epochs of `steps_per_epoch` steps.
    pub(crate) fn of(train: &TrainConfig, steps_per_epoch: u64) -> Phases {
        let phase = |begin, learns, before, rate: Option<f32>, rows: Option<f32>| {
            let lr = rate.unwrap_or(train.learning_rate);
            let rows = rows.or(train.rows_learning_rate).unwrap_or(train.learning_rate);
            let rates = Schedule { lr, decay: train.decay, every: train.decay_every };
            Phase { begin, learns, before, rates, rows_rate: rows / lr }
        };
        let (mut all, mut begin, mut before) = (Vec::new(), 0, PartSteps::default());
        for config in &train.phases {
            let learns = Learns::of(&config.learns);
            let (rate, rows) = (config.learning_rate, config.rows_learning_rate);
            all.push(phase(begin, learns, before, rate, rows));
            let steps = steps_per_epoch * u64::from(config.epochs);
            (begin, before) = (begin + steps, more(before, learns, steps));
        }
        let are_set = !all.is_empty();
        if !are_set {
            all.push(phase(0, Learns::ALL, before, None, None));
        }
        Phases { all, are_set }
    }

    /// The plan of step `step`, counted from 1.
    pub(crate) fn plan(&self, step: u64) -> StepPlan {
        let Phase { begin, learns, before, rates, rows_rate } = &self.all[self.index(step)];
        let lr = rates.at(step - 1);
        StepPlan {
            step,
            learns: *learns,
            counts: more(*before, *learns, step - begin),
            learning_rate: lr,
            rows_learning_rate: lr * rows_rate,
        }
    }

    /// Number of the phase of step `step`, both counted from 1; none where there are no phases.
    pub(crate) fn number(&self, step: u64) -> Option<u32> {
        let index = u32::try_from(self.index(step)).unwrap_or(u32::MAX);
        self.are_set.then(|| index.saturating_add(1))
    }

    /// Whether a phase ends after `step` steps, and another one follows.
    pub(crate) fn ends(&self, step: u64) -> bool {
        self.all[1..].iter().any(|phase| phase.begin == step)
    }

    fn index(&self, step: u64) -> usize {
        self.all.partition_point(|phase| phase.begin < step).saturating_sub(1)
    }
}

/// `counts` after `steps` more steps in which `learns` learn.
fn more(counts: PartSteps, learns: Learns, steps: u64) -> PartSteps {
    let of = |learns: bool| if learns { steps } else { 0 };
    PartSteps {
        images: counts.images + of(learns.images),
        ids: counts.ids + of(learns.ids),
        network: counts.network + of(learns.network),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{ModelPart, PhaseConfig};

    fn phase(epochs: u32, learns: &[ModelPart], rates: [Option<f32>; 2]) -> PhaseConfig {
        let [learning_rate, rows_learning_rate] = rates;
        PhaseConfig { epochs, learns: learns.to_vec(), learning_rate, rows_learning_rate }
    }

    /// Phase, counts of images, ids and network, and the two rates of step `step`.
    fn at(phases: &Phases, step: u64) -> (Option<u32>, [u64; 3], [f32; 2]) {
        let StepPlan { counts: PartSteps { images, ids, network }, .. } = phases.plan(step);
        let StepPlan { learning_rate, rows_learning_rate, .. } = phases.plan(step);
        (phases.number(step), [images, ids, network], [learning_rate, rows_learning_rate])
    }

    #[test]
    fn a_step_has_its_phases_rates_and_the_counts_of_what_learned() {
        use ModelPart::{Ids, Images, Network};
        let train = TrainConfig {
            phases: vec![
                phase(2, &[Images, Network], [None, None]),
                phase(1, &[Ids], [Some(0.5), None]),
                phase(1, &ModelPart::ALL, [Some(0.5), Some(0.25)]),
            ],
            learning_rate: 1.0,
            rows_learning_rate: Some(2.0),
            decay: 0.5,
            decay_every: 16,
            ..TrainConfig::default()
        };
        let phases = Phases::of(&train, 5);
        let cases = [
            (1, (Some(1), [1, 0, 1], [1.0, 2.0])),
            (10, (Some(1), [10, 0, 10], [1.0, 2.0])),
            (11, (Some(2), [10, 1, 10], [0.5, 2.0])),
            (15, (Some(2), [10, 5, 10], [0.5, 2.0])),
            (16, (Some(3), [11, 6, 11], [0.5, 0.25])),
            (17, (Some(3), [12, 7, 12], [0.25, 0.125])),
            (20, (Some(3), [15, 10, 15], [0.25, 0.125])),
        ];
        for (step, want) in cases {
            assert_eq!(at(&phases, step), want, "step {step}");
        }
        let ends: Vec<u64> = (0..=20).filter(|&step| phases.ends(step)).collect();
        assert_eq!(ends, [10, 15]);
    }

    #[test]
    fn without_phases_everything_learns_in_every_step() {
        let train = TrainConfig { learning_rate: 0.003, ..TrainConfig::default() };
        let phases = Phases::of(&train, 5);
        for step in [1, 7, 23_999] {
            assert_eq!(at(&phases, step), (None, [step; 3], [0.003; 2]));
            assert_eq!(phases.plan(step).learns, Learns::ALL);
        }
        assert!(!phases.ends(5));
    }
}
