//! Which pairs are in the batch of a step.
//!
//! All processes know when each pair of each lane was, and draw the same batch: a window of so many
//! pairs that follow one another in time, at a place that all are as likely, and of these the
//! batch, without repetition.

use ams_fabric::{Fabric, Topology, gather, words};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::align::pairs::Pair;
use crate::error::Result;

/// All pairs of all lanes in the order of time: the lane of each, and its number there.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Order {
    places: Vec<(u32, u32)>,
    lanes: usize,
}

impl Order {
    /// Of all lanes; `local` are the pairs of the local ones, by time. All processes call it
    /// together.
    ///
    /// # Errors
    /// If a process is lost.
    pub(crate) fn of(
        local: &[&[Pair]],
        topology: Topology,
        fabric: &mut dyn Fabric,
    ) -> Result<Order> {
        let mut mine = Vec::new();
        for pairs in local {
            words::push(&mut mine, pairs.len() as u64);
            pairs.iter().for_each(|pair| words::push(&mut mine, pair.time as u64));
        }
        let mut times = Vec::new();
        let mut lane = 0;
        for words in gather::words(fabric, &mine)? {
            let mut numbers = words::numbers(&words);
            while let Some(count) = numbers.next() {
                let each = numbers.by_ref().take(count as usize).enumerate();
                times.extend(each.map(|(at, time)| (time as i64, lane, at as u32)));
                lane += 1;
            }
        }
        assert_eq!(lane as usize, topology.lanes(), "every lane says how many pairs it has");
        times.sort_unstable();
        let places = times.into_iter().map(|(_, lane, at)| (lane, at)).collect();
        Ok(Order { places, lanes: topology.lanes() })
    }

    pub(crate) fn pairs(&self) -> usize {
        self.places.len()
    }

    /// The batch of step `step`: of each lane, the numbers of its pairs.
    pub(crate) fn draw(&self, seed: u64, step: u64, batch: usize, window: usize) -> Vec<Vec<u32>> {
        let window = batch.saturating_mul(window).min(self.places.len());
        let mut random = generator(seed, step);
        let start = below(&mut random, self.places.len() - window + 1);
        let mut picks: Vec<u32> = (0..window as u32).collect();
        let batch = batch.min(window);
        for at in 0..batch {
            let other = at + below(&mut random, window - at);
            picks.swap(at, other);
        }
        let mut lanes = vec![Vec::new(); self.lanes];
        for &pick in &picks[..batch] {
            let (lane, at) = self.places[start + pick as usize];
            lanes[lane as usize].push(at);
        }
        lanes
    }
}

fn generator(seed: u64, step: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&step.to_le_bytes());
    key[16..21].copy_from_slice(b"align");
    ChaCha8Rng::from_seed(key)
}

/// A number below `count`; the bias of the multiply-shift draw is below 2^-32.
fn below(random: &mut ChaCha8Rng, count: usize) -> usize {
    ((u128::from(random.next_u64()) * count as u128) >> 64) as usize
}
