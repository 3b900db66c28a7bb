//! Networks computed by tract, which is part of the program.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tract_onnx::prelude::*;

use super::network::Network;

/// A network of tract for inputs of one shape.
#[derive(Debug)]
pub(super) struct Tract {
    /// Dimensions of the input, pictures first.
    pub(super) shape: [usize; 4],
    pub(super) network: Arc<TypedRunnableModel>,
}

impl Network for Tract {
    fn run(&self, input: &[f32], take: &mut dyn FnMut(&[f32])) -> Result<(), String> {
        let run = || -> TractResult<Tensor> {
            let input = Tensor::from_shape(&self.shape, input)?;
            let output = self.network.run(tvec!(input.into_tvalue()))?;
            Ok(output[0].cast_to::<f32>()?.into_owned())
        };
        let output = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(output) => output.map_err(|error| format!("{error:#}"))?,
            Err(_) => return Err("it gave up (panic caught)".to_owned()),
        };
        let values = output.try_as_plain_ram().map_err(|error| format!("{error:#}"))?;
        take(values.as_slice::<f32>().map_err(|error| format!("{error:#}"))?);
        Ok(())
    }
}
