//! Encoders against what onnxruntime and PyTorch computed (`tests/golden/make.py`), and what they
//! refuse.

#[cfg(feature = "onnx")]
mod onnx;
mod vgg16;

use std::path::{Path, PathBuf};

use ams_image::{Encoder, Rgb, Scratch};
use serde_json::Value;

/// Width and height of the golden pictures.
#[cfg(feature = "onnx")]
const PICTURES: [[u32; 2]; 4] = [[40, 30], [16, 16], [1, 1], [9, 70]];

/// Likewise those of VGG16, which are cut out, but not resized.
const CUT: [[u32; 2]; 3] = [[64, 64], [70, 64], [64, 81]];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The pictures that `make.py` draws by the same formula.
fn pictures(sizes: &[[u32; 2]]) -> Vec<Rgb> {
    let draw = |[width, height]: [u32; 2]| {
        let pixel = |at: u32| {
            let (x, y) = (at % width, at / width);
            [x * 7 + y * 3, x * x + 5 * y, x * y + 90].map(|value| value as u8)
        };
        Rgb { width, height, pixels: (0..width * height).flat_map(pixel).collect() }
    };
    sizes.iter().copied().map(draw).collect()
}

/// The rows of all pictures, encoded `together` at a time.
fn rows(encoder: &dyn Encoder, pictures: &[Rgb], together: usize) -> Vec<Vec<f32>> {
    let mut scratch = Scratch::default();
    let mut rows = Vec::new();
    for pictures in pictures.chunks(together) {
        let fit = |picture: &Rgb| encoder.fit(picture.clone(), &mut scratch);
        let fitted = pictures.iter().map(fit).collect::<Vec<Rgb>>();
        let mut out = vec![f32::NAN; fitted.len() * encoder.dim()];
        encoder.encode(&fitted, &mut scratch, &mut out).expect("a good file");
        rows.extend(out.chunks_exact(encoder.dim()).map(<[f32]>::to_vec));
    }
    rows
}

/// Asserts that the rows of pictures of these sizes are those kept as `name`, to `tolerance` of the
/// largest value.
fn check(name: &str, encoder: &dyn Encoder, sizes: &[[u32; 2]], tolerance: f32) {
    let kept = std::fs::read_to_string(golden("golden.json")).expect("a good file");
    let kept = &serde_json::from_str::<Value>(&kept).expect("a good file")[name];
    let kept = serde_json::from_value::<Vec<Vec<f32>>>(kept.clone()).expect("a good file");
    let rows = rows(encoder, &pictures(sizes), 1);
    assert_eq!(rows.len(), kept.len());
    let largest = kept.iter().flatten().fold(0.0_f32, |most, value| most.max(value.abs()));
    for (size, (row, kept)) in sizes.iter().zip(rows.iter().zip(&kept)) {
        assert_eq!(row.len(), kept.len(), "{name}");
        for (at, (value, kept)) in row.iter().zip(kept).enumerate() {
            let off = (value - kept).abs() / largest;
            assert!(off <= tolerance, "{name}, {size:?}, {at}: {value}, expected {kept}");
        }
    }
}
