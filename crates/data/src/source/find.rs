//! Which files a table is made of: files, folders and patterns become a list, ordered by the bytes
//! of their paths.
//!
//! What is no data by custom is left out and counted: hidden files (`_SUCCESS`, `.part-0.crc`,
//! `_delta_log`) and files without a byte. Folders called `key=value` are partitions, as Hive and
//! Spark write them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use super::input::{Files, Input, Listed, is_hidden};
use crate::{Error, Result};

/// The files of a table.
#[derive(Debug)]
pub(crate) struct Found {
    /// What messages call the table.
    pub(crate) path: PathBuf,
    pub(crate) parts: Vec<Part>,
    pub(crate) skipped: Skipped,
}

/// A file of a table.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) input: Arc<dyn Input>,
    /// Its name below the folder that the table's files have in common.
    pub(crate) name: Arc<str>,
    /// Names and values of the partitions it is in, outer ones first.
    pub(crate) partitions: Vec<(String, String)>,
}

/// What was left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Skipped {
    pub(crate) hidden: usize,
    pub(crate) empty: usize,
    /// The name of one of them.
    pub(crate) example: String,
    /// Whether a log of a Delta table is among them.
    delta: bool,
}

impl Skipped {
    fn add(&mut self, name: &str, hidden: bool) {
        *(if hidden { &mut self.hidden } else { &mut self.empty }) += 1;
        if self.example.is_empty() {
            self.example = name.to_string();
        }
        self.delta |= name.rsplit('/').next() == Some("_delta_log");
    }

    /// For people; nothing if nothing was left out.
    pub(crate) fn note(&self) -> Option<String> {
        let kinds = [(self.hidden, "hidden"), (self.empty, "empty")];
        let kinds = kinds.iter().filter(|(count, _)| *count > 0);
        let kinds: Vec<_> = kinds.map(|(count, kind)| format!("{count} {kind}")).collect();
        let delta = if self.delta {
            "; the log of the Delta table is not read, so rows that it has removed count too"
        } else {
            ""
        };
        (!kinds.is_empty())
            .then(|| format!("skipped: {} (such as {}){delta}", kinds.join(", "), self.example))
    }
}

/// A file that was found.
struct Taken {
    /// The folder from which on names are the table's own.
    base: PathBuf,
    input: Arc<dyn Input>,
}

impl Taken {
    fn path(&self) -> &Path {
        self.input.path()
    }
}

/// The value of a partition that has none.
const MISSING: &str = "__HIVE_DEFAULT_PARTITION__";

/// Finds the files that are `named`.
pub(crate) fn find(files: &dyn Files, named: &[PathBuf]) -> Result<Found> {
    let mut skipped = Skipped::default();
    let mut found: Vec<Taken> = Vec::new();
    for named in named {
        let listed = files.list(named)?;
        if !listed.is_empty() {
            take(named, listed, &mut found, &mut skipped);
            continue;
        }
        let pattern = named.to_string_lossy();
        if !pattern.contains(['*', '?', '[']) {
            return Err(Error::content(named, "No such file or folder"));
        }
        let base = literal_folder(&pattern);
        let wild = Path::new(&*pattern).strip_prefix(&base).unwrap_or(named).to_string_lossy();
        let hidden_asked = wild.split('/').any(is_hidden);
        let before = found.len();
        for path in files.expand(&pattern)? {
            let below = path.strip_prefix(&base).unwrap_or(&path).to_string_lossy().into_owned();
            if !hidden_asked && below.split('/').any(is_hidden) {
                skipped.add(&below, true);
                continue;
            }
            let listed = files.list(&path)?;
            take(&base, listed, &mut found, &mut skipped);
        }
        if found.len() == before {
            let skipped = skipped.note().map_or(String::new(), |note| format!("; {note}"));
            return Err(Error::content(named, format!("no file matches the pattern{skipped}")));
        }
    }
    found.sort_by(|a, b| bytes(a.path()).cmp(bytes(b.path())));
    if let Some(pair) = found.windows(2).find(|pair| pair[0].path() == pair[1].path()) {
        return Err(Error::content(pair[0].path(), "the file is named twice for one table"));
    }
    let is_file = |named: &PathBuf| found.len() == 1 && found[0].path() == named;
    if !named.iter().any(is_file) {
        let (empty, whole): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|taken| taken.input.length() == 0);
        empty.iter().for_each(|taken| skipped.add(&name_of(taken.path()), false));
        found = whole;
    }
    let path = match named {
        [named] => named.clone(),
        _ => common_folder(&found),
    };
    if found.is_empty() {
        let what = match skipped.note() {
            Some(note) => format!("no file in it to read; {note}"),
            None => "an empty folder; expected files of a table".to_string(),
        };
        return Err(Error::content(&path, what));
    }
    let common = common_folder(&found);
    let parts = found.into_iter().map(|Taken { base, input }| {
        let path = input.path();
        let name = path.strip_prefix(&common).unwrap_or(path).to_string_lossy().into();
        Part { name, partitions: partitions(path, &base), input }
    });
    Ok(Found { path, parts: parts.collect(), skipped })
}

/// Takes what was listed as `named`, but for what is hidden.
fn take(named: &Path, listed: Vec<Listed>, found: &mut Vec<Taken>, skipped: &mut Skipped) {
    let mut hidden = BTreeSet::new();
    for listed in listed {
        // A folder that is hidden is one thing, whatever is in it.
        let parts: Vec<&str> = listed.below.split('/').collect();
        match parts.iter().position(|part| is_hidden(part)) {
            Some(at) => {
                hidden.insert(parts[..=at].join("/"));
            }
            None => {
                let base = if listed.below.is_empty() {
                    listed.input.path().parent().unwrap_or(Path::new("")).to_path_buf()
                } else {
                    named.to_path_buf()
                };
                found.push(Taken { base, input: listed.input });
            }
        }
    }
    hidden.iter().for_each(|name| skipped.add(name, true));
}

/// The folders of a pattern before the first that is none by name.
fn literal_folder(pattern: &str) -> PathBuf {
    let literal = pattern.split('/').take_while(|part| !part.contains(['*', '?', '[']));
    let literal: Vec<&str> = literal.collect();
    match literal[..] {
        [""] => PathBuf::from("/"),
        _ => PathBuf::from(literal.join("/")),
    }
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// The folder that all files are in.
fn common_folder(found: &[Taken]) -> PathBuf {
    let mut folders = found.iter().map(|taken| taken.path().parent().unwrap_or(Path::new("")));
    let mut common = folders.next().unwrap_or(Path::new("")).to_path_buf();
    for folder in folders {
        while !folder.starts_with(&common) {
            common.pop();
        }
    }
    common
}

/// The partitions that the folders of a file name: below `base` any, above it those next to it.
fn partitions(path: &Path, base: &Path) -> Vec<(String, String)> {
    let folders: Vec<String> = path.parent().map_or_else(Vec::new, |parent| {
        parent.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
    });
    let inside = base.components().count().min(folders.len());
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pair = |folder: &String| {
        let (key, value) = folder.split_once('=').filter(|(key, _)| !key.is_empty())?;
        let value = if value == MISSING { String::new() } else { plain(value) };
        Some((plain(key), value))
    };
    let mut above: Vec<_> = folders[..inside].iter().rev().map_while(pair).collect();
    above.reverse();
    above.into_iter().chain(folders[inside..].iter().filter_map(pair)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::input::{LocalFiles, MemoryFile};
    use super::*;

    #[test]
    fn partitions_of_folders() {
        for (path, base, expected) in [
            ("logs/dt=2024-03-04/country=US/x.csv", "logs", "dt=2024-03-04 country=US"),
            (
                "logs/dt=2024-03-04/country=US/x.csv",
                "logs/dt=2024-03-04",
                "dt=2024-03-04 country=US",
            ),
            ("run=5/logs/dt=1/raw/h=2/x.csv", "run=5/logs", "dt=1 h=2"),
            ("logs/dt=__HIVE_DEFAULT_PARTITION__/x.csv", "logs", "dt="),
            ("logs/a%20b=1%2F2/x.csv", "logs", "a b=1/2"),
            ("s3://b/logs/dt=1/x.csv", "s3://b/logs", "dt=1"),
            ("x.csv", "", ""),
        ] {
            let found = partitions(Path::new(path), Path::new(base));
            let found: Vec<_> = found.iter().map(|(key, value)| format!("{key}={value}")).collect();
            assert_eq!(found.join(" "), expected, "{path}");
        }
    }

    /// What is found of these files (an ending `-` is an empty one), or the error.
    fn found(files: &[&str], named: &[&str]) -> String {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, if file.ends_with('-') { "" } else { "x" }).unwrap();
        }
        let named: Vec<_> = named.iter().map(|named| dir.path().join(named)).collect();
        match find(&LocalFiles, &named) {
            Ok(found) => {
                let mut words: Vec<_> =
                    found.parts.iter().map(|part| part.name.to_string()).collect();
                words.extend(found.skipped.note());
                words.join(" ")
            }
            Err(error) => error.to_string().replace(&format!("{}/", dir.path().display()), ""),
        }
    }

    #[test]
    fn files_folders_and_patterns() {
        let spark = [
            "s/_SUCCESS",
            "s/.part-0.crc",
            "s/part-1",
            "s/part-0",
            "s/part-2-",
            "s/_tmp/0.json",
            "s/_tmp/1.json",
        ];
        let hive = ["h/dt=1/a", "h/dt=2/b", "h/dt=2/c", "h/_tmp/d", "h/_y=3/e"];
        let two = ["a.csv", "b.csv", "sub/c.csv"];
        for (files, named, expected) in [
            (
                &spark[..],
                &["s"][..],
                "part-0 part-1 skipped: 3 hidden, 1 empty (such as .part-0.crc)",
            ),
            (&spark, &["s/part-*"], "part-0 part-1 skipped: 1 empty (such as part-2-)"),
            (&spark, &["s/*"], "part-0 part-1 skipped: 2 hidden, 1 empty (such as _SUCCESS)"),
            (&spark, &["s/_SUCCESS"], "_SUCCESS"),
            (&hive, &["h"], "_y=3/e dt=1/a dt=2/b dt=2/c skipped: 1 hidden (such as _tmp)"),
            (&hive, &["h/dt=*"], "dt=1/a dt=2/b dt=2/c"),
            (&hive, &["h/dt=2", "h/dt=1"], "dt=1/a dt=2/b dt=2/c"),
            (&hive, &["h/dt=[12]/?"], "dt=1/a dt=2/b dt=2/c"),
            (&two, &["b.csv", "a.csv"], "a.csv b.csv"),
            (&two, &["**/*.csv"], "a.csv b.csv sub/c.csv"),
            (&two, &["*.csv"], "a.csv b.csv"),
            (&two, &["a.csv", "*.csv"], "a.csv: the file is named twice for one table"),
            (&two, &["*.tsv"], "*.tsv: no file matches the pattern"),
            (&two, &["c.csv"], "c.csv: No such file or folder"),
            (&two, &["no/c.csv"], "no/c.csv: No such file or folder"),
            (
                &["e/_SUCCESS", "e/x-", "e/y-"],
                &["e"],
                "e: no file in it to read; skipped: 1 hidden, 2 empty (such as _SUCCESS)",
            ),
            (&["x-"], &["x-"], "x-"),
            (&["a[1].csv"], &["a[1].csv"], "a[1].csv"),
        ] {
            assert_eq!(found(files, named), expected, "{named:?}");
        }
    }

    #[test]
    fn a_pipe_is_refused() {
        let error = LocalFiles.list(Path::new("/dev/null")).unwrap_err().to_string();
        assert!(error.contains("neither a file nor a folder"), "{error}");
        let file = MemoryFile::new("m", "text");
        assert_eq!(file.length(), 4);
    }
}
