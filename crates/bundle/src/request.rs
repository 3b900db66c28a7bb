//! A request: one page view, in columns, as JSON spells it.
//!
//! ```text
//! {"user": {"id": "u17", "features": {"age": 25, "tags": ["a", "b"]},
//!           "behaviors": {"item": ["5", "9"], "time": [1700000200, 1700000100]}},
//!  "context": {"hour": "12"},
//!  "candidates": {"item": ["3", "4"], "bid": [1.0, 0.5], "features": {"category": [null, "shoes"]}},
//!  "options": {"top_k": 10}}
//! ```
//! Only `candidates.item` is required. Knows the spelling; what the names mean is
//! [`crate::page`]'s.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// Candidates of one user at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageView {
    /// Who looks at the page.
    #[serde(default)]
    pub user: User,
    /// Context fields by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub context: Features,
    /// What could be shown.
    pub candidates: Candidates,
    /// What is wanted back.
    #[serde(default, skip_serializing_if = "Options::is_default")]
    pub options: Options,
}

/// Values of fields by name; `null` is no value.
pub type Features = BTreeMap<String, Option<Cell>>;

/// Columns of fields by name, one value per row; `null` is what the bundle knows of the row's item.
pub type FeatureColumns = BTreeMap<String, Vec<Option<Cell>>>;

/// Who looks at the page.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The user as the log spells them; none is somebody unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Text>,
    /// User fields by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub features: Features,
    /// What the user did before.
    #[serde(default)]
    pub behaviors: Behaviors,
}

/// Past behaviors in columns of one length, newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Behaviors {
    /// The items.
    #[serde(default)]
    pub item: Vec<Text>,
    /// When, in unix seconds. If given, the rows may come in any order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Vec<i64>>,
    /// Behavior fields that differ from what the bundle knows of the items.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub features: FeatureColumns,
}

/// What could be shown, in columns of one length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidates {
    /// The items.
    pub item: Vec<Text>,
    /// What a click on each pays; 1 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bid: Option<Vec<f64>>,
    /// Ad fields that differ from what the bundle knows of the items.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub features: FeatureColumns,
}

/// What is wanted back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Only the best so many candidates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Milliseconds after which nobody needs an answer any more; a server gives none then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

impl Candidates {
    /// Those at `places`, in that order.
    pub fn at(&self, places: &[usize]) -> Candidates {
        Candidates {
            item: places.iter().map(|&at| self.item[at].clone()).collect(),
            bid: self.bid.as_ref().map(|bids| places.iter().map(|&at| bids[at]).collect()),
            features: features_at(&self.features, places),
        }
    }
}

impl Behaviors {
    /// Those at `places`, in that order, whatever their times.
    pub fn at(&self, places: &[usize]) -> Behaviors {
        Behaviors {
            item: places.iter().map(|&at| self.item[at].clone()).collect(),
            time: None,
            features: features_at(&self.features, places),
        }
    }
}

fn features_at(features: &FeatureColumns, places: &[usize]) -> FeatureColumns {
    let at = |column: &[Option<Cell>]| places.iter().map(|&at| column[at].clone()).collect();
    features.iter().map(|(name, column)| (name.clone(), at(column))).collect()
}

impl Options {
    fn is_default(&self) -> bool {
        *self == Options::default()
    }
}

impl PageView {
    /// Reads a request from JSON.
    ///
    /// # Errors
    /// [`Error::Request`] with line and column if the text is no JSON or no request.
    pub fn parse(json: &[u8]) -> Result<PageView> {
        serde_json::from_slice(json).map_err(|error| Error::request(error.to_string()))
    }
}

/// One value: in JSON a text or a number, which means its text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Text(pub String);

impl<T: Into<String>> From<T> for Text {
    fn from(text: T) -> Text {
        Text(text.into())
    }
}

/// The values of one field: in JSON one value or a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell(pub Vec<Text>);

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

/// Floats below this have exact integer parts; above it a number's text is not what was written.
const EXACT: f64 = (1u64 << 53) as f64;

/// The text of a number that JSON readers hold as a float.
fn text_of_float<E: de::Error>(value: f64) -> Result<Text, E> {
    match serde_json::Number::from_f64(value) {
        Some(number) if value.abs() < EXACT => Ok(Text(number.to_string())),
        _ => Err(E::custom("a number too large to be exact; write it as text, in quotes")),
    }
}

/// Reads a [`Text`].
struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text or a number")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Text, E> {
        text_of_float(value)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

/// Reads a [`Cell`].
struct CellVisitor;

impl<'de> Visitor<'de> for CellVisitor {
    type Value = Cell;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text, a number or a list of these")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Cell, E> {
        TextVisitor.visit_str(text).map(|text| Cell(vec![text]))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Cell, E> {
        TextVisitor.visit_u64(value).map(|text| Cell(vec![text]))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Cell, E> {
        TextVisitor.visit_i64(value).map(|text| Cell(vec![text]))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Cell, E> {
        TextVisitor.visit_f64(value).map(|text| Cell(vec![text]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Cell, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = list.next_element()? {
            texts.push(text);
        }
        Ok(Cell(texts))
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Cell, D::Error> {
        deserializer.deserialize_any(CellVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_request_comes_back() {
        let json = r#"{"user":{"id":"u17","features":{"age":"25","tags":["a","b"]},"behaviors":{"item":["5","9"],"time":[200,100],"features":{"category":[null,"c"]}}},"context":{"hour":"12"},"candidates":{"item":["3","4"],"bid":[1.0,0.5],"features":{"category":["x",[]]}},"options":{"top_k":10}}"#;
        let page = PageView::parse(json.as_bytes()).unwrap();
        assert_eq!(page.user.behaviors.time, Some(vec![200, 100]));
        assert_eq!(page.user.features["tags"], Some(Cell(vec!["a".into(), "b".into()])));
        assert_eq!(page.candidates.features["category"][1], Some(Cell(vec![])));
        assert_eq!(serde_json::to_string(&page).unwrap(), json);
    }

    #[test]
    fn numbers_are_taken_by_their_text() {
        let json = br#"{"candidates": {"item": ["007", 7, -7, 7.5, 18446744073709551615, 2.0]}}"#;
        let page = PageView::parse(json).unwrap();
        let expected = ["007", "7", "-7", "7.5", "18446744073709551615", "2.0"];
        assert_eq!(page.candidates.item, expected.map(Text::from));
    }

    #[test]
    fn what_is_no_request_is_explained() {
        let cases = [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{}", "missing field `candidates`"),
            (
                r#"{"candidate": {}}"#,
                "unknown field `candidate`, expected one of `user`, `context`",
            ),
            (
                r#"{"candidates": {"item": [true]}}"#,
                "invalid type: boolean `true`, expected a text or a number at line 1 column",
            ),
            (r#"{"candidates": {"item": [1e300]}}"#, "too large to be exact; write it as text"),
            (r#"{"candidates": {"item": [18446744073709551616]}}"#, "too large to be exact"),
            (r#"{"candidates": {"item": ["1"], "bid": ["2"]}}"#, "expected f64"),
            (
                r#"{"context": {"hour": {}}, "candidates": {"item": ["1"]}}"#,
                "expected a text, a number or a list of these",
            ),
            (r#"{"candidates": {"item": ["1"]}, "options": {"top_k": -1}}"#, "expected usize"),
            (r#"{"candidates": {"item": ["1"], "item": ["2"]}}"#, "duplicate field `item`"),
        ];
        for (json, expected) in cases {
            let error = PageView::parse(json.as_bytes()).expect_err(json).to_string();
            assert!(error.starts_with("request: ") && error.contains(expected), "{error}");
        }
    }
}
