//! The Open Inference Protocol, version 2: a page view as named tensors, for clients that speak it already (KServe, Triton's).
//!
//! ```text
//! inputs    user.id BYTES [1]                  candidates.item BYTES [N]       user.behaviors.item BYTES [M]
//!           user.features.<field> BYTES [1]    candidates.bid FP64 [N]         user.behaviors.time INT64 [M]
//!           context.<field> BYTES [1]          candidates.features.<field>     user.behaviors.features.<field>
//!                                                BYTES [N]                       BYTES [M]
//! outputs   ctr FP32 [N], ecpm FP64 [N]        in the order of the candidates
//! ```
//! Only `candidates.item` is required; an empty text is no value. Here is what tensors mean; how HTTP spells them is
//! [`json`]'s, how gRPC does is [`crate::grpc`]'s.

pub(crate) mod json;

use ams_bundle::page::by_ecpm;
use ams_bundle::request::{Cell, Text};
use ams_bundle::{Model, PageView, Scratch, Spec};
use ams_data::schema::{ITEM, USER};
use ams_data::{Field, Side};
use serde::Serialize;

use crate::problem::{Kind, Problem};

/// What clients are told that the server is, and can beside what every server can.
pub(crate) const SERVER: &str = "ams";
pub(crate) const EXTENSIONS: [&str; 1] = ["binary_tensor_data"];

/// The outputs.
pub(crate) const CTR: &str = "ctr";
pub(crate) const ECPM: &str = "ecpm";

/// What a request says beside its tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What it calls itself, if anything.
    pub(crate) id: Option<String>,
    /// The outputs it wants; none: all.
    pub(crate) outputs: Vec<String>,
    /// Whether the answer comes as bytes.
    pub(crate) raw: bool,
}

pub(crate) fn wrong(what: String) -> Problem {
    Problem::new(Kind::Request, format!("request: {what}"))
}

/// What one tensor holds.
pub(crate) enum Values {
    Texts(Vec<Text>),
    Floats(Vec<f64>),
    Whole(Vec<i64>),
}

/// A tensor's name and type.
#[derive(Clone, Copy)]
pub(crate) struct Tensor<'a> {
    pub name: &'a str,
    pub datatype: &'a str,
}

impl Tensor<'_> {
    pub fn unknown(&self) -> Problem {
        let Tensor { name, datatype } = self;
        wrong(format!("{name} is {datatype}, expected BYTES, FP32, FP64, INT32 or INT64"))
    }

    /// Little-endian; a text is its length in four bytes, and its UTF-8.
    pub fn of_bytes(&self, mut bytes: &[u8]) -> Result<Values, Problem> {
        let cut = || wrong(format!("{} ends within a value", self.name));
        match self.datatype {
            "BYTES" => {
                let mut texts = Vec::new();
                while !bytes.is_empty() {
                    let (length, rest) = bytes.split_first_chunk().ok_or_else(cut)?;
                    let length = u32::from_le_bytes(*length) as usize;
                    let (text, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
                    let text = std::str::from_utf8(text);
                    let text = text.map_err(|_| wrong(format!("{} is not UTF-8", self.name)))?;
                    texts.push(Text(text.to_owned()));
                    bytes = rest;
                }
                Ok(Values::Texts(texts))
            }
            "FP64" => whole_chunks(bytes, f64::from_le_bytes).map(Values::Floats).ok_or_else(cut),
            "FP32" => {
                let float = |bytes| f64::from(f32::from_le_bytes(bytes));
                whole_chunks(bytes, float).map(Values::Floats).ok_or_else(cut)
            }
            "INT64" => whole_chunks(bytes, i64::from_le_bytes).map(Values::Whole).ok_or_else(cut),
            "INT32" => {
                let whole = |bytes| i64::from(i32::from_le_bytes(bytes));
                whole_chunks(bytes, whole).map(Values::Whole).ok_or_else(cut)
            }
            _ => Err(self.unknown()),
        }
    }

    /// That `values` are as many as `shape` says.
    fn check<N: Copy + std::fmt::Debug + TryInto<usize>>(
        &self,
        shape: &[N],
        values: &Values,
    ) -> Result<(), Problem> {
        let Tensor { name, datatype } = self;
        let product = |product: usize, side: &N| {
            (*side).try_into().ok().and_then(|side| product.checked_mul(side))
        };
        let count = shape.iter().try_fold(1, product);
        let count = count.ok_or_else(|| wrong(format!("{name} has shape {shape:?}")))?;
        let got = match values {
            Values::Texts(texts) => texts.len(),
            Values::Floats(floats) => floats.len(),
            Values::Whole(numbers) => numbers.len(),
        };
        if got != count {
            let what =
                format!("{name} has {got} values of {datatype}, expected {count} by its shape");
            return Err(wrong(what));
        }
        Ok(())
    }

    fn misfit(&self, expected: &str) -> Problem {
        wrong(format!("{} is {}, expected {expected}", self.name, self.datatype))
    }
}

fn whole_chunks<const N: usize, T>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
    let (chunks, rest) = bytes.as_chunks::<N>();
    rest.is_empty().then(|| chunks.iter().map(|chunk| value(*chunk)).collect())
}

/// Puts one tensor of shape `shape` where it belongs.
pub(crate) fn place<N: Copy + std::fmt::Debug + TryInto<usize>>(
    tensor: Tensor,
    shape: &[N],
    values: Values,
    page: &mut PageView,
) -> Result<(), Problem> {
    tensor.check(shape, &values)?;
    let name = tensor.name;
    match (name, values) {
        ("candidates.bid", Values::Floats(bids)) => page.candidates.bid = Some(bids),
        ("candidates.bid", _) => return Err(tensor.misfit("FP64")),
        ("user.behaviors.time", Values::Whole(times)) => page.user.behaviors.time = Some(times),
        ("user.behaviors.time", _) => return Err(tensor.misfit("INT64")),
        ("candidates.item", Values::Texts(items)) => page.candidates.item = items,
        ("user.behaviors.item", Values::Texts(items)) => page.user.behaviors.item = items,
        ("user.id", Values::Texts(mut texts)) if texts.len() == 1 => page.user.id = texts.pop(),
        (_, Values::Texts(texts)) => {
            let columns = [
                ("candidates.features.", &mut page.candidates.features),
                ("user.behaviors.features.", &mut page.user.behaviors.features),
            ];
            for (prefix, columns) in columns {
                if let Some(field) = name.strip_prefix(prefix) {
                    columns.insert(field.to_owned(), texts.into_iter().map(cell).collect());
                    return Ok(());
                }
            }
            let single =
                [("user.features.", &mut page.user.features), ("context.", &mut page.context)];
            for (prefix, features) in single {
                if let Some(field) = name.strip_prefix(prefix) {
                    features.insert(field.to_owned(), Some(Cell(texts)));
                    return Ok(());
                }
            }
            return Err(wrong(format!(
                "{name}: no such input; the model's description lists them"
            )));
        }
        _ => return Err(tensor.misfit("BYTES")),
    }
    Ok(())
}

fn cell(text: Text) -> Option<Cell> {
    (!text.0.is_empty()).then(|| Cell(vec![text]))
}

/// An answer: the outputs that are wanted, in the order of the candidates.
pub(crate) struct Inferred<'a> {
    pub model: &'a Model,
    pub wanted: &'a Wanted,
    pub ctr: Option<&'a [f32]>,
    pub ecpm: Option<Vec<f64>>,
}

/// Scores a page view.
pub(crate) fn infer<'a>(
    model: &'a Model,
    page: &PageView,
    wanted: &'a Wanted,
    scratch: &mut Scratch,
    ctr: &'a mut Vec<f32>,
) -> Result<Inferred<'a>, Problem> {
    let wants = |name: &str| wanted.outputs.is_empty() || wanted.outputs.iter().any(|o| o == name);
    if let Some(unknown) = wanted.outputs.iter().find(|name| ![CTR, ECPM].contains(&&name[..])) {
        return Err(wrong(format!("outputs: no output {unknown:?}, there is {CTR} and {ECPM}")));
    }
    model.ctrs(page, scratch, ctr)?;
    let ecpm = wants(ECPM).then(|| {
        let mut ecpm = by_ecpm(page, ctr);
        ecpm.sort_unstable_by_key(|&(place, _)| place);
        ecpm.into_iter().map(|(_, ecpm)| ecpm).collect()
    });
    Ok(Inferred { model, wanted, ctr: wants(CTR).then_some(&ctr[..]), ecpm })
}

/// What the protocol says of a model.
#[derive(Debug, Serialize)]
pub(crate) struct Description<'a> {
    pub name: &'a str,
    pub versions: [String; 1],
    pub platform: &'static str,
    pub inputs: Vec<Described>,
    pub outputs: [Described; 2],
}

/// One of its tensors.
#[derive(Debug, Serialize)]
pub(crate) struct Described {
    pub name: String,
    pub datatype: &'static str,
    pub shape: [i64; 1],
}

/// Describes a model.
pub(crate) fn describe(model: &Model) -> Description<'_> {
    let tensor = |name: String, datatype, length| Described { name, datatype, shape: [length] };
    let bytes = |name: &str, length| tensor(name.to_owned(), "BYTES", length);
    let spec = model.spec();
    let mut inputs = vec![
        bytes("candidates.item", -1),
        tensor("candidates.bid".to_owned(), "FP64", -1),
        bytes("user.id", 1),
        bytes("user.behaviors.item", -1),
        tensor("user.behaviors.time".to_owned(), "INT64", -1),
    ];
    for (side, prefix, own, length) in [
        (Side::User, "user.features", USER, 1),
        (Side::Behavior, "user.behaviors.features", ITEM, -1),
        (Side::Ad, "candidates.features", ITEM, -1),
        (Side::Context, "context", "", 1),
    ] {
        for field in fields(spec, side).filter(|field| field.name != own) {
            // A field of several values may come with more.
            let length = if field.multi { -1 } else { length };
            inputs.push(bytes(&format!("{prefix}.{}", field.name), length));
        }
    }
    let outputs = [tensor(CTR.to_owned(), "FP32", -1), tensor(ECPM.to_owned(), "FP64", -1)];
    let versions = [model.version().to_string()];
    Description { name: model.name(), versions, platform: SERVER, inputs, outputs }
}

fn fields(spec: &Spec, side: Side) -> impl Iterator<Item = &Field> {
    spec.fields.side(side)
}
