//! Which samples are read: the split, and the users held out of a training.
//!
//! Users are spread over the parts of a dataset by hash. `train.validation_parts` of the training
//! samples' parts are held out, the last one of each run of `parts / validation_parts` parts, so
//! that lanes, which own runs of parts, lose about the same.

use ams_data::dataset::SplitName;

/// The samples of some users in a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Training or test samples.
    pub split: SplitName,
    /// Test samples have no held-out users: [`Users::All`].
    pub users: Users,
}

/// Whose samples to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Users {
    /// Samples of all users.
    All,
    /// Those of the users that are learned from.
    Learned,
    /// Those of the others.
    HeldOut,
}

impl Users {
    /// Whether part `part` of `parts` is read, of which `held_out` are held out.
    pub(crate) fn read(self, part: usize, parts: usize, held_out: usize) -> bool {
        let is_held_out = held_out > 0 && (part + 1).is_multiple_of(parts / held_out);
        match self {
            Users::All => true,
            Users::Learned => !is_held_out,
            Users::HeldOut => is_held_out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_parts_are_spread_evenly() {
        for (parts, held_out) in [(64, 1), (64, 8), (64, 32), (4, 2)] {
            let of = |users: Users| -> Vec<usize> {
                (0..parts).filter(|&part| users.read(part, parts, held_out)).collect()
            };
            let (learned, held) = (of(Users::Learned), of(Users::HeldOut));
            assert_eq!((held.len(), learned.len()), (held_out, parts - held_out));
            let expected: Vec<usize> = (1..=held_out).map(|n| n * (parts / held_out) - 1).collect();
            assert_eq!(held, expected);
            assert_eq!(of(Users::All).len(), parts);
        }
        assert!((0..64).all(|part| Users::Learned.read(part, 64, 0)));
        assert!(!(0..64).any(|part| Users::HeldOut.read(part, 64, 0)));
    }
}
