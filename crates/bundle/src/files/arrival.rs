//! A folder that may still be arriving: copied file by file, by something that knows nothing of
//! folders that appear whole.
//!
//! The manifest may come first and may be cut short, files may be missing or shorter than it says.
//! Such a folder is not bad, only not there yet. Whoever looks again compares [`Stamp`]s: as long
//! as they are equal, nothing has come.
//!
//! Knows names, sizes and times of bundles and deltas alike; no contents.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::Path;
use std::time::SystemTime;

use crate::error::{Error, Result};
use crate::files::folder::{BaseVersion, FileList, MANIFEST};
use crate::files::version_delta::{LONGEST_CHAIN, base_place};

/// What was seen of a folder's files: the manifest, then each file it lists, in order of their
/// names. Two equal stamps mean that no file came, went, grew, or was written or replaced in
/// between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<(String, Option<FileStamp>)>);

impl Stamp {
    /// Bytes of the files that the manifest lists, as they are; without those of a base.
    pub fn bytes(&self) -> u64 {
        let own = self.0.iter().skip(1).filter(|(name, _)| !name.contains('/'));
        let files = own.filter_map(|(_, seen)| seen.as_ref());
        files.fold(0, |sum, seen| sum.saturating_add(seen.bytes))
    }

    /// How `later` differs, by the first file that does.
    pub fn difference(&self, later: &Stamp) -> Option<String> {
        let find = |name: &str| later.0.iter().find(|(other, _)| other == name);
        let changed = |(name, seen): &(String, Option<FileStamp>)| {
            let now = find(name).and_then(|(_, seen)| seen.as_ref());
            let what = match (seen, now) {
                (Some(_), None) => "is not there any more".to_owned(),
                (Some(before), Some(now)) if before.bytes != now.bytes => {
                    format!("has {} bytes instead of {}", now.bytes, before.bytes)
                }
                (before, now) if before.as_ref() != now => "was written again".to_owned(),
                _ => return None,
            };
            Some(format!("{name} {what}"))
        };
        let first = self.0.iter().find_map(changed);
        // Equal in all that was listed before: another manifest lists more.
        first.or_else(|| (self != later).then(|| format!("{MANIFEST} lists other files")))
    }
}

/// Size, time and inode of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FileStamp {
    bytes: u64,
    /// Unknown where the system does not say.
    modified: Option<SystemTime>,
    /// 0 where files have none.
    inode: u64,
}

/// How much of a folder is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// No manifest: nothing is published here.
    Absent,
    /// Some of it; which file is not, with its bytes of those expected.
    Arriving(String),
    /// All that the manifest lists, as far as sizes tell. Opening says what is wrong with it, if
    /// something is.
    Whole,
}

/// How much of the bundle or delta in `folder` is there. The stamp was taken before anything was
/// read: what comes later makes another one.
///
/// # Errors
/// If the manifest cannot be read, or lists what is no plain name of a file, which is not looked
/// at.
pub fn look(folder: &Path) -> Result<(Arrival, Stamp)> {
    look_below(folder, 0)
}

/// The same of a version below `above` version deltas.
fn look_below(folder: &Path, above: usize) -> Result<(Arrival, Stamp)> {
    let path = folder.join(MANIFEST);
    let manifest = match seen(&path) {
        Ok(Some(metadata)) if metadata.is_file() => metadata,
        // A folder or a pipe of this name is no manifest either, and is not waited for.
        Ok(_) => return Ok((Arrival::Absent, Stamp::default())),
        Err(error) => return Err(Error::io(&path)(error)),
    };
    let mut stamp = Stamp(vec![(MANIFEST.to_owned(), Some(FileStamp::of(&manifest)))]);
    let text = fs::read(&path).map_err(Error::io(&path))?;
    let listed: FileList = match serde_json::from_slice(&text) {
        Ok(listed) => listed,
        Err(error) if error.is_eof() => {
            let what = format!("{MANIFEST} ends early, after {} bytes", text.len());
            return Ok((Arrival::Arriving(what), stamp));
        }
        Err(_) => return Ok((Arrival::Whole, stamp)),
    };
    listed.check_names(&path)?;
    let mut missing = Vec::new();
    for (name, entry) in &listed.files {
        // What cannot be looked at will not be read either, and opening says why.
        let Ok(file) = seen(&folder.join(name)) else {
            stamp.0.push((name.clone(), None));
            continue;
        };
        let bytes = file.as_ref().map_or(0, Metadata::len);
        if file.is_none() || bytes < entry.bytes {
            missing.push(format!("{name} has {bytes} of {} bytes", entry.bytes));
        }
        stamp.0.push((name.clone(), file.as_ref().map(FileStamp::of)));
    }
    let arrival = match &missing[..] {
        [] => match listed.base_version() {
            // Opening says that the chain is too long.
            Some(base) if above < LONGEST_CHAIN => look_at_base(folder, base, above, &mut stamp)?,
            _ => Arrival::Whole,
        },
        [one] => Arrival::Arriving(one.clone()),
        [one, others @ ..] => {
            Arrival::Arriving(format!("{one}, and {} other files are not whole", others.len()))
        }
    };
    Ok((arrival, stamp))
}

/// How much of the version is there that a version delta in `folder` follows. Its files join
/// `stamp`.
fn look_at_base(
    folder: &Path,
    base: &BaseVersion,
    above: usize,
    stamp: &mut Stamp,
) -> Result<Arrival> {
    let number = base.number;
    let (arrival, seen) = look_below(&base_place(folder, number)?, above + 1)?;
    if seen.0.is_empty() {
        stamp.0.push((format!("../{number}/{MANIFEST}"), None));
    }
    // Names of files below are already those of their folders.
    let named = |(name, seen): (String, _)| match name.starts_with("../") {
        true => (name, seen),
        false => (format!("../{number}/{name}"), seen),
    };
    stamp.0.extend(seen.0.into_iter().map(named));
    Ok(match arrival {
        Arrival::Whole => Arrival::Whole,
        Arrival::Absent => {
            Arrival::Arriving(format!("version {number}, which it follows, is not there"))
        }
        Arrival::Arriving(what) => {
            Arrival::Arriving(format!("version {number}, which it follows, is not whole: {what}"))
        }
    })
}

/// Metadata of a file, links followed; `None` if it does not exist.
fn seen(path: &Path) -> std::io::Result<Option<Metadata>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl FileStamp {
    fn of(metadata: &Metadata) -> FileStamp {
        FileStamp {
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
            inode: inode(metadata),
        }
    }
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, replace};
    use ams_model::ImageArm;

    fn arriving(folder: &Path) -> String {
        match look(folder).unwrap().0 {
            Arrival::Arriving(what) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_folder_copied_file_by_file_arrives_until_it_is_whole() {
        let fixture = Fixture::new(ImageArm::Joint);
        let manifest = fixture.write(1).unwrap();
        let (from, to) = (fixture.place(1), fixture.place(2));
        assert_eq!(look(&to).unwrap(), (Arrival::Absent, Stamp::default()));
        fs::create_dir(&to).unwrap();
        assert_eq!(look(&to).unwrap(), (Arrival::Absent, Stamp::default()));
        let text = fs::read(from.join(MANIFEST)).unwrap();
        let mut stamps = Vec::new();
        let mut came = |to: &Path| {
            let stamp = look(to).unwrap().1;
            assert!(!stamps.contains(&stamp), "{stamp:?}");
            assert_eq!(look(to).unwrap().1, stamp);
            stamps.push(stamp);
        };
        for length in [0, 1, 100, text.len() - 1] {
            replace(&to.join(MANIFEST), &text[..length]);
            assert_eq!(arriving(&to), format!("MANIFEST.json ends early, after {length} bytes"));
            came(&to);
        }
        replace(&to.join(MANIFEST), &text);
        let mut left = manifest.files.len();
        for (name, entry) in &manifest.files {
            let bytes = fs::read(from.join(name)).unwrap();
            for length in [None, Some(0), Some(bytes.len() - 1)] {
                if let Some(length) = length {
                    replace(&to.join(name), &bytes[..length]);
                }
                let mut expected =
                    format!("{name} has {} of {} bytes", length.unwrap_or(0), entry.bytes);
                if left > 1 {
                    expected += &format!(", and {} other files are not whole", left - 1);
                }
                assert_eq!(arriving(&to), expected);
                came(&to);
            }
            replace(&to.join(name), &bytes);
            left -= 1;
        }
        assert_eq!(look(&to).unwrap().0, Arrival::Whole);
        came(&to);
        // The same bytes again, as another file.
        replace(&to.join("ids.safetensors"), fs::read(from.join("ids.safetensors")).unwrap());
        came(&to);
    }

    #[test]
    fn what_is_wrong_but_complete_is_whole_and_opening_says_why() {
        let fixture = Fixture::new(ImageArm::None);
        fixture.write(1).unwrap();
        let manifest = fixture.place(1).join(MANIFEST);
        let text = fs::read_to_string(&manifest).unwrap();
        for other in ["no JSON".to_owned(), "{}".to_owned(), text.replace("ams-bundle/1", "x/1")] {
            replace(&manifest, other);
            assert_eq!(look(&fixture.place(1)).unwrap().0, Arrival::Whole);
            crate::Model::open(&fixture.place(1)).unwrap_err();
        }
        replace(&manifest, &text);
        let longer = fixture.place(1).join("samples.json");
        replace(&longer, "x".repeat(5000));
        assert_eq!(look(&fixture.place(1)).unwrap().0, Arrival::Whole);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let fixture = Fixture::new(ImageArm::None);
        fixture.write(1).unwrap();
        let manifest = fixture.place(1).join(MANIFEST);
        let text = fs::read_to_string(&manifest).unwrap();
        for name in ["../1/ids.safetensors", "/etc/passwd", "..", ".", "", "a/b", "a\\\\b", "C:x"] {
            let other = text.replace("\"ids.safetensors\"", &format!("\"{name}\""));
            assert_ne!(other, text);
            replace(&manifest, other);
            let expected = "expected the plain name of a file beside it";
            for error in [
                look(&fixture.place(1)).unwrap_err(),
                crate::Model::open(&fixture.place(1)).unwrap_err(),
                crate::files::version_bytes(&fixture.place(1)).unwrap_err(),
            ] {
                let error = error.to_string();
                assert!(error.contains("MANIFEST.json: lists the file"), "{name}: {error}");
                assert!(error.ends_with(expected), "{name}: {error}");
            }
        }
    }
}
