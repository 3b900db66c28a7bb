//! What computes an ONNX network: flags.

#[cfg(feature = "onnx")]
mod find;

use std::path::PathBuf;

#[cfg(feature = "onnx")]
use ams_encoders::Accelerator;

/// Which runtime computes an ONNX network.
#[derive(Debug, clap::Args)]
pub(crate) struct RuntimeArguments {
    /// What computes an ONNX network: an ONNX Runtime that is installed, or tract, which is part of
    /// this program.
    ///
    /// `auto` takes the first ONNX Runtime that it finds: that of --onnxruntime, of the environment
    /// variable ORT_DYLIB_PATH, of the current Python (`pip install onnxruntime`), of the system;
    /// and tract if there is none. Both give the same rows up to rounding.
    #[arg(long, value_enum, default_value = "auto")]
    runtime: RuntimeName,
    /// The library of the ONNX Runtime (libonnxruntime.so, 1.18 or newer), or a folder that has it.
    #[arg(long, value_name = "PATH")]
    onnxruntime: Option<PathBuf>,
    /// The ONNX Runtime's execution provider, if not the processor; one that is not there is an
    /// error.
    #[arg(long, value_enum)]
    execution_provider: Option<ProviderName>,
}

/// Spelled as on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum RuntimeName {
    Auto,
    Tract,
    Onnxruntime,
}

/// Spelled as on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ProviderName {
    Cuda,
    Tensorrt,
    Migraphx,
    Openvino,
    Coreml,
}

#[cfg(feature = "onnx")]
impl From<ProviderName> for Accelerator {
    fn from(name: ProviderName) -> Accelerator {
        match name {
            ProviderName::Cuda => Accelerator::Cuda,
            ProviderName::Tensorrt => Accelerator::TensorRt,
            ProviderName::Migraphx => Accelerator::MiGraphX,
            ProviderName::Openvino => Accelerator::OpenVino,
            ProviderName::Coreml => Accelerator::CoreMl,
        }
    }
}

impl RuntimeArguments {
    /// The flags that were given.
    pub(crate) fn given(&self) -> [(&'static str, bool); 3] {
        [
            ("runtime", self.runtime != RuntimeName::Auto),
            ("onnxruntime", self.onnxruntime.is_some()),
            ("execution-provider", self.execution_provider.is_some()),
        ]
    }
}
