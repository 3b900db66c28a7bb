//! A feature store of random rows: what a store of this size weighs and costs, with nothing in it
//! to see.
//!
//! Knows names and a seed. Does not know pictures. A row depends on (seed, key) alone and a key on
//! the name alone, so stores of overlapping sets of pictures agree on what they share.

use std::path::Path;

use ams_data::{Error, ImageKey, Result};
use half::f16;

use crate::card::StoreCard;
use crate::manifest::{Picture, distinct};
use crate::picture_file::content_key;
use crate::row::{Row, RowType};
use crate::segment::RowSource;
use crate::semantic::CodesPlan;
use crate::write::{EncoderId, Target, Version};

/// Numbers of a row at most.
const DIM_MAX: usize = 1 << 16;

/// Writes a feature store with a random row of `dim` numbers for each picture of `names` (repeated
/// and empty names are ignored) as the folder `dir`: absent, empty or an older store, which it
/// replaces whole or not at all. A row is drawn when it is written, so memory is bounded by the
/// names.
///
/// # Errors
/// [`Error::Option`] if there is no name or `dim` is 0 or beyond 65,536; [`Error::Content`] if
/// `dir` holds something else; [`Error::Io`].
pub fn simulated(
    dir: &Path,
    names: impl Iterator<Item = String>,
    dim: usize,
    seed: u64,
) -> Result<StoreCard> {
    if !(1..=DIM_MAX).contains(&dim) {
        let what = format!("simulated features: dim is {dim}, expected 1 to {DIM_MAX}");
        return Err(Error::option(what));
    }
    let pictures: Vec<Picture> = distinct(names)?.into_iter().map(picture).collect();
    let target = Target::take(dir)?;
    target.remove_partial()?;
    target.commit(&Version {
        encoder_id: &encoder_id(dim, seed),
        rows: RowType::F16,
        pictures: &pictures,
        base: None,
        source: &Drawn { seed, dim },
        codes: CodesPlan::None,
    })
}

/// Rows that are drawn when they are asked for.
struct Drawn {
    seed: u64,
    dim: usize,
}

impl RowSource for Drawn {
    fn row<'a>(&'a self, key: ImageKey, buffer: &'a mut Vec<f16>) -> Result<Row<'a>> {
        draw(self.seed, key, self.dim, buffer);
        Ok(Row::F16(buffer))
    }
}

fn picture(name: String) -> Picture {
    let key = content_key(format!("simulated\0{name}").as_bytes());
    Picture { name, key, bytes: 0, width: 0, height: 0, failure: None, file: None }
}

/// Who made the rows. The 1 is to be raised when [`draw`] changes.
fn encoder_id(dim: usize, seed: u64) -> EncoderId {
    let hash = blake3::hash(format!("simulated 1 {dim} {seed}").as_bytes());
    EncoderId { encoder: format!("simulated-{dim}"), hash: hash.to_hex().to_string(), dim }
}

/// The row of an image: four numbers per word of splitmix64, of either sign and 1/16 to 1 in size.
/// Their bits are drawn, not their values: rounding 1.6 billion floats to halves would take longer
/// than the rest.
fn draw(seed: u64, key: ImageKey, dim: usize, row: &mut Vec<f16>) {
    /// Of each half the sign, the low two bits of the exponent and the mantissa.
    const DRAWN: u64 = 0x8fff_8fff_8fff_8fff;
    /// The exponent of 1/16. Added, it carries from no half into the next.
    const SIXTEENTH: u64 = 0x2c00_2c00_2c00_2c00;
    let mut state = mix(seed) ^ key.0;
    row.resize(dim.next_multiple_of(4), f16::ZERO);
    for four in row.chunks_exact_mut(4) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (mix(state) & DRAWN) + SIXTEENTH;
        for (at, value) in four.iter_mut().enumerate() {
            *value = f16::from_bits((word >> (16 * at)) as u16);
        }
    }
    row.truncate(dim);
}

/// The output function of splitmix64.
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::FeatureStore;
    use ams_data::PictureName;
    use std::borrow::Cow;
    use std::fs;

    fn names(count: usize) -> impl Iterator<Item = String> {
        (0..count).map(|item| format!("p{item}"))
    }

    fn row<'a>(store: &'a FeatureStore, name: &str) -> Cow<'a, [f16]> {
        store.row(store.key(PictureName::of(name))).unwrap().halfs()
    }

    #[test]
    fn every_name_has_a_row_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("images");
        let card = simulated(&dir, names(300).chain(names(2)), 30, 7).unwrap();
        assert_eq!((card.images, card.names, card.dim), (300, 300, 30));
        assert_eq!(card.encoder, "simulated-30");
        let store = FeatureStore::open(&dir).unwrap();
        store.verify().unwrap();
        assert_eq!(store.card(), &card);
        let mut rows: Vec<Vec<u16>> = names(300)
            .map(|name| row(&store, &name).iter().map(|value| value.to_bits()).collect())
            .collect();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), 300);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing half-written");
    }

    #[test]
    fn values_are_of_both_signs_and_below_one() {
        let mut values = Vec::new();
        draw(1, ImageKey(5), 40_002, &mut values);
        assert_eq!(values.len(), 40_002);
        let sizes = values.iter().map(|value| value.to_f64().abs());
        assert!(sizes.clone().all(|size| (0.0625..1.0).contains(&size)));
        // An octave of four each time, evenly: the mean is 3/2 of (1/16 + 1/8 + 1/4 + 1/2) / 4.
        let mean = sizes.sum::<f64>() / 40_002.0;
        assert!((mean - 0.3516).abs() < 0.005, "{mean}");
        let positive = values.iter().filter(|value| value.is_sign_positive()).count();
        assert!((19_500..20_500).contains(&positive), "{positive}");
    }

    #[test]
    fn a_row_is_that_of_seed_and_name() {
        let folder = tempfile::tempdir().unwrap();
        let store = |place: &str, count, seed| {
            let dir = folder.path().join(place);
            let card = simulated(&dir, names(count), 8, seed).unwrap();
            (FeatureStore::open(&dir).unwrap(), card)
        };
        let (one, card) = store("one", 5, 7);
        let (same, same_card) = store("same", 5, 7);
        let (more, _) = store("more", 9, 7);
        let (other, other_card) = store("other", 5, 8);
        assert_eq!(card, same_card);
        assert_eq!(row(&one, "p3"), row(&same, "p3"));
        assert_eq!(row(&one, "p3"), row(&more, "p3"));
        assert_ne!(row(&one, "p3"), row(&other, "p3"));
        assert_ne!(card.encoder_hash, other_card.encoder_hash);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error =
            |dir: &Path, count, dim| simulated(dir, names(count), dim, 1).unwrap_err().to_string();
        let dir = folder.path().join("images");
        assert_eq!(error(&dir, 3, 0), "simulated features: dim is 0, expected 1 to 65536");
        assert!(error(&dir, 0, 4).contains("there is no picture to encode"));
        fs::write(folder.path().join("mine"), "").unwrap();
        assert!(error(folder.path(), 3, 4).contains("is not a feature store"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
