//! A picture file: its bytes, or why there are none, and the key of its content.
//!
//! Knows folders, names and the system's refusals. Does not know what the bytes mean.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Component, Path};

use ams_data::ImageKey;

use crate::decode::Limits;
use crate::failure::{Failure, Reason};

/// The key of a picture file: see [`ImageKey`].
pub fn content_key(bytes: &[u8]) -> ImageKey {
    ImageKey::of_content(blake3::hash(bytes).as_bytes())
}

/// Reads the picture file `name` in `folder`, as far as the limits go.
pub fn read(folder: &Path, name: &str, limits: &Limits) -> Result<Vec<u8>, Failure> {
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
