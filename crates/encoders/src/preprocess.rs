//! From a picture to the numbers a network was trained on: size, part, filter, scale, order.
//!
//! All of it is data, and part of an encoder's identity. The same steps in Pillow and torchvision
//! give the same pixels, up to rounding; which of a picture's formats became RGB how is
//! `ams_image::decode`'s affair.

use std::fmt;

use ams_data::{Error, Result};
use ams_image::Rgb;
use ams_image::resize::{Filter, Part, Resizer, resize};

/// Largest side of what a network sees.
const MAX_SIDE: u32 = 4096;

/// What part of a picture a network sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// All of it, whatever its aspect.
    Whole,
    /// Its shorter side becomes that long, and the center is cut out.
    Shorter(u32),
}

/// Order of the colors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// Red first, as nearly everywhere.
    Rgb,
    /// Blue first, as in networks of Caffe and OpenCV.
    Bgr,
}

/// Order of the dimensions of an input. It is the network's affair, not a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// (n, 3, height, width), as PyTorch has it.
    Nchw,
    /// (n, height, width, 3), as TensorFlow has it.
    Nhwc,
}

/// The range pixels have before `mean` is subtracted and `std` divides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// Pixel values go from 0 to 1.
    One,
    /// Pixel values go from 0 to 255.
    Bytes,
}

/// All that is done to a picture before a network sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    /// Width and height of the input.
    pub size: [u32; 2],
    /// What of the picture is in it.
    pub resize: Resize,
    /// How pixels are weighed; always as wide as the reduction.
    pub filter: Filter,
    /// The range of pixels.
    pub range: Range,
    /// Subtracted from it, by channel in the order of `channels`.
    pub mean: [f32; 3],
    /// Divisors of R, G and B, after `mean` is subtracted.
    pub std: [f32; 3],
    /// Order of the colors.
    pub channels: Channels,
}

impl Preprocess {
    /// As torchvision's ImageNet models are evaluated: shorter side 256, bilinear, center 224 x
    /// 224, the data set's mean and standard deviation.
    pub fn imagenet() -> Preprocess {
        Preprocess {
            size: [224, 224],
            resize: Resize::Shorter(256),
            filter: Filter::Bilinear,
            range: Range::One,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            channels: Channels::Rgb,
        }
    }

    /// As CLIP's image towers: shorter side 224, bicubic, center 224 x 224, its own mean and
    /// standard deviation.
    pub fn clip() -> Preprocess {
        Preprocess {
            resize: Resize::Shorter(224),
            filter: Filter::Bicubic,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
            ..Preprocess::imagenet()
        }
    }

    /// The whole picture at 224 x 224, bilinear, pixels from 0 to 1.
    pub fn zero_to_one() -> Preprocess {
        Preprocess {
            resize: Resize::Whole,
            mean: [0.0; 3],
            std: [1.0; 3],
            ..Preprocess::imagenet()
        }
    }

    /// Refuses what makes no sense, by the names of the command line.
    pub fn check(&self) -> Result<()> {
        let [width, height] = self.size;
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            let what = format!("size {width}x{height}: expected sides of 1 to {MAX_SIDE} pixels");
            return Err(Error::option(what));
        }
        if let Resize::Shorter(shorter) = self.resize
            && (shorter < width.max(height) || shorter > 4 * MAX_SIDE)
        {
            let what = format!(
                "resize {shorter}: the center of {width}x{height} cannot be cut out of a picture whose shorter side is \
                 {shorter} pixels"
            );
            return Err(Error::option(what));
        }
        let fine = |std: &f32| std.is_finite() && *std > 0.0;
        if !self.std.iter().all(fine) || !self.mean.iter().all(|mean| mean.is_finite()) {
            let what = format!(
                "mean {}, std {}: expected finite numbers, and std above 0",
                numbers(&self.mean),
                numbers(&self.std)
            );
            return Err(Error::option(what));
        }
        Ok(())
    }

    /// Numbers in an input.
    pub fn input_len(&self) -> usize {
        self.size[0] as usize * self.size[1] as usize * 3
    }

    /// The pixels of `picture` that the network sees.
    ///
    /// Only what is kept is computed: the picture is never as large as its shorter side would make
    /// a thin strip.
    pub fn fit(&self, picture: &Rgb, resizer: &mut Resizer) -> Rgb {
        let [width, height] = self.size;
        let mut pixels = Vec::new();
        resize(resizer, picture, self.part(picture), self.size, self.filter, &mut pixels);
        Rgb { width, height, pixels }
    }

    /// What part of `picture` is seen.
    fn part(&self, picture: &Rgb) -> Part {
        let Resize::Shorter(shorter) = self.resize else {
            return Part::whole(picture);
        };
        let sides = [picture.width, picture.height];
        let shortest = u64::from(picture.width.min(picture.height));
        // As torchvision: the longer side is rounded down, so the two scales differ a little.
        let resized = sides.map(|side| u64::from(shorter) * u64::from(side) / shortest);
        let along = |axis: usize| {
            let (kept, resized) = (u64::from(self.size[axis]), resized[axis]);
            let scale = f64::from(sides[axis]) / resized as f64;
            let start = ((resized - kept) as f64 / 2.0).round_ties_even();
            let length = kept as f64 * scale;
            // Rounding must not lead out of the picture.
            let start = (start * scale).min(f64::from(sides[axis]) - length).max(0.0);
            (start, length.min(f64::from(sides[axis])))
        };
        let ((left, width), (top, height)) = (along(0), along(1));
        Part { left, top, width, height }
    }

    /// A table of what each byte of each channel becomes, for inputs in the order of `layout`.
    pub fn values(&self, layout: Layout) -> Values {
        let full = match self.range {
            Range::One => 255.0,
            Range::Bytes => 1.0,
        };
        let value = |channel: usize, byte: usize| {
            let (mean, std) = (f64::from(self.mean[channel]), f64::from(self.std[channel]));
            ((byte as f64 / full - mean) / std) as f32
        };
        let tables = [0, 1, 2].map(|channel| (0..256).map(|byte| value(channel, byte)).collect());
        Values { tables, channels: self.channels, layout }
    }
}

/// The value of each byte in each channel, 3 tables of 256; made by [`Preprocess::values`].
#[derive(Clone, Debug)]
pub struct Values {
    tables: [Vec<f32>; 3],
    channels: Channels,
    layout: Layout,
}

impl Values {
    /// The input of the network: `fitted` pixels as numbers, in its order.
    pub fn write(&self, fitted: &Rgb, input: &mut [f32]) {
        let pixels = fitted.pixels.as_chunks::<3>().0;
        assert_eq!(input.len(), pixels.len() * 3, "a number for every byte");
        for (channel, table) in self.tables.iter().enumerate() {
            let color = match self.channels {
                Channels::Rgb => channel,
                Channels::Bgr => 2 - channel,
            };
            let values = pixels.iter().map(|pixel| table[usize::from(pixel[color])]);
            match self.layout {
                Layout::Nchw => {
                    let plane = &mut input[channel * pixels.len()..][..pixels.len()];
                    plane.iter_mut().zip(values).for_each(|(to, value)| *to = value);
                }
                Layout::Nhwc => {
                    let every = input[channel..].iter_mut().step_by(3);
                    every.zip(values).for_each(|(to, value)| *to = value);
                }
            }
        }
    }
}

/// One number where all are equal, else all.
fn numbers(values: &[f32; 3]) -> String {
    match values {
        [a, b, c] if a == b && b == c => a.to_string(),
        [a, b, c] => format!("{a},{b},{c}"),
    }
}

/// In words that say all of it: they are part of an encoder's name and hash.
impl fmt::Display for Preprocess {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [width, height] = self.size;
        match self.resize {
            Resize::Whole => write!(to, "whole to {width}x{height}")?,
            Resize::Shorter(side) => write!(to, "shorter side {side}, center {width}x{height}")?,
        }
        let filter = match self.filter {
            Filter::Bilinear => "bilinear",
            Filter::Bicubic => "bicubic",
        };
        let range = match self.range {
            Range::One => "0..1",
            Range::Bytes => "0..255",
        };
        let channels = match self.channels {
            Channels::Rgb => "rgb",
            Channels::Bgr => "bgr",
        };
        let (mean, std) = (numbers(&self.mean), numbers(&self.std));
        write!(to, " {filter}, {range} mean {mean} std {std}, {channels}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32) -> Rgb {
        let pixels = (0..width * height).flat_map(|at| [(at % width) as u8, (at / width) as u8, 9]);
        Rgb { width, height, pixels: pixels.collect() }
    }

    fn part(width: u32, height: u32, resize: Resize) -> [f64; 4] {
        let preprocess = Preprocess { resize, ..Preprocess::imagenet() };
        let Part { left, top, width, height } = preprocess.part(&picture(width, height));
        [left, top, width, height]
    }

    #[test]
    fn the_center_is_where_torchvision_cuts_it() {
        assert_eq!(part(300, 100, Resize::Whole), [0.0, 0.0, 300.0, 100.0]);
        assert_eq!(part(256, 256, Resize::Shorter(256)), [16.0, 16.0, 224.0, 224.0]);
        // 512 x 256: 144 pixels are cut off on either side.
        assert_eq!(part(512, 256, Resize::Shorter(256)), [144.0, 16.0, 224.0, 224.0]);
        // 257 wide: 16.5 rounds to the even 16.
        assert_eq!(part(257, 256, Resize::Shorter(256)), [16.0, 16.0, 224.0, 224.0]);
        assert_eq!(part(224, 224, Resize::Shorter(224)), [0.0, 0.0, 224.0, 224.0]);
    }

    #[test]
    fn thin_strips_and_single_pixels_fit() {
        for (width, height) in [(1, 1), (1, 60_000), (60_000, 1), (3, 2)] {
            for preprocess in
                [Preprocess::imagenet(), Preprocess::clip(), Preprocess::zero_to_one()]
            {
                let fitted = preprocess.fit(&picture(width, height), &mut Resizer::new());
                assert_eq!((fitted.width, fitted.height), (224, 224));
                assert_eq!(fitted.pixels.len(), preprocess.input_len());
                assert!(fitted.pixels.chunks_exact(3).all(|pixel| pixel[2] == 9));
            }
        }
    }

    #[test]
    fn values_are_scaled_and_in_order() {
        let two = Rgb { width: 2, height: 1, pixels: vec![0, 255, 51, 255, 0, 102] };
        let input = |channels, layout, range| {
            let (mean, std) = ([0.0, 0.0, 0.2], [1.0, 1.0, 0.5]);
            let preprocess = Preprocess { mean, std, channels, range, ..Preprocess::clip() };
            let mut input = vec![0.0; 6];
            preprocess.values(layout).write(&two, &mut input);
            input.iter().map(|value| (value * 1000.0).round()).collect::<Vec<f32>>()
        };
        let rgb = input(Channels::Rgb, Layout::Nchw, Range::One);
        assert_eq!(rgb, [0.0, 1000.0, 1000.0, 0.0, 0.0, 400.0]);
        let nhwc = input(Channels::Rgb, Layout::Nhwc, Range::One);
        assert_eq!(nhwc, [0.0, 1000.0, 0.0, 1000.0, 0.0, 400.0]);
        let bgr = input(Channels::Bgr, Layout::Nchw, Range::One);
        assert_eq!(bgr, [200.0, 400.0, 1000.0, 0.0, -400.0, 1600.0]);
        let bytes = input(Channels::Rgb, Layout::Nchw, Range::Bytes);
        assert_eq!(bytes, [0.0, 255_000.0, 255_000.0, 0.0, 101_600.0, 203_600.0]);
    }

    #[test]
    fn words_say_all_of_it() {
        assert_eq!(
            Preprocess::imagenet().to_string(),
            "shorter side 256, center 224x224 bilinear, 0..1 mean 0.485,0.456,0.406 std 0.229,0.224,0.225, rgb"
        );
        assert_eq!(
            Preprocess::zero_to_one().to_string(),
            "whole to 224x224 bilinear, 0..1 mean 0 std 1, rgb"
        );
    }

    #[test]
    fn senseless_settings_are_refused() {
        let text = |preprocess: Preprocess| preprocess.check().unwrap_err().to_string();
        let good = Preprocess::imagenet();
        good.check().unwrap();
        let small = Preprocess { resize: Resize::Shorter(200), ..good.clone() };
        assert!(text(small).contains("224x224 cannot be cut out"));
        let empty = Preprocess { size: [0, 224], ..good.clone() };
        assert!(text(empty).contains("size 0x224"));
        let flat = Preprocess { std: [1.0, 0.0, 1.0], ..good.clone() };
        assert!(text(flat).contains("std 1,0,1"));
        let nan = Preprocess { mean: [f32::NAN; 3], ..good };
        assert!(text(nan).contains("mean NaN"));
    }
}
