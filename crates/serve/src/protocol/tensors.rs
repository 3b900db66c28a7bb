//! The Open Inference Protocol over HTTP: tensors as JSON, or as bytes behind it.
//!
//! The binary tensor data extension: header `Inference-Header-Content-Length` says how many bytes
//! of the body are JSON, each tensor's `binary_data_size` how many of the rest are its. Answers are
//! JSON, which the extension allows.

use ams_bundle::PageView;
use ams_bundle::json::or_null;
use ams_bundle::request::Text;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::answer::{Operation, ParsedRequest, Target};
use crate::inference::tensors::{Tensor, page_view};
use crate::inference::values::Datatype;
use crate::inference::{CTR, ECPM, InferenceOptions, Inferred, wrong};
use crate::problem::Problem;

/// A request; keys beside these are of no use here.
#[derive(Debug, Default, Deserialize)]
struct Infer {
    #[serde(default)]
    id: Option<Text>,
    inputs: Vec<Input>,
    #[serde(default, deserialize_with = "or_null")]
    outputs: Vec<Output>,
}

/// A tensor of a request.
#[derive(Debug, Deserialize)]
struct Input {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    #[serde(default)]
    data: Option<Value>,
    #[serde(default, deserialize_with = "or_null")]
    parameters: Map<String, Value>,
}

/// A tensor that is wanted.
#[derive(Debug, Deserialize)]
struct Output {
    name: String,
}

/// The parameter with the number of a tensor's bytes in the tail.
const SIZE: &str = "binary_data_size";

impl Input {
    /// The tensor, of JSON or of the front of `tail`, which is shortened.
    fn tensor<'a>(&'a self, tail: &mut &[u8]) -> Result<Tensor<'a>, Problem> {
        let Input { name, shape, data, parameters, .. } = self;
        let datatype = Datatype::of(name, &self.datatype)?;
        let size = parameters.get(SIZE).filter(|size| !size.is_null());
        let values = match (data, size) {
            (Some(_), Some(_)) => {
                return Err(wrong(format!("{name} has data and {SIZE}, expected one of them")));
            }
            (Some(data), None) => {
                let flat = flat(data).into_iter().enumerate();
                flat.map(|(at, value)| datatype.of_json(name, at, value))
                    .collect::<Result<_, _>>()?
            }
            (None, Some(size)) => {
                let count = size.as_u64().and_then(|size| usize::try_from(size).ok());
                let Some(size) = count else {
                    let what = format!("{name} has {SIZE} {size}, expected a whole number");
                    return Err(wrong(what));
                };
                let Some((bytes, rest)) = tail.split_at_checked(size) else {
                    let left = tail.len();
                    return Err(wrong(format!("{name} has {size} bytes, and {left} are left")));
                };
                *tail = rest;
                datatype.of_bytes(name, bytes)?
            }
            (None, None) if shape.contains(&0) => Vec::new(),
            (None, None) => {
                return Err(wrong(format!("{name} has no data, expected `data` or `{SIZE}`")));
            }
        };
        Tensor::new(name, datatype, shape, values)
    }
}

/// The values of lists in lists, in their order; a value alone is one.
fn flat(data: &Value) -> Vec<&Value> {
    let (mut flat, mut stack) = (Vec::new(), vec![data]);
    while let Some(value) = stack.pop() {
        match value {
            Value::Array(inner) => stack.extend(inner.iter().rev()),
            value => flat.push(value),
        }
    }
    flat
}

/// Reads a request whose first `header` bytes are JSON; without `header`, all of them.
///
/// # Errors
/// If the JSON, or the bytes behind it, are not the tensors of a page view.
pub(crate) fn read(
    target: &Target,
    header: Option<usize>,
    body: &[u8],
) -> Result<ParsedRequest, Problem> {
    let (page, wanted) = parse(body, header)?;
    Ok(ParsedRequest { target: target.clone(), operation: Operation::Infer(wanted), page })
}

fn parse(body: &[u8], header: Option<usize>) -> Result<(PageView, InferenceOptions), Problem> {
    let cut = body.split_at_checked(header.unwrap_or(body.len()));
    let (text, mut tail) = cut.ok_or_else(|| {
        wrong(format!(
            "Inference-Header-Content-Length is more than the body's {} bytes",
            body.len()
        ))
    })?;
    let Infer { id, inputs, outputs } = ams_bundle::json::read(text)?;
    let tensors = inputs.iter().map(|input| input.tensor(&mut tail)).collect::<Result<_, _>>()?;
    if !tail.is_empty() {
        return Err(wrong(format!("{} bytes are behind those of the last tensor", tail.len())));
    }
    let outputs = outputs.into_iter().map(|output| output.name).collect();
    let wanted = InferenceOptions { id: id.map(|Text(id)| id), outputs, raw: false };
    Ok((page_view(tensors)?, wanted))
}

/// Writes an answer as JSON, the only form of answers over HTTP.
pub(crate) fn write(inferred: &Inferred<'_>) -> Vec<u8> {
    let Inferred { model, wanted, ctr, ecpm } = inferred;
    let mut outputs = Vec::new();
    if let Some(ctr) = ctr {
        let shape = [ctr.len()];
        outputs.push(json!({"name": CTR, "datatype": "FP32", "shape": shape, "data": ctr}));
    }
    if let Some(ecpm) = ecpm {
        let shape = [ecpm.len()];
        outputs.push(json!({"name": ECPM, "datatype": "FP64", "shape": shape, "data": ecpm}));
    }
    let mut answer = json!({
        "model_name": model.name(),
        "model_version": model.version().to_string(),
        "outputs": outputs,
    });
    if let Some(id) = &wanted.id {
        answer["id"] = json!(id);
    }
    super::json::write(&answer)
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
        let (page, wanted) = parse(&body, Some(json.len())).unwrap();
        let expected =
            br#"{"user": {"id": "u1", "behaviors": {"item": ["a", "bc"], "time": [7, 8]}},
            "context": {"hour": "12"}, "candidates": {"item": ["3", "4"], "bid": [1, 0.5],
            "features": {"brand": [null, "x"]}}}"#;
        assert_eq!(page, PageView::parse(expected).unwrap());
        assert_eq!(wanted.id.as_deref(), Some("7"));
    }

    #[test]
    fn what_is_null_is_absent() {
        let tensor =
            |rest: &str| format!(r#"{{"name": "candidates.item", "datatype": "BYTES", {rest}}}"#);
        let full = tensor(r#""shape": [2], "data": ["3", "4"]"#);
        for (inputs, rest) in [
            (full.clone(), r#""id": null"#),
            (full.clone(), r#""outputs": null, "parameters": null"#),
            (full.clone(), r#""outputs": []"#),
            (tensor(r#""shape": [2], "data": ["3", "4"], "parameters": null"#), r#""x": 1"#),
            (tensor(r#""shape": [2], "data": [3, 4], "parameters": {}"#), r#""x": 1"#),
            (
                tensor(
                    r#""shape": [1, 2], "data": [[3, 4]], "parameters": {"binary_data_size": null}"#,
                ),
                r#""x": 1"#,
            ),
            (
                format!(r#"{full}, {{"name": "user.id", "datatype": "INT8", "shape": [0]}}"#),
                r#""x": 1"#,
            ),
        ] {
            let body = format!(r#"{{"inputs": [{inputs}], {rest}}}"#);
            let (page, wanted) = parse(body.as_bytes(), None).unwrap();
            let expected = PageView::parse(br#"{"candidates": {"item": ["3", "4"]}}"#).unwrap();
            assert_eq!((page, wanted), (expected, InferenceOptions::default()), "{body}");
        }
        let body = br#"{"id": 7, "inputs": [{"name": "user.id", "shape": [], "datatype": "INT64", "data": 12}]}"#;
        let (page, wanted) = parse(body, None).unwrap();
        assert_eq!((page.user.id, wanted.id.as_deref()), (Some("12".into()), Some("7")));
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let tensor = |rest: &str| format!(r#"{{"inputs": [{{"name": {rest}}}]}}"#);
        let cases = [
            ("{".to_owned(), "EOF while parsing"),
            ("{}".to_owned(), "missing field `inputs`"),
            (r#"{"inputs": [{}]}"#.to_owned(), "inputs[0]: missing field `name`"),
            (r#"{"inputs": null}"#.to_owned(), "inputs: invalid type: null"),
            (
                tensor(r#""user.id", "shape": [1], "datatype": "FP64", "data": [NaN]"#),
                "inputs[0].data[0]: NaN at line 1 column ",
            ),
            (
                tensor(r#""user.id", "shape": [-1], "datatype": "BYTES", "data": ["a"]"#),
                "inputs[0].shape[0]: invalid value: integer `-1`",
            ),
            (
                tensor(r#""user.id", "shape": [2], "datatype": "BYTES", "data": ["a"]"#),
                "user.id has 1 values of BYTES, expected 2",
            ),
            (
                tensor(r#""user.id", "shape": [1], "datatype": "BYTES", "data": [{}]"#),
                "user.id[0] is {}, which is no BYTES",
            ),
            (
                tensor(r#""user.id", "shape": [1], "datatype": "TEXT", "data": ["1"]"#),
                "user.id has datatype \"TEXT\", expected one of BOOL, UINT8",
            ),
            (tensor(r#""user.id", "shape": [1], "datatype": "BYTES""#), "user.id has no data"),
            (
                tensor(r#""who", "shape": [1], "datatype": "BYTES", "data": ["a"]"#),
                "who: no such input",
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
            (
                tensor(
                    r#""user.id", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": "9"}"#,
                ),
                "user.id has binary_data_size \"9\", expected a whole number",
            ),
            (
                tensor(
                    r#""user.id", "shape": [1], "datatype": "BYTES", "data": ["a"], "parameters": {"binary_data_size": 9}"#,
                ),
                "user.id has data and binary_data_size, expected one of them",
            ),
        ];
        for (body, expected) in cases {
            let problem = parse(body.as_bytes(), None).unwrap_err();
            let said = problem.detail.strip_prefix("request: ").unwrap();
            assert!(said.starts_with(expected), "{said}");
        }
        assert!(parse(b"{}", Some(3)).is_err());
        let body = br#"{"inputs": []}tail"#;
        let said = parse(body, Some(14)).unwrap_err().detail;
        assert_eq!(said, "request: 4 bytes are behind those of the last tensor");
        assert!(parse(body, None).unwrap_err().detail.contains("trailing characters"));
    }
}
