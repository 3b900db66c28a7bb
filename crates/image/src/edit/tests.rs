//! A store that lives: it is added to, taken from and put together while others read it.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::SemanticIds;
use crate::card::{FAILED, codes_file, part_file};
use crate::decode::Rgb;
use crate::encode::{EncodeOptions, EncodeReport, Others, encode, encode_together};
use crate::encoder::{Encoder, Scratch};
use crate::row::RowType;
use ams_data::PictureName;
use ams_fabric::ThreadFabric;
use half::f16;

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

/// What the codebooks of a store make of its rows, image by image.
fn made(store: &FeatureStore) -> Vec<(ImageKey, Vec<u16>)> {
    let keys = (0..store.card().parts).flat_map(|part| store.keys(part)).copied();
    keys.map(|key| {
        let (row, mut codes): (Vec<f16>, _) = (store.row(key).unwrap().halfs().into(), Vec::new());
        store.codes().unwrap().codebooks().codes(&row, &mut codes);
        (key, codes.into_iter().map(|code| code as u16).collect())
    })
    .collect()
}

/// The codes of every image of a store, which are those that its codebooks make.
fn codes(store: &FeatureStore) -> Vec<(ImageKey, Vec<u16>)> {
    store.verify().unwrap();
    let codes = store.codes().unwrap();
    let all: Vec<_> =
        made(store).into_iter().map(|(key, _)| (key, codes.of(key).unwrap().to_vec())).collect();
    assert_eq!(all, made(store));
    assert_eq!(codes.of(ImageKey(1)), None);
    let is_own = |of: &&(ImageKey, Vec<u16>)| all.iter().filter(|it| it.1 == of.1).count() == 1;
    let own = all.iter().filter(is_own).count() as u64;
    assert_eq!((store.card().codes.as_ref().unwrap().own, codes.own(2)), (own, own));
    all
}

const TWO_OF_THREE: SemanticIds = SemanticIds::Of { levels: 2, size: 3 };

#[test]
fn semantic_ids_stay_through_the_versions_of_a_store() {
    let shop = Shop::new(40);
    let asked = |semantic_ids| EncodeOptions { semantic_ids: Some(semantic_ids), ..shop.options() };
    let (some, all): (Vec<u8>, Vec<u8>) = ((0..20).collect(), (5..40).collect());
    let report = shop.try_encode(&asked(TWO_OF_THREE), &some).unwrap();
    let (first, card) = (codes(&shop.open()), shop.open().card().codes.clone().unwrap());
    let semantic = report.semantic_ids.unwrap();
    assert_eq!((&semantic.card, semantic.images), (&card, 20));
    assert_eq!((card.levels, card.size), (2, 3));
    // More pictures, by the codebooks that are there.
    shop.encode(5..40);
    let (second, store) = (codes(&shop.open()), shop.open());
    assert_eq!(store.card().codes.as_ref().unwrap().hash, card.hash);
    let known = second.iter().filter(|of| first.contains(of)).count();
    assert_eq!((known, second.len()), (15, 35));
    // Nothing to do, also if they are asked for again.
    shop.encode(5..40);
    shop.try_encode(&asked(TWO_OF_THREE), &all).unwrap();
    assert_eq!(shop.open().card(), store.card());
    remove(&shop.store(), &["p20.png".into()]).unwrap();
    compact(&shop.store()).unwrap();
    let left = codes(&shop.open());
    assert_eq!((left.len(), shop.open().card().dead), (34, 0));
    assert!(left.iter().all(|of| second.contains(of)));
    // Rows that are kept in another way.
    let bytes = EncodeOptions { rows: Some(RowType::Int8), ..shop.options() };
    shop.try_encode(&bytes, &all).unwrap();
    assert_eq!(codes(&shop.open()).len(), 35);
    assert_eq!(shop.open().card().codes.as_ref().unwrap().hash, card.hash);
    // Others only if asked for, and none in the same way.
    shop.try_encode(&asked(SemanticIds::Of { levels: 1, size: 4 }), &all).unwrap();
    assert_eq!(shop.open().codes().unwrap().codebooks().shape(), [1, 4, 4]);
    let report = shop.try_encode(&asked(SemanticIds::None), &all).unwrap();
    assert!(report.semantic_ids.is_none() && shop.open().codes().is_none());
    assert!(!shop.store().join(codes_file(shop.open().card().generation)).exists());
}

#[test]
fn semantic_ids_do_not_depend_on_threads_processes_or_order() {
    let names = |of: &mut dyn Iterator<Item = u8>| -> Vec<String> {
        of.map(|at| format!("p{at}.png")).collect()
    };
    let file = |threads: usize, processes: usize, names: Vec<String>| {
        let shop = Shop::new(40);
        let semantic_ids = Some(TWO_OF_THREE);
        let options = EncodeOptions { threads, semantic_ids, ..shop.options() };
        let reports = ThreadFabric::run(processes, |mut fabric| {
            let go_on = &mut |_: &_| ControlFlow::Continue(());
            encode_together(&options, names.clone(), &shop.encoder, &mut fabric, go_on).unwrap()
        });
        assert!(reports.iter().all(|report| *report == reports[0]));
        fs::read(shop.store().join(codes_file(1))).unwrap()
    };
    let expected = file(1, 1, names(&mut (0..40)));
    for (threads, processes) in [(4, 1), (1, 2), (2, 4)] {
        assert_eq!(file(threads, processes, names(&mut (0..40).rev())), expected);
    }
}

#[test]
fn semantic_ids_that_are_damaged_are_refused() {
    let shop = Shop::new(9);
    let options = EncodeOptions { semantic_ids: Some(TWO_OF_THREE), ..shop.options() };
    shop.try_encode(&options, &[0, 1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    let path = shop.store().join(codes_file(1));
    let good = fs::read(&path).unwrap();
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
    let after = |change: Change<'_>| {
        let mut bytes = good.clone();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        FeatureStore::open(&shop.store()).and_then(|store| store.verify()).unwrap_err().to_string()
    };
    let last = good.len() - 1;
    let cases: [(Change<'_>, &str); 3] = [
        (&|bytes| bytes[last] = 1, "`code` is 25"),
        (&|bytes| bytes.truncate(last), "codes-000001.safetensors"),
        (&|bytes| bytes[last - 1] = (bytes[last - 1] + 1) % 3, "checksum is"),
    ];
    for (change, expected) in cases {
        let error = after(change);
        assert!(error.contains(expected), "{error}");
    }
    // A store without them is one again after the next encoding.
    fs::remove_file(&path).unwrap();
    assert!(FeatureStore::open(&shop.store()).is_err());
    shop.try_encode(&options, &[0, 1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    assert_eq!(codes(&shop.open()).len(), 9);
}
