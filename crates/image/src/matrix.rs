//! A matrix of floating-point rows in a file of another program, mapped.
//!
//! Knows `.npy` and safetensors, and half, bfloat, single and double precision. Does not know
//! pictures.

use std::path::{Path, PathBuf};

use ams_data::tensors::Header;
use ams_data::{Error, Result};
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::Dtype;

use crate::halves::{self, Tally};
use crate::npy;
use ams_data::map;

/// Type of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    F16,
    BF16,
    F32,
    F64,
}

impl Element {
    fn bytes(self) -> usize {
        match self {
            Element::F16 | Element::BF16 => 2,
            Element::F32 => 4,
            Element::F64 => 8,
        }
    }
}

/// The matrix, (rows, dim).
#[derive(Debug)]
pub(crate) struct Matrix {
    path: PathBuf,
    map: Mmap,
    start: usize,
    element: Element,
    rows: usize,
    dim: usize,
}

impl Matrix {
    /// Maps the matrix in `path`: a `.npy` array, or in a safetensors file the tensor `tensor`,
    /// which may be left out where there is only one matrix.
    pub(crate) fn open(path: &Path, tensor: Option<&str>) -> Result<Matrix> {
        let map = map(path)?;
        let content = |what: String| Error::content(path, what);
        let (element, shape, start) = if map.starts_with(&npy::MAGIC[..]) {
            npy_array(&map).map_err(content)?
        } else {
            safetensors_matrix(path, &map, tensor)?
        };
        let [rows, dim] = shape[..] else {
            let what =
                format!("the array has shape {shape:?}, expected two dimensions (pictures, dim)");
            return Err(content(what));
        };
        if rows == 0 || dim == 0 {
            return Err(content(format!("the array has shape {shape:?}: nothing in it")));
        }
        let expected = rows.checked_mul(dim).and_then(|it| it.checked_mul(element.bytes()));
        let found = map.len() - start;
        if expected.is_none_or(|expected| expected > found) {
            let what = format!(
                "the array needs {rows} x {dim} x {} bytes, but {found} follow the header: cut short?",
                element.bytes()
            );
            return Err(content(what));
        }
        Ok(Matrix { path: path.to_path_buf(), map, start, element, rows, dim })
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// Puts row `row`, which belongs to `name`, into `out`, if halfs can hold it.
    pub(crate) fn row(&self, row: usize, name: &str, out: &mut Vec<f16>) -> Result<Tally> {
        let width = self.element.bytes();
        let bytes = &self.map[self.start + row * self.dim * width..][..self.dim * width];
        let put = match self.element {
            Element::F16 => {
                let halfs = bytes.as_chunks().0.iter().map(|it| f16::from_le_bytes(*it));
                halves::put(halfs, |half| half, out)
            }
            Element::BF16 => {
                let bfloats =
                    bytes.as_chunks().0.iter().map(|it| bf16::from_le_bytes(*it).to_f32());
                halves::put(bfloats, f16::from_f32, out)
            }
            Element::F32 => {
                let singles = bytes.as_chunks().0.iter().map(|it| f32::from_le_bytes(*it));
                halves::put(singles, f16::from_f32, out)
            }
            Element::F64 => {
                let doubles = bytes.as_chunks().0.iter().map(|it| f64::from_le_bytes(*it));
                halves::put(doubles, f16::from_f64, out)
            }
        };
        put.map_err(|unfit| {
            let what = unfit.words(&format!("row {} (\"{name}\")", row + 1));
            Error::content(&self.path, what)
        })
    }
}

fn npy_array(bytes: &[u8]) -> std::result::Result<(Element, Vec<usize>, usize), String> {
    let header = npy::header(bytes)?;
    let element = match header.descr.as_str() {
        "<f2" => Element::F16,
        "<f4" => Element::F32,
        "<f8" => Element::F64,
        other => return Err(format!("the array holds {other}, expected <f2, <f4 or <f8")),
    };
    Ok((element, header.shape, header.data))
}

fn safetensors_matrix(
    path: &Path,
    bytes: &[u8],
    tensor: Option<&str>,
) -> Result<(Element, Vec<usize>, usize)> {
    let header = Header::parse(path, bytes).map_err(|error| {
        Error::content(path, format!("neither a .npy nor a whole safetensors file: {error}"))
    })?;
    let names = header.names();
    let is_matrix = |name: &&String| header.slot(name).is_ok_and(|slot| slot.shape.len() == 2);
    let matrices: Vec<&String> = names.iter().filter(is_matrix).collect();
    let name = match (tensor, &matrices[..]) {
        (Some(name), _) => name,
        (None, [only]) => only.as_str(),
        (None, _) => {
            let (count, listed) = (matrices.len(), names.join(", "));
            let what = format!("{count} matrices: say which tensor to take of: {listed}");
            return Err(Error::content(path, what));
        }
    };
    let slot = header.slot(name)?;
    let element = match slot.dtype {
        Dtype::F16 => Element::F16,
        Dtype::BF16 => Element::BF16,
        Dtype::F32 => Element::F32,
        Dtype::F64 => Element::F64,
        other => {
            let what = format!("holds {other:?}, expected F16, BF16, F32 or F64");
            return Err(header.wrong(name, &what));
        }
    };
    Ok((element, slot.shape, slot.bytes.start))
}
