//! A day of the log.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Seconds of a day.
const SECONDS: i64 = 86_400;

/// A day in UTC, in days since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i64);

impl Day {
    /// The day of an instant in Unix seconds.
    pub fn of(time: i64) -> Day {
        Day(time.div_euclid(SECONDS))
    }

    /// Its first second, in Unix seconds.
    pub fn begin(self) -> i64 {
        self.0 * SECONDS
    }

    /// Days from `earlier` to this one; negative if that is later.
    pub fn since(self, earlier: Day) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The day `days` later; earlier, if that is negative.
    #[must_use]
    pub fn plus(self, days: i64) -> Day {
        Day(self.0.saturating_add(days))
    }
}

/// An instant in Unix seconds as `ams prepare` reads it: `2024-03-05 00:00:00`, in UTC.
pub fn instant(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => TimeZone::UTC.to_datetime(time).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => seconds.to_string(),
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_second(self.begin()) {
            Ok(begin) => write!(f, "{}", begin.to_zoned(TimeZone::UTC).date()),
            Err(_) => write!(f, "day {}", self.0),
        }
    }
}

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Day, String> {
        let wrong = || format!("{text:?} is no day; expected one such as 2024-03-05");
        let is_plain = text.len() == 10 && text.is_ascii();
        let date: Date = is_plain.then(|| text.parse().ok()).flatten().ok_or_else(wrong)?;
        let midnight = date.to_zoned(TimeZone::UTC).map_err(|_| wrong())?;
        Ok(Day::of(midnight.timestamp().as_second()))
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Day, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_and_written() {
        let day: Day = "2024-02-29".parse().unwrap();
        assert_eq!((day.begin(), day.to_string()), (1_709_164_800, "2024-02-29".to_owned()));
        assert_eq!(instant(day.begin() + 61), "2024-02-29 00:01:01");
        assert_eq!(day.plus(1).to_string(), "2024-03-01");
        assert_eq!((day.plus(3).since(day), day.since(day.plus(3))), (3, -3));
        assert_eq!((Day::of(-1).to_string(), Day::of(0).begin()), ("1969-12-31".to_owned(), 0));
        for wrong in
            ["2024-2-9", "2023-02-29", "today", "", "2024-03-05T00:00:00Z", "２０２４-03-05"]
        {
            let error = wrong.parse::<Day>().unwrap_err();
            assert!(error.contains("expected one such as 2024-03-05"), "{error}");
        }
    }
}
