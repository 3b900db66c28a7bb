//! The log of page views that explore: what was shown, what could have been, and with which
//! probability.
//!
//! ```text
//! user          text       who looked
//! item          text       an item that was shown
//! time          int64      unix seconds
//! page          text       the page view; its rows follow one another
//! position      int32      place on the page, from 0
//! clicked       int32      0 or 1
//! bid           float64    payment for a click
//! propensity    float64    probability with which this item was to be at this place, given what is
//!                          above it
//! candidates    list<text> the items that could have been there: all that are not above
//! probabilities list<float64>  of each of them; their sum is 1
//! truth         float64    the true probability of the click
//! truths        list<float64>  that of each of the candidates, had it been at this place
//! ```
//! A page view that explores is in random order with probability `random`, and ranked otherwise.
//! What is above tells which of both it is: after items that are not those ranked highest, it is
//! chance. Knows columns. Does not know how pages are ranked.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ams_data::synth::{Shown, View};
use ams_data::{Error, Result};
use arrow_array::builder::{Float64Builder, ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::scene::Scene;

/// Page views that are written at once.
const BATCH: usize = 512;

/// A page view that explored.
#[derive(Clone, Debug)]
pub struct Explored {
    pub(crate) view: View,
    pub(crate) candidates: Vec<u32>,
    /// The candidates as they are ranked, best first.
    pub(crate) ranked: Vec<u32>,
    pub(crate) shown: Vec<Shown>,
    /// Of what was shown.
    pub(crate) bids: Vec<f64>,
    /// Probability of a random order.
    pub(crate) random: f64,
    /// By place: the true probability of a click on each candidate that is not above.
    pub(crate) truths: Vec<Vec<f64>>,
}

impl Explored {
    /// The candidates that are not above `position`.
    pub(crate) fn left(&self, position: usize) -> impl Iterator<Item = u32> {
        let above = &self.shown[..position];
        let is_above = |item: &u32| above.iter().any(|it| it.item == *item);
        self.candidates.iter().copied().filter(move |item| !is_above(item))
    }

    /// The probability that the order is random, given what is above `position`.
    fn randomness(&self, position: usize) -> f64 {
        let above = self.shown[..position].iter().map(|it| it.item);
        if !above.eq(self.ranked[..position].iter().copied()) {
            return 1.0;
        }
        let left = (0..position).map(|at| (self.candidates.len() - at) as f64);
        let by_chance = left.fold(self.random, |product, left| product / left);
        by_chance / (by_chance + (1.0 - self.random))
    }

    /// The probability that `item`, which is not above, is at `position`, where the order is random
    /// with probability `randomness`.
    fn propensity(&self, item: u32, position: usize, randomness: f64) -> f64 {
        let by_chance = randomness / (self.candidates.len() - position) as f64;
        let is_ranked_there = self.ranked.get(position) == Some(&item);
        by_chance + if is_ranked_there { 1.0 - randomness } else { 0.0 }
    }
}

/// A Parquet file of page views that explored, written as they come.
pub struct ExploredFile {
    path: PathBuf,
    writer: ArrowWriter<File>,
}

impl ExploredFile {
    /// An empty file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Content`] if it cannot be written.
    pub fn create(path: &Path) -> Result<ExploredFile> {
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let schema = columns(&[], &|_| String::new(), &|_| String::new()).schema();
        let out = File::create(path).map_err(Error::io(path))?;
        let writer = ArrowWriter::try_new(out, schema, Some(properties));
        Ok(ExploredFile {
            path: path.to_owned(),
            writer: writer.map_err(|error| Error::content(path, error.to_string()))?,
        })
    }

    /// Adds page views of `scene`.
    ///
    /// # Errors
    /// As [`ExploredFile::create`].
    pub fn push(&mut self, scene: &Scene, pages: &[Explored]) -> Result<()> {
        let user = |user: u32| scene.users[user as usize].clone();
        let item = |item: u32| scene.names[item as usize].clone();
        for pages in pages.chunks(BATCH) {
            let written = self.writer.write(&columns(pages, &user, &item));
            written.map_err(|error| Error::content(&self.path, error.to_string()))?;
        }
        Ok(())
    }

    /// Writes the end of the file, and makes it durable.
    ///
    /// # Errors
    /// As [`ExploredFile::create`].
    pub fn finish(self) -> Result<()> {
        let ExploredFile { path, writer } = self;
        let file = writer.into_inner();
        let file = file.map_err(|error| Error::content(&path, error.to_string()))?;
        file.sync_all().map_err(Error::io(&path))
    }
}

/// The rows of `pages`.
fn columns(
    pages: &[Explored],
    user: &dyn Fn(u32) -> String,
    item: &dyn Fn(u32) -> String,
) -> RecordBatch {
    let rows: Vec<(&Explored, &Shown)> =
        pages.iter().flat_map(|page| page.shown.iter().map(move |it| (page, it))).collect();
    let rows = || rows.iter().copied();
    let texts = |of: &dyn Fn(&Explored, &Shown) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows().map(|(page, shown)| of(page, shown))))
    };
    let floats = |values: Vec<f64>| -> ArrayRef { Arc::new(Float64Array::from(values)) };
    let counts = |of: &dyn Fn(&Shown) -> i32| -> ArrayRef {
        Arc::new(Int32Array::from_iter_values(rows().map(|(_, shown)| of(shown))))
    };
    let mut candidates = ListBuilder::new(StringBuilder::new());
    let mut probabilities = ListBuilder::new(Float64Builder::new());
    let mut truths = ListBuilder::new(Float64Builder::new());
    for (page, shown) in rows() {
        let at = shown.position as usize;
        let randomness = page.randomness(at);
        for candidate in page.left(at) {
            candidates.values().append_value(item(candidate));
            probabilities.values().append_value(page.propensity(candidate, at, randomness));
        }
        truths.values().append_slice(&page.truths[at]);
        candidates.append(true);
        probabilities.append(true);
        truths.append(true);
    }
    let name = |page: &Explored, _: &Shown| format!("{}-{}", user(page.view.user), page.view.time);
    let times = Int64Array::from_iter_values(rows().map(|(page, _)| page.view.time));
    let bids = pages.iter().flat_map(|page| page.bids.iter().copied()).collect();
    let propensity = |(page, shown): (&Explored, &Shown)| {
        let at = shown.position as usize;
        page.propensity(shown.item, at, page.randomness(at))
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("user", texts(&|page, _| user(page.view.user))),
        ("item", texts(&|_, shown| item(shown.item))),
        ("time", Arc::new(times)),
        ("page", texts(&name)),
        ("position", counts(&|shown| shown.position as i32)),
        ("clicked", counts(&|shown| i32::from(shown.clicked))),
        ("bid", floats(bids)),
        ("propensity", floats(rows().map(propensity).collect())),
        ("candidates", Arc::new(candidates.finish())),
        ("probabilities", Arc::new(probabilities.finish())),
        ("truth", floats(rows().map(|(_, shown)| shown.probability).collect())),
        ("truths", Arc::new(truths.finish())),
    ];
    let columns = columns.into_iter().map(|(name, array)| (name, array, false));
    RecordBatch::try_from_iter_with_nullable(columns).expect("a value per item that was shown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_that_was_shown_is_a_row() {
        let view = View { time: 9, user: 0, page: 0, hour: 0 };
        let shown = |position: u32| Shown {
            view,
            item: 5 + position,
            position,
            clicked: position == 1,
            probability: 0.1,
        };
        let page = Explored {
            view,
            candidates: vec![4, 5, 6],
            ranked: vec![6, 4, 5],
            shown: vec![shown(0), shown(1)],
            bids: vec![1.0, 2.0],
            random: 1.0,
            truths: vec![vec![0.2, 0.1, 0.3], vec![0.2, 0.1]],
        };
        let batch = columns(&[page.clone(), page], &|it| format!("u{it}"), &|it| format!("i{it}"));
        assert_eq!((batch.num_rows(), batch.num_columns()), (4, 12));
        let lists = batch.column_by_name("candidates").unwrap();
        let lists = lists.as_any().downcast_ref::<arrow_array::ListArray>().unwrap();
        assert_eq!(lists.value_length(0), 3);
        assert_eq!(lists.value_length(1), 2, "one is above");
    }

    /// Held against the definition: the share of the orders, each as probable as it is, that begin
    /// as the page does.
    #[test]
    fn propensities_are_those_of_all_orders_that_begin_so() {
        let view = View { time: 9, user: 0, page: 0, hour: 0 };
        let shown = |(position, item): (usize, u32)| Shown {
            view,
            item,
            position: position as u32,
            clicked: false,
            probability: 0.1,
        };
        let page = |random, items: &[u32]| Explored {
            view,
            candidates: vec![4, 5, 6, 7],
            ranked: vec![6, 4, 7, 5],
            shown: items.iter().copied().enumerate().map(shown).collect(),
            bids: vec![],
            random,
            truths: vec![],
        };
        let orders = |begin: &[u32], random: f64| -> f64 {
            let rest: f64 = (0..begin.len()).map(|at| 1.0 / (4 - at) as f64).product();
            let is_ranked = *begin == [6, 4, 7, 5][..begin.len()];
            random * rest + if is_ranked { 1.0 - random } else { 0.0 }
        };
        for random in [1.0, 0.2] {
            for items in [[6, 4, 7], [6, 7, 4], [5, 6, 4]] {
                let page = page(random, &items);
                for position in 0..3 {
                    let randomness = page.randomness(position);
                    let of = |item| page.propensity(item, position, randomness);
                    let sum: f64 = page.left(position).map(of).sum();
                    assert!((sum - 1.0).abs() < 1e-12, "{sum}");
                    let expected =
                        orders(&items[..=position], random) / orders(&items[..position], random);
                    assert!((of(items[position]) - expected).abs() < 1e-12, "{items:?}");
                }
            }
        }
    }
}
