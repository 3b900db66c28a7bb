//! The Open Inference Protocol over HTTP: tensors as JSON, or as bytes behind it.
//!
//! The binary tensor data extension: header `Inference-Header-Content-Length` says how many bytes of the body are JSON, each
//! tensor's `binary_data_size` how many of the rest are its. Answers are JSON, which the extension allows.

use ams_bundle::PageView;
use ams_bundle::request::Text;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{CTR, ECPM, Inferred, Values, Wanted, place, wrong};
use crate::problem::Problem;

/// A request.
#[derive(Debug, Deserialize)]
struct Infer {
    #[serde(default)]
    id: Option<String>,
    inputs: Vec<Tensor>,
    #[serde(default)]
    outputs: Vec<Output>,
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

/// A tensor that is wanted.
#[derive(Debug, Deserialize)]
struct Output {
    name: String,
}

impl Tensor {
    fn named(&self) -> super::Tensor<'_> {
        super::Tensor { name: &self.name, datatype: &self.datatype }
    }

    /// The values, of JSON or of the front of `tail`, which is shortened.
    fn values(&self, tail: &mut &[u8]) -> Result<Values, Problem> {
        let name = &self.name;
        match (&self.data, self.parameters.get("binary_data_size").and_then(Value::as_u64)) {
            (Some(data), _) => self.of_json(data),
            (None, Some(size)) => {
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                let Some((bytes, rest)) = tail.split_at_checked(size) else {
                    let left = tail.len();
                    return Err(wrong(format!("{name} has {size} bytes, and {left} are left")));
                };
                *tail = rest;
                self.named().of_bytes(bytes)
            }
            (None, None) => Err(wrong(format!("{name} has no data"))),
        }
    }

    fn of_json(&self, data: &[Value]) -> Result<Values, Problem> {
        let tensor = self.named();
        let super::Tensor { name, datatype } = tensor;
        let not =
            |value: &Value| wrong(format!("{} holds {value}, which is no {}", name, datatype));
        let mut flat = Vec::with_capacity(data.len());
        let mut stack: Vec<&Value> = data.iter().rev().collect();
        while let Some(value) = stack.pop() {
            match value {
                Value::Array(inner) => stack.extend(inner.iter().rev()),
                value => flat.push(value),
            }
        }
        match datatype {
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
            _ => Err(tensor.unknown()),
        }
    }
}

/// Reads a request whose first `header` bytes are JSON, all of them if not said.
pub(crate) fn parse(body: &[u8], header: Option<usize>) -> Result<(PageView, Wanted), Problem> {
    let (text, mut tail) =
        body.split_at_checked(header.unwrap_or(body.len())).ok_or_else(|| {
            wrong(format!(
                "Inference-Header-Content-Length is more than the body's {} bytes",
                body.len()
            ))
        })?;
    let Infer { id, inputs, outputs } =
        serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
    let mut page = PageView::default();
    for tensor in &inputs {
        let values = tensor.values(&mut tail)?;
        place(tensor.named(), &tensor.shape, values, &mut page)?;
    }
    let outputs = outputs.into_iter().map(|output| output.name).collect();
    Ok((page, Wanted { id, outputs, raw: false }))
}

/// An answer as JSON.
pub(crate) fn answer(inferred: &Inferred<'_>) -> Value {
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
    answer
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
            "context": {"hour": ["12"]}, "candidates": {"item": ["3", "4"], "bid": [1, 0.5],
            "features": {"brand": [null, "x"]}}}"#;
        assert_eq!(page, PageView::parse(expected).unwrap());
        assert_eq!(wanted.id.as_deref(), Some("7"));
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
