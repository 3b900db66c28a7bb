//! Pretrained encoders: any ONNX network (cargo feature `onnx`), and the paper's VGG16 up to its
//! first fully connected layer.
//!
//! ```
//! use ams_encoders::Preprocess;
//! use ams_image::Rgb;
//! use ams_image::resize::Resizer;
//!
//! // Whatever a picture's size is, a network sees the size that it was trained on.
//! let picture = Rgb { width: 30, height: 20, pixels: vec![128; 30 * 20 * 3] };
//! let seen = Preprocess::imagenet().fit(&picture, &mut Resizer::new());
//! assert_eq!([seen.width, seen.height], [224, 224]);
//! assert!(seen.pixels.iter().all(|byte| *byte == 128));
//! ```
//!
//! Knows `ams-image`'s pictures and its trait `Encoder`, files of weights, and `ams-linalg`'s
//! products. Does not know feature stores, users, clicks or training. It is a crate of its own so
//! that readers of features do not have to build a network's runtime.
//!
//! Reading order: [`preprocess`], then `onnx` or [`vgg16`].

#![deny(missing_docs)]
#![warn(unreachable_pub)]

#[cfg(feature = "onnx")]
pub mod onnx;
pub mod preprocess;
pub mod vgg16;

#[cfg(feature = "onnx")]
pub use onnx::{Accelerator, Onnx, Pool, Runtime};
pub use preprocess::Preprocess;
pub use vgg16::Vgg16;

// Its own tests are in the same program as those beside the code.
#[cfg(test)]
extern crate self as ams_encoders;
#[cfg(test)]
#[path = "../tests/it/main.rs"]
mod it;
