//! Names of pictures as people spell them, and the files they mean.
//!
//! Lists are made on other systems than the one that reads them: with `\` between folders, whole
//! paths, `%20` for a space, letters with accents in one sign or two, other capitals. A name means
//! the one file whose name is the same but for these; where there are several or none, it means
//! none, and what comes near it is said.
//!
//! The same is true of the names of rows that were made elsewhere.
//!
//! Knows names. Does not know what is in a file.

use std::collections::HashMap;
use std::path::Path;

use unicode_normalization::UnicodeNormalization;

use crate::listing::files_below;

/// What a name means that is no file's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meant {
    /// This file, relative to the folder.
    File(String),
    /// None; something comes near it, in words.
    Near(String),
    Nothing,
}

/// A name that is no file's, read as a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Relative to the folder, of plain parts.
    Inside(String),
    /// Elsewhere, with its plain parts.
    Elsewhere(String),
}

/// The files of a folder, by their names without what spelling may change.
#[derive(Debug, Default)]
pub(crate) struct Files {
    names: Vec<String>,
    by_path: HashMap<String, Vec<u32>>,
    by_file: HashMap<String, Vec<u32>>,
    by_stem: HashMap<String, Vec<u32>>,
}

impl Files {
    /// The files below `folder`; none, if it cannot be read.
    pub(crate) fn below(folder: &Path) -> Files {
        Files::of(files_below(folder).unwrap_or_default())
    }

    /// The files called `names`.
    pub(crate) fn of(names: Vec<String>) -> Files {
        let mut files = Files::default();
        for (at, name) in names.iter().enumerate() {
            let (at, path) = (at as u32, folded(name));
            let file = file_of(&path).to_owned();
            files.by_stem.entry(stem_of(&file).to_owned()).or_default().push(at);
            files.by_file.entry(file).or_default().push(at);
            files.by_path.entry(path).or_default().push(at);
        }
        Files { names, ..files }
    }

    /// What `path` means, if it is no file's name as it is.
    pub(crate) fn meant(&self, path: &Reading) -> Meant {
        let (Reading::Inside(text) | Reading::Elsewhere(text)) = path;
        let path_folded = folded(text);
        let file = file_of(&path_folded);
        let of = |by: &HashMap<String, Vec<u32>>, key: &str| {
            let found = by.get(key).map(Vec::as_slice).unwrap_or_default();
            found.iter().map(|at| self.names[*at as usize].as_str()).collect::<Vec<&str>>()
        };
        let same = of(&self.by_path, &path_folded);
        match (path, &same[..]) {
            (Reading::Inside(_), [only]) => return Meant::File((*only).to_owned()),
            (Reading::Inside(_), [first, second, ..]) => {
                let what =
                    format!("it may be `{first}` or `{second}`: name it as the file is named");
                return Meant::Near(what);
            }
            _ => {}
        }
        // Of a path elsewhere, the end may be a path in the folder.
        let mut tail = path_folded.as_str();
        while let Some((_, rest)) = tail.split_once('/') {
            if let [only] = of(&self.by_path, rest)[..] {
                return Meant::Near(format!("the folder has `{only}`"));
            }
            tail = rest;
        }
        for found in [of(&self.by_file, file), of(&self.by_stem, stem_of(file))] {
            match found[..] {
                [] => {}
                [only] => return Meant::Near(format!("the folder has `{only}`")),
                [first, ..] => {
                    let others = found.len() - 1;
                    return Meant::Near(format!(
                        "the folder has `{first}` and {others} more like it"
                    ));
                }
            }
        }
        Meant::Nothing
    }
}

/// The paths that `name` may be, the likeliest first; `roots` are ways to write the folder's own
/// path, with `/`.
pub(crate) fn readings(name: &str, roots: &[String]) -> Vec<Reading> {
    let name = name.trim();
    let mut texts = Vec::new();
    match name.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("file://")) {
        // The part before the next `/` is a host's name, mostly empty.
        Some(_) => {
            let rest = &name[7..];
            texts.extend(rest.find('/').map(|at| decoded(&rest[at..])));
        }
        None => {
            texts.push(name.to_owned());
            texts.push(decoded(name));
        }
    }
    texts.dedup();
    let mut readings = Vec::new();
    for text in texts {
        let text = text.replace('\\', "/");
        let rest = roots.iter().find_map(|root| text.strip_prefix(root)?.strip_prefix('/'));
        let is_whole = text.starts_with('/') || has_drive(&text) || text.contains("://");
        let parts = |text: &str| {
            let parts = text.split('/').filter(|part| !matches!(*part, "" | "."));
            parts.map(str::to_owned).collect::<Vec<String>>()
        };
        let inside = parts(rest.unwrap_or(&text));
        let climbs = inside.iter().any(|part| part == "..");
        let plain = || inside.iter().filter(|part| *part != "..").cloned().collect::<Vec<String>>();
        let reading = if (rest.is_some() || !is_whole) && !climbs && !inside.is_empty() {
            Reading::Inside(inside.join("/"))
        } else {
            Reading::Elsewhere(plain().join("/"))
        };
        if !readings.contains(&reading) {
            readings.push(reading);
        }
    }
    readings
}

/// Whether a text begins as a whole path of Windows.
fn has_drive(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!(bytes, [letter, b':', b'/', ..] if letter.is_ascii_alphabetic())
}

/// A text with `%20` and the like as what they stand for; as it is, where that is no text.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let value = digits
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(value.unwrap_or(bytes[at]));
        at += if value.is_some() { 3 } else { 1 };
    }
    match String::from_utf8(out) {
        Ok(out) if !out.contains('\0') => out,
        _ => text.to_owned(),
    }
}

/// A path without what spelling may change: composed letters, small ones.
fn folded(path: &str) -> String {
    let small = path.nfc().flat_map(char::to_lowercase);
    small.nfc().collect()
}

/// The last part of a path.
fn file_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A file's name without its ending.
fn stem_of(file: &str) -> &str {
    file.rsplit_once('.').map_or(file, |(stem, _)| if stem.is_empty() { file } else { stem })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPOSED: &str = "caf\u{e9}.png";
    const DECOMPOSED: &str = "cafe\u{301}.png";

    /// What a name means among some files, below `/shop/pictures`.
    fn check(name: &str) -> String {
        let names = [
            "0.png",
            "a b.png",
            COMPOSED,
            "cats/1.jpg",
            "dogs/1.jpg",
            "dogs/Rex.JPG",
            "twin.png",
            "Twin.png",
            "100%.png",
        ];
        let files = Files::of(names.map(String::from).to_vec());
        let roots = ["/shop/pictures", "pictures-link"].map(String::from);
        let mut near = Meant::Nothing;
        for reading in readings(name, &roots) {
            match files.meant(&reading) {
                Meant::File(file) => return file,
                found if near == Meant::Nothing => near = found,
                _ => {}
            }
        }
        match near {
            Meant::Near(what) => format!("near: {what}"),
            _ => "nothing".to_owned(),
        }
    }

    #[test]
    fn names_mean_the_one_file_that_differs_in_spelling_only() {
        let cases = [
            ("/shop/pictures/0.png", "0.png"),
            ("/shop/pictures/./cats//1.jpg", "cats/1.jpg"),
            ("file:///shop/pictures/a%20b.png", "a b.png"),
            ("FILE://localhost/shop/pictures/0.png", "0.png"),
            ("cats\\1.jpg", "cats/1.jpg"),
            (".\\cats\\1.jpg", "cats/1.jpg"),
            ("./cats/1.jpg", "cats/1.jpg"),
            ("a%20b.png", "a b.png"),
            ("A B.PNG", "a b.png"),
            (" 0.png ", "0.png"),
            (DECOMPOSED, COMPOSED),
            ("CAFE\u{301}.PNG", COMPOSED),
            ("caf%C3%A9.png", COMPOSED),
            ("cafe%CC%81.png", COMPOSED),
            ("dogs/rex.jpg", "dogs/Rex.JPG"),
            ("100%25.png", "100%.png"),
        ];
        for (name, expected) in cases {
            assert_eq!(check(name), expected, "{name}");
        }
    }

    #[test]
    fn where_there_is_not_just_one_what_comes_near_is_said() {
        let cases = [
            ("TWIN.png", "near: it may be `twin.png` or `Twin.png`: name it as the file is named"),
            ("/elsewhere/cats/1.jpg", "near: the folder has `cats/1.jpg`"),
            ("C:\\shop\\dogs\\1.jpg", "near: the folder has `dogs/1.jpg`"),
            ("https://cdn.shop/0.png?w=9", "near: the folder has `0.png`"),
            ("https://cdn.shop/0.png", "near: the folder has `0.png`"),
            ("pictures/0.png", "near: the folder has `0.png`"),
            ("1.jpg", "near: the folder has `cats/1.jpg` and 1 more like it"),
            ("0.jpg", "near: the folder has `0.png`"),
            ("rex", "near: the folder has `dogs/Rex.JPG`"),
            ("../0.png", "near: the folder has `0.png`"),
            ("cats/../0.png", "near: the folder has `0.png`"),
            ("/shop/pictures/../secret.png", "nothing"),
            ("file://shop", "nothing"),
            ("", "nothing"),
            ("gone.png", "nothing"),
        ];
        for (name, expected) in cases {
            assert_eq!(check(name), expected, "{name}");
        }
    }
}
