//! When, by the times of the samples, an id was seen, and how often: what decides whose row goes.

/// Seconds of a day.
const DAY: i64 = 86_400;

/// The sightings of an id, in one step or since its row was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// The last day; [`Sighting::NEVER`] if it is not known.
    pub day: i32,
    /// References to the id in samples, behaviors and users once per group.
    pub count: u32,
}

impl Sighting {
    /// Before every day.
    pub(crate) const NEVER: i32 = i32::MIN;

    /// No sighting.
    pub(crate) const NONE: Sighting = Sighting { day: Sighting::NEVER, count: 0 };

    /// The day of `time`, unix seconds, in UTC and counted from 1970-01-01.
    pub(crate) fn day_of(time: i64) -> i32 {
        let (first, last) = (i64::from(Sighting::NEVER) + 1, i64::from(i32::MAX));
        time.div_euclid(DAY).clamp(first, last) as i32
    }

    /// Adds later or earlier ones of the same id.
    pub(crate) fn add(&mut self, other: Sighting) {
        self.day = self.day.max(other.day);
        self.count = self.count.saturating_add(other.count);
    }

    /// The order in which rows go, the least first: by last day, then by count, then by id.
    pub(crate) fn key(self, id: u64) -> u128 {
        let day = self.day.cast_unsigned() ^ (1 << 31);
        (u128::from(day) << 96) | (u128::from(self.count) << 64) | u128::from(id)
    }

    /// As one number, for a file.
    pub(crate) fn to_bits(self) -> u64 {
        (u64::from(self.day.cast_unsigned()) << 32) | u64::from(self.count)
    }

    /// The inverse of [`Sighting::to_bits`].
    pub(crate) fn from_bits(bits: u64) -> Sighting {
        Sighting { day: ((bits >> 32) as u32).cast_signed(), count: bits as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_by_day_then_count_then_id() {
        let of = |day, count, id| Sighting { day, count }.key(id);
        let ordered = [
            of(Sighting::NEVER, u32::MAX, 9),
            of(-1, 5, u64::MAX),
            of(0, 0, 1),
            of(0, 1, 0),
            of(0, 1, u64::MAX),
            of(0, 2, 0),
            of(i32::MAX, 0, 0),
        ];
        assert!(ordered.is_sorted(), "{ordered:x?}");
    }

    #[test]
    fn days_begin_at_midnight_of_utc() {
        let days = [-86_401, -1, 0, 86_399, 86_400, i64::MIN, i64::MAX].map(Sighting::day_of);
        assert_eq!(days, [-2, -1, 0, 0, 1, i32::MIN + 1, i32::MAX]);
        for sighting in [Sighting::NONE, Sighting { day: -3, count: u32::MAX }] {
            assert_eq!(Sighting::from_bits(sighting.to_bits()), sighting);
        }
    }
}
