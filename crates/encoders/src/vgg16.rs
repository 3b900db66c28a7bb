//! The paper's encoder: VGG16's thirteen convolutions and its first fully connected layer.
//!
//! ```text
//! 224 x 224 x 3 -> [64 64] -> [128 128] -> [256 256 256] -> [512 512 512] -> [512 512 512] -> 7 x 7 x 512
//!               -> fc6 4096  ( -> fc7 4096 -> fc8 1000 )
//! ```
//! A bracket is 3 x 3 convolutions, each rectified, and a pooling by two. Weights are read from a
//! safetensors file, named as torchvision or timm name them; widths and the input's size are what
//! the weights say. Products are `ams-linalg`'s: a row has the same bits whatever is beside it, and
//! on every processor that fuses multiply and add.
//!
//! Knows this network. Does not know how its weights were learned.

mod layers;

use std::path::Path;

use ams_data::{Error, Result};
use ams_image::tensors::Tensors;
use ams_image::{Encoder, Failure, Rgb, Scratch};
use half::{bf16, f16};
use safetensors::Dtype;

use crate::preprocess::{Layout, Preprocess, Values};
use layers::{Convolution, Full, Plane};

/// Raised whenever rows change though weights and settings do not: part of the hash.
const VERSION: u32 = 1;

/// Convolutions by bracket, as torchvision and timm number the layers.
const BRACKETS: [&[usize]; 5] = [&[0, 2], &[5, 7], &[10, 12, 14], &[17, 19, 21], &[24, 26, 28]];

/// Fully connected layers as torchvision names them, and as timm does.
const FULL: [[&str; 2]; 3] = [
    ["classifier.0", "pre_logits.fc1"],
    ["classifier.3", "pre_logits.fc2"],
    ["classifier.6", "head.fc"],
];

/// Pictures that share one pass over the fully connected layers' weights, which are 411 MB.
const BATCH: usize = 12;

/// Where the network ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The first fully connected layer.
    Fc6 {
        /// Whether negative values become 0, as they do within the network.
        rectified: bool,
    },
    /// The last one, a number per class of ImageNet.
    Fc8,
}

/// The encoder; see the module.
#[derive(Debug)]
pub struct Vgg16 {
    id: String,
    hash: String,
    preprocess: Preprocess,
    values: Values,
    brackets: Vec<Vec<Convolution>>,
    full: Vec<Full>,
    /// Whether the last layer is rectified.
    rectified: bool,
}

impl Vgg16 {
    /// Reads the weights in `path`.
    pub fn open(path: &Path, output: Output, preprocess: Preprocess) -> Result<Vgg16> {
        preprocess.check()?;
        let mut file = Weights::open(path)?;
        let mut brackets = Vec::new();
        let mut channels = 3;
        for bracket in BRACKETS {
            let mut convolutions = Vec::new();
            for layer in bracket {
                let name = format!("features.{layer}");
                let (weights, shape) = file.values(&format!("{name}.weight"))?;
                let [outputs, inputs, 3, 3] = shape[..] else {
                    return Err(file.shape(&name, &shape, &format!("[_, {channels}, 3, 3]")));
                };
                if inputs != channels || outputs == 0 {
                    return Err(file.shape(&name, &shape, &format!("[_, {channels}, 3, 3]")));
                }
                let bias = file.bias(&name, outputs)?;
                convolutions.push(Convolution::new(inputs, &weights, bias));
                channels = outputs;
            }
            brackets.push(convolutions);
        }
        let (words, layers, rectified) = match output {
            Output::Fc6 { rectified: true } => ("vgg16-fc6", 1, true),
            Output::Fc6 { rectified: false } => ("vgg16-fc6 not rectified", 1, false),
            Output::Fc8 => ("vgg16-fc8", 3, false),
        };
        let (mut full, mut width, mut side) = (Vec::<Full>::new(), 0, 0);
        for names in &FULL[..layers] {
            let name = file.either(names);
            let (weights, shape) = file.values(&format!("{name}.weight"))?;
            // A fully connected layer may be written as a convolution over the whole plane.
            let inputs = shape.iter().skip(1).product::<usize>();
            if full.is_empty() {
                side = (inputs / channels).isqrt();
                width = side * side * channels;
            }
            if shape.len() < 2 || shape[0] == 0 || inputs != width || width == 0 {
                let expected = match side {
                    0 => format!("[_, {channels} x 7 x 7]"),
                    _ => format!("[_, {width}]"),
                };
                return Err(file.shape(name, &shape, &expected));
            }
            let bias = file.bias(name, shape[0])?;
            full.push(Full::new(inputs, &weights, bias));
            width = shape[0];
        }
        let size = 32 * side as u32;
        if preprocess.size != [size, size] {
            let [width, height] = preprocess.size;
            let what = format!(
                "these weights see {size}x{size} pixels, preprocessing makes {width}x{height} of a picture"
            );
            return Err(Error::content(path, what));
        }
        let defines = format!(
            "ams vgg16 encoder {VERSION}\n{}\n{words}\n{preprocess}\n",
            file.hasher.finalize().to_hex()
        );
        Ok(Vgg16 {
            id: format!("{words}: {preprocess}"),
            hash: blake3::hash(defines.as_bytes()).to_hex().to_string(),
            values: preprocess.values(Layout::Nhwc),
            preprocess,
            brackets,
            full,
            rectified,
        })
    }

    /// What the convolutions make of one picture: colors first, then rows, as fully connected
    /// layers expect it.
    fn convolve(&self, fitted: &Rgb, from: &mut Plane, to: &mut Plane, out: &mut [f32]) {
        let side = fitted.width as usize;
        from.fill(side, 3, |inner| self.values.write(fitted, inner));
        for bracket in &self.brackets {
            for convolution in bracket {
                convolution.forward(from, to);
                std::mem::swap(from, to);
            }
            layers::pool(from, to);
            std::mem::swap(from, to);
        }
        from.colors_first(out);
    }
}

impl Encoder for Vgg16 {
    fn id(&self) -> &str {
        &self.id
    }

    fn hash(&self) -> String {
        self.hash.clone()
    }

    fn dim(&self) -> usize {
        self.full.last().map_or(0, Full::outputs)
    }

    fn batch(&self) -> usize {
        BATCH
    }

    fn fit(&self, picture: Rgb, scratch: &mut Scratch) -> Rgb {
        self.preprocess.fit(&picture, &mut scratch.resizer)
    }

    fn encode(
        &self,
        fitted: &[Rgb],
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> std::result::Result<(), Failure> {
        let [from, to, rows, next, ..] = &mut scratch.floats;
        let (mut first, mut second) = (Plane::of(from), Plane::of(to));
        let width = self.full[0].inputs();
        rows.resize(fitted.len() * width, 0.0);
        for (picture, row) in fitted.iter().zip(rows.chunks_exact_mut(width)) {
            self.convolve(picture, &mut first, &mut second, row);
        }
        (*from, *to) = (first.into_buffer(), second.into_buffer());
        let last = self.full.len() - 1;
        for (at, layer) in self.full.iter().enumerate() {
            next.resize(fitted.len() * layer.outputs(), 0.0);
            layer.forward(fitted.len(), rows, at < last || self.rectified, next);
            std::mem::swap(rows, next);
        }
        out.copy_from_slice(rows);
        Ok(())
    }
}

/// A file of weights, and blake3 over the values read from it: other names or files for the same
/// numbers are the same encoder.
struct Weights {
    tensors: Tensors,
    names: Vec<String>,
    hasher: blake3::Hasher,
}

impl Weights {
    fn open(path: &Path) -> Result<Weights> {
        let tensors = Tensors::open(path)?;
        let names = tensors.names();
        if names.iter().any(|name| name == "features.1.running_mean") {
            let what =
                "these are weights of VGG16 with batch normalization, expected those without";
            return Err(Error::content(path, what));
        }
        Ok(Weights { tensors, names, hasher: blake3::Hasher::new() })
    }

    /// The name the file uses; the first one if it uses none.
    fn either<'a>(&self, names: &[&'a str; 2]) -> &'a str {
        let there = |name: &&&str| self.names.contains(&format!("{name}.weight"));
        names.iter().find(there).unwrap_or(&names[0])
    }

    /// The values of a tensor and its dimensions.
    fn values(&mut self, name: &str) -> Result<(Vec<f32>, Vec<usize>)> {
        let slot = self.tensors.slot(name)?;
        let values = match slot.dtype {
            Dtype::F32 => self.tensors.slice::<f32>(&slot)?.to_vec(),
            Dtype::F16 => self.tensors.slice(&slot)?.iter().copied().map(f16::to_f32).collect(),
            Dtype::BF16 => self.tensors.slice(&slot)?.iter().copied().map(bf16::to_f32).collect(),
            other => {
                let what = format!("tensor `{name}` is {other:?}, expected F32, F16 or BF16");
                return Err(Error::content(self.tensors.path(), what));
            }
        };
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let what = format!("value {} of tensor `{name}` is {}", at + 1, values[at]);
            return Err(Error::content(self.tensors.path(), what));
        }
        self.hasher.update(bytemuck::cast_slice(&values));
        Ok((values, slot.shape))
    }

    fn bias(&mut self, layer: &str, outputs: usize) -> Result<Vec<f32>> {
        let name = format!("{layer}.bias");
        let (values, shape) = self.values(&name)?;
        if shape != [outputs] {
            let what = format!("tensor `{name}` is {shape:?}, expected [{outputs}]");
            return Err(Error::content(self.tensors.path(), what));
        }
        Ok(values)
    }

    fn shape(&self, layer: &str, came: &[usize], expected: &str) -> Error {
        let what = format!(
            "tensor `{layer}.weight` is {came:?}, expected {expected}: not VGG16's weights"
        );
        Error::content(self.tensors.path(), what)
    }
}
