//! Words about columns and values that several formats share.

/// `text` on one line, cut to `most` characters; control characters as escapes.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    let mut short = String::new();
    for character in text.chars().take(most) {
        match character {
            '\t' => short.push('\t'),
            control if control.is_control() => short.extend(control.escape_default()),
            other => short.push(other),
        }
    }
    if text.chars().nth(most).is_some() {
        short.push('…');
    }
    short
}

/// Of every column, why it cannot be asked for by its name, if it cannot.
pub(crate) fn unusable_names(columns: &[String]) -> Vec<Option<String>> {
    let mut times = std::collections::HashMap::new();
    for name in columns {
        *times.entry(name.as_str()).or_insert(0) += 1;
    }
    let why = |name: &String| match times[name.as_str()] {
        _ if name.is_empty() => Some("it has no name".to_string()),
        1 => None,
        2 => Some(format!("two columns are called `{name}`; rename one of them")),
        several => Some(format!("{several} columns are called `{name}`; rename them")),
    };
    columns.iter().map(why).collect()
}

/// The shortest decimal of a floating point number without an exponent: whole numbers up to 2^53
/// without a fraction, larger ones with `.0`, as they may stand for several. NaN is nothing.
pub(crate) fn write_float(value: f64, shortest: &dyn std::fmt::Display, to: &mut Vec<u8>) {
    use std::io::Write;
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let written = if value.is_nan() {
        Ok(())
    } else if value.is_infinite() {
        to.write_all(if value > 0.0 { b"inf" } else { b"-inf" })
    } else if value.fract() != 0.0 {
        write!(to, "{shortest}")
    } else if value.abs() < EXACT {
        write!(to, "{}", value as i64)
    } else {
        write!(to, "{shortest}.0")
    };
    written.expect("memory can be written");
}
