//! How similarities are standardized: by the first batches of a training, once.
//!
//! The numbers of a lane are summed in their order, then lanes along the tree of all sums, so that
//! shifts and scales do not depend on the number of threads or processes. They lie among the dense
//! weights, without a gradient: checkpoints, bundles and warm starts have them like any weight.

use ams_fabric::{gather, sum};
use ams_model::rank::Moments;
use rayon::prelude::*;

use crate::error::Result;
use crate::step::share::Share;
use crate::step::worker::Worker;
use crate::step::{Lanes, Pass};

/// Batches that shifts and scales are taken from.
const BATCHES: u64 = 32;

/// Runs the first of the `steps` batches of an epoch, which `workers` are at the beginning of, and
/// standardizes by them. All processes call it together.
///
/// # Errors
/// If samples cannot be read or a process is lost.
pub(crate) fn standardize(lanes: &mut Lanes, workers: &mut [Worker], steps: u64) -> Result<()> {
    let contents = lanes.network.contents.len();
    let mut mine = vec![vec![Moments::default(); contents]; workers.len()];
    for numerator in 1..=BATCHES.min(steps) {
        let share = Share { numerator, denominator: steps };
        lanes.forward(workers, share, Pass::Evaluate)?;
        let network = &lanes.network;
        lanes.pool().install(|| {
            let each = workers.par_iter_mut().zip(&mut mine).with_max_len(1);
            each.for_each(|(worker, moments)| worker.add_moments(network, moments));
        });
    }
    let bits: Vec<u64> = mine
        .iter()
        .flatten()
        .flat_map(|moments| moments.0.as_flattened())
        .map(|number| number.to_bits())
        .collect();
    let all = gather::numbers(lanes.fabric(), &bits)?.concat();
    let width = all.len() / lanes.topology.lanes();
    let of_all = |at: usize| {
        let of_lanes = all.iter().skip(at).step_by(width.max(1));
        sum::tree_f64(&mut of_lanes.map(|&bits| f64::from_bits(bits)).collect::<Vec<_>>())
    };
    let mut moments = vec![Moments::default(); contents];
    let numbers = moments.iter_mut().flat_map(|moments| moments.0.as_flattened_mut());
    numbers.enumerate().for_each(|(at, number)| *number = of_all(at));
    let range = lanes.network.rank_range();
    let Lanes { network, dense, .. } = lanes;
    network.rank.standardize(&moments, &mut dense.w[range]);
    Ok(())
}
