//! Predictions of all processes at the first one: row by row as words, in lane order.
//!
//! A row is 9 words: user, item, time (2 each, low first), logit, behaviors, and label | image <<
//! 1.

use ams_bundle::Predictions;
use ams_fabric::{Fabric, Lost, gather, words};

/// Words of a row.
const ROW: usize = 9;

/// The predictions of all processes, in rank order, at the first one; none at the others.
///
/// # Errors
/// As [`Fabric::exchange`].
pub(crate) fn gather_predictions(
    fabric: &mut dyn Fabric,
    mine: Predictions,
) -> Result<Predictions, Lost> {
    if fabric.size() == 1 {
        return Ok(mine);
    }
    let mut sent = Vec::with_capacity(mine.len() * ROW);
    for row in 0..mine.len() {
        let time = mine.times[row] as u64;
        for number in [mine.users[row], mine.items[row], time] {
            words::push(&mut sent, number);
        }
        let bits = u32::from(mine.labels[row]) | u32::from(mine.with_image[row]) << 1;
        sent.extend([mine.logits[row].to_bits(), mine.behaviors[row], bits]);
    }
    let mut all = Predictions::default();
    for received in gather::to_first(fabric, &sent)? {
        for row in received.chunks_exact(ROW) {
            let number = |at: usize| words::number(&row[at..]);
            all.users.push(number(0));
            all.items.push(number(2));
            all.times.push(number(4) as i64);
            all.logits.push(f32::from_bits(row[6]));
            all.behaviors.push(row[7]);
            all.labels.push((row[8] & 1) as u8);
            all.with_image.push(row[8] >> 1 == 1);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ams_fabric::ThreadFabric;

    #[test]
    fn rows_arrive_whole_and_in_rank_order() {
        let of_rank = |rank: usize| {
            let count = 3 * rank;
            let number = |at: usize| u64::MAX - (10 * rank + at) as u64;
            Predictions {
                users: (0..count).map(number).collect(),
                items: (0..count).map(|at| number(at) / 3).collect(),
                labels: (0..count).map(|at| (at % 2) as u8).collect(),
                logits: (0..count).map(|at| at as f32 - 2.5).collect(),
                behaviors: (0..count as u32).collect(),
                with_image: (0..count).map(|at| at % 3 == 0).collect(),
                times: (0..count).map(|at| at as i64 - 4).collect(),
            }
        };
        let got = ThreadFabric::run(4, |mut fabric| {
            let mine = of_rank(fabric.rank());
            gather_predictions(&mut fabric, mine).unwrap()
        });
        let mut want = Predictions::default();
        (0..4).for_each(|rank| want.extend(of_rank(rank)));
        assert_eq!(got[0], want);
        assert!(got[1..].iter().all(Predictions::is_empty));
    }
}
