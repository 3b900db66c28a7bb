//! From named tensors to a page view.

use std::collections::BTreeSet;

use ams_bundle::PageView;
use ams_bundle::request::{Cell, FeatureColumns, Text, bid, time};

use super::values::Datatype;
use super::wrong;
use crate::problem::Problem;

/// A tensor, read from JSON, bytes or a message.
#[derive(Clone, Debug)]
pub(crate) struct Tensor<'a> {
    name: &'a str,
    datatype: Datatype,
    shape: Vec<usize>,
    values: Vec<Text>,
}

impl<'a> Tensor<'a> {
    /// A tensor; the number of values has to be the product of `shape`.
    pub(crate) fn new<N: Copy + std::fmt::Debug + TryInto<usize>>(
        name: &'a str,
        datatype: Datatype,
        shape: &[N],
        values: Vec<Text>,
    ) -> Result<Tensor<'a>, Problem> {
        let sides: Option<Vec<usize>> = shape.iter().map(|&side| side.try_into().ok()).collect();
        let product = |sides: &Vec<usize>| {
            sides.iter().try_fold(1, |product: usize, &side| product.checked_mul(side))
        };
        let count = sides.as_ref().and_then(product);
        let (Some(shape), Some(count)) = (sides, count) else {
            return Err(wrong(format!(
                "{name} has shape {shape:?}, expected the number of its values"
            )));
        };
        if values.len() != count {
            let (got, of) = (values.len(), datatype.name());
            let what = format!("{name} has {got} values of {of}, expected {count} by its shape");
            return Err(wrong(what));
        }
        Ok(Tensor { name, datatype, shape, values })
    }

    /// Its sides but those of 1.
    fn sides(&self) -> Vec<usize> {
        self.shape.iter().copied().filter(|&side| side != 1).collect()
    }

    /// That it is one row of values: a batch of several page views is none.
    fn check_line(&self) -> Result<(), Problem> {
        if self.sides().len() > 1 && !self.values.is_empty() {
            let Tensor { name, shape, .. } = self;
            let what = "a request is one page view, expected [N], [1, N] or [N, 1]";
            return Err(wrong(format!("{name} has shape {shape:?}; {what}")));
        }
        Ok(())
    }

    /// Values, of which NaN is none.
    fn texts(self) -> Vec<Text> {
        let is_float = self.datatype.exact().is_some();
        let text = |text: Text| if is_float && text.0 == "NaN" { Text::default() } else { text };
        self.values.into_iter().map(text).collect()
    }

    fn ids(self) -> Result<Vec<Text>, Problem> {
        self.check_line()?;
        if let Some(exact) = self.datatype.exact() {
            let rounded = |text: &Text| text.0.parse().is_ok_and(|id: f64| id.abs() >= exact);
            if let Some(at) = self.values.iter().position(rounded) {
                let Tensor { name, datatype, values, .. } = &self;
                let (id, datatype) = (&values[at].0, datatype.name());
                let what = "too large to be exact; expected INT64, UINT64 or BYTES";
                return Err(wrong(format!("{name}[{at}] is {id} in {datatype}, {what}")));
            }
        }
        Ok(self.texts())
    }

    fn each<T>(self, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Problem> {
        self.check_line()?;
        let name = self.name;
        let read = |(at, Text(text)): (usize, &Text)| {
            read(text).map_err(|what| wrong(format!("{name}[{at}]: {what}")))
        };
        self.values.iter().enumerate().map(read).collect()
    }

    fn times(self) -> Result<Vec<Option<i64>>, Problem> {
        let datatype = self.datatype;
        if datatype.exact().is_some() && datatype != Datatype::Fp64 {
            let (name, datatype) = (self.name, datatype.name());
            let what = "too coarse for times; expected INT64, UINT64, FP64 or BYTES";
            return Err(wrong(format!("{name} is {datatype}, {what}")));
        }
        let values = self.clone().texts();
        Tensor { values, ..self }.each(time)
    }

    /// The values of each of `rows` rows.
    fn column(self, rows: usize) -> Vec<Option<Cell>> {
        let (sides, count) = (self.sides(), self.values.len());
        let width = match sides[..] {
            [first, width] if first == rows => width,
            [width] if rows == 1 => width,
            // If it does not fit the rows, that is said where the model is known.
            _ => 1,
        };
        let texts = self.texts();
        if width <= 1 || count == 0 {
            return texts.into_iter().map(cell).collect();
        }
        texts.chunks(width).map(|row| cells(row.to_vec())).collect()
    }
}

/// The page view that tensors are.
pub(crate) fn page_view(tensors: Vec<Tensor<'_>>) -> Result<PageView, Problem> {
    let mut names = BTreeSet::new();
    if let Some(twice) = tensors.iter().find(|tensor| !names.insert(tensor.name)) {
        return Err(wrong(format!("{} is there twice", twice.name)));
    }
    let count = |name: &str| {
        tensors.iter().find(|tensor| tensor.name == name).map_or(0, |tensor| tensor.values.len())
    };
    let (shown, past) = (count("candidates.item"), count("user.behaviors.item"));
    let mut page = PageView::default();
    for tensor in tensors {
        place(tensor, shown, past, &mut page)?;
    }
    Ok(page)
}

/// Puts one tensor where it belongs.
fn place(
    tensor: Tensor<'_>,
    shown: usize,
    past: usize,
    page: &mut PageView,
) -> Result<(), Problem> {
    let name = tensor.name;
    match name {
        "candidates.item" => page.candidates.item = tensor.ids()?,
        "candidates.bid" => page.candidates.bid = Some(tensor.each(bid)?),
        "user.behaviors.item" => page.user.behaviors.item = tensor.ids()?,
        "user.behaviors.time" => page.user.behaviors.time = Some(tensor.times()?),
        "time" => {
            let mut times = tensor.times()?;
            if times.len() > 1 {
                return Err(wrong(format!("time has {} values, expected 1", times.len())));
            }
            page.time = times.pop().flatten();
        }
        "user.id" => {
            let mut ids = tensor.ids()?;
            if ids.len() > 1 {
                return Err(wrong(format!("user.id has {} values, expected 1", ids.len())));
            }
            page.user.id = ids.pop().filter(|id| !id.0.is_empty());
        }
        _ => {
            let columns: [(&str, &mut FeatureColumns, usize); 2] = [
                ("candidates.features.", &mut page.candidates.features, shown),
                ("user.behaviors.features.", &mut page.user.behaviors.features, past),
            ];
            for (prefix, columns, rows) in columns {
                if let Some(field) = name.strip_prefix(prefix) {
                    columns.insert(field.to_owned(), tensor.column(rows));
                    return Ok(());
                }
            }
            let single =
                [("user.features.", &mut page.user.features), ("context.", &mut page.context)];
            for (prefix, features) in single {
                if let Some(field) = name.strip_prefix(prefix) {
                    features.insert(field.to_owned(), cells(tensor.texts()));
                    return Ok(());
                }
            }
            return Err(wrong(format!(
                "{name}: no such input; the model's description lists them"
            )));
        }
    }
    Ok(())
}

fn cell(text: Text) -> Option<Cell> {
    (!text.0.is_empty()).then_some(Cell::One(text))
}

/// Several values, of which empty ones are padding.
fn cells(mut texts: Vec<Text>) -> Option<Cell> {
    let several = texts.len() > 1;
    texts.retain(|text| !text.0.is_empty());
    if several {
        (!texts.is_empty()).then_some(Cell::List(texts))
    } else {
        texts.pop().and_then(cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Spelled<'a> = (&'a str, &'a str, &'a [i64], &'a [&'a str]);

    fn page_of(tensors: &[Spelled<'_>]) -> Result<PageView, String> {
        let tensor = |&(name, datatype, shape, values): &Spelled<'_>| {
            let values = values.iter().map(|&value| value.into()).collect();
            // Names live as long as the page view is made.
            Tensor::new(name, Datatype::of(name, datatype)?, shape, values)
                .map(|tensor| Tensor { name: String::leak(tensor.name.to_owned()), ..tensor })
        };
        let tensors: Result<Vec<_>, Problem> = tensors.iter().map(tensor).collect();
        let page = tensors.and_then(page_view).map_err(|problem| problem.detail)?;
        Ok(page)
    }

    #[test]
    fn tensors_are_a_page_view() {
        let items: Spelled<'_> = ("candidates.item", "BYTES", &[2], &["3", "4"]);
        let cases: [(&[Spelled<'_>], &str); 15] = [
            (&[items], "{}"),
            (&[("candidates.item", "INT64", &[1, 2], &["3", "4"])], "{}"),
            (&[("candidates.item", "UINT32", &[2, 1], &["3", "4"])], "{}"),
            (&[items, ("user.id", "INT64", &[], &["7"])], r#"{"user": {"id": "7"}}"#),
            (&[items, ("user.id", "BYTES", &[1, 1], &[""])], "{}"),
            (&[items, ("user.id", "BYTES", &[0], &[])], "{}"),
            (
                &[items, ("candidates.bid", "INT32", &[1, 2], &["2", "1"])],
                r#"{"candidates": {"bid": [2, 1]}}"#,
            ),
            (
                &[items, ("candidates.bid", "BYTES", &[2], &["0.5", ""])],
                r#"{"candidates": {"bid": [0.5, 1]}}"#,
            ),
            (
                &[
                    items,
                    ("user.behaviors.item", "BYTES", &[1, 4], &["5", "", "9", ""]),
                    ("user.behaviors.time", "FP64", &[4, 1], &["200", "NaN", "100", "0"]),
                    ("user.behaviors.features.category", "BYTES", &[1, 4], &["a", "", "", ""]),
                ],
                r#"{"user": {"behaviors": {"item": [5, "", 9, null], "time": [200, null, 100, 0],
                    "features": {"category": ["a", null, null, null]}}}}"#,
            ),
            (&[items, ("time", "INT64", &[1, 1], &["300"])], r#"{"time": 300}"#),
            (
                &[items, ("user.behaviors.time", "BYTES", &[0, 7], &[])],
                r#"{"user": {"behaviors": {"time": []}}}"#,
            ),
            (
                &[
                    items,
                    ("context.hour", "UINT8", &[1], &["12"]),
                    ("context.day", "BYTES", &[], &[""]),
                ],
                r#"{"context": {"hour": 12, "day": null}}"#,
            ),
            (
                &[items, ("user.features.tags", "BYTES", &[1, 3], &["a", "b", ""])],
                r#"{"user": {"features": {"tags": ["a", "b"]}}}"#,
            ),
            (
                &[items, ("candidates.features.price", "FP32", &[2], &["4.2", "NaN"])],
                r#"{"candidates": {"features": {"price": [4.2, null]}}}"#,
            ),
            (
                &[items, ("candidates.features.tags", "BYTES", &[1, 2, 2], &["a", "b", "", ""])],
                r#"{"candidates": {"features": {"tags": [["a", "b"], null]}}}"#,
            ),
        ];
        for (tensors, json) in cases {
            let mut expected: serde_json::Value = serde_json::from_str(json).unwrap();
            expected["candidates"]["item"] = serde_json::json!(["3", "4"]);
            let expected = PageView::parse(expected.to_string().as_bytes()).unwrap();
            assert_eq!(page_of(tensors), Ok(expected), "{tensors:?}");
        }
        // One candidate with several values.
        let page = page_of(&[
            ("candidates.item", "BYTES", &[1], &["3"]),
            ("candidates.features.tags", "BYTES", &[1, 3], &["a", "b", ""]),
        ]);
        let tags = &page.unwrap().candidates.features["tags"];
        assert_eq!(tags[..], [Some(Cell::List(vec!["a".into(), "b".into()]))]);
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let cases: [(&[Spelled<'_>], &str); 14] = [
            (
                &[("candidates.item", "BYTES", &[2, 2], &["1", "2", "3", "4"])],
                "candidates.item has shape [2, 2]; a request is one",
            ),
            (
                &[("candidates.item", "BYTES", &[3], &["1"])],
                "candidates.item has 1 values of BYTES, expected 3 by",
            ),
            (
                &[("candidates.item", "BYTES", &[-1], &["1"])],
                "candidates.item has shape [-1], expected",
            ),
            (
                &[("user.id", "BYTES", &[i64::MAX, 4], &[])],
                "user.id has shape [9223372036854775807, 4]",
            ),
            (&[("user.id", "BYTES", &[2], &["a", "b"])], "user.id has 2 values, expected 1"),
            (
                &[("user.id", "FP64", &[1], &["9007199254740992.0"])],
                "user.id[0] is 9007199254740992.0 in FP64, too large to be exact",
            ),
            (
                &[("candidates.item", "FP32", &[2], &["1.5", "16777216"])],
                "candidates.item[1] is 16777216 in FP32, too large",
            ),
            (
                &[("candidates.bid", "FP64", &[2], &["1", "NaN"])],
                "candidates.bid[1]: \"NaN\" is no bid, expected a number",
            ),
            (
                &[("candidates.bid", "BOOL", &[1], &["true"])],
                "candidates.bid[0]: \"true\" is no bid",
            ),
            (&[("time", "INT64", &[2], &["7", "8"])], "time has 2 values, expected 1"),
            (
                &[("user.behaviors.time", "FP32", &[1], &["7"])],
                "user.behaviors.time is FP32, too coarse for times",
            ),
            (
                &[("user.behaviors.time", "BYTES", &[2], &["7", "soon"])],
                "user.behaviors.time[1]: `soon` is not a time",
            ),
            (
                &[("who", "BYTES", &[1], &["a"])],
                "who: no such input; the model's description lists them",
            ),
            (
                &[("user.id", "BYTES", &[1], &["a"]), ("user.id", "BYTES", &[1], &["a"])],
                "user.id is there twice",
            ),
        ];
        for (tensors, expected) in cases {
            let said = page_of(tensors).unwrap_err();
            assert!(said.strip_prefix("request: ").unwrap().starts_with(expected), "{said}");
        }
    }
}
