//! Any network in an ONNX file, from the one input that a node of choice needs to that node.
//!
//! Computed by tract in f32, on the thread that asks, one picture at a time: a row cannot know what
//! was beside it. Where a file insists on a number of pictures, the one picture fills them all,
//! which costs that many times more.
//!
//! An optimizer rewrites the network, and optimizers have faults. So when a network is opened, its
//! output for one picture is compared with what the network gives as the file has it.
//!
//! Knows networks. Does not know pictures beyond [`Preprocess`].

mod graph;
mod pool;
mod single;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use ams_data::{Error, Result};
use ams_image::{Encoder, Failure, Reason, Rgb, Scratch};
use tract_onnx::prelude::*;

use crate::preprocess::{Layout, Preprocess, Values};
use graph::{Graph, Prepared};
pub use pool::Pool;
use pool::Pooling;

/// Raised whenever rows change though file and settings do not: part of the hash.
const VERSION: u32 = 1;

/// How far the optimized network's values may be from those of the file's network, as a share of
/// the largest of them. Sums in another order and other approximations of functions stay below a
/// tenth of that.
const TOLERANCE: f32 = 1e-3;

/// The encoder; see the module.
#[derive(Debug)]
pub struct Onnx {
    id: String,
    hash: String,
    preprocess: Preprocess,
    values: Values,
    /// Dimensions of the input, pictures first.
    shape: [usize; 4],
    pooling: Pooling,
    network: Arc<TypedRunnableModel>,
}

impl Onnx {
    /// Reads the network in `path` as far as `output`: the name of a tensor or of a node; the
    /// network's only output unless given. `pool` says how tokens or maps become one row; it
    /// must be given for those and for no others. Files that hold weights beside the network's
    /// are read as well, and are part of the hash.
    pub fn open(
        path: &Path,
        output: Option<&str>,
        pool: Option<Pool>,
        preprocess: Preprocess,
    ) -> Result<Onnx> {
        preprocess.check()?;
        let graph = Graph::read(path)?;
        let output = graph.output(output)?;
        let contents = graph.content_hash()?;
        let part = graph.part(output.clone())?;
        let input = part.input()?;
        let layout = input.layout()?;
        let pictures = input.pictures();
        let prepared = match part.prepare(input.shape(1, &preprocess, layout)?) {
            Err(_) if pictures > 1 => part.prepare(input.shape(pictures, &preprocess, layout)?),
            prepared => prepared,
        };
        let widened = if part.widened { "in single precision\n" } else { "" };
        drop(part);
        let Prepared { shape, output: sizes, network, plain } = prepared?;
        let pooling = Pooling::new(&sizes, shape[0], pool)
            .map_err(|what| Error::content(path, format!("output `{output}` {what}")))?;
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let words = format!(
            "{preprocess} {}",
            match layout {
                Layout::Nchw => "nchw",
                Layout::Nhwc => "nhwc",
            }
        );
        let defines = format!(
            "ams onnx encoder {VERSION}\n{contents}\n{output}{pooling}\n{words}\n{widened}"
        );
        let onnx = Onnx {
            id: format!("{file} {output}{pooling}: {words}"),
            hash: blake3::hash(defines.as_bytes()).to_hex().to_string(),
            values: preprocess.values(layout),
            preprocess,
            shape,
            pooling,
            network,
        };
        onnx.compare(&plain).map_err(|what| Error::content(path, what))?;
        Ok(onnx)
    }

    /// What `network` gives of a picture, all of it.
    fn run(&self, network: &Arc<TypedRunnableModel>, fitted: &Rgb) -> TractResult<Tensor> {
        let len = self.preprocess.input_len();
        let mut input = Tensor::zero::<f32>(&self.shape)?;
        let mut view = input.try_as_plain_ram_mut()?;
        let values = view.as_slice_mut::<f32>()?;
        let (first, others) = values.split_at_mut(len);
        self.values.write(fitted, first);
        others.chunks_exact_mut(len).for_each(|other| other.copy_from_slice(first));
        let output = network.run(tvec!(input.into_tvalue()))?;
        Ok(output[0].cast_to::<f32>()?.into_owned())
    }

    fn row(&self, fitted: &Rgb, row: &mut [f32]) -> TractResult<()> {
        let output = self.run(&self.network, fitted)?;
        self.pooling.take(output.try_as_plain_ram()?.as_slice::<f32>()?, row);
        Ok(())
    }

    /// Compares what the network gives of one picture with what `plain` gives, the same network
    /// before it was optimized.
    fn compare(&self, plain: &Arc<TypedRunnableModel>) -> std::result::Result<(), String> {
        let picture = probe(self.preprocess.size);
        let run = |network| {
            let values = || -> TractResult<Vec<f32>> {
                let output = self.run(network, &picture)?;
                Ok(output.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
            };
            match catch_unwind(AssertUnwindSafe(values)) {
                Ok(values) => values.map_err(|error| format!("{error:#}")),
                Err(_) => Err("it gave up (panic caught)".to_owned()),
            }
        };
        let failed = |error| format!("the network fails on a first picture: {error}");
        let optimized = run(&self.network).map_err(failed)?;
        let failed =
            |error| format!("the network cannot be compared with what the file has: {error}");
        let expected = run(plain).map_err(failed)?;
        agree(&optimized, &expected)
    }
}

/// A picture of every color, in no order: what a network is first tried with.
fn probe([width, height]: [u32; 2]) -> Rgb {
    let mut state = 1u32;
    let pixels = (0..width as usize * height as usize * 3).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    Rgb { width, height, pixels: pixels.collect() }
}

/// Refuses values that are not those expected, up to [`TOLERANCE`]. A value that is not finite is
/// equal to any other such one: what it means for a picture is said when that picture is encoded.
fn agree(values: &[f32], expected: &[f32]) -> std::result::Result<(), String> {
    if values.len() != expected.len() {
        let (came, expected) = (values.len(), expected.len());
        return Err(format!(
            "optimizing the network changes it: {came} values instead of {expected}"
        ));
    }
    let finite = expected.iter().filter(|value| value.is_finite());
    let largest = finite.fold(0.0_f32, |most, value| most.max(value.abs()));
    let off = |value: f32, expected: f32| match (value.is_finite(), expected.is_finite()) {
        (true, true) => (value - expected).abs(),
        (false, false) => 0.0,
        _ => f32::INFINITY,
    };
    let pairs = values.iter().zip(expected).enumerate();
    let worst = pairs.max_by(|(_, (a, b)), (_, (c, d))| off(**a, **b).total_cmp(&off(**c, **d)));
    match worst {
        Some((at, (value, expected))) if off(*value, *expected) > TOLERANCE * largest => {
            Err(format!(
                "optimizing the network changes what it computes: value {} of a first picture is {value}, and {expected} as \
                 the file has it; at most {TOLERANCE} of the largest value, {largest}, may be between them. This is a fault \
                 of the optimizer: export the network otherwise (another opset, onnx-simplifier), or use --features",
                at + 1
            ))
        }
        _ => Ok(()),
    }
}

impl Encoder for Onnx {
    fn id(&self) -> &str {
        &self.id
    }

    fn hash(&self) -> String {
        self.hash.clone()
    }

    fn dim(&self) -> usize {
        self.pooling.dim
    }

    fn fit(&self, picture: Rgb, scratch: &mut Scratch) -> Rgb {
        self.preprocess.fit(&picture, &mut scratch.resizer)
    }

    fn encode(
        &self,
        fitted: &[Rgb],
        _: &mut Scratch,
        out: &mut [f32],
    ) -> std::result::Result<(), Failure> {
        assert_eq!(out.len(), fitted.len() * self.dim(), "rows of the encoder's width");
        for (picture, row) in fitted.iter().zip(out.chunks_exact_mut(self.dim())) {
            // A network is a stranger's program; what it cannot do is this picture's failure.
            let failed = match catch_unwind(AssertUnwindSafe(|| self.row(picture, row))) {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => format!("the network failed: {error:#}"),
                Err(_) => "the network gave up on the picture (panic caught)".to_owned(),
            };
            return Err(Failure::new(Reason::Encoder, failed));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_optimizers_fault_is_found() {
        let check = |values: &[f32], expected: &[f32]| agree(values, expected).err();
        let whole = [1.0, -8.0, 0.0, f32::INFINITY];
        assert_eq!(check(&whole, &whole), None);
        assert_eq!(check(&[1.004, -8.0, -0.004, f32::NAN], &whole), None);
        let fault = check(&[1.0, 8.0, 0.0, f32::NAN], &whole).unwrap();
        assert!(
            fault.contains("value 2 of a first picture is 8, and -8 as the file has"),
            "{fault}"
        );
        assert!(check(&[1.0, -8.0, f32::NAN, f32::NAN], &whole).unwrap().contains("value 3"));
        assert!(check(&[1.0, -8.0, 0.02, 0.0], &whole).unwrap().contains("value 4"));
        assert!(check(&[1.0], &whole).unwrap().contains("1 values instead of 4"));
        assert_eq!(check(&[0.0], &[0.0]), None);
        assert!(check(&[1e-9], &[0.0]).is_some(), "what is always 0 has nothing to be rounded");
    }
}
