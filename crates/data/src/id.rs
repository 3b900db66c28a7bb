//! Ids: hashed values of categorical fields, and hashed names of pictures.
//!
//! Nothing keeps a vocabulary. A value becomes 64 bits of xxh3 over `field`, a zero byte and the
//! raw text; everything downstream (tables, shards, bundles, requests) speaks in these 64 bits.

use std::hash::{BuildHasherDefault, Hasher};

use bytemuck::{Pod, Zeroable};
use hashbrown::HashMap;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

/// Bytes of a field's name and a value that are hashed at once.
const SHORT: usize = 128;

/// The hashed value of one categorical field: xxh3-64 of (field name, 0, raw text).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Id(pub u64);

impl Id {
    /// Hashes `raw`, a value of `field`. Equal text in two fields gives two different ids.
    pub fn of(field: &str, raw: &str) -> Id {
        Id::of_bytes(field, raw.as_bytes())
    }

    /// The id of an image as a value of the field `image`: xxh3-64 of (`image`, 0, the key's 8
    /// little-endian bytes). The paper gives every arm, also the one without pictures, these ids.
    pub fn of_image(key: ImageKey) -> Id {
        Id::of_bytes("image", &key.0.to_le_bytes())
    }

    /// The id of a bucket of a behavior's age, as a value of `time`, which no behavior has as a
    /// field: xxh3-64 of (`time`, 0, the bucket's byte). 255 is an unknown age.
    pub fn of_age(bucket: u8) -> Id {
        Id::of_bytes("time", &[bucket])
    }

    /// Appends the ids of the prefixes of an image's codes, those of one code, of two, and so on,
    /// as values of `semantic`: xxh3-64 of (`semantic`, 0, the 8 little-endian bytes of `book`, 4
    /// of each code of the prefix). `book` is the hash of the codebooks, so codes by others are
    /// other ids. None of them is 0.
    pub fn of_prefixes(book: u64, codes: impl IntoIterator<Item = u32>, to: &mut Vec<Id>) {
        let mut hasher = Xxh3Default::new();
        hasher.update(b"semantic\0");
        hasher.update(&book.to_le_bytes());
        to.extend(codes.into_iter().map(|code| {
            hasher.update(&code.to_le_bytes());
            Id(hasher.digest().max(1))
        }));
    }

    /// The id whose row stands in for the ids of `input` that have none: xxh3-64 of (`input`, 0, 0,
    /// `unknown`). No text of a value has a zero byte in front.
    pub fn unknown(input: &str) -> Id {
        Id::of_bytes(input, b"\0unknown")
    }

    fn of_bytes(field: &str, value: &[u8]) -> Id {
        let length = field.len() + 1 + value.len();
        // Most are short, and a hasher with a state has half a kilobyte of it to set up.
        let mut short = [0; SHORT];
        let Some(text) = short.get_mut(..length) else { return Id::of_long(field, value) };
        text[..field.len()].copy_from_slice(field.as_bytes());
        text[field.len() + 1..].copy_from_slice(value);
        Id(xxh3_64(text))
    }

    fn of_long(field: &str, value: &[u8]) -> Id {
        let mut hasher = Xxh3Default::new();
        hasher.update(field.as_bytes());
        hasher.update(&[0]);
        hasher.update(value);
        Id(hasher.digest())
    }
}

/// The hashed name of a picture as the log spells it (a path, a URL, any text), or
/// [`PictureName::NONE`].
///
/// A name says *which picture was meant*; an [`ImageKey`] says *which pixels those are*. The
/// feature store maps the one to the other, so samples can be prepared before any picture was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct PictureName(pub u64);

impl PictureName {
    /// An item without a picture.
    pub const NONE: PictureName = PictureName(0);

    /// Hashes a picture's name; the empty name is [`PictureName::NONE`].
    pub fn of(name: &str) -> PictureName {
        if name.is_empty() {
            PictureName::NONE
        } else {
            PictureName(Id::of("picture", name).0.max(1))
        }
    }

    /// Whether there is a picture at all.
    pub fn is_some(self) -> bool {
        self != PictureName::NONE
    }
}

/// The identity of a picture's content: the first 8 bytes (little-endian) of the blake3 hash of its
/// encoded bytes, or of its feature row where only vectors are at hand. Zero means "no image".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct ImageKey(pub u64);

impl ImageKey {
    /// No image: not a picture, but a case the model learns an embedding for.
    pub const NONE: ImageKey = ImageKey(0);

    /// The key of what has this blake3 hash.
    pub fn of_content(hash: &[u8; 32]) -> ImageKey {
        let [a, b, c, d, e, f, g, h, ..] = *hash;
        // 0 is no image.
        ImageKey(u64::from_le_bytes([a, b, c, d, e, f, g, h]).max(1))
    }

    /// The part (of `parts`) of a feature store that holds this key.
    pub fn part(self, parts: usize) -> usize {
        part_of(self.0, parts)
    }

    /// Whether there is an image at all.
    pub fn is_some(self) -> bool {
        self != ImageKey::NONE
    }
}

/// Which of `parts` equal shares of the 64-bit hash space `hash` falls into.
///
/// Uses the *high* bits, so that with parts and lanes powers of two a lane owns a contiguous run of
/// parts, and hash maps (which use the low bits) stay evenly filled within a part.
pub fn part_of(hash: u64, parts: usize) -> usize {
    ((u128::from(hash) * parts as u128) >> 64) as usize
}

/// A map from ids or image keys, which are hashes already, to numbers. Nothing iterates over it.
pub type IdMap = HashMap<u64, u32, BuildHasherDefault<IdHasher>>;

/// Spreads an id, whose high bits are alike within a lane, over all bits.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("ids are hashed as u64");
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = (id ^ (id >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_depend_on_field_and_text_and_never_change() {
        assert_ne!(Id::of("age", "18"), Id::of("zip", "18"));
        assert_ne!(Id::of("a", "bc"), Id::of("ab", "c"));
        // Written into bundles and checkpoints: a change here is a change of the file formats.
        assert_eq!(Id::of("item", "0012345678"), Id(xxh3_64(b"item\x000012345678")));
        for length in 0..2 * SHORT {
            let text = "0123456789".repeat(length / 10 + 1);
            let text = &text[..length];
            assert_eq!(Id::of("item", text), Id::of_long("item", text.as_bytes()), "{length}");
        }
    }

    #[test]
    fn a_prefix_is_known_by_its_codes_and_their_books() {
        let of = |book, codes: &[u32]| {
            let mut ids = Vec::new();
            Id::of_prefixes(book, codes.iter().copied(), &mut ids);
            ids
        };
        let ids = of(7, &[3, 0, 3]);
        assert_eq!(of(7, &[3, 0]), ids[..2]);
        let bytes = b"semantic\0\x07\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0";
        assert_eq!(ids[1], Id(xxh3_64(bytes)));
        let others = [&of(8, &[3, 0, 3])[..], &of(7, &[4, 0, 3]), &ids].concat();
        let different: std::collections::BTreeSet<Id> = others.iter().copied().collect();
        assert_eq!(different.len(), 9);
    }

    #[test]
    fn parts_cover_the_hash_space_in_order() {
        assert_eq!(part_of(0, 64), 0);
        assert_eq!(part_of(u64::MAX, 64), 63);
        assert_eq!(part_of(1 << 63, 64), 32);
        // 64 parts nest in 8 lanes: a lane owns a contiguous run of parts.
        for hash in [0, 1 << 58, 3 << 60, u64::MAX - 7] {
            assert_eq!(part_of(hash, 64) / 8, part_of(hash, 8));
        }
    }
}
