//! ONNX networks: the same numbers as onnxruntime's, and errors that say what to do.

use ams_encoders::onnx::{Onnx, Pool, Runtime};
use ams_encoders::preprocess::{Preprocess, Range, Resize};
use ams_image::Encoder;
use ams_image::resize::Filter;
use std::fs;
use std::path::Path;

use super::{PICTURES, check, golden, pictures, rows};

fn imagenet() -> Preprocess {
    Preprocess { size: [16, 16], resize: Resize::Shorter(20), ..Preprocess::imagenet() }
}

/// As EfficientNet-Lite wants it.
fn whole() -> Preprocess {
    Preprocess {
        resize: Resize::Whole,
        filter: Filter::Bicubic,
        range: Range::Bytes,
        mean: [127.0; 3],
        std: [128.0; 3],
        ..imagenet()
    }
}

fn open(file: &str, output: &str) -> Onnx {
    Onnx::open(&golden(file), Some(output), None, whole(), &Runtime::Tract).expect("a good file")
}

fn pooled(file: &str, output: &str, pool: Pool) -> Onnx {
    Onnx::open(&golden(file), Some(output), Some(pool), whole(), &Runtime::Tract)
        .expect("a good file")
}

/// A resized pixel may differ by one of 255 from Pillow's: a tolerance of 5e-3 allows for that.
#[test]
fn rows_are_those_of_onnxruntime() {
    let onnx =
        Onnx::open(&golden("small.onnx"), Some("features"), None, imagenet(), &Runtime::Tract)
            .expect("a good file");
    check("small.onnx features, imagenet", &onnx, &PICTURES, 5e-3);
    check("small.onnx features, whole", &open("small.onnx", "features"), &PICTURES, 5e-3);
    check("small.onnx logits, whole", &open("small.onnx", "logits"), &PICTURES, 5e-3);
}

#[test]
fn files_that_say_the_same_differently_give_the_same_rows() {
    let expected = "small.onnx features, whole";
    for file in ["outside.onnx", "nhwc.onnx", "pairs.onnx"] {
        check(expected, &open(file, "features"), &PICTURES, 5e-3);
    }
    // A node's name is as good as its tensor's.
    check(expected, &open("small.onnx", "flat"), &PICTURES, 5e-3);
}

/// Weights have been rounded, and nothing else: f16 keeps 11 bits, bf16 8 bits.
#[test]
fn networks_of_half_precision_are_computed_in_single() {
    let (features, logits) = ("small.onnx features, whole", "small.onnx logits, whole");
    check(features, &open("half.onnx", "features"), &PICTURES, 6e-3);
    check(logits, &open("half.onnx", "logits"), &PICTURES, 6e-3);
    check(features, &open("half-inside.onnx", "features"), &PICTURES, 6e-3);
    check(features, &open("bfloat.onnx", "features"), &PICTURES, 2e-2);
    check(logits, &open("bfloat.onnx", "logits"), &PICTURES, 2e-2);
}

#[test]
fn only_the_inputs_that_an_output_needs_count() {
    check("small.onnx features, whole", &open("towers.onnx", "image_embeds"), &PICTURES, 5e-3);
    // By its node's name as well; and what is needed in vain by others may be anything.
    check("small.onnx features, whole", &open("towers.onnx", "visual"), &PICTURES, 5e-3);
    let cases: [(&str, &[&str]); 3] = [
        (
            "logits_per_image",
            &[
                "`logits_per_image` needs 3 inputs (`input_ids`, `image`, `attention_mask`)",
                "expected one; outputs that need one are `image_embeds` (of `image`)",
            ],
        ),
        ("text_embeds", &["`text_embeds` needs 2 inputs (`input_ids`, `attention_mask`)"]),
        ("spoken", &["input `input_ids` takes Int64", "`spoken` is made of no picture"]),
    ];
    for (output, words) in cases {
        let error = refused(&golden("towers.onnx"), Some(output), whole());
        for word in words {
            assert!(error.contains(word), "{error}\nlacks: {word}");
        }
    }
}

#[test]
fn tokens_and_maps_become_a_row_as_told() {
    let (first, mean) = (Pool::First, Pool::Mean);
    let tokens = pooled("tokens.onnx", "last_hidden_state", first);
    check("tokens.onnx first", &tokens, &PICTURES, 5e-3);
    let expected = "tokens.onnx last_hidden_state, first token: whole to 16x16 bicubic, 0..255 mean 127 std 128, rgb nchw";
    assert_eq!(tokens.id(), expected);
    let mean_of = pooled("tokens.onnx", "last_hidden_state", mean);
    check("tokens.onnx mean", &mean_of, &PICTURES, 5e-3);
    check("small.onnx stem, mean", &pooled("small.onnx", "stem.relu", mean), &PICTURES, 5e-3);
    let flat = pooled("tokens.onnx", "last_hidden_state", Pool::None);
    assert_eq!((tokens.dim(), mean_of.dim(), flat.dim()), (6, 6, 17 * 6));
    let mut hashes = [tokens.hash(), mean_of.hash(), flat.hash()];
    hashes.sort();
    assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2]);
    // Where there is nothing to pool, nothing changes.
    let maps = pooled("small.onnx", "pooled", mean);
    assert_eq!(maps.hash(), open("small.onnx", "pooled").hash());

    let error = |file: &str, output: &str, pool: Option<Pool>| {
        Onnx::open(&golden(file), Some(output), pool, whole(), &Runtime::Tract)
            .expect_err("a bad pool")
            .to_string()
    };
    let unasked = error("tokens.onnx", "last_hidden_state", None);
    assert!(
        unasked.contains("17 tokens of 6 numbers") && unasked.contains("--pool first"),
        "{unasked}"
    );
    let unasked = error("small.onnx", "stem.relu", None);
    assert!(
        unasked.contains("4 maps of 64 places") && unasked.contains("--pool mean"),
        "{unasked}"
    );
    let row = error("small.onnx", "features", Some(first));
    assert!(row.contains("nothing to pool"), "{row}");
}

#[test]
fn rows_do_not_know_what_is_beside_them() {
    let (onnx, pictures) = (open("small.onnx", "features"), pictures(&PICTURES));
    let one_by_one = rows(&onnx, &pictures, 1);
    assert_eq!(rows(&onnx, &pictures, 4), one_by_one);
    let turned = pictures.iter().rev().cloned().collect::<Vec<_>>();
    let turned = std::thread::scope(|scope| {
        scope.spawn(|| rows(&onnx, &turned, 3)).join().expect("no panic in the thread")
    });
    assert_eq!(turned.into_iter().rev().collect::<Vec<_>>(), one_by_one);
}

#[test]
fn an_encoder_is_known_by_all_that_defines_it() {
    let onnx = open("small.onnx", "features");
    assert_eq!(
        onnx.id(),
        "small.onnx features: whole to 16x16 bicubic, 0..255 mean 127 std 128, rgb nchw"
    );
    let hashes = [
        onnx.hash(),
        open("small.onnx", "logits").hash(),
        open("nhwc.onnx", "features").hash(),
        Onnx::open(&golden("small.onnx"), Some("features"), None, imagenet(), &Runtime::Tract)
            .expect("a good file")
            .hash(),
    ];
    let mut distinct = hashes.to_vec();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), hashes.len());
    assert_eq!(open("small.onnx", "flat").hash(), onnx.hash());

    // A copy is the same encoder, and weights outside the file are part of it.
    let folder = tempfile::tempdir().expect("a good file");
    let copy = |name: &str| fs::copy(golden(name), folder.path().join(name)).expect("a good file");
    copy("outside.onnx");
    copy("outside.weights");
    let hash = |path: &Path| {
        Onnx::open(path, Some("features"), None, whole(), &Runtime::Tract)
            .expect("a good file")
            .hash()
    };
    let path = folder.path().join("outside.onnx");
    let before = hash(&path);
    assert_eq!(before, open("outside.onnx", "features").hash());
    let mut weights = fs::read(folder.path().join("outside.weights")).expect("a good file");
    weights[3] ^= 1;
    fs::write(folder.path().join("outside.weights"), weights).expect("a good file");
    assert_ne!(hash(&path), before);
}

/// tract 0.23.9 takes the wrong rows of a slice that begins at an odd place and steps by two.
#[test]
fn an_optimizers_fault_is_no_feature() {
    match Onnx::open(&golden("strided.onnx"), None, None, whole(), &Runtime::Tract) {
        Ok(onnx) => check("strided.onnx", &onnx, &PICTURES, 5e-3),
        Err(error) => {
            let error = error.to_string();
            for word in ["optimizing the network changes what it computes", "--features"] {
                assert!(error.contains(word), "{error}\nlacks: {word}");
            }
        }
    }
}

/// The error of opening a file.
fn refused(file: &Path, output: Option<&str>, preprocess: Preprocess) -> String {
    Onnx::open(file, output, None, preprocess, &Runtime::Tract).expect_err("a bad file").to_string()
}

#[test]
fn what_cannot_be_computed_is_said() {
    let folder = tempfile::tempdir().expect("a good file");
    let written = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("a good file");
        path
    };
    let small = fs::read(golden("small.onnx")).expect("a good file");
    let outside = fs::read(golden("outside.onnx")).expect("a good file");
    let climbing = String::from_utf8_lossy(&outside).contains("outside.weights");
    assert!(climbing, "the name is in the file as it is");
    let at = outside.windows(15).position(|part| part == b"outside.weights").expect("a good file");
    let mut climbing = outside.clone();
    climbing[at..at + 15].copy_from_slice(b"../../../passwd");

    let (features, wide) = (Some("features"), Preprocess { size: [20, 20], ..whole() });
    let cases: [(&Path, Option<&str>, Preprocess, &[&str]); 12] = [
        (&golden("small.onnx"), None, whole(), &["2 outputs", "`features`, `logits`"]),
        (
            &golden("small.onnx"),
            Some("feature"),
            whole(),
            &["no node or tensor `feature`", "Outputs: `features`, `logits`", "`pooled`", "`stem`"],
        ),
        (
            &golden("small.onnx"),
            features,
            wide,
            &["input `image` is [any, 3, 16, 16]", "makes [1, 3, 20, 20]", "set its size"],
        ),
        (
            &golden("two-inputs.onnx"),
            None,
            whole(),
            &["`out` needs 2 inputs (`image`, `mask`)", "expected one; choose a node"],
        ),
        (&golden("unknown.onnx"), None, whole(), &["cannot be computed", "Bewilder (makes `out`)"]),
        (&golden("golden.json"), features, whole(), &["golden.json: not an ONNX network"]),
        (&written("empty.onnx", b""), None, whole(), &["not an ONNX network: it has no nodes"]),
        (
            &written("short.onnx", &small[..small.len() / 2]),
            features,
            whole(),
            &["short.onnx: not an ONNX network"],
        ),
        (&folder.path().join("none.onnx"), None, whole(), &["none.onnx", "No such file"]),
        (&written("alone.onnx", &outside), features, whole(), &["outside.weights"]),
        (
            &written("climbing.onnx", &climbing),
            features,
            whole(),
            &["in `../../../passwd`", "expected a file in the network's folder"],
        ),
        (
            &golden("small.onnx"),
            features,
            Preprocess { resize: Resize::Shorter(8), ..whole() },
            &["resize 8", "16x16 cannot be cut out"],
        ),
    ];
    for (file, output, preprocess, words) in cases {
        let error = refused(file, output, preprocess);
        for word in words {
            assert!(error.contains(word), "{error}\nlacks: {word}");
        }
    }
    // What the output does not need may be unknown.
    let calm = Onnx::open(
        &golden("unknown.onnx"),
        Some("calm"),
        Some(Pool::None),
        whole(),
        &Runtime::Tract,
    )
    .expect("a good file");
    assert_eq!(calm.dim(), 3 * 16 * 16);
}

#[test]
fn no_damage_to_a_file_makes_it_panic() {
    let folder = tempfile::tempdir().expect("a good file");
    let path = folder.path().join("damaged.onnx");
    let small = fs::read(golden("small.onnx")).expect("a good file");
    let mut state = 7u32;
    let mut next = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    let other = onnxruntime();
    let mut opened = 0;
    for _ in 0..200 {
        let mut bytes = small.clone();
        for _ in 0..=next(3) {
            let at = next(bytes.len());
            bytes[at] = next(256) as u8;
        }
        fs::write(&path, &bytes).expect("a good file");
        let open = |runtime| Onnx::open(&path, Some("features"), None, whole(), runtime).is_ok();
        opened += usize::from(open(&Runtime::Tract));
        if let Some(runtime) = &other {
            open(runtime);
        }
    }
    assert!((20..200).contains(&opened), "{opened} of 200 could be opened");
}

/// The ONNX Runtime of `AMS_TEST_ONNXRUNTIME`, the path of its library.
fn onnxruntime() -> Option<Runtime> {
    let library = std::env::var_os("AMS_TEST_ONNXRUNTIME");
    if library.is_none() {
        eprintln!("skipped: AMS_TEST_ONNXRUNTIME names no libonnxruntime.so");
    }
    library.map(|library| Runtime::OnnxRuntime { library: library.into(), accelerator: None })
}

#[test]
fn both_runtimes_are_one_encoder() {
    let Some(runtime) = onnxruntime() else { return };
    let mean = Some(Pool::Mean);
    let cases = [
        ("small.onnx", "features", None),
        ("small.onnx", "stem.relu", mean),
        ("outside.onnx", "features", None),
        ("nhwc.onnx", "features", None),
        ("pairs.onnx", "features", None),
        ("half.onnx", "features", None),
        ("half-inside.onnx", "features", None),
        ("bfloat.onnx", "features", None),
        ("tokens.onnx", "last_hidden_state", Some(Pool::First)),
        ("unknown.onnx", "calm", Some(Pool::None)),
    ];
    let pictures = pictures(&PICTURES);
    for (file, output, pool) in cases {
        let open = |runtime: &Runtime| {
            Onnx::open(&golden(file), Some(output), pool, whole(), runtime).expect("a good file")
        };
        let (tract, other) = (open(&Runtime::Tract), open(&runtime));
        assert_eq!((tract.id(), tract.hash()), (other.id(), other.hash()), "{file}");
        assert_ne!(tract.runtime(), other.runtime());
        let (expected, got) = (rows(&tract, &pictures, 1), rows(&other, &pictures, 1));
        for (expected, got) in expected.iter().zip(&got) {
            let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            for (expected, got) in expected.iter().zip(got) {
                assert!((expected - got).abs() <= 1e-3 * largest, "{file}: {got}, not {expected}");
            }
        }
        assert_eq!(rows(&other, &pictures, 4), got, "{file}");
        std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(|| rows(&other, &pictures, 2)));
            for thread in threads {
                assert_eq!(thread.join().expect("no panic in the thread"), got, "{file}");
            }
        });
    }
}

#[test]
fn what_tract_cannot_compute_is_an_encoder_of_its_own() {
    let Some(runtime) = onnxruntime() else { return };
    // tract's optimizer has a fault there; the runtime computes what the file says.
    let strided = Onnx::open(&golden("strided.onnx"), None, None, whole(), &runtime);
    let strided = strided.expect("a good file");
    check("strided.onnx", &strided, &PICTURES, 5e-3);
    assert!(strided.id().ends_with(", by onnxruntime"), "{}", strided.id());
}

#[test]
fn a_library_that_is_none_is_refused() {
    let open = |library: &Path| {
        let runtime = Runtime::OnnxRuntime { library: library.to_owned(), accelerator: None };
        let opened = Onnx::open(&golden("small.onnx"), Some("features"), None, whole(), &runtime);
        opened.map(|_| ()).map_err(|error| error.to_string())
    };
    // A process loads one library, so this is said only by a process that has loaded none.
    if std::env::var_os("AMS_TEST_ONNXRUNTIME").is_none() {
        for library in [golden("small.onnx"), golden("no-such-file.so")] {
            let error = open(&library).expect_err("no library");
            assert!(error.contains("this ONNX Runtime cannot be used"), "{error}");
            assert!(error.contains("--runtime tract"), "{error}");
        }
    }
}
