//! `inference.GRPCInferenceService`: its tensors, as numbers or as bytes.

use ams_bundle::Model;
use ams_bundle::request::{PageView, Text};
use axum::body::Bytes;
use prost::Message;

use super::decoded;
use super::messages::inference as proto;
use crate::answer::{Ask, Asked, Target};
use crate::inference::{self, Described, Inferred, Tensor, Values, Wanted, place, wrong};
use crate::problem::{Kind, Problem};
use proto::model_infer_response::InferOutputTensor;
use proto::model_metadata_response::TensorMetadata;

/// Who is meant; an empty version is none.
pub(super) fn target(model: String, version: &str) -> Result<Target, Problem> {
    if version.is_empty() {
        return Ok(Target { model, version: None });
    }
    let wrong = || Problem::new(Kind::NotFound, format!("version {version:?} is no whole number"));
    let version = version.parse().map_err(|_| wrong())?;
    Ok(Target { model, version: Some(version) })
}

/// Reads a request.
pub(crate) fn parse(message: Bytes) -> Result<Asked, Problem> {
    let request: proto::ModelInferRequest = decoded(message)?;
    let target = target(request.model_name, &request.model_version)?;
    let (inputs, raw) = (&request.inputs, &request.raw_input_contents);
    if !raw.is_empty() && raw.len() != inputs.len() {
        let (raw, inputs) = (raw.len(), inputs.len());
        return Err(wrong(format!("raw_input_contents are {raw}, expected {inputs} as inputs")));
    }
    let mut page = PageView::default();
    for (at, input) in inputs.iter().enumerate() {
        let tensor = Tensor { name: &input.name, datatype: &input.datatype };
        let values = match (raw.get(at), &input.contents) {
            (Some(bytes), None) => tensor.of_bytes(bytes)?,
            (None, Some(contents)) => of_contents(tensor, contents)?,
            (None, None) => of_contents(tensor, &proto::InferTensorContents::default())?,
            (Some(_), Some(_)) => {
                let what = "has contents, and raw_input_contents has bytes; expected one of them";
                return Err(wrong(format!("{} {what}", input.name)));
            }
        };
        place(tensor, &input.shape, values, &mut page)?;
    }
    let wanted = Wanted {
        id: Some(request.id).filter(|id| !id.is_empty()),
        outputs: request.outputs.into_iter().map(|output| output.name).collect(),
        raw: !raw.is_empty(),
    };
    Ok(Asked { target, ask: Ask::Infer(wanted), page })
}

fn of_contents(tensor: Tensor, contents: &proto::InferTensorContents) -> Result<Values, Problem> {
    Ok(match tensor.datatype {
        "BYTES" => {
            let text = |bytes: &Vec<u8>| {
                let text = String::from_utf8(bytes.clone());
                text.map(Text).map_err(|_| wrong(format!("{} is not UTF-8", tensor.name)))
            };
            Values::Texts(contents.bytes_contents.iter().map(text).collect::<Result<_, _>>()?)
        }
        "FP64" => Values::Floats(contents.fp64_contents.clone()),
        "FP32" => Values::Floats(contents.fp32_contents.iter().map(|&x| f64::from(x)).collect()),
        "INT64" => Values::Whole(contents.int64_contents.clone()),
        "INT32" => Values::Whole(contents.int_contents.iter().map(|&x| i64::from(x)).collect()),
        _ => return Err(tensor.unknown()),
    })
}

/// The message of an answer: as bytes if the request's were.
pub(crate) fn answer(inferred: &Inferred<'_>) -> Vec<u8> {
    let Inferred { model, wanted, ctr, ecpm } = inferred;
    let (mut outputs, mut raw_output_contents) = (Vec::new(), Vec::new());
    let mut add = |name: &str, datatype: &str, count: usize, contents, bytes: Vec<u8>| {
        let contents = (!wanted.raw).then_some(contents);
        let (name, datatype, shape) = (name.to_owned(), datatype.to_owned(), vec![count as i64]);
        outputs.push(InferOutputTensor { name, datatype, shape, contents, ..Default::default() });
        if wanted.raw {
            raw_output_contents.push(bytes);
        }
    };
    if let &Some(ctr) = ctr {
        let bytes = ctr.iter().flat_map(|ctr| ctr.to_le_bytes()).collect();
        let fp32_contents = ctr.to_vec();
        let contents = proto::InferTensorContents { fp32_contents, ..Default::default() };
        add(inference::CTR, "FP32", ctr.len(), contents, bytes);
    }
    if let Some(ecpm) = ecpm {
        let bytes = ecpm.iter().flat_map(|ecpm| ecpm.to_le_bytes()).collect();
        let fp64_contents = ecpm.clone();
        let contents = proto::InferTensorContents { fp64_contents, ..Default::default() };
        add(inference::ECPM, "FP64", ecpm.len(), contents, bytes);
    }
    let response = proto::ModelInferResponse {
        model_name: model.name().to_owned(),
        model_version: model.version().to_string(),
        id: wanted.id.clone().unwrap_or_default(),
        outputs,
        raw_output_contents,
        ..Default::default()
    };
    response.encode_to_vec()
}

/// What the protocol says of a model.
pub(super) fn describe(model: &Model) -> proto::ModelMetadataResponse {
    let inference::Description { name, versions, platform, inputs, outputs } =
        inference::describe(model);
    let tensor = |Described { name, datatype, shape }| TensorMetadata {
        name,
        datatype: str::to_owned(datatype),
        shape: shape.to_vec(),
    };
    proto::ModelMetadataResponse {
        name: name.to_owned(),
        versions: versions.to_vec(),
        platform: platform.to_owned(),
        inputs: inputs.into_iter().map(tensor).collect(),
        outputs: outputs.into_iter().map(tensor).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::InferTensorContents;
    use proto::model_infer_request::InferInputTensor;

    fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
        let (name, datatype) = (name.to_owned(), datatype.to_owned());
        InferInputTensor { name, datatype, shape: shape.to_vec(), ..Default::default() }
    }

    fn parsed(inputs: Vec<InferInputTensor>, raw: &[&[u8]]) -> Result<Asked, Problem> {
        let raw_input_contents = raw.iter().map(|&bytes| Bytes::copy_from_slice(bytes)).collect();
        let request = proto::ModelInferRequest { inputs, raw_input_contents, ..Default::default() };
        parse(request.encode_to_vec().into())
    }

    #[test]
    fn numbers_and_bytes_are_the_same_page_view() {
        let inputs = || {
            vec![
                input("candidates.item", "BYTES", &[1, 2]),
                input("candidates.bid", "FP32", &[2]),
                input("user.behaviors.time", "INT64", &[1]),
            ]
        };
        let (one, half) = (1.0f32.to_le_bytes(), 0.5f32.to_le_bytes());
        let bids = [one, half].concat();
        let raw: [&[u8]; 3] = [b"\x01\0\0\0a\x02\0\0\0bc", &bids, b"\x07\0\0\0\0\0\0\0"];
        let by_bytes = parsed(inputs(), &raw).unwrap();
        let mut inputs = inputs();
        let contents = [
            InferTensorContents {
                bytes_contents: vec![b"a".to_vec(), b"bc".to_vec()],
                ..Default::default()
            },
            InferTensorContents { fp32_contents: vec![1.0, 0.5], ..Default::default() },
            InferTensorContents { int64_contents: vec![7], ..Default::default() },
        ];
        for (input, contents) in inputs.iter_mut().zip(contents) {
            input.contents = Some(contents);
        }
        let by_numbers = parsed(inputs, &[]).unwrap();
        let expected = br#"{"user": {"behaviors": {"item": [], "time": [7]}},
            "candidates": {"item": ["a", "bc"], "bid": [1, 0.5]}}"#;
        assert_eq!(by_bytes.page, PageView::parse(expected).unwrap());
        assert_eq!(by_numbers.page, by_bytes.page);
        let raw = |asked: Asked| matches!(asked.ask, Ask::Infer(Wanted { raw: true, .. }));
        assert_eq!((raw(by_bytes), raw(by_numbers)), (true, false));
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let item = |shape| input("candidates.item", "BYTES", shape);
        let contents = |bytes: &[u8]| InferInputTensor {
            contents: Some(InferTensorContents {
                bytes_contents: vec![bytes.to_vec()],
                ..Default::default()
            }),
            ..item(&[1])
        };
        let one: &[u8] = b"\x01\0\0\0a";
        let cases: [(InferInputTensor, &[&[u8]], &str); 7] = [
            (item(&[1]), &[], "candidates.item has 0 values of BYTES, expected 1"),
            (item(&[-1]), &[one], "candidates.item has shape [-1]"),
            (item(&[1]), &[one, one], "raw_input_contents are 2, expected 1 as inputs"),
            (item(&[1]), &[b"\x02\0\0\0a"], "candidates.item ends within a value"),
            (contents(b"a"), &[one], "candidates.item has contents, and raw_input_contents"),
            (contents(b"\xff"), &[], "candidates.item is not UTF-8"),
            (input("user.id", "BOOL", &[1]), &[], "user.id is BOOL, expected BYTES"),
        ];
        for (input, raw, expected) in cases {
            let problem = parsed(vec![input], raw).unwrap_err();
            let said = problem.detail.strip_prefix("request: ").unwrap();
            assert!(said.starts_with(expected), "{said}");
        }
        assert_eq!(target(String::new(), "x").unwrap_err().kind, Kind::NotFound);
    }
}
