//! VGG16 with few channels: the same numbers as PyTorch's, under both ways of naming weights.

use ams_encoders::preprocess::{Preprocess, Resize};
use ams_encoders::vgg16::{Output, Vgg16};
use ams_image::{Encoder, Rgb, Scratch};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::fs;
use std::path::Path;

use super::{CUT, check, golden, pictures, rows};

const FC6: Output = Output::Fc6 { rectified: true };

fn preprocess() -> Preprocess {
    Preprocess { size: [64, 64], resize: Resize::Shorter(64), ..Preprocess::imagenet() }
}

fn open(file: &str, output: Output) -> Vgg16 {
    Vgg16::open(&golden(file), output, preprocess()).expect("a good file")
}

#[test]
fn rows_are_those_of_pytorch() {
    for file in ["vgg16.safetensors", "vgg16-timm.safetensors"] {
        check("vgg16 fc6", &open(file, FC6), &CUT, 1e-5);
        check("vgg16 fc6-raw", &open(file, Output::Fc6 { rectified: false }), &CUT, 1e-5);
        check("vgg16 fc8", &open(file, Output::Fc8), &CUT, 1e-5);
    }
}

#[test]
fn rows_do_not_know_what_is_beside_them() {
    let (encoder, pictures) = (open("vgg16.safetensors", Output::Fc8), pictures(&CUT));
    let one_by_one = rows(&encoder, &pictures, 1);
    assert_eq!(rows(&encoder, &pictures, 4), one_by_one);
    let turned = pictures.iter().rev().cloned().collect::<Vec<_>>();
    let turned = rows(&encoder, &turned, 3);
    assert_eq!(turned.into_iter().rev().collect::<Vec<_>>(), one_by_one);
}

#[test]
fn an_encoder_is_known_by_its_numbers_and_settings() {
    let hash = |file, output| open(file, output).hash();
    let fc6 = open("vgg16.safetensors", FC6);
    assert_eq!(fc6.hash(), hash("vgg16-timm.safetensors", FC6));
    assert_ne!(fc6.hash(), hash("vgg16.safetensors", Output::Fc8));
    assert_ne!(fc6.hash(), hash("vgg16.safetensors", Output::Fc6 { rectified: false }));
    let words = "vgg16-fc6: shorter side 64, center 64x64 bilinear, 0..1 mean";
    assert!(fc6.id().starts_with(words), "{}", fc6.id());
}

/// Writes the golden weights with one tensor changed: its new name, dimensions and first value.
fn changed(path: &Path, tensor: &str, change: impl Fn(&mut String, &mut Vec<usize>, &mut [f32])) {
    let bytes = fs::read(golden("vgg16.safetensors")).expect("a good file");
    let file = SafeTensors::deserialize(&bytes).expect("a good file");
    let mut tensors = Vec::new();
    for (name, view) in file.tensors() {
        let floats = view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let mut floats = floats.collect::<Vec<f32>>();
        let (mut name, mut shape) = (name, view.shape().to_vec());
        if name == tensor {
            change(&mut name, &mut shape, &mut floats);
        }
        tensors.push((name, shape, floats));
    }
    let views = tensors.iter().map(|(name, shape, floats)| {
        let bytes = bytemuck::cast_slice(&floats[..shape.iter().product()]);
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a good file"))
    });
    fs::write(path, safetensors::serialize(views, None).expect("a good file"))
        .expect("a good file");
}

#[test]
fn files_that_are_not_its_weights_are_refused() {
    let folder = tempfile::tempdir().expect("a good file");
    let path = folder.path().join("weights.safetensors");
    let refused = || Vgg16::open(&path, FC6, preprocess()).expect_err("a bad file").to_string();
    let check = |words: &str| {
        let error = refused();
        assert!(error.contains(words), "{error}\nlacks: {words}");
    };
    check("No such file");
    fs::write(&path, b"PK not safetensors").expect("a good file");
    check("not a whole safetensors file");
    changed(&path, "features.5.weight", |name, _, _| *name = "features.6.weight".into());
    check("tensor `features.5.weight` is not there; the file has ");
    changed(&path, "features.5.weight", |_, shape, _| shape[1] = 1);
    check("`features.5.weight` is [3, 1, 3, 3], expected [_, 2, 3, 3]");
    changed(&path, "classifier.0.weight", |_, shape, _| shape[1] = 23);
    check("`classifier.0.weight` is [7, 23], expected [_, 6]");
    changed(&path, "classifier.0.bias", |_, shape, _| shape[0] = 6);
    check("`classifier.0.bias` is [6], expected [7]");
    changed(&path, "features.28.bias", |_, _, values| values[2] = f32::NAN);
    check("value 3 of tensor `features.28.bias` is NaN");
    changed(&path, "features.0.bias", |name, _, _| *name = "features.1.running_mean".into());
    check("with batch normalization");

    let wide = Preprocess { size: [224, 224], resize: Resize::Shorter(256), ..preprocess() };
    let error =
        Vgg16::open(&golden("vgg16.safetensors"), FC6, wide).expect_err("a bad file").to_string();
    assert!(error.contains("see 64x64 pixels, preprocessing makes 224x224"), "{error}");
}

/// All sizes as they are: `tests/torchvision_vgg16.py` writes weights and reference where the
/// variable says.
#[test]
fn rows_are_those_of_torchvision() {
    let Some(folder) = std::env::var_os("AMS_VGG16_REFERENCE") else {
        println!("skipped: AMS_VGG16_REFERENCE does not say where torchvision's are");
        return;
    };
    let folder = Path::new(&folder);
    let bytes = fs::read(folder.join("reference.safetensors")).expect("a good file");
    let reference = SafeTensors::deserialize(&bytes).expect("a good file");
    let seen = reference.tensor("pictures").expect("a good file");
    let picture = |pixels: &[u8]| Rgb { width: 224, height: 224, pixels: pixels.to_vec() };
    let fitted = seen.data().chunks_exact(224 * 224 * 3).map(picture).collect::<Vec<Rgb>>();
    let outputs = [
        ("fc6", Output::Fc6 { rectified: true }),
        ("fc6-raw", Output::Fc6 { rectified: false }),
        ("fc8", Output::Fc8),
    ];
    for (name, output) in outputs {
        let weights = folder.join("vgg16.safetensors");
        let encoder = Vgg16::open(&weights, output, Preprocess::imagenet()).expect("a good file");
        let mut rows = vec![0.0; fitted.len() * encoder.dim()];
        let begin = std::time::Instant::now();
        encoder.encode(&fitted, &mut Scratch::default(), &mut rows).expect("a good file");
        let seconds = begin.elapsed().as_secs_f64();
        let bytes = reference.tensor(name).expect("a good file").data().as_chunks::<4>().0;
        let expected = bytes.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect::<Vec<f32>>();
        assert_eq!(rows.len(), expected.len());
        let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let off = rows.iter().zip(&expected).map(|(row, expected)| (row - expected).abs());
        let off = off.fold(0.0_f32, f32::max) / largest;
        println!(
            "{name}: off by {off:e} of the largest value, {seconds:.2} s for {} pictures",
            fitted.len()
        );
        assert!(off <= 1e-4, "{name}: off by {off:e} of the largest value");
    }
}
