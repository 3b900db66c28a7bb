//! `inference.GRPCInferenceService`: its tensors, as numbers or as bytes.

use ams_bundle::Model;
use ams_bundle::request::Text;
use axum::body::Bytes;
use prost::Message;

use super::messages::{decoded, inference as proto};
use crate::answer::{Operation, ParsedRequest, Target, version_of};
use crate::inference::tensors::{Tensor, page_view};
use crate::inference::values::{Datatype, text, utf8};
use crate::inference::{self, Described, InferenceOptions, Inferred, wrong};
use crate::problem::Problem;
use proto::model_infer_response::InferOutputTensor;
use proto::model_metadata_response::TensorMetadata;

/// The target of a request; an empty version is none.
pub(crate) fn target(model: String, version: &str) -> Result<Target, Problem> {
    if version.is_empty() {
        return Ok(Target { model, version: None });
    }
    Ok(Target { model, version: Some(version_of(version)?) })
}

/// Reads a request.
///
/// # Errors
/// If it is not the tensors of a page view.
pub(crate) fn read(message: Bytes) -> Result<ParsedRequest, Problem> {
    let request: proto::ModelInferRequest = decoded(message)?;
    let target = target(request.model_name, &request.model_version)?;
    let (inputs, raw) = (&request.inputs, &request.raw_input_contents);
    if !raw.is_empty() && raw.len() != inputs.len() {
        let (raw, inputs) = (raw.len(), inputs.len());
        return Err(wrong(format!("raw_input_contents are {raw}, expected {inputs} as inputs")));
    }
    let none = proto::InferTensorContents::default();
    let mut tensors = Vec::with_capacity(inputs.len());
    for (at, input) in inputs.iter().enumerate() {
        let name = &input.name;
        let datatype = Datatype::of(name, &input.datatype)?;
        // Some clients send contents without any.
        let contents = input.contents.as_ref().filter(|contents| **contents != none);
        let values = match (raw.get(at), contents) {
            (Some(bytes), None) => datatype.of_bytes(name, bytes)?,
            (None, contents) => of_contents(name, datatype, contents.unwrap_or(&none))?,
            (Some(_), Some(_)) => {
                let what = "has contents, and raw_input_contents has bytes; expected one of them";
                return Err(wrong(format!("{name} {what}")));
            }
        };
        tensors.push(Tensor::new(name, datatype, &input.shape, values)?);
    }
    let page = page_view(tensors)?;
    let wanted = InferenceOptions {
        id: Some(request.id).filter(|id| !id.is_empty()),
        outputs: request.outputs.into_iter().map(|output| output.name).collect(),
        raw: !raw.is_empty(),
    };
    Ok(ParsedRequest { target, operation: Operation::Infer(wanted), page })
}

/// The values of tensor `name`: each type has its field.
fn of_contents(
    name: &str,
    datatype: Datatype,
    contents: &proto::InferTensorContents,
) -> Result<Vec<Text>, Problem> {
    /// Numbers that have to fit a narrower type.
    fn narrow<T: ToString + Copy, N: TryFrom<T>>(
        name: &str,
        datatype: Datatype,
        values: &[T],
    ) -> Result<Vec<Text>, Problem> {
        let fits = |(at, &value): (usize, &T)| match N::try_from(value) {
            Ok(_) => Ok(text(value)),
            Err(_) => {
                let (value, datatype) = (value.to_string(), datatype.name());
                Err(wrong(format!("{name}[{at}] is {value}, which is no {datatype}")))
            }
        };
        values.iter().enumerate().map(fits).collect()
    }
    let (ints, uints) = (&contents.int_contents[..], &contents.uint_contents[..]);
    let values = match datatype {
        Datatype::Bool => contents.bool_contents.iter().map(text).collect(),
        Datatype::Int8 => narrow::<_, i8>(name, datatype, ints)?,
        Datatype::Int16 => narrow::<_, i16>(name, datatype, ints)?,
        Datatype::Int32 => ints.iter().map(text).collect(),
        Datatype::Int64 => contents.int64_contents.iter().map(text).collect(),
        Datatype::Uint8 => narrow::<_, u8>(name, datatype, uints)?,
        Datatype::Uint16 => narrow::<_, u16>(name, datatype, uints)?,
        Datatype::Uint32 => uints.iter().map(text).collect(),
        Datatype::Uint64 => contents.uint64_contents.iter().map(text).collect(),
        Datatype::Fp32 => contents.fp32_contents.iter().map(|&x| Text::of_f32(x)).collect(),
        Datatype::Fp64 => contents.fp64_contents.iter().map(|&x| Text::of_f64(x)).collect(),
        Datatype::Bytes => {
            let texts = contents.bytes_contents.iter().enumerate();
            texts.map(|(at, bytes)| utf8(name, at, bytes)).collect::<Result<_, _>>()?
        }
        Datatype::Fp16 | Datatype::Bf16 => Vec::new(),
    };
    if values.is_empty() && *contents != proto::InferTensorContents::default() {
        let field = match datatype {
            Datatype::Bool => "bool_contents",
            Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => "int_contents",
            Datatype::Int64 => "int64_contents",
            Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => "uint_contents",
            Datatype::Uint64 => "uint64_contents",
            Datatype::Fp32 => "fp32_contents",
            Datatype::Fp64 => "fp64_contents",
            Datatype::Bytes => "bytes_contents",
            Datatype::Fp16 | Datatype::Bf16 => "raw_input_contents",
        };
        let what = format!("{name} is {}, whose values belong in {field}", datatype.name());
        return Err(wrong(what));
    }
    Ok(values)
}

/// Writes the message of an answer: as bytes if the request's were.
pub(crate) fn write(inferred: &Inferred<'_>) -> Vec<u8> {
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

/// The metadata of a model, by the protocol.
pub(crate) fn describe(model: &Model) -> proto::ModelMetadataResponse {
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
    use crate::problem::Kind;
    use proto::InferTensorContents;
    use proto::model_infer_request::InferInputTensor;

    fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
        let (name, datatype) = (name.to_owned(), datatype.to_owned());
        InferInputTensor { name, datatype, shape: shape.to_vec(), ..Default::default() }
    }

    fn parsed(inputs: Vec<InferInputTensor>, raw: &[&[u8]]) -> Result<ParsedRequest, Problem> {
        let raw_input_contents = raw.iter().map(|&bytes| Bytes::copy_from_slice(bytes)).collect();
        let request = proto::ModelInferRequest { inputs, raw_input_contents, ..Default::default() };
        read(request.encode_to_vec().into())
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
        assert_eq!(by_bytes.page, ams_bundle::PageView::parse(expected).unwrap());
        assert_eq!(by_numbers.page, by_bytes.page);
        let raw = |asked: ParsedRequest| {
            matches!(asked.operation, Operation::Infer(InferenceOptions { raw: true, .. }))
        };
        assert_eq!((raw(by_bytes), raw(by_numbers)), (true, false));
    }

    #[test]
    fn every_type_has_its_contents() {
        use proto::InferTensorContents as Contents;
        let none = Contents::default;
        let ids = [
            ("BOOL", Contents { bool_contents: vec![true, false], ..none() }, ["true", "false"]),
            ("INT8", Contents { int_contents: vec![-8, 7], ..none() }, ["-8", "7"]),
            ("INT16", Contents { int_contents: vec![-300, 7], ..none() }, ["-300", "7"]),
            ("INT32", Contents { int_contents: vec![i32::MIN, 7], ..none() }, ["-2147483648", "7"]),
            (
                "INT64",
                Contents { int64_contents: vec![i64::MAX, 7], ..none() },
                ["9223372036854775807", "7"],
            ),
            ("UINT8", Contents { uint_contents: vec![255, 7], ..none() }, ["255", "7"]),
            ("UINT16", Contents { uint_contents: vec![65535, 7], ..none() }, ["65535", "7"]),
            (
                "UINT32",
                Contents { uint_contents: vec![u32::MAX, 7], ..none() },
                ["4294967295", "7"],
            ),
            (
                "UINT64",
                Contents { uint64_contents: vec![u64::MAX, 7], ..none() },
                ["18446744073709551615", "7"],
            ),
            ("FP32", Contents { fp32_contents: vec![25.0, 4.2], ..none() }, ["25", "4.2"]),
            ("FP64", Contents { fp64_contents: vec![25.0, 4.2], ..none() }, ["25", "4.2"]),
            (
                "BYTES",
                Contents { bytes_contents: vec![b"a".to_vec(), b"007".to_vec()], ..none() },
                ["a", "007"],
            ),
        ];
        for (datatype, contents, expected) in ids {
            let contents = Some(contents);
            let tensor =
                InferInputTensor { contents, ..input("candidates.item", datatype, &[2, 1]) };
            let asked = parsed(vec![tensor], &[]).unwrap();
            assert_eq!(asked.page.candidates.item, expected.map(Text::from), "{datatype}");
        }
        // Contents without any beside bytes, as some clients have them.
        let tensor =
            InferInputTensor { contents: Some(none()), ..input("candidates.item", "INT64", &[1]) };
        let asked = parsed(vec![tensor], &[&7i64.to_le_bytes()]).unwrap();
        assert_eq!(asked.page.candidates.item, ["7".into()]);
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
        let cases: [(InferInputTensor, &[&[u8]], &str); 10] = [
            (item(&[1]), &[], "candidates.item has 0 values of BYTES, expected 1"),
            (item(&[-1]), &[one], "candidates.item has shape [-1]"),
            (item(&[1]), &[one, one], "raw_input_contents are 2, expected 1 as inputs"),
            (item(&[1]), &[b"\x02\0\0\0a"], "candidates.item[0]: its bytes end within it"),
            (contents(b"a"), &[one], "candidates.item has contents, and raw_input_contents"),
            (contents(b"\xff"), &[], "candidates.item[0] is not UTF-8"),
            (input("user.id", "BOOL", &[1]), &[], "user.id has 0 values of BOOL, expected 1"),
            (
                InferInputTensor { datatype: "INT64".to_owned(), ..contents(b"7") },
                &[],
                "candidates.item is INT64, whose values belong in int64_contents",
            ),
            (
                InferInputTensor { datatype: "FP16".to_owned(), ..contents(b"7") },
                &[],
                "candidates.item is FP16, whose values belong in raw_input_contents",
            ),
            (
                InferInputTensor {
                    contents: Some(InferTensorContents {
                        int_contents: vec![7, 300],
                        ..Default::default()
                    }),
                    ..input("user.id", "INT8", &[2])
                },
                &[],
                "user.id[1] is 300, which is no INT8",
            ),
        ];
        for (input, raw, expected) in cases {
            let problem = parsed(vec![input], raw).unwrap_err();
            let said = problem.detail.strip_prefix("request: ").unwrap();
            assert!(said.starts_with(expected), "{said}");
        }
        assert_eq!(target(String::new(), "x").unwrap_err().kind, Kind::NotFound);
    }
}
