//! Instants: unix time and dates as logs write them, and formats that are stated.

use std::ops::Range;

use jiff::civil::{Date, DateTime};
use jiff::fmt::{rfc2822, strtime};
use jiff::tz::TimeZone;

/// Unix seconds of the years that a log may be from: 1990 to 2100.
const YEARS: Range<i64> = 631_152_000..4_102_444_800;

/// Whether an instant, in unix seconds, is one that a log may be from: of the years 1990 to 2099.
pub(crate) fn is_plausible(seconds: i64) -> bool {
    YEARS.contains(&seconds)
}

/// How the instants of a column are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeForm {
    /// Unix time, by magnitude: seconds, milliseconds, microseconds or nanoseconds.
    Unix {
        /// Units per second, a power of 1,000.
        per_second: i64,
    },
    /// .NET's ticks: tenths of microseconds since the year 1, UTC.
    Ticks,
    /// `20200922`: the day's midnight, UTC.
    CompactDate,
    /// `2020092210`, `202009221011`, `20200922101112`, also with milliseconds: UTC.
    CompactTime,
    /// `2020-09-22`: the day's midnight, UTC.
    Date,
    /// `2020-09-22T10:11:12` and the like, UTC unless it has an offset.
    DateTime,
    /// The format that `--time-format` states.
    Stated,
}

impl TimeForm {
    /// The name of the form in messages for people.
    pub fn describe(self) -> &'static str {
        match self {
            TimeForm::Unix { per_second: 1 } => "unix seconds",
            TimeForm::Unix { per_second: 1_000 } => "unix milliseconds",
            TimeForm::Unix { per_second: 1_000_000 } => "unix microseconds",
            TimeForm::Unix { .. } => "unix nanoseconds",
            TimeForm::Ticks => "ticks of .NET",
            TimeForm::CompactDate | TimeForm::Date => "days (a whole day is one instant)",
            TimeForm::CompactTime => "digits of date and time, UTC",
            TimeForm::DateTime => "dates with time, UTC unless an offset says otherwise",
            TimeForm::Stated => "the stated time format, UTC unless an offset says otherwise",
        }
    }
}

/// Reads the instants of one column, all written in the form of the first, or in a stated format.
#[derive(Clone, Debug, Default)]
pub struct TimeReader {
    format: Option<String>,
    first: Option<(TimeForm, String)>,
    last: Option<(String, i64)>,
}

/// Names of `--time-format` that force a unit of unix time.
const UNITS: [(&str, i64); 4] =
    [("unix", 1), ("unix-ms", 1_000), ("unix-us", 1_000_000), ("unix-ns", 1_000_000_000)];

impl TimeReader {
    /// A reader of texts in `format`: as of strptime (`%d/%m/%Y %H:%M`), or `unix`, `unix-ms`,
    /// `unix-us`, `unix-ns`; without one, of what [`instant`] knows.
    ///
    /// # Errors
    /// If it is no format.
    pub fn new(format: Option<&str>) -> Result<TimeReader, String> {
        let format = format.map(str::trim);
        if let Some(format) = format
            && !UNITS.iter().any(|(name, _)| *name == format)
        {
            // Formats are checked by writing with them: an unknown directive is an error then.
            let wrong = |why: &str| {
                format!(
                    "time format `{format}`: {why}; expected one as of strptime, such as %d/%m/%Y %H:%M, or unix, \
                     unix-ms, unix-us, unix-ns"
                )
            };
            if !format.contains('%') {
                return Err(wrong("it has no directive such as %Y"));
            }
            let any =
                TimeZone::UTC.to_zoned(DateTime::new(2020, 9, 22, 10, 11, 12, 0).expect("a time"));
            if let Ok(any) = any
                && let Err(error) = strtime::format(format, &any)
            {
                return Err(wrong(&error.to_string()));
            }
        }
        Ok(TimeReader { format: format.map(str::to_string), first: None, last: None })
    }

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
        let (form, time) = match &self.format {
            Some(format) => (TimeForm::Stated, stated(format, text.trim())?),
            None => instant(text).map_err(|what| what + &advice(text.trim()))?,
        };
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

/// Unix seconds of `text` in a stated format; a date alone is its midnight, UTC.
fn stated(format: &str, text: &str) -> Result<i64, String> {
    if let Some((_, per_second)) = UNITS.iter().find(|(name, _)| *name == format) {
        let whole = whole_number(text)
            .ok_or_else(|| format!("`{text}` is not a number; --time-format is {format}"))?;
        return Ok(whole.div_euclid(*per_second));
    }
    let wrong = |error: jiff::Error| {
        format!("time `{text}` does not fit --time-format `{format}`: {error}")
    };
    strptime(format, text).map_err(wrong)
}

fn strptime(format: &str, text: &str) -> Result<i64, jiff::Error> {
    let parsed = strtime::parse(format, text)?;
    if let Ok(timestamp) = parsed.to_timestamp() {
        return Ok(floor_second(timestamp));
    }
    let civil = match parsed.to_datetime() {
        Ok(civil) => civil,
        Err(error) => match (parsed.to_date(), parsed.hour()) {
            (Ok(date), None) => date.at(0, 0, 0, 0),
            (Ok(date), Some(hour)) => date.at(hour, parsed.minute().unwrap_or(0), 0, 0),
            (Err(_), _) => return Err(error),
        },
    };
    Ok(floor_second(TimeZone::UTC.to_timestamp(civil)?))
}

/// How a column of times that are not understood can be read: to be added to the error.
fn advice(text: &str) -> String {
    let Some(end) = day_and_month(text) else {
        return ", or a format stated with --time-format".to_string();
    };
    let (day_first, month_first) =
        if text.contains('-') { ("%d-%m-%Y", "%m-%d-%Y") } else { ("%d/%m/%Y", "%m/%d/%Y") };
    let time = match text[end..].matches(':').count() {
        0 => "",
        1 => " %H:%M",
        _ => " %H:%M:%S",
    };
    format!(", or state which: --time-format '{day_first}{time}' or '{month_first}{time}'")
}

/// Formats that name the month or say day and year without doubt.
const PLAIN_FORMATS: [&str; 14] = [
    "%d/%b/%Y:%H:%M:%S %z",
    "%d/%b/%Y:%H:%M:%S",
    "%d-%b-%Y %H:%M:%S",
    "%d %b %Y %H:%M:%S",
    "%d %B %Y %H:%M:%S",
    "%b %d, %Y %I:%M:%S %p",
    "%b %d, %Y, %I:%M:%S %p",
    "%b %d, %Y %H:%M:%S",
    "%b %d %Y %H:%M:%S",
    "%a %b %d %H:%M:%S %Y",
    "%a %b %d %H:%M:%S %z %Y",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%Y-%m-%d %I:%M:%S %p",
];

/// Formats of dates without a time of day.
const PLAIN_DATES: [&str; 6] =
    ["%d.%m.%Y", "%Y.%m.%d", "%d-%b-%Y", "%d %b %Y", "%b %d, %Y", "%d/%b/%Y"];

/// The form and the unix seconds of an instant in any form that has one meaning only.
///
/// # Errors
/// What came, and what is understood.
pub fn instant(text: &str) -> Result<(TimeForm, i64), String> {
    let text = text.trim();
    let bytes = text.as_bytes();
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let unknown =
        || format!("`{text}` is not a time; expected unix time, 2020-09-22 or 2020-09-22T10:11:12");
    if !digits.is_empty() && digits.iter().all(|byte| byte.is_ascii_digit()) {
        return numeric(text).ok_or_else(unknown);
    }
    if let Some(found) = iso(text) {
        return Ok(found);
    }
    if let Some(whole) = fractional(text) {
        return numeric(&whole).ok_or_else(unknown);
    }
    if let Some(found) = of_people(text) {
        return Ok(found);
    }
    if day_and_month(text).is_some() {
        return Err(format!("`{text}`: day or month first? Expected a form such as 2020-09-22"));
    }
    Err(unknown())
}

/// A form of ISO 8601: with `/` for `-`, a space for `T`, and ` UTC` behind it, too.
fn iso(text: &str) -> Option<(TimeForm, i64)> {
    let bytes = text.as_bytes();
    if bytes.len() < 8 || !bytes[0].is_ascii_digit() {
        return None;
    }
    if bytes.len() == 10
        && let Ok(date) = text.parse::<Date>()
    {
        return Some((TimeForm::Date, midnight(date)?));
    }
    if let Ok(timestamp) = text.parse::<jiff::Timestamp>() {
        return Some((TimeForm::DateTime, floor_second(timestamp)));
    }
    let civil = |text: &str| {
        let civil = text.parse::<DateTime>().ok().filter(|_| text.len() > 10)?;
        Some((TimeForm::DateTime, floor_second(TimeZone::UTC.to_timestamp(civil).ok()?)))
    };
    if let Some(found) = civil(text) {
        return Some(found);
    }
    // What is left is rare, and may be rewritten.
    let mut plain = text.to_string();
    for zone in [" UTC", " GMT", " Z", "UTC"] {
        if let Some(front) = plain.strip_suffix(zone) {
            plain = front.trim_end().to_string();
            break;
        }
    }
    if bytes.len() > 7 && bytes[4] == b'/' && bytes[..4].iter().all(u8::is_ascii_digit) {
        plain = plain.replacen('/', "-", 2);
    }
    if plain == text {
        return short_clock(text);
    }
    if let Ok(date) = plain.parse::<Date>()
        && plain.len() == 10
    {
        return Some((TimeForm::Date, midnight(date)?));
    }
    if let Ok(timestamp) = plain.parse::<jiff::Timestamp>() {
        return Some((TimeForm::DateTime, floor_second(timestamp)));
    }
    civil(&plain).or_else(|| short_clock(&plain))
}

/// `2020-9-2 7:05`: parts without leading zeros.
fn short_clock(text: &str) -> Option<(TimeForm, i64)> {
    let formats = [
        "%Y-%m-%d %H:%M:%S%.f",
        "%Y-%m-%d %H:%M",
        "%Y-%m-%d %H:%M:%S%.f %:z",
        "%Y-%m-%d %H:%M:%S%.f %z",
    ];
    for format in formats {
        if let Ok(time) = strptime(format, text) {
            return Some((TimeForm::DateTime, time));
        }
    }
    strptime("%Y-%m-%d", text).ok().map(|time| (TimeForm::Date, time))
}

/// Forms with the name of the month, and those with dots.
fn of_people(text: &str) -> Option<(TimeForm, i64)> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let bare = bare.strip_suffix(" UTC").or_else(|| bare.strip_suffix(" GMT")).unwrap_or(bare);
    let spaced = bare.replace(['\u{a0}', '\u{202f}'], " ");
    for format in PLAIN_FORMATS {
        if let Ok(time) = strptime(format, &spaced) {
            return is_plausible(time).then_some((TimeForm::DateTime, time));
        }
    }
    for format in PLAIN_DATES {
        if let Ok(time) = strptime(format, &spaced) {
            return is_plausible(time).then_some((TimeForm::Date, time));
        }
    }
    let zoned = rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()?;
    Some((TimeForm::DateTime, floor_second(zoned)))
}

/// Where a date such as `03/04/2024` ends, whose first two numbers may be day or month.
fn day_and_month(text: &str) -> Option<usize> {
    let end = text.find([' ', 'T', ',']).unwrap_or(text.len());
    let parts: Vec<&str> = text[..end].split(['/', '-']).collect();
    let number =
        |part: &&str| (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    let [first, second, year] = parts[..] else { return None };
    (parts.iter().all(number) && first.len() <= 2 && second.len() <= 2 && year.len() >= 2)
        .then_some(end)
}

/// `1600000000.7` and `1.6e9` as whole numbers, cut towards the past.
fn fractional(text: &str) -> Option<String> {
    let plain =
        |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E');
    text.bytes().all(plain).then(|| whole_number(text)).flatten().map(|whole| whole.to_string())
}

fn whole_number(text: &str) -> Option<i64> {
    match text.parse::<i64>() {
        Ok(whole) => Some(whole),
        Err(_) => {
            let value = text.parse::<f64>().ok().filter(|value| value.abs() < 9e18)?;
            Some(value.floor() as i64)
        }
    }
}

/// Ticks of .NET at the beginning of 1970.
const TICKS_OF_1970: i64 = 621_355_968_000_000_000;

/// Ticks of 2000 to 2099. As unix nanoseconds they would be of 1990.
const TICKS: Range<i64> = 630_822_816_000_000_000..662_380_416_000_000_000;

/// Digits alone: a compact date or time if they are one of a plausible year, else unix time by
/// magnitude.
fn numeric(text: &str) -> Option<(TimeForm, i64)> {
    match text.len() {
        8 => {
            if let Some(date) = compact_date(text) {
                return Some((TimeForm::CompactDate, midnight(date)?));
            }
        }
        // As unix time these are 2033 or later, 1976, 2611 and later: none is a time of a log.
        10 | 12 | 14 | 17 => {
            if let Some(time) = compact_time(text) {
                return Some((TimeForm::CompactTime, time));
            }
        }
        _ => {}
    }
    let whole = text.parse::<i64>().ok()?;
    if TICKS.contains(&whole) {
        return Some((TimeForm::Ticks, (whole - TICKS_OF_1970).div_euclid(10_000_000)));
    }
    let per_second = match whole.unsigned_abs() {
        ..100_000_000_000 => 1,
        100_000_000_000..100_000_000_000_000 => 1_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000_000,
        _ => 1_000_000_000,
    };
    Some((TimeForm::Unix { per_second }, whole.div_euclid(per_second)))
}

fn floor_second(timestamp: jiff::Timestamp) -> i64 {
    timestamp.as_nanosecond().div_euclid(1_000_000_000) as i64
}

fn midnight(date: Date) -> Option<i64> {
    Some(TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?.as_second())
}

/// The day that the first eight digits are, between 1990 and 2100. As unix seconds they would be of
/// August 1970.
fn compact_date(text: &str) -> Option<Date> {
    let date = Date::new(
        text.get(..4)?.parse().ok()?,
        text.get(4..6)?.parse().ok()?,
        text.get(6..8)?.parse().ok()?,
    );
    date.ok().filter(|date| (1990..2100).contains(&date.year()))
}

fn compact_time(text: &str) -> Option<i64> {
    let two = |at: usize| match text.get(at..at + 2) {
        None => Some(0),
        Some(digits) => digits.parse::<i8>().ok(),
    };
    let date = compact_date(text)?;
    let time = jiff::civil::Time::new(two(8)?, two(10)?, two(12)?, 0).ok()?;
    Some(TimeZone::UTC.to_timestamp(date.to_datetime(time)).ok()?.as_second())
}

/// `2020-09-22 10:11:12` for people, UTC.
pub(crate) fn show_time(seconds: i64) -> String {
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
    fn one_instant_in_many_forms() {
        let forms = [
            "1709510528",
            "1709510528.0",
            "1.709510528e9",
            "1709510528123",
            "1709510528123.0",
            "1709510528123456",
            "1709510528123456789",
            "638451073281234567",
            "20240304000208",
            "20240304000208123",
            "20240304T000208Z",
            "2024-03-04T00:02:08Z",
            "2024-03-04T00:02:08.999Z",
            "2024-03-04 00:02:08",
            "2024-03-04 00:02:08,123",
            "2024-03-04 00:02:08 UTC",
            "2024-03-04 00:02:08.123456 UTC",
            "2024-03-04 00:02:08 GMT",
            "2024-03-04 00:02:08+00",
            "2024-03-04T01:02:08+0100",
            "2024-03-04 01:02:08 +01:00",
            "2024-03-04T01:02:08+01:00[Europe/Berlin]",
            "2024/03/04 00:02:08",
            "2024/3/4 0:02:08",
            "2024-3-4 0:02:08",
            "2024-03-04 12:02:08 AM",
            "04/Mar/2024:00:02:08 +0000",
            "[04/Mar/2024:00:02:08 +0000]",
            "Mon, 04 Mar 2024 00:02:08 GMT",
            "Mon, 04 Mar 2024 01:02:08 +0100",
            "Mon Mar 04 00:02:08 2024",
            "Mon Mar  4 00:02:08 2024",
            "Mon Mar 04 00:02:08 +0000 2024",
            "04 Mar 2024 00:02:08",
            "04-Mar-2024 00:02:08",
            "Mar 4, 2024 12:02:08 AM",
            "Mar 4, 2024, 12:02:08 AM",
            "04.03.2024 00:02:08",
        ];
        let wrong: Vec<_> = (forms.iter())
            .filter_map(|text| match instant(text) {
                Ok((_, 1_709_510_528)) => None,
                other => Some((text, other)),
            })
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        let minutes = ["202403040002", "2024-03-04 00:02", "04.03.2024 00:02", "2024/3/4 0:02"];
        assert_eq!(minutes.map(|text| instant(text).unwrap().1), [1_709_510_520; 4]);
        assert_eq!(instant("2024030407"), Ok((TimeForm::CompactTime, 1_709_535_600)));
        for date in
            ["2024-03-04", "2024/03/04", "20240304", "20240304.0", "04.03.2024", "4 Mar 2024"]
        {
            assert_eq!(instant(date).map(|(_, time)| time), Ok(1_709_510_400), "{date}");
        }
    }

    #[test]
    fn a_stated_format() {
        let read = |format: &str, text: &str| TimeReader::new(Some(format))?.read(text);
        assert_eq!(read("%m/%d/%Y %H:%M", "03/04/2024 00:02"), Ok(1_709_510_520));
        assert_eq!(read("%d/%m/%Y %H:%M", "04/03/2024 00:02"), Ok(1_709_510_520));
        assert_eq!(read("%y%m%d%H", "24030407"), Ok(1_709_535_600));
        assert_eq!(read("%d/%m/%Y", "04/03/2024"), Ok(1_709_510_400));
        assert_eq!(read("%Y-%m-%d %H:%M:%S %z", "2024-03-04 01:02:08 +0100"), Ok(1_709_510_528));
        assert_eq!(read("unix-ms", "5000"), Ok(5));
        assert_eq!(read("unix", "20240304"), Ok(20_240_304));
        assert!(
            read("%m/%d/%Y", "31/12/2024")
                .is_err_and(|what| what.contains("does not fit --time-format"))
        );
        assert!(read("unix", "x").is_err_and(|what| what.contains("is not a number")));
        for bad in ["%J", "dd/mm/yyyy", ""] {
            assert!(
                read(bad, "1").is_err_and(|what| what.contains("expected one as of strptime")),
                "{bad}"
            );
        }
    }

    #[test]
    fn mixed_ambiguous_and_unreadable_times() {
        assert_eq!(
            times("1600000000", "1600000000123").unwrap_err(),
            "time `1600000000123` reads as unix milliseconds, but the first row's `1600000000` as unix seconds; \
             one form per column"
        );
        assert!(
            times("2020-09-22", "2020-09-22T01:00:00").unwrap_err().contains("one form per column")
        );
        assert_eq!(
            TimeReader::default().read("03/04/2024 00:02").unwrap_err(),
            "`03/04/2024 00:02`: day or month first? Expected a form such as 2020-09-22, or state which: --time-format \
             '%d/%m/%Y %H:%M' or '%m/%d/%Y %H:%M'"
        );
        let error = TimeReader::default().read("3-4-2024").unwrap_err();
        assert!(error.contains("'%d-%m-%Y' or '%m-%d-%Y'"), "{error}");
        for garbage in
            ["yesterday", "2020-13-01", "1.2.3", "-", "12:30", "22.09.2020.1", "e", "+", "--5"]
        {
            let error = times("0", garbage).unwrap_err();
            assert!(error.contains("is not a time"), "{garbage}: {error}");
        }
    }

    #[test]
    fn years_a_log_may_be_from() {
        assert!(is_plausible(1_600_000_000) && is_plausible(631_152_000));
        assert!(!is_plausible(0) && !is_plausible(4_102_444_800) && !is_plausible(631_151_999));
    }
}
