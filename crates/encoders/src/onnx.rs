//! Any network in an ONNX file, from the one input that a node of choice needs to that node.
//!
//! Computed in f32, on the thread that asks, one picture at a time: a row cannot know what was
//! beside it. Where a file insists on a number of pictures, the one picture fills them all, which
//! costs that many times more. Graphics processors alone take several pictures at once.
//!
//! Two runtimes compute networks: tract, which is part of the program, and an ONNX Runtime that is
//! installed. Both optimize a network before they run it, and optimizers have faults. So when a
//! network is opened, its output for one picture is compared with what the network gives as the
//! file has it, and that of ONNX Runtime also with tract's. Where the two agree, a row of one is
//! as good as a row of the other, and the runtime is no part of the encoder's identity.
//!
//! Knows networks. Does not know pictures beyond [`Preprocess`].

mod graph;
mod network;
mod pool;
mod runtime;
mod single;
mod tract;

use std::path::Path;

use ams_data::{Error, Result};
use ams_image::{Encoder, Failure, Reason, Rgb, Scratch};

use crate::preprocess::{Layout, Preprocess, Values};
use graph::{Graph, Part};
use network::{Network, values};
pub use pool::Pool;
use pool::Pooling;
use runtime::Sessions;
pub use runtime::{Accelerator, Runtime};
use tract::Tract;

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
    /// Pictures of one input: more than one only if the file insists on them.
    pictures: usize,
    pooling: Pooling,
    network: Box<dyn Network>,
    /// What computes the network, in words.
    runtime: String,
    batch: usize,
}

/// A network that was opened: what [`Onnx`] needs of it.
struct Opened {
    shape: [usize; 4],
    /// Dimensions of its output for an input of `shape`.
    output: Vec<usize>,
    network: Box<dyn Network>,
    /// Whether rows are only those of ONNX Runtime: tract cannot compute them, or differs.
    by_runtime_alone: bool,
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
        runtime: &Runtime,
    ) -> Result<Onnx> {
        preprocess.check()?;
        let graph = Graph::read(path)?;
        let output = graph.output(output)?;
        let contents = graph.content_hash()?;
        if *runtime == Runtime::Tract {
            graph.check_operators(&output)?;
        }
        let part = graph.part(output.clone())?;
        let input = part.input()?;
        let layout = input.layout()?;
        let values = preprocess.values(layout);
        let pictures = input.pictures();
        let mut probe_values = vec![0.0; preprocess.input_len()];
        values.write(&probe(preprocess.size), &mut probe_values);
        let open = |shape: [usize; 4]| {
            let probe = probe_values.repeat(shape[0]);
            match runtime {
                Runtime::Tract => open_tract(&part, shape, &probe),
                Runtime::OnnxRuntime { library, accelerator } => {
                    open_runtime(&part, shape, &probe, library, *accelerator)
                }
            }
        };
        let opened = match open(input.shape(1, &preprocess, layout)?) {
            Err(_) if pictures > 1 => open(input.shape(pictures, &preprocess, layout)?),
            opened => opened,
        };
        let widened = if part.widened { "in single precision\n" } else { "" };
        drop(part);
        let Opened { shape, output: sizes, network, by_runtime_alone } = opened?;
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
        let alone = if by_runtime_alone { "by onnxruntime\n" } else { "" };
        let defines = format!(
            "ams onnx encoder {VERSION}\n{contents}\n{output}{pooling}\n{words}\n{widened}{alone}"
        );
        let by = if by_runtime_alone { ", by onnxruntime" } else { "" };
        Ok(Onnx {
            id: format!("{file} {output}{pooling}: {words}{by}"),
            hash: blake3::hash(defines.as_bytes()).to_hex().to_string(),
            values,
            preprocess,
            pictures: shape[0],
            pooling,
            network,
            runtime: runtime.to_string(),
            batch: if shape[0] == 1 { runtime.batch() } else { 1 },
        })
    }

    fn rows(
        &self,
        fitted: &[Rgb],
        input: &mut Vec<f32>,
        out: &mut [f32],
    ) -> std::result::Result<(), String> {
        let len = self.preprocess.input_len();
        input.resize(fitted.len() * self.pictures * len, 0.0);
        for (picture, input) in fitted.iter().zip(input.chunks_exact_mut(self.pictures * len)) {
            let (first, others) = input.split_at_mut(len);
            self.values.write(picture, first);
            others.chunks_exact_mut(len).for_each(|other| other.copy_from_slice(first));
        }
        self.network.run(input, &mut |output| {
            let rows = out.chunks_exact_mut(self.pooling.dim);
            for (row, output) in rows.zip(output.chunks_exact(output.len() / fitted.len())) {
                self.pooling.take(output, row);
            }
        })
    }
}

/// Opens the network of tract, and compares what it gives with what the file's network gives.
fn open_tract(part: &Part, shape: [usize; 4], probe: &[f32]) -> Result<Opened> {
    let prepared = part.prepare(shape)?;
    let [network, plain] =
        [prepared.network, prepared.plain].map(|network| Tract { shape, network });
    compare(&network, &plain, probe).map_err(|what| part.error(what))?;
    let network = Box::new(network);
    Ok(Opened { shape, output: prepared.output, network, by_runtime_alone: false })
}

/// Opens the network of an ONNX Runtime, and compares what it gives with what the file's network
/// gives, and with what tract gives if tract can compute it.
fn open_runtime(
    part: &Part,
    shape: [usize; 4],
    probe: &[f32],
    library: &Path,
    accelerator: Option<Accelerator>,
) -> Result<Opened> {
    let network = Sessions::open(part, library, accelerator, shape)?;
    let plain = network.plain()?;
    compare(&network, &plain, probe).map_err(|what| part.error(what))?;
    let output = network.output_shape(probe).map_err(|what| part.error(what))?;
    let agrees = part.prepare(shape).is_ok_and(|prepared| {
        let tract = Tract { shape, network: prepared.network };
        prepared.output == output && compare(&network, &tract, probe).is_ok()
    });
    Ok(Opened { shape, output, network: Box::new(network), by_runtime_alone: !agrees })
}

/// Compares what `network` gives of one picture with what `plain` gives, the same network before
/// it was optimized.
fn compare(
    network: &dyn Network,
    plain: &dyn Network,
    probe: &[f32],
) -> std::result::Result<(), String> {
    let failed = |error| format!("the network fails on a first picture: {error}");
    let optimized = values(network, probe).map_err(failed)?;
    let failed = |error| format!("the network cannot be compared with what the file has: {error}");
    let expected = values(plain, probe).map_err(failed)?;
    agree(&optimized, &expected)
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

    fn batch(&self) -> usize {
        self.batch
    }

    fn runtime(&self) -> Option<&str> {
        Some(&self.runtime)
    }

    fn fit(&self, picture: Rgb, scratch: &mut Scratch) -> Rgb {
        self.preprocess.fit(&picture, &mut scratch.resizer)
    }

    fn encode(
        &self,
        fitted: &[Rgb],
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> std::result::Result<(), Failure> {
        assert_eq!(out.len(), fitted.len() * self.dim(), "rows of the encoder's width");
        for (pictures, rows) in
            fitted.chunks(self.batch).zip(out.chunks_mut(self.batch * self.dim()))
        {
            // A network is a stranger's program; what it cannot do is this picture's failure.
            let ran = self.rows(pictures, &mut scratch.floats[0], rows);
            ran.map_err(|error| {
                Failure::new(Reason::Encoder, format!("the network failed: {error}"))
            })?;
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
