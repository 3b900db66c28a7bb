//! A folder of files that appears all at once, or not at all.
//!
//! Bundles and checkpoints are such folders. They are built under a temporary name beside their
//! place; every file is fsynced, `MANIFEST.json` is written last and lists each file with its size
//! and blake3 hash, then the folder is renamed. A folder without a manifest does not exist for
//! readers. What is published is read-only.
//! ```text
//! MANIFEST.json   {"format": "...", "meta": {...}, "files": {"name": {"bytes": n, "blake3": "hex"}}}
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ams_data::staging::{FileEntry, StagedFolder, write_whole};
use half::f16;
use safetensors::tensor::{Dtype, TensorView};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::numbers::{Bytes, Memory};
use crate::files::tensors::TensorFile;

/// The last file of a folder.
pub const MANIFEST: &str = "MANIFEST.json";

/// The content of `MANIFEST.json`; `T` is the description of the kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest<T> {
    /// Which kind of folder in which version, such as `ams-bundle/1`.
    pub format: String,
    /// The kind's own description.
    pub meta: T,
    /// Every other file of the folder.
    pub files: BTreeMap<String, FileEntry>,
}

/// The part of a manifest that all kinds of folders share.
#[derive(Debug, Deserialize)]
pub(crate) struct FileList {
    /// Every other file of the folder.
    pub files: BTreeMap<String, FileEntry>,
    #[serde(default)]
    meta: VersionPart,
}

/// A version by its number and its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseVersion {
    /// The name of its folder, beside that of the version delta.
    pub number: u64,
    /// Its hash.
    pub hash: String,
}

/// The part of a version delta's description that says what it is a version of.
#[derive(Debug, Default, Deserialize)]
struct VersionPart {
    #[serde(default)]
    base_version: Option<BaseVersion>,
    #[serde(default)]
    result: Option<BTreeMap<String, FileEntry>>,
}

impl FileList {
    /// Reads the manifest of `folder`.
    ///
    /// # Errors
    /// If it cannot be read, or a file's name leads out of the folder.
    pub(crate) fn read(folder: &Path) -> Result<FileList> {
        let path = folder.join(MANIFEST);
        let text = fs::read(&path).map_err(Error::io(&path))?;
        let listed: FileList = serde_json::from_slice(&text)
            .map_err(|error| Error::content(&path, error.to_string()))?;
        listed.check_names(&path)?;
        Ok(listed)
    }

    /// That of a folder of these files.
    pub(crate) fn of(files: BTreeMap<String, FileEntry>) -> FileList {
        FileList { files, meta: VersionPart::default() }
    }

    /// The version that a version delta follows; none of another folder.
    pub(crate) fn base_version(&self) -> Option<&BaseVersion> {
        self.meta.base_version.as_ref()
    }

    /// The files of the version: those of the folder, or those a version delta makes.
    fn of_version(&self) -> &BTreeMap<String, FileEntry> {
        self.meta.result.as_ref().unwrap_or(&self.files)
    }

    /// That each file is one of the folder whose manifest is at `path`.
    ///
    /// # Errors
    /// If a name leads elsewhere.
    pub(crate) fn check_names(&self, path: &Path) -> Result<()> {
        check_names(path, &self.files)
    }

    /// The same hash as [`Manifest::hash`], of the version.
    pub(crate) fn hash(&self) -> String {
        hash(self.of_version())
    }

    /// The sizes of all files of the version together, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let sizes = self.of_version().values().map(|entry| entry.bytes);
        sizes.fold(0, u64::saturating_add)
    }
}

/// That every name in `files`, listed by the manifest at `path`, is a plain one: nothing outside of
/// its folder is looked at.
pub(crate) fn check_names(path: &Path, files: &BTreeMap<String, FileEntry>) -> Result<()> {
    let plain = |name: &&String| {
        !matches!(&name[..], "" | "." | "..") && !name.contains(['/', '\\', ':', '\0'])
    };
    match files.keys().find(|name| !plain(name)) {
        None => Ok(()),
        Some(name) => {
            let what =
                format!("lists the file {name:?}, expected the plain name of a file beside it");
            Err(Error::content(path, what))
        }
    }
}

impl<T> Manifest<T> {
    /// blake3 over the names and hashes of all files: equal files, equal hash.
    pub fn hash(&self) -> String {
        hash(&self.files)
    }
}

fn hash(files: &BTreeMap<String, FileEntry>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, entry) in files {
        hasher.update(name.as_bytes());
        hasher.update(&[0]);
        hasher.update(entry.blake3.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// A folder under construction; removed again if dropped before [`FolderWriter::finish`].
///
/// Several processes that see the same disk can build one together: the first creates it, the
/// others [`FolderWriter::join`], and what they wrote is told to the first by
/// [`FolderWriter::entries`] and [`FolderWriter::adopt`].
#[derive(Debug)]
pub struct FolderWriter {
    folder: StagedFolder,
    files: BTreeMap<String, FileEntry>,
}

impl FolderWriter {
    /// Starts building what will stand at `place`, which must not exist.
    ///
    /// # Errors
    /// If `place` exists or its parent cannot be written.
    pub fn create(place: &Path) -> Result<FolderWriter> {
        if place.exists() {
            return Err(Error::content(place, "exists already; nothing was overwritten"));
        }
        let folder = StagedFolder::create_shared(place)?;
        Ok(FolderWriter { folder, files: BTreeMap::new() })
    }

    /// Adds files to the folder that another process is building for `place`.
    ///
    /// # Errors
    /// If `place` cannot be the name of a folder.
    pub fn join(place: &Path) -> Result<FolderWriter> {
        Ok(FolderWriter { folder: StagedFolder::join(place)?, files: BTreeMap::new() })
    }

    /// The files that this writer wrote.
    pub fn entries(&self) -> &BTreeMap<String, FileEntry> {
        &self.files
    }

    /// Lists files that were written to the folder by another process.
    pub fn adopt(&mut self, entries: BTreeMap<String, FileEntry>) {
        self.files.extend(entries);
    }

    /// Adds a file of these bytes.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        write_whole(&self.file(name), bytes)?;
        self.files.insert(name.to_owned(), entry_of(bytes));
        Ok(())
    }

    /// Adds a safetensors file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add_tensors(&mut self, name: &str, tensors: &[Tensor<'_>]) -> Result<()> {
        let bytes = serialize(tensors)
            .map_err(|error| Error::content(self.file(name), error.to_string()))?;
        self.add(name, &bytes)
    }

    /// The same of tensors that are not kept elsewhere.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn add_owned(
        &mut self,
        name: &str,
        tensors: &[(String, OwnedTensor)],
    ) -> Result<()> {
        let views = tensors.iter().map(|(name, values)| match values {
            OwnedTensor::U64(values) => Tensor::u64(name, values),
            OwnedTensor::U32(values) => Tensor::u32(name, values),
            OwnedTensor::U8(values) => Tensor::u8(name, values),
            OwnedTensor::F32(shape, values) => Tensor::f32(name, shape, values),
        });
        self.add_tensors(name, &views.collect::<Vec<_>>())
    }

    /// Writes the manifest and renames the folder to its place.
    ///
    /// # Errors
    /// If something cannot be written; then nothing stays behind.
    pub fn finish<T: Serialize>(mut self, format: &str, meta: T) -> Result<Manifest<T>> {
        let manifest = self.write_manifest(format, meta)?;
        self.folder.commit()?;
        Ok(manifest)
    }

    /// The same for what never changes again: its files are read-only, so that nobody writes into
    /// what others have mapped. The folder is not, and can be removed.
    ///
    /// # Errors
    /// As [`FolderWriter::finish`].
    pub fn publish<T: Serialize>(mut self, format: &str, meta: T) -> Result<Manifest<T>> {
        let manifest = self.write_manifest(format, meta)?;
        for name in manifest.files.keys().map(|name| &name[..]).chain([MANIFEST]) {
            make_read_only(&self.file(name));
        }
        self.folder.commit()?;
        Ok(manifest)
    }

    fn write_manifest<T: Serialize>(&mut self, format: &str, meta: T) -> Result<Manifest<T>> {
        let files = std::mem::take(&mut self.files);
        let manifest = Manifest { format: format.to_owned(), meta, files };
        let text = serde_json::to_string_pretty(&manifest)
            .map_err(|error| Error::content(self.folder.path(), error.to_string()))?;
        write_whole(&self.file(MANIFEST), text)?;
        Ok(manifest)
    }

    /// Where the file `name` is written.
    fn file(&self, name: &str) -> PathBuf {
        self.folder.temporary().join(name)
    }
}

/// Takes everybody's leave to write to a file. A disk that keeps no permissions refuses; there the
/// file stays as it is, which is no error: nothing relies on it.
#[cfg(unix)]
fn make_read_only(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o444));
}

/// Elsewhere a file that is read-only could not be removed.
#[cfg(not(unix))]
fn make_read_only(_: &Path) {}

/// One tensor to be written.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    name: &'a str,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: &'a [u8],
}

impl<'a> Tensor<'a> {
    /// Floats of this shape.
    pub fn f32(name: &'a str, shape: &[usize], values: &'a [f32]) -> Tensor<'a> {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}");
        let bytes = bytemuck::cast_slice(values);
        Tensor { name, dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    /// Halfs of this shape.
    pub fn f16(name: &'a str, shape: &[usize], values: &'a [f16]) -> Tensor<'a> {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}");
        let bytes = bytemuck::cast_slice(values);
        Tensor { name, dtype: Dtype::F16, shape: shape.to_vec(), bytes }
    }

    /// 64-bit unsigned numbers in one row.
    pub fn u64(name: &'a str, values: &'a [u64]) -> Tensor<'a> {
        let bytes = bytemuck::cast_slice(values);
        Tensor { name, dtype: Dtype::U64, shape: vec![values.len()], bytes }
    }

    /// 32-bit unsigned numbers in one row.
    pub fn u32(name: &'a str, values: &'a [u32]) -> Tensor<'a> {
        let bytes = bytemuck::cast_slice(values);
        Tensor { name, dtype: Dtype::U32, shape: vec![values.len()], bytes }
    }

    /// Bytes in one row.
    pub fn u8(name: &'a str, bytes: &'a [u8]) -> Tensor<'a> {
        Tensor { name, dtype: Dtype::U8, shape: vec![bytes.len()], bytes }
    }

    fn view(&self) -> TensorView<'a> {
        TensorView::new(self.dtype, self.shape.clone(), self.bytes)
            .expect("the constructors check the shape")
    }
}

/// Numbers of a tensor to be written, and the shape of floats.
#[derive(Clone, Debug)]
pub(crate) enum OwnedTensor {
    U64(Vec<u64>),
    U32(Vec<u32>),
    U8(Vec<u8>),
    F32([usize; 2], Vec<f32>),
}

/// A tensor of any type to be written, in bytes.
#[derive(Clone, Debug)]
pub(crate) struct RawTensor {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl RawTensor {
    /// Bytes in one row.
    pub(crate) fn u8(name: String, bytes: Vec<u8>) -> RawTensor {
        RawTensor { name, dtype: Dtype::U8, shape: vec![bytes.len()], bytes }
    }

    /// 32-bit unsigned numbers in one row.
    pub(crate) fn u32(name: String, values: &[u32]) -> RawTensor {
        let bytes = bytemuck::cast_slice(values).to_vec();
        RawTensor { name, dtype: Dtype::U32, shape: vec![values.len()], bytes }
    }

    /// 64-bit unsigned numbers in one row.
    pub(crate) fn u64(name: String, values: &[u64]) -> RawTensor {
        let bytes = bytemuck::cast_slice(values).to_vec();
        RawTensor { name, dtype: Dtype::U64, shape: vec![values.len()], bytes }
    }
}

/// The bytes of a safetensors file.
pub(crate) fn serialize_raw(
    tensors: &[RawTensor],
) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let views = tensors.iter().map(|tensor| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes)?;
        Ok((&tensor.name[..], view))
    });
    let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    safetensors::serialize(views, None)
}

/// A finished folder, opened for reading.
#[derive(Clone, Debug)]
pub struct Folder<T> {
    path: PathBuf,
    memory: Memory,
    /// Those of its files that are not in it.
    elsewhere: BTreeMap<String, Source>,
    /// The `meta` of the manifest.
    pub manifest: Manifest<T>,
}

/// Where a file of a folder is, if it is not in it.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// In another folder.
    File(PathBuf),
    /// Put together from others, and held against its hash.
    Bytes(Arc<Bytes>),
}

impl<T: DeserializeOwned> Folder<T> {
    /// Opens the folder at `path`, which has to be of `format`.
    ///
    /// # Errors
    /// If there is no manifest, or one of another format, or one that cannot be read or lists what
    /// is no plain name of a file.
    pub fn open(path: &Path, format: &str) -> Result<Folder<T>> {
        Folder::open_in(path, format, Memory::Mapped)
    }

    /// The same, whose tensors are in `memory`.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn open_in(path: &Path, format: &str, memory: Memory) -> Result<Folder<T>> {
        let (text, got) = read_format(path)?;
        let file = path.join(MANIFEST);
        if got != format {
            let what = format!("format is {got:?}, expected {format:?}");
            return Err(Error::content(&file, what));
        }
        let manifest: Manifest<T> = serde_json::from_str(&text)
            .map_err(|error| Error::content(&file, error.to_string()))?;
        check_names(&file, &manifest.files)?;
        Ok(Folder { path: path.to_path_buf(), memory, elsewhere: BTreeMap::new(), manifest })
    }
}

/// The text of the manifest of the folder at `path`, and its format: another version's manifest may
/// differ in everything else.
fn read_format(path: &Path) -> Result<(String, String)> {
    #[derive(Deserialize)]
    struct Format {
        format: String,
    }
    let file = path.join(MANIFEST);
    let text = fs::read_to_string(&file).map_err(Error::io(&file))?;
    let got: Format =
        serde_json::from_str(&text).map_err(|error| Error::content(&file, error.to_string()))?;
    Ok((text, got.format))
}

/// The format of the folder at `path`.
///
/// # Errors
/// If there is no manifest, or one that cannot be read.
pub(crate) fn format_of(path: &Path) -> Result<String> {
    read_format(path).map(|(_, format)| format)
}

/// Length and hash of a file of these bytes.
pub(crate) fn entry_of(bytes: &[u8]) -> FileEntry {
    FileEntry { bytes: bytes.len() as u64, blake3: blake3::hash(bytes).to_hex().to_string() }
}

impl<T> Folder<T> {
    /// The folder at `path` with the files of `manifest`, which are where `elsewhere` says.
    pub(crate) fn assembled(
        path: &Path,
        memory: Memory,
        manifest: Manifest<T>,
        elsewhere: BTreeMap<String, Source>,
    ) -> Folder<T> {
        Folder { path: path.to_path_buf(), memory, elsewhere, manifest }
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where its numbers are.
    pub(crate) fn memory(&self) -> Memory {
        self.memory
    }

    /// Where its file `name` is.
    pub(crate) fn source(&self, name: &str) -> Source {
        let inside = || Source::File(self.path.join(name));
        self.elsewhere.get(name).cloned().unwrap_or_else(inside)
    }

    /// Reads a file whole and checks its length and hash against the manifest.
    ///
    /// # Errors
    /// If it is missing, not listed, cut short or changed.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        if let Some(Source::Bytes(bytes)) = self.elsewhere.get(name) {
            return Ok(bytes.to_vec());
        }
        self.checked(name, |path, _| fs::read(path).map_err(Error::io(path)))
    }

    fn checked<B: Deref<Target = [u8]>>(
        &self,
        name: &str,
        read: impl FnOnce(&Path, u64) -> Result<B>,
    ) -> Result<B> {
        let path = match self.elsewhere.get(name) {
            Some(Source::File(path)) => path.clone(),
            _ => self.path.join(name),
        };
        let Some(entry) = self.manifest.files.get(name) else {
            return Err(Error::content(&path, format!("is not listed in {MANIFEST}")));
        };
        let metadata = fs::metadata(&path).map_err(Error::io(&path))?;
        // Opening a pipe would wait for somebody who writes.
        if !metadata.is_file() {
            return Err(Error::content(&path, "is no file"));
        }
        let length = metadata.len();
        if length != entry.bytes {
            let what = format!("{length} bytes, expected {} by {MANIFEST}", entry.bytes);
            return Err(Error::content(&path, what));
        }
        let bytes = read(&path, length)?;
        let got = blake3::hash(&bytes).to_hex().to_string();
        if got != entry.blake3 {
            let what = format!("blake3 is {got}, expected {} by {MANIFEST}", entry.blake3);
            return Err(Error::content(&path, what));
        }
        Ok(bytes)
    }

    /// Opens a safetensors file, checked like [`Folder::read`]: the hash is of the bytes that are
    /// used, in the folder's memory.
    ///
    /// # Errors
    /// As [`Folder::read`], and if it is not safetensors.
    pub fn tensors(&self, name: &str) -> Result<TensorFile> {
        if let Some(Source::Bytes(bytes)) = self.elsewhere.get(name) {
            return TensorFile::new(&self.path.join(name), Arc::clone(bytes));
        }
        let bytes = self.checked(name, |path, length| self.memory.read(path, length))?;
        TensorFile::new(&self.path.join(name), bytes)
    }
}

impl<T: Serialize> Folder<T> {
    /// Adds a file to a folder that was published and that nobody reads yet. The manifest is
    /// replaced last, as a whole; until then the folder is as it was.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn publish_with(mut self, name: &str, bytes: &[u8]) -> Result<Manifest<T>> {
        let entry = entry_of(bytes);
        if self.manifest.files.get(name) == Some(&entry) {
            return Ok(self.manifest);
        }
        let write = |name: &str, bytes: &[u8]| -> Result<()> {
            let path = self.path.join(name);
            write_whole(&path, bytes)?;
            make_read_only(&path);
            Ok(())
        };
        let text = |manifest: &Manifest<T>| {
            serde_json::to_string_pretty(manifest)
                .map_err(|error| Error::content(&self.path, error.to_string()))
        };
        // Listed, it would be another file than its manifest says for a moment.
        if self.manifest.files.remove(name).is_some() {
            write(MANIFEST, text(&self.manifest)?.as_bytes())?;
        }
        write(name, bytes)?;
        self.manifest.files.insert(name.to_owned(), entry);
        write(MANIFEST, text(&self.manifest)?.as_bytes())?;
        Ok(self.manifest)
    }
}

/// The bytes of a safetensors file.
pub(crate) fn serialize(tensors: &[Tensor<'_>]) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let views = tensors.iter().map(|tensor| (tensor.name, tensor.view()));
    safetensors::serialize(views, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::replace;

    const KIND: &str = "test-folder/1";

    /// A folder of two files at `<dir>/it`, damaged by `damage`, and then what reading both gives.
    fn after(damage: impl FnOnce(&Path)) -> Result<Vec<Vec<u8>>, String> {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("it");
        let mut writer = FolderWriter::create(&place).unwrap();
        writer.add("a", b"first").unwrap();
        writer.add_tensors("b", &[Tensor::u64("ids", &[1, 2])]).unwrap();
        writer.finish(KIND, 7).unwrap();
        damage(&place);
        let read = || {
            let folder = Folder::<u32>::open(&place, KIND)?;
            assert_eq!(folder.manifest.meta, 7);
            ["a", "b"].into_iter().map(|name| folder.read(name)).collect::<Result<Vec<_>>>()
        };
        read().map_err(|error| error.to_string().replace(&place.display().to_string(), "DIR"))
    }

    fn edit(path: PathBuf, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        replace(&path, bytes);
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_come_back_and_nothing_else_is_there() {
        let mut found = Vec::new();
        let files = after(|place| found = [names(place), names(place.parent().unwrap())].concat());
        assert_eq!(files.unwrap()[0], b"first");
        assert_eq!(found, ["MANIFEST.json", "a", "b", "it"]);
    }

    #[test]
    fn damage_is_named() {
        type Damage = fn(&Path);
        let cases: [(Damage, &str); 6] = [
            (
                |p| edit(p.join("a"), |b| b.truncate(3)),
                "DIR/a: 3 bytes, expected 5 by MANIFEST.json",
            ),
            (|p| edit(p.join("a"), |b| b.push(0)), "DIR/a: 6 bytes, expected 5 by MANIFEST.json"),
            (|p| edit(p.join("b"), |b| b[40] ^= 4), "DIR/b: blake3 is "),
            (|p| fs::remove_file(p.join("b")).unwrap(), "DIR/b: No such file"),
            (|p| fs::remove_file(p.join(MANIFEST)).unwrap(), "DIR/MANIFEST.json: No such file"),
            (|p| edit(p.join(MANIFEST), |b| b.truncate(30)), "DIR/MANIFEST.json: EOF"),
        ];
        for (damage, expected) in cases {
            let error = after(damage).expect_err(expected);
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn another_format_is_refused_before_anything_else() {
        let error = after(|place| {
            let other = r#"{"format": "test-folder/2", "something": "else"}"#;
            replace(&place.join(MANIFEST), other);
        });
        let expected = r#"DIR/MANIFEST.json: format is "test-folder/2", expected "test-folder/1""#;
        assert_eq!(error.unwrap_err(), expected);
    }

    #[test]
    fn a_file_the_manifest_does_not_list_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("it");
        FolderWriter::create(&place).unwrap().finish(KIND, 7).unwrap();
        fs::write(place.join("stray"), "?").unwrap();
        let error = Folder::<u32>::open(&place, KIND).unwrap().read("stray").unwrap_err();
        assert!(error.to_string().ends_with("stray: is not listed in MANIFEST.json"), "{error}");
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = FolderWriter::create(&dir.path().join("it")).unwrap();
        writer.add("a", b"first").unwrap();
        drop(writer);
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[cfg(unix)]
    #[test]
    fn what_is_published_is_read_only_and_can_be_removed() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("it");
        let mut writer = FolderWriter::create(&place).unwrap();
        writer.add("a", b"first").unwrap();
        writer.publish(KIND, 7).unwrap();
        for name in ["a", MANIFEST] {
            let mode = fs::metadata(place.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o444, "{name}");
        }
        fs::remove_dir_all(&place).unwrap();
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn two_writers_build_one_folder() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("it");
        let mut first = FolderWriter::create(&place).unwrap();
        first.add("a", b"first").unwrap();
        let mut second = FolderWriter::join(&place).unwrap();
        second.add("b", b"second").unwrap();
        first.adopt(second.entries().clone());
        drop(second);
        first.finish(KIND, 7).unwrap();
        let folder = Folder::<u32>::open(&place, KIND).unwrap();
        assert_eq!(
            [folder.read("a").unwrap(), folder.read("b").unwrap()],
            [&b"first"[..], b"second"]
        );
    }

    #[test]
    fn what_exists_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("it");
        FolderWriter::create(&place).unwrap().finish(KIND, 7).unwrap();
        let error = FolderWriter::create(&place).unwrap_err().to_string();
        assert!(error.ends_with("it: exists already; nothing was overwritten"), "{error}");
        assert_eq!(names(&place), [MANIFEST]);
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("it");
        fs::create_dir(dir.path().join(".it.building")).unwrap();
        fs::write(dir.path().join(".it.building").join("half"), "").unwrap();
        FolderWriter::create(&place).unwrap().finish(KIND, 7).unwrap();
        assert_eq!(names(dir.path()), ["it"]);
        assert_eq!(names(&place), [MANIFEST]);
    }

    #[test]
    fn the_hash_is_of_names_and_contents() {
        let hash = |files: &[(&str, &str)]| {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = FolderWriter::create(&dir.path().join("it")).unwrap();
            files.iter().for_each(|(name, text)| writer.add(name, text.as_bytes()).unwrap());
            writer.finish(KIND, 7).unwrap().hash()
        };
        let first = hash(&[("a", "x"), ("b", "y")]);
        assert_eq!(hash(&[("b", "y"), ("a", "x")]), first);
        for other in [&[("a", "y"), ("b", "x")][..], &[("a", "x"), ("c", "y")], &[("a", "x")]] {
            assert_ne!(hash(other), first);
        }
    }
}
