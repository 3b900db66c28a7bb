//! Pretrained encoders: any ONNX network (cargo feature `onnx`), and the paper's VGG16 up to its
//! first fully connected layer.
//!
//! Knows `ams-image`'s pictures and its trait `Encoder`, files of weights, and `ams-linalg`'s
//! products. Does not know feature stores, users, clicks or training. It is a crate of its own so
//! that whoever reads features does not have to build a network's runtime.
//!
//! Reading order: [`preprocess`], then `onnx` or [`vgg16`].

#[cfg(feature = "onnx")]
pub mod onnx;
pub mod preprocess;
pub mod vgg16;

#[cfg(feature = "onnx")]
pub use onnx::{Onnx, Pool};
pub use preprocess::Preprocess;
pub use vgg16::Vgg16;

// Its own tests are in the same program as those beside the code.
#[cfg(test)]
extern crate self as ams_encoders;
#[cfg(test)]
#[path = "../tests/it/main.rs"]
mod it;
