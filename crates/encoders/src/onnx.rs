//! Any network in an ONNX file, from its one input to a node of choice.
//!
//! Computed by tract, on the thread that asks, one picture at a time: a row cannot know what was beside it. Where a
//! file insists on a number of pictures, the one picture fills them all, which costs that many times more.
//!
//! Knows networks. Does not know pictures beyond [`Preprocess`].

mod graph;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use ams_data::{Error, Result};
use ams_image::{Encoder, Failure, Reason, Rgb, Scratch};
use tract_onnx::prelude::*;

use crate::preprocess::{Layout, Preprocess, Values};
use graph::Graph;

/// Raised whenever rows change though file and settings do not: part of the hash.
const VERSION: u32 = 1;

/// Widest row.
const MAX_DIM: usize = 65_536;

/// The encoder; see the module.
#[derive(Debug)]
pub struct Onnx {
    id: String,
    hash: String,
    dim: usize,
    preprocess: Preprocess,
    values: Values,
    /// Dimensions of the input, pictures first.
    shape: [usize; 4],
    half: bool,
    network: Arc<TypedRunnableModel>,
}

impl Onnx {
    /// Reads the network in `path` as far as `output`: the name of a tensor or of a node; the network's only output
    /// unless given. Files that hold its weights beside it are read as well, and are part of the hash.
    pub fn open(path: &Path, output: Option<&str>, preprocess: Preprocess) -> Result<Onnx> {
        preprocess.check()?;
        let graph = Graph::read(path)?;
        let output = graph.output(output)?;
        graph.check_operators(&output)?;
        let contents = graph.content_hash()?;
        let input = graph.input()?;
        let layout = input.layout()?;
        let pictures = input.pictures();
        let prepared = match graph.prepare(&output, input.shape(1, &preprocess, layout)?) {
            Err(_) if pictures > 1 => {
                graph.prepare(&output, input.shape(pictures, &preprocess, layout)?)
            }
            prepared => prepared,
        };
        let prepared = prepared?;
        let [pictures, ..] = prepared.shape;
        let dim = row_length(path, &output, pictures, &prepared.output)?;
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let words = format!(
            "{preprocess} {}",
            match layout {
                Layout::Nchw => "nchw",
                Layout::Nhwc => "nhwc",
            }
        );
        let defines = format!("ams onnx encoder {VERSION}\n{contents}\n{output}\n{words}\n");
        Ok(Onnx {
            id: format!("{file} {output}: {words}"),
            hash: blake3::hash(defines.as_bytes()).to_hex().to_string(),
            dim,
            values: preprocess.values(layout),
            preprocess,
            shape: prepared.shape,
            half: input.half,
            network: prepared.network,
        })
    }

    fn run(&self, fitted: &Rgb, row: &mut [f32]) -> TractResult<()> {
        let len = self.preprocess.input_len();
        let mut input = Tensor::zero::<f32>(&self.shape)?;
        let mut view = input.try_as_plain_ram_mut()?;
        let values = view.as_slice_mut::<f32>()?;
        let (first, others) = values.split_at_mut(len);
        self.values.write(fitted, first);
        others.chunks_exact_mut(len).for_each(|other| other.copy_from_slice(first));
        if self.half {
            input = input.cast_to_dt(f16::datum_type())?.into_owned();
        }
        let output = self.network.run(tvec!(input.into_tvalue()))?;
        let output = output[0].cast_to::<f32>()?;
        row.copy_from_slice(&output.try_as_plain_ram()?.as_slice::<f32>()?[..self.dim]);
        Ok(())
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
        self.dim
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
        assert_eq!(out.len(), fitted.len() * self.dim, "rows of the encoder's width");
        for (picture, row) in fitted.iter().zip(out.chunks_exact_mut(self.dim)) {
            // A network is a stranger's program; what it cannot do is this picture's failure.
            let failed = match catch_unwind(AssertUnwindSafe(|| self.run(picture, row))) {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => format!("the network failed: {error:#}"),
                Err(_) => "the network gave up on the picture (panic caught)".to_owned(),
            };
            return Err(Failure::new(Reason::Encoder, failed));
        }
        Ok(())
    }
}

/// Numbers per picture of an output of these dimensions.
fn row_length(path: &Path, output: &str, pictures: usize, shape: &[usize]) -> Result<usize> {
    let values = shape.iter().product::<usize>();
    if pictures > 1 && shape.first() != Some(&pictures) {
        let what =
            format!("output `{output}` is {shape:?} for {pictures} pictures: expected a row each");
        return Err(Error::content(path, what));
    }
    let dim = values / pictures;
    if dim == 0 || dim > MAX_DIM {
        let what = format!(
            "output `{output}` is {shape:?} for {pictures} picture(s): {dim} numbers each, expected 1 to {MAX_DIM}; \
             choose a pooled or later node"
        );
        return Err(Error::content(path, what));
    }
    Ok(dim)
}
