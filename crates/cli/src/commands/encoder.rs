//! The encoder that a command line describes.
//!
//! Knows flags and the list of encoders. Does not know what is encoded.

use std::path::{Path, PathBuf};

use ams_encoders::vgg16::{Output, Vgg16};
#[cfg(feature = "onnx")]
use ams_encoders::{Onnx, Pool};
use ams_image::builtin::{Builtin, DIM};
use ams_image::encoder::Encoder;

use crate::commands::preprocess::{PreprocessArguments, Preset};
use crate::commands::runtime::RuntimeArguments;
use crate::failure::Failure;

/// Which encoder, and its settings.
#[derive(Debug, clap::Args)]
pub(crate) struct EncoderArguments {
    /// The encoder of pictures: `builtin`, `precomputed`, `vgg16-fc6`, `vgg16-fc8`, or an ONNX
    /// file.
    ///
    /// `builtin` is a fixed description of color, gradients and texture that needs no weights.
    /// `precomputed` takes rows made elsewhere, with `--features` and `--keys`. `vgg16-fc6` is
    /// the paper's encoder and wants `--weights`.
    #[arg(long, value_name = "NAME|FILE.onnx", default_value = "builtin")]
    encoder: String,
    /// Numbers per picture of the builtin encoder [default: 4096].
    #[arg(long, value_name = "N")]
    dim: Option<usize>,
    /// Seed of the builtin encoder's filters [default: 1].
    #[arg(long, value_name = "N")]
    encoder_seed: Option<u64>,
    /// Weights of VGG16 as safetensors, named as torchvision or timm name them.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Take the values of `vgg16-fc6` as they are before negative ones become 0.
    #[arg(long)]
    no_relu: bool,
    /// The ONNX network's tensor or node that is the image feature; its only output unless given.
    #[arg(long, value_name = "NAME")]
    output_node: Option<String>,
    /// How an output of tokens or maps becomes one row; an ONNX network's output that is a row
    /// needs none.
    #[arg(long, value_enum)]
    pool: Option<PoolName>,
    #[command(flatten)]
    runtime: RuntimeArguments,
    #[command(flatten, next_help_heading = "How pictures are prepared for a network")]
    preprocess: PreprocessArguments,
}

/// Spelled as on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum PoolName {
    /// All numbers, end to end.
    None,
    /// The first token: the class token of ViT, DeiT, DINOv2.
    First,
    /// The mean over tokens, or over the places of maps (global average).
    Mean,
}

#[cfg(feature = "onnx")]
impl From<PoolName> for Pool {
    fn from(name: PoolName) -> Pool {
        match name {
            PoolName::None => Pool::None,
            PoolName::First => Pool::First,
            PoolName::Mean => Pool::Mean,
        }
    }
}

impl EncoderArguments {
    /// Whether rows come from elsewhere.
    pub(crate) fn is_precomputed(&self) -> bool {
        self.encoder == "precomputed"
    }

    /// The encoder; its files are read, from where `local` says that they are on this host.
    pub(crate) fn open(
        &self,
        local: impl Fn(&Path) -> Result<PathBuf, Failure>,
    ) -> Result<Box<dyn Encoder>, Failure> {
        let path = Path::new(&self.encoder);
        match self.encoder.as_str() {
            "builtin" => {
                self.refuse("builtin", &["dim", "encoder-seed"])?;
                let (dim, seed) = (self.dim.unwrap_or(DIM), self.encoder_seed.unwrap_or(1));
                Ok(Box::new(Builtin::new(dim, seed)?))
            }
            "vgg16-fc6" => {
                self.refuse("vgg16-fc6", &["weights", "no-relu", "preprocess"])?;
                self.vgg16(Output::Fc6 { rectified: !self.no_relu }, local)
            }
            "vgg16-fc8" => {
                self.refuse("vgg16-fc8", &["weights", "preprocess"])?;
                self.vgg16(Output::Fc8, local)
            }
            _ if path.extension().is_some_and(|extension| extension == "onnx")
                || path.is_file() =>
            {
                self.refuse(
                    "an ONNX encoder",
                    &[
                        "output-node",
                        "pool",
                        "preprocess",
                        "runtime",
                        "onnxruntime",
                        "execution-provider",
                    ],
                )?;
                self.onnx(path, local)
            }
            other => Err(Failure::user(format!(
                "--encoder '{other}': expected builtin, precomputed, vgg16-fc6, vgg16-fc8, or an ONNX file"
            ))),
        }
    }

    #[cfg(feature = "onnx")]
    fn onnx(
        &self,
        path: &Path,
        local: impl Fn(&Path) -> Result<PathBuf, Failure>,
    ) -> Result<Box<dyn Encoder>, Failure> {
        let preprocess = self.preprocess.preprocess(None)?;
        let (output, pool) = (self.output_node.as_deref(), self.pool.map(Pool::from));
        let runtime = self.runtime.find()?;
        Ok(Box::new(Onnx::open(&local(path)?, output, pool, preprocess, &runtime)?))
    }

    #[cfg(not(feature = "onnx"))]
    fn onnx(
        &self,
        path: &Path,
        _: impl Fn(&Path) -> Result<PathBuf, Failure>,
    ) -> Result<Box<dyn Encoder>, Failure> {
        let what = format!("--encoder {}", path.display());
        Err(ams_data::Error::built_without(what, "onnx").into())
    }

    fn vgg16(
        &self,
        output: Output,
        local: impl Fn(&Path) -> Result<PathBuf, Failure>,
    ) -> Result<Box<dyn Encoder>, Failure> {
        let Some(weights) = &self.weights else {
            let what = format!("--encoder {} needs --weights FILE.safetensors", self.encoder);
            return Err(Failure::user(what));
        };
        let preprocess = self.preprocess.preprocess(Some(Preset::Imagenet))?;
        Ok(Box::new(Vgg16::open(&local(weights)?, output, preprocess)?))
    }

    /// Refuses flags that this encoder does not take; `takes` lists the others.
    fn refuse(&self, encoder: &str, takes: &[&str]) -> Result<(), Failure> {
        let given = [
            ("dim", self.dim.is_some()),
            ("encoder-seed", self.encoder_seed.is_some()),
            ("weights", self.weights.is_some()),
            ("no-relu", self.no_relu),
            ("output-node", self.output_node.is_some()),
            ("pool", self.pool.is_some()),
            ("preprocess", self.preprocess.is_given()),
        ];
        match given
            .iter()
            .chain(&self.runtime.given())
            .find(|(name, given)| *given && !takes.contains(name))
        {
            None => Ok(()),
            Some((name, _)) => {
                let takes = takes.join(", --");
                Err(Failure::user(format!(
                    "--{name} does not belong to {encoder}, which takes --{takes}"
                )))
            }
        }
    }
}
