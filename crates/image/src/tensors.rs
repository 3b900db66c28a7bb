//! Named tensors in a memory-mapped safetensors file, and the streaming way to write one: a JSON
//! header padded to 8 bytes, then data with the widest types first.
//!
//! Knows alignment. Does not know what the tensors mean.

use std::path::{Path, PathBuf};

use ams_data::staging::FileEntry;
use ams_data::tensors::{Header, Slot};
use ams_data::{Error, Result, map};
use bytemuck::Pod;
use memmap2::Mmap;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::durable::HashedFile;

/// A mapped safetensors file whose header has been checked against the file's length.
#[derive(Debug)]
pub struct Tensors {
    map: Mmap,
    header: Header,
}

impl Tensors {
    /// Maps `path` and checks its header.
    pub fn open(path: &Path) -> Result<Tensors> {
        let map = map(path)?;
        let header = Header::read(path, &map)?;
        Ok(Tensors { map, header })
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        self.header.names()
    }

    /// Where tensor `name` lies.
    pub fn slot(&self, name: &str) -> Result<Slot> {
        self.header.slot(name)
    }

    /// Where tensor `name` lies, provided it has this type and rank.
    pub fn typed(&self, name: &str, dtype: Dtype, rank: usize) -> Result<Slot> {
        let slot = self.slot(name)?;
        if slot.dtype != dtype || slot.shape.len() != rank {
            let (came, shape) = (slot.dtype, &slot.shape);
            let what =
                format!("is {came:?} {shape:?}, expected {dtype:?} with {rank} dimension(s)");
            return Err(self.header.wrong(name, &what));
        }
        self.slice::<u8>(&slot)?;
        Ok(slot)
    }

    /// The values of `slot`; an error where the file's alignment does not allow them as `T`.
    pub fn slice<T: Pod>(&self, slot: &Slot) -> Result<&[T]> {
        bytemuck::try_cast_slice(&self.map[slot.bytes.clone()]).map_err(|error| {
            let at = slot.bytes.start;
            Error::content(
                self.path(),
                format!("tensor data at byte {at} cannot be mapped: {error}"),
            )
        })
    }

    /// The bytes of the whole file, header included.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        self.header.path()
    }
}

/// A safetensors file written front to back, so that no tensor has to be in memory at once.
pub struct TensorWriter {
    file: HashedFile,
    left: usize,
}

impl TensorWriter {
    /// Writes the header for `tensors` (name, type, shape), widest types first as the format asks
    /// for.
    pub fn create(path: PathBuf, tensors: &[(&str, Dtype, Vec<usize>)]) -> Result<TensorWriter> {
        let mut offset = 0;
        let mut infos = Vec::new();
        for (name, dtype, shape) in tensors {
            let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            let data_offsets = (offset, offset + bytes);
            infos.push((
                (*name).to_string(),
                TensorInfo { dtype: *dtype, shape: shape.clone(), data_offsets },
            ));
            offset += bytes;
        }
        let header = Metadata::new(None, infos).expect("offsets are consecutive");
        let mut text = serde_json::to_vec(&header).expect("a header of plain numbers and names");
        text.resize(text.len().next_multiple_of(8), b' ');
        let mut file = HashedFile::create(path)?;
        file.push(&(text.len() as u64).to_le_bytes())?;
        file.push(&text)?;
        Ok(TensorWriter { file, left: offset })
    }

    /// Appends values in the order of the header.
    pub fn push<T: Pod>(&mut self, values: &[T]) -> Result<()> {
        let bytes = bytemuck::cast_slice(values);
        self.left = self.left.checked_sub(bytes.len()).expect("no more data than the header says");
        self.file.push(bytes)
    }

    /// Ends the file; see [`HashedFile::finish`].
    pub fn finish(self) -> Result<FileEntry> {
        assert_eq!(self.left, 0, "as much data as the header says");
        self.file.finish()
    }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;

    fn written(folder: &Path) -> PathBuf {
        let path = folder.join("a.safetensors");
        let tensors = [("keys", Dtype::U64, vec![2]), ("rows", Dtype::F16, vec![2, 3])];
        let mut writer = TensorWriter::create(path.clone(), &tensors).unwrap();
        writer.push(&[7u64, 9]).unwrap();
        writer.push(&[1u16, 2, 3, 4, 5, 6]).unwrap();
        writer.finish().unwrap();
        path
    }

    #[test]
    fn what_was_written_is_read_by_us_and_by_the_crate() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let tensors = Tensors::open(&path).unwrap();
        let keys = tensors.typed("keys", Dtype::U64, 1).unwrap();
        assert_eq!(tensors.slice::<u64>(&keys).unwrap(), [7, 9]);
        let rows = tensors.typed("rows", Dtype::F16, 2).unwrap();
        assert_eq!(rows.shape, [2, 3]);
        assert_eq!(tensors.slice::<u16>(&rows).unwrap(), [1, 2, 3, 4, 5, 6]);
        let bytes = std::fs::read(&path).unwrap();
        let crates = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(crates.tensor("rows").unwrap().shape(), [2, 3]);
    }

    #[test]
    fn errors_name_what_came_and_what_was_expected() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let tensors = Tensors::open(&path).unwrap();
        let text = |result: Result<Slot>| result.unwrap_err().to_string();
        assert!(text(tensors.slot("row")).contains("`row` is not there; the file has keys, rows"));
        assert!(text(tensors.typed("rows", Dtype::F32, 2)).contains("is F16 [2, 3], expected F32"));
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 4, 20, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(
                Tensors::open(&path).unwrap_err().to_string().contains("a.safetensors"),
                "{cut}"
            );
        }
    }
}
