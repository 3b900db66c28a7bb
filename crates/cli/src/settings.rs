//! Settings of a server beside its command line: every flag of `ams serve` may be a variable of the
//! environment, or a key of the file `--config`.
//!
//! ```text
//! --admin-bind 0.0.0.0:8601     AMS_SERVE_ADMIN_BIND=0.0.0.0:8601     admin-bind = "0.0.0.0:8601"
//! ```
//! The command line counts before the environment, and that before the file. What is found becomes
//! arguments, so that all three are read by the same rules.

use std::ffi::OsString;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::{Table, Value};

use crate::failure::Failure;

/// The command whose settings these are.
const COMMAND: &str = "serve";

/// What every variable begins with. Others that begin so are left alone: Kubernetes sets some for a
/// service of that name.
const PREFIX: &str = "AMS_SERVE_";

/// The flag for the file itself.
const FILE: &str = "config";

/// Arguments with those that the environment and the file add, and a line that says where these are
/// from.
#[derive(Debug)]
pub(crate) struct Expanded {
    pub arguments: Vec<OsString>,
    /// Where added ones are from, to be printed after an error.
    pub note: Option<String>,
}

/// Adds what the environment and the file say to the `arguments` of `command`.
///
/// # Errors
/// If the file cannot be read, is not TOML, or has a key that is no flag or a value that no flag
/// takes.
pub(crate) fn expand(
    command: &Command,
    arguments: Vec<OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Expanded, Failure> {
    let unchanged = |arguments| Ok(Expanded { arguments, note: None });
    // What is wrong with the arguments is said when all of them are there.
    let matches = command.clone().ignore_errors(true).try_get_matches_from(&arguments);
    let Some((serve, given)) = matches.as_ref().ok().and_then(|all| {
        let (name, given) = all.subcommand()?;
        Some((command.find_subcommand(name)?, given)).filter(|_| name == COMMAND)
    }) else {
        return unchanged(arguments);
    };
    let settings: Vec<&Arg> = serve.get_arguments().filter(|arg| is_setting(arg)).collect();
    let of_environment = |arg: &Arg| {
        keys(arg).into_iter().find_map(|key| {
            let name = format!("{PREFIX}{}", key.replace('-', "_").to_uppercase());
            variable(&name).filter(|value| !value.is_empty()).map(|value| (name, value))
        })
    };
    let (file, path) = match file(serve, given, of_environment)? {
        Some((table, path)) => (table, path),
        None => (Table::new(), String::new()),
    };
    known(&file, &settings, &path)?;
    let (mut flags, mut places, mut origins) = (Vec::new(), Vec::new(), Vec::new());
    for arg in settings {
        if given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine) {
            continue;
        }
        let (values, origin) = if let Some((name, value)) = of_environment(arg) {
            (of_text(arg, &name, value)?, name)
        } else if let Some(value) = keys(arg).iter().find_map(|key| find(&file, key)) {
            let values = of_value(value).ok_or_else(|| {
                let what = format!("{path}: {} is {value}, expected a text, a number, true or false, or a list of them", key(arg));
                Failure::user(what)
            })?;
            (switched(arg, values, &format!("{path}: {}", key(arg)))?, path.clone())
        } else {
            continue;
        };
        put(arg, values, &mut flags, &mut places);
        origins.push(format!("{} by {origin}", key(arg)));
    }
    if origins.is_empty() {
        return unchanged(arguments);
    }
    let end = arguments.iter().position(|it| it == "--").unwrap_or(arguments.len());
    let mut all = arguments;
    let behind = all.split_off(end);
    all.extend(flags);
    all.extend(behind);
    all.extend(places);
    Ok(Expanded { arguments: all, note: Some(format!("set: {}", origins.join(", "))) })
}

/// The flags of `command` that `table` sets, a part of a file that is called `section`; keys may
/// have `_` for `-`.
///
/// # Errors
/// If a key is no flag, or has a value that no flag takes.
pub(crate) fn flags(
    command: &Command,
    table: &Table,
    section: &str,
) -> Result<Vec<OsString>, Failure> {
    let settings: Vec<&Arg> = command.get_arguments().collect();
    known(table, &settings, section)?;
    let (mut flags, mut places) = (Vec::new(), Vec::new());
    for arg in settings {
        let Some(value) = keys(arg).iter().find_map(|key| find(table, key)) else { continue };
        let place = format!("{section}.{}", key(arg));
        let values = of_value(value).ok_or_else(|| {
            let what = format!(
                "{place} is {value}, expected a text, a number, true or false, or a list of them"
            );
            Failure::user(what)
        })?;
        put(arg, switched(arg, values, &place)?, &mut flags, &mut places);
    }
    flags.extend(places);
    Ok(flags)
}

/// Adds an argument with its values, as they are written on a command line.
fn put(arg: &Arg, values: Vec<OsString>, flags: &mut Vec<OsString>, places: &mut Vec<OsString>) {
    for value in values {
        match (arg.get_long(), arg.get_action()) {
            (None, _) => places.push(value),
            (Some(long), ArgAction::SetTrue) => flags.push(format!("--{long}").into()),
            (Some(long), _) => {
                let mut flag = OsString::from(format!("--{long}="));
                flag.push(value);
                flags.push(flag);
            }
        }
    }
}

/// Whether an argument may be set elsewhere: not those of the file itself, of help, and of all
/// commands.
fn is_setting(arg: &Arg) -> bool {
    let about = matches!(arg.get_action(), ArgAction::Help | ArgAction::Version);
    !about && !arg.is_global_set() && arg.get_long() != Some(FILE)
}

/// What an argument is called.
fn key(arg: &Arg) -> String {
    arg.get_long().map_or_else(|| arg.get_id().to_string(), str::to_owned)
}

/// The name of an argument, and the earlier names that it still accepts.
fn keys(arg: &Arg) -> Vec<String> {
    let aliases = arg.get_all_aliases().unwrap_or_default();
    std::iter::once(key(arg)).chain(aliases.into_iter().map(str::to_owned)).collect()
}

/// The file, if there is one, and what it is called.
fn file(
    serve: &Command,
    given: &ArgMatches,
    of_environment: impl Fn(&Arg) -> Option<(String, OsString)>,
) -> Result<Option<(Table, String)>, Failure> {
    let Some(arg) = serve.get_arguments().find(|arg| arg.get_long() == Some(FILE)) else {
        return Ok(None);
    };
    let path = given.get_raw(FILE).and_then(|mut values| Some(values.next()?.to_owned()));
    let Some(path) = path.or_else(|| Some(of_environment(arg)?.1)) else { return Ok(None) };
    let shown = Path::new(&path).display().to_string();
    let text = std::fs::read_to_string(&path);
    let text = text.map_err(|error| Failure::user(format!("{shown}: {error}")))?;
    let table = toml::from_str(&text);
    let table = table
        .map_err(|error| Failure::user(format!("{shown}: {}", error.to_string().trim_end())))?;
    Ok(Some((table, shown)))
}

/// That every key of the file is a flag.
fn known(file: &Table, settings: &[&Arg], path: &str) -> Result<(), Failure> {
    for name in file.keys() {
        if settings.iter().any(|arg| keys(arg).contains(&spelled(name))) {
            continue;
        }
        let keys = settings.iter().map(|arg| key(arg));
        let near = keys.min_by_key(|key| strsim::damerau_levenshtein(key, &spelled(name)));
        let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        return Err(Failure::user(format!("{path}: unknown key `{name}`{near}")));
    }
    Ok(())
}

/// Keys may have `_` for `-`.
fn spelled(key: &str) -> String {
    key.replace('_', "-")
}

fn find<'a>(file: &'a Table, key: &str) -> Option<&'a Value> {
    file.iter().find(|(name, _)| spelled(name) == key).map(|(_, value)| value)
}

/// A value of the file as values of an argument.
fn of_value(value: &Value) -> Option<Vec<OsString>> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => value.to_string(),
        Value::Array(values) => {
            let values = values.iter().map(|value| match value {
                Value::Array(_) => None,
                value => of_value(value),
            });
            return values.collect::<Option<Vec<_>>>().map(|values| values.concat());
        }
        Value::Datetime(_) | Value::Table(_) => return None,
    };
    Some(vec![text.into()])
}

/// The text of a variable as values of an argument: several are separated by commas.
fn of_text(arg: &Arg, name: &str, text: OsString) -> Result<Vec<OsString>, Failure> {
    let values = match (arg.get_action(), text.to_str()) {
        (ArgAction::Append, Some(text)) => {
            text.split(',').map(str::trim).filter(|it| !it.is_empty()).map(OsString::from).collect()
        }
        _ => vec![text],
    };
    switched(arg, values, name)
}

/// For a flag without value: one value if it is on, none if it is off.
fn switched(arg: &Arg, values: Vec<OsString>, origin: &str) -> Result<Vec<OsString>, Failure> {
    if !matches!(arg.get_action(), ArgAction::SetTrue) {
        return Ok(values);
    }
    let [value] = &values[..] else {
        return Err(Failure::user(format!("{origin}: expected true or false")));
    };
    match value.to_str().map(str::to_ascii_lowercase).as_deref() {
        Some("true" | "1" | "yes" | "on") => Ok(values),
        Some("false" | "0" | "no" | "off") => Ok(Vec::new()),
        _ => {
            let what = format!("{origin} is {}, expected true or false", value.display());
            Err(Failure::user(what))
        }
    }
}
