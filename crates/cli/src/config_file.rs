//! Configuration files: TOML, `--set key=value`, and errors that show the line.

use std::path::Path;

use ams_data::prepare::PrepareOptions;
use ams_train::settings::{Config, preset};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::failure::{Failure, Mistake};

/// Settings that a file may hold.
pub(crate) trait Settings: DeserializeOwned {
    /// Fills `table` with values that one of its keys stands for.
    fn expand(_table: &mut Table) {}
}

impl Settings for Config {
    fn expand(table: &mut Table) {
        preset::expand(table);
    }
}

impl Settings for PrepareOptions {}

/// Reads `path` as a `T`, after the settings `sets` (`key=value` each, keys with dots) are applied.
///
/// # Errors
/// If the file cannot be read, is not TOML, or has a key or a value that `T` does not know; the
/// message shows the line and, for a key, the nearest one there is.
pub(crate) fn read<T: Settings>(path: &Path, sets: &[String]) -> Result<T, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::user(format!("{}: {error}", path.display())))?;
    parse(&path.display().to_string(), &text, sets)
}

/// As [`read`], of a text called `name`.
pub(crate) fn parse<T: Settings>(name: &str, text: &str, sets: &[String]) -> Result<T, Failure> {
    let shown = |error: toml::de::Error| {
        let what = match error.span() {
            None => format!("{name}: {}", error.message()),
            Some(_) => error.message().to_owned(),
        };
        Failure::User(Mistake {
            what,
            help: suggestion(error.message()),
            place: error.span().map(|span| (name.to_owned(), text.to_owned(), span)),
        })
    };
    let mut table: Table = toml::from_str(text).map_err(shown)?;
    if let Err(error) = toml::from_str::<T>(text) {
        // A key the file leaves out may still be set.
        let missing = error.message().starts_with("missing field") && !sets.is_empty();
        if !missing {
            return Err(shown(error));
        }
    }
    for set in sets {
        apply(&mut table, set)?;
    }
    T::expand(&mut table);
    T::deserialize(Value::Table(table)).map_err(|error| {
        let help = suggestion(error.message()).map_or(String::new(), |help| format!("\n{help}"));
        // With the key, where the value is wrong.
        let what = error.to_string().trim_end().replace('\n', " ");
        Failure::user(format!("{name} with --set {}: {what}{help}", sets.join(" --set ")))
    })
}

/// Sets one `key=value`; the value is TOML, or text where it is not.
fn apply(table: &mut Table, set: &str) -> Result<(), Failure> {
    let Some((key, value)) = set.split_once('=') else {
        return Err(Failure::user(format!("--set {set}: expected key=value")));
    };
    let value = match toml::from_str::<Table>(&format!("value = {value}")) {
        Ok(mut parsed) => parsed.remove("value").unwrap_or(Value::String(value.to_owned())),
        Err(_) => Value::String(value.to_owned()),
    };
    let mut keys: Vec<&str> = key.trim().split('.').collect();
    let last = keys.pop().unwrap_or_default();
    let mut at = table;
    for key in keys {
        let next = at.entry(key).or_insert_with(|| Value::Table(Table::new()));
        at = next
            .as_table_mut()
            .ok_or_else(|| Failure::user(format!("--set {set}: {key} is a value, not a table")))?;
    }
    at.insert(last.to_owned(), value);
    Ok(())
}

/// "did you mean", from serde's "unknown field `x`, expected one of `a`, `b`".
fn suggestion(message: &str) -> Option<String> {
    let (got, known) = message.split_once(", expected ")?;
    if !got.starts_with("unknown ") {
        return None;
    }
    let got = got.split('`').nth(1)?;
    let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
    let near = known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(got, name), name))
        .filter(|(distance, name)| *distance <= 2.max(name.len() / 3))
        .min()?;
    Some(format!("did you mean `{}`?", near.1))
}
