//! The processes of one training, and what they have to agree on before the first step.
//!
//! What is found out by one process (a file it cannot read, a full disk) has to stop all of them:
//! whoever waits for a process that gave up waits for ever. So whatever can fail on one process
//! alone is done [`together`].

use ams_fabric::{Fabric, Solo, gather};

use crate::error::{Error, Result};
use crate::settings::Config;

/// Where a training runs.
pub struct Job {
    /// Its processes.
    pub fabric: Box<dyn Fabric>,
    /// Threads of this process.
    pub threads: usize,
    /// What this process is: name and value of everything that has to be the same in all of them,
    /// such as the program's version.
    pub facts: Vec<(String, String)>,
}

impl Job {
    /// One process.
    pub fn solo(threads: usize) -> Job {
        Job::of(Solo, threads)
    }

    /// The processes of `fabric`, which are known to be alike.
    pub fn of(fabric: impl Fabric + 'static, threads: usize) -> Job {
        Job { fabric: Box::new(fabric), threads, facts: Vec::new() }
    }
}

/// The facts of a configuration: every key with its value.
pub fn facts_of(config: &Config) -> Vec<(String, String)> {
    fn walk(name: &str, value: &serde_json::Value, facts: &mut Vec<(String, String)>) {
        match value {
            serde_json::Value::Object(keys) => {
                let dot = if name.is_empty() { "" } else { "." };
                for (key, value) in keys {
                    walk(&format!("{name}{dot}{key}"), value, facts);
                }
            }
            // A key without a value is no setting.
            serde_json::Value::Null => {}
            value => facts.push((name.to_owned(), value.to_string())),
        }
    }
    let mut facts = Vec::new();
    walk("", &serde_json::json!(config), &mut facts);
    facts
}

/// Ends with the same error everywhere if a process's facts differ from the first one's.
///
/// # Errors
/// [`Error::Disagree`] with every difference, or a lost process.
pub fn agree(fabric: &mut dyn Fabric, facts: &[(String, String)]) -> Result<()> {
    if fabric.size() == 1 {
        return Ok(());
    }
    let text = serde_json::to_string(facts).expect("facts are text");
    let parse =
        |text: &String| -> Vec<(String, String)> { serde_json::from_str(text).unwrap_or_default() };
    let all: Vec<_> = gather::texts(fabric, &text)?.iter().map(parse).collect();
    let mut differences = String::new();
    for (rank, facts) in all.iter().enumerate().skip(1) {
        for (name, here, first) in differences_of(facts, &all[0]) {
            differences += &format!("\n  {name}: rank {rank} has {here}, rank 0 has {first}");
        }
    }
    if differences.is_empty() { Ok(()) } else { Err(Error::Disagree { differences }) }
}

/// Name, value here, value there of every fact that is not the same.
fn differences_of<'a>(
    here: &'a [(String, String)],
    there: &'a [(String, String)],
) -> Vec<(&'a str, &'a str, &'a str)> {
    let value = |facts: &'a [(String, String)], name: &str| {
        facts.iter().find(|(key, _)| key == name).map_or("nothing", |(_, value)| &value[..])
    };
    let mut names: Vec<&str> = here.iter().chain(there).map(|(name, _)| &name[..]).collect();
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    let pairs = names.into_iter().map(|name| (name, value(here, name), value(there, name)));
    pairs.filter(|(_, here, there)| here != there).collect()
}

/// `mine`, if no process has an error; else that error everywhere, as [`Error::Elsewhere`] where it
/// did not happen. All processes call it.
///
/// # Errors
/// The error of the lowest rank that has one, or a lost process.
pub fn together<T>(fabric: &mut dyn Fabric, mine: Result<T>) -> Result<T> {
    if fabric.size() == 1 {
        return mine;
    }
    let text = mine.as_ref().err().map_or(String::new(), ToString::to_string);
    let mut all = gather::texts(fabric, &text)?;
    match all.iter().position(|text| !text.is_empty()) {
        None => mine,
        Some(rank) if rank == fabric.rank() => mine,
        Some(rank) => Err(Error::Elsewhere { rank, what: all.swap_remove(rank) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ams_fabric::ThreadFabric;

    fn facts(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn ranks_that_differ_all_say_how() {
        let of_rank = |rank: usize| match rank {
            2 => facts(&[("ams", "0.2"), ("train.batch", "512"), ("data.images", "\"x\"")]),
            _ => facts(&[("ams", "0.1"), ("train.batch", "512")]),
        };
        for error in ThreadFabric::run(4, |mut fabric| {
            let facts = of_rank(fabric.rank());
            agree(&mut fabric, &facts).unwrap_err().to_string()
        }) {
            assert!(error.contains("ams: rank 2 has 0.2, rank 0 has 0.1"), "{error}");
            assert!(error.contains("data.images: rank 2 has \"x\", rank 0 has nothing"), "{error}");
            assert!(!error.contains("batch"), "{error}");
        }
        let same = |mut fabric| agree(&mut fabric, &of_rank(0)).is_ok();
        assert_eq!(ThreadFabric::run(2, same), [true; 2]);
    }

    #[test]
    fn the_error_of_one_is_the_error_of_all() {
        let errors = ThreadFabric::run(4, |mut fabric| {
            let mine = match fabric.rank() {
                rank @ (1 | 3) => Err(Error::content("disk", format!("is full at {rank}"))),
                rank => Ok(rank),
            };
            together(&mut fabric, mine).unwrap_err()
        });
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let elsewhere = "rank 1: disk: is full at 1";
        assert_eq!(said, [elsewhere, "disk: is full at 1", elsewhere, elsewhere]);
        let fine = |mut fabric: ThreadFabric| together(&mut fabric, Ok(7)).unwrap();
        assert_eq!(ThreadFabric::run(2, fine), [7; 2]);
    }
}
