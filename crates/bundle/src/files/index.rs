//! Finding hashes in an ascending list: a directory over their high bits, then a search in one
//! bucket.
//!
//! Ids, keys and names are hashes, so they fill the range evenly and a bucket holds about one of
//! them. Any other ascending list works too, only slower.

use crate::files::numbers::Numbers;

/// An ascending list of different hashes and where each is.
#[derive(Clone, Debug)]
pub struct Index {
    hashes: Numbers<u64>,
    /// Where each bucket begins, one more than there are buckets.
    starts: Vec<u32>,
    /// A hash belongs to the bucket `hash >> shift`.
    shift: u32,
}

impl Index {
    /// An index over `hashes`, or what is wrong with them.
    pub fn new(hashes: impl Into<Numbers<u64>>) -> Result<Index, String> {
        let hashes = hashes.into();
        if let Some(at) = hashes.windows(2).position(|pair| pair[0] >= pair[1]) {
            return Err(format!("is not ascending at position {}", at + 1));
        }
        let count = u32::try_from(hashes.len())
            .map_err(|_| format!("has {} values, expected less than 2^32", hashes.len()))?;
        // At least two buckets: a shift by 64 bits is none.
        let bits = hashes.len().next_power_of_two().trailing_zeros().max(1);
        let shift = 64 - bits;
        let mut starts = Vec::with_capacity((1 << bits) + 1);
        for (at, hash) in hashes.iter().enumerate() {
            let bucket = (hash >> shift) as usize;
            while starts.len() <= bucket {
                starts.push(at as u32);
            }
        }
        starts.resize((1 << bits) + 1, count);
        Ok(Index { hashes, starts, shift })
    }

    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there is no hash.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The position of `hash` in the list.
    pub fn find(&self, hash: u64) -> Option<u32> {
        let bucket = (hash >> self.shift) as usize;
        let (start, end) = (self.starts[bucket] as usize, self.starts[bucket + 1] as usize);
        let within = self.hashes[start..end].binary_search(&hash).ok()?;
        Some((start + within) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hash_is_found_and_no_other() {
        let spread: Vec<u64> = (0..1000).map(|i| i * (u64::MAX / 1000)).collect();
        let cases: [Vec<u64>; 6] = [
            vec![],
            vec![0],
            vec![u64::MAX],
            vec![0, 1, 2, 3, u64::MAX - 1, u64::MAX],
            (500..600).collect(),
            spread,
        ];
        for hashes in cases {
            let index = Index::new(hashes.clone()).unwrap();
            assert_eq!((index.len(), index.is_empty()), (hashes.len(), hashes.is_empty()));
            for (at, &hash) in hashes.iter().enumerate() {
                assert_eq!(index.find(hash), Some(at as u32));
            }
            for probe in [0, 1, 77, 499, 600, 1 << 40, 1 << 63, u64::MAX - 2, u64::MAX] {
                assert_eq!(index.find(probe).is_some(), hashes.contains(&probe), "{probe}");
            }
        }
    }

    #[test]
    fn order_is_checked() {
        for (hashes, at) in [(vec![1, 2, 2], 2), (vec![5, 4], 1)] {
            let expected = format!("is not ascending at position {at}");
            assert_eq!(Index::new(hashes).err(), Some(expected));
        }
    }
}
