//! Which pictures there are, where no dataset names them: a folder with all below it, or a list.
//!
//! Knows folders and CSV. Does not open a picture.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ams_data::{Error, Result};

/// How names of pictures end, in small letters.
const ENDINGS: [&str; 6] = [".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp"];

/// Columns that hold names of pictures, unless one is named.
const COLUMNS: [&str; 6] = ["image", "path", "file", "filename", "file_name", "name"];

/// The pictures below `folder`, as names relative to it with `/` between parts, ascending; also those of classes in folders
/// of their own (`cats/1.jpg`). A folder that is reached twice, by links, counts once.
///
/// # Errors
/// If `folder` cannot be read. Folders in it that cannot be read are passed over.
pub fn below(folder: &Path) -> Result<Vec<String>> {
    let mut names = files_below(folder)?;
    names.retain(|name| {
        let small = name.to_ascii_lowercase();
        ENDINGS.iter().any(|ending| small.ends_with(ending))
    });
    Ok(names)
}

/// Likewise all files, however their names end: what a dataset names needs no ending.
///
/// # Errors
/// As [`below`].
pub fn files_below(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut seen = BTreeSet::new();
    let mut left = vec![(folder.to_path_buf(), String::new())];
    while let Some((path, prefix)) = left.pop() {
        let known = path.canonicalize().map(|real| !seen.insert(real));
        let entries = match (known, fs::read_dir(&path)) {
            (Ok(true), _) => continue,
            (_, Err(error)) if prefix.is_empty() => return Err(Error::io(folder)(error)),
            (_, Err(_)) | (Err(_), _) => continue,
            (Ok(false), Ok(entries)) => entries,
        };
        let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for entry in entries {
            let Some(name) = entry.file_name().and_then(|name| name.to_str()) else { continue };
            if entry.is_dir() {
                left.push((entry.clone(), format!("{prefix}{name}/")));
            } else {
                names.push(format!("{prefix}{name}"));
            }
        }
    }
    names.sort();
    Ok(names)
}

/// The names in a list: a CSV file with a header and the column `column` (or one that is called `image`, `path`, `file`,
/// `filename`, `file_name` or `name`), or, where no header has such a column, one name a line.
///
/// # Errors
/// If the file cannot be read, or has no column `column`.
pub fn listed(path: &Path, column: Option<&str>) -> Result<Vec<String>> {
    let wrong = |error: csv::Error| Error::content(path, error.to_string());
    let text = fs::read(path).map_err(Error::io(path))?;
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(&text[..]);
    let header = reader.headers().map_err(wrong)?.clone();
    let at = |name: &str| header.iter().position(|it| it.trim_start_matches('\u{feff}') == name);
    let found = match column {
        Some(column) => {
            let listed = header.iter().collect::<Vec<&str>>().join(", ");
            let what = format!("no column `{column}`, found: {listed}");
            Some(at(column).ok_or_else(|| Error::content(path, what))?)
        }
        None => COLUMNS.into_iter().find_map(at),
    };
    let Some(found) = found else {
        let text = String::from_utf8(text)
            .map_err(|error| Error::content(path, format!("not UTF-8: {error}")))?;
        let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
        return Ok(lines.map(str::to_owned).collect());
    };
    let mut names = Vec::new();
    for record in reader.records() {
        let record = record.map_err(wrong)?;
        names.extend(record.get(found).filter(|name| !name.is_empty()).map(str::to_owned));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_classes_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["dogs/b.JPG", "cats/a.png", "cats/deep/c.webp", "cats/notes.txt", "d.gif"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path(), folder.path().join("cats/loop")).unwrap();
        let names = below(folder.path()).unwrap();
        assert_eq!(names, ["cats/a.png", "cats/deep/c.webp", "d.gif", "dogs/b.JPG"]);
        assert!(files_below(folder.path()).unwrap().contains(&"cats/notes.txt".to_owned()));
        assert!(below(&folder.path().join("nowhere")).is_err());
    }

    #[test]
    fn lists_have_a_column_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let check = |text: &str, column: Option<&str>| {
            fs::write(&path, text).unwrap();
            listed(&path, column).map_err(|error| error.to_string())
        };
        let expected = ["a.jpg", "b, c.jpg"].map(String::from).to_vec();
        assert_eq!(check("id,path\n1,a.jpg\n2,\"b, c.jpg\"\n3,\n", None), Ok(expected));
        assert_eq!(check("id,poster\n1,a.jpg\n", Some("poster")), Ok(vec!["a.jpg".into()]));
        assert_eq!(check("a.jpg\nb.jpg\n", None), Ok(vec!["a.jpg".into(), "b.jpg".into()]));
        let missing = check("id,poster\n1,a.jpg\n", Some("image")).unwrap_err();
        assert!(missing.ends_with("no column `image`, found: id, poster"), "{missing}");
    }
}
