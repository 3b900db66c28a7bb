//! A log that comes bit by bit, set aside by spans of time. No clock is read: what time it is, the
//! events say.
//!
//! A span is closed when an event came that is later than its end by at least the lateness. Events
//! of a closed span are late, and left out. All of it follows from the order of the rows alone, not
//! from the files that they are cut into.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema as ArrowSchema, SchemaRef};
use serde::{Deserialize, Serialize};

use super::collect::{Counted, EventRow, Events, at};
use crate::parquet_file::ParquetFile;
use crate::source::{TextBatch, is_hidden};
use crate::value::show_time;
use crate::{Error, Result};

/// Rows that are written at a time.
const BATCH: usize = 8192;

/// How a log is cut, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spans {
    /// Length of a span; spans begin at multiples of it.
    pub length: i64,
    /// How much later than a span's end an event has to be to close it.
    pub lateness: i64,
    /// How much later than all before it an event may be.
    pub jump: i64,
}

impl Spans {
    /// The beginning of the span of the instant `time`.
    pub fn of(&self, time: i64) -> i64 {
        time.div_euclid(self.length) * self.length
    }
}

/// What time it is in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// The latest event, in Unix seconds.
    pub newest: i64,
    /// The earliest instant whose events are not late, in Unix seconds.
    pub open: i64,
}

impl Clock {
    /// An event of the instant `time` came; whether it is in time.
    fn tick(&mut self, time: i64, spans: &Spans) -> bool {
        if time < self.open {
            return false;
        }
        self.newest = self.newest.max(time);
        self.open = self.open.max(spans.of(self.newest.saturating_sub(spans.lateness)));
        true
    }
}

/// What was set aside of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sorted {
    /// What time it is behind the file.
    pub clock: Clock,
    /// Rows that were set aside, by the beginning of their span.
    pub spans: BTreeMap<i64, u64>,
    /// Rows of closed spans.
    pub late: u64,
    /// Rows without user, item or time, or with an implausible time.
    pub left_out: u64,
}

/// See [`super::Plan::set_aside`].
pub(super) fn set_aside(
    events: &Events<'_>,
    spans: &Spans,
    clock: Clock,
    to: &Path,
    name: &str,
) -> Result<Sorted> {
    let mut files = Files::new(events, to, name);
    let mut sorted = Sorted { clock, spans: BTreeMap::new(), late: 0, left_out: 0 };
    let mut counted = Counted::default();
    events.read(&mut counted, &mut |_| (), &mut |event| {
        let ahead = event.time.saturating_sub(sorted.clock.newest);
        if ahead > spans.jump {
            let what = format!(
                "{} UTC is {ahead} seconds after the latest event before it, of {} UTC; expected at most {}",
                show_time(event.time),
                show_time(sorted.clock.newest),
                spans.jump
            );
            return Err(at(events.table, event.batch, event.row, events.mapping.time, what));
        }
        if !sorted.clock.tick(event.time, spans) {
            sorted.late += 1;
            return Ok(());
        }
        *sorted.spans.entry(spans.of(event.time)).or_default() += 1;
        files.push(spans.of(event.time), event)?;
        files.close_before(spans.of(sorted.clock.open))
    })?;
    files.close_before(i64::MAX)?;
    sorted.left_out = counted.dropped.missing();
    Ok(sorted)
}

/// Whether a file below a folder is hidden or in a hidden folder, by its name.
pub fn is_hidden_below(below: &str) -> bool {
    below.split('/').any(is_hidden)
}

/// The files of the spans that are not closed.
struct Files<'a> {
    to: &'a Path,
    name: &'a str,
    schema: SchemaRef,
    /// Of each column of the files, its place in the batches.
    places: Vec<usize>,
    open: BTreeMap<i64, SpanFile>,
}

struct SpanFile {
    file: ParquetFile,
    columns: Vec<StringBuilder>,
    rows: usize,
}

impl<'a> Files<'a> {
    fn new(events: &Events<'_>, to: &'a Path, name: &'a str) -> Files<'a> {
        let read = events.columns();
        let mut places = Vec::new();
        for (place, column) in read.iter().enumerate() {
            // A column may be two things.
            if read[..place].iter().all(|other| other != column) {
                places.push(place);
            }
        }
        let field = |&place: &usize| {
            Field::new(&events.table.columns()[read[place]], DataType::Utf8, false)
        };
        let fields: Vec<Field> = places.iter().map(field).collect();
        let schema = Arc::new(ArrowSchema::new(fields));
        Files { to, name, schema, places, open: BTreeMap::new() }
    }

    fn push(&mut self, span: i64, event: &EventRow) -> Result<()> {
        let Files { to, name, schema, places, open } = self;
        let of = match open.entry(span) {
            std::collections::btree_map::Entry::Occupied(of) => of.into_mut(),
            std::collections::btree_map::Entry::Vacant(free) => {
                let folder = to.join(span.to_string());
                std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
                let path = folder.join(format!("{name}.parquet"));
                let file = ParquetFile::create(&path, Arc::clone(schema))?;
                let columns = places.iter().map(|_| StringBuilder::new()).collect();
                free.insert(SpanFile { file, columns, rows: 0 })
            }
        };
        of.push(places, event.batch, event.row);
        if of.rows >= BATCH { of.write(schema) } else { Ok(()) }
    }

    /// Ends the files of the spans that begin before `span`.
    fn close_before(&mut self, span: i64) -> Result<()> {
        while let Some(first) = self.open.first_entry().filter(|first| *first.key() < span) {
            let mut of = first.remove();
            of.write(&self.schema)?;
            of.file.finish()?;
        }
        Ok(())
    }
}

impl SpanFile {
    fn push(&mut self, places: &[usize], batch: &TextBatch, row: usize) {
        for (column, &place) in self.columns.iter_mut().zip(places) {
            column.append_value(batch.get(place, row));
        }
        self.rows += 1;
    }

    fn write(&mut self, schema: &SchemaRef) -> Result<()> {
        self.rows = 0;
        let columns: Vec<ArrayRef> =
            self.columns.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef).collect();
        let batch = RecordBatch::try_new(Arc::clone(schema), columns);
        self.file.write(&batch.expect("columns of one length"))
    }
}
