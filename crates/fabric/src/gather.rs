//! Small values that every process, or the first one, has to know. Rare, so nothing here is tuned.

use crate::words as pairs;
use crate::{Fabric, Lost};

/// Words sent to the first rank at once; a message stays far below what MPI can count.
const CHUNK: usize = 1 << 24;

/// Every rank's words, in rank order, at every rank.
///
/// # Errors
/// As [`Fabric::exchange`].
pub fn words(fabric: &mut dyn Fabric, mine: &[u32]) -> Result<Vec<Vec<u32>>, Lost> {
    let size = fabric.size();
    let mut recv = Vec::new();
    let got = fabric.exchange(&mine.repeat(size), &vec![mine.len(); size], &mut recv)?;
    let mut rest = &recv[..];
    Ok(got
        .into_iter()
        .map(|count| {
            let (part, tail) = rest.split_at(count);
            rest = tail;
            part.to_vec()
        })
        .collect())
}

/// Every rank's numbers, in rank order, at every rank.
///
/// # Errors
/// As [`Fabric::exchange`].
pub fn numbers(fabric: &mut dyn Fabric, mine: &[u64]) -> Result<Vec<Vec<u64>>, Lost> {
    let mut split = Vec::with_capacity(2 * mine.len());
    mine.iter().for_each(|&number| pairs::push(&mut split, number));
    let join = |part: Vec<u32>| pairs::numbers(&part).collect();
    Ok(words(fabric, &split)?.into_iter().map(join).collect())
}

/// Every rank's text, in rank order, at every rank.
///
/// # Errors
/// As [`Fabric::exchange`].
pub fn texts(fabric: &mut dyn Fabric, mine: &str) -> Result<Vec<String>, Lost> {
    let mut packed = vec![mine.len() as u32];
    packed.extend(mine.as_bytes().chunks(4).map(|bytes| {
        let mut word = [0; 4];
        word[..bytes.len()].copy_from_slice(bytes);
        u32::from_le_bytes(word)
    }));
    let unpack = |part: Vec<u32>| {
        let mut bytes: Vec<u8> = part[1..].iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(part[0] as usize);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ok(words(fabric, &packed)?.into_iter().map(unpack).collect())
}

/// Every rank's words, in rank order, at the first rank; nothing at the others. Any amount: it goes
/// in several exchanges.
///
/// # Errors
/// As [`Fabric::exchange`].
pub fn to_first(fabric: &mut dyn Fabric, mine: &[u32]) -> Result<Vec<Vec<u32>>, Lost> {
    let size = fabric.size();
    let mut all = vec![Vec::new(); if fabric.rank() == 0 { size } else { 0 }];
    let (mut rest, mut recv, mut counts) = (mine, Vec::new(), vec![0; size]);
    while fabric.any(!rest.is_empty())? {
        let (part, tail) = rest.split_at(rest.len().min(CHUNK));
        counts[0] = part.len();
        let got = fabric.exchange(part, &counts, &mut recv)?;
        let mut at = 0;
        for (words, count) in all.iter_mut().zip(got) {
            words.extend_from_slice(&recv[at..at + count]);
            at += count;
        }
        rest = tail;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Solo, ThreadFabric};

    #[test]
    fn everybody_hears_everybody() {
        let text = |rank: usize| "äé".repeat(rank) + &"x".repeat(3 * rank);
        let numbers_of = |rank: usize| vec![u64::MAX - rank as u64; rank];
        for size in [1, 2, 4] {
            for (texts, numbers) in ThreadFabric::run(size, |mut fabric| {
                let rank = fabric.rank();
                let texts = texts(&mut fabric, &text(rank)).unwrap();
                (texts, numbers(&mut fabric, &numbers_of(rank)).unwrap())
            }) {
                assert_eq!(texts, (0..size).map(text).collect::<Vec<_>>());
                assert_eq!(numbers, (0..size).map(numbers_of).collect::<Vec<_>>());
            }
        }
        assert_eq!(texts(&mut Solo, "alone").unwrap(), ["alone"]);
    }

    #[test]
    fn the_first_rank_gets_any_amount() {
        let mine = |rank: usize| -> Vec<u32> {
            (0..[0, CHUNK + 3, 5, 0][rank]).map(|at| (at * 7 + rank) as u32).collect()
        };
        let got = ThreadFabric::run(4, |mut fabric| {
            let mine = mine(fabric.rank());
            to_first(&mut fabric, &mine).unwrap()
        });
        assert!(got[0] == (0..4).map(mine).collect::<Vec<_>>());
        assert!(got[1..].iter().all(Vec::is_empty));
        assert_eq!(to_first(&mut Solo, &[1, 2]).unwrap(), [[1, 2]]);
    }
}
