//! The curves of a training for TensorBoard.
//!
//! ```text
//! tensorboard/events.out.tfevents.ams    records, one after another, each
//!   length    u64, little endian         bytes of the event
//!   crc       u32                        of the length
//!   event     Protocol Buffers           TensorFlow's `Event`, as far as scalars need it
//!   crc       u32                        of the event
//! ```
//! A crc is the masked CRC-32C of TFRecord files. The first event has the version of the format.
//! Times are those of the clock, as TensorBoard wants them; no result depends on this file. A
//! training that goes on drops the events of steps that it takes again, as in `metrics.jsonl`, and
//! a record that a killed process left half-written.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ams_data::staging::write_whole;
use crc::{CRC_32_ISCSI, Crc};
use prost::Message;

use crate::error::{Error, Result};

/// The folder in that of a run.
pub(crate) const TENSORBOARD: &str = "tensorboard";

/// The one file in it; TensorBoard looks for `tfevents`.
const FILE: &str = "events.out.tfevents.ams";

const VERSION: &str = "brain.Event:2";

/// Bytes before and after an event.
const BEFORE: usize = 12;
const AFTER: usize = 4;

const CASTAGNOLI: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// TensorFlow's message `Event`, as far as scalars need it.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Time of the event, in seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

/// TensorFlow's message `Summary`, as far as scalars need it.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

/// TensorFlow's `Summary.Value` of a scalar.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, tag = "2")]
    simple_value: f32,
}

/// A named number of a step.
pub(crate) struct Scalar {
    pub name: &'static str,
    pub value: f64,
}

/// The events of a run, which grow.
pub(crate) struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// Opens the events of a run that goes on after the step `goes_on`, or of a new one.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub(crate) fn open(run: &Path, goes_on: Option<u64>) -> Result<Events> {
        let folder = run.join(TENSORBOARD);
        fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let path = folder.join(FILE);
        let before = match goes_on {
            Some(step) if path.exists() => kept(&fs::read(&path).map_err(Error::io(&path))?, step),
            _ => Vec::new(),
        };
        let version =
            Event { wall_time: now(), file_version: Some(VERSION.to_owned()), ..Event::default() };
        let bytes = if before.is_empty() { record(&version) } else { before };
        write_whole(&path, bytes)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(Error::io(&path))?;
        Ok(Events { path, file })
    }

    /// Appends the numbers of a step.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(crate) fn add(&mut self, step: u64, scalars: &[Scalar]) -> Result<()> {
        let value = |scalar: &Scalar| Value {
            tag: scalar.name.to_owned(),
            simple_value: scalar.value as f32,
        };
        let summary = Summary { value: scalars.iter().map(value).collect() };
        let event = Event {
            wall_time: now(),
            step: step as i64,
            file_version: None,
            summary: Some(summary),
        };
        // One write: a process killed here leaves at most one record that is cut short.
        self.file.write_all(&record(&event)).map_err(Error::io(&self.path))
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64())
}

/// An event with its length and its checksums.
fn record(event: &Event) -> Vec<u8> {
    let event = event.encode_to_vec();
    let length = (event.len() as u64).to_le_bytes();
    let mut bytes = Vec::with_capacity(BEFORE + event.len() + AFTER);
    bytes.extend(length);
    bytes.extend(masked(&length));
    bytes.extend(&event);
    bytes.extend(masked(&event));
    bytes
}

/// The checksum of TFRecord files.
fn masked(bytes: &[u8]) -> [u8; 4] {
    CASTAGNOLI.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// The records of `bytes` up to `step`; nothing after one that is damaged.
fn kept(bytes: &[u8], step: u64) -> Vec<u8> {
    let mut kept = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((record, event)) = first(rest) {
        if event.step <= step as i64 {
            kept.extend_from_slice(record);
        }
        rest = &rest[record.len()..];
    }
    kept
}

/// The first record of `bytes` with its event; none at the end, or if it is damaged.
fn first(bytes: &[u8]) -> Option<(&[u8], Event)> {
    let length = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let end = usize::try_from(length).ok()?.checked_add(BEFORE)?;
    let event = bytes.get(BEFORE..end)?;
    let record = bytes.get(..end.checked_add(AFTER)?)?;
    let sound = record[8..BEFORE] == masked(&record[..8]) && record[end..] == masked(event);
    let event = Event::decode(event).ok().filter(|_| sound)?;
    Some((record, event))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version or step, and the scalars of each event in the file.
    fn events(run: &Path) -> Vec<String> {
        let bytes = fs::read(run.join(TENSORBOARD).join(FILE)).unwrap();
        let (mut rest, mut found) = (&bytes[..], Vec::new());
        while let Some((record, event)) = first(rest) {
            let scalars = event.summary.iter().flat_map(|summary| &summary.value);
            let scalars: Vec<String> =
                scalars.map(|value| format!(" {}={}", value.tag, value.simple_value)).collect();
            let begin = event.file_version.unwrap_or_else(|| event.step.to_string());
            found.push(begin + &scalars.concat());
            rest = &rest[record.len()..];
        }
        assert_eq!(rest, &[0_u8; 0][..], "a damaged record");
        found
    }

    fn add(events: &mut Events, step: u64) {
        let loss = Scalar { name: "loss", value: step as f64 / 4.0 };
        events.add(step, &[loss, Scalar { name: "rate", value: 0.5 }]).unwrap();
    }

    #[test]
    fn a_training_that_goes_on_has_each_step_once() {
        let run = tempfile::tempdir().unwrap();
        let mut first = Events::open(run.path(), None).unwrap();
        [1, 2, 3].into_iter().for_each(|step| add(&mut first, step));
        // Killed within a record.
        let path = run.path().join(TENSORBOARD).join(FILE);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, [&bytes[..], &bytes[..9]].concat()).unwrap();
        let mut second = Events::open(run.path(), Some(2)).unwrap();
        [3, 4].into_iter().for_each(|step| add(&mut second, step));
        let line = |step: u64| format!("{step} loss={} rate=0.5", step as f64 / 4.0);
        let expected = [VERSION.to_owned(), line(1), line(2), line(3), line(4)];
        assert_eq!(events(run.path()), expected);
        // A new training, and one whose file is no such file.
        Events::open(run.path(), None).unwrap();
        assert_eq!(events(run.path()), [VERSION]);
        fs::write(&path, "something else").unwrap();
        Events::open(run.path(), Some(2)).unwrap();
        assert_eq!(events(run.path()), [VERSION]);
    }

    /// The example of RFC 3720, masked as TensorFlow does.
    #[test]
    fn checksums_are_those_of_tfrecord_files() {
        assert_eq!(CASTAGNOLI.checksum(&[0; 32]), 0x8a91_36aa);
        let masked_by_hand = 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(masked(&[0; 32]), masked_by_hand.to_le_bytes());
    }
}
