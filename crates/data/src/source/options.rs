//! How a table is to be read where its bytes do not say.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::encoding::Encoding;

/// How to read a file as a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TableOptions {
    /// What the options of this table begin with on the command line, such as `events` for
    /// `--events-header`; only for messages.
    pub name: String,
    /// CSV: what separates the cells. Not given: found in the header.
    pub delimiter: Option<Delimiter>,
    /// CSV and JSON lines: how the text is encoded.
    pub encoding: Encoding,
    /// CSV: what quotation marks mean.
    pub quoting: Quoting,
    /// CSV: the names of the columns of a file without a header.
    pub header: Option<Vec<String>>,
}

impl TableOptions {
    /// How an option of this table is written: `--events-header`.
    pub fn flag(&self, option: &str) -> String {
        match self.name.as_str() {
            "" => format!("--{option}"),
            name => format!("--{name}-{option}"),
        }
    }
}

/// What separates the cells of a CSV file: one character or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Delimiter(String);

impl Delimiter {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl FromStr for Delimiter {
    type Err = String;

    fn from_str(text: &str) -> Result<Delimiter, String> {
        let wrong = |why: &str| {
            Err(format!(
                "delimiter `{text}`: {why}; expected characters such as `,` `;` `|` `::`, or tab, `\\t`, space, `^A`, `\\x01`"
            ))
        };
        let bare = ['\'', '"']
            .iter()
            .find_map(|&quote| text.strip_prefix(quote)?.strip_suffix(quote))
            .filter(|bare| !bare.is_empty())
            .unwrap_or(text);
        let delimiter = match bare.to_ascii_lowercase().as_str() {
            "tab" => "\t".to_string(),
            "space" => " ".to_string(),
            "comma" => ",".to_string(),
            "semicolon" => ";".to_string(),
            "pipe" => "|".to_string(),
            _ => match unescape(bare) {
                Some(plain) => plain,
                None => return wrong("an escape that is not known"),
            },
        };
        if delimiter.is_empty() {
            return wrong("nothing");
        }
        if delimiter.contains(['"', '\n', '\r', '\0']) {
            return wrong("a quotation mark, the end of a line and NUL separate no cells");
        }
        Ok(Delimiter(delimiter))
    }
}

/// `\t`, `\x01`, `\u0001`, `\001` and `^A` as what they mean; `None` if an escape means nothing.
fn unescape(text: &str) -> Option<String> {
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        let code = |rest: &mut std::str::Chars, digits: usize, radix| {
            let code: String = rest.take(digits).collect();
            u32::from_str_radix(&code, radix)
                .ok()
                .filter(|_| code.len() == digits)
                .and_then(char::from_u32)
        };
        plain.push(match character {
            '\\' => match rest.clone().next() {
                None => '\\',
                Some('t') => rest.next().map(|_| '\t')?,
                Some('\\') => rest.next()?,
                Some('x') => rest.next().and_then(|_| code(&mut rest, 2, 16))?,
                Some('u') => rest.next().and_then(|_| code(&mut rest, 4, 16))?,
                Some('0') => code(&mut rest, 3, 8)?,
                Some('|' | ',' | ';' | ':') => rest.next()?,
                Some(_) => return None,
            },
            '^' => match rest.clone().next() {
                Some(control @ 'A'..='Z') => {
                    rest.next();
                    char::from(control as u8 - b'A' + 1)
                }
                _ => '^',
            },
            other => other,
        });
    }
    Some(plain)
}

impl fmt::Display for Delimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_str() {
            "\t" => f.write_str("tab"),
            " " => f.write_str("space"),
            text => text.chars().try_for_each(|character| match character {
                '\\' => f.write_str("\\\\"),
                '^' => f.write_str("\\x5e"),
                control if control.is_ascii_control() => write!(f, "\\x{:02x}", control as u32),
                other => write!(f, "{other}"),
            }),
        }
    }
}

impl From<char> for Delimiter {
    fn from(character: char) -> Delimiter {
        Delimiter(character.to_string())
    }
}

impl TryFrom<String> for Delimiter {
    type Error = String;

    fn try_from(text: String) -> Result<Delimiter, String> {
        text.parse()
    }
}

impl From<Delimiter> for String {
    fn from(delimiter: Delimiter) -> String {
        delimiter.to_string()
    }
}

/// What quotation marks (`"`) mean in a CSV file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quoting {
    /// A cell that begins with a mark ends at the next, doubled marks are one; a cell that seems to
    /// have swallowed the rows after it is an error.
    #[default]
    Checked,
    /// Likewise, but such a cell is taken as it is.
    Trusted,
    /// As checked, and within marks a backslash takes the meaning from the character after it.
    Backslash,
    /// Nothing: they are characters as others.
    None,
}

impl Quoting {
    /// Every way with its name in options.
    pub const ALL: [(&'static str, Quoting); 4] = [
        ("checked", Quoting::Checked),
        ("trusted", Quoting::Trusted),
        ("backslash", Quoting::Backslash),
        ("none", Quoting::None),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters_as_people_write_them() {
        for (text, expected) in [
            (",", ","),
            ("tab", "\t"),
            ("TAB", "\t"),
            ("\\t", "\t"),
            ("'\\t'", "\t"),
            ("\"\\t\"", "\t"),
            ("\t", "\t"),
            ("'|'", "|"),
            ("::", "::"),
            ("\u{1}", "\u{1}"),
            ("\\x01", "\u{1}"),
            ("\\u0001", "\u{1}"),
            ("\\001", "\u{1}"),
            ("^A", "\u{1}"),
            ("^", "^"),
            ("\\", "\\"),
            ("\\|", "|"),
            ("space", " "),
            (" ", " "),
            ("§", "§"),
            ("'", "'"),
        ] {
            let delimiter: Delimiter = text.parse().unwrap();
            assert_eq!(delimiter.0, expected, "{text}");
            assert_eq!(delimiter.to_string().parse::<Delimiter>().unwrap(), delimiter, "{text}");
        }
        for text in ["", "\"", "\\q", "\\x1", "\n", "a\"b"] {
            let error = text.parse::<Delimiter>().unwrap_err();
            assert!(error.starts_with(&format!("delimiter `{text}`: ")), "{error}");
        }
    }
}
