//! Giving the images of a new version their codes.
//!
//! Knows rows and codebooks. Does not know how a version is put together.

mod learn;

use std::borrow::Cow;
use std::path::Path;

use ams_data::schema::PARTS;
use ams_data::staging::FileEntry;
use ams_data::{Error, ImageKey, Result};
use ams_linalg::Codebooks;
use half::f16;
use rayon::prelude::*;
use safetensors::Dtype;

use crate::card::{CodesCard, StoreCard, codes_file, part_file};
use crate::codes::{ImageCodes, SemanticIds, own};
use crate::row::Row;
use crate::segment::{Image, Segment};
use crate::store::FeatureStore;
use crate::tensors::TensorWriter;

/// Images whose codes one thread finds at once.
const BLOCK: usize = 256;

/// Where the codes of a new version come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CodesPlan<'a> {
    /// It has none.
    None,
    /// The codebooks of this store, which has some.
    Of(&'a FeatureStore),
    /// Codebooks that are learned of its rows.
    Learn { levels: usize, size: usize },
}

impl<'a> CodesPlan<'a> {
    /// What was asked for; without that, what `older` has.
    pub(crate) fn new(asked: Option<SemanticIds>, older: Option<&'a FeatureStore>) -> Self {
        let older = older.filter(|older| older.codes().is_some());
        match (asked, older) {
            (Some(SemanticIds::None), _) | (None, None) => CodesPlan::None,
            (None, Some(older)) => CodesPlan::Of(older),
            (Some(SemanticIds::Of { levels, size }), older) => {
                let same = |older: &&FeatureStore| {
                    let card = older.card().codes.as_ref().expect("it has codes");
                    (card.levels, card.size) == (levels, size)
                };
                older.filter(same).map_or(CodesPlan::Learn { levels, size }, CodesPlan::Of)
            }
        }
    }

    /// Whether `older` has exactly these.
    pub(crate) fn is_that_of(&self, older: &FeatureStore) -> bool {
        match self {
            CodesPlan::None => older.codes().is_none(),
            CodesPlan::Of(_) => true,
            CodesPlan::Learn { .. } => false,
        }
    }
}

/// Writes the codes of a version as a file in `folder`, where its part files are that `base` has
/// not; `card` describes it so far, and `live` are its images. Nothing where it has none. On the
/// threads of the caller.
pub(crate) fn write(
    folder: &Path,
    plan: CodesPlan<'_>,
    base: Option<&FeatureStore>,
    card: &StoreCard,
    live: &[Image],
) -> Result<Option<(FileEntry, CodesCard)>> {
    let rows = || Rows::open(folder, base, card);
    let (rows, codebooks, known) = match plan {
        CodesPlan::None => return Ok(None),
        CodesPlan::Learn { levels, size } => {
            if live.is_empty() {
                let what = "no picture has a feature, so there is nothing to learn semantic ids of";
                return Err(Error::content(folder, what));
            }
            let rows = rows()?;
            // Keys are hashes, so the first ones are a fair sample.
            let sample = rows.halfs(&live[..live.len().min(learn::sample(size))]);
            (rows, Cow::Owned(learn::learn(&sample, card.dim, levels, size)), None)
        }
        CodesPlan::Of(store) => {
            let codes = store.codes().expect("a plan is of a store with codes");
            // Codes of rows that are kept in another way may be others.
            let known = Some(codes).filter(|_| store.card().rows == card.rows);
            (rows()?, Cow::Borrowed(codes.codebooks()), known)
        }
    };
    let [levels, size, width] = codebooks.shape();
    let of_block = |live: &[Image]| codes_of(live, &codebooks, known, &rows);
    let codes: Vec<u16> = live.par_chunks(BLOCK).flat_map_iter(of_block).collect();
    let centers = codebooks.centers();
    let tensors = [
        ("key", Dtype::U64, vec![live.len()]),
        ("center", Dtype::F32, vec![levels, size, width]),
        ("code", Dtype::U16, vec![live.len(), levels]),
    ];
    let path = folder.join(codes_file(card.generation));
    let mut writer = TensorWriter::create(path, &tensors)?;
    live.iter().try_for_each(|(key, _)| writer.push(&[*key]))?;
    writer.push(&centers)?;
    writer.push(&codes)?;
    let hash = blake3::hash(bytemuck::cast_slice(&centers)).to_hex().to_string();
    Ok(Some((writer.finish()?, CodesCard { levels, size, hash, own: own(&codes, levels, levels) })))
}

/// The codes of `images`, (n, L): those that are `known`, and those that codebooks make of `rows`.
fn codes_of(
    images: &[Image],
    codebooks: &Codebooks,
    known: Option<&ImageCodes>,
    rows: &Rows<'_>,
) -> Vec<u16> {
    let known = |key| known.and_then(|known| known.of(key));
    let is_new = |(key, _): &&Image| known(*key).is_none();
    let new: Vec<Image> = images.iter().filter(is_new).copied().collect();
    let mut made = Vec::new();
    codebooks.codes(&rows.halfs(&new), &mut made);
    let mut made = made.into_iter().map(|code| code as u16);
    let (levels, mut codes) = (codebooks.shape()[0], Vec::new());
    for (key, _) in images {
        match known(*key) {
            Some(known) => codes.extend_from_slice(known),
            None => codes.extend(made.by_ref().take(levels)),
        }
    }
    codes
}

/// The rows of a version that is not installed yet.
struct Rows<'a> {
    base: Option<&'a FeatureStore>,
    /// The new file of each part, if it has one.
    new: Vec<Option<Segment>>,
}

impl<'a> Rows<'a> {
    fn open(folder: &Path, base: Option<&'a FeatureStore>, card: &StoreCard) -> Result<Rows<'a>> {
        let open = |part: usize| {
            let name = part_file(part, card.generation);
            let is_there = card.files.contains_key(&name);
            is_there.then(|| Segment::open(&folder.join(name), part, card)).transpose()
        };
        Ok(Rows { base, new: (0..PARTS).map(open).collect::<Result<_>>()? })
    }

    fn row(&self, key: ImageKey) -> Row<'_> {
        let new = || {
            let segment = self.new[key.part(PARTS)].as_ref()?;
            Some(segment.row(segment.keys().binary_search(&key).ok()?))
        };
        let row = self.base.and_then(|base| base.stored_row(key)).or_else(new);
        row.expect("every image of a version has a row")
    }

    /// The rows of some images; (n, F).
    fn halfs(&self, images: &[Image]) -> Vec<f16> {
        let mut halfs = Vec::new();
        images.iter().for_each(|(key, _)| self.row(*key).push_halfs(&mut halfs));
        halfs
    }
}
