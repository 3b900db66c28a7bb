//! Some steps of a training, timed by stage, beside the peak of the processor.

use std::time::Instant;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::Result;
use crate::measure::machine::{MachineSpeed, peak_gflops};
use crate::measure::tables::Resident;
use crate::run::trainer::Trainer;
use crate::setup::network::TowerDefinition;
use crate::step::stages::Stage;

/// The cost of steps. Times are medians over the steps unless their line states otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepTimes {
    /// Milliseconds of a step.
    pub ms: f64,
    /// The fastest and the slowest step.
    pub ms_range: [f64; 2],
    /// Milliseconds by stage, of all threads together divided by their number; means. The
    /// rest of `ms` is waiting.
    pub stages_ms: Map<String, Value>,
    /// Of the whole step's matrix products in the towers, in 10^9 floating-point operations a
    /// second of wall time.
    pub gflops: f64,
    /// Of these products alone, while they are computed: everything in the stages `tower_forward`
    /// and `tower_matrix`, all threads together.
    pub tower_gflops: f64,
    /// Fused multiply-adds on registers alone, all threads, measured before and after; the better
    /// one.
    pub peak_gflops: f64,
    /// Copying from memory to memory, all threads, measured after: 10^9 bytes read and written a
    /// second.
    pub memory_gbs: f64,
    /// Reading what the third cache may hold and no second one, likewise: 10^9 bytes a second.
    pub third_cache_gbs: f64,
    /// Ratio of `tower_gflops` to `peak_gflops`, from 0 to 1.
    pub tower_share_of_peak: f64,
    /// Milliseconds of the towers' products at the rate above, and the whole step over that.
    pub tower_ms: f64,
    /// The step over `tower_ms`.
    pub step_to_tower: f64,
    /// Images embedded by towers that learn, a step.
    pub images: f64,
    /// Images embedded per second of wall time.
    pub images_per_second: f64,
    /// Impressions per step, mean.
    pub impressions: f64,
    /// Impressions per second of wall time.
    pub impressions_per_second: f64,
    /// The most memory the process had so far, in bytes; where the system tells it.
    pub peak_memory_bytes: Option<u64>,
    /// Mean loss of every step, the untimed first ones too.
    pub losses: Vec<f64>,
    /// Mean loss of the last step.
    pub loss: f64,
    /// blake3 of the bits of the last step's dense gradient, 16 digits.
    pub checksum: String,
    /// Number of timed steps.
    pub steps: u64,
    /// Threads of the process.
    pub threads: usize,
}

/// Takes `warm_up` steps, then times `steps`. One process.
///
/// # Errors
/// As [`Trainer::step`].
pub fn steps(trainer: &mut Trainer, warm_up: u64, steps: u64) -> Result<StepTimes> {
    let threads = trainer.lanes().pool().current_num_threads();
    let before = peak_gflops(trainer.lanes().pool());
    let mut losses = Vec::new();
    for _ in 0..warm_up {
        losses.extend(trainer.step()?.map(|report| report.loss));
    }
    trainer.lanes_mut().take_counts()?;
    trainer.lanes().stages().take();
    let (mut times, mut impressions) = (Vec::new(), 0);
    for _ in 0..steps {
        let begin = Instant::now();
        let Some(report) = trainer.step()? else { break };
        times.push(begin.elapsed().as_secs_f64());
        losses.push(report.loss);
        impressions += report.impressions;
    }
    let taken = times.len().max(1) as f64;
    let stages = trainer.lanes().stages().take().map(|busy| busy / threads as f64 / taken);
    // Before the buffers that memory is measured with.
    let peak_memory_bytes = resident().map(|memory| memory.most);
    let machine = MachineSpeed::of(trainer.lanes().pool());
    let peak = before.max(machine.peak_gflops);
    let counts = trainer.lanes_mut().take_counts()?;
    let range =
        [times.iter().copied().fold(f64::MAX, f64::min), times.iter().copied().fold(0.0, f64::max)];
    let seconds = median(&mut times);
    let impressions = impressions as f64 / taken;
    let operations = tower_operations(trainer, counts.tower_backwards, counts.tower_forwards);
    let tower = stages[Stage::TowerForward as usize] + stages[Stage::TowerMatrix as usize];
    let gradient = bytemuck::cast_slice(trainer.lanes().gradient());
    Ok(StepTimes {
        ms: seconds * 1e3,
        ms_range: range.map(|seconds| seconds * 1e3),
        stages_ms: Stage::ALL
            .iter()
            .map(|(stage, name)| ((*name).to_owned(), (stages[*stage as usize] * 1e3).into()))
            .collect(),
        gflops: operations / seconds / 1e9,
        tower_gflops: operations / tower / 1e9,
        peak_gflops: peak,
        memory_gbs: machine.memory_gbs,
        third_cache_gbs: machine.third_cache_gbs,
        tower_share_of_peak: operations / tower / 1e9 / peak,
        tower_ms: tower * 1e3,
        step_to_tower: seconds / tower,
        images: counts.tower_forwards,
        images_per_second: counts.tower_forwards / seconds,
        impressions,
        impressions_per_second: impressions / seconds,
        peak_memory_bytes,
        loss: losses.last().copied().unwrap_or(f64::NAN),
        losses,
        checksum: blake3::hash(gradient).to_hex()[..16].to_owned(),
        steps: times.len() as u64,
        threads,
    })
}

/// Floating-point operations of a step's tower products: forward all layers, and the gradient of
/// the first layer's matrix.
fn tower_operations(trainer: &Trainer, backwards: f64, forwards: f64) -> f64 {
    let towers = &trainer.lanes().network.towers;
    let of = |cost: &dyn Fn(&TowerDefinition) -> usize| -> f64 {
        towers.iter().map(|tower| cost(tower) as f64).sum::<f64>() / towers.len().max(1) as f64
    };
    let first = |tower: &TowerDefinition| 2 * tower.input() * tower.model.config().widths[0];
    let upper = |tower: &TowerDefinition| {
        tower.model.config().widths.windows(2).map(|pair| 2 * pair[0] * pair[1]).sum::<usize>()
    };
    forwards * (of(&first) + of(&upper)) + backwards * of(&first)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values {
        [] => f64::NAN,
        values => values[values.len() / 2],
    }
}

/// The memory of this process, where the system tells it the Linux way.
pub fn resident() -> Option<Resident> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kilobytes * 1024)
    };
    Some(Resident { now: bytes("VmRSS:")?, most: bytes("VmHWM:")? })
}
