//! What a cell says: numbers, labels, instants, field values. Pure functions of text; errors are phrases to
//! be completed with file, row and column.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// Which mark separates the fraction of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decimal {
    /// `1,234.5`
    #[serde(rename = ".")]
    Point,
    /// `1.234,5`
    #[serde(rename = ",")]
    Comma,
}

/// Reads a number. Without `decimal` only plain numbers are accepted, because `1,234` means different
/// numbers in different countries; with it, the other mark may group thousands.
///
/// # Errors
/// What came and what was expected.
pub fn number(text: &str, decimal: Option<Decimal>) -> Result<f64, String> {
    let text = text.trim();
    let plain = match decimal {
        None if text.contains(',') => {
            return Err(format!(
                "`{text}` has a comma; say whether numbers are like 1,234.5 (decimal = \".\") or 1.234,5 (decimal = \",\")"
            ));
        }
        None => Some(text.to_string()),
        Some(Decimal::Point) => without_thousands(text, ',', '.'),
        Some(Decimal::Comma) => {
            without_thousands(text, '.', ',').map(|text| text.replace(',', "."))
        }
    };
    let value = plain.and_then(|text| text.parse::<f64>().ok()).filter(|value| value.is_finite());
    value.ok_or_else(|| match decimal {
        Some(Decimal::Point) if text.contains(',') => {
            format!(
                "`{text}` is not a number like 1,234.5; with a decimal comma, say decimal = \",\""
            )
        }
        Some(Decimal::Comma) if text.contains('.') => {
            format!(
                "`{text}` is not a number like 1.234,5; with a decimal point, say decimal = \".\""
            )
        }
        _ => format!("`{text}` is not a number"),
    })
}

/// Removes `mark` where it groups thousands before `point`; `None` where it stands anywhere else.
fn without_thousands(text: &str, mark: char, point: char) -> Option<String> {
    let (whole, fraction) = text.split_once(point).unwrap_or((text, ""));
    if fraction.contains(mark) {
        return None;
    }
    let mut groups = whole.trim_start_matches(['-', '+']).split(mark);
    let first = groups.next().map_or(0, str::len);
    let grouped = whole.contains(mark);
    if grouped && (first == 0 || first > 3 || groups.any(|group| group.len() != 3)) {
        return None;
    }
    Some(text.replace(mark, ""))
}

/// The bucket of a number: the lower end of its half octave, [2^k, 1.5 * 2^k) or [1.5 * 2^k, 2^(k+1)), so
/// the buckets are called 1, 1.5, 2, 3, 4, 6, 8, 12, ... Negative numbers mirror positive ones; what is
/// smaller than 2^-20 is 0.
pub fn bucket(value: f64) -> String {
    let size = value.abs();
    if size < 2f64.powi(-20) {
        return "0".to_string();
    }
    // Taken from the bits, so that every machine draws the same borders.
    let octave = f64::from_bits(size.to_bits() & !((1 << 52) - 1));
    let lower = if size < 1.5 * octave { octave } else { 1.5 * octave };
    if value < 0.0 { format!("-{lower}") } else { lower.to_string() }
}

/// Reads a label: 1 or 0 (also `true`, `false`, `1.0`, `0.0`), or, with `positive_from`, whether a
/// number reaches it.
///
/// # Errors
/// What came and what was expected.
pub fn label(
    text: &str,
    positive_from: Option<f64>,
    decimal: Option<Decimal>,
) -> Result<u8, String> {
    if text.is_empty() {
        return Err("no label; expected 0 or 1 in every row".to_string());
    }
    if let Some(from) = positive_from {
        return number(text, decimal).map(|value| u8::from(value >= from));
    }
    match text {
        "1" | "1.0" => Ok(1),
        "0" | "0.0" => Ok(0),
        _ if text.eq_ignore_ascii_case("true") => Ok(1),
        _ if text.eq_ignore_ascii_case("false") => Ok(0),
        _ => Err(format!(
            "label `{text}`; expected 0 or 1 (for ratings, say from which value on they are positive: \
             --positive-from)"
        )),
    }
}

/// How the instants of a column are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeForm {
    /// Unix time, by magnitude: seconds, milliseconds, microseconds or nanoseconds.
    Unix {
        /// Units per second.
        per_second: i64,
    },
    /// `20200922`: the day's midnight, UTC.
    CompactDate,
    /// `2020-09-22`: the day's midnight, UTC.
    Date,
    /// `2020-09-22T10:11:12`, UTC unless it has an offset.
    DateTime,
}

impl TimeForm {
    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            TimeForm::Unix { per_second: 1 } => "unix seconds",
            TimeForm::Unix { per_second: 1_000 } => "unix milliseconds",
            TimeForm::Unix { per_second: 1_000_000 } => "unix microseconds",
            TimeForm::Unix { .. } => "unix nanoseconds",
            TimeForm::CompactDate | TimeForm::Date => "days (a whole day is one instant)",
            TimeForm::DateTime => "dates with time, UTC unless an offset says otherwise",
        }
    }
}

/// Reads the instants of one column, all written in the form of the first.
#[derive(Clone, Debug, Default)]
pub struct TimeReader {
    first: Option<(TimeForm, String)>,
    last: Option<(String, i64)>,
}

impl TimeReader {
    /// The form of the column, once a value was read.
    pub fn form(&self) -> Option<TimeForm> {
        self.first.as_ref().map(|&(form, _)| form)
    }

    /// Unix seconds of `text`; fractions are cut off towards the past.
    ///
    /// # Errors
    /// If it is no instant, or one in another form than the column's first.
    pub fn read(&mut self, text: &str) -> Result<i64, String> {
        // Logs are mostly sorted by time, and days repeat.
        if let Some((last, time)) = &self.last
            && last == text
        {
            return Ok(*time);
        }
        let (form, time) = instant(text.trim()).ok_or_else(|| {
            format!("`{text}` is not a time; expected unix time, 2020-09-22 or 2020-09-22T10:11:12")
        })?;
        match &self.first {
            None => self.first = Some((form, text.to_string())),
            Some((expected, _)) if *expected == form => {}
            Some((expected, first)) => {
                return Err(format!(
                    "time `{text}` reads as {}, but the first row's `{first}` as {}; one form per column",
                    form.describe(),
                    expected.describe()
                ));
            }
        }
        self.last = Some((text.to_string(), time));
        Ok(time)
    }
}

/// Unix seconds of an instant in any of the forms.
pub fn instant(text: &str) -> Option<(TimeForm, i64)> {
    let bytes = text.as_bytes();
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    if !digits.is_empty() && digits.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') {
        if bytes.len() == 8
            && let Some(date) = compact_date(text)
        {
            return Some((TimeForm::CompactDate, midnight(date)?));
        }
        return unix(text);
    }
    if bytes.len() == 10
        && let Ok(date) = text.parse::<Date>()
    {
        return Some((TimeForm::Date, midnight(date)?));
    }
    if let Ok(timestamp) = text.parse::<jiff::Timestamp>() {
        return Some((TimeForm::DateTime, floor_second(timestamp)));
    }
    let civil = text.parse::<DateTime>().ok()?;
    let zoned = TimeZone::UTC.to_timestamp(civil).ok()?;
    (bytes.len() > 10).then(|| (TimeForm::DateTime, floor_second(zoned)))
}

fn floor_second(timestamp: jiff::Timestamp) -> i64 {
    timestamp.as_nanosecond().div_euclid(1_000_000_000) as i64
}

fn midnight(date: Date) -> Option<i64> {
    Some(TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?.as_second())
}

/// Eight digits that are a day between 1990 and 2100. As unix seconds they would be days of August 1970.
fn compact_date(text: &str) -> Option<Date> {
    let date = Date::new(
        text.get(..4)?.parse().ok()?,
        text.get(4..6)?.parse().ok()?,
        text.get(6..)?.parse().ok()?,
    );
    date.ok().filter(|date| (1990..=2100).contains(&date.year()))
}

fn unix(text: &str) -> Option<(TimeForm, i64)> {
    let whole = match text.parse::<i64>() {
        Ok(whole) => whole,
        Err(_) => {
            let value = text.parse::<f64>().ok().filter(|value| value.abs() < 9e18)?;
            value.floor() as i64
        }
    };
    let per_second = match whole.unsigned_abs() {
        ..100_000_000_000 => 1,
        100_000_000_000..100_000_000_000_000 => 1_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000_000,
        _ => 1_000_000_000,
    };
    Some((TimeForm::Unix { per_second }, whole.div_euclid(per_second)))
}

/// `2020-09-22 10:11:12` for people, UTC.
pub fn show_time(seconds: i64) -> String {
    match jiff::Timestamp::from_second(seconds) {
        Ok(timestamp) => {
            TimeZone::UTC.to_datetime(timestamp).strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
        Err(_) => seconds.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, decimal: Option<Decimal>) -> String {
        match number(text, decimal) {
            Ok(value) => value.to_string(),
            Err(what) => what,
        }
    }

    #[test]
    fn numbers_of_several_countries() {
        let point = Some(Decimal::Point);
        let comma = Some(Decimal::Comma);
        assert_eq!(read("12.5", None), "12.5");
        assert_eq!(read(" -3 ", None), "-3");
        assert_eq!(read("1,234.5", point), "1234.5");
        assert_eq!(read("12,5", comma), "12.5");
        assert_eq!(read("-1.234.567,5", comma), "-1234567.5");
        assert_eq!(read("1.234", comma), "1234");
    }

    #[test]
    fn numbers_that_look_like_another_country() {
        assert_eq!(
            read("1,234", None),
            "`1,234` has a comma; say whether numbers are like 1,234.5 (decimal = \".\") or 1.234,5 (decimal = \",\")"
        );
        assert_eq!(
            read("12,5", Some(Decimal::Point)),
            "`12,5` is not a number like 1,234.5; with a decimal comma, say decimal = \",\""
        );
        assert_eq!(
            read("12.5", Some(Decimal::Comma)),
            "`12.5` is not a number like 1.234,5; with a decimal point, say decimal = \".\""
        );
        assert_eq!(read("NaN", None), "`NaN` is not a number");
        assert_eq!(read("12€", None), "`12€` is not a number");
    }

    #[test]
    fn buckets_are_half_octaves() {
        let names: Vec<_> = [0.0, 1.0, 1.49, 1.5, 5.9, 6.0, 99.0, -5.0, 0.25].map(bucket).into();
        assert_eq!(names, ["0", "1", "1", "1.5", "4", "6", "96", "-4", "0.25"]);
    }

    #[test]
    fn labels() {
        let read = |text: &str, from| label(text, from, None);
        assert_eq!(
            ["1", "0", "True", "0.0"].map(|text| read(text, None)),
            [Ok(1), Ok(0), Ok(1), Ok(0)]
        );
        assert_eq!(["3.5", "4"].map(|text| read(text, Some(4.0))), [Ok(0), Ok(1)]);
        assert!(read("2", None).unwrap_err().starts_with("label `2`; expected 0 or 1"));
        assert!(read("", None).unwrap_err().starts_with("no label"));
        assert_eq!(read("good", Some(4.0)), Err("`good` is not a number".into()));
    }

    /// The first text sets the form; what the second reads as.
    fn times(first: &str, second: &str) -> Result<(i64, i64), String> {
        let mut reader = TimeReader::default();
        Ok((reader.read(first)?, reader.read(second)?))
    }

    #[test]
    fn forms_of_time() {
        assert_eq!(times("1600000000", "-1"), Ok((1_600_000_000, -1)));
        assert_eq!(times("1600000000.7", "0"), Ok((1_600_000_000, 0)));
        assert_eq!(times("1600000000123", "1600000000999"), Ok((1_600_000_000, 1_600_000_000)));
        assert_eq!(times("1600000000000001", "1600000001000000").unwrap().1, 1_600_000_001);
        assert_eq!(times("2020-09-22", "1969-12-31"), Ok((1_600_732_800, -86_400)));
        assert_eq!(times("20200922", "20200923"), Ok((1_600_732_800, 1_600_819_200)));
        let offset = "2020-09-22 02:00:00+02:00";
        assert_eq!(times(offset, "2020-09-22T00:00:00Z"), Ok((1_600_732_800, 1_600_732_800)));
        assert_eq!(
            times("2020-09-22T00:00:01.5", "2020-09-22 00:01"),
            Ok((1_600_732_801, 1_600_732_860))
        );
    }

    #[test]
    fn mixed_and_unreadable_times() {
        assert_eq!(
            times("1600000000", "1600000000123").unwrap_err(),
            "time `1600000000123` reads as unix milliseconds, but the first row's `1600000000` as unix seconds; \
             one form per column"
        );
        assert!(
            times("2020-09-22", "2020-09-22T01:00:00").unwrap_err().contains("one form per column")
        );
        for garbage in ["yesterday", "22.09.2020", "2020-13-01", "1.2.3", "-"] {
            let error = times("0", garbage).unwrap_err();
            assert!(error.contains("is not a time"), "{garbage}: {error}");
        }
    }
}
