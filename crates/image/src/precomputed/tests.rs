//! Matrices from elsewhere: matched by name, checked by value.

use super::*;
use crate::npy;
use ams_data::PictureName;

fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = npy::MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend((dict.len() as u16).to_le_bytes());
    bytes.extend(dict.as_bytes());
    bytes.extend(data);
    bytes
}

fn singles(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

struct Case {
    folder: tempfile::TempDir,
    options: PrecomputedOptions,
}

fn case(features: &[u8], keys: &str) -> Case {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("f"), features).unwrap();
    fs::write(at("keys.txt"), keys).unwrap();
    let options = PrecomputedOptions::new(at("f"), Some(at("keys.txt")), at("store"));
    Case { folder, options }
}

fn run(case: &Case, names: &[&str]) -> Result<EncodeReport> {
    precomputed(&case.options, names.iter().map(|name| (*name).to_string()))
}

fn value(case: &Case, name: &str) -> Option<f32> {
    let store = FeatureStore::open(&case.options.out).unwrap();
    Some(store.row(store.key(PictureName::of(name)))?.halfs()[0].to_f32())
}

fn refused(features: &[u8], keys: &str) -> String {
    let case = case(features, keys);
    let error = run(&case, &["a", "b", "c"]).unwrap_err().to_string();
    let mut left = fs::read_dir(case.folder.path()).unwrap().count();
    left -= 2;
    assert_eq!(left, 0, "nothing half-written");
    error
}

#[test]
fn names_match_exactly_first_and_by_stem_then() {
    let features = npy("<f4", "(4, 2)", &singles(&[1.0, 0.0, 2.0, 0.0, 3.0, 0.0, 4.0, 0.0]));
    let case = case(&features, "7\n7.jpg\nshoes/8\r\n9\n");
    let report = run(&case, &["7.jpg", "7.png", "shoes/8.jpg", "12.jpg", "", "7.jpg"]).unwrap();
    assert_eq!(
        report.matched,
        Some(Matched { exact: 1, stem: 2, unused: 1, numbers: 3, zeroed: 0 })
    );
    assert_eq!((report.images, report.encoded, report.names, report.dim), (3, 3, 4, 2));
    assert_eq!(report.failed.get("missing"), Some(&1));
    let values = ["7.jpg", "7.png", "shoes/8.jpg", "12.jpg"].map(|name| value(&case, name));
    assert_eq!(values, [Some(2.0), Some(1.0), Some(3.0), None]);
    let again = run(&case, &["7.jpg", "7.png", "shoes/8.jpg", "12.jpg"]).unwrap();
    assert_eq!((again.encoded, again.reused), (0, 3));
}

#[test]
fn every_precision_reads_alike() {
    let values = [0.5f32, -2.0, 3.0, 65504.0];
    let halves =
        values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect::<Vec<_>>();
    let doubles =
        values.iter().flat_map(|value| f64::from(*value).to_le_bytes()).collect::<Vec<_>>();
    for (descr, data) in [("<f2", halves), ("<f4", singles(&values)), ("<f8", doubles)] {
        let case = case(&npy(descr, "(4, 1)", &data), "a\nb\nc\nd\n");
        run(&case, &["a", "b", "c", "d"]).unwrap();
        assert_eq!(["a", "b", "c", "d"].map(|it| value(&case, it).unwrap()), values, "{descr}");
    }
}

#[test]
fn safetensors_give_a_tensor_by_name() {
    use safetensors::tensor::{Dtype, TensorView, serialize};
    let (one, two) = (singles(&[1.0, 2.0]), [0x80, 0x3f, 0x40, 0xc0]);
    let view = |dtype, data| TensorView::new(dtype, vec![2, 1], data).unwrap();
    let both = [("one", view(Dtype::F32, &one[..])), ("two", view(Dtype::BF16, &two[..]))];
    let bytes = serialize(both, None).unwrap();
    let mut case = case(&bytes, "a\nb\n");
    let error = run(&case, &["a", "b"]).unwrap_err().to_string();
    assert!(error.contains("2 matrices: say which tensor to take of: one, two"), "{error}");
    for (tensor, expected) in [("one", [1.0, 2.0]), ("two", [1.0, -3.0])] {
        case.options.tensor = Some(tensor.into());
        run(&case, &["a", "b"]).unwrap();
        assert_eq!(["a", "b"].map(|it| value(&case, it).unwrap()), expected);
    }
}

#[test]
fn equal_rows_are_one_image() {
    let case = case(&npy("<f4", "(3, 1)", &singles(&[5.0, 6.0, 5.0])), "a\nb\nc\n");
    assert_eq!(run(&case, &["a", "b", "c"]).unwrap().images, 2);
    assert_eq!(value(&case, "c"), Some(5.0));
}

#[test]
fn bad_matrices_are_refused_with_row_and_name() {
    let good = singles(&[1.0, 2.0, 3.0]);
    let check = |features: &[u8], keys: &str, expected: &str| {
        let error = refused(features, keys);
        assert!(error.contains(expected), "{error}");
    };
    let three = "a\nb\nc\n";
    check(&npy("<f4", "(3, 1)", &good), "a\nb\n", "2 names, but");
    check(&npy("<f4", "(3, 1)", &good), "a\nb\na\n", "\"a\" is in line 1 and in line 3");
    check(&npy("<f4", "(3, 1)", &good), "a\n\nb\n", "line 2 is empty");
    check(&npy("<f4", "(3,)", &good), three, "shape [3], expected two dimensions");
    check(&npy("<i4", "(3, 1)", &good), three, "holds <i4, expected <f2");
    check(&npy("<f4", "(3, 1)", &good[..8]), three, "needs 3 x 1 x 4 bytes, but 8 follow");
    check(&npy("<f4", "(9999999999999999, 99999999)", &good), three, "cut short");
    check(
        &npy("<f4", "(3, 1)", &singles(&[1.0, f32::NAN, 3.0])),
        three,
        "row 2 (\"b\"), column 1: NaN",
    );
    check(&npy("<f4", "(3, 1)", &singles(&[1.0, 2.0, 7e4])), three, "row 3 (\"c\"), column 1: inf");
    check(b"", three, "the file is empty");
    check(b"something else", three, "neither a .npy nor");
    check(
        &npy("<f4", "(3, 2)", &singles(&[1.0, 2.0, 1e-9, -2e-8, 3.0, 1e-9])),
        three,
        "row 2 (\"b\"): the largest number is 2e-8, too small: halfs (f16) have few bits below 6e-5 and are 0 below 3e-8. \
         Multiply all rows by the same number first, such as 1e8",
    );
    check(
        &npy("<f8", "(3, 1)", &[[0; 8], [0; 8], 1e-300f64.to_le_bytes()].concat()),
        three,
        "row 3",
    );
}

#[test]
fn numbers_that_become_0_beside_larger_ones_are_counted() {
    let values = singles(&[1.0, 1e-9, 0.0, 0.0, 3.0, -1e-8]);
    let case = case(&npy("<f4", "(3, 2)", &values), "a\nb\nc\n");
    let matched = run(&case, &["a", "b", "c"]).unwrap().matched.unwrap();
    assert_eq!((matched.numbers, matched.zeroed), (4, 2));
}

#[test]
fn names_begin_behind_a_byte_order_mark() {
    let features = npy("<f4", "(2, 1)", &singles(&[1.0, 2.0]));
    let case = case(&features, "\u{feff}a.jpg\r\nb.jpg\r\n");
    let report = run(&case, &["a.jpg", "b.jpg"]).unwrap();
    assert_eq!((report.failed.len(), value(&case, "a.jpg")), (0, Some(1.0)));
}

#[test]
fn names_may_be_spelled_otherwise() {
    let features = npy("<f4", "(3, 1)", &singles(&[1.0, 2.0, 3.0]));
    let case = case(&features, "caf\u{e9}.jpg\nx/b c.jpg\nd.jpg\n");
    let names = ["cafe\u{301}.jpg", "x\\B%20c.jpg", "e.jpg", "d.jpeg"];
    let report = run(&case, &names).unwrap();
    let values = names.map(|name| value(&case, name));
    assert_eq!(values, [Some(1.0), Some(2.0), None, None]);
    assert_eq!(report.respelled.unwrap().names, 2);
    let list = fs::read_to_string(case.folder.path().join("store/failed.csv")).unwrap();
    assert!(list.contains("without extension; the list has `d.jpg`"), "{list}");
}

#[test]
fn names_without_a_row_are_listed_and_accepted_if_told() {
    let mut case = case(&npy("<f4", "(3, 1)", &singles(&[1.0, 2.0, 3.0])), "a\ny\nz\n");
    let error = run(&case, &["a", "b", "c"]).unwrap_err().to_string();
    assert!(error.contains("2 of 3 pictures have no feature (2 missing)"), "{error}");
    assert!(error.contains("--max-failed 1 accepts any share"), "{error}");
    let list = case.folder.path().join("store.partial/failed.csv");
    assert!(error.contains(list.to_str().unwrap()), "{error}");
    assert_eq!(fs::read_to_string(&list).unwrap().lines().count(), 3);
    case.options.max_failed = 0.7;
    assert_eq!(run(&case, &["a", "b", "c"]).unwrap().images, 1);
    assert!(!list.parent().unwrap().exists(), "nothing stays behind");
}

/// The real features of the MovieLens posters, where they lie beside the repository.
#[test]
fn movielens_features_import_as_they_are() {
    let data =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/ml1m-posters/features");
    if !data.is_dir() {
        println!("skipped: no ../shared/data/ml1m-posters/features beside the repository");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (features, keys) = (data.join("effnet_lite0_1280.f16.npy"), data.join("image_ids.txt"));
    let text = fs::read_to_string(&keys).unwrap();
    let options = PrecomputedOptions::new(features, Some(keys), folder.path().join("store"));
    let names = text.lines().map(|id| format!("{id}.jpg")).collect::<Vec<_>>();
    let report = precomputed(&options, names).unwrap();
    assert_eq!((report.dim, report.names), (1280, 3256));
    let matched = report.matched.unwrap();
    assert_eq!((matched.exact, matched.stem, matched.unused, matched.zeroed), (0, 3256, 0, 0));
    assert!(report.images > 3200 && report.failed.is_empty());
    let store = FeatureStore::open(&options.out).unwrap();
    assert!(store.row(store.key(PictureName::of("1.jpg"))).is_some());
}
