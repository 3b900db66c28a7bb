//! The journal of unfinished work: rows by content, in chunk files.
//!
//! ```text
//! <out>.partial/
//!     lock                       held by the run that writes
//!     journal.json               whose rows these are: format, encoder, hash, dim
//!     chunk-000000.safetensors   keys u64 [n], rows f16 [n, dim], sizes u32 [n, 2] (width, height)
//!     store/                     the store being put together at the end
//! ```
//! A chunk is written under a temporary name, fsynced and renamed, so a killed run loses at most the
//! chunk it was working on. Rows are found by the picture's content, so it does not matter which names
//! they were encoded for, or in which order.
//!
//! Knows rows and keys. Does not know names.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use ams_data::staging::{sync_folder, write_whole};
use ams_data::{Error, ImageKey, Result};
use half::f16;
use safetensors::Dtype;
use serde_json::json;

use crate::tensors::{TensorWriter, Tensors};
use crate::write::Maker;
const FORMAT: &str = "ams-images-journal/1";

/// Rows waiting to be written as one chunk.
#[derive(Debug, Default)]
pub struct Chunk {
    /// The key of each row.
    pub keys: Vec<ImageKey>,
    /// Width and height of each picture.
    pub sizes: Vec<[u32; 2]>,
    /// The rows, end to end.
    pub rows: Vec<f16>,
}

/// The journal in its folder, locked by this process.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    dim: usize,
    next: usize,
    chunks: Vec<Tensors>,
    _lock: File,
}

impl Journal {
    /// Opens or begins the journal in `folder`. One that another encoder wrote is discarded.
    pub fn open(folder: &Path, maker: &Maker) -> Result<Journal> {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let lock = locked(&folder.join("lock"))?;
        let card = folder.join("journal.json");
        let text = json!({
            "format": FORMAT, "encoder": maker.encoder, "hash": maker.hash, "dim": maker.dim,
        })
        .to_string();
        let same = fs::read(&card).is_ok_and(|found| found == text.as_bytes());
        if !same {
            clear(folder)?;
            write_whole(&card, text.as_bytes())?;
        }
        let store = folder.join("store");
        if store.exists() {
            fs::remove_dir_all(&store).map_err(Error::io(&store))?;
        }
        let mut journal = Journal {
            folder: folder.to_path_buf(),
            dim: maker.dim,
            next: 0,
            chunks: Vec::new(),
            _lock: lock,
        };
        journal.read()?;
        Ok(journal)
    }

    fn read(&mut self) -> Result<()> {
        for (number, path) in chunk_files(&self.folder)? {
            self.next = number + 1;
            match self.open_chunk(&path) {
                Ok(chunk) => self.chunks.push(chunk),
                // A damaged chunk costs its work again and nothing else.
                Err(_) => fs::remove_file(&path).map_err(Error::io(&path))?,
            }
        }
        Ok(())
    }

    fn open_chunk(&self, path: &Path) -> Result<Tensors> {
        let chunk = Tensors::open(path)?;
        let keys = chunk.typed("keys", Dtype::U64, 1)?;
        let rows = chunk.typed("rows", Dtype::F16, 2)?;
        let sizes = chunk.typed("sizes", Dtype::U32, 2)?;
        chunk.slice::<ImageKey>(&keys)?;
        chunk.slice::<f16>(&rows)?;
        chunk.slice::<[u32; 2]>(&sizes)?;
        let count = keys.shape[0];
        if rows.shape != [count, self.dim] || sizes.shape != [count, 2] {
            return Err(Error::content(path, "the tensors' shapes do not fit each other"));
        }
        Ok(chunk)
    }

    /// All keys with their sizes, chunk by chunk, and where each row is.
    pub fn entries(&self) -> Vec<(ImageKey, [u32; 2], Place)> {
        let mut entries = Vec::new();
        for (chunk, tensors) in self.chunks.iter().enumerate() {
            let keys = slice::<ImageKey>(tensors, "keys");
            let sizes = slice::<[u32; 2]>(tensors, "sizes");
            for (row, (key, size)) in keys.iter().zip(sizes).enumerate() {
                entries.push((*key, *size, Place { chunk, row }));
            }
        }
        entries
    }

    /// The row at `place`, (dim).
    pub fn row(&self, place: Place) -> &[f16] {
        &slice::<f16>(&self.chunks[place.chunk], "rows")[place.row * self.dim..][..self.dim]
    }

    /// Writes `chunk` for good; returns its number, for [`Place`].
    pub fn push(&mut self, chunk: &Chunk) -> Result<usize> {
        let count = chunk.keys.len();
        let path = self.folder.join(format!("chunk-{:06}.safetensors", self.next));
        let temporary = self.folder.join("chunk.tmp");
        if temporary.exists() {
            fs::remove_file(&temporary).map_err(Error::io(&temporary))?;
        }
        let tensors = [
            ("keys", Dtype::U64, vec![count]),
            ("sizes", Dtype::U32, vec![count, 2]),
            ("rows", Dtype::F16, vec![count, self.dim]),
        ];
        let mut writer = TensorWriter::create(temporary.clone(), &tensors)?;
        writer.push(&chunk.keys)?;
        writer.push(&chunk.sizes)?;
        writer.push(&chunk.rows)?;
        writer.finish()?;
        fs::rename(&temporary, &path).map_err(Error::io(&path))?;
        sync_folder(&self.folder)?;
        self.next += 1;
        self.chunks.push(self.open_chunk(&path)?);
        Ok(self.chunks.len() - 1)
    }

    /// Where the store is put together.
    pub fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    /// Removes the journal: its work is done, or of no use.
    pub fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.folder).map_err(Error::io(&self.folder))
    }
}

/// Where a row is: which chunk of the open journal, which row of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which chunk.
    pub chunk: usize,
    /// Which row of the chunk.
    pub row: usize,
}

fn slice<'a, T: bytemuck::Pod>(chunk: &'a Tensors, name: &str) -> &'a [T] {
    let slot = chunk.slot(name).expect("checked when opened");
    chunk.slice(&slot).expect("checked when opened")
}

/// Takes the lock, or says that somebody else has it.
fn locked(path: &Path) -> Result<File> {
    let file = File::create(path).map_err(Error::io(path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let what =
                "another run is encoding to this store: wait for it, or choose another place";
            Err(Error::content(path, what))
        }
        Err(TryLockError::Error(source)) => Err(Error::io(path)(source)),
    }
}

/// The chunk files of `folder` with their numbers, ascending.
fn chunk_files(folder: &Path) -> Result<Vec<(usize, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix("chunk-")?.strip_suffix(".safetensors"))
            .and_then(|number| number.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort();
    Ok(found)
}

/// Removes every chunk.
fn clear(folder: &Path) -> Result<()> {
    for (_, path) in chunk_files(folder)? {
        fs::remove_file(&path).map_err(Error::io(&path))?;
    }
    Ok(())
}
