//! How far into an epoch a step reads.

/// How far into the epoch a step reads: up to share `numerator / denominator` of each lane's
/// impressions.
///
/// Every lane spends its impressions evenly over the steps of the epoch, so all lanes end together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Steps done when this one is.
    pub numerator: u64,
    /// Steps of the epoch.
    pub denominator: u64,
}

impl Share {
    /// Of a lane with `impressions`.
    pub(crate) fn of(self, impressions: u64) -> u64 {
        let part = u128::from(impressions) * u128::from(self.numerator);
        u64::try_from(part.div_ceil(u128::from(self.denominator))).expect("a share of a u64")
    }

    /// The number of steps that give about `batch` impressions each.
    pub(crate) fn steps(impressions: u64, batch: usize) -> u64 {
        impressions.div_ceil(batch as u64).max(1)
    }
}
