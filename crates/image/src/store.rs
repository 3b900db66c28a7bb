//! The feature store: which picture has which row of numbers.
//!
//! A folder that one process at a time changes and any number read:
//! ```text
//! part-PP-GGGGGG.safetensors  what generation G added to part PP: images whose key falls into the part
//!                             (`ImageKey::part`); see `segment.rs`
//! names-GGGGGG.safetensors    the pictures that have a feature
//!     name  u64 [m]           `PictureName`, ascending
//!     key   u64 [m]           the `ImageKey` of each: the first 8 bytes of blake3 of the picture file (or its row)
//! pictures-GGGGGG.parquet     the same for people and other programs: name, key, bytes, width, height, status, detail
//! codes-GGGGGG.safetensors    semantic ids, if it has some; see `codes.rs`
//! failed.csv                  the pictures that have none: name, reason, detail
//! images.json                 the card: which of these files are the newest version, and blake3 of each
//! ```
//! All numbers are little-endian. From Python each file is one line, say
//! `safetensors.numpy.load_file("part-00-000001.safetensors")` or
//! `polars.read_parquet("pictures-000001.parquet")`.
//!
//! No file but the card and `failed.csv` is ever changed or written twice. A writer puts new files
//! beside the old ones and then renames a new card over the old one: that rename is the commit. A
//! reader that has opened a version keeps it, because its files stay mapped whatever happens to
//! their names. Files that no card names any more are removed after the commit, or by the next
//! writer. `write.rs` does this.
//!
//! Knows these files. Does not know how a row was computed.

use std::fs;
use std::path::{Path, PathBuf};

use ams_data::{Error, ImageKey, PictureName, Result};
use ams_linalg::Projection;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use safetensors::Dtype;

use crate::card::{CARD, StoreCard, codes_file, names_file};
use crate::codes::ImageCodes;
use crate::row::{Row, RowType};
use crate::segment::Segment;
use crate::tensors::Tensors;

/// The images of one part, in one file or several.
#[derive(Debug)]
struct Part {
    segments: Vec<Segment>,
    /// The images that pictures show, ascending, and where their rows are, which may be another
    /// part; `None` where that is the one file as it is.
    merged: Option<(Vec<ImageKey>, Vec<Place>)>,
}

impl Part {
    /// Maps the files of part `part`. `live`, ascending, are the images that pictures show.
    fn open(dir: &Path, part: usize, card: &StoreCard, live: Option<&[ImageKey]>) -> Result<Part> {
        let files = card.part_files(part);
        let segments = files
            .map(|name| Segment::open(&dir.join(name), part, card))
            .collect::<Result<Vec<Segment>>>()?;
        let merged = (segments.len() != 1 || live.is_some()).then(|| merge(&segments, part, live));
        Ok(Part { segments, merged })
    }

    fn keys(&self) -> &[ImageKey] {
        match &self.merged {
            Some((keys, _)) => keys,
            None => self.segments[0].keys(),
        }
    }
}

/// The images of some files that are among `live`, if that is given, and where they are.
fn merge(
    segments: &[Segment],
    part: usize,
    live: Option<&[ImageKey]>,
) -> (Vec<ImageKey>, Vec<Place>) {
    let mut images = Vec::new();
    for (segment, file) in segments.iter().enumerate() {
        let place = |row| Place { part: part as u16, segment: segment as u16, row: row as u32 };
        let keys = file.keys().iter().enumerate().map(|(row, key)| (*key, place(row)));
        images.extend(
            keys.filter(|(key, _)| live.is_none_or(|live| live.binary_search(key).is_ok())),
        );
    }
    images.sort_unstable_by_key(|(key, place)| (*key, place.segment));
    images.dedup_by_key(|(key, _)| *key);
    images.into_iter().unzip()
}

/// Where a feature is in its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    part: u16,
    segment: u16,
    row: u32,
}

/// A version of a store, memory-mapped. Shared freely between threads; rows are read from the files
/// as they are used.
#[derive(Debug)]
pub struct FeatureStore {
    dir: PathBuf,
    card: StoreCard,
    parts: Vec<Part>,
    /// The table of names, for its bytes.
    table: Tensors,
    names: Vec<PictureName>,
    /// The key of each name.
    name_keys: Vec<ImageKey>,
    codes: Option<ImageCodes>,
    projection: Option<Projection>,
    /// Numbers per row, and 1 / rms, of what there is in the place of features.
    dim: usize,
    scale: f32,
}

impl FeatureStore {
    /// Opens the newest version in `dir`: reads card and names, maps every part, checks format,
    /// shapes, order of the keys and the counts of the card. Rows are not read;
    /// [`FeatureStore::verify`] does that.
    pub fn open(dir: &Path) -> Result<FeatureStore> {
        /// How often a writer may be faster.
        const TRIES: usize = 100;
        let mut card = StoreCard::read(dir)?;
        for _ in 0..TRIES {
            let generation = card.generation;
            let opened = FeatureStore::open_version(dir, card);
            let Err(error) = opened else { return opened };
            // A writer may have removed this version's files before they were mapped.
            card = StoreCard::read(dir)?;
            if card.generation == generation {
                return Err(error);
            }
        }
        Err(Error::content(dir, "changes faster than it can be opened"))
    }

    fn open_version(dir: &Path, card: StoreCard) -> Result<FeatureStore> {
        let table = Tensors::open(&dir.join(names_file(card.generation)))?;
        let (names, name_keys) = read_names(&table)?;
        let live = (card.dead > 0).then(|| {
            let mut live = name_keys.clone();
            live.sort_unstable();
            live.dedup();
            live
        });
        let parts = (0..card.parts)
            .map(|part| Part::open(dir, part, &card, live.as_deref()))
            .collect::<Result<Vec<Part>>>()?;
        let images = parts.iter().map(|part| part.keys().len() as u64).sum::<u64>();
        if (images, names.len() as u64) != (card.images, card.names) {
            let (found, card_images, card_names) = (names.len(), card.images, card.names);
            let what = format!(
                "the card counts {card_images} images and {card_names} names, the files hold {images} \
                 and {found}: encode again"
            );
            return Err(Error::content(dir.join(CARD), what));
        }
        let codes = ImageCodes::open(dir, &card)?;
        if let Some(codes) = &codes
            && !parts.iter().flat_map(Part::keys).eq(codes.keys())
        {
            let path = dir.join(codes_file(card.generation));
            return Err(Error::content(path, "`key` is another list than the images of the parts"));
        }
        let (dim, scale) = (card.dim, card.scale);
        let (dir, projection) = (dir.to_path_buf(), None);
        Ok(FeatureStore {
            dir,
            card,
            parts,
            table,
            names,
            name_keys,
            codes,
            projection,
            dim,
            scale,
        })
    }

    /// The same store with what `projection` makes of features in their place, in memory.
    ///
    /// # Panics
    /// If the projection is of features of another width, or there is one already.
    pub fn projected(mut self, projection: Projection) -> FeatureStore {
        assert_eq!(projection.mean.len(), self.dim, "a projection of other features");
        assert!(self.projection.is_none(), "projected already");
        self.parts.par_iter_mut().for_each(|part| {
            part.segments.iter_mut().for_each(|segment| segment.project(&projection));
        });
        self.dim = projection.outputs();
        self.projection = Some(projection);
        let (mut sum, mut count) = (0.0, 0_u64);
        for key in (0..self.parts.len()).flat_map(|part| self.keys(part)) {
            let row = self.row(*key).expect("the part lists it").halfs();
            row.iter().for_each(|value| sum += f64::from(value.to_f32()).powi(2));
            count += row.len() as u64;
        }
        self.scale = if sum > 0.0 { (count as f64 / sum).sqrt() as f32 } else { 1.0 };
        self
    }

    /// What was made of the features, if anything.
    pub fn projection(&self) -> Option<&Projection> {
        self.projection.as_ref()
    }

    /// Numbers per row of [`FeatureStore::row`]: the card's, unless projected.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// 1 / rms over all rows: the card's, unless projected.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// How rows are kept: as the card says, unless projected.
    pub fn row_type(&self) -> RowType {
        if self.projection.is_some() { RowType::F16 } else { self.card.rows }
    }

    /// What the store says about itself.
    pub fn card(&self) -> &StoreCard {
        &self.card
    }

    /// The image key of a picture: [`ImageKey::NONE`] for unknown and failed pictures and for no
    /// picture.
    pub fn key(&self, name: PictureName) -> ImageKey {
        self.names.binary_search(&name).map_or(ImageKey::NONE, |at| self.name_keys[at])
    }

    /// The semantic ids of the images, if the store has some: of features as they are stored.
    pub fn codes(&self) -> Option<&ImageCodes> {
        self.codes.as_ref()
    }

    /// Every picture that has an image: (name, key), by ascending name.
    pub fn pictures(&self) -> impl Iterator<Item = (PictureName, ImageKey)> {
        self.names.iter().copied().zip(self.name_keys.iter().copied())
    }

    /// The feature of an image, or what was made of it, (dim), or nothing where the store has no
    /// such image.
    pub fn row(&self, key: ImageKey) -> Option<Row<'_>> {
        Some(self.row_at(self.place(key)?))
    }

    /// Where the feature of an image is, for [`FeatureStore::row_at`]: to be looked for once and
    /// read often.
    pub fn place(&self, key: ImageKey) -> Option<Place> {
        if !key.is_some() {
            return None;
        }
        let at = key.part(self.card.parts);
        let part = &self.parts[at];
        let row = part.keys().binary_search(&key).ok()?;
        Some(match &part.merged {
            Some((_, places)) => places[row],
            None => Place { part: at as u16, segment: 0, row: row as u32 },
        })
    }

    /// The feature at a place of this store, or what was made of it, (dim).
    pub fn row_at(&self, place: Place) -> Row<'_> {
        self.parts[usize::from(place.part)].segments[usize::from(place.segment)]
            .row(place.row as usize)
    }

    /// The keys of part `part`, ascending.
    ///
    /// # Panics
    /// Where there is no such part.
    pub fn keys(&self, part: usize) -> &[ImageKey] {
        self.parts[part].keys()
    }

    /// Every row in the files, whether or not a picture still shows it: key and size of the
    /// picture.
    pub(crate) fn stored(&self) -> impl Iterator<Item = (ImageKey, [u32; 2])> {
        let segments = self.parts.iter().flat_map(|part| &part.segments);
        segments
            .flat_map(|segment| segment.keys().iter().copied().zip(segment.sizes().iter().copied()))
    }

    /// The files of part `part`, oldest first.
    pub(crate) fn segments(&self, part: usize) -> &[Segment] {
        &self.parts[part].segments
    }

    /// The row of `key` as it is in the files, whether or not a picture still shows it.
    pub(crate) fn stored_row(&self, key: ImageKey) -> Option<Row<'_>> {
        self.parts[key.part(self.card.parts)].segments.iter().find_map(|segment| {
            let row = segment.keys().binary_search(&key).ok()?;
            Some(segment.row(row))
        })
    }

    /// The control experiment: the same images with the features of others. Rows are permuted
    /// among the images (Fisher-Yates by `seed`), and semantic ids with them; names and keys stay
    /// as they are, and so do the ids that a model makes of keys.
    pub fn shuffled(mut self, seed: u64) -> FeatureStore {
        let keys: Vec<ImageKey> = self.parts.iter().flat_map(Part::keys).copied().collect();
        let mut order: Vec<usize> = (0..keys.len()).collect();
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for last in (1..order.len()).rev() {
            // Multiply-shift: the bias is below 2^-32 for any store that fits on earth.
            let other = (u128::from(random.next_u64()) * (last as u128 + 1)) >> 64;
            order.swap(last, other as usize);
        }
        let places: Option<Vec<Place>> = order.iter().map(|at| self.place(keys[*at])).collect();
        let places = places.expect("the store lists its images");
        let mut next = 0;
        for part in &mut self.parts {
            let mine = next..next + part.keys().len();
            next = mine.end;
            part.merged = Some((keys[mine.clone()].to_vec(), places[mine].to_vec()));
        }
        self.codes = self.codes.map(|codes| codes.permuted(&order));
        self
    }

    /// Reads everything: checksums of all files, every value finite, every name's key has a row. On
    /// all cores.
    pub fn verify(&self) -> Result<()> {
        let check = |name: &str, hash: blake3::Hash| match self.card.files.get(name) {
            Some(file) if file.blake3 == hash.to_hex().as_str() => Ok(()),
            Some(file) => {
                let what = format!("checksum is {hash}, the card says {}", file.blake3);
                Err(Error::content(self.dir.join(name), what))
            }
            None => Err(Error::content(self.dir.join(name), "the card does not list it")),
        };
        let segments: Vec<&Segment> = self.parts.iter().flat_map(|part| &part.segments).collect();
        let found: Vec<Result<()>> = segments
            .into_par_iter()
            .map(|segment| {
                check(&file_name(segment.path()), blake3::hash(segment.bytes()))?;
                segment.verify()
            })
            .collect();
        found.into_iter().collect::<Result<()>>()?;
        check(&file_name(self.table.path()), blake3::hash(self.table.bytes()))?;
        let codes = codes_file(self.card.generation);
        let whole = |name: &&String| name.ends_with(".parquet") || **name == codes;
        for name in self.card.files.keys().filter(whole) {
            let path = self.dir.join(name);
            check(name, blake3::hash(&fs::read(&path).map_err(Error::io(&path))?))?;
        }
        match self.name_keys.iter().find(|key| self.place(**key).is_none()) {
            Some(key) => {
                let what = format!("a name has key {:016x}, but no part has such a row", key.0);
                Err(Error::content(self.table.path(), what))
            }
            None => Ok(()),
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Reads the table of names: names, ascending, and their keys.
fn read_names(tensors: &Tensors) -> Result<(Vec<PictureName>, Vec<ImageKey>)> {
    let path = tensors.path();
    let names = tensors.slice::<PictureName>(&tensors.typed("name", Dtype::U64, 1)?)?.to_vec();
    let keys = tensors.slice::<ImageKey>(&tensors.typed("key", Dtype::U64, 1)?)?.to_vec();
    if names.len() != keys.len() {
        let what = format!("{} names, but {} keys", names.len(), keys.len());
        return Err(Error::content(path, what));
    }
    if let Some(at) = names.windows(2).position(|pair| pair[0] >= pair[1]) {
        let what = format!("`name` must ascend, but row {} is not above row {}", at + 2, at + 1);
        return Err(Error::content(path, what));
    }
    Ok((names, keys))
}
