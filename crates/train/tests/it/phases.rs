//! Trainings in phases: what does not learn stays bit by bit, what learns has the rates and the
//! counts of its phase, and nothing depends on where a training runs or is stopped.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ams_data::dataset::Dataset;
use ams_model::init::row_init;
use ams_train::run::{self, MetricsLine, Start, ValidationLine};
use ams_train::settings::ModelPart::{self, Ids, Images, Network};
use ams_train::settings::{
    Candidate, ImageArm, PhaseConfig, TowerWeights, TrainConfig, UnknownIds, preset,
};
use ams_train::step::shard::ROWS;
use ams_train::{Config, Job, StepReport, Trainer};
use serde::Deserialize;
use tempfile::TempDir;
use toml::{Table, Value};

use super::shop::{
    PLACEMENTS, copy_of_shop, go_on, narrow, publish, publish_run, remaining_steps, stop_at, train,
    undisturbed,
};

fn phase(epochs: u32, learns: &[ModelPart]) -> PhaseConfig {
    let learns = learns.to_vec();
    PhaseConfig { epochs, learns, learning_rate: None, rows_learning_rate: None }
}

/// [`narrow`] in phases.
fn phased(runs: &Path, phases: Vec<PhaseConfig>) -> Config {
    let mut config = narrow(runs);
    config.train.epochs = phases.iter().map(|phase| phase.epochs).sum();
    config.train.phases = phases;
    config
}

/// Everything that a part of the model is made of: weights and state, as bits.
#[derive(PartialEq)]
struct State {
    images: Vec<u32>,
    network: Vec<u32>,
    ids: BTreeMap<u64, Vec<u32>>,
}

impl State {
    fn of(trainer: &Trainer) -> State {
        let lanes = trainer.lanes();
        let (mut images, mut network) = (Vec::new(), Vec::new());
        let end = lanes.network.rank_range().end;
        for values in [&lanes.dense.w, &lanes.dense.m, &lanes.dense.v] {
            let (rank, towers) = values.split_at(end);
            network.extend(rank.iter().map(|value| value.to_bits()));
            images.extend(towers.iter().map(|value| value.to_bits()));
        }
        let mut ids = BTreeMap::new();
        for table in lanes.shards().map(|shard| &shard.table) {
            for slot in table.slots_by_id() {
                let state = table.state(slot).iter().map(|value| value.to_bits()).collect();
                ids.insert(table.id(slot), state);
            }
        }
        State { images, network, ids }
    }

    /// The parts that differ, in the order of [`ModelPart::ALL`].
    fn changed(&self, other: &State) -> Vec<ModelPart> {
        let differs = |part: &ModelPart| match part {
            Images => self.images != other.images,
            Ids => self.ids != other.ids,
            Network => self.network != other.network,
        };
        ModelPart::ALL.into_iter().filter(differs).collect()
    }
}

/// Takes steps until the phase at work ends.
fn to_the_end_of_a_phase(trainer: &mut Trainer) -> StepReport {
    loop {
        let report = trainer.step().unwrap().expect("a step");
        if trainer.is_at_phase_end() || report.cursor.step == trainer.steps() {
            return report;
        }
    }
}

const SUBSETS: [&[ModelPart]; 5] =
    [&[Images], &[Ids], &[Network], &[Images, Network], &[Images, Ids]];

#[test]
fn what_does_not_learn_in_a_phase_stays_as_it_is() {
    let folder = TempDir::new().unwrap();
    let cases = PLACEMENTS.into_iter().flat_map(|of| SUBSETS.map(|learns| (of, learns)));
    for (placement, learns) in cases {
        let mut config = phased(folder.path(), vec![phase(1, &ModelPart::ALL), phase(1, learns)]);
        config.train.placement = placement;
        config.train.l2_ids = 0.01;
        config.train.tower_weight_decay = 0.1;
        config.train.min_occurrences = 3;
        config.model.network.unknown = UnknownIds::Learned;
        let mut trainer = Trainer::new(config, Job::solo(2)).unwrap();
        let begin = State::of(&trainer);
        to_the_end_of_a_phase(&mut trainer);
        let middle = State::of(&trainer);
        assert_eq!(begin.changed(&middle), ModelPart::ALL);
        to_the_end_of_a_phase(&mut trainer);
        assert_eq!(middle.changed(&State::of(&trainer)), learns, "{placement:?}");
        assert!(trainer.step().unwrap().is_none());
    }
}

/// Else the network would learn random rows by heart.
#[test]
fn no_id_gets_a_row_before_rows_learn() {
    let folder = TempDir::new().unwrap();
    let config = phased(folder.path(), vec![phase(1, &[Images, Network])]);
    let mut trainer = Trainer::new(config.clone(), Job::solo(2)).unwrap();
    let begin = State::of(&trainer);
    remaining_steps(&mut trainer);
    let end = State::of(&trainer);
    assert_eq!(begin.changed(&end), [Images, Network]);
    assert!(end.ids.is_empty());
    // A bundle without rows is one.
    publish(&config, 1);
}

#[test]
fn phases_in_which_everything_learns_are_the_training_without() {
    for phases in [vec![2], vec![1, 1]] {
        let folder = TempDir::new().unwrap();
        let phases = phases.iter().map(|&epochs| phase(epochs, &ModelPart::ALL)).collect();
        let config = phased(folder.path(), phases);
        assert_eq!(publish(&config, 2).1, undisturbed());
    }
}

/// The first step of Adam moves a weight by the learning rate, if it counts as the first one.
#[test]
fn a_part_that_begins_later_begins_with_the_rates_of_its_phase() {
    let folder = TempDir::new().unwrap();
    let (lr, rows_lr) = (0.01, 0.04);
    let later = PhaseConfig {
        learning_rate: Some(lr),
        rows_learning_rate: Some(rows_lr),
        ..phase(1, &[Images, Ids])
    };
    let config = phased(folder.path(), vec![phase(1, &[Network]), later]);
    let seed = config.seed;
    let mut trainer = Trainer::new(config, Job::solo(1)).unwrap();
    to_the_end_of_a_phase(&mut trainer);
    let before = trainer.lanes().dense.w.clone();
    let report = trainer.step().unwrap().unwrap();
    let rates = (report.learning_rate, report.rows_learning_rate, report.phase);
    assert_eq!(rates, (lr, lr * (rows_lr / lr), Some(2)));
    let lanes = trainer.lanes();
    let towers = lanes.network.rank_range().end..;
    let pairs = lanes.dense.w[towers.clone()].iter().zip(&before[towers]);
    let moved = pairs.map(|(w, before)| (w - before).abs()).fold(0.0, f32::max);
    assert!((moved / lr - 1.0).abs() < 1e-2, "towers: {moved}");
    let mut moved = 0.0_f32;
    for table in lanes.shards().map(|shard| &shard.table) {
        for slot in table.slots_by_id() {
            let mut first = vec![0.0; table.dim()];
            row_init(seed, ROWS, table.id(slot), &mut first);
            let pairs = table.row(slot).iter().zip(&first);
            moved = pairs.map(|(w, before)| (w - before).abs()).fold(moved, f32::max);
        }
    }
    assert!((moved / rows_lr - 1.0).abs() < 1e-2, "rows: {moved}");
}

/// Weights that do not learn have no part in the norm.
#[test]
fn the_gradient_of_what_learns_is_clipped() {
    let folder = TempDir::new().unwrap();
    let most = 1e-4;
    for (learns, is_network) in [(&[Network][..], true), (&[Images, Ids][..], false)] {
        let mut config = phased(folder.path(), vec![phase(1, &ModelPart::ALL), phase(1, learns)]);
        config.train.clip_norm = Some(most);
        let mut trainer = Trainer::new(config, Job::solo(1)).unwrap();
        to_the_end_of_a_phase(&mut trainer);
        trainer.step().unwrap().unwrap();
        let (rank, towers) =
            trainer.lanes().gradient().split_at(trainer.lanes().network.rank_range().end);
        let learning = if is_network { rank } else { towers };
        let norm = learning.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        assert!((norm / f64::from(most) - 1.0).abs() < 1e-3, "{learns:?}: {norm}");
    }
}

/// Bytes are those that are sent: a gradient that nobody needs is none of them.
#[test]
fn gradients_of_what_does_not_learn_are_not_sent() {
    let folder = TempDir::new().unwrap();
    let counts = |learns: &[ModelPart]| {
        let mut trainer =
            Trainer::new(phased(folder.path(), vec![phase(1, learns)]), Job::solo(1)).unwrap();
        trainer.step().unwrap().unwrap();
        trainer.lanes_mut().take_counts().unwrap()
    };
    let all = counts(&ModelPart::ALL);
    // A loss in f64 for every two lanes.
    let losses = (8 * 8 * 7) as f64;
    let [images, ids, network] = [&[Images][..], &[Ids], &[Network]].map(counts);
    let sent = |of: &ams_train::Counts| [of.traffic.embedding_grads, of.tower_backwards];
    assert!(all.traffic.row_grads > losses && all.traffic.all_reduce > 0.0);
    assert_eq!(sent(&images), sent(&all));
    assert_eq!((sent(&ids), sent(&network)), ([0.0; 2], [0.0; 2]));
    assert_eq!(ids.traffic.row_grads, all.traffic.row_grads);
    assert_eq!((images.traffic.row_grads, network.traffic.row_grads), (losses, losses));
    assert_eq!(ids.traffic.all_reduce, 0.0);
    let parts = images.traffic.all_reduce + network.traffic.all_reduce;
    assert_eq!(parts, all.traffic.all_reduce);
    for of in [&images, &ids, &network] {
        assert_eq!(of.traffic.ids, all.traffic.ids);
        assert_eq!(of.traffic.embeddings, all.traffic.embeddings);
    }
}

/// Three phases with rates of their own, users held out, ids without rows and weights that decay.
fn several(runs: &Path) -> Config {
    let phases = vec![
        PhaseConfig { learning_rate: Some(0.004), ..phase(1, &[Images, Network]) },
        PhaseConfig { rows_learning_rate: Some(0.008), ..phase(1, &[Ids]) },
        phase(1, &[Ids, Network]),
    ];
    let mut config = phased(runs, phases);
    config.model.network.unknown = UnknownIds::Learned;
    config.train.min_occurrences = 3;
    config.train.l2_ids = 0.01;
    config.train.tower_weight_decay = 0.1;
    config.train.validation_parts = 4;
    (config.train.decay, config.train.decay_every) = (0.5, 7);
    config
}

#[test]
fn phases_have_the_same_bits_wherever_they_run_and_are_stopped() {
    let whole = TempDir::new().unwrap();
    let config = several(whole.path());
    let report = train(&config, Start::Fresh, (1, 1), go_on).remove(0).unwrap();
    let (steps, hash) = (report.steps_per_epoch, publish_run(&report.run, 1).1);
    assert_eq!(report.steps, 3 * steps);
    for place in [(1, 4), (2, 1), (4, 2)] {
        let folder = TempDir::new().unwrap();
        let ends = train(&several(folder.path()), Start::Fresh, place, go_on);
        let run = ends.into_iter().map(|end| end.unwrap().run).next().unwrap();
        assert_eq!(publish_run(&run, 1).1, hash, "(processes, threads) {place:?}");
    }
    // Within the first phase, at its end, within the second and the third one.
    for stop in [2, steps, steps + 3, 2 * steps + 1] {
        let folder = TempDir::new().unwrap();
        let config = several(folder.path());
        train(&config, Start::Fresh, (2, 1), stop_at(stop, 1)).remove(0).unwrap();
        let report = train(&config, Start::Resume, (4, 1), go_on).remove(0).unwrap();
        assert_eq!((report.finished, report.resumed_from), (true, stop));
        assert_eq!(publish_run(&report.run, 1).1, hash, "stopped after {stop} steps");
        assert_eq!(said(&report.run), said(&run::folder(&several(whole.path()))));
    }
}

/// Step and phase of every line of the metrics, and of those about the users held out.
fn said(run: &Path) -> [Vec<(u64, Option<u32>)>; 2] {
    let text = fs::read_to_string(run.join(run::layout::METRICS)).unwrap();
    let steps = text.lines().filter_map(|line| serde_json::from_str::<MetricsLine>(line).ok());
    let held = text.lines().filter_map(|line| serde_json::from_str::<ValidationLine>(line).ok());
    [
        steps.map(|line| (line.step, line.phase)).collect(),
        held.map(|line| (line.step, line.phase)).collect(),
    ]
}

#[test]
fn every_line_of_the_metrics_is_of_one_phase() {
    let folder = TempDir::new().unwrap();
    let mut config = several(folder.path());
    config.train.log_every = 1_000;
    let report = train(&config, Start::Fresh, (1, 1), go_on).remove(0).unwrap();
    let steps = report.steps_per_epoch;
    let lines = vec![(steps, Some(1)), (2 * steps, Some(2)), (3 * steps, Some(3))];
    assert_eq!(said(&report.run), [lines.clone(), lines]);
    let log = fs::read_to_string(report.run.join(run::layout::LOG)).unwrap();
    let begun: Vec<&str> = log.lines().filter(|line| line.starts_with("phase ")).collect();
    assert_eq!(
        begun,
        [
            "phase 1 of 3 begins after step 0: 1 epochs of images, network".to_owned(),
            format!("phase 2 of 3 begins after step {steps}: 1 epochs of ids"),
            format!("phase 3 of 3 begins after step {}: 1 epochs of ids, network", 2 * steps),
        ]
    );
    // Without phases a line is what it was.
    let folder = TempDir::new().unwrap();
    let plain = train(&narrow(folder.path()), Start::Fresh, (1, 1), stop_at(1, 0)).remove(0);
    let text = fs::read_to_string(plain.unwrap().run.join(run::layout::METRICS)).unwrap();
    assert!(!text.contains("phase"), "{text}");
}

/// The share of epochs that was found is a share of the schedule; a candidate without towers has
/// no phase in which towers alone learn.
#[test]
fn a_refit_takes_the_beginning_of_the_schedule() {
    let folder = TempDir::new().unwrap();
    let phases = || vec![phase(1, &[Images]), phase(1, &[Images, Network]), phase(1, &[Ids])];
    let mut config = phased(folder.path(), phases());
    (config.train.validation_parts, config.train.early_stop) = (8, Some(3));
    (config.train.refit, config.train.evaluations_per_epoch) = (true, 2);
    config.train.candidates = vec![Candidate::Ids, Candidate::Full];
    let report = train(&config, Start::Fresh, (1, 2), go_on).remove(0).unwrap();
    let choice = report.choice.as_ref().unwrap();
    let of = |name: &str| {
        let text = fs::read_to_string(folder.path().join(name).join("config.toml")).unwrap();
        toml::from_str::<Config>(&text).unwrap().train
    };
    let (ids, full) = (of("run.search-ids"), of("run.search-full"));
    assert_eq!((&ids.phases[..], ids.epochs), (&phases()[1..], 2));
    assert_eq!((&full.phases[..], full.epochs), (&phases()[..], 3));
    let chosen = of("run");
    let searched = [ids, full];
    assert_eq!(chosen.phases, searched[choice.chosen].phases);
    assert_eq!((chosen.max_steps, report.steps), (Some(choice.steps), choice.steps));

    // The same as a training that is told so from the beginning.
    let other = TempDir::new().unwrap();
    let mut told = phased(other.path(), chosen.phases);
    if choice.searched[choice.chosen].candidate == Candidate::Ids {
        told.model.network.images = ImageArm::None;
    }
    told.train.max_steps = Some(choice.steps);
    let told = train(&told, Start::Fresh, (2, 1), go_on).remove(0).unwrap();
    assert_eq!(publish_run(&told.run, 1).1, publish_run(&report.run, 1).1);
}

#[test]
fn phases_that_make_no_sense_are_refused_by_key() {
    let folder = TempDir::new().unwrap();
    type Spoil = fn(&mut Config);
    let cases: [(&str, Spoil); 14] = [
        ("train.phases[1].epochs: phase 2: 0, expected at least 1", |config| {
            config.train.phases[1].epochs = 0;
        }),
        (
            "train.phases[0].learns: phase 1: [], expected at least one of [\"images\", \"ids\", \
             \"network\"]",
            |config| config.train.phases[0].learns.clear(),
        ),
        ("train.phases[0].learns: phase 1: \"ids\" stands there twice", |config| {
            config.train.phases[0].learns = vec![Ids, Network, Ids];
        }),
        ("train.phases[1].learning_rate: phase 2: 0, expected a positive", |config| {
            config.train.phases[1].learning_rate = Some(0.0);
        }),
        ("train.phases[1].rows_learning_rate: phase 2: NaN", |config| {
            config.train.phases[1].rows_learning_rate = Some(f32::NAN);
        }),
        ("train.phases[0].learning_rate: phase 1: 20, expected, times", |config| {
            config.train.tower_weight_decay = 0.1;
            config.train.phases[0].learning_rate = Some(20.0);
        }),
        ("train.phases[0].learns: phase 1: [\"images\"], but the model has no towers", |config| {
            config.model.network.images = ImageArm::None
        }),
        ("train.phases[0].learns: phase 1: [\"images\"], but the model has", |config| {
            config.model.tower_weights = TowerWeights::Random;
        }),
        ("train.phases[1].learns: phase 2: [\"ids\"], but the model has none", |config| {
            config.train.phases = vec![phase(1, &[Network]), phase(1, &[Ids])];
            config.model.network.images = ImageArm::None;
            // With a feature store, images are ids, too.
            config.data.samples = copy_of_shop(&config.runs.join("without images"));
            fs::remove_dir_all(config.data.samples.join("images")).unwrap();
            let dataset = Dataset::open(&config.data.samples).unwrap();
            let names = dataset.schema().fields.iter().map(|field| field.name.clone());
            config.data.exclude_fields = names.collect();
        }),
        ("train.epochs: 5, but the epochs of train.phases are 2 in all", |config| {
            config.train.epochs = 5;
        }),
        ("train.epochs: 1, but the epochs of train.phases are 4294967296 in", |config| {
            config.train.epochs = 1;
            config.train.phases[1].epochs = u32::MAX;
        }),
        ("train.candidates: \"ids\" has no towers, and train.phases let nothing", |config| {
            (config.train.validation_parts, config.train.early_stop) = (8, Some(1));
            config.train.refit = true;
            config.train.candidates = vec![Candidate::Full, Candidate::Ids];
            config.train.phases.truncate(1);
            config.train.epochs = 1;
        }),
        ("train.early_stop: needs samples held out", |config| config.train.early_stop = Some(1)),
        ("train.max_steps: 0", |config| config.train.max_steps = Some(0)),
    ];
    for (want, spoil) in cases {
        let mut config =
            phased(folder.path(), vec![phase(1, &[Images]), phase(1, &[Ids, Network])]);
        spoil(&mut config);
        let error = Trainer::new(config, Job::solo(1)).err().expect(want).to_string();
        assert!(error.contains(want), "{want:?} is not in {error:?}");
    }
}

/// The settings of `[train]` as a file with `text` has them.
fn typed(text: &str) -> Result<TrainConfig, String> {
    let text = format!("name = 'x'\ndata.samples = 's'\n{text}");
    let mut table: Table = toml::from_str(&text).unwrap();
    preset::expand(&mut table);
    let config = Config::deserialize(Value::Table(table)).map_err(|error| error.to_string())?;
    config.check().map_err(|error| error.to_string())?;
    let written = toml::to_string(&config).unwrap();
    assert_eq!(toml::from_str::<Config>(&written).unwrap(), config);
    Ok(config.train)
}

#[test]
fn the_epochs_of_a_training_are_those_of_its_phases() {
    let two = "[[train.phases]]\nepochs = 3\nlearns = ['images']\n[[train.phases]]\nepochs = 1\n";
    let train = typed(two).unwrap();
    assert_eq!(train.epochs, 4);
    assert_eq!(train.phases, [phase(3, &[Images]), phase(1, &ModelPart::ALL)]);
    let beside = |epochs: u32| typed(&format!("[train]\nepochs = {epochs}\n{two}"));
    assert_eq!(beside(4).unwrap(), train);
    let error = beside(2).unwrap_err();
    assert!(error.contains("train.epochs: 2, but the epochs of train.phases are 4"), "{error}");
    // The ten epochs of the preset are not typed by anybody.
    let recommended = typed(&format!("[model]\npreset = 'recommended'\n{two}")).unwrap();
    assert_eq!((recommended.epochs, recommended.candidates.len()), (4, 3));
    assert_eq!(typed("[train]\nphases = []\n").unwrap(), TrainConfig::default());
    for (text, want) in [
        ("epochs = 1\nlearns = ['id']", "unknown variant `id`, expected one of `images`, `ids`"),
        ("epochs = -1", "invalid value: integer `-1`"),
        ("epochs = 1.5", "expected u32"),
        ("learns = ['ids']", "missing field `epochs`"),
        ("epochs = 1\nrate = 2", "unknown field `rate`"),
    ] {
        let error = typed(&format!("[[train.phases]]\n{text}\n")).unwrap_err();
        assert!(error.contains(want), "{want:?} is not in {error:?}");
    }
}
