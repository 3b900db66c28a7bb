//! Semantic ids: what codebooks make of the rows of a store.
//!
//! ```text
//! codes-GGGGGG.safetensors
//!     key     u64 [n]         the images of the version, ascending
//!     center  f32 [L, K, F]   the codebooks: centers of each level
//!     code    u16 [n, L]      the codes of each image
//! ```
//! Codebooks are learned once and stay; images of later versions get codes by them. So an id means
//! the same in all versions of a store. `semantic.rs` writes the file.
//!
//! Knows this file. Does not know rows, nor what a network makes of codes.

use std::path::Path;
use std::str::FromStr;

use ams_data::{Error, ImageKey, Result};
use ams_linalg::{CENTERS_MAX, Codebooks, LEVELS_MAX};
use rayon::prelude::*;
use safetensors::Dtype;

use crate::card::{CodesCard, StoreCard, codes_file};
use crate::tensors::Tensors;

/// Which semantic ids a store is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SemanticIds {
    /// None, also if it had some.
    None,
    /// Codes of `levels` levels of `size` centers each.
    Of {
        /// 1 to 8.
        levels: usize,
        /// 2 to 4096.
        size: usize,
    },
}

impl FromStr for SemanticIds {
    type Err = String;

    /// `none`, or levels and centers, for example `3x64`.
    fn from_str(text: &str) -> std::result::Result<SemanticIds, String> {
        if text == "none" {
            return Ok(SemanticIds::None);
        }
        let both = text.split_once('x');
        let both = both.and_then(|(levels, size)| Some((levels.parse().ok()?, size.parse().ok()?)));
        match both {
            Some((levels @ 1..=LEVELS_MAX, size @ 2..=CENTERS_MAX)) => {
                Ok(SemanticIds::Of { levels, size })
            }
            _ => Err(format!(
                "expected levels x centers, 1 to {LEVELS_MAX} and 2 to {CENTERS_MAX}, such as 3x64, \
                 or none"
            )),
        }
    }
}

/// The semantic ids of the images of a store.
#[derive(Debug)]
pub struct ImageCodes {
    codebooks: Codebooks,
    keys: Vec<ImageKey>,
    /// (n, L).
    codes: Vec<u16>,
}

impl ImageCodes {
    /// Reads those of the version with `card` in `dir`, if it has some. Checks shapes, and that
    /// every code has a center; the caller checks the keys.
    pub(crate) fn open(dir: &Path, card: &StoreCard) -> Result<Option<ImageCodes>> {
        let Some(CodesCard { levels, size, .. }) = card.codes else { return Ok(None) };
        let path = dir.join(codes_file(card.generation));
        let tensors = Tensors::open(&path)?;
        let slots = [
            ("key", Dtype::U64, vec![card.images as usize]),
            ("center", Dtype::F32, vec![levels, size, card.dim]),
            ("code", Dtype::U16, vec![card.images as usize, levels]),
        ]
        .map(|(name, dtype, shape)| {
            let slot = tensors.typed(name, dtype, shape.len())?;
            if slot.shape == shape {
                return Ok(slot);
            }
            let what = format!("`{name}` is {:?}, expected {shape:?} by the card", slot.shape);
            Err(Error::content(&path, what))
        });
        let [keys, centers, codes] = slots;
        let keys = tensors.slice::<ImageKey>(&keys?)?.to_vec();
        let centers = tensors.slice::<f32>(&centers?)?;
        if let Some(at) = centers.iter().position(|value| !value.is_finite()) {
            let what = format!("`center` is {} at {at}, expected a number", centers[at]);
            return Err(Error::content(&path, what));
        }
        let codes = tensors.slice::<u16>(&codes?)?.to_vec();
        if let Some(at) = codes.iter().position(|code| usize::from(*code) >= size) {
            let what = format!("`code` is {} at {at}, expected 0 to {}", codes[at], size - 1);
            return Err(Error::content(&path, what));
        }
        let codebooks = Codebooks::new([levels, size, card.dim], centers);
        Ok(Some(ImageCodes { codebooks, keys, codes }))
    }

    /// The codebooks that made the codes.
    pub fn codebooks(&self) -> &Codebooks {
        &self.codebooks
    }

    /// The codes of an image (L), or nothing where the store has no such image.
    pub fn of(&self, key: ImageKey) -> Option<&[u16]> {
        let at = self.keys.binary_search(&key).ok()?;
        let levels = self.codebooks.shape()[0];
        Some(&self.codes[at * levels..][..levels])
    }

    /// How many images share the codes of their first `levels` levels with no other.
    pub fn own(&self, levels: usize) -> u64 {
        own(&self.codes, self.codebooks.shape()[0], levels)
    }

    /// The same with, for each image, the codes of the image at its place in `order` (n).
    pub(crate) fn permuted(self, order: &[usize]) -> ImageCodes {
        let levels = self.codebooks.shape()[0];
        let of = |at: &usize| &self.codes[at * levels..][..levels];
        let codes = order.iter().flat_map(of).copied().collect();
        ImageCodes { codes, ..self }
    }

    /// The images that have codes, ascending.
    pub(crate) fn keys(&self) -> &[ImageKey] {
        &self.keys
    }
}

/// How many of `codes` (n, L) share the first `prefix` of them with no other.
pub(crate) fn own(codes: &[u16], levels: usize, prefix: usize) -> u64 {
    let mut all: Vec<&[u16]> = codes.chunks_exact(levels).map(|of| &of[..prefix]).collect();
    all.par_sort_unstable();
    all.chunk_by(|a, b| a == b).filter(|same| same.len() == 1).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_centers_are_read_as_typed() {
        let of = |levels, size| Ok(SemanticIds::Of { levels, size });
        assert_eq!("3x64".parse(), of(3, 64));
        assert_eq!("8x4096".parse(), of(8, 4096));
        assert_eq!("none".parse(), Ok(SemanticIds::None));
        for wrong in ["", "3", "0x64", "9x64", "3x1", "3x4097", "3x", "x64", "3x64x2", "-3x64"] {
            let error = wrong.parse::<SemanticIds>().unwrap_err();
            assert!(error.starts_with("expected levels x centers, 1 to 8"), "{wrong}: {error}");
        }
    }

    #[test]
    fn images_that_share_their_codes_have_none_of_their_own() {
        let codes = [1, 2, 3, 1, 2, 4, 2, 2, 2, 1, 2, 3];
        assert_eq!([3, 2, 1].map(|prefix| own(&codes, 3, prefix)), [2, 1, 1]);
    }
}
