//! A temporary folder in which `ams` is run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// What a command left on the terminal.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Done {
        let text = |bytes| String::from_utf8(bytes).expect("ams writes UTF-8");
        Done { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Done {
    /// The one JSON object on stdout.
    pub fn json(&self) -> Value {
        let value: Value = serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("stdout is not one JSON value: {error}\n{self:#?}"));
        assert!(value.is_object(), "{self:#?}");
        value
    }
}

/// A folder of its own for one test; gone with it.
pub struct Place {
    dir: TempDir,
}

impl Place {
    pub fn new() -> Place {
        Place { dir: TempDir::new().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, or puts another in its place: published ones are read-only.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let other = path.with_file_name(format!(".{name}.other"));
        fs::write(&other, bytes).unwrap();
        fs::rename(other, path).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The command, not yet running; `arguments` are words.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ams"));
        command.args(arguments.split_whitespace()).current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &str) -> Done {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs a command that has to succeed; what it prints with `--json`.
    pub fn json(&self, arguments: &str) -> Value {
        let done = self.run(&format!("{arguments} --json"));
        assert_eq!(done.code, Some(0), "ams {arguments}: {done:#?}");
        done.json()
    }

    /// Runs a command that has to fail as the user's error, print nothing on stdout, say all of
    /// `words` and leave the folder as it was.
    pub fn refuses(&self, arguments: &str, words: &[&str]) {
        let before = self.files("");
        let done = self.run(&format!("{arguments} --json"));
        assert_eq!((done.code, &done.out[..]), (Some(1), ""), "ams {arguments}: {done:#?}");
        for word in words {
            assert!(done.err.contains(word), "ams {arguments}: no {word:?} in\n{}", done.err);
        }
        assert!(!done.err.contains("panicked"), "ams {arguments}: {}", done.err);
        let after = self.files("");
        let names = |files: &BTreeMap<_, _>| files.keys().cloned().collect::<Vec<String>>();
        assert_eq!(names(&after), names(&before), "ams {arguments}");
        assert!(after == before, "ams {arguments} changed a file");
    }

    /// Everything below folder `name` by relative name: a file's bytes, or `None` for a folder.
    pub fn files(&self, name: &str) -> BTreeMap<String, Option<Vec<u8>>> {
        let root = self.path(name);
        let mut files = BTreeMap::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                let bytes = (!path.is_dir()).then(|| fs::read(&path).unwrap());
                if bytes.is_none() {
                    folders.push(path);
                }
                files.insert(name, bytes);
            }
        }
        files
    }

    /// What is in a folder, hidden or not.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(folder)) else { return Vec::new() };
        entries.flatten().map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    /// Copies a file or folder within the place.
    pub fn copy(&self, from: &str, to: &str) {
        copy(&self.path(from), &self.path(to));
    }
}

fn copy(from: &Path, to: &Path) {
    if !from.is_dir() {
        fs::copy(from, to).unwrap();
        return;
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

/// The keys of an object, in any order.
pub fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// Asserts that `value` has all of `expected` (words).
pub fn has_keys(value: &Value, expected: &str) {
    let keys = keys(value);
    for key in expected.split_whitespace() {
        assert!(keys.contains(&key), "no {key:?} in {keys:?}");
    }
}

/// A number that is a count.
pub fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

/// A number.
pub fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// A list of numbers.
pub fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(number).collect()
}
