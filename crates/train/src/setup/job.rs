//! The processes of one training.

use ams_fabric::{Fabric, Solo};

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
