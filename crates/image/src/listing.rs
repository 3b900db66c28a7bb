//! Which pictures there are, where no dataset names them: a folder with all below it, or a list.
//!
//! Knows folders, tables and how files begin. Does not decode a picture.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use ams_data::catalogue::SEPARATOR;
use ams_data::source::{self, TableOptions};
use ams_data::{Error, Result};
use rayon::prelude::*;

use crate::kind::{Kind, START};

/// How names of pictures end, in small letters. They count where a file's content does not tell,
/// such as an empty file's.
const ENDINGS: [&str; 20] = [
    "jpg", "jpeg", "jfif", "jpe", "jfi", "pjpeg", "png", "apng", "gif", "bmp", "dib", "webp",
    "tif", "tiff", "avif", "heic", "heif", "jxl", "jp2", "svg",
];

/// Columns that hold names of pictures, unless one is named: the first that there is; without
/// regard to capitals, `_`, `-` and spaces.
const COLUMNS: [&str; 16] = [
    "image",
    "images",
    "imagepath",
    "imagefile",
    "imagename",
    "path",
    "file",
    "filename",
    "filepath",
    "picture",
    "pictures",
    "photo",
    "photos",
    "img",
    "imgpath",
    "name",
];

/// How files begin that macOS writes beside others on foreign disks (AppleDouble): they have these
/// files' names.
const BESIDE: [u8; 4] = [0, 5, 0x16, 7];

/// What there is below a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The pictures, as names relative to the folder with `/` between parts, ascending.
    pub pictures: Vec<String>,
    /// How many files were passed over because they are no pictures, by what they are: `.txt`, `no
    /// ending`, `unreadable folder`.
    pub passed_over: BTreeMap<String, u64>,
}

/// The pictures below `folder`, also those of classes in folders of their own (`cats/1.jpg`), told
/// by their first bytes and not by their names: with any ending or none, of formats that are not
/// decoded, too, so that these are named as failures. Where the bytes do not tell and the ending is
/// a picture's, it is one, likely a damaged one. A folder that is reached twice, by links, counts
/// once.
///
/// # Errors
/// If `folder` cannot be read.
pub fn below(folder: &Path) -> Result<Listing> {
    let Walk { names, mut passed_over } = walk(folder)?;
    let what = |name: &String| what_is(&folder.join(name), name);
    let whats = names.par_iter().map(what).collect::<Vec<Option<String>>>();
    let mut pictures = Vec::with_capacity(names.len());
    for (name, what) in names.into_iter().zip(whats) {
        match what {
            None => pictures.push(name),
            Some(what) => *passed_over.entry(what).or_default() += 1,
        }
    }
    Ok(Listing { pictures, passed_over })
}

/// All files below `folder`, however their names end: what a dataset names needs no ending.
///
/// # Errors
/// As [`below`].
pub fn files_below(folder: &Path) -> Result<Vec<String>> {
    Ok(walk(folder)?.names)
}

/// Nothing, if the file at `path` is taken for a picture; else what it is, in a word.
fn what_is(path: &Path, name: &str) -> Option<String> {
    let file = name.rsplit('/').next().unwrap_or(name);
    let ending = file.rsplit_once('.').filter(|(stem, _)| !stem.is_empty());
    let ending = ending.map(|(_, ending)| ending.to_lowercase());
    let is_named = ending.as_ref().is_some_and(|ending| ENDINGS.contains(&&ending[..]));
    // Asked before opening: opening a pipe would wait for ever.
    let is_file = fs::metadata(path).is_ok_and(|about| about.is_file());
    let mut start = Vec::new();
    if is_file && let Ok(file) = File::open(path) {
        // What cannot be read has no first bytes, and is a picture by its name or none.
        let _ = file.take(START as u64).read_to_end(&mut start);
    }
    if Kind::of(&start).is_some() {
        return None;
    }
    if start.starts_with(&BESIDE) {
        return Some("AppleDouble".into());
    }
    match (is_named, ending) {
        (true, _) => None,
        (false, Some(ending)) => Some(format!(".{ending}")),
        (false, None) => Some("no ending".into()),
    }
}

/// Files below a folder, with what has no name that can be used.
struct Walk {
    names: Vec<String>,
    passed_over: BTreeMap<String, u64>,
}

fn walk(folder: &Path) -> Result<Walk> {
    let mut found = Walk { names: Vec::new(), passed_over: BTreeMap::new() };
    let mut seen = BTreeSet::new();
    let mut left = vec![(folder.to_path_buf(), String::new())];
    while let Some((path, prefix)) = left.pop() {
        let known = path.canonicalize().map(|real| !seen.insert(real));
        let entries = match (known, fs::read_dir(&path)) {
            (Ok(true), _) => continue,
            (_, Err(error)) if prefix.is_empty() => return Err(Error::io(folder)(error)),
            (_, Err(_)) | (Err(_), _) => {
                *found.passed_over.entry("unreadable folder".into()).or_default() += 1;
                continue;
            }
            (Ok(false), Ok(entries)) => entries,
        };
        let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for entry in entries {
            let Some(name) = entry.file_name().and_then(|name| name.to_str()) else {
                *found.passed_over.entry("name that is not UTF-8".into()).or_default() += 1;
                continue;
            };
            if entry.is_dir() {
                left.push((entry.clone(), format!("{prefix}{name}/")));
            } else {
                found.names.push(format!("{prefix}{name}"));
            }
        }
    }
    found.names.sort();
    Ok(found)
}

/// The names in a list: a table as `ams prepare` reads them (CSV with any delimiter, JSON lines,
/// Parquet) and its column `column`, or one that is called `image`, `path`, `file`, `filename`,
/// `name` or the like; or one whose header is the name of a picture, which then is the first of a
/// list without header. A text without any of these has one name a line. A cell may hold several
/// names.
///
/// # Errors
/// If the file cannot be read, or has no column `column`, or several columns and none that is
/// known.
pub fn listed(path: &Path, column: Option<&str>) -> Result<Vec<String>> {
    let table = match source::open(path, &TableOptions::default()) {
        Ok(table) => table,
        Err(error) => return one_a_line(path, column).ok_or(error),
    };
    let columns = table.columns();
    let all = || columns.iter().map(|it| format!("`{it}`")).collect::<Vec<String>>().join(", ");
    let position = match column {
        Some(column) => {
            let found = columns.iter().position(|name| name == column);
            let folded = || columns.iter().position(|name| folded(name) == folded(column));
            let what = || Error::content(path, format!("no column `{column}`, found: {}", all()));
            Some(found.or_else(folded).ok_or_else(what)?)
        }
        None => {
            let at = |name: &&str| columns.iter().position(|column| folded(column) == **name);
            COLUMNS.iter().find_map(at)
        }
    };
    let (position, header) = match position {
        Some(position) => (position, false),
        None => {
            let named = (0..columns.len()).filter(|at| is_named_like_a_picture(&columns[*at]));
            let named = named.collect::<Vec<usize>>();
            let lines = one_a_line(path, None);
            match (&named[..], columns.len(), lines) {
                // Unless what follows says that the first line is a header.
                (_, 1, Some(lines))
                    if lines.first().is_some_and(|first| *first == columns[0])
                        && (named.len() == 1
                            || !lines.get(1).is_some_and(|line| is_named_like_a_picture(line))) =>
                {
                    return Ok(lines);
                }
                (_, 1, _) => (0, named.len() == 1),
                ([only], _, _) => (*only, true),
                (_, _, Some(lines)) if lines.iter().all(|name| is_named_like_a_picture(name)) => {
                    return Ok(lines);
                }
                _ => {
                    let what = format!(
                        "no column is called image, path, file, filename or name; say which one holds the names of the \
                         pictures with --list-column; found: {}",
                        all()
                    );
                    return Err(Error::content(path, what));
                }
            }
        }
    };
    let first = if header { vec![columns[position].clone()] } else { Vec::new() };
    match names_in(table.as_ref(), position, first) {
        // Rows of other widths than the first: a line is a name, and has commas in it.
        Err(error) if header => one_a_line(path, None).ok_or(error),
        names => names,
    }
}

/// Appends the names in column `position` of `table` to `names`.
fn names_in(
    table: &dyn source::Table,
    position: usize,
    mut names: Vec<String>,
) -> Result<Vec<String>> {
    for batch in table.batches(&[position])? {
        let batch = batch?;
        for row in 0..batch.rows() {
            let cell = batch.get(0, row).split(SEPARATOR);
            names.extend(cell.filter(|name| !name.is_empty()).map(str::to_owned));
        }
    }
    Ok(names)
}

/// The lines of a text that are not empty; nothing, if it is no text, or a column was asked for.
fn one_a_line(path: &Path, column: Option<&str>) -> Option<Vec<String>> {
    let text = lines_of(path).ok().filter(|_| column.is_none())?;
    // A table in another guise has signs that no text has.
    if text.first().is_some_and(|line| line.starts_with("PAR1") || line.starts_with("ARROW1")) {
        return None;
    }
    let is_text =
        text.iter().all(|line| !line.chars().any(|sign| sign.is_control() && sign != '\t'));
    is_text.then(|| text.into_iter().filter(|line| !line.is_empty()).collect())
}

/// The lines of a text, without byte order mark and without spaces at their ends.
///
/// # Errors
/// If the file cannot be read, or is not UTF-8.
pub fn lines_of(path: &Path) -> Result<Vec<String>> {
    let bytes = fs::read(path).map_err(Error::io(path))?;
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        let what = "UTF-16, expected UTF-8: save it as UTF-8, or `iconv -f UTF-16 -t UTF-8`";
        return Err(Error::content(path, what));
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let text = std::str::from_utf8(text).map_err(|error| {
        let line = 1 + text[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        Error::content(path, format!("line {line}: not UTF-8: save it as UTF-8"))
    })?;
    Ok(text.lines().map(|line| line.trim_end().to_owned()).collect())
}

/// Whether a text ends like the name of a picture.
pub fn is_named_like_a_picture(name: &str) -> bool {
    let ending = name.trim().rsplit_once('.').map(|(_, ending)| ending.to_lowercase());
    ending.is_some_and(|ending| ENDINGS.contains(&&ending[..]))
}

/// A column's name without capitals, `_`, `-` and spaces.
fn folded(name: &str) -> String {
    let plain = name.chars().filter(|sign| !matches!(sign, '_' | '-' | ' ' | '\u{feff}'));
    plain.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests;
