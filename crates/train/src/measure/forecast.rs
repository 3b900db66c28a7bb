//! A forecast of a training on machines that need not exist: bytes, memory, seconds, efficiency.
//!
//! Everything here is computed, nothing measured. How far it can be trusted is in `bench/`, where
//! it stands beside measured steps. Its assumptions:
//! - References to images follow Zipf's law with exponent 1 over the catalogue; so do the ids that
//!   name the same items. [`distinct`] is the number left after merging.
//! - A host is one lane; its share of everything is the mean (hashing spreads ids and images
//!   evenly).
//! - Computing and exchanging do not overlap, every link is used in both directions at its full
//!   speed, and an exchange costs one latency per other host.

use serde::Serialize;

/// The model and the samples of a training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Workload {
    /// Pictures of the catalogue.
    pub images: f64,
    /// Ids that will have a row.
    pub ids: f64,
    /// Impressions of one epoch.
    pub impressions: f64,
    /// Passes over the impressions.
    pub epochs: f64,
    /// Impressions per step and host.
    pub batch_per_host: f64,
    /// Image references per impression: its ad, and its share of the group's behaviors.
    pub images_per_impression: f64,
    /// Id references per impression, image ids included.
    pub ids_per_impression: f64,
    /// Width of an image feature (F).
    pub feature_dim: f64,
    /// Width of the towers' first layer.
    pub first_width: f64,
    /// Width of an embedding (D).
    pub dim: f64,
    /// Weights of one tower.
    pub tower_weights: f64,
    /// Number of towers that are trained.
    pub towers: f64,
    /// Weights of the rank network W.
    pub network_weights: f64,
    /// Bytes of one number in the sum of the dense gradients: 4, or 2 with bf16.
    pub all_reduce_bytes: f64,
}

/// The machines that train.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cluster {
    /// Number of hosts, of one lane each.
    pub hosts: f64,
    /// Bytes per second that a host sends, and at the same time receives.
    pub link_bytes_per_second: f64,
    /// Seconds until a message arrives.
    pub latency_seconds: f64,
    /// Floating-point operations per second that a host reaches in a training step.
    pub flops: f64,
}

/// The cost of a step and of the training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// Number of hosts, of one lane each.
    pub hosts: f64,
    /// Impressions per step, over all hosts.
    pub batch: f64,
    /// Steps of all epochs.
    pub steps: f64,
    /// Image references per step; distinct ones per worker, summed; distinct ones of all.
    pub images: [f64; 3],
    /// The same three of ids.
    pub ids: [f64; 3],
    /// Bytes between hosts per step but for the sum of the dense gradients.
    pub exchange_bytes: f64,
    /// Bytes between hosts per step for the sum of the dense gradients.
    pub all_reduce_bytes: f64,
    /// Bytes that `store-in-server` would send instead of `exchange_bytes`, features as f16.
    pub store_in_server_bytes: f64,
    /// Seconds per step spent computing.
    pub compute_seconds: f64,
    /// Seconds per step spent exchanging.
    pub exchange_seconds: f64,
    /// Seconds per step spent on the sum of the dense gradients.
    pub all_reduce_seconds: f64,
    /// Seconds per step, all of the above together.
    pub step_seconds: f64,
    /// Seconds of the whole training.
    pub seconds: f64,
    /// Throughput, relative to as many hosts that need not exchange anything.
    pub efficiency: f64,
    /// Memory per host: rows with Adam's moments and their index.
    pub rows_bytes_per_host: f64,
    /// Memory-mapped per host: image features as f16.
    pub features_bytes_per_host: f64,
    /// Memory per host: dense weights, moments, gradient.
    pub dense_bytes_per_host: f64,
}

/// Exchanges between all hosts per step: asks, answers, gradients, and two for the dense sum.
const EXCHANGES: f64 = 5.0;

/// Bytes of a row besides its numbers: id, and its share of the index at a usual load.
const INDEX_BYTES: f64 = 8.0 + 24.0;

/// How many distinct things `draws` references name, in expectation, among `things` whose
/// popularity follows Zipf's law with exponent 1.
///
/// Rank k has probability 1 / (k ln(things + 1)); the sum over ranks of 1 - exp(-draws p_k), as an
/// integral over ln k by Simpson's rule.
pub(crate) fn distinct(draws: f64, things: f64) -> f64 {
    if draws <= 0.0 || things < 1.0 {
        return 0.0;
    }
    const PANELS: usize = 512;
    let top = (things + 1.0).ln();
    let value = |log_rank: f64| {
        let rank = log_rank.exp();
        // -expm1 keeps the digits where a rank is hardly ever drawn.
        -(-draws / (rank * top)).exp_m1() * rank
    };
    let step = top / PANELS as f64;
    let sum: f64 = (0..=PANELS)
        .map(|at| {
            let weight = match at {
                0 | PANELS => 1.0,
                at if at % 2 == 1 => 4.0,
                _ => 2.0,
            };
            weight * value(at as f64 * step)
        })
        .sum();
    (sum * step / 3.0).min(draws).min(things)
}

/// The cost of training `workload` on `cluster` with the placement `ams`.
pub fn forecast(workload: &Workload, cluster: &Cluster) -> Forecast {
    let Workload { dim, feature_dim, towers, .. } = *workload;
    let hosts = cluster.hosts;
    let batch = workload.batch_per_host * hosts;
    let steps = (workload.impressions * workload.epochs / batch).ceil();
    // Each tower has its own uses: ads (one per impression) and behaviors (the rest).
    let uses = if towers > 1.0 {
        vec![1.0, (workload.images_per_impression - 1.0).max(0.0)]
    } else {
        vec![workload.images_per_impression]
    };
    let merged = |draws_per_impression: f64, things: f64| {
        let draws = batch * draws_per_impression;
        [draws, hosts * distinct(draws / hosts, things), distinct(draws, things)]
    };
    let add = |a: [f64; 3], b: [f64; 3]| [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
    let images = uses.iter().map(|&uses| merged(uses, workload.images)).fold([0.0; 3], add);
    // An item and its picture are named by two ids of one popularity; the other fields have few
    // values.
    let named = 2.0 * workload.images_per_impression.min(workload.ids_per_impression / 2.0);
    let few = workload.ids_per_impression - named;
    let item_ids = merged(named / 2.0, workload.images).map(|count| 2.0 * count);
    let few_ids = merged(few, (workload.ids - 2.0 * workload.images).clamp(1.0, 1e5));
    let ids = add(item_ids, few_ids);

    let elsewhere = (hosts - 1.0) / hosts;
    let ask = 8.0;
    let vector = dim * 4.0;
    let id_bytes = ids[1] * (ask + 2.0 * vector);
    let exchange_bytes = elsewhere * (id_bytes + images[1] * (ask + 2.0 * vector));
    let store_in_server_bytes = elsewhere * (id_bytes + images[1] * (ask + feature_dim * 2.0));
    let dense = workload.network_weights + towers * workload.tower_weights;
    let all_reduce_bytes = 2.0 * (hosts - 1.0) * dense * workload.all_reduce_bytes;

    // Forward and both gradients are three products of two operations per weight; the towers' first
    // layer, almost all of them, needs no gradient of its input.
    let first = feature_dim * workload.first_width;
    let per_image = 4.0 * first + 6.0 * (workload.tower_weights - first).max(0.0);
    let per_impression = 6.0 * workload.network_weights;
    let flops = images[2] * per_image + batch * per_impression;
    let compute_seconds = flops / (hosts * cluster.flops);
    let wait = cluster.latency_seconds * (hosts - 1.0);
    let exchange_seconds =
        exchange_bytes / hosts / cluster.link_bytes_per_second + (EXCHANGES - 2.0) * wait;
    let all_reduce_seconds = all_reduce_bytes / hosts / cluster.link_bytes_per_second + 2.0 * wait;
    let step_seconds = compute_seconds + exchange_seconds + all_reduce_seconds;
    Forecast {
        hosts,
        batch,
        steps,
        images,
        ids,
        exchange_bytes,
        all_reduce_bytes,
        store_in_server_bytes,
        compute_seconds,
        exchange_seconds,
        all_reduce_seconds,
        step_seconds,
        seconds: steps * step_seconds,
        efficiency: compute_seconds / step_seconds,
        rows_bytes_per_host: workload.ids * (3.0 * vector + INDEX_BYTES) / hosts,
        features_bytes_per_host: workload.images * feature_dim * 2.0 / hosts,
        dense_bytes_per_host: 4.0 * dense * 4.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_is_the_sum_over_ranks() {
        for (draws, things) in [(10.0, 50.0), (1e3, 1e3), (1e4, 1e5), (3e5, 1e6), (5.0, 1e6)] {
            let top = f64::ln(things + 1.0);
            let exact: f64 =
                (1..=things as u64).map(|rank| 1.0 - (-draws / (rank as f64 * top)).exp()).sum();
            let got = distinct(draws, things);
            assert!((got / exact - 1.0).abs() < 0.06, "{draws} of {things}: {got}, {exact}");
        }
        assert_eq!(distinct(0.0, 10.0), 0.0);
        assert!(distinct(1e12, 10.0) <= 10.0);
    }

    fn workload() -> Workload {
        Workload {
            images: 1e6,
            ids: 1e7,
            impressions: 1e9,
            epochs: 2.0,
            batch_per_host: 3000.0,
            images_per_impression: 5.33,
            ids_per_impression: 24.0,
            feature_dim: 4096.0,
            first_width: 256.0,
            dim: 12.0,
            tower_weights: 1_066_000.0,
            towers: 2.0,
            network_weights: 90_000.0,
            all_reduce_bytes: 4.0,
        }
    }

    fn cluster(hosts: f64) -> Cluster {
        Cluster { hosts, link_bytes_per_second: 1.25e9, latency_seconds: 3e-5, flops: 1e12 }
    }

    #[test]
    fn one_host_sends_nothing_and_more_hosts_send_more() {
        let one = forecast(&workload(), &cluster(1.0));
        assert_eq!((one.exchange_bytes, one.all_reduce_bytes, one.efficiency), (0.0, 0.0, 1.0));
        let (few, many) =
            (forecast(&workload(), &cluster(8.0)), forecast(&workload(), &cluster(32.0)));
        assert!(few.exchange_bytes < many.exchange_bytes);
        assert!(few.efficiency > many.efficiency && many.efficiency > 0.0);
        assert!(many.seconds < few.seconds, "more hosts are faster");
        assert!(many.rows_bytes_per_host < few.rows_bytes_per_host);
        assert!(many.images[2] < many.images[1] && many.images[1] < many.images[0]);
    }

    #[test]
    fn half_the_bytes_of_the_dense_sum_with_bf16() {
        let half = Workload { all_reduce_bytes: 2.0, ..workload() };
        let (f32, bf16) = (forecast(&workload(), &cluster(4.0)), forecast(&half, &cluster(4.0)));
        assert_eq!(f32.all_reduce_bytes, 2.0 * bf16.all_reduce_bytes);
        assert_eq!(f32.exchange_bytes, bf16.exchange_bytes);
    }
}
