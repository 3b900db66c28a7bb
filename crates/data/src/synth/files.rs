//! The files a shop hands over, and those only the one who drew it can write.
//!
//! ```text
//! events.parquet   user, item, label (0 or 1), time (unix seconds), age, gender, position, hour
//! items.csv        item,image,category,brand,price
//! images/ab/i000001.jpg (or .png)
//! truth.json       the config, the counts, the best possible AUC and GAUC of the test day
//! truth.parquet    user, item, label, time, probability of every impression of the test day
//! truth_items.csv  item,hue,pattern,silhouette,quality: what only pictures and only ids tell
//! ```
//! Ids and fields are text, events are in order of time. Knows columns. Does not know how a click
//! is drawn.

use super::catalogue::{CATEGORIES, Item, item_name};
use super::days::Event;
use super::shopper::{AGES, GENDERS, Shopper, user_name};
use crate::error::{Error, Result};
use arrow_array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows handed to the Parquet writer at once.
const BATCH_ROWS: usize = 1 << 14;

/// Rows of a Parquet row group: what is in memory at most.
const ROW_GROUP_ROWS: usize = 1 << 18;

/// Which columns an [`EventFile`] has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Columns {
    /// What a shop logs.
    Log,
    /// The log's key and the true probability.
    Truth,
}

/// A Parquet file of events, written as they come.
pub(super) struct EventFile<'a> {
    path: PathBuf,
    columns: Columns,
    shoppers: &'a [Shopper],
    waiting: Vec<Event>,
    writer: Option<ArrowWriter<File>>,
}

impl<'a> EventFile<'a> {
    /// An empty file at `path`.
    pub(super) fn create(
        path: PathBuf,
        columns: Columns,
        shoppers: &'a [Shopper],
    ) -> Result<EventFile<'a>> {
        let mut file = EventFile {
            path,
            columns,
            shoppers,
            waiting: Vec::with_capacity(BATCH_ROWS),
            writer: None,
        };
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .build();
        let schema = file.batch().schema();
        let out = File::create(&file.path).map_err(Error::io(&file.path))?;
        let writer = ArrowWriter::try_new(out, schema, Some(properties));
        file.writer = Some(writer.map_err(|error| unwritable(&file.path, &error))?);
        Ok(file)
    }

    pub(super) fn push(&mut self, event: Event) -> Result<()> {
        self.waiting.push(event);
        if self.waiting.len() < BATCH_ROWS { Ok(()) } else { self.flush() }
    }

    /// Writes what is left and the footer, and makes the file durable.
    pub(super) fn finish(mut self) -> Result<()> {
        self.flush()?;
        let writer = self.writer.take().expect("create opens the writer and only finish takes it");
        let file = writer.into_inner().map_err(|error| unwritable(&self.path, &error))?;
        file.sync_all().map_err(Error::io(&self.path))
    }

    fn flush(&mut self) -> Result<()> {
        let batch = self.batch();
        self.waiting.clear();
        let writer = self.writer.as_mut().expect("create opens the writer");
        writer.write(&batch).map_err(|error| unwritable(&self.path, &error))
    }

    /// The waiting events as columns.
    fn batch(&self) -> RecordBatch {
        let texts = |text: &dyn Fn(&Event) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(self.waiting.iter().map(text)))
        };
        let shopper = |event: &Event| &self.shoppers[event.user as usize];
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("user", texts(&|event| user_name(event.user))),
            ("item", texts(&|event| item_name(event.item as usize))),
            (
                "label",
                Arc::new(Int32Array::from_iter_values(
                    self.waiting.iter().map(|event| i32::from(event.clicked)),
                )),
            ),
            (
                "time",
                Arc::new(Int64Array::from_iter_values(self.waiting.iter().map(|event| event.time))),
            ),
        ];
        match self.columns {
            Columns::Log => columns.extend([
                ("age", texts(&|event| AGES[usize::from(shopper(event).age)].into())),
                ("gender", texts(&|event| GENDERS[usize::from(shopper(event).gender)].into())),
                ("position", texts(&|event| event.at.position.to_string())),
                ("hour", texts(&|event| event.at.hour.to_string())),
            ]),
            Columns::Truth => {
                let probabilities = self.waiting.iter().map(|event| event.probability);
                let array = Float64Array::from_iter_values(probabilities);
                columns.push(("probability", Arc::new(array)));
            }
        }
        let columns = columns.into_iter().map(|(name, array)| (name, array, false));
        RecordBatch::try_from_iter_with_nullable(columns)
            .expect("every column has one value per waiting event")
    }
}

fn unwritable(path: &Path, error: &parquet::errors::ParquetError) -> Error {
    Error::content(path, format!("cannot write the events: {error}"))
}

/// Writes `items.csv`; `images[i]` is the picture of item `i`, relative to the shop's folder. A
/// stock may be the first items of a shop.
pub(super) fn write_items(path: &Path, stock: &[Item], images: &[String]) -> Result<()> {
    write(path, |out| {
        writeln!(out, "item,image,category,brand,price")?;
        for (number, (item, image)) in stock.iter().zip(images).enumerate() {
            let name = item_name(number);
            let category = CATEGORIES[usize::from(item.category)];
            writeln!(out, "{name},{image},{category},{},{}", item.brand, item.price)?;
        }
        Ok(())
    })
}

pub(super) fn write_item_truth(path: &Path, stock: &[Item]) -> Result<()> {
    write(path, |out| {
        writeln!(out, "item,hue,pattern,silhouette,quality")?;
        for (number, item) in stock.iter().enumerate() {
            let name = item_name(number);
            let (hue, quality) = (item.style.hue_name(), item.quality);
            let (pattern, silhouette) = (item.style.pattern(), item.style.silhouette());
            writeln!(out, "{name},{hue},{pattern:?},{silhouette:?},{quality:.4}")?;
        }
        Ok(())
    })
}

/// Writes `value` as indented JSON.
pub(super) fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    write(path, |out| writeln!(out, "{value:#}"))
}

fn write(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<()> {
    let mut out = BufWriter::new(File::create(path).map_err(Error::io(path))?);
    content(&mut out)
        .and_then(|()| out.flush())
        .and_then(|()| out.get_ref().sync_all())
        .map_err(Error::io(path))
}
