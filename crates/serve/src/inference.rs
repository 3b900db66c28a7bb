//! The Open Inference Protocol, version 2, over HTTP: a page view as named tensors, for clients that speak it already
//! (KServe, Triton's).
//!
//! ```text
//! inputs    user.id BYTES [1]                  candidates.item BYTES [N]       user.behaviors.item BYTES [M]
//!           user.features.<field> BYTES [1]    candidates.bid FP64 [N]         user.behaviors.time INT64 [M]
//!           context.<field> BYTES [1]          candidates.features.<field>     user.behaviors.features.<field>
//!                                                BYTES [N]                       BYTES [M]
//! outputs   ctr FP32 [N], ecpm FP64 [N]        in the order of the candidates
//! ```
//! Only `candidates.item` is required; an empty text is no value. Tensors may also come as bytes behind the JSON (the binary
//! tensor data extension: header `Inference-Header-Content-Length`, each tensor's `binary_data_size`); answers are JSON, which the
//! extension allows.

use ams_bundle::page::by_ecpm;
use ams_bundle::request::{Cell, Text};
use ams_bundle::{Model, PageView, Scratch, Spec};
use ams_data::schema::{ITEM, USER};
use ams_data::{Field, Side};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::problem::{Kind, Problem};

/// A request.
#[derive(Debug, Deserialize)]
struct Infer {
    #[serde(default)]
    id: Option<String>,
    inputs: Vec<Tensor>,
}

/// A tensor of a request; keys beside these are of no use here.
#[derive(Debug, Deserialize)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    #[serde(default)]
    data: Option<Vec<Value>>,
    #[serde(default)]
    parameters: Map<String, Value>,
}

/// A tensor of an answer or of a model's description.
#[derive(Debug, Serialize)]
struct Described {
    name: String,
    datatype: &'static str,
    shape: [i64; 1],
}

fn wrong(what: String) -> Problem {
    Problem::new(Kind::Request, format!("request: {what}"))
}

/// What one tensor holds.
enum Values {
    Texts(Vec<Text>),
    Floats(Vec<f64>),
    Whole(Vec<i64>),
}

impl Tensor {
    /// The values, of JSON or of the front of `tail`, which is shortened.
    fn values(&self, tail: &mut &[u8]) -> Result<Values, Problem> {
        let Tensor { name, shape, datatype, data, parameters } = self;
        let count = shape.iter().try_fold(1usize, |product, side| product.checked_mul(*side));
        let count = count.ok_or_else(|| wrong(format!("{name} has shape {shape:?}")))?;
        let values = match (data, parameters.get("binary_data_size").and_then(Value::as_u64)) {
            (Some(data), _) => self.of_json(data)?,
            (None, Some(size)) => {
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                let Some((bytes, rest)) = tail.split_at_checked(size) else {
                    let left = tail.len();
                    return Err(wrong(format!("{name} has {size} bytes, and {left} are left")));
                };
                *tail = rest;
                self.of_bytes(bytes)?
            }
            (None, None) => return Err(wrong(format!("{name} has no data"))),
        };
        let got = match &values {
            Values::Texts(texts) => texts.len(),
            Values::Floats(floats) => floats.len(),
            Values::Whole(numbers) => numbers.len(),
        };
        if got != count {
            let what =
                format!("{name} has {got} values of {datatype}, expected {count} by its shape");
            return Err(wrong(what));
        }
        Ok(values)
    }

    fn unknown(&self) -> Problem {
        let Tensor { name, datatype, .. } = self;
        wrong(format!("{name} is {datatype}, expected BYTES, FP32, FP64, INT32 or INT64"))
    }

    fn of_json(&self, data: &[Value]) -> Result<Values, Problem> {
        let not = |value: &Value| {
            wrong(format!("{} holds {value}, which is no {}", self.name, self.datatype))
        };
        let mut flat = Vec::with_capacity(data.len());
        let mut stack: Vec<&Value> = data.iter().rev().collect();
        while let Some(value) = stack.pop() {
            match value {
                Value::Array(inner) => stack.extend(inner.iter().rev()),
                value => flat.push(value),
            }
        }
        match &self.datatype[..] {
            "BYTES" => {
                let text = |value: &&Value| match value {
                    Value::String(text) => Ok(Text(text.clone())),
                    value => Err(not(value)),
                };
                Ok(Values::Texts(flat.iter().map(text).collect::<Result<_, _>>()?))
            }
            "FP32" | "FP64" => {
                let float = |value: &&Value| value.as_f64().ok_or_else(|| not(value));
                Ok(Values::Floats(flat.iter().map(float).collect::<Result<_, _>>()?))
            }
            "INT32" | "INT64" => {
                let whole = |value: &&Value| value.as_i64().ok_or_else(|| not(value));
                Ok(Values::Whole(flat.iter().map(whole).collect::<Result<_, _>>()?))
            }
            _ => Err(self.unknown()),
        }
    }

    /// Little-endian; a text is its length in four bytes, and its UTF-8.
    fn of_bytes(&self, mut bytes: &[u8]) -> Result<Values, Problem> {
        let cut = || wrong(format!("{} ends within a value", self.name));
        match &self.datatype[..] {
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

    fn misfit(&self, expected: &str) -> Problem {
        wrong(format!("{} is {}, expected {expected}", self.name, self.datatype))
    }
}

fn whole_chunks<const N: usize, T>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
    let (chunks, rest) = bytes.as_chunks::<N>();
    rest.is_empty().then(|| chunks.iter().map(|chunk| value(*chunk)).collect())
}

/// A page view, and what its request calls itself.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub page: PageView,
    id: Option<String>,
}

impl From<PageView> for Parsed {
    fn from(page: PageView) -> Parsed {
        Parsed { page, id: None }
    }
}

/// Reads a request whose first `header` bytes are JSON, all of them if not said.
pub(crate) fn parse(body: &[u8], header: Option<usize>) -> Result<Parsed, Problem> {
    let (text, mut tail) =
        body.split_at_checked(header.unwrap_or(body.len())).ok_or_else(|| {
            wrong(format!(
                "Inference-Header-Content-Length is more than the body's {} bytes",
                body.len()
            ))
        })?;
    let Infer { id, inputs } =
        serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
    let mut page = PageView::default();
    for tensor in &inputs {
        let values = tensor.values(&mut tail)?;
        place(tensor, values, &mut page)?;
    }
    Ok(Parsed { page, id })
}

/// Puts one tensor where it belongs.
fn place(tensor: &Tensor, values: Values, page: &mut PageView) -> Result<(), Problem> {
    let name = &tensor.name[..];
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

/// Scores a page view; the answer's JSON.
pub(crate) fn infer(
    model: &Model,
    parsed: &Parsed,
    scratch: &mut Scratch,
    ctr: &mut Vec<f32>,
) -> Result<Value, Problem> {
    model.ctrs(&parsed.page, scratch, ctr)?;
    let mut ecpm = by_ecpm(&parsed.page, ctr);
    ecpm.sort_unstable_by_key(|&(place, _)| place);
    let ecpm: Vec<f64> = ecpm.into_iter().map(|(_, ecpm)| ecpm).collect();
    let shape = [ctr.len()];
    let mut answer = json!({
        "model_name": model.name(),
        "model_version": model.version().to_string(),
        "outputs": [
            {"name": "ctr", "datatype": "FP32", "shape": shape, "data": ctr},
            {"name": "ecpm", "datatype": "FP64", "shape": shape, "data": ecpm},
        ],
    });
    if let Some(id) = &parsed.id {
        answer["id"] = json!(id);
    }
    Ok(answer)
}

/// What the protocol says of a model.
pub(crate) fn describe(model: &Model) -> Value {
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
    let outputs = [tensor("ctr".to_owned(), "FP32", -1), tensor("ecpm".to_owned(), "FP64", -1)];
    json!({
        "name": model.name(),
        "versions": [model.version().to_string()],
        "platform": "ams",
        "inputs": inputs,
        "outputs": outputs,
    })
}

fn fields(spec: &Spec, side: Side) -> impl Iterator<Item = &Field> {
    spec.fields.side(side)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_become_a_page_view() {
        let json = br#"{"id": "7", "inputs": [
            {"name": "candidates.item", "shape": [2, 1], "datatype": "BYTES", "data": [["3"], ["4"]]},
            {"name": "candidates.bid", "shape": [2], "datatype": "FP64", "parameters": {"binary_data_size": 16}},
            {"name": "user.behaviors.item", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 11}},
            {"name": "user.behaviors.time", "shape": [2], "datatype": "INT64", "data": [7, 8]},
            {"name": "candidates.features.brand", "shape": [2], "datatype": "BYTES", "data": ["", "x"]},
            {"name": "context.hour", "shape": [1], "datatype": "BYTES", "data": ["12"]},
            {"name": "user.id", "shape": [1], "datatype": "BYTES", "data": ["u1"]}]}"#;
        let mut body = json.to_vec();
        body.extend([1.0f64.to_le_bytes(), 0.5f64.to_le_bytes()].concat());
        body.extend(b"\x01\0\0\0a\x02\0\0\0bc");
        let parsed = parse(&body, Some(json.len())).unwrap();
        let expected =
            br#"{"user": {"id": "u1", "behaviors": {"item": ["a", "bc"], "time": [7, 8]}},
            "context": {"hour": ["12"]}, "candidates": {"item": ["3", "4"], "bid": [1, 0.5],
            "features": {"brand": [null, "x"]}}}"#;
        assert_eq!(parsed.page, PageView::parse(expected).unwrap());
        assert_eq!(parsed.id.as_deref(), Some("7"));
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let tensor = |rest: &str| format!(r#"{{"inputs": [{{"name": {rest}}}]}}"#);
        let cases = [
            ("{".to_owned(), "EOF while parsing"),
            (
                tensor(r#""user.id", "shape": [2], "datatype": "BYTES", "data": ["a"]"#),
                "user.id has 1 values of BYTES, expected 2",
            ),
            (
                tensor(r#""user.id", "shape": [1], "datatype": "BYTES", "data": [1]"#),
                "user.id holds 1, which is no BYTES",
            ),
            (
                tensor(r#""user.id", "shape": [1], "datatype": "BOOL", "data": [1]"#),
                "user.id is BOOL, expected BYTES",
            ),
            (tensor(r#""user.id", "shape": [1], "datatype": "BYTES""#), "user.id has no data"),
            (
                tensor(r#""who", "shape": [1], "datatype": "BYTES", "data": ["a"]"#),
                "who: no such input",
            ),
            (
                tensor(r#""user.behaviors.time", "shape": [1], "datatype": "FP32", "data": [1]"#),
                "user.behaviors.time is FP32, expected INT64",
            ),
            (
                tensor(
                    r#""user.id", "shape": [18446744073709551615, 2], "datatype": "BYTES", "data": []"#,
                ),
                "user.id has shape",
            ),
            (
                tensor(
                    r#""user.id", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 9}"#,
                ),
                "user.id has 9 bytes, and 0 are left",
            ),
        ];
        for (body, expected) in cases {
            let problem = parse(body.as_bytes(), None).unwrap_err();
            let said = problem.detail.strip_prefix("request: ").unwrap();
            assert!(said.starts_with(expected), "{said}");
        }
        assert!(parse(b"{}", Some(3)).is_err());
    }
}
