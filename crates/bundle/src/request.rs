//! A request: one page view, in columns, as JSON spells it, and what single values of any protocol
//! are.
//!
//! ```text
//! {"user": {"id": "u17", "features": {"age": 25, "tags": ["a", "b"]},
//!           "behaviors": {"item": ["5", "9"], "time": [1700000200, 1700000100]}},
//!  "context": {"hour": "12"},
//!  "candidates": {"item": ["3", "4"], "bid": [1.0, 0.5], "features": {"category": [null, "shoes"]}},
//!  "options": {"top_k": 10}}
//! ```
//! Only `candidates.item` is required; what is `null` is absent. A behavior whose item is `null` or
//! the empty text is padding: its row counts for nothing. Knows the spelling; what names and texts
//! mean is [`crate::page::resolve`]'s.

use std::collections::BTreeMap;
use std::fmt;

use ams_data::value;
use half::{bf16, f16};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result};
use crate::json::{self, count, named, object, object_or_null, or_null};

/// Candidates of one user at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageView {
    /// The user for whom the page is ranked.
    #[serde(default, deserialize_with = "object_or_null")]
    pub user: User,
    /// When the page is looked at, in unix seconds. The ages of behaviors are counted from here;
    /// without it they are unknown.
    #[serde(default, deserialize_with = "instant", skip_serializing_if = "Option::is_none")]
    pub time: Option<i64>,
    /// Context fields by name.
    #[serde(default, deserialize_with = "named", skip_serializing_if = "BTreeMap::is_empty")]
    pub context: Features,
    /// The items that may be shown.
    #[serde(deserialize_with = "object")]
    pub candidates: Candidates,
    /// Options of the answer.
    #[serde(
        default,
        deserialize_with = "object_or_null",
        skip_serializing_if = "Options::is_default"
    )]
    pub options: Options,
}

/// Values of fields by name; `null` is no value.
pub type Features = BTreeMap<String, Option<Cell>>;

/// Columns of fields by name, one value per row; `null` is what the bundle knows of the row's item.
pub type FeatureColumns = BTreeMap<String, Vec<Option<Cell>>>;

/// The user for whom the page is ranked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The user as the log spells it; `None` is an unknown user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Text>,
    /// User fields by name.
    #[serde(default, deserialize_with = "named", skip_serializing_if = "BTreeMap::is_empty")]
    pub features: Features,
    /// Earlier behaviors of the user.
    #[serde(default, deserialize_with = "object_or_null")]
    pub behaviors: Behaviors,
}

/// Past behaviors in columns of one length, newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Behaviors {
    /// The items; an empty text is a row that counts for nothing.
    #[serde(default, deserialize_with = "padded")]
    pub item: Vec<Text>,
    /// When, in unix seconds; none only where there is no item. If given, the rows may come in any
    /// order.
    #[serde(default, deserialize_with = "times", skip_serializing_if = "Option::is_none")]
    pub time: Option<Vec<Option<i64>>>,
    /// Behavior fields that differ from what the bundle knows of the items.
    #[serde(default, deserialize_with = "columns", skip_serializing_if = "BTreeMap::is_empty")]
    pub features: FeatureColumns,
}

/// The items that may be shown, in columns of one length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidates {
    /// Items as the log spells them.
    pub item: Vec<Text>,
    /// Payment for a click on each; 1 by default.
    #[serde(default, deserialize_with = "bids", skip_serializing_if = "Option::is_none")]
    pub bid: Option<Vec<f64>>,
    /// Ad fields that differ from what the bundle knows of the items.
    #[serde(default, deserialize_with = "columns", skip_serializing_if = "BTreeMap::is_empty")]
    pub features: FeatureColumns,
}

/// Options of the answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Number of candidates in the answer; all by default.
    #[serde(default, deserialize_with = "count", skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Milliseconds after which a server stops and answers with an error.
    #[serde(default, deserialize_with = "count", skip_serializing_if = "Option::is_none")]
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
    /// Those at `places`, which are in the order of their times.
    pub fn at(&self, places: &[usize]) -> Behaviors {
        Behaviors {
            item: places.iter().map(|&at| self.item[at].clone()).collect(),
            time: self.time.as_ref().map(|times| places.iter().map(|&at| times[at]).collect()),
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
    /// [`crate::Error::Request`] with path, line and column if the text is no JSON or no request.
    pub fn parse(json: &[u8]) -> Result<PageView> {
        let rest = json.trim_ascii_start().strip_prefix(b"[");
        if rest.is_some_and(|rest| rest.trim_ascii() == b"]") {
            // Absent parts may be spelled so, and a page view is not absent.
            return Err(Error::request("the body is an array, expected an object"));
        }
        json::read(json)
    }
}

/// One value as text. In JSON it is a text, a number or a boolean; the latter two mean their texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Text(pub String);

impl<T: Into<String>> From<T> for Text {
    fn from(text: T) -> Text {
        Text(text.into())
    }
}

/// Floats below this have exact integer parts; above it a number's text is not what was written.
const EXACT: f64 = (1u64 << 53) as f64;

/// A number and its shortest decimal: digits without an exponent.
fn decimal(number: f64, digits: String) -> Text {
    if number.is_finite() && number.abs() >= EXACT {
        // The point shows that the integer is not exact.
        Text(format!("{digits}.0"))
    } else {
        Text(digits)
    }
}

impl Text {
    /// The shortest decimal that is this number; whole ones have no point if they are exact. `NaN`,
    /// `inf` and `-inf` are what is none.
    pub fn of_f64(number: f64) -> Text {
        decimal(number, number.to_string())
    }

    /// As [`Text::of_f64`], with the digits of the narrower type: `4.2`, not `4.199999809265137`.
    pub fn of_f32(number: f32) -> Text {
        decimal(number.into(), number.to_string())
    }

    /// As [`Text::of_f32`], for half precision.
    pub fn of_f16(number: f16) -> Text {
        of_half(number.to_f32(), |digits| f16::from_f32(digits).to_f32())
    }

    /// As [`Text::of_f32`], for half precision.
    pub fn of_bf16(number: bf16) -> Text {
        of_half(number.to_f32(), |digits| bf16::from_f32(digits).to_f32())
    }
}

/// With as few digits as `rounded` needs to come back to `number`.
fn of_half(number: f32, rounded: impl Fn(f32) -> f32) -> Text {
    let digits = (0..9).find_map(|digits| {
        let short: f32 = format!("{number:.digits$e}").parse().ok()?;
        (rounded(short) == number).then_some(short)
    });
    Text::of_f32(digits.unwrap_or(number))
}

/// Reads a text of an id (`EXACT`), which a number has to spell exactly, or of a field's value.
struct TextVisitor<const EXACT: bool>;

impl<const IS_ID: bool> Visitor<'_> for TextVisitor<IS_ID> {
    type Value = Text;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text, a number or a boolean")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Text, E> {
        if IS_ID && value.abs() >= EXACT {
            return Err(E::custom("a number too large to be exact; write it as text, in quotes"));
        }
        let Text(mut text) = Text::of_f64(value);
        // As it is written.
        if !text.contains('.') {
            text.push_str(".0");
        }
        Ok(Text(text))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        deserializer.deserialize_any(TextVisitor::<true>)
    }
}

/// A field's value, of any size.
#[derive(Default)]
struct Value(Text);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(TextVisitor::<false>).map(Value)
    }
}

/// The values of one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Cell {
    /// One text, which may spell several values as a cell of the log does.
    One(Text),
    /// Each value on its own.
    List(Vec<Text>),
}

impl Cell {
    /// One text is [`Cell::One`].
    pub fn of(mut texts: Vec<Text>) -> Cell {
        match texts.len() {
            1 => Cell::One(texts.remove(0)),
            _ => Cell::List(texts),
        }
    }

    /// The values as a slice, of one element for [`Cell::One`].
    pub fn texts(&self) -> &[Text] {
        match self {
            Cell::One(text) => std::slice::from_ref(text),
            Cell::List(texts) => texts,
        }
    }
}

struct CellVisitor;

impl<'de> Visitor<'de> for CellVisitor {
    type Value = Cell;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text, a number, a boolean or a list of these")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Cell, E> {
        TextVisitor::<false>.visit_str(text).map(Cell::One)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Cell, E> {
        TextVisitor::<false>.visit_bool(value).map(Cell::One)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Cell, E> {
        TextVisitor::<false>.visit_u64(value).map(Cell::One)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Cell, E> {
        TextVisitor::<false>.visit_i64(value).map(Cell::One)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Cell, E> {
        TextVisitor::<false>.visit_f64(value).map(Cell::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Cell, A::Error> {
        let mut texts = Vec::new();
        while let Some(value) = list.next_element::<Option<Value>>()? {
            texts.extend(value.map(|Value(text)| text));
        }
        Ok(Cell::List(texts))
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Cell, D::Error> {
        deserializer.deserialize_any(CellVisitor)
    }
}

/// Columns by name; one that is `null` is absent.
fn columns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FeatureColumns, D::Error> {
    let columns: BTreeMap<String, Option<Vec<Option<Cell>>>> = named(deserializer)?;
    Ok(columns.into_iter().filter_map(|(name, column)| Some((name, column?))).collect())
}

/// Items of which some may be `null`.
fn padded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Text>, D::Error> {
    let items: Vec<Option<Text>> = or_null(deserializer)?;
    Ok(items.into_iter().map(Option::unwrap_or_default).collect())
}

/// Parses the payment for a click; an empty text is 1.
///
/// # Errors
/// If the text is not one; the message has the value found and the value expected.
pub fn bid(text: &str) -> Result<f64, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(1.0);
    }
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| format!("{text:?} is no bid, expected a number of 0 or more"))
}

/// Unix seconds by the text of an instant, in any of the forms that logs have; an empty one is
/// none.
///
/// # Errors
/// If the text is not one; the message has the value found and the value expected.
pub fn time(text: &str) -> Result<Option<i64>, String> {
    if value::is_missing(text) {
        return Ok(None);
    }
    // A request has no way to state a format, so an ambiguous date is refused without naming the
    // option of `ams prepare`.
    let wrong = |_| {
        let text = text.trim();
        format!(
            "`{text}` is not a time of one meaning, expected unix time, 2020-09-22 or 2020-09-22T10:11:12"
        )
    };
    value::instant(text).map(|(_, seconds)| Some(seconds)).map_err(wrong)
}

fn bids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<f64>>, D::Error> {
    struct Bid(f64);
    impl<'de> Deserialize<'de> for Bid {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bid, D::Error> {
            let Value(Text(text)) = or_null(deserializer)?;
            bid(&text).map(Bid).map_err(de::Error::custom)
        }
    }
    let bids: Option<Vec<Bid>> = Option::deserialize(deserializer)?;
    Ok(bids.map(|bids| bids.into_iter().map(|Bid(bid)| bid).collect()))
}

type Times = Option<Vec<Option<i64>>>;

/// An instant, or none.
struct Time(Option<i64>);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let Value(Text(text)) = or_null(deserializer)?;
        time(&text).map(Time).map_err(de::Error::custom)
    }
}

fn instant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Time::deserialize(deserializer).map(|Time(time)| time)
}

fn times<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Times, D::Error> {
    let times: Option<Vec<Time>> = Option::deserialize(deserializer)?;
    Ok(times.map(|times| times.into_iter().map(|Time(time)| time).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_request_comes_back() {
        let json = r#"{"user":{"id":"u17","features":{"age":"25","tags":["a","b"]},"behaviors":{"item":["5","9"],"time":[200,100],"features":{"category":[null,"c"]}}},"context":{"hour":["12"]},"candidates":{"item":["3","4"],"bid":[1.0,0.5],"features":{"category":["x",[]]}},"options":{"top_k":10}}"#;
        let page = PageView::parse(json.as_bytes()).unwrap();
        assert_eq!(page.user.behaviors.time, Some(vec![Some(200), Some(100)]));
        assert_eq!(page.user.features["tags"], Some(Cell::List(vec!["a".into(), "b".into()])));
        assert_eq!(page.candidates.features["category"][1], Some(Cell::List(vec![])));
        assert_eq!(serde_json::to_string(&page).unwrap(), json);
    }

    #[test]
    fn numbers_and_booleans_are_taken_by_their_text() {
        let json = br#"{"candidates": {"item": ["007", 7, -7, 7.5, 18446744073709551615, 2.0, 1e-7, -0.0, true, false, " 7 "]}}"#;
        let page = PageView::parse(json).unwrap();
        let expected = [
            "007",
            "7",
            "-7",
            "7.5",
            "18446744073709551615",
            "2.0",
            "0.0000001",
            "-0.0",
            "true",
            "false",
            " 7 ",
        ];
        assert_eq!(page.candidates.item, expected.map(Text::from));
        let json = br#"{"context": {"a": true, "b": 25, "c": 1e300, "d": ["x", null, 4.20, false]},
            "candidates": {"item": ["1"]}}"#;
        let page = PageView::parse(json).unwrap();
        let large = format!("1{}.0", "0".repeat(300));
        let expected = [
            ("a", Cell::One("true".into())),
            ("b", Cell::One("25".into())),
            ("c", Cell::One(large.into())),
            ("d", Cell::List(["x", "4.2", "false"].map(Text::from).into())),
        ];
        let expected = expected.map(|(name, cell)| (name.to_owned(), Some(cell)));
        assert_eq!(page.context, Features::from(expected));
    }

    #[test]
    fn typed_numbers_have_the_decimals_of_their_width() {
        let half = |number: f32| Text::of_f16(f16::from_f32(number));
        let brain = |number: f32| Text::of_bf16(bf16::from_f32(number));
        let cases = [
            (Text::of_f64(25.0), "25"),
            (Text::of_f64(-0.1), "-0.1"),
            (Text::of_f64(9_007_199_254_740_991.0), "9007199254740991"),
            (Text::of_f64(9_007_199_254_740_992.0), "9007199254740992.0"),
            (Text::of_f64(1e-7), "0.0000001"),
            (Text::of_f64(f64::NAN), "NaN"),
            (Text::of_f64(f64::INFINITY), "inf"),
            (Text::of_f64(f64::NEG_INFINITY), "-inf"),
            (Text::of_f32(4.2), "4.2"),
            (Text::of_f32(1e20), "100000000000000000000.0"),
            (Text::of_f32(3.0), "3"),
            (half(4.2), "4.2"),
            (half(0.1), "0.1"),
            (half(65504.0), "65500"),
            (half(-2048.0), "-2048"),
            (half(f32::NAN), "NaN"),
            (half(f32::INFINITY), "inf"),
            (brain(4.2), "4.2"),
            (brain(300.0), "300"),
            (brain(1.5e30), "1500000000000000000000000000000.0"),
        ];
        for (Text(text), expected) in cases {
            assert_eq!(text, expected);
        }
        for bits in 0..=u16::MAX {
            let (whole, Text(text)) = (f16::from_bits(bits), Text::of_f16(f16::from_bits(bits)));
            let back = f16::from_f32(text.parse().unwrap());
            assert!(back == whole || back.is_nan() && whole.is_nan(), "{bits}: {text}");
        }
    }

    /// One page view, however it is spelled.
    #[test]
    fn spellings_are_one_page_view() {
        let page = |user: &str, rest: &str| {
            let json = format!(r#"{{"user": {user}, {rest}}}"#);
            PageView::parse(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"))
        };
        let candidates = r#""candidates": {"item": ["3", "4"]}"#;
        let nobody = [
            ("{}", candidates.to_owned()),
            ("null", candidates.to_owned()),
            ("[]", candidates.to_owned()),
            (r#"{"id": null}"#, candidates.to_owned()),
            (r#"{"features": null, "behaviors": null}"#, candidates.to_owned()),
            (r#"{"features": {}, "behaviors": {}}"#, candidates.to_owned()),
            (r#"{"features": [], "behaviors": []}"#, candidates.to_owned()),
            (
                r#"{"behaviors": {"item": null, "time": null, "features": null}}"#,
                candidates.to_owned(),
            ),
            (
                r#"{"behaviors": {"item": [], "features": {"category": null}}}"#,
                candidates.to_owned(),
            ),
            ("{}", format!(r#""context": null, "options": null, {candidates}"#)),
            ("{}", format!(r#""context": [], "options": [], {candidates}"#)),
            ("{}", format!(r#""options": {{"top_k": null, "deadline_ms": null}}, {candidates}"#)),
            ("{}", r#""candidates": {"item": [3, 4]}"#.to_owned()),
            ("{}", r#""candidates": {"item": [3, 4], "bid": null, "features": null}"#.to_owned()),
            ("{}", r#""candidates": {"item": [3, 4], "features": {"category": null}}"#.to_owned()),
        ];
        for (user, rest) in nobody {
            assert_eq!(page(user, &rest), page("{}", candidates), "{user} {rest}");
        }
        let times = |times: &str| {
            page(
                &format!(r#"{{"behaviors": {{"item": ["5", "9"], "time": {times}}}}}"#),
                candidates,
            )
        };
        for spelled in [
            "[1700000200.9, 1700000100.0]",
            "[1700000200123, 1700000100999]",
            "[1700000200123456, 1.7000001e15]",
            "[1700000200123456789, 1700000100000000000]",
            r#"["1700000200", " 1700000100 "]"#,
            r#"["2023-11-14T22:16:40Z", "2023-11-14 22:15:00"]"#,
            r#"["2023-11-14T23:16:40+01:00", "2023-11-14T22:15:00.500"]"#,
        ] {
            assert_eq!(times(spelled), times("[1700000200, 1700000100]"), "{spelled}");
        }
        let bids = |bids: &str| {
            page("{}", &format!(r#""candidates": {{"item": ["3", "4"], "bid": {bids}}}"#))
        };
        for spelled in ["[1, null]", "[1.0, 1e0]", r#"["1", " 1.00 "]"#, r#"["1", ""]"#] {
            assert_eq!(bids(spelled), bids("[1, 1]"), "{spelled}");
        }
        let padded = |item: &str| {
            page(&format!(r#"{{"behaviors": {{"item": {item}, "time": [7, null]}}}}"#), candidates)
        };
        assert_eq!(padded(r#"["5", null]"#), padded(r#"[5, ""]"#));
    }

    #[test]
    fn what_is_no_request_is_explained() {
        let cases = [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{}", "missing field `candidates`"),
            ("[]", "the body is an array, expected an object"),
            (" [ ]\n", "the body is an array, expected an object"),
            (r#"{"candidates": null}"#, "candidates: invalid type: null, expected an object"),
            (r#"{"candidates": {}}"#, "candidates: missing field `item`"),
            (r#"{"candidates": []}"#, "candidates: missing field `item`"),
            (r#"{"candidates": ["3"]}"#, "candidates: invalid type: sequence, expected an object"),
            (
                r#"{"candidates": {"item": null}}"#,
                "candidates.item: invalid type: null, expected a seq",
            ),
            (
                r#"{"candidates": {"item": ["1", null]}}"#,
                "candidates.item[1]: invalid type: null, expected a text, a number or a boolean",
            ),
            (
                r#"{"candidate": {}}"#,
                "unknown field `candidate`, expected one of `user`, `time`, `context`",
            ),
            (
                r#"{"candidates": {"item": [1e300]}}"#,
                "candidates.item[0]: a number too large to be exact",
            ),
            (r#"{"candidates": {"item": [18446744073709551616]}}"#, "too large to be exact"),
            (
                r#"{"candidates": {"item": [9007199254740992.0]}}"#,
                "too large to be exact; write it as text",
            ),
            (
                r#"{"candidates": {"item": ["1"], "bid": ["2 EUR"]}}"#,
                "candidates.bid[0]: \"2 EUR\" is no bid, expected a number of 0 or more",
            ),
            (
                r#"{"candidates": {"item": ["1"], "bid": [true]}}"#,
                "candidates.bid[0]: \"true\" is no",
            ),
            (
                r#"{"candidates": {"item": ["1"], "bid": ["inf"]}}"#,
                "candidates.bid[0]: \"inf\" is no",
            ),
            (
                r#"{"candidates": {"item": ["1"], "bid": [NaN]}}"#,
                "candidates.bid[0]: NaN at line 1 column 40 is no JSON; expected a number, or null",
            ),
            (
                r#"{"user": {"behaviors": {"item": ["1"], "time": ["soon"]}}, "candidates": {"item": ["1"]}}"#,
                "user.behaviors.time[0]: `soon` is not a time of one meaning, expected unix time, 2020-09-22",
            ),
            (
                r#"{"user": {"behaviors": {"item": ["1"], "time": ["03/04/2024"]}}, "candidates": {"item": ["1"]}}"#,
                "user.behaviors.time[0]: `03/04/2024` is not a time of one meaning",
            ),
            (
                r#"{"user": {"behaviors": {"item": ["1"], "time": [1e30]}}, "candidates": {"item": ["1"]}}"#,
                "user.behaviors.time[0]: `1000000000000000000000000000000.0` is not a time",
            ),
            (
                r#"{"context": {"hour": {}}, "candidates": {"item": ["1"]}}"#,
                "context.hour: invalid type: map, expected a text, a number, a boolean or a list",
            ),
            (
                r#"{"context": {"hour": [["1"]]}, "candidates": {"item": ["1"]}}"#,
                "context.hour[0]: invalid type: sequence, expected a text, a number or a boolean",
            ),
            (
                r#"{"context": {"hour": 1, "hour": 2}, "candidates": {"item": ["1"]}}"#,
                "context: duplicate field `hour`",
            ),
            (r#"{"user": ["u1"], "candidates": {"item": ["1"]}}"#, "user: invalid type: sequence"),
            (
                r#"{"candidates": {"item": ["1"]}, "options": {"top_k": -1}}"#,
                "options.top_k: invalid type: integer `-1`, expected a whole number, 0 or more",
            ),
            (r#"{"candidates": {"item": ["1"], "item": ["2"]}}"#, "duplicate field `item`"),
        ];
        for (json, expected) in cases {
            let error = PageView::parse(json.as_bytes()).expect_err(json).to_string();
            assert!(error.starts_with("request: ") && error.contains(expected), "{error}");
        }
    }
}
