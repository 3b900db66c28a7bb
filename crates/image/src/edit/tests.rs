//! A store that lives: it is added to, taken from and put together while others read it.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::card::{FAILED, part_file};
use crate::decode::Rgb;
use crate::encode::{EncodeOptions, EncodeReport, Others, encode};
use crate::encoder::{Encoder, Scratch};
use crate::row::RowType;
use ams_data::PictureName;

use crate::failure::Failure;

/// Four numbers that tell one picture from any other.
struct Corner(AtomicUsize);

impl Encoder for Corner {
    fn id(&self) -> &str {
        "corner"
    }

    fn hash(&self) -> String {
        "corner".into()
    }

    fn dim(&self) -> usize {
        4
    }

    fn fit(&self, picture: Rgb, _: &mut Scratch) -> Rgb {
        picture
    }

    fn encode(
        &self,
        fitted: &[Rgb],
        _: &mut Scratch,
        out: &mut [f32],
    ) -> std::result::Result<(), Failure> {
        for (picture, out) in fitted.iter().zip(out.chunks_exact_mut(4)) {
            self.0.fetch_add(1, Ordering::Relaxed);
            out[..3].copy_from_slice(&[0, 1, 2].map(|at| f32::from(picture.pixels[at]) - 100.0));
            out[3] = 0.25;
        }
        Ok(())
    }
}

/// A folder of pictures `p0.png`.. and a store.
struct Shop {
    folder: tempfile::TempDir,
    encoder: Corner,
}

impl Shop {
    fn new(pictures: u8) -> Shop {
        let folder = tempfile::tempdir().unwrap();
        for at in 0..pictures {
            let path = folder.path().join(format!("p{at}.png"));
            let color = image::Rgb([at, 200 - at, 77]);
            image::RgbImage::from_pixel(2, 2, color).save(path).unwrap();
        }
        Shop { folder, encoder: Corner(AtomicUsize::new(0)) }
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn options(&self) -> EncodeOptions {
        EncodeOptions {
            threads: 2,
            chunk: 3,
            ..EncodeOptions::new(self.folder.path(), self.store())
        }
    }

    fn try_encode(&self, options: &EncodeOptions, pictures: &[u8]) -> Result<EncodeReport> {
        let names = pictures.iter().map(|at| format!("p{at}.png"));
        encode(options, names, &self.encoder, &mut |_| ControlFlow::Continue(()))
    }

    /// Encodes; how many pictures that took.
    fn encode(&self, pictures: impl IntoIterator<Item = u8>) -> usize {
        let before = self.encoder.0.load(Ordering::Relaxed);
        self.try_encode(&self.options(), &pictures.into_iter().collect::<Vec<u8>>()).unwrap();
        self.encoder.0.load(Ordering::Relaxed) - before
    }

    fn open(&self) -> FeatureStore {
        FeatureStore::open(&self.store()).unwrap()
    }
}

/// All that a reader sees: the rows of some pictures, the images, the scale.
type Seen = (BTreeMap<u8, Option<Vec<u16>>>, Vec<ImageKey>, u32);

fn seen(store: &FeatureStore) -> Seen {
    let row = |at: u8| {
        let row = store.row(store.key(PictureName::of(&format!("p{at}.png"))))?.halfs();
        Some(row.iter().map(|value| value.to_bits()).collect())
    };
    let keys = (0..store.card().parts).flat_map(|part| store.keys(part)).copied().collect();
    ((0..40).map(|at| (at, row(at))).collect(), keys, store.scale().to_bits())
}

#[test]
fn a_store_with_a_history_reads_like_a_fresh_one() {
    let lived = Shop::new(40);
    assert_eq!(lived.encode(0..10), 10);
    assert_eq!(lived.encode(5..30), 20, "ten are known");
    assert_eq!(lived.encode(0..2), 0, "removed, but its row is still there");
    assert_eq!(lived.encode(8..40), 10);
    remove(&lived.store(), &["p20.png".into(), "p39.png".into()]).unwrap();
    let fresh = Shop::new(40);
    fresh.encode((8..39).filter(|at| *at != 20));
    assert_eq!(seen(&lived.open()), seen(&fresh.open()));
    lived.open().verify().unwrap();
    let card = lived.open().card().clone();
    assert_eq!((card.generation, card.images, card.dead), (5, 30, 10));

    let changed = compact(&lived.store()).unwrap();
    assert_eq!((changed.generation, changed.images, changed.dead), (6, 30, 0));
    assert_eq!(seen(&lived.open()), seen(&fresh.open()));
    lived.open().verify().unwrap();
    // The files are those of a fresh store, but for the generation in their names.
    let part = lived.open().keys(0).first().map_or(0, |key| key.part(64));
    let part = (part..64).find(|part| !lived.open().keys(*part).is_empty()).unwrap();
    let bytes =
        |shop: &Shop, generation| fs::read(shop.store().join(part_file(part, generation))).unwrap();
    assert_eq!(bytes(&lived, 6), bytes(&fresh, 1));
    let names = |shop: &Shop| fs::read_dir(shop.store()).unwrap().count();
    assert_eq!(names(&lived), names(&fresh), "no file of an old version stays");
    assert_eq!(compact(&lived.store()).unwrap().generation, 6, "nothing to do");
}

#[test]
fn a_reader_keeps_its_version() {
    let shop = Shop::new(40);
    shop.encode(0..10);
    let first = shop.open();
    let before = seen(&first);
    shop.encode(5..40);
    remove(&shop.store(), &["p7.png".into()]).unwrap();
    compact(&shop.store()).unwrap();
    assert_eq!(seen(&first), before);
    assert_ne!(seen(&shop.open()), before);
}

#[test]
fn readers_beside_a_writer_see_whole_versions() {
    let shop = Shop::new(40);
    shop.encode(0..20);
    let versions = [seen(&shop.open()), {
        shop.encode(10..40);
        seen(&shop.open())
    }];
    let done = std::sync::atomic::AtomicBool::new(false);
    let opened = std::thread::scope(|scope| {
        let readers = [0, 1].map(|_| {
            scope.spawn(|| {
                let mut opened = 0;
                while !done.load(Ordering::Relaxed) {
                    assert!(versions.contains(&seen(&shop.open())), "a mixture");
                    opened += 1;
                }
                opened
            })
        });
        for round in 0..40 {
            shop.encode(if round % 2 == 0 { 0..20 } else { 10..40 });
            if round % 5 == 0 {
                compact(&shop.store()).unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
        readers.map(|reader| reader.join().unwrap())
    });
    assert!(opened.iter().all(|opened| *opened > 0), "{opened:?}");
}

#[test]
fn other_pictures_stay_if_asked_for() {
    let shop = Shop::new(12);
    shop.encode(0..6);
    let keep = EncodeOptions { others: Others::Keep, ..shop.options() };
    let report = shop.try_encode(&keep, &[4, 5, 6, 7]).unwrap();
    assert_eq!((report.images, report.encoded, report.names), (4, 2, 4));
    assert_eq!((shop.open().card().images, shop.open().card().dead), (8, 0));
    // Not where they cannot stay.
    let damaged = shop.store().join(shop.open().card().files.keys().next_back().unwrap());
    let bytes = fs::read(&damaged).unwrap();
    fs::write(&damaged, &bytes[..bytes.len() - 1]).unwrap();
    let error = shop.try_encode(&keep, &[4]).unwrap_err().to_string();
    assert!(error.contains("cannot keep the other pictures"), "{error}");
}

#[test]
fn bytes_need_half_and_never_become_halfs_again() {
    let shop = Shop::new(40);
    shop.encode(0..30);
    let exact = seen(&shop.open());
    let bytes = EncodeOptions { rows: Some(RowType::Int8), ..shop.options() };
    let all = (0..30).collect::<Vec<u8>>();
    let calls = shop.encoder.0.load(Ordering::Relaxed);
    shop.try_encode(&bytes, &all).unwrap();
    assert_eq!(shop.encoder.0.load(Ordering::Relaxed), calls, "made of the halfs that are there");
    let store = shop.open();
    store.verify().unwrap();
    assert_eq!((store.row_type(), store.card().rows), (RowType::Int8, RowType::Int8));
    for (at, row) in &seen(&store).0 {
        let half = |bits: &u16| f16::from_bits(*bits).to_f32();
        for (near, exact) in row.iter().flatten().zip(exact.0[at].iter().flatten()) {
            assert!((half(near) - half(exact)).abs() < 0.5, "{at}");
        }
    }
    // Further pictures are kept as the others, and putting together changes no number.
    assert_eq!(shop.encode(10..40), 10);
    let before = seen(&shop.open());
    assert_eq!(shop.open().row_type(), RowType::Int8);
    compact(&shop.store()).unwrap();
    assert_eq!(seen(&shop.open()), before);
    let halfs = EncodeOptions { rows: Some(RowType::F16), ..shop.options() };
    let report = shop.try_encode(&halfs, &all).unwrap();
    assert_eq!((report.encoded, report.reused), (30, 0), "encoded again");
    assert_eq!(seen(&shop.open()), exact);
}

#[test]
fn what_cannot_be_removed_is_said_and_nothing_changes() {
    let shop = Shop::new(4);
    shop.encode(0..4);
    let before = fs::read(shop.store().join("images.json")).unwrap();
    let error = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).into()).collect();
        remove(&shop.store(), &names).unwrap_err().to_string()
    };
    assert!(error(&["p1.png", "p9.png"]).contains("has no picture \"p9.png\""));
    assert!(error(&["p0.png", "p1.png", "p2.png", "p3.png"]).contains("no picture would be left"));
    assert_eq!(fs::read(shop.store().join("images.json")).unwrap(), before);
    let nowhere = compact(&shop.folder.path().join("nowhere")).unwrap_err().to_string();
    assert!(nowhere.contains("nowhere/images.json"), "{nowhere}");
    assert!(shop.store().join(FAILED).exists());
}

#[test]
fn numbers_that_are_none_are_found_by_key() {
    let shop = Shop::new(4);
    shop.encode(0..4);
    let store = shop.open();
    let key = store.key(PictureName::of("p2.png"));
    let name = part_file(key.part(64), 1);
    let path = shop.store().join(&name);
    let mut bytes = fs::read(&path).unwrap();
    // The last number of the last row of the file.
    let at = bytes.len() - 2;
    bytes[at..].copy_from_slice(&f16::INFINITY.to_le_bytes());
    drop(store);
    fs::write(&path, &bytes).unwrap();
    // Even where the card has been made to agree.
    let card = fs::read_to_string(shop.store().join("images.json")).unwrap();
    let was = shop.open().card().files[&name].blake3.clone();
    let card = card.replace(&was, blake3::hash(&bytes).to_hex().as_str());
    fs::write(shop.store().join("images.json"), card).unwrap();
    let error = shop.open().verify().unwrap_err().to_string();
    assert!(error.contains("value 4 is inf, expected a number within ±65504"), "{error}");
    assert!(error.contains("image ") && error.contains(&name), "{error}");
    remove(&shop.store(), &["p0.png".into()]).unwrap();
    assert!(compact(&shop.store()).unwrap_err().to_string().contains("value 4 is inf"));
}

#[test]
fn a_part_never_has_many_files() {
    let shop = Shop::new(40);
    for most in 1..=40 {
        shop.encode(0..most);
    }
    let store = shop.open();
    assert!(store.card().files.len() <= 42, "one file per picture at most, and the tables");
    store.verify().unwrap();
    assert_eq!(store.card().images, 40);
}
