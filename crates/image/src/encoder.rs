//! What an encoder is.
//!
//! Knows the shape of the work: pictures in, rows out. Does not know any encoder.

use ams_data::ImageKey;
use fast_image_resize::Resizer;

use crate::decode::{Limits, Rgb, decode};
use crate::failure::{Failure, Reason};
use crate::picture_file::content_key;

/// A fixed function from a picture to an image feature. It is shared by all threads; whatever it
/// has to write to is the caller's [`Scratch`].
pub trait Encoder: Send + Sync {
    /// The encoder in words, such as `builtin-4096`.
    fn id(&self) -> &str;

    /// blake3, in hex, of all that defines the encoder: two encoders with one hash give the same
    /// rows.
    fn hash(&self) -> String;

    /// Numbers per row (F).
    fn dim(&self) -> usize;

    /// Pictures that are worth taking at once.
    fn batch(&self) -> usize {
        1
    }

    /// What computes the rows, in words, where that is a choice and no part of the identity.
    fn runtime(&self) -> Option<&str> {
        None
    }

    /// What [`Encoder::encode`] takes of `picture`: its pixels, resized and cropped. Whatever came,
    /// this is small: it waits until a batch is full.
    fn fit(&self, picture: Rgb, scratch: &mut Scratch) -> Rgb;

    /// Encodes fitted pictures (n, at most a batch) into `out`, (n, F). A row depends on its
    /// picture alone: not on the thread, not on the pictures beside it or before it. Values
    /// that are not finite are refused by the caller, by name.
    fn encode(&self, fitted: &[Rgb], scratch: &mut Scratch, out: &mut [f32])
    -> Result<(), Failure>;
}

/// Memory of one thread, reused from picture to picture.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The resizer with its tables.
    pub resizer: Resizer,
    /// Resized pixels, RGB, three bytes each.
    pub pixels: Vec<u8>,
    /// Buffers an encoder uses as it likes.
    pub floats: [Vec<f32>; 6],
}

/// One picture that comes alone: its key, and its row (F).
///
/// # Errors
/// What is wrong with the picture.
pub fn encode_one(
    encoder: &dyn Encoder,
    bytes: &[u8],
    limits: &Limits,
) -> Result<(ImageKey, Vec<f32>), Failure> {
    let mut scratch = Scratch::default();
    let fitted = encoder.fit(decode(bytes, limits)?, &mut scratch);
    let mut row = vec![0.0; encoder.dim()];
    encoder.encode(&[fitted], &mut scratch, &mut row)?;
    match row.iter().position(|value| !value.is_finite()) {
        Some(at) => {
            let what = format!("the encoder's value {} is {}", at + 1, row[at]);
            Err(Failure::new(Reason::NotFinite, what))
        }
        None => Ok((content_key(bytes), row)),
    }
}
