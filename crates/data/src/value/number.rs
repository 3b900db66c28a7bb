//! Numbers as people of several countries write them.

use serde::{Deserialize, Serialize};

use super::id::is_missing;

/// Which mark separates the fraction of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decimal {
    /// A point before decimals: `1,234.5`.
    #[serde(rename = ".")]
    Point,
    /// A comma before decimals: `1.234,5`.
    #[serde(rename = ",")]
    Comma,
}

/// Reads a finite number. Without `decimal` only plain numbers are accepted, because `1,234` means
/// different numbers in different countries; with it, the other mark, a space or an apostrophe may
/// group thousands.
///
/// # Errors
/// What came and what was expected.
pub fn number(text: &str, decimal: Option<Decimal>) -> Result<f64, String> {
    let text = text.trim();
    let plain = match decimal {
        None if text.contains(',') => {
            return Err(format!(
                "`{text}` has a comma; say whether numbers are like 1,234.5 (--decimal point) or 1.234,5 (--decimal \
                 comma)"
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
                "`{text}` is not a number like 1,234.5; with a decimal comma, say --decimal comma"
            )
        }
        Some(Decimal::Comma) if text.contains('.') => {
            format!(
                "`{text}` is not a number like 1.234,5; with a decimal point, say --decimal point"
            )
        }
        _ => format!("`{text}` is not a number"),
    })
}

/// Removes `mark`, spaces and apostrophes where they group thousands before `point`; `None` where
/// they stand anywhere else.
fn without_thousands(text: &str, mark: char, point: char) -> Option<String> {
    let groups =
        |c: char| c == mark || matches!(c, ' ' | '\u{a0}' | '\u{202f}' | '\'' | '\u{2019}');
    let (whole, fraction) = text.split_once(point).unwrap_or((text, ""));
    if fraction.contains(groups) {
        return None;
    }
    let mut runs = whole.trim_start_matches(['-', '+']).split(groups);
    let first = runs.next().map_or(0, str::len);
    let grouped = whole.contains(groups);
    if grouped && (first == 0 || first > 3 || runs.any(|run| run.len() != 3)) {
        return None;
    }
    Some(text.chars().filter(|&c| !groups(c)).collect())
}

/// The value of a numeric field's cell: `None` if missing. A boolean counts 1 or 0; infinities are
/// beyond all others.
///
/// # Errors
/// As [`number`].
pub fn measure(text: &str, decimal: Option<Decimal>) -> Result<Option<f64>, String> {
    let text = text.trim();
    // The usual case first: plain numbers.
    if decimal.is_none()
        && text.as_bytes().first().is_some_and(|byte| byte.is_ascii_digit() || *byte == b'-')
        && let Ok(value) = text.parse::<f64>()
    {
        return Ok((!value.is_nan()).then_some(value));
    }
    if is_missing(text) || text == "NA" {
        return Ok(None);
    }
    for (word, value) in [
        ("true", 1.0),
        ("false", 0.0),
        ("inf", f64::INFINITY),
        ("+inf", f64::INFINITY),
        ("infinity", f64::INFINITY),
        ("-inf", f64::NEG_INFINITY),
        ("-infinity", f64::NEG_INFINITY),
    ] {
        if word.eq_ignore_ascii_case(text) {
            return Ok(Some(value));
        }
    }
    number(text, decimal).map(Some)
}

/// The plain text of a number: what files and requests hold, and [`measure`] reads back exactly.
pub(crate) fn number_text(value: f64) -> String {
    if value == 0.0 { "0".to_string() } else { value.to_string() }
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
        assert_eq!(read("+3e2", None), "300");
        assert_eq!(read("1,234.5", point), "1234.5");
        assert_eq!(read("1'234.5", point), "1234.5");
        assert_eq!(read("12,5", comma), "12.5");
        assert_eq!(read("-1.234.567,5", comma), "-1234567.5");
        assert_eq!(read("1 234 567,5", comma), "1234567.5");
        assert_eq!(read("1.234", comma), "1234");
    }

    #[test]
    fn numbers_that_look_like_another_country() {
        assert_eq!(
            read("1,234", None),
            "`1,234` has a comma; say whether numbers are like 1,234.5 (--decimal point) or 1.234,5 (--decimal comma)"
        );
        assert_eq!(
            read("12,5", Some(Decimal::Point)),
            "`12,5` is not a number like 1,234.5; with a decimal comma, say --decimal comma"
        );
        assert_eq!(
            read("12.5", Some(Decimal::Comma)),
            "`12.5` is not a number like 1.234,5; with a decimal point, say --decimal point"
        );
        assert_eq!(read("NaN", None), "`NaN` is not a number");
        assert_eq!(read("12€", None), "`12€` is not a number");
    }

    #[test]
    fn cells_of_numeric_fields() {
        let read = |text: &str| measure(text, None);
        assert_eq!(["4.2", " 4.20 ", "+4.2", "42e-1"].map(read), [(); 4].map(|()| Ok(Some(4.2))));
        assert_eq!(["", "nan", "NULL", "NA", "\\N"].map(read), [(); 5].map(|()| Ok(None)));
        assert_eq!(["true", "FALSE"].map(read), [Ok(Some(1.0)), Ok(Some(0.0))]);
        assert_eq!(read("-Infinity"), Ok(Some(f64::NEG_INFINITY)));
        assert!(read("cheap").is_err_and(|what| what == "`cheap` is not a number"));
        for value in [0.1, -0.0, 1e300, 4.2, 123_456_789.0] {
            assert_eq!(read(&number_text(value)), Ok(Some(value)));
        }
    }
}
