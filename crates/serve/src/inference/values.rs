//! The types of tensors, and their values as texts: numbers by the shortest decimal of their width.

use ams_bundle::request::Text;
use half::{bf16, f16};
use serde_json::Value;

use super::wrong;
use crate::problem::Problem;

/// A type, as the protocol calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    Bytes,
}

use Datatype::*;

const NAMES: [(&str, Datatype); 14] = [
    ("BOOL", Bool),
    ("UINT8", Uint8),
    ("UINT16", Uint16),
    ("UINT32", Uint32),
    ("UINT64", Uint64),
    ("INT8", Int8),
    ("INT16", Int16),
    ("INT32", Int32),
    ("INT64", Int64),
    ("FP16", Fp16),
    ("BF16", Bf16),
    ("FP32", Fp32),
    ("FP64", Fp64),
    ("BYTES", Bytes),
];

impl Datatype {
    /// The type of tensor `name` by its name.
    pub(crate) fn of(name: &str, datatype: &str) -> Result<Datatype, Problem> {
        let found = NAMES.iter().find(|(known, _)| *known == datatype);
        found.map(|&(_, datatype)| datatype).ok_or_else(|| {
            let known = NAMES.map(|(name, _)| name).join(", ");
            wrong(format!("{name} has datatype {datatype:?}, expected one of {known}"))
        })
    }

    pub(crate) fn name(self) -> &'static str {
        NAMES[self as usize].0
    }

    /// Floats: whole numbers from here on may have been rounded.
    pub(crate) fn exact(self) -> Option<f64> {
        let bits = match self {
            Fp64 => 53,
            Fp32 => 24,
            Fp16 => 11,
            Bf16 => 8,
            _ => return None,
        };
        Some((1u64 << bits) as f64)
    }

    /// The values of tensor `name` in `bytes`: little-endian; a text is its length in four bytes,
    /// and its UTF-8.
    pub(crate) fn of_bytes(self, name: &str, mut bytes: &[u8]) -> Result<Vec<Text>, Problem> {
        let of = self.name();
        let read = match self {
            Bool => Some(bytes.iter().map(|&byte| text(byte != 0)).collect()),
            Uint8 => numbers(bytes, |bytes| text(u8::from_le_bytes(bytes))),
            Uint16 => numbers(bytes, |bytes| text(u16::from_le_bytes(bytes))),
            Uint32 => numbers(bytes, |bytes| text(u32::from_le_bytes(bytes))),
            Uint64 => numbers(bytes, |bytes| text(u64::from_le_bytes(bytes))),
            Int8 => numbers(bytes, |bytes| text(i8::from_le_bytes(bytes))),
            Int16 => numbers(bytes, |bytes| text(i16::from_le_bytes(bytes))),
            Int32 => numbers(bytes, |bytes| text(i32::from_le_bytes(bytes))),
            Int64 => numbers(bytes, |bytes| text(i64::from_le_bytes(bytes))),
            Fp16 => numbers(bytes, |bytes| Text::of_f16(f16::from_le_bytes(bytes))),
            Bf16 => numbers(bytes, |bytes| Text::of_bf16(bf16::from_le_bytes(bytes))),
            Fp32 => numbers(bytes, |bytes| Text::of_f32(f32::from_le_bytes(bytes))),
            Fp64 => numbers(bytes, |bytes| Text::of_f64(f64::from_le_bytes(bytes))),
            Bytes => {
                let mut texts = Vec::new();
                while !bytes.is_empty() {
                    let cut = || wrong(format!("{name}[{}]: its bytes end within it", texts.len()));
                    let (length, rest) = bytes.split_first_chunk().ok_or_else(cut)?;
                    let length = u32::from_le_bytes(*length) as usize;
                    let (text, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
                    texts.push(utf8(name, texts.len(), text)?);
                    bytes = rest;
                }
                Some(texts)
            }
        };
        let cut = || {
            wrong(format!("{name} has {} bytes, which are no whole number of {of}", bytes.len()))
        };
        read.ok_or_else(cut)
    }

    /// Value `at` of tensor `name` in JSON; `null` is none.
    pub(crate) fn of_json(self, name: &str, at: usize, value: &Value) -> Result<Text, Problem> {
        let misfit = || wrong(format!("{name}[{at}] is {value}, which is no {}", self.name()));
        let whole = whole(value);
        let fits = |least: i128, most: i128| {
            whole.filter(|whole| (least..=most).contains(whole)).map(text)
        };
        let float = value.as_f64();
        let finite = |text: Text, is_finite: bool| is_finite.then_some(text);
        let text = match (self, value) {
            (_, Value::Null) => Some(Text::default()),
            (Bytes, Value::String(text)) => Some(Text(text.clone())),
            (Bytes | Bool, Value::Bool(value)) => Some(text(value)),
            (Bytes, Value::Number(number)) if number.is_f64() => {
                let exact = float.filter(|float| float.abs() < (1u64 << 53) as f64);
                let exact = exact.ok_or_else(|| {
                    let what = "a number too large to be exact; write it as text, in quotes";
                    wrong(format!("{name}[{at}] is {what}"))
                })?;
                Some(Text::of_f64(exact))
            }
            (Bytes, Value::Number(number)) => Some(text(number)),
            (Bool, Value::Number(_)) => match whole {
                Some(0) => Some(text(false)),
                Some(1) => Some(text(true)),
                _ => None,
            },
            (Uint8, _) => fits(0, u8::MAX.into()),
            (Uint16, _) => fits(0, u16::MAX.into()),
            (Uint32, _) => fits(0, u32::MAX.into()),
            (Uint64, _) => fits(0, u64::MAX.into()),
            (Int8, _) => fits(i8::MIN.into(), i8::MAX.into()),
            (Int16, _) => fits(i16::MIN.into(), i16::MAX.into()),
            (Int32, _) => fits(i32::MIN.into(), i32::MAX.into()),
            (Int64, _) => fits(i64::MIN.into(), i64::MAX.into()),
            // Clients widen what has no type of its own in JSON.
            (Fp16, _) => {
                float.map(f16::from_f64).and_then(|x| finite(Text::of_f16(x), x.is_finite()))
            }
            (Bf16, _) => {
                float.map(bf16::from_f64).and_then(|x| finite(Text::of_bf16(x), x.is_finite()))
            }
            (Fp32, _) => {
                float.map(|x| x as f32).and_then(|x| finite(Text::of_f32(x), x.is_finite()))
            }
            (Fp64, _) => float.map(Text::of_f64),
            _ => None,
        };
        text.ok_or_else(misfit)
    }
}

pub(crate) fn text(value: impl ToString) -> Text {
    Text(value.to_string())
}

/// Element `at` of tensor `name`.
pub(crate) fn utf8(name: &str, at: usize, bytes: &[u8]) -> Result<Text, Problem> {
    let text =
        std::str::from_utf8(bytes).map_err(|_| wrong(format!("{name}[{at}] is not UTF-8")))?;
    Ok(Text(text.to_owned()))
}

fn numbers<const N: usize>(bytes: &[u8], text: impl Fn([u8; N]) -> Text) -> Option<Vec<Text>> {
    let (chunks, rest) = bytes.as_chunks::<N>();
    rest.is_empty().then(|| chunks.iter().map(|chunk| text(*chunk)).collect())
}

/// A whole number, also if it is written `2.0`.
fn whole(value: &Value) -> Option<i128> {
    let Value::Number(number) = value else { return None };
    let of_float = || {
        let float = number.as_f64().filter(|float| float.fract() == 0.0)?;
        (float.abs() < (1u64 << 53) as f64).then_some(float as i128)
    };
    number.as_i64().map(i128::from).or(number.as_u64().map(i128::from)).or_else(of_float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_those_of_their_types() {
        for (name, datatype) in NAMES {
            assert_eq!((Datatype::of("x", name).unwrap(), datatype.name()), (datatype, name));
        }
        let said = Datatype::of("x", "STRING").unwrap_err().detail;
        assert!(
            said.starts_with("request: x has datatype \"STRING\", expected one of BOOL, "),
            "{said}"
        );
    }

    #[test]
    fn bytes_and_json_are_the_same_values() {
        let half = f16::from_f32(4.2).to_le_bytes();
        let brain = bf16::from_f32(4.2).to_le_bytes();
        let cases: [(&str, &[u8], Value, &[&str]); 15] = [
            ("BOOL", &[1, 0], json!([true, 0]), &["true", "false"]),
            ("UINT8", &[7, 255], json!([7, 255.0]), &["7", "255"]),
            ("UINT16", &[1, 1], json!([257]), &["257"]),
            ("UINT32", &[255; 4], json!([u32::MAX]), &["4294967295"]),
            ("UINT64", &[255; 8], json!([u64::MAX]), &["18446744073709551615"]),
            ("INT8", &[255], json!([-1]), &["-1"]),
            ("INT16", &[255; 2], json!([-1]), &["-1"]),
            ("INT32", &[255; 4], json!([-1]), &["-1"]),
            ("INT64", &[255; 8], json!([-1]), &["-1"]),
            ("FP16", &half, json!([4.19921875]), &["4.2"]),
            ("BF16", &brain, json!([4.1875]), &["4.2"]),
            ("FP32", &4.2f32.to_le_bytes(), json!([4.199999809265137]), &["4.2"]),
            ("FP64", &25f64.to_le_bytes(), json!([25]), &["25"]),
            ("FP64", &0.1f64.to_le_bytes(), json!([0.1]), &["0.1"]),
            (
                "BYTES",
                b"\x01\0\0\0a\0\0\0\0\x02\0\0\x0012",
                json!(["a", null, 12]),
                &["a", "", "12"],
            ),
        ];
        for (name, bytes, json, expected) in cases {
            let datatype = Datatype::of("x", name).unwrap();
            let expected: Vec<Text> = expected.iter().map(|&text| text.into()).collect();
            assert_eq!(datatype.of_bytes("x", bytes).unwrap(), expected, "{name}");
            let json = json.as_array().unwrap().iter().enumerate();
            let of_json = json.map(|(at, value)| datatype.of_json("x", at, value).unwrap());
            assert_eq!(of_json.collect::<Vec<_>>(), expected, "{name}");
        }
        assert_eq!(Bytes.of_json("x", 0, &json!(false)).unwrap(), "false".into());
        assert_eq!(Bytes.of_json("x", 0, &json!(2.0)).unwrap(), "2".into());
        assert_eq!(Fp32.of_bytes("x", &f32::NAN.to_le_bytes()).unwrap(), ["NaN".into()]);
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let json = [
            (Uint8, json!(256), "x[3] is 256, which is no UINT8"),
            (Uint64, json!(-1), "x[3] is -1, which is no UINT64"),
            (Int64, json!(u64::MAX), "x[3] is 18446744073709551615, which is no INT64"),
            (Int32, json!(1.5), "x[3] is 1.5, which is no INT32"),
            (Int32, json!("1"), "x[3] is \"1\", which is no INT32"),
            (Bool, json!(2), "x[3] is 2, which is no BOOL"),
            (Fp32, json!(1e300), "x[3] is 1e+300, which is no FP32"),
            (Fp16, json!(1e6), "x[3] is 1000000.0, which is no FP16"),
            (Fp64, json!(true), "x[3] is true, which is no FP64"),
            (Bytes, json!(1e300), "x[3] is a number too large to be exact; write it as text"),
            (Bytes, json!({}), "x[3] is {}, which is no BYTES"),
        ];
        for (datatype, value, expected) in json {
            let said = datatype.of_json("x", 3, &value).unwrap_err().detail;
            assert!(said.strip_prefix("request: ").unwrap().starts_with(expected), "{said}");
        }
        let bytes: [(Datatype, &[u8], &str); 5] = [
            (Int64, &[0; 9], "x has 9 bytes, which are no whole number of INT64"),
            (Fp16, &[0; 3], "x has 3 bytes, which are no whole number of FP16"),
            (Bytes, b"\x01\0\0\0a\x02\0\0\0b", "x[1]: its bytes end within it"),
            (Bytes, b"\x01\0", "x[0]: its bytes end within it"),
            (Bytes, b"\x01\0\0\0a\x01\0\0\0\xff", "x[1] is not UTF-8"),
        ];
        for (datatype, bytes, expected) in bytes {
            let said = datatype.of_bytes("x", bytes).unwrap_err().detail;
            assert_eq!(said.strip_prefix("request: ").unwrap(), expected);
        }
    }
}
