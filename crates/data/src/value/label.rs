//! Labels: clicked or not.

use super::id::is_missing;
use super::number::{Decimal, number};

/// What makes a label positive, beyond the usual words.
#[derive(Clone, Copy, Debug, Default)]
pub struct LabelRule<'a> {
    /// Labels are numbers, positive from this one on (ratings).
    pub from: Option<f64>,
    /// Labels are words, positive if among these, in any case.
    pub words: &'a [String],
    /// The mark of fractions.
    pub decimal: Option<Decimal>,
}

const YES: [&str; 5] = ["true", "t", "yes", "y", "on"];
const NO: [&str; 5] = ["false", "f", "no", "n", "off"];

/// Reads a label: 1 or 0 in any spelling of these numbers (`1.00`), true or false, t or f, yes or
/// no, y or n, on or off; or by the rule.
///
/// # Errors
/// What came and what was expected.
pub fn label(text: &str, rule: LabelRule) -> Result<u8, String> {
    match text {
        "1" if rule.from.is_none() && rule.words.is_empty() => return Ok(1),
        "0" if rule.from.is_none() && rule.words.is_empty() => return Ok(0),
        _ => {}
    }
    if is_missing(text) {
        return Err("no label; expected 0 or 1 in every row".to_string());
    }
    if let Some(from) = rule.from {
        return number(text, rule.decimal).map(|value| u8::from(value >= from));
    }
    let is = |word: &str| word.eq_ignore_ascii_case(text);
    if !rule.words.is_empty() {
        return Ok(u8::from(rule.words.iter().any(|word| is(word))));
    }
    match number(text, rule.decimal) {
        Ok(1.0) => Ok(1),
        Ok(0.0) => Ok(0),
        _ if YES.iter().any(|word| is(word)) => Ok(1),
        _ if NO.iter().any(|word| is(word)) => Ok(0),
        Ok(_) => Err(format!(
            "label `{text}`; expected 0 or 1 (for ratings and counts, say from which value on they are positive: \
             --positive-from)"
        )),
        Err(_) => Err(format!(
            "label `{text}`; expected 0 or 1, true or false, yes or no (for other words, say which are positive: \
             --positive {text})"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        let read = |text: &str| label(text, LabelRule::default());
        for text in ["1", "1.0", "1.00", "+1", "true", "True", "t", "YES", "y", "on"] {
            assert_eq!(read(text), Ok(1), "{text}");
        }
        for text in ["0", "0.0", "0.00", "-0", "false", "F", "no", "N", "off"] {
            assert_eq!(read(text), Ok(0), "{text}");
        }
        assert!(read("2").is_err_and(|what| what.contains("--positive-from")));
        assert!(read("-1").is_err_and(|what| what.contains("--positive-from")));
        assert!(read("click").is_err_and(|what| what.contains("--positive click")));
        assert!(read("").is_err_and(|what| what.starts_with("no label")));
        assert!(read("NULL").is_err_and(|what| what.starts_with("no label")));
    }

    #[test]
    fn labels_by_a_rule() {
        let from = LabelRule { from: Some(4.0), ..LabelRule::default() };
        assert_eq!(["3.5", "4", "1"].map(|text| label(text, from)), [Ok(0), Ok(1), Ok(0)]);
        assert_eq!(label("good", from), Err("`good` is not a number".into()));
        let words = ["click".to_string(), "buy".to_string()];
        let words = LabelRule { words: &words, ..LabelRule::default() };
        assert_eq!(["Click", "view", "buy"].map(|text| label(text, words)), [Ok(1), Ok(0), Ok(1)]);
    }
}
