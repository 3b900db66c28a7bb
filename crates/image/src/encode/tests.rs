//! What a run promises: counted failures, one row per content, the same bytes whatever happened on
//! the way.

use super::*;
use crate::card::{StoreCard, names_file};
use crate::decode::Rgb;
use crate::encoder::Scratch;
use crate::failure::Failure;
use ams_data::PictureName;
use ams_fabric::ThreadFabric;
use image::{ExtendedColorType, ImageEncoder};
use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

/// Three numbers: the mean color; counts its calls. A picture of pure blue is beyond f16, one of
/// pure green below it.
struct MeanColor {
    calls: AtomicU64,
    hash: &'static str,
}

impl Encoder for MeanColor {
    fn id(&self) -> &str {
        "mean-color"
    }

    fn hash(&self) -> String {
        self.hash.into()
    }

    fn dim(&self) -> usize {
        3
    }

    fn batch(&self) -> usize {
        2
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
        self.calls.fetch_add(fitted.len() as u64, Ordering::Relaxed);
        out.fill(0.0);
        for (picture, row) in fitted.iter().zip(out.chunks_exact_mut(3)) {
            let count = (picture.pixels.len() / 3) as f32;
            for pixel in picture.pixels.chunks_exact(3) {
                (0..3).for_each(|channel| row[channel] += f32::from(pixel[channel]) / count);
            }
            match row {
                [0.0, 0.0, 255.0] => row[1] = 1e6,
                [0.0, 255.0, 0.0] => row.copy_from_slice(&[1e-9, 0.0, 2e-9]),
                _ => {}
            }
        }
        Ok(())
    }
}

fn encoder() -> MeanColor {
    MeanColor { calls: AtomicU64::new(0), hash: "one" }
}

fn png(color: [u8; 3]) -> Vec<u8> {
    let mut out = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut out);
    encoder.write_image(&color.repeat(4), 2, 2, ExtendedColorType::Rgb8).unwrap();
    out
}

/// Twenty pictures `p00.png`.. of twelve different contents.
fn shop(folder: &Path) -> Vec<String> {
    let images = folder.join("pictures");
    fs::create_dir_all(&images).unwrap();
    let name = |at: u8| {
        let name = format!("p{at:02}.png");
        fs::write(images.join(&name), png([at % 12, 100, 7])).unwrap();
        name
    };
    (0..20).map(name).collect()
}

fn options(folder: &Path, out: &str) -> EncodeOptions {
    let options = EncodeOptions::new(folder.join("pictures"), folder.join(out));
    EncodeOptions { threads: 2, chunk: 3, ..options }
}

fn run(options: &EncodeOptions, names: &[String], encoder: &MeanColor) -> Result<EncodeReport> {
    encode(options, names.to_vec(), encoder, &mut |_| ControlFlow::Continue(()))
}

/// Every file of a store with its content.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect::<Vec<_>>();
    names.sort();
    names
}

#[test]
fn names_lead_to_rows_and_equal_pictures_share_one() {
    let folder = tempfile::tempdir().unwrap();
    let names = shop(folder.path());
    let encoder = encoder();
    let report = run(&options(folder.path(), "store"), &names, &encoder).unwrap();
    assert_eq!((report.images, report.encoded, report.reused, report.names), (12, 12, 0, 20));
    assert_eq!(encoder.calls.load(Ordering::Relaxed), 12);
    let store = FeatureStore::open(&folder.path().join("store")).unwrap();
    store.verify().unwrap();
    let row = |name: &str| {
        let row = store.row(store.key(PictureName::of(name)))?.halfs();
        Some(row.iter().map(|value| value.to_f32()).collect::<Vec<f32>>())
    };
    assert_eq!(row("p03.png"), Some(vec![3.0, 100.0, 7.0]));
    assert_eq!(row("p15.png"), row("p03.png"));
    assert_eq!(row("other.png"), None);
    assert_eq!(store.key(PictureName::NONE), ImageKey::NONE);
    let squares = (0..12).map(|red| f64::from(red * red + 10_000 + 49)).sum::<f64>() / 36.0;
    assert!((f64::from(store.card().scale) - 1.0 / squares.sqrt()).abs() < 1e-7);
    assert_eq!((0..64).map(|part| store.keys(part).len()).sum::<usize>(), 12);
    assert_eq!(names_in(folder.path()), ["pictures", "store"]);
}

#[test]
fn several_processes_write_the_files_of_one_and_share_their_errors() {
    let folder = tempfile::tempdir().unwrap();
    let names = shop(folder.path());
    run(&options(folder.path(), "alone"), &names, &encoder()).unwrap();
    let together = |out: &str, names: &[String]| {
        let options = options(folder.path(), out);
        ThreadFabric::run(4, |mut fabric| {
            let names = names.to_vec();
            let go_on = &mut |_: &Progress| ControlFlow::Continue(());
            let report = encode_together(&options, names, &encoder(), &mut fabric, go_on);
            report.map_err(|error| error.to_string())
        })
    };
    let reports = together("store", &names);
    let counts = reports.iter().map(|report| report.as_ref().map(|it| (it.images, it.encoded)));
    assert_eq!(counts.collect::<Vec<_>>(), [Ok((12, 12)); 4]);
    let [alone, store] = ["alone", "store"].map(|store| files(&folder.path().join(store)));
    assert!(alone == store);
    // The first process alone takes the folder, and all of them hear that it cannot.
    fs::create_dir(folder.path().join("other")).unwrap();
    fs::write(folder.path().join("other/notes.txt"), "mine").unwrap();
    let errors = together("other", &names).into_iter().map(Result::unwrap_err);
    for (rank, error) in errors.enumerate() {
        assert!(error.contains("not a feature store"), "{rank}: {error}");
        assert_eq!(error.starts_with("rank 0: "), rank > 0, "{rank}: {error}");
    }
}

#[test]
fn bytes_do_not_depend_on_threads_chunks_or_interruptions() {
    let folder = tempfile::tempdir().unwrap();
    let names = shop(folder.path());
    run(&options(folder.path(), "a"), &names, &encoder()).unwrap();
    let other = EncodeOptions { threads: 4, chunk: 7, ..options(folder.path(), "b") };
    run(&other, &names, &encoder()).unwrap();
    let single = EncodeOptions { threads: 1, chunk: 100, ..options(folder.path(), "c") };
    run(&single, &names.iter().rev().cloned().collect::<Vec<_>>(), &encoder()).unwrap();

    let stopped = options(folder.path(), "d");
    let mut left = 2;
    let error = encode(&stopped, names.clone(), &encoder(), &mut |_| {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(error.unwrap_err().to_string().contains("stopped after 6 of 20 pictures"));
    assert!(!folder.path().join("d").exists());
    let encoder = encoder();
    let report = run(&stopped, &names, &encoder).unwrap();
    assert_eq!((report.encoded, report.reused, encoder.calls.load(Ordering::Relaxed)), (6, 6, 6));

    let expected = files(&folder.path().join("a"));
    for store in ["b", "c", "d"] {
        assert!(files(&folder.path().join(store)) == expected, "store {store}");
    }
    assert_eq!(names_in(folder.path()), ["a", "b", "c", "d", "pictures"]);
}

#[test]
fn a_store_is_reused_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let names = shop(folder.path());
    let options = options(folder.path(), "store");
    let reports = [&names[..10], &names[..10], &names[..], &names[..]].map(|names| {
        let report = run(&options, names, &encoder()).unwrap();
        (report.images, report.encoded, report.reused)
    });
    assert_eq!(reports, [(10, 10, 0), (10, 0, 10), (12, 2, 10), (12, 0, 12)]);
    // A changed picture is a new content; another encoder makes everything anew.
    fs::write(folder.path().join("pictures/p00.png"), png([200, 0, 0])).unwrap();
    let report = run(&options, &names, &encoder()).unwrap();
    assert_eq!((report.images, report.encoded, report.reused), (13, 1, 12));
    let other = MeanColor { hash: "two", ..encoder() };
    assert_eq!(run(&options, &names, &other).unwrap().encoded, 13);
    // A damaged store is not trusted.
    let part = fs::read_dir(folder.path().join("store")).unwrap().map(|it| it.unwrap().path());
    let part = part
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("part-"))
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(&part).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&part, bytes).unwrap();
    assert_eq!(run(&options, &names, &other).unwrap().encoded, 13);
}

#[test]
fn failures_are_counted_and_listed_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut names = shop(folder.path());
    let pictures = folder.path().join("pictures");
    fs::write(pictures.join("empty.png"), b"").unwrap();
    fs::write(pictures.join("text.jpg"), b"not a picture at all").unwrap();
    fs::write(pictures.join("short.png"), &png([1, 2, 3])[..40]).unwrap();
    fs::write(pictures.join("blue.png"), png([0, 0, 255])).unwrap();
    fs::write(pictures.join("green.png"), png([0, 255, 0])).unwrap();
    fs::create_dir(pictures.join("folder.png")).unwrap();
    let bad = [
        "empty.png",
        "text.jpg",
        "short.png",
        "blue.png",
        "green.png",
        "folder.png",
        "gone.png",
        "../x.png",
    ];
    names.extend(bad.map(String::from));
    let report = run(&options(folder.path(), "store"), &names, &encoder()).unwrap();
    let expected = [
        ("corrupt", 1),
        ("empty", 1),
        ("missing", 1),
        ("not_finite", 1),
        ("outside", 1),
        ("too_small", 1),
        ("unreadable", 1),
        ("unsupported", 1),
    ];
    assert_eq!(report.failed, expected.map(|(reason, count)| (reason.to_string(), count)).into());
    assert_eq!(report.images, 12);
    let card = StoreCard::read(&folder.path().join("store")).unwrap();
    assert_eq!((card.names, card.failed), (20, report.failed));
    let listed = fs::read_to_string(folder.path().join("store/failed.csv")).unwrap();
    assert!(
        listed.contains("gone.png,missing,no such file in the folder of pictures\n"),
        "{listed}"
    );
    assert!(listed.contains("blue.png,not_finite,"), "{listed}");
    assert!(listed.contains("green.png,too_small,"), "{listed}");
    assert_eq!(listed.lines().count(), 9);
}

#[test]
fn mostly_failed_is_an_error_that_keeps_what_was_computed() {
    let folder = tempfile::tempdir().unwrap();
    let mut names = shop(folder.path());
    names.extend((0..21).map(|at| format!("gone{at:02}.jpg")));
    let mut options = options(folder.path(), "store");
    let error = run(&options, &names, &encoder()).unwrap_err().to_string();
    assert!(error.contains("21 of 41 pictures have no feature (21 missing)"), "{error}");
    assert!(error.contains("gone00.jpg: missing: no such file"), "{error}");
    assert!(error.contains("store.partial/failed.csv"), "{error}");
    assert_eq!(names_in(folder.path()), ["pictures", "store.partial"]);
    let list = fs::read_to_string(folder.path().join("store.partial/failed.csv")).unwrap();
    assert_eq!(list.lines().count(), 1 + 21);
    // What was encoded is not encoded again, where more failures are accepted.
    options.max_failed = 0.6;
    let report = run(&options, &names, &encoder()).unwrap();
    assert_eq!((report.images, report.encoded, report.reused), (12, 0, 12));
    assert_eq!(names_in(folder.path()), ["pictures", "store"]);
}

#[test]
fn names_may_be_spelled_otherwise_than_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut names = shop(folder.path());
    let whole = folder.path().join("pictures/p00.png").to_str().unwrap().to_owned();
    names.extend([whole.clone(), "P01.PNG".to_owned(), "p02.jpg".to_owned()]);
    let report = run(&options(folder.path(), "store"), &names, &encoder()).unwrap();
    let respelled = Respelled { names: 2, name: whole.clone(), file: "p00.png".into() };
    assert_eq!((report.images, report.respelled), (12, Some(respelled)));
    let store = FeatureStore::open(&folder.path().join("store")).unwrap();
    let key = |name: &str| store.key(PictureName::of(name));
    assert_eq!((key(&whole), key("P01.PNG")), (key("p00.png"), key("p01.png")));
    let listed = fs::read_to_string(folder.path().join("store/failed.csv")).unwrap();
    assert!(
        listed.contains(
            "p02.jpg,missing,no such file in the folder of pictures; the folder has `p02.png`"
        ),
        "{listed}"
    );
}

#[test]
fn formats_that_are_not_decoded_are_counted_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut names = shop(folder.path());
    let pictures = folder.path().join("pictures");
    fs::write(pictures.join("a.avif"), b"\0\0\0\x1cftypavif\0\0\0\0mif1avif").unwrap();
    fs::write(pictures.join("b.jpg"), b"\0\0\0\x18ftypheic\0\0\0\0mif1heic").unwrap();
    fs::write(pictures.join("c.jpg"), b"no picture").unwrap();
    names.extend(["a.avif", "b.jpg", "c.jpg"].map(String::from));
    let report = run(&options(folder.path(), "store"), &names, &encoder()).unwrap();
    let formats = ["AVIF", "HEIC", "no picture"].map(|name| (name.to_owned(), 1));
    assert_eq!((report.failed["unsupported"], report.unsupported), (3, formats.into()));
}

#[test]
fn senseless_options_are_refused_before_anything_happens() {
    let folder = tempfile::tempdir().unwrap();
    let names = shop(folder.path());
    let text = |options: &EncodeOptions, names: &[String]| {
        run(options, names, &encoder()).unwrap_err().to_string()
    };
    let good = options(folder.path(), "store");
    assert!(text(&good, &[]).contains("no picture to encode"));
    let nowhere = EncodeOptions { images: folder.path().join("nowhere"), ..good.clone() };
    assert!(text(&nowhere, &names).contains("nowhere: expected a folder of pictures"));
    let over = EncodeOptions { out: folder.path().join("pictures"), ..good.clone() };
    assert!(text(&over, &names).contains("would replace the folder of pictures"));
    fs::create_dir(folder.path().join("taken")).unwrap();
    fs::write(folder.path().join("taken/thesis.txt"), "").unwrap();
    let taken = EncodeOptions { out: folder.path().join("taken"), ..good };
    assert!(text(&taken, &names).contains("is not a feature store"));
    assert_eq!(names_in(folder.path()), ["pictures", "taken"]);
}

#[test]
fn two_runs_do_not_write_one_store() {
    let folder = tempfile::tempdir().unwrap();
    let names = shop(folder.path());
    let options = options(folder.path(), "store");
    let mut inner = None;
    encode(&options, names.clone(), &encoder(), &mut |_| {
        inner.get_or_insert_with(|| run(&options, &names, &encoder()).unwrap_err().to_string());
        ControlFlow::Continue(())
    })
    .unwrap();
    let inner = inner.unwrap();
    assert!(inner.contains(".store.lock: is held by another job (process "), "{inner}");
}

#[test]
fn shuffling_hands_the_features_of_others_to_the_same_images() {
    let folder = tempfile::tempdir().unwrap();
    let names = shop(folder.path());
    let options = EncodeOptions {
        semantic_ids: Some(SemanticIds::Of { levels: 2, size: 4 }),
        ..options(folder.path(), "store")
    };
    run(&options, &names, &encoder()).unwrap();
    let store = |seed: Option<u64>| {
        let store = FeatureStore::open(&folder.path().join("store")).unwrap();
        match seed {
            Some(seed) => store.shuffled(seed),
            None => store,
        }
    };
    let keys = |store: &FeatureStore| -> Vec<ImageKey> {
        names.iter().map(|name| store.key(PictureName::of(name))).collect()
    };
    // Bits of a row and its codes, by image.
    let rows = |store: &FeatureStore| -> Vec<(Vec<u16>, Vec<u16>)> {
        let images = (0..store.card().parts).flat_map(|part| store.keys(part));
        let row = |key: &ImageKey| {
            let row = store.row(*key).unwrap().halfs().iter().map(|half| half.to_bits()).collect();
            (row, store.codes().unwrap().of(*key).unwrap().to_vec())
        };
        images.map(row).collect()
    };
    let [plain, one, again, two] = [None, Some(1), Some(1), Some(2)].map(store);
    assert_eq!(keys(&one), keys(&plain));
    assert_eq!(rows(&one), rows(&again));
    assert!(rows(&one) != rows(&plain) && rows(&one) != rows(&two));
    let sorted = |store: &FeatureStore| {
        let mut rows = rows(store);
        rows.sort();
        rows
    };
    assert_eq!(sorted(&one), sorted(&plain));
}

/// Changes one file of a good store and opens it.
fn opened_after(change: impl Fn(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let names = shop(folder.path());
    run(&options(folder.path(), "store"), &names, &encoder()).unwrap();
    let store = folder.path().join("store");
    change(&store);
    FeatureStore::open(&store).and_then(|store| store.verify()).unwrap_err().to_string()
}

#[test]
fn a_damaged_store_is_told_apart() {
    let edit = |from: &'static str, to: &'static str| {
        opened_after(move |store| {
            let text = fs::read_to_string(store.join("images.json")).unwrap();
            assert!(text.contains(from));
            fs::write(store.join("images.json"), text.replace(from, to)).unwrap();
        })
    };
    let cut = opened_after(|store| {
        let path = store
            .join(StoreCard::read(store).unwrap().part_files(part_of_any(store)).next().unwrap());
        fs::write(&path, &fs::read(&path).unwrap()[..20]).unwrap();
    });
    assert!(cut.contains("-000001.safetensors: not a whole safetensors file (20 bytes)"), "{cut}");
    assert!(edit("\"dim\": 3", "\"dim\": 4").contains("expected [1, 4] (keys, dim of the card)"));
    assert!(edit("ams-images/2", "ams-images/9").contains("\"ams-images/9\", this build reads"));
    assert!(edit("\"images\": 12", "\"images\": 13").contains("counts 13 images"));
    let gone = opened_after(|store| fs::remove_file(store.join(names_file(1))).unwrap());
    assert!(gone.contains("names-000001.safetensors"), "{gone}");
    let flipped = opened_after(|store| {
        let path = store.join("pictures-000001.parquet");
        let mut bytes = fs::read(&path).unwrap();
        bytes[10] ^= 1;
        fs::write(&path, bytes).unwrap();
    });
    assert!(flipped.contains("pictures-000001.parquet: checksum is"), "{flipped}");
}

/// A part of the store that holds an image.
fn part_of_any(store: &Path) -> usize {
    let card = StoreCard::read(store).unwrap();
    (0..card.parts).find(|part| card.part_files(*part).next().is_some()).unwrap()
}
