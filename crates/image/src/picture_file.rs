//! A picture file: its bytes, or why there are none, and the key of its content.
//!
//! Knows folders, names and the system's refusals. Does not know what the bytes mean.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use ams_data::ImageKey;

use crate::decode::Limits;
use crate::failure::{Failure, Reason};
use crate::spelling::{Files, Meant, Reading, readings};

/// The key of a picture file: see [`ImageKey`].
pub(crate) fn content_key(bytes: &[u8]) -> ImageKey {
    ImageKey::of_content(blake3::hash(bytes).as_bytes())
}

/// A folder of picture files that others name.
#[derive(Debug)]
pub(crate) struct PictureFolder {
    folder: PathBuf,
    /// Ways to write the folder's own path.
    roots: Vec<String>,
    /// Looked at once a name is no file's.
    files: OnceLock<Files>,
}

impl PictureFolder {
    /// The folder at `folder`.
    pub(crate) fn new(folder: &Path) -> PictureFolder {
        let ways = [std::path::absolute(folder).ok(), folder.canonicalize().ok()];
        let mut roots = Vec::new();
        for way in ways.iter().flatten().filter_map(|way| way.to_str()) {
            let way = way.replace('\\', "/");
            roots.push(way.trim_end_matches('/').to_owned());
        }
        PictureFolder { folder: folder.to_path_buf(), roots, files: OnceLock::new() }
    }

    /// Reads the picture file called `name`, as far as the limits go; and the file's name, where it
    /// is spelled differently.
    pub(crate) fn read(
        &self,
        name: &str,
        limits: &Limits,
    ) -> Result<(Vec<u8>, Option<String>), Failure> {
        let mut failure = match read(&self.folder, name, limits) {
            Ok(bytes) => return Ok((bytes, None)),
            Err(failure) => failure,
        };
        if !matches!(failure.reason, Reason::Missing | Reason::Outside) {
            return Err(failure);
        }
        let readings = readings(name, &self.roots);
        let inside = readings.iter().filter_map(|reading| match reading {
            Reading::Inside(path) => Some(path),
            Reading::Elsewhere(_) => None,
        });
        let mut inside = inside.filter(|path| self.folder.join(path).is_file());
        let file = inside.next().cloned();
        match file.map_or_else(|| self.near(&readings), Ok) {
            Ok(file) => read(&self.folder, &file, limits).map(|bytes| (bytes, Some(file))),
            Err(near) => {
                if let Some(near) = near {
                    failure.detail += &format!("; {near}");
                }
                Err(failure)
            }
        }
    }

    /// The file that is meant, or what comes near it.
    fn near(&self, readings: &[Reading]) -> Result<String, Option<String>> {
        let files = self.files.get_or_init(|| Files::below(&self.folder));
        let mut near = None;
        for reading in readings {
            match files.meant(reading) {
                Meant::File(file) => return Ok(file),
                Meant::Near(what) => near = near.or(Some(what)),
                Meant::Nothing => {}
            }
        }
        Err(near)
    }
}

/// Reads the picture file `name` in `folder`, spelled just so, as far as the limits go.
pub(crate) fn read(folder: &Path, name: &str, limits: &Limits) -> Result<Vec<u8>, Failure> {
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if !Path::new(name).components().all(inside) {
        let detail = "the name leads out of the folder of pictures";
        return Err(Failure::new(Reason::Outside, detail));
    }
    let path = folder.join(name);
    let refused = |error: io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename => {
            Failure::new(Reason::Missing, "no such file in the folder of pictures")
        }
        _ => Failure::new(Reason::Unreadable, error.to_string()),
    };
    // Asked before opening: opening a pipe would wait for ever.
    let about = std::fs::metadata(&path).map_err(refused)?;
    if !about.is_file() {
        return Err(Failure::new(Reason::Unreadable, "not a file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(&path).map_err(refused)?;
    file.take(limits.file_bytes + 1).read_to_end(&mut bytes).map_err(refused)?;
    if bytes.len() as u64 > limits.file_bytes {
        let detail = format!("{} bytes, at most {} allowed", about.len(), limits.file_bytes);
        return Err(Failure::new(Reason::TooLarge, detail));
    }
    if bytes.is_empty() {
        return Err(Failure::new(Reason::Empty, "the file has no bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What reading a name gives: the bytes, with the file's name where it differs, or the failure.
    fn check(folder: &Path, name: &str) -> String {
        match PictureFolder::new(folder).read(name, &Limits::default()) {
            Ok((bytes, None)) => String::from_utf8(bytes).unwrap(),
            Ok((bytes, Some(file))) => format!("{} of {file}", String::from_utf8(bytes).unwrap()),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn names_are_found_inside_the_folder_only() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("pictures");
        std::fs::create_dir_all(folder.join("cats")).unwrap();
        std::fs::write(folder.join("0.png"), "zero").unwrap();
        std::fs::write(folder.join("cats/caf\u{e9}.png"), "cat").unwrap();
        std::fs::write(place.path().join("secret.png"), "secret").unwrap();
        let whole = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let of_cat = "cat of cats/caf\u{e9}.png";
        let outside = "outside: the name leads out of the folder of pictures";
        let secret = place.path().join("secret.png").to_str().unwrap().to_owned();
        let cases = [
            ("0.png".to_owned(), "zero"),
            ("./0.png".to_owned(), "zero"),
            (whole("0.png"), "zero of 0.png"),
            (format!("file://{}", whole("0.png")), "zero of 0.png"),
            ("cats\\caf\u{e9}.png".to_owned(), of_cat),
            ("cats/cafe\u{301}.png".to_owned(), of_cat),
            ("Cats/caf%C3%A9.PNG".to_owned(), of_cat),
            ("../secret.png".to_owned(), outside),
            (whole("../secret.png"), outside),
            (secret, outside),
            ("..\\secret.png".to_owned(), "missing: no such file in the folder of pictures"),
            ("%2e%2e/secret.png".to_owned(), "missing: no such file in the folder of pictures"),
            (
                "0.jpg".to_owned(),
                "missing: no such file in the folder of pictures; the folder has `0.png`",
            ),
            ("/etc/passwd".to_owned(), outside),
        ];
        for (name, expected) in cases {
            assert_eq!(check(&folder, &name), expected, "{name}");
        }
        #[cfg(unix)]
        {
            // By a link that names the folder, too.
            let link = place.path().join("link");
            std::os::unix::fs::symlink(&folder, &link).unwrap();
            assert_eq!(check(&link, &whole("0.png")), "zero of 0.png");
            assert_eq!(check(&link, link.join("0.png").to_str().unwrap()), "zero of 0.png");
        }
    }
}
