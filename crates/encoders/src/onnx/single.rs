//! Networks of half precision, computed in single precision: weights, constants and types are
//! widened as the file is read.
//!
//! Halfs (f16) and bfloats (bf16) are exact in f32, so a widened network differs from the file's
//! only in that it does not round between its nodes. Kernels for f32 are the fast ones on every
//! processor, and the only ones for some nodes.
//!
//! Knows the file format's messages. Does not know what nodes compute.

use half::{bf16, f16};
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, type_proto};

/// Attributes that name a type.
const TYPES: [&str; 4] = ["to", "dtype", "stash_type", "output_dtype"];

const SINGLE: i32 = DataType::Float as i32;

/// Reads what a tensor keeps in a file of its own.
type Outside<'a> = dyn Fn(&TensorProto) -> Result<Vec<u8>, String> + 'a;

/// Whether values of this type are widened.
pub(crate) fn is_narrow(kind: i32) -> bool {
    kind == DataType::Float16 as i32 || kind == DataType::Bfloat16 as i32
}

/// Widens all that is of half precision in `graph`; whether anything was. `outside` reads what a
/// tensor keeps in a file.
///
/// # Errors
/// If a tensor has not as many values as its dimensions say, or `outside` fails.
pub(crate) fn widen(graph: &mut GraphProto, outside: &Outside<'_>) -> Result<bool, String> {
    let mut found = false;
    for tensor in &mut graph.initializer {
        found |= widen_tensor(tensor, outside)?;
    }
    for value in graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info) {
        found |= widen_value(value);
    }
    for node in &mut graph.node {
        found |= widen_node(node, outside)?;
    }
    Ok(found)
}

fn widen_node(node: &mut NodeProto, outside: &Outside<'_>) -> Result<bool, String> {
    let mut found = false;
    for attribute in &mut node.attribute {
        for tensor in attribute.t.iter_mut().chain(&mut attribute.tensors) {
            found |= widen_tensor(tensor, outside)?;
        }
        for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            found |= widen(graph, outside)?;
        }
        if TYPES.contains(&attribute.name.as_str())
            && i32::try_from(attribute.i).is_ok_and(is_narrow)
        {
            attribute.i = SINGLE.into();
            found = true;
        }
    }
    Ok(found)
}

fn widen_value(value: &mut ValueInfoProto) -> bool {
    let Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. }) =
        &mut value.r#type
    else {
        return false;
    };
    let narrow = is_narrow(tensor.elem_type);
    if narrow {
        tensor.elem_type = SINGLE;
    }
    narrow
}

fn widen_tensor(tensor: &mut TensorProto, outside: &Outside<'_>) -> Result<bool, String> {
    if !is_narrow(tensor.data_type) {
        return Ok(false);
    }
    let is_half = tensor.data_type == DataType::Float16 as i32;
    let wide = |bits: u16| {
        if is_half { f16::from_bits(bits).to_f32() } else { bf16::from_bits(bits).to_f32() }
    };
    let is_outside = tensor.data_location == Some(DataLocation::External as i32);
    let raw = if is_outside { outside(tensor)? } else { std::mem::take(&mut tensor.raw_data) };
    let values: Vec<f32> = if raw.is_empty() {
        // The format keeps the bits of a half in the lower half of an integer.
        tensor.int32_data.iter().map(|bits| wide(*bits as u16)).collect()
    } else {
        raw.as_chunks().0.iter().map(|bytes| wide(u16::from_le_bytes(*bytes))).collect()
    };
    let expected = tensor.dims.iter().try_fold(1usize, |product, dim| {
        usize::try_from(*dim).ok().and_then(|dim| product.checked_mul(dim))
    });
    if expected != Some(values.len()) || raw.len() % 2 == 1 {
        let (name, dims, count) = (&tensor.name, &tensor.dims, values.len());
        return Err(format!("weights `{name}` are {dims:?}, but have {count} values"));
    }
    tensor.data_type = SINGLE;
    tensor.data_location = None;
    tensor.external_data.clear();
    tensor.int32_data.clear();
    tensor.raw_data = Vec::new();
    tensor.float_data = values;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widened(tensor: TensorProto) -> Result<Vec<f32>, String> {
        let mut graph = GraphProto { initializer: vec![tensor], ..GraphProto::default() };
        widen(&mut graph, &|_| Ok(vec![0x00, 0x3e, 0x00, 0xc0]))?;
        let tensor = graph.initializer.remove(0);
        assert_eq!((tensor.data_type, tensor.data_location), (SINGLE, None));
        Ok(tensor.float_data)
    }

    #[test]
    fn halfs_and_bfloats_wherever_they_are_kept() {
        let half = TensorProto {
            data_type: DataType::Float16 as i32,
            dims: vec![2],
            ..TensorProto::default()
        };
        let bfloat = TensorProto { data_type: DataType::Bfloat16 as i32, ..half.clone() };
        let raw = |tensor: &TensorProto, bytes: [u8; 4]| TensorProto {
            raw_data: bytes.to_vec(),
            ..tensor.clone()
        };
        let expected = Ok(vec![1.5, -2.0]);
        assert_eq!(widened(raw(&half, [0x00, 0x3e, 0x00, 0xc0])), expected);
        assert_eq!(widened(raw(&bfloat, [0xc0, 0x3f, 0x00, 0xc0])), expected);
        let bits = TensorProto { int32_data: vec![0x3e00, 0xc000], ..half.clone() };
        assert_eq!(widened(bits), expected);
        let location = Some(DataLocation::External as i32);
        assert_eq!(widened(TensorProto { data_location: location, ..half.clone() }), expected);
        let short = TensorProto { int32_data: vec![0x3e00], ..half };
        assert!(widened(short).unwrap_err().contains("are [2], but have 1 values"));
    }
}
