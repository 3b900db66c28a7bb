//! Ids and categories: which texts are the same value, and which are none.

use std::borrow::Cow;

/// Words that say "no value", in any case.
const NULLS: [&str; 15] = [
    "null",
    "none",
    "nan",
    "nat",
    "\\n",
    "<na>",
    "<null>",
    "(null)",
    "n/a",
    "#n/a",
    "undefined",
    "<none>",
    "(none)",
    "(not set)",
    "-nan",
];

/// From here on a 64-bit float does not hold every whole number.
const EXACT: u64 = 1 << 53;

/// Whether `text` is no value: empty, white space, or a null word.
pub fn is_missing(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || is_null_word(text)
}

/// Whether a trimmed text is one of [`NULLS`].
fn is_null_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    (2..=9).contains(&bytes.len())
        && matches!(bytes[0], b'n' | b'N' | b'u' | b'U' | b'<' | b'(' | b'#' | b'\\' | b'-')
        && NULLS.iter().any(|null| null.eq_ignore_ascii_case(text))
}

/// The value of a key (a user, an item): as [`category`], and `NA`, `-` and `?` are missing too.
///
/// # Errors
/// As [`category`].
pub fn id(text: &str) -> Result<Cow<'_, str>, String> {
    match text.trim() {
        "NA" | "-" | "?" => Ok(Cow::Borrowed("")),
        text => category(text),
    }
}

/// The value of a categorical cell; empty: none. White space around it does not count; `25.0` is
/// `25`, as a column of whole numbers with gaps is written; `True` is `true`; a UUID is in small
/// letters. Leading zeros count.
///
/// # Errors
/// If a number was rounded on its way here (`1.2E+15`, a float of 2^53 or more): two ids may be one
/// then.
pub fn category(text: &str) -> Result<Cow<'_, str>, String> {
    let text = text.trim();
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return Ok(Cow::Borrowed(""));
    };
    if is_null_word(text) {
        return Ok(Cow::Borrowed(""));
    }
    match last {
        b'0' if first.is_ascii_digit() || first == b'-' => whole_float(text),
        b'0'..=b'9' if first.is_ascii_digit() && is_rounded(bytes) => Err(rounded(text)),
        b'e' | b'E' if text.eq_ignore_ascii_case("true") => Ok(Cow::Borrowed("true")),
        b'e' | b'E' if text.eq_ignore_ascii_case("false") => Ok(Cow::Borrowed("false")),
        _ if is_uuid(bytes) && bytes.iter().any(u8::is_ascii_uppercase) => {
            Ok(Cow::Owned(text.to_ascii_lowercase()))
        }
        _ => Ok(Cow::Borrowed(text)),
    }
}

/// `25.0` as `25`; any other text as it is.
fn whole_float(text: &str) -> Result<Cow<'_, str>, String> {
    if is_rounded(text.as_bytes()) {
        return Err(rounded(text));
    }
    let Some((whole, fraction)) = text.split_once('.') else {
        return if is_uuid(text.as_bytes()) {
            Ok(Cow::Owned(text.to_ascii_lowercase()))
        } else {
            Ok(Cow::Borrowed(text))
        };
    };
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let plain = !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'))
        && fraction.bytes().all(|byte| byte == b'0');
    match digits.parse::<u64>() {
        _ if !plain => Ok(Cow::Borrowed(text)),
        Ok(0) => Ok(Cow::Borrowed("0")),
        Ok(value) if value < EXACT => Ok(Cow::Borrowed(whole)),
        _ => Err(rounded(text)),
    }
}

/// Whether this is a large number as spreadsheets and float columns write it: `1.2345E+15`.
fn is_rounded(bytes: &[u8]) -> bool {
    let Some(at) = bytes.iter().position(|byte| matches!(byte, b'e' | b'E')) else { return false };
    let (mantissa, exponent) = (&bytes[..at], &bytes[at + 1..]);
    let mut dots = 0;
    let digits = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
    let number = mantissa.iter().all(|&byte| {
        dots += usize::from(byte == b'.');
        byte.is_ascii_digit() || byte == b'.'
    });
    number && dots <= 1 && exponent.first() == Some(&b'+') && digits(&exponent[1..])
}

fn rounded(text: &str) -> String {
    format!(
        "`{text}` is a number that was rounded to a float, so different ids may have become one; write ids as whole \
         numbers or as text"
    )
}

fn is_uuid(bytes: &[u8]) -> bool {
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// What is left of an id when its form is set aside: small letters and digits without leading
/// zeros. Two ids that differ but are equal here are likely meant to be one.
pub(crate) fn loose(id: &str) -> String {
    let id = id.trim().trim_end_matches(".0");
    let letters = id.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase);
    let text: String = letters.collect();
    let text = text.trim_start_matches('0');
    if text.is_empty() { "0".to_string() } else { text.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_are_one_value() {
        let cases = [
            ("25", "25"),
            (" 25 ", "25"),
            ("25.0", "25"),
            ("25.000", "25"),
            ("-3.0", "-3"),
            ("-0.0", "0"),
            ("0.0", "0"),
            ("25.5", "25.5"),
            ("25.50", "25.50"),
            ("1.0.0", "1.0.0"),
            ("007", "007"),
            ("007.0", "007.0"),
            ("v1.0", "v1.0"),
            ("True", "true"),
            ("FALSE", "false"),
            ("truee", "truee"),
            ("1e10", "1e10"),
            ("12e0", "12e0"),
            ("9007199254740991.0", "9007199254740991"),
            ("18446744073709551615", "18446744073709551615"),
            ("6BA7B810-9DAD-11D1-80B4-00C04FD430C8", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
            ("6BA7B810-9DAD-11D1-80B4-00C04FD430C0", "6ba7b810-9dad-11d1-80b4-00c04fd430c0"),
            ("NA", "NA"),
            ("Nantes", "Nantes"),
            ("nonesuch", "nonesuch"),
        ];
        for (text, expected) in cases {
            assert_eq!(category(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_value() {
        let nulls = "|  |NULL|null|None|\\N|nan|NaN|-nan|<NA>|(null)|(not set)|N/A|#N/A|NaT|undefined| NULL ";
        for text in nulls.split('|') {
            assert_eq!(category(text).as_deref(), Ok(""), "{text:?}");
            assert!(is_missing(text), "{text:?}");
        }
        assert_eq!(["NA", " - ", "?"].map(|text| id(text).unwrap()), ["", "", ""]);
        assert!(!is_missing("0") && !is_missing("-") && !is_missing("nanna"));
    }

    #[test]
    fn rounded_numbers_are_refused() {
        for text in ["1.23457E+15", "1e+16", "9007199254740992.0", "-9007199254740992.00"] {
            assert!(category(text).is_err_and(|what| what.contains("rounded")), "{text}");
        }
    }

    #[test]
    fn forms_that_differ_only_in_form() {
        for text in ["000500", "500.0", "0500", " 500", "5-00"] {
            assert_eq!(loose(text), "500", "{text}");
        }
        assert_eq!(loose("SKU_01"), loose("sku-01"));
        assert_eq!(loose("000"), "0");
    }
}
