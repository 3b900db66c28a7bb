//! What an encoder is.
//!
//! Knows the shape of the work: one picture in, one row out. Does not know any encoder.

use fast_image_resize::Resizer;

use crate::decode::Rgb;

/// A fixed function from a picture to an image feature. It is shared by all threads; whatever it has to
/// write to is the caller's [`Scratch`].
pub trait Encoder: Send + Sync {
    /// A short name for people, such as `builtin-4096`.
    fn id(&self) -> &str;

    /// blake3, in hex, of all that defines the encoder: two encoders with one hash give the same rows.
    fn hash(&self) -> String;

    /// Numbers per row (F).
    fn dim(&self) -> usize;

    /// Encodes one picture into `out`, (F). The row depends on the picture alone: not on the thread, not
    /// on what was encoded before. Values that are not finite are refused by the caller, by name.
    fn encode(&self, picture: &Rgb, scratch: &mut Scratch, out: &mut [f32]);
}

/// Memory of one thread, reused from picture to picture.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The resizer with its tables.
    pub resizer: Resizer,
    /// Resized pixels.
    pub pixels: Vec<u8>,
    /// Buffers an encoder uses as it likes.
    pub floats: [Vec<f32>; 6],
}
