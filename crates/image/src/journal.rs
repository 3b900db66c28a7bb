//! The journal of unfinished work: rows by content, in chunk files.
//!
//! ```text
//! <out>.partial/
//!     journal.json               whose rows these are: format, encoder, hash, dim
//!     chunk-RRR-NNNNNN.safetensors   keys u64 [n], rows f16 [n, dim], sizes u32 [n, 2] (width, height)
//!     store/                     see `write.rs`, as for the lock
//! ```
//! A chunk is written under a temporary name, fsynced and renamed, so a killed run loses at most
//! the chunk it was working on. Rows are found by the picture's content, so it does not matter
//! which names they were encoded for, in which order, or by which process (R).
//!
//! Knows rows and keys. Does not know names.

use std::fs;
use std::path::{Path, PathBuf};

use ams_data::staging::{sync_folder, write_whole};
use ams_data::{Error, ImageKey, Result};
use half::f16;
use safetensors::Dtype;
use serde_json::json;

use crate::tensors::{TensorWriter, Tensors};
use crate::write::EncoderId;
const FORMAT: &str = "ams-images-journal/1";

/// Rows waiting to be written as one chunk.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// The key of each row.
    pub keys: Vec<ImageKey>,
    /// Width and height of each picture.
    pub sizes: Vec<[u32; 2]>,
    /// The rows, end to end.
    pub rows: Vec<f16>,
}

/// The journal in its folder; this process writes chunks of its own number.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
    rank: usize,
    dim: usize,
    next: usize,
    chunks: Vec<Tensors>,
}

impl Journal {
    /// Opens or begins the journal in `folder` as process `rank`. One that another encoder wrote is
    /// discarded, by the first process: the others come later.
    pub(crate) fn open(folder: &Path, encoder_id: &EncoderId, rank: usize) -> Result<Journal> {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let card = folder.join("journal.json");
        let text = json!({
            "format": FORMAT, "encoder": encoder_id.encoder, "hash": encoder_id.hash, "dim": encoder_id.dim,
        })
        .to_string();
        let same = fs::read(&card).is_ok_and(|found| found == text.as_bytes());
        if !same && rank == 0 {
            clear(folder)?;
            write_whole(&card, text.as_bytes())?;
        }
        let mut journal = Journal {
            folder: folder.to_path_buf(),
            rank,
            dim: encoder_id.dim,
            next: 0,
            chunks: Vec::new(),
        };
        journal.read()?;
        Ok(journal)
    }

    /// Reads the chunks of all processes, as they are now.
    pub(crate) fn read(&mut self) -> Result<()> {
        self.chunks.clear();
        for ((rank, number), path) in chunk_files(&self.folder)? {
            if rank == self.rank {
                self.next = number + 1;
            }
            match self.open_chunk(&path) {
                Ok(chunk) => self.chunks.push(chunk),
                // A damaged chunk costs its work again and nothing else.
                Err(_) if self.rank == 0 => fs::remove_file(&path).map_err(Error::io(&path))?,
                Err(_) => {}
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
    pub(crate) fn entries(&self) -> Vec<(ImageKey, [u32; 2], JournalRow)> {
        let mut entries = Vec::new();
        for (chunk, tensors) in self.chunks.iter().enumerate() {
            let keys = slice::<ImageKey>(tensors, "keys");
            let sizes = slice::<[u32; 2]>(tensors, "sizes");
            for (row, (key, size)) in keys.iter().zip(sizes).enumerate() {
                entries.push((*key, *size, JournalRow { chunk, row }));
            }
        }
        entries
    }

    /// The row at `place`, (dim).
    pub(crate) fn row(&self, place: JournalRow) -> &[f16] {
        &slice::<f16>(&self.chunks[place.chunk], "rows")[place.row * self.dim..][..self.dim]
    }

    /// Writes `chunk` for good; returns its number, for [`JournalRow`].
    pub(crate) fn push(&mut self, chunk: &Chunk) -> Result<usize> {
        let count = chunk.keys.len();
        let path = self.folder.join(format!("chunk-{:03}-{:06}.safetensors", self.rank, self.next));
        let temporary = self.folder.join(format!("chunk-{:03}.tmp", self.rank));
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
}

/// Where a row is: which chunk of the open journal, which row of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JournalRow {
    pub chunk: usize,
    /// Which row of the chunk.
    pub row: usize,
}

fn slice<'a, T: bytemuck::Pod>(chunk: &'a Tensors, name: &str) -> &'a [T] {
    let slot = chunk.slot(name).expect("checked when opened");
    chunk.slice(&slot).expect("checked when opened")
}

/// The chunk files of `folder` with process and number, ascending.
fn chunk_files(folder: &Path) -> Result<Vec<((usize, usize), PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let numbers = path.file_name().and_then(|name| {
            let name = name.to_str()?.strip_prefix("chunk-")?.strip_suffix(".safetensors")?;
            let (rank, number) = name.split_once('-')?;
            Some((rank.parse().ok()?, number.parse().ok()?))
        });
        found.extend(numbers.map(|numbers| (numbers, path)));
    }
    found.sort();
    Ok(found)
}

fn clear(folder: &Path) -> Result<()> {
    for (_, path) in chunk_files(folder)? {
        fs::remove_file(&path).map_err(Error::io(&path))?;
    }
    Ok(())
}
