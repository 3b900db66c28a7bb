//! The reader of JSON from clients, with errors that name path, line and column.
//!
//! `null` and an object without keys are what is absent. PHP writes the latter `[]`, which is taken
//! too.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_path_to_error::Track;

use crate::error::{Error, Result};

/// Reads a body, which has to be one JSON object in UTF-8; a byte order mark and space around it
/// are passed over.
///
/// # Errors
/// [`Error::Request`] with the path of what is wrong, line and column.
pub fn read<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T> {
    let text = text(body)?;
    let mut json = serde_json::Deserializer::from_slice(text);
    let read = object(&mut json).and_then(|read| json.end().map(|()| read));
    read.map_err(|error| Error::request(explain::<T>(text, &error)))
}

/// The text of a body, without its byte order mark.
fn text(body: &[u8]) -> Result<&[u8]> {
    let other = match body {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..] => "UTF-16 or UTF-32",
        [0x1f, 0x8b, ..] => {
            let what = "the body is gzip; say so with the header `Content-Encoding: gzip`";
            return Err(Error::request(what));
        }
        _ => return Ok(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)),
    };
    Err(Error::request(format!("the body is {other}, expected JSON in UTF-8")))
}

/// What is wrong, and where. Reads once more, because following the path costs time that good
/// requests need not spend.
fn explain<T: DeserializeOwned + Default>(text: &[u8], error: &serde_json::Error) -> String {
    let mut track = Track::new();
    let mut json = serde_json::Deserializer::from_slice(text);
    let read: Result<T, _> = object(serde_path_to_error::Deserializer::new(&mut json, &mut track));
    let path = match read {
        Err(_) => track.path().to_string(),
        Ok(_) => ".".to_owned(),
    };
    // A part that has no name is one of a key that was not read to its end.
    let path = path.trim_end_matches(['.', '?']);
    let place = if path.is_empty() { String::new() } else { format!("{path}: ") };
    match literal(text, error) {
        Some(word) => format!(
            "{place}{word} at line {} column {} is no JSON; expected a number, or null for none",
            error.line(),
            error.column()
        ),
        None => format!("{place}{error}"),
    }
}

/// The word of JavaScript that JSON lacks, if the text breaks off there. Python writes such.
fn literal(text: &[u8], error: &serde_json::Error) -> Option<&'static str> {
    if !error.is_syntax() {
        return None;
    }
    let line = text.split(|&byte| byte == b'\n').nth(error.line().checked_sub(1)?)?;
    let column = error.column();
    let starts = (column.saturating_sub(2)..=column).filter_map(|start| line.get(start..));
    let words = ["-Infinity", "Infinity", "NaN"];
    words.into_iter().find(|word| starts.clone().any(|text| text.starts_with(word.as_bytes())))
}

/// Reads an object, for `deserialize_with`; nothing else is one.
///
/// # Errors
/// If it is something else.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(ObjectVisitor { or_null: false, of: PhantomData })
}

/// Reads an object; `null` is the default.
///
/// # Errors
/// If it is something else.
pub fn object_or_null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(ObjectVisitor { or_null: true, of: PhantomData })
}

/// Reads anything; `null` is the default.
///
/// # Errors
/// If it is something else.
pub fn or_null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

struct ObjectVisitor<T> {
    or_null: bool,
    of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_unit<E: de::Error>(self) -> Result<T, E> {
        if self.or_null {
            Ok(T::default())
        } else {
            Err(E::invalid_type(de::Unexpected::Other("null"), &self))
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<T, A::Error> {
        match list.next_element::<IgnoredAny>()? {
            // What has to be in the object is missed as in `{}`.
            None => {
                T::deserialize(de::value::MapDeserializer::new(std::iter::empty::<(&str, &str)>()))
            }
            Some(_) => Err(de::Error::invalid_type(de::Unexpected::Seq, &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// Values by name, each name once; `null` is no names.
pub(crate) struct Named<V>(pub(crate) BTreeMap<String, V>);

impl<V> Default for Named<V> {
    fn default() -> Named<V> {
        Named(BTreeMap::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Named<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Named<V>, D::Error> {
        deserializer.deserialize_map(NamedVisitor(PhantomData))
    }
}

struct NamedVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for NamedVisitor<V> {
    type Value = Named<V>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<V>, A::Error> {
        let mut named = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if named.contains_key(&name) {
                return Err(de::Error::custom(format!("duplicate field `{name}`")));
            }
            let value = map.next_value()?;
            named.insert(name, value);
        }
        Ok(Named(named))
    }
}

/// Reads values by name.
///
/// # Errors
/// If it is something else, or a name comes twice.
pub fn named<'de, D: Deserializer<'de>, V: Deserialize<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, V>, D::Error> {
    object_or_null(deserializer).map(|Named(named)| named)
}

/// Reads a count: a whole number, also `10.0`; `null` is none.
///
/// # Errors
/// If it is something else.
pub(crate) fn count<'de, D: Deserializer<'de>, N: TryFrom<u64>>(
    deserializer: D,
) -> Result<Option<N>, D::Error> {
    deserializer.deserialize_any(CountVisitor(PhantomData))
}

struct CountVisitor<N>(PhantomData<N>);

impl<N: TryFrom<u64>> Visitor<'_> for CountVisitor<N> {
    type Value = Option<N>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a whole number, 0 or more")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Option<N>, E> {
        Ok(None)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Option<N>, E> {
        let wrong = |_| E::invalid_value(de::Unexpected::Unsigned(value), &self);
        N::try_from(value).map(Some).map_err(wrong)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Option<N>, E> {
        if value.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&value) {
            self.visit_u64(value as u64)
        } else {
            Err(E::invalid_value(de::Unexpected::Float(value), &self))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(default, deserialize_with = "object_or_null")]
        inner: Inner,
        #[serde(default, deserialize_with = "named")]
        named: BTreeMap<String, f64>,
        #[serde(default, deserialize_with = "count")]
        count: Option<u8>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[serde(default)]
        list: Vec<f64>,
    }

    fn said(body: &[u8]) -> String {
        let error = read::<Outer>(body).expect_err("read").to_string();
        error.strip_prefix("request: ").expect("a request's error").to_owned()
    }

    #[test]
    fn what_is_absent_may_be_spelled() {
        for body in [
            &b"{}"[..],
            b"[]",
            b"\xef\xbb\xbf{}",
            b" \r\n\t{} \n",
            br#"{"inner": null, "named": null, "count": null}"#,
            br#"{"inner": {}, "named": {}}"#,
            br#"{"inner": [], "named": []}"#,
        ] {
            assert_eq!(read::<Outer>(body).unwrap(), Outer::default());
        }
        let outer: Outer = read(br#"{"count": 2.0, "named": {"a": 1}}"#).unwrap();
        assert_eq!((outer.count, outer.named["a"]), (Some(2), 1.0));
    }

    #[test]
    fn errors_name_the_path() {
        let cases: [(&[u8], &str); 22] = [
            (b"", "EOF while parsing a value at line 1 column 0"),
            (b"null", "invalid type: null, expected an object at line 1 column 4"),
            (b"[1]", "invalid type: sequence, expected an object"),
            (b"7", "invalid type: integer `7`, expected an object at line 1 column 1"),
            (b"{} x", "trailing characters at line 1 column 4"),
            (b"{}{}", "trailing characters"),
            (br#"{"inner": [[1]]}"#, "inner: invalid type: sequence, expected an object"),
            (br#"{"inner": 1}"#, "inner: invalid type: integer `1`, expected an object"),
            (br#"{"inner": {"list": [1, {}]}}"#, "inner.list[1]: invalid type: map, expected f64"),
            (br#"{"inner": {"lists": []}}"#, "inner.lists: unknown field `lists`, expected `list`"),
            (br#"{"inner": {}, "inner": {}}"#, "duplicate field `inner` at line 1 column "),
            (br#"{"named": {"a": 1, "a": 2}}"#, "named: duplicate field `a`"),
            (br#"{"named": {"a": 1, "b": "2"}}"#, "named.b: invalid type: string \"2\""),
            (
                br#"{"inner": {"list": [1, NaN]}}"#,
                "inner.list[1]: NaN at line 1 column 24 is no JSON",
            ),
            (b"{\"named\":\n {\"a\": -Infinity}}", "named.a: -Infinity at line 2 column "),
            (br#"{"named": {"a": Infinity}}"#, "named.a: Infinity at line 1 column 17 is no JSON"),
            (br#"{"named": {"a": nope}}"#, "named.a: expected ident at line 1 column 18"),
            (br#"{"count": 2.5}"#, "count: invalid value: floating point `2.5`, expected a whole"),
            (br#"{"count": -1}"#, "count: invalid type: integer `-1`, expected a whole number"),
            (b"\xff\xfe{\0}\0", "the body is UTF-16 or UTF-32, expected JSON in UTF-8"),
            (b"{\0}\0", "the body is UTF-16"),
            (b"\x1f\x8b\x08", "the body is gzip; say so with the header"),
        ];
        for (body, expected) in cases {
            let said = said(body);
            assert!(said.starts_with(expected), "{}: {said}", String::from_utf8_lossy(body));
        }
    }
}
