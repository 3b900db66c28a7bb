//! Where the named tensors of a safetensors file lie: the one reading of its header.
//!
//! Knows the layout: 8 bytes of header length, a JSON header, the data. Does not know how the bytes
//! are kept, nor what a tensor means.

use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, SafeTensors};

use crate::{Error, Result};

/// The header of a safetensors file, checked against the file's length.
#[derive(Debug)]
pub struct Header {
    path: PathBuf,
    /// Where the data begins, in bytes.
    data: usize,
    tensors: Metadata,
}

/// One tensor's place in its file.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Type of the elements.
    pub dtype: Dtype,
    /// Dimensions, the slowest first.
    pub shape: Vec<usize>,
    /// Bytes of the file; as many as type and shape say.
    pub bytes: Range<usize>,
}

impl Header {
    /// The header of the file at `path`, whose content is `bytes`.
    ///
    /// # Errors
    /// [`Error::Content`] if the bytes are not a whole safetensors file.
    pub fn read(path: &Path, bytes: &[u8]) -> Result<Header> {
        Header::parse(path, bytes).map_err(|error| {
            let length = bytes.len();
            let what = format!("not a whole safetensors file ({length} bytes): {error}");
            Error::content(path, what)
        })
    }

    /// The same with the format's own error, for files that may be of another format.
    ///
    /// # Errors
    /// If the bytes are not a whole safetensors file.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Header, SafeTensorError> {
        let (length, tensors) = SafeTensors::read_metadata(bytes)?;
        Ok(Header { path: path.to_path_buf(), data: 8 + length, tensors })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names = self.tensors.offset_keys();
        names.sort_unstable();
        names
    }

    /// Whether there is a tensor `name`.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.info(name).is_some()
    }

    /// Where tensor `name` lies.
    ///
    /// # Errors
    /// [`Error::Content`] if there is none, with the names there are.
    pub fn slot(&self, name: &str) -> Result<Slot> {
        let Some(info) = self.tensors.info(name) else {
            let names = self.names().join(", ");
            return Err(self.wrong(name, &format!("is not there; the file has {names}")));
        };
        let (from, to) = info.data_offsets;
        let bytes = self.data + from..self.data + to;
        Ok(Slot { dtype: info.dtype, shape: info.shape.clone(), bytes })
    }

    /// Where tensor `name` of one of the types `types` lies.
    ///
    /// # Errors
    /// [`Error::Content`] if there is none, or one of another type.
    pub fn typed(&self, name: &str, types: &[Dtype]) -> Result<Slot> {
        let slot = self.slot(name)?;
        if types.contains(&slot.dtype) {
            return Ok(slot);
        }
        let expected: Vec<String> = types.iter().map(|dtype| format!("{dtype:?}")).collect();
        let what = format!("is {:?}, expected {}", slot.dtype, expected.join(" or "));
        Err(self.wrong(name, &what))
    }

    /// An error about tensor `name` of this file.
    pub fn wrong(&self, name: &str, what: &str) -> Error {
        Error::content(&self.path, format!("tensor `{name}` {what}"))
    }
}
