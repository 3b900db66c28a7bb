//! What the machine can do at most: arithmetic, and memory. A slow host is told by it from a slow
//! program.

use std::hint::black_box;
use std::time::Instant;

use ams_model::linalg;
use rayon::ThreadPool;
use serde::Serialize;

/// Rounds of multiply-adds in one measurement of the processor's peak.
const ROUNDS: u64 = 4_000_000;

/// Floats that a thread copies from and to memory: 64 MB each way, beyond any cache that it has for
/// itself.
const FAR: usize = 16 << 20;

/// What a thread reads of the third cache, in second caches.
const THIRD: usize = 4;

/// Measurements of which the best is taken.
const TRIES: usize = 5;

/// All threads together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MachineSpeed {
    /// Fused multiply-adds on registers alone, 10^9 floating-point operations a second.
    pub peak_gflops: f64,
    /// Copying from memory to memory, 10^9 bytes read and written a second.
    pub memory_gbs: f64,
    /// Reading what no second cache holds but a third one may, 10^9 bytes a second.
    pub third_cache_gbs: f64,
}

impl MachineSpeed {
    /// That of the threads of `pool`.
    pub fn of(pool: &ThreadPool) -> MachineSpeed {
        let threads = pool.current_num_threads();
        let near = THIRD * linalg::second_cache() / size_of::<f32>();
        MachineSpeed {
            peak_gflops: peak_gflops(pool),
            memory_gbs: best(
                pool,
                2 * FAR * size_of::<f32>() * threads,
                |buffer| {
                    let (from, to) = buffer.split_at_mut(FAR);
                    to.copy_from_slice(from);
                    black_box(to);
                },
                2 * FAR,
            ),
            third_cache_gbs: best(
                pool,
                near * size_of::<f32>() * threads,
                |buffer| {
                    black_box(sum(buffer));
                },
                near,
            ),
        }
    }
}

/// 10^9 fused operations a second on all threads of the pool.
pub(crate) fn peak_gflops(pool: &ThreadPool) -> f64 {
    let run = || {
        let begin = Instant::now();
        let done = pool.broadcast(|_| black_box(linalg::multiply_adds(ROUNDS)).0);
        done.iter().sum::<u64>() as f64 / begin.elapsed().as_secs_f64() / 1e9
    };
    (0..TRIES).map(|_| run()).fold(0.0, f64::max)
}

/// 10^9 bytes a second: `work`, on a buffer of `len` floats in every thread, moves `bytes` in all.
fn best(pool: &ThreadPool, bytes: usize, work: impl Fn(&mut [f32]) + Sync, len: usize) -> f64 {
    let seconds = pool.broadcast(|_| {
        let mut buffer = vec![1.0; len];
        let run = |buffer: &mut Vec<f32>| {
            let begin = Instant::now();
            work(buffer);
            begin.elapsed().as_secs_f64()
        };
        // The first run brings the buffer near.
        run(&mut buffer);
        (0..TRIES).map(|_| run(&mut buffer)).fold(f64::MAX, f64::min)
    });
    let slowest = seconds.into_iter().fold(0.0, f64::max);
    bytes as f64 / slowest / 1e9
}

/// In so many sums that additions do not wait for each other.
fn sum(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<64>();
    let mut sums = [0.0f32; 64];
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, value)| *sum += value);
    }
    sums.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_read() {
        let values = (0..1_000).map(|at| at as f32).collect::<Vec<f32>>();
        assert_eq!(sum(&values), 499_500.0);
    }
}
