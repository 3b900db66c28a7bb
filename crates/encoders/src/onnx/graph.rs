//! What an ONNX file says before anything is computed: its input, its nodes, its weights.
//!
//! Knows the file format's messages. Does not know pictures or rows.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ams_data::{Error, Result};
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::tensor_shape_proto::dimension;
use tract_onnx::pb::{GraphProto, ModelProto, TensorProto, ValueInfoProto, type_proto};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::InferenceFact;

use crate::preprocess::{Layout, Preprocess};

/// Most names an error lists.
const LISTED: usize = 30;

/// A file's contents.
pub struct Graph {
    path: PathBuf,
    /// blake3 of the file.
    hash: blake3::Hash,
    model: ModelProto,
}

/// The one input of a network.
pub struct Input {
    path: PathBuf,
    name: String,
    /// Its dimensions, as far as they are fixed.
    dims: [Option<usize>; 4],
    /// Whether it takes f16.
    pub half: bool,
}

/// A network that can be computed.
pub struct Prepared {
    /// Dimensions of its input.
    pub shape: [usize; 4],
    /// Dimensions of its output.
    pub output: Vec<usize>,
    /// The network.
    pub network: Arc<TypedRunnableModel>,
}

impl Graph {
    /// Reads `path`.
    pub fn read(path: &Path) -> Result<Graph> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let model = onnx().proto_model_for_read(&mut bytes.as_slice());
        let no = |why: &str| Error::content(path, format!("not an ONNX network: {why}"));
        let model = model.map_err(|error| no(&format!("{error:#}")))?;
        // Any bytes may happen to be a message of this format; a network they are not.
        if model.graph.as_ref().is_none_or(|graph| graph.node.is_empty()) {
            return Err(no("it has no nodes"));
        }
        Ok(Graph { path: path.to_path_buf(), hash: blake3::hash(&bytes), model })
    }

    fn graph(&self) -> &GraphProto {
        self.model.graph.as_ref().expect("checked when the file was read")
    }

    fn error(&self, what: String) -> Error {
        Error::content(&self.path, what)
    }

    /// blake3 over the file and the files it keeps weights in.
    pub fn content_hash(&self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.hash.as_bytes());
        for name in self.weight_files()? {
            let path = self.folder().join(&name);
            let file = File::open(&path).map_err(Error::io(&path))?;
            let mut inner = blake3::Hasher::new();
            inner.update_reader(file).map_err(Error::io(&path))?;
            hasher.update(inner.finalize().as_bytes());
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// Files beside this one that hold weights, each once, sorted.
    fn weight_files(&self) -> Result<BTreeSet<String>> {
        let graph = self.graph();
        let attributes = graph.node.iter().flat_map(|node| &node.attribute);
        let constants =
            attributes.flat_map(|attribute| attribute.t.iter().chain(&attribute.tensors));
        let outside =
            |tensor: &&TensorProto| tensor.data_location == Some(DataLocation::External as i32);
        let tensors = graph.initializer.iter().chain(constants).filter(outside);
        let mut files = BTreeSet::new();
        for tensor in tensors {
            let location = tensor.external_data.iter().find(|entry| entry.key == "location");
            let name = location.map(|entry| entry.value.clone()).unwrap_or_default();
            let inside =
                |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
            if name.is_empty() || !Path::new(&name).components().all(inside) {
                let what = format!(
                    "weights `{}` are in `{name}`: expected a file in the network's folder",
                    tensor.name
                );
                return Err(self.error(what));
            }
            files.insert(name);
        }
        Ok(files)
    }

    /// The network's input. Weights may be listed as inputs; they are none.
    pub fn input(&self) -> Result<Input> {
        let graph = self.graph();
        let weights = graph.initializer.iter().map(|weight| &weight.name).collect::<HashSet<_>>();
        let inputs = graph.input.iter().filter(|input| !weights.contains(&input.name));
        let inputs = inputs.collect::<Vec<&ValueInfoProto>>();
        let [input] = inputs.as_slice() else {
            let names = inputs.iter().map(|input| input.name.as_str());
            let what = format!("it has {} inputs ({}), expected one", inputs.len(), listed(names));
            return Err(self.error(what));
        };
        let Some(type_proto::Value::TensorType(tensor)) =
            input.r#type.as_ref().and_then(|kind| kind.value.as_ref())
        else {
            return Err(self.error(format!("input `{}` is not a tensor", input.name)));
        };
        let kind = DataType::try_from(tensor.elem_type);
        if !matches!(kind, Ok(DataType::Float | DataType::Float16)) {
            let kind =
                kind.map_or_else(|_| tensor.elem_type.to_string(), |kind| format!("{kind:?}"));
            let what = format!("input `{}` takes {kind}, expected Float or Float16", input.name);
            return Err(self.error(what));
        }
        let fixed = |value: &Option<dimension::Value>| match value {
            Some(dimension::Value::DimValue(value)) => usize::try_from(*value).ok(),
            _ => None,
        };
        let dims = match &tensor.shape {
            None => vec![None; 4],
            Some(shape) => shape.dim.iter().map(|dim| fixed(&dim.value)).collect(),
        };
        let dims = <[Option<usize>; 4]>::try_from(dims).map_err(|dims| {
            let what = format!(
                "input `{}` has {} dimensions, expected 4: pictures, colors, height, width",
                input.name,
                dims.len()
            );
            self.error(what)
        })?;
        let half = kind == Ok(DataType::Float16);
        Ok(Input { path: self.path.clone(), name: input.name.clone(), dims, half })
    }

    /// The tensor called `name`, or that the node of this name gives; the only output unless named.
    pub fn output(&self, name: Option<&str>) -> Result<String> {
        let graph = self.graph();
        let outputs = || listed(graph.output.iter().map(|output| output.name.as_str()));
        let Some(name) = name else {
            return match graph.output.as_slice() {
                [output] => Ok(output.name.clone()),
                several => {
                    let count = several.len();
                    let what =
                        format!("it has {count} outputs: choose a node, one of {}", outputs());
                    Err(self.error(what))
                }
            };
        };
        let tensors = || graph.node.iter().flat_map(|node| &node.output);
        if tensors().any(|tensor| tensor == name) {
            return Ok(name.to_owned());
        }
        if let Some(node) = graph.node.iter().find(|node| node.name == name)
            && let Some(tensor) = node.output.first()
        {
            return Ok(tensor.clone());
        }
        // The last nodes are those that are asked for.
        let last = graph.node.iter().rev().flat_map(|node| &node.output).map(String::as_str);
        let what = format!(
            "there is no node or tensor `{name}`. Outputs: {}. Nodes, the last first: {}",
            outputs(),
            listed(last)
        );
        Err(self.error(what))
    }

    /// Refuses operators that cannot be computed, if `output` needs them.
    pub fn check_operators(&self, output: &str) -> Result<()> {
        let nodes = &self.graph().node;
        let mut makers = HashMap::new();
        for (at, node) in nodes.iter().enumerate() {
            makers.extend(node.output.iter().map(|output| (output.as_str(), at)));
        }
        let known = onnx().op_register.0;
        let (mut waiting, mut seen) = (vec![output], HashSet::new());
        let mut unknown = BTreeMap::new();
        while let Some(tensor) = waiting.pop() {
            let Some(at) = makers.get(tensor) else { continue };
            if seen.insert(*at) {
                let node = &nodes[*at];
                if !known.contains_key(&node.op_type) {
                    unknown.entry(node.op_type.as_str()).or_insert(tensor);
                }
                waiting.extend(node.input.iter().map(String::as_str));
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let all = unknown.iter().map(|(kind, tensor)| format!("{kind} (makes `{tensor}`)"));
        let all = all.collect::<Vec<String>>().join(", ");
        Err(self.error(format!("operators that cannot be computed here: {all}")))
    }

    /// Makes the network as far as `output` ready for inputs of this shape.
    pub fn prepare(&self, output: &str, shape: [usize; 4]) -> Result<Prepared> {
        let half = self.input()?.half;
        let prepared = catch_unwind(AssertUnwindSafe(|| self.optimize(output, shape, half)));
        let cannot = |why: &str| {
            self.error(format!(
                "the network does not take an input of {shape:?} as far as `{output}`: {why}"
            ))
        };
        match prepared {
            Ok(Ok(prepared)) => Ok(prepared),
            Ok(Err(error)) => Err(cannot(&format!("{error:#}"))),
            Err(_) => Err(cannot("its parts do not fit together (panic caught)")),
        }
    }

    fn optimize(&self, output: &str, shape: [usize; 4], half: bool) -> TractResult<Prepared> {
        let parsed = onnx()
            .with_ignore_output_shapes(true)
            .with_ignore_value_info(true)
            .parse(&self.model, self.folder().to_str())?;
        let mut network = parsed.model;
        let outlet = parsed.outlets_by_name.get(output).copied();
        network
            .select_output_outlets(&[outlet.ok_or_else(|| TractError::msg("no such tensor"))?])?;
        let kind = if half { f16::datum_type() } else { f32::datum_type() };
        let network = network.with_input_fact(0, InferenceFact::dt_shape(kind, shape))?;
        let network = network.into_optimized()?;
        let fact = network.output_fact(0)?;
        let output = fact.shape.as_concrete().map(<[usize]>::to_vec);
        let output =
            output.ok_or_else(|| TractError::msg("its size depends on what is in the picture"))?;
        Ok(Prepared { shape, output, network: network.into_runnable()? })
    }
}

impl Input {
    /// Where the colors are: where the file says 3.
    pub fn layout(&self) -> Result<Layout> {
        match self.dims {
            [_, Some(3), ..] | [_, None, _, None] => Ok(Layout::Nchw),
            [.., Some(3)] => Ok(Layout::Nhwc),
            [_, None, ..] => Ok(Layout::Nchw),
            _ => {
                let (name, shape) = (&self.name, self.words());
                let what = format!("input `{name}` is {shape}, expected 3 colors second or last");
                Err(Error::content(&self.path, what))
            }
        }
    }

    /// Pictures the file insists on, 1 if it does not.
    pub fn pictures(&self) -> usize {
        self.dims[0].unwrap_or(1).max(1)
    }

    /// The shape of an input of so many pictures, if the file allows that size.
    pub fn shape(
        &self,
        pictures: usize,
        preprocess: &Preprocess,
        layout: Layout,
    ) -> Result<[usize; 4]> {
        let [width, height] = preprocess.size.map(|side| side as usize);
        let shape = match layout {
            Layout::Nchw => [pictures, 3, height, width],
            Layout::Nhwc => [pictures, height, width, 3],
        };
        let fits = |(dim, size): (&Option<usize>, &usize)| dim.is_none_or(|dim| dim == *size);
        if !self.dims.iter().zip(&shape).skip(1).all(fits) {
            let (name, dims) = (&self.name, self.words());
            let what = format!(
                "input `{name}` is {dims}, preprocessing makes {shape:?} of a picture: set its size to that of the network"
            );
            return Err(Error::content(&self.path, what));
        }
        Ok(shape)
    }

    fn words(&self) -> String {
        let dims = self.dims.map(|dim| dim.map_or("any".to_owned(), |dim| dim.to_string()));
        format!("[{}]", dims.join(", "))
    }
}

/// Names, quoted, as many as anybody reads.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names = names.map(|name| format!("`{name}`")).collect::<Vec<String>>();
    match names.len() > LISTED {
        false => names.join(", "),
        true => format!("{} and {} more", names[..LISTED].join(", "), names.len() - LISTED),
    }
}
