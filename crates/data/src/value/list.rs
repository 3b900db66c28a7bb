//! Lists within one cell: separated texts, and literals of JSON, Python, numpy and Postgres.

use std::borrow::Cow;

/// Separates the parts of a multi value held as one text; it does not occur in sane data.
pub const SEPARATOR: char = '\u{1f}';

/// The parts of a list that comes as one text, trimmed; empty ones are left out. A literal such as
/// `['a', 'b']`, `["a"]`, `{a,b}` or `('a',)` is understood as what it is; else the text is cut at
/// `separator`.
pub fn parts<'a>(text: &'a str, separator: Option<&str>) -> Vec<Cow<'a, str>> {
    let text = text.trim();
    if let Some(parts) = literal(text, separator) {
        return parts.into_iter().map(Cow::Owned).collect();
    }
    let kept = |part: &'a str| {
        let part = part.trim();
        (!part.is_empty()).then_some(Cow::Borrowed(part))
    };
    let outer = text.split(SEPARATOR);
    match separator.filter(|separator| !separator.is_empty()) {
        None => outer.filter_map(kept).collect(),
        Some(separator) => outer.flat_map(|part| part.split(separator)).filter_map(kept).collect(),
    }
}

/// Whether `text` is a list literal, also an empty one.
pub(crate) fn is_literal(text: &str) -> bool {
    literal(text.trim(), None).is_some()
}

/// The parts of a list literal, what is not quoted in it cut at `separator`; `None` if `text` is
/// none.
fn literal(text: &str, separator: Option<&str>) -> Option<Vec<String>> {
    let close = match text.as_bytes().first()? {
        b'[' => ']',
        b'(' => ')',
        b'{' => '}',
        _ => return None,
    };
    let inner = text[1..].strip_suffix(close)?;
    // numpy puts nothing but white space between numbers.
    let mut numbers = inner.split_whitespace().peekable();
    if numbers.peek().is_some() && numbers.all(|number| number.parse::<f64>().is_ok()) {
        return Some(inner.split_whitespace().map(str::to_string).collect());
    }
    let mut parts = Vec::new();
    let mut rest = inner.trim_start();
    while !rest.is_empty() {
        let (part, quoted, after) = element(rest)?;
        let null = !quoted && ["null", "none", "nan"].iter().any(|n| n.eq_ignore_ascii_case(&part));
        match separator.filter(|separator| !quoted && !separator.is_empty()) {
            _ if null => {}
            Some(separator) => {
                parts.extend(part.split(separator).map(|part| part.trim().to_string()))
            }
            None => parts.push(part),
        }
        let after = after.trim_start();
        // numpy puts nothing but white space between quoted texts.
        rest = match after.strip_prefix(',') {
            Some(next) => next.trim_start(),
            None if after.is_empty() || quoted && after.starts_with(['\'', '"']) => after,
            None => return None,
        };
    }
    parts.retain(|part| !part.is_empty());
    Some(parts)
}

/// The first element of `text`, whether it was quoted, and what follows it.
fn element(text: &str) -> Option<(String, bool, &str)> {
    let text = text.strip_prefix('u').filter(|rest| rest.starts_with(['\'', '"'])).unwrap_or(text);
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let Some(quote) = quote else {
        let end = text.find(',').unwrap_or(text.len());
        let part = text[..end].trim();
        let foreign = part.contains(['[', ']', '{', '}', '(', ')', '"', ':']);
        return (!foreign).then(|| (part.to_string(), false, &text[end..]));
    };
    let mut part = String::new();
    let mut characters = text[1..].char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => match characters.next()?.1 {
                'n' => part.push('\n'),
                't' => part.push('\t'),
                'u' => {
                    let digits: String =
                        (0..4).map_while(|_| characters.next()).map(|(_, c)| c).collect();
                    part.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
                }
                other => part.push(other),
            },
            _ if c == quote => return Some((part.trim().to_string(), true, &text[1 + at + 1..])),
            c => part.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_in_one_cell() {
        let cases: [(&str, Option<&str>, &[&str]); 25] = [
            (" a | b||c", Some("|"), &["a", "b", "c"]),
            ("a\u{1f}b", Some("|"), &["a", "b"]),
            ("a::b", Some("::"), &["a", "b"]),
            ("a b", None, &["a b"]),
            ("", Some("|"), &[]),
            ("['Beef', 'Pasta']", Some("|"), &["Beef", "Pasta"]),
            (r#"["Beef", "Pasta, fresh"]"#, Some("|"), &["Beef", "Pasta, fresh"]),
            (r#"["it's", 'say "x"']"#, Some("|"), &["it's", "say \"x\""]),
            (r"['it\'s', 'a\\b']", Some("|"), &["it's", "a\\b"]),
            (r#"["caf\u00e9"]"#, None, &["café"]),
            ("['a' 'b'\n 'c']", Some("|"), &["a", "b", "c"]),
            ("[1, 2.0, None, null]", Some("|"), &["1", "2.0"]),
            ("[Beef, Pasta]", Some("|"), &["Beef", "Pasta"]),
            ("('a',)", None, &["a"]),
            ("{a,b,\"c d\"}", Some("|"), &["a", "b", "c d"]),
            ("[Beef|Pasta]", Some("|"), &["Beef", "Pasta"]),
            ("[1 2  30]", Some("|"), &["1", "2", "30"]),
            ("[7]", None, &["7"]),
            ("[]", Some("|"), &[]),
            ("[ ]", Some("|"), &[]),
            ("[u'a']", None, &["a"]),
            ("[a]|[b]", Some("|"), &["[a]", "[b]"]),
            ("[sale] new", Some("|"), &["[sale] new"]),
            ("['open", Some("|"), &["['open"]),
            (r#"{"a": 1}"#, Some("|"), &[r#"{"a": 1}"#]),
        ];
        for (text, separator, expected) in cases {
            assert_eq!(parts(text, separator), expected, "{text}");
        }
        assert!(is_literal("[]") && is_literal("['a']") && !is_literal("a|b") && !is_literal("[a"));
    }
}
