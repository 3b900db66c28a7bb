//! Reading the tensors of a checked file, with shapes as expected or an error that says both.

use std::path::Path;
use std::sync::Arc;

use ams_data::tensors::{Header, Slot};
use ams_data::{Id, Offsets, Ragged};
use bytemuck::Pod;
use half::f16;
use safetensors::tensor::Dtype;

use crate::error::{Error, Result};
use crate::files::index::Index;
use crate::files::numbers::{Bytes, Floats, Numbers};

/// A safetensors file, mapped or copied, opened by [`crate::files::folder::Folder::tensors`].
#[derive(Debug)]
pub struct TensorFile {
    header: Header,
    bytes: Arc<Bytes>,
}

impl TensorFile {
    /// The file at `path`, whose content is `bytes`.
    ///
    /// # Errors
    /// If the bytes are not safetensors.
    pub(crate) fn new(path: &Path, bytes: impl Into<Arc<Bytes>>) -> Result<TensorFile> {
        let bytes = bytes.into();
        let header = Header::read(path, &bytes)?;
        Ok(TensorFile { header, bytes })
    }

    /// The tensor `name` as it is in the file.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn raw(&self, name: &str) -> Result<RawSlice<'_>> {
        let Slot { dtype, shape, bytes } = self.header.slot(name)?;
        Ok(RawSlice { dtype, shape, bytes: &self.bytes[bytes] })
    }

    /// An error about this file as a whole.
    pub(crate) fn fault(&self, what: &str) -> Error {
        Error::content(self.header.path(), what)
    }

    /// Whether there is a tensor `name`.
    pub fn has(&self, name: &str) -> bool {
        self.header.has(name)
    }

    /// The floats called `name`, of exactly this shape.
    ///
    /// # Errors
    /// If there is no such tensor, or one of another type or shape, or one that holds a NaN or
    /// infinity.
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<Numbers<f32>> {
        match self.floats(name, shape, &[Dtype::F32])? {
            Floats::F32(values) => Ok(values),
            Floats::F16(_) => unreachable!("only F32 was allowed"),
        }
    }

    /// The floats called `name`, of exactly this shape, whatever their values.
    ///
    /// # Errors
    /// If there is no such tensor, or one of another type or shape.
    pub fn any_f32(&self, name: &str, shape: &[usize]) -> Result<Numbers<f32>> {
        Ok(self.numbers(self.shaped(name, shape, &[Dtype::F32])?))
    }

    /// The floats called `name`, of exactly this shape, kept whole or as halfs.
    ///
    /// # Errors
    /// As [`TensorFile::f32`].
    pub fn f32_or_f16(&self, name: &str, shape: &[usize]) -> Result<Floats> {
        self.floats(name, shape, &[Dtype::F32, Dtype::F16])
    }

    fn shaped(&self, name: &str, shape: &[usize], types: &[Dtype]) -> Result<Slot> {
        let slot = self.header.typed(name, types)?;
        if slot.shape == shape {
            return Ok(slot);
        }
        Err(self.wrong(name, &format!("has shape {:?}, expected {shape:?}", slot.shape)))
    }

    fn floats(&self, name: &str, shape: &[usize], types: &[Dtype]) -> Result<Floats> {
        let slot = self.shaped(name, shape, types)?;
        let floats = match slot.dtype {
            Dtype::F16 => Floats::F16(self.numbers::<f16>(slot)),
            _ => Floats::F32(self.numbers(slot)),
        };
        match floats.not_finite() {
            Some((at, value)) => Err(self.wrong(name, &format!("is {value} at {at}"))),
            None => Ok(floats),
        }
    }

    /// The 64-bit unsigned numbers called `name`, in one row.
    ///
    /// # Errors
    /// If there is no such tensor, or one of another type or shape.
    pub fn u64(&self, name: &str) -> Result<Numbers<u64>> {
        self.row(name, Dtype::U64)
    }

    /// The 32-bit unsigned numbers called `name`, in one row.
    ///
    /// # Errors
    /// If there is no such tensor, or one of another type or shape.
    pub fn u32(&self, name: &str) -> Result<Numbers<u32>> {
        self.row(name, Dtype::U32)
    }

    /// `rows` texts; `names` are those of their lengths in bytes and of the bytes. None if the file
    /// has no such tensors.
    ///
    /// # Errors
    /// As [`TensorFile::offsets`], and if the bytes are more or fewer or a text is not UTF-8.
    pub fn texts(&self, names: [&str; 2], rows: usize) -> Result<Option<Texts>> {
        if !names.iter().any(|name| self.header.has(name)) {
            return Ok(None);
        }
        let offsets = self.offsets(names[0], rows)?;
        let bytes: Numbers<u8> = self.row(names[1], Dtype::U8)?;
        self.check_len(names[1], bytes.len(), offsets.total())?;
        let texts =
            String::from_utf8(bytes.to_vec()).map_err(|_| self.wrong(names[1], "is not UTF-8"))?;
        let within = offsets.as_slice().iter().find(|&&at| !texts.is_char_boundary(at as usize));
        match within {
            Some(at) => Err(self.wrong(names[1], &format!("is cut within a letter at {at}"))),
            None => Ok(Some(Texts { offsets, texts })),
        }
    }

    /// Exactly `count` 64-bit unsigned numbers called `name`.
    ///
    /// # Errors
    /// As [`TensorFile::u64`], and if there are more or fewer.
    pub fn u64s(&self, name: &str, count: usize) -> Result<Numbers<u64>> {
        let values = self.u64(name)?;
        self.check_len(name, values.len(), count)?;
        Ok(values)
    }

    /// Exactly `count` 32-bit unsigned numbers called `name`.
    ///
    /// # Errors
    /// As [`TensorFile::u32`], and if there are more or fewer.
    pub(crate) fn u32s(&self, name: &str, count: usize) -> Result<Numbers<u32>> {
        let values = self.u32(name)?;
        self.check_len(name, values.len(), count)?;
        Ok(values)
    }

    /// The hashes called `name`.
    ///
    /// # Errors
    /// As [`TensorFile::u64`], and if they are not ascending.
    pub fn index(&self, name: &str) -> Result<Index> {
        Index::new(self.u64(name)?).map_err(|what| self.wrong(name, &what))
    }

    /// The hashes called `name`; and, in the file of a delta, of each whether it is gone: `name`
    /// with `.gone` behind it, 1 for those that are.
    ///
    /// # Errors
    /// As [`TensorFile::index`], and if something is gone by another number.
    pub(crate) fn keys(&self, name: &str) -> Result<(Index, Vec<bool>)> {
        let index = self.index(name)?;
        let flags = format!("{name}.gone");
        if !self.header.has(&flags) {
            return Ok((index, Vec::new()));
        }
        let gone = self.u32(&flags)?;
        self.check_len(&flags, gone.len(), index.len())?;
        match gone.iter().position(|&gone| gone > 1) {
            Some(at) => {
                Err(self.wrong(&flags, &format!("is {} at {at}, expected 0 or 1", gone[at])))
            }
            None => Ok((index, gone.iter().map(|&gone| gone == 1).collect())),
        }
    }

    /// The offsets of `rows` rows whose lengths are called `name`.
    ///
    /// # Errors
    /// As [`TensorFile::u32`], and if there are more or fewer, or they sum to 2^32 or more.
    pub fn offsets(&self, name: &str, rows: usize) -> Result<Offsets> {
        let lengths = self.u32(name)?;
        self.check_len(name, lengths.len(), rows)?;
        let total: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
        if u32::try_from(total).is_err() {
            return Err(self.wrong(name, &format!("sums to {total}, expected less than 2^32")));
        }
        let mut offsets = Offsets::default();
        lengths.iter().for_each(|&length| offsets.push(length as usize));
        Ok(offsets)
    }

    /// A column of `rows` lists of ids; `names` are those of the lengths and the ids.
    ///
    /// # Errors
    /// As [`TensorFile::offsets`] and [`TensorFile::u64s`].
    pub fn ragged(&self, names: &[String; 2], rows: usize) -> Result<Ragged<Id>> {
        let offsets = self.offsets(&names[0], rows)?;
        let values = self.u64s(&names[1], offsets.total())?.iter().copied().map(Id).collect();
        Ok(Ragged { offsets, values })
    }

    /// An error about the tensor `name` of this file.
    pub fn wrong(&self, name: &str, what: &str) -> Error {
        self.header.wrong(name, what).into()
    }

    fn check_len(&self, name: &str, got: usize, expected: usize) -> Result<()> {
        if got == expected {
            return Ok(());
        }
        Err(self.wrong(name, &format!("has {got} values, expected {expected}")))
    }

    fn row<T: Pod>(&self, name: &str, dtype: Dtype) -> Result<Numbers<T>> {
        let slot = self.header.typed(name, &[dtype])?;
        match &slot.shape[..] {
            [_] => Ok(self.numbers(slot)),
            shape => Err(self.wrong(name, &format!("has shape {shape:?}, expected one dimension"))),
        }
    }

    fn numbers<T: Pod>(&self, slot: Slot) -> Numbers<T> {
        Numbers::of_file(&self.bytes, slot.bytes)
    }
}

/// Type, shape and bytes of a tensor.
#[derive(Clone, Debug)]
pub(crate) struct RawSlice<'a> {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: &'a [u8],
}

/// Texts end to end.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    offsets: Offsets,
    texts: String,
}

impl Texts {
    /// How many bytes each has, and all of them.
    pub(crate) fn parts(&self) -> (Vec<u32>, &str) {
        (lengths(&self.offsets), &self.texts)
    }

    /// The text of row `row`, counted from 0.
    pub fn row(&self, row: usize) -> &str {
        let offsets = self.offsets.as_slice();
        &self.texts[offsets[row] as usize..offsets[row + 1] as usize]
    }
}

impl FromIterator<String> for Texts {
    fn from_iter<I: IntoIterator<Item = String>>(all: I) -> Texts {
        let mut texts = Texts::default();
        for text in all {
            texts.offsets.push(text.len());
            texts.texts.push_str(&text);
        }
        texts
    }
}

/// How long each row is: what [`TensorFile::offsets`] reads.
pub(crate) fn lengths(offsets: &Offsets) -> Vec<u32> {
    offsets.as_slice().windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::folder::Tensor;

    fn file() -> TensorFile {
        let tensors = [
            Tensor::f32("x", &[2, 1], &[1.0, -2.5]),
            Tensor::f32("bad", &[2], &[0.0, f32::NAN]),
            Tensor::u64("ids", &[7, u64::MAX]),
            Tensor::u32("counts", &[3]),
        ];
        let bytes = crate::files::folder::serialize(&tensors).unwrap();
        TensorFile::new(Path::new("f.safetensors"), Bytes::Owned(bytes)).unwrap()
    }

    #[test]
    fn tensors_come_back() {
        let file = file();
        assert_eq!(file.f32("x", &[2, 1]).unwrap()[..], [1.0, -2.5]);
        assert_eq!(file.u64("ids").unwrap()[..], [7, u64::MAX]);
        assert_eq!(file.u32("counts").unwrap()[..], [3]);
    }

    #[test]
    fn lists_come_back() {
        let mut column = Ragged::default();
        for row in [&[Id(5), Id(6)][..], &[], &[Id(7)]] {
            column.push(row);
        }
        let lengths = lengths(&column.offsets);
        let tensors = [
            Tensor::u32("n", &lengths),
            Tensor::u64("ids", bytemuck::cast_slice(&column.values)),
            Tensor::u32("huge", &[u32::MAX, 1]),
        ];
        let bytes = crate::files::folder::serialize(&tensors).unwrap();
        let file = TensorFile::new(Path::new("f"), Bytes::Owned(bytes)).unwrap();
        let names = ["n", "ids"].map(str::to_owned);
        assert_eq!(file.ragged(&names, 3).unwrap(), column);
        let error = file.ragged(&names, 4).unwrap_err().to_string();
        assert_eq!(error, "f: tensor `n` has 3 values, expected 4");
        let error = file.offsets("huge", 2).unwrap_err().to_string();
        assert_eq!(error, "f: tensor `huge` sums to 4294967296, expected less than 2^32");
    }

    #[test]
    fn texts_come_back() {
        let tensors = [
            Tensor::u32("lengths", &[1, 0, 3]),
            Tensor::u8("bytes", "a\u{e9}b".as_bytes()),
            Tensor::u32("cut", &[2, 0, 2]),
            Tensor::u8("latin", b"a\xe9bc"),
        ];
        let file = TensorFile::new(
            Path::new("f"),
            Bytes::Owned(crate::files::folder::serialize(&tensors).unwrap()),
        )
        .unwrap();
        let texts = file.texts(["lengths", "bytes"], 3).unwrap().unwrap();
        assert_eq!([0, 1, 2].map(|row| texts.row(row)), ["a", "", "\u{e9}b"]);
        assert!(file.texts(["none", "neither"], 3).unwrap().is_none());
        for (names, expected) in [
            (["cut", "bytes"], "`bytes` is cut within a letter at 2"),
            (["lengths", "latin"], "`latin` is not UTF-8"),
            (["lengths", "neither"], "`neither` is not there"),
            (["lengths", "lengths"], "`lengths` is U32, expected U8"),
        ] {
            let error = file.texts(names, 3).unwrap_err().to_string();
            assert!(error.starts_with(&format!("f: tensor {expected}")), "{error}");
        }
    }

    #[test]
    fn errors_say_what_came() {
        let file = file();
        let cases = [
            (file.f32("x", &[1, 2]).map(drop), "`x` has shape [2, 1], expected [1, 2]"),
            (file.f32("bad", &[2]).map(drop), "`bad` is NaN at 1"),
            (file.u64("counts").map(drop), "`counts` is U32, expected U64"),
            (file.u64("y").map(drop), "`y` is not there; the file has bad, counts, ids, x"),
        ];
        for (got, expected) in cases {
            let got = got.expect_err(expected).to_string();
            assert_eq!(got, format!("f.safetensors: tensor {expected}"));
        }
        let error = TensorFile::new(Path::new("f"), Bytes::Owned(vec![1, 2, 3]))
            .expect_err("no safetensors");
        assert!(error.to_string().starts_with("f: not a whole safetensors file"), "{error}");
    }
}
