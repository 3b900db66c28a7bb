//! What an ONNX file says before anything is computed: its input, its nodes, its weights.
//!
//! Knows the file format's messages. Does not know pictures or rows.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ams_data::{Error, Result};
use prost::Message;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::tensor_shape_proto::dimension;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, type_proto};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::InferenceFact;

use super::single;
use crate::preprocess::{Layout, Preprocess};

/// Most names an error lists.
const LISTED: usize = 30;

/// The contents of an ONNX file.
pub(crate) struct Graph {
    path: PathBuf,
    /// blake3 of the file.
    hash: blake3::Hash,
    model: ModelProto,
}

/// What one output needs of a file's contents: nodes, weights, and the one input; in single
/// precision.
pub(crate) struct Part {
    path: PathBuf,
    model: ModelProto,
    output: String,
    /// Whether something of it was of half precision.
    pub widened: bool,
}

/// The one input of a network.
pub(crate) struct Input {
    path: PathBuf,
    name: String,
    /// Its dimensions, as far as they are fixed.
    dims: [Option<usize>; 4],
}

/// A network that can be computed.
pub(crate) struct Prepared {
    /// Dimensions of its output.
    pub output: Vec<usize>,
    pub network: Arc<TypedRunnableModel>,
    /// The same as the file has it, node by node: slower, and what `network` is compared with.
    pub plain: Arc<TypedRunnableModel>,
}

impl Graph {
    pub(crate) fn read(path: &Path) -> Result<Graph> {
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
    pub(crate) fn content_hash(&self) -> Result<String> {
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

    /// Inputs without those that are weights: files may list these too.
    fn inputs(&self) -> impl Iterator<Item = &ValueInfoProto> {
        let graph = self.graph();
        let weights = graph.initializer.iter().map(|weight| &weight.name).collect::<HashSet<_>>();
        graph.input.iter().filter(move |input| !weights.contains(&input.name))
    }

    /// The tensor called `name`, or that the node of this name gives; the only output unless named.
    pub(crate) fn output(&self, name: Option<&str>) -> Result<String> {
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

    /// Tensors that `output` needs, itself among them, and the positions of the nodes that make
    /// them.
    fn needs<'g>(&'g self, output: &'g str) -> (HashSet<&'g str>, BTreeSet<usize>) {
        let nodes = &self.graph().node;
        let mut makers = HashMap::new();
        for (at, node) in nodes.iter().enumerate() {
            makers.extend(node.output.iter().map(|output| (output.as_str(), at)));
        }
        let (mut waiting, mut tensors, mut needed) =
            (vec![output], HashSet::new(), BTreeSet::new());
        while let Some(tensor) = waiting.pop() {
            if !tensor.is_empty()
                && tensors.insert(tensor)
                && let Some(at) = makers.get(tensor)
                && needed.insert(*at)
            {
                waiting.extend(read_by(&nodes[*at]));
            }
        }
        (tensors, needed)
    }

    /// Names of the inputs that `output` needs.
    fn inputs_of<'g>(&'g self, output: &'g str) -> Vec<&'g str> {
        let (tensors, _) = self.needs(output);
        let names = self.inputs().map(|input| input.name.as_str());
        names.filter(|name| tensors.contains(name)).collect()
    }

    /// Only what `output` needs.
    ///
    /// # Errors
    /// If it needs not just one input.
    pub(crate) fn part(self, output: String) -> Result<Part> {
        self.check_inputs(&output)?;
        let (tensors, needed) = self.needs(&output);
        let tensors = tensors.into_iter().map(str::to_owned).collect::<HashSet<String>>();
        let Graph { path, mut model, .. } = self;
        let graph = model.graph.as_mut().expect("checked when the file was read");
        let mut at = 0..;
        graph.node.retain(|_| at.next().is_some_and(|at| needed.contains(&at)));
        graph.input.retain(|input| tensors.contains(&input.name));
        graph.initializer.retain(|weight| tensors.contains(&weight.name));
        graph.output.clear();
        graph.value_info.clear();
        // Parsing wants a name there; shapes are found anew.
        graph.output.push(ValueInfoProto { name: output.clone(), ..ValueInfoProto::default() });
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        let widened = single::widen(graph, &|tensor| outside(&folder, tensor));
        let widened = widened.map_err(|what| Error::content(&path, what))?;
        Ok(Part { path, model, output, widened })
    }

    /// Refuses operators that tract cannot compute, if `output` needs them.
    pub(crate) fn check_operators(&self, output: &str) -> Result<()> {
        let known = onnx().op_register.0;
        let mut unknown = BTreeMap::new();
        for at in self.needs(output).1 {
            let node = &self.graph().node[at];
            if !known.contains_key(&node.op_type) {
                let makes = node.output.first().map_or("", String::as_str);
                unknown.entry(node.op_type.as_str()).or_insert(makes);
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let all = unknown.iter().map(|(kind, tensor)| format!("{kind} (makes `{tensor}`)"));
        let all = all.collect::<Vec<String>>().join(", ");
        let what = format!(
            "operators that cannot be computed here: {all}; an ONNX Runtime may compute them (`pip install \
             onnxruntime`, --runtime onnxruntime)"
        );
        Err(self.error(what))
    }

    /// Refuses an output that does not need just one input.
    fn check_inputs(&self, output: &str) -> Result<()> {
        let needed = self.inputs_of(output);
        if needed.len() == 1 {
            return Ok(());
        }
        let all = listed(self.inputs().map(|input| input.name.as_str()));
        if needed.is_empty() {
            let what =
                format!("`{output}` needs none of the inputs ({all}): it is always the same");
            return Err(self.error(what));
        }
        let outputs = self.graph().output.iter().map(|output| output.name.as_str());
        let fit = outputs.filter(|output| self.inputs_of(output).len() == 1).map(|output| {
            let needs = self.inputs_of(output);
            format!("`{output}` (of `{}`)", needs.first().copied().unwrap_or_default())
        });
        let fit = fit.collect::<Vec<String>>();
        let choose = if fit.is_empty() {
            "choose a node that needs the picture alone".to_owned()
        } else {
            format!("outputs that need one are {}", fit.join(", "))
        };
        let (count, names) = (needed.len(), listed(needed.into_iter()));
        let what = format!("`{output}` needs {count} inputs ({names}), expected one; {choose}");
        Err(self.error(what))
    }
}

impl Part {
    pub(crate) fn error(&self, what: String) -> Error {
        Error::content(&self.path, what)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The part as an ONNX file; weights that other files hold stay there.
    pub(crate) fn encode(&self) -> Vec<u8> {
        self.model.encode_to_vec()
    }

    /// Bytes of the weights that other files hold.
    pub(crate) fn outside_bytes(&self) -> u64 {
        let graph = self.model.graph.as_ref().expect("checked when the file was read");
        let entries = graph.initializer.iter().flat_map(|tensor| &tensor.external_data);
        let lengths = entries.filter(|entry| entry.key == "length");
        lengths.filter_map(|entry| entry.value.parse::<u64>().ok()).sum()
    }

    pub(crate) fn input(&self) -> Result<Input> {
        let graph = self.model.graph.as_ref().expect("checked when the file was read");
        let weights = graph.initializer.iter().map(|weight| &weight.name).collect::<HashSet<_>>();
        let input = graph.input.iter().find(|input| !weights.contains(&input.name));
        let input = input.expect("checked when the part was cut out");
        let Some(type_proto::Value::TensorType(tensor)) =
            input.r#type.as_ref().and_then(|kind| kind.value.as_ref())
        else {
            return Err(self.error(format!("input `{}` is not a tensor", input.name)));
        };
        let kind = DataType::try_from(tensor.elem_type);
        if kind != Ok(DataType::Float) {
            let kind =
                kind.map_or_else(|_| tensor.elem_type.to_string(), |kind| format!("{kind:?}"));
            let what = format!(
                "input `{}` takes {kind}, expected Float, Float16 or Bfloat16: `{}` is made of no picture",
                input.name, self.output
            );
            return Err(self.error(what));
        }
        // Exporters write -1 or 0, too, where any number will do.
        let fixed = |value: &Option<dimension::Value>| match value {
            Some(dimension::Value::DimValue(value)) => {
                usize::try_from(*value).ok().filter(|value| *value > 0)
            }
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
        Ok(Input { path: self.path.clone(), name: input.name.clone(), dims })
    }

    /// Makes the network ready for inputs of this shape.
    pub(crate) fn prepare(&self, shape: [usize; 4]) -> Result<Prepared> {
        let prepared = catch_unwind(AssertUnwindSafe(|| self.optimize(shape)));
        let cannot = |why: &str| {
            let output = &self.output;
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

    fn optimize(&self, shape: [usize; 4]) -> TractResult<Prepared> {
        let folder = self.path.parent().and_then(Path::to_str);
        let parsed = onnx()
            .with_ignore_output_shapes(true)
            .with_ignore_value_info(true)
            .parse(&self.model, folder)?;
        if let Some(name) = parsed.unresolved_inputs.first() {
            return Err(TractError::msg(format!("nothing makes the tensor `{name}`")));
        }
        let fact = InferenceFact::dt_shape(f32::datum_type(), shape);
        let typed = parsed.model.with_input_fact(0, fact)?.into_typed()?;
        let plain = typed.clone().into_runnable()?;
        let network = typed.into_optimized()?;
        let fact = network.output_fact(0)?;
        let output = fact.shape.as_concrete().map(<[usize]>::to_vec);
        let output =
            output.ok_or_else(|| TractError::msg("its size depends on what is in the picture"))?;
        Ok(Prepared { output, network: network.into_runnable()?, plain })
    }
}

/// The tensors that a node reads, also inside its branches and loops.
fn read_by(node: &NodeProto) -> Vec<&str> {
    let mut names = node.input.iter().map(String::as_str).collect::<Vec<&str>>();
    for graph in node.attribute.iter().flat_map(|it| it.g.iter().chain(&it.graphs)) {
        // A name that is also one of its own inside is needed at worst in vain.
        names.extend(graph.node.iter().flat_map(read_by));
        names.extend(graph.output.iter().map(|output| output.name.as_str()));
    }
    names
}

/// What `tensor` keeps in a file in `folder`.
fn outside(folder: &Path, tensor: &TensorProto) -> Result<Vec<u8>, String> {
    let entry = |key: &str| {
        let entry = tensor.external_data.iter().find(|entry| entry.key == key);
        entry.map(|entry| entry.value.as_str())
    };
    let number = |key: &str| {
        entry(key).map(str::parse::<u64>).transpose().map_err(|error| {
            format!("weights `{}`: {key} is no number of bytes: {error}", tensor.name)
        })
    };
    let path = folder.join(entry("location").unwrap_or_default());
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    // The names were checked; a link may still lead elsewhere.
    let root = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let inside = path.canonicalize().and_then(|to| Ok((to, root.canonicalize()?)));
    if !inside.is_ok_and(|(to, root)| to.starts_with(root)) {
        let what = "expected a file in the network's folder";
        return Err(format!("weights `{}` are in {}: {what}", tensor.name, path.display()));
    }
    let mut file = File::open(&path).map_err(failed)?;
    file.seek(SeekFrom::Start(number("offset")?.unwrap_or(0))).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(number("length")?.unwrap_or(u64::MAX)).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

impl Input {
    /// Where the colors are: where the file says 3.
    pub(crate) fn layout(&self) -> Result<Layout> {
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
    pub(crate) fn pictures(&self) -> usize {
        self.dims[0].unwrap_or(1).max(1)
    }

    /// The shape of an input of `pictures` pictures, if the file allows that size.
    pub(crate) fn shape(
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
    if names.len() > LISTED {
        format!("{} and {} more", names[..LISTED].join(", "), names.len() - LISTED)
    } else {
        names.join(", ")
    }
}
