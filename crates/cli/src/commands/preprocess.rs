//! How pictures are prepared for a network, as flags.
//!
//! Knows presets and flags. Does not know which network it is for.

use ams_encoders::preprocess::{Channels, Preprocess, Range, Resize};
use ams_image::resize::Filter;

use crate::failure::Failure;

/// A preset, and settings that differ from it.
#[derive(Debug, clap::Args)]
pub(crate) struct PreprocessArguments {
    /// As the network was trained; each of the following options changes one part of a preset,
    /// `custom` asks for all but the last two [default for VGG16: imagenet].
    #[arg(long, value_enum)]
    preprocess: Option<Preset>,
    /// Width and height the network sees: one number, or WxH.
    #[arg(long, value_name = "N|WxH", value_parser = size)]
    size: Option<[u32; 2]>,
    /// The part that the network sees: the `whole` picture, or the center of the picture after its
    /// shorter side became N pixels.
    #[arg(long, value_name = "whole|N", value_parser = resize)]
    resize: Option<Resize>,
    /// How pixels are weighed, antialiased in either case.
    #[arg(long, value_enum)]
    filter: Option<FilterName>,
    /// Subtracted from a pixel: one number, or one for each channel.
    #[arg(long, value_name = "X[,Y,Z]", value_parser = by_channel, allow_hyphen_values = true)]
    mean: Option<[f32; 3]>,
    /// Divides the difference, per channel.
    #[arg(long, value_name = "X[,Y,Z]", value_parser = by_channel, allow_hyphen_values = true)]
    std: Option<[f32; 3]>,
    /// The range of pixels that `--mean` and `--std` are for.
    #[arg(long, value_enum)]
    pixels: Option<RangeName>,
    /// Order of the colors.
    #[arg(long, value_enum)]
    channels: Option<ChannelsName>,
}

/// Ways of preparing pictures that have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Preset {
    /// torchvision's: shorter side 256, bilinear, center 224, mean and deviation of ImageNet.
    Imagenet,
    /// CLIP's: shorter side 224, bicubic, center 224, its own mean and deviation.
    Clip,
    /// The whole picture at 224, bilinear, pixels from 0 to 1.
    #[value(name = "0..1")]
    ZeroToOne,
    /// As the other options say.
    Custom,
}

/// Spelled as on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FilterName {
    Bilinear,
    Bicubic,
}

/// Spelled as on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum RangeName {
    #[value(name = "0..1")]
    One,
    #[value(name = "0..255")]
    Bytes,
}

/// Spelled as on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ChannelsName {
    Rgb,
    Bgr,
}

impl PreprocessArguments {
    /// Whether any of them was given.
    pub(crate) fn is_given(&self) -> bool {
        self.preprocess.is_some() || !self.given().is_empty()
    }

    /// The flags that were given beside the preset.
    fn given(&self) -> Vec<&'static str> {
        let all = [
            ("--size", self.size.is_some()),
            ("--resize", self.resize.is_some()),
            ("--filter", self.filter.is_some()),
            ("--mean", self.mean.is_some()),
            ("--std", self.std.is_some()),
            ("--pixels", self.pixels.is_some()),
            ("--channels", self.channels.is_some()),
        ];
        all.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }

    /// What they mean; `default` is the preset where none was given.
    pub(crate) fn preprocess(&self, default: Option<Preset>) -> Result<Preprocess, Failure> {
        let Some(preset) = self.preprocess.or(default) else {
            let what = "the network's file does not say what pictures it was trained on: add --preprocess imagenet, \
                        clip, 0..1, or custom";
            return Err(Failure::user(what));
        };
        let mut preprocess = match preset {
            Preset::Imagenet => Preprocess::imagenet(),
            Preset::Clip => Preprocess::clip(),
            Preset::ZeroToOne => Preprocess::zero_to_one(),
            Preset::Custom => {
                let given = self.given();
                let asked = ["--size", "--resize", "--filter", "--mean", "--std"];
                let missing = asked.into_iter().filter(|name| !given.contains(name));
                let missing = missing.collect::<Vec<&str>>().join(", ");
                if !missing.is_empty() {
                    let what = format!("--preprocess custom also needs {missing}");
                    return Err(Failure::user(what));
                }
                Preprocess::zero_to_one()
            }
        };
        let set = &mut preprocess;
        set.size = self.size.unwrap_or(set.size);
        set.resize = self.resize.unwrap_or(set.resize);
        set.mean = self.mean.unwrap_or(set.mean);
        set.std = self.std.unwrap_or(set.std);
        match self.filter {
            Some(FilterName::Bilinear) => set.filter = Filter::Bilinear,
            Some(FilterName::Bicubic) => set.filter = Filter::Bicubic,
            None => {}
        }
        match self.pixels {
            Some(RangeName::One) => set.range = Range::One,
            Some(RangeName::Bytes) => set.range = Range::Bytes,
            None => {}
        }
        match self.channels {
            Some(ChannelsName::Rgb) => set.channels = Channels::Rgb,
            Some(ChannelsName::Bgr) => set.channels = Channels::Bgr,
            None => {}
        }
        preprocess.check()?;
        Ok(preprocess)
    }
}

fn size(text: &str) -> Result<[u32; 2], String> {
    let (width, height) = text.split_once('x').unwrap_or((text, text));
    match (width.parse(), height.parse()) {
        (Ok(width), Ok(height)) => Ok([width, height]),
        _ => Err("expected a number of pixels, or two as in 224x224".to_owned()),
    }
}

fn resize(text: &str) -> Result<Resize, String> {
    match text {
        "whole" => Ok(Resize::Whole),
        _ => text
            .parse()
            .map(Resize::Shorter)
            .map_err(|_| "expected `whole` or a number of pixels".to_owned()),
    }
}

fn by_channel(text: &str) -> Result<[f32; 3], String> {
    let numbers = text.split(',').map(str::parse::<f32>).collect::<Result<Vec<f32>, _>>();
    match numbers.as_deref() {
        Ok([all]) => Ok([*all; 3]),
        Ok([first, second, third]) => Ok([*first, *second, *third]),
        _ => Err("expected one number, or three as in 0.5,0.5,0.5".to_owned()),
    }
}
