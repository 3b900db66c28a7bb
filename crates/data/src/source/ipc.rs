//! Arrow IPC as a table of text: files (Feather of version 2) and streams. Both are messages one
//! after the other; where they are, a file's footer says, and a stream is looked through.

use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::{FileDecoder, read_footer_length};
use arrow_ipc::{Block, Message, MessageHeader, MetadataVersion};
use arrow_schema::{ArrowError, SchemaRef};

use super::arrow::{ArrowColumns, Wanted};
use super::batch::BATCH_ROWS;
use super::input::{Input, ReadAt};
use super::table::{Batches, Table};
use crate::{Error, Result};

/// An Arrow IPC file or stream.
#[derive(Clone, Debug)]
pub(crate) struct IpcTable {
    input: Arc<dyn Input>,
    is_stream: bool,
    contents: Contents,
    columns: ArrowColumns,
}

#[derive(Clone, Debug)]
struct Contents {
    schema: SchemaRef,
    version: MetadataVersion,
    /// Values of dictionaries and batches of rows, in order.
    messages: Vec<(Kind, Block)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Dictionary,
    Rows,
}

/// What a message begins with, but in files from before version 0.15 of Arrow.
const CONTINUES: [u8; 4] = [0xff; 4];

impl IpcTable {
    /// Reads the schema of a file, or of a stream, and where its rows are.
    pub(crate) fn open(input: Arc<dyn Input>, is_stream: bool) -> Result<IpcTable> {
        let contents = if is_stream { stream(&input) } else { footer(&input) };
        let contents = contents.map_err(unreadable(&input))?;
        let columns = ArrowColumns::new(&contents.schema, |_| false);
        let mut table = IpcTable { input, is_stream, contents, columns };
        let mut columns = table.columns.clone();
        columns.settle(table.path(), |at| table.record_batches(&[at])?.next().transpose());
        table.columns = columns;
        Ok(table)
    }

    /// The batches of these columns.
    pub(crate) fn read(&self, columns: &[usize]) -> Result<Batches<'static>> {
        self.check_usable(columns)?;
        let table = self.clone();
        let wanted = Wanted::new(columns);
        let slices = self.record_batches(&wanted.roots)?.flat_map(|batch| {
            let slices: Vec<Result<RecordBatch>> = match batch {
                Err(error) => vec![Err(error)],
                Ok(batch) => {
                    let rows = batch.num_rows();
                    let slice = |at| Ok(batch.slice(at, BATCH_ROWS.min(rows - at)));
                    (0..rows).step_by(BATCH_ROWS).map(slice).collect()
                }
            };
            slices
        });
        let mut next_row = 1;
        Ok(Box::new(slices.map(move |batch| {
            let batch = batch?;
            let first = next_row;
            next_row += batch.num_rows() as u64;
            table.columns.batch(table.path(), &wanted, &batch, first)
        })))
    }

    /// The columns at these positions, which ascend, in the batches of the file.
    fn record_batches(
        &self,
        columns: &[usize],
    ) -> Result<Box<dyn Iterator<Item = Result<RecordBatch>>>> {
        let input = Arc::clone(&self.input);
        let at = input.at_random().map_err(Error::io(input.path()))?;
        let Contents { schema, version, messages } = self.contents.clone();
        let mut decoder = FileDecoder::new(schema, version).with_projection(columns.to_vec());
        let mut next = move |(kind, block): (Kind, Block)| {
            let message = message(at.as_ref(), input.length(), &block)?;
            match kind {
                Kind::Dictionary => decoder.read_dictionary(&block, &message).map(|()| None),
                Kind::Rows => decoder.read_record_batch(&block, &message),
            }
        };
        let input = Arc::clone(&self.input);
        Ok(Box::new(
            messages
                .into_iter()
                .filter_map(move |message| next(message).map_err(unreadable(&input)).transpose()),
        ))
    }
}

fn unreadable(input: &Arc<dyn Input>) -> impl Fn(ArrowError) -> Error {
    |error| Error::content(input.path(), format!("cannot be read as Arrow IPC: {error}"))
}

fn invalid(what: impl Into<String>) -> ArrowError {
    ArrowError::ParseError(what.into())
}

/// What the end of a file tells.
fn footer(input: &Arc<dyn Input>) -> Result<Contents, ArrowError> {
    let at = input.at_random()?;
    let cut = || invalid("it has no footer; it is cut short, or its writer was not closed");
    let end = input.length().checked_sub(10).filter(|&end| end > 8).ok_or_else(cut)?;
    let tail: [u8; 10] = at.read_at(end, 10)?[..].try_into().map_err(|_| cut())?;
    let length = read_footer_length(tail).map_err(|_| cut())?;
    let start = end.checked_sub(length as u64).ok_or_else(cut)?;
    let bytes = at.read_at(start, length)?;
    let footer = arrow_ipc::root_as_footer(&bytes).map_err(|error| invalid(error.to_string()))?;
    let schema = footer.schema().ok_or_else(|| invalid("it has no schema"))?;
    let (dictionaries, rows) = (footer.dictionaries(), footer.recordBatches());
    let mut messages = Vec::new();
    messages.extend(dictionaries.iter().flatten().map(|block| (Kind::Dictionary, *block)));
    messages.extend(rows.iter().flatten().map(|block| (Kind::Rows, *block)));
    Ok(Contents { schema: read_schema(schema)?, version: footer.version(), messages })
}

/// What a look through a stream finds.
fn stream(input: &Arc<dyn Input>) -> Result<Contents, ArrowError> {
    let at = input.at_random()?;
    let file = input.length();
    let cut = || {
        invalid(
            "the mark that ends a stream is missing; it is cut short, or its writer was not closed",
        )
    };
    let (mut schema, mut messages, mut start) = (None, Vec::new(), 0_u64);
    loop {
        let number = |at_byte: u64| -> Result<[u8; 4], ArrowError> {
            if at_byte.checked_add(4).is_none_or(|end| end > file) {
                return Err(cut());
            }
            at.read_at(at_byte, 4)?[..].try_into().map_err(|_| cut())
        };
        let first = number(start)?;
        let (prefix, length) =
            if first == CONTINUES { (8, number(start + 4)?) } else { (4, first) };
        let length = i32::from_le_bytes(length);
        if length == 0 {
            break;
        }
        let metadata =
            u64::try_from(length).map_err(|_| invalid("a message of negative length"))?;
        if start + prefix + metadata > file {
            return Err(cut());
        }
        let bytes = at.read_at(start + prefix, metadata as usize)?;
        let message = root_as_message(&bytes)?;
        let block = Block::new(start as i64, prefix as i32 + length, message.bodyLength());
        match message.header_type() {
            MessageHeader::Schema => {
                let read = message.header_as_schema().ok_or_else(|| invalid("it has no schema"))?;
                schema = Some((read_schema(read)?, message.version()));
            }
            MessageHeader::DictionaryBatch => messages.push((Kind::Dictionary, block)),
            MessageHeader::RecordBatch => messages.push((Kind::Rows, block)),
            other => return Err(invalid(format!("a message of kind {other:?}"))),
        }
        let body = u64::try_from(message.bodyLength());
        let body = body.map_err(|_| invalid("a message of negative length"))?;
        let end = (start + prefix + metadata).checked_add(body).filter(|&end| end <= file);
        start = end.ok_or_else(cut)?;
    }
    let (schema, version) = schema.ok_or_else(|| invalid("it has no schema"))?;
    Ok(Contents { schema, version, messages })
}

fn root_as_message(bytes: &[u8]) -> Result<Message<'_>, ArrowError> {
    arrow_ipc::root_as_message(bytes).map_err(|error| invalid(error.to_string()))
}

fn read_schema(schema: arrow_ipc::Schema<'_>) -> Result<SchemaRef, ArrowError> {
    if !schema.endianness().equals_to_target_endianness() {
        return Err(invalid("its numbers have the bytes of another kind of processor"));
    }
    Ok(Arc::new(arrow_ipc::convert::fb_to_schema(schema)))
}

/// A message with its body.
fn message(at: &dyn ReadAt, file: u64, block: &Block) -> Result<Buffer, ArrowError> {
    let length = i64::from(block.metaDataLength()).checked_add(block.bodyLength());
    let range = (u64::try_from(block.offset()), length.map(u64::try_from));
    let bytes = match range {
        (Ok(start), Some(Ok(length)))
            if start.checked_add(length).is_some_and(|end| end <= file) =>
        {
            at.read_at(start, length as usize)?
        }
        _ => return Err(invalid("a batch lies outside of the file")),
    };
    check_sizes(&bytes, block)?;
    Ok(Buffer::from(bytes))
}

/// More than a byte can become: zstd repeats one of four bytes up to 128 KiB times.
const EXPANDS: u64 = 32_768;

/// That no compressed buffer of a message says it would expand to more than it can: so much memory
/// would be asked for, and a process that gets none ends.
fn check_sizes(bytes: &[u8], block: &Block) -> Result<(), ArrowError> {
    let short = || invalid("a message is cut short");
    let (metadata, body) =
        bytes.split_at_checked(block.metaDataLength().max(0) as usize).ok_or_else(short)?;
    let prefix = if metadata.starts_with(&CONTINUES) { 8 } else { 4 };
    let message = root_as_message(metadata.get(prefix..).ok_or_else(short)?)?;
    let of_dictionary = message.header_as_dictionary_batch().and_then(|batch| batch.data());
    let Some(batch) = message.header_as_record_batch().or(of_dictionary) else { return Ok(()) };
    if batch.compression().is_none() {
        return Ok(());
    }
    for buffer in batch.buffers().into_iter().flatten() {
        let range =
            usize::try_from(buffer.offset()).ok().zip(usize::try_from(buffer.length()).ok());
        let bytes = range.and_then(|(start, length)| body.get(start..start.checked_add(length)?));
        let bytes = bytes.ok_or_else(|| invalid("a buffer lies outside of its message"))?;
        let Some(size) = bytes.first_chunk::<8>() else { continue };
        // -1: as it is.
        let size = u64::try_from(i64::from_le_bytes(*size)).unwrap_or(0);
        if size > (bytes.len() as u64).saturating_mul(EXPANDS) {
            let what = format!("a buffer of {} bytes says that it expands to {size}", bytes.len());
            return Err(invalid(what));
        }
    }
    Ok(())
}

impl Table for IpcTable {
    fn path(&self) -> &Path {
        self.input.path()
    }

    fn columns(&self) -> &[String] {
        &self.columns.names
    }

    fn batches(&self, columns: &[usize]) -> Result<Batches<'_>> {
        self.read(columns)
    }

    fn column_type(&self, column: usize) -> Option<String> {
        Some(self.columns.type_name(column).to_string())
    }

    fn unusable(&self, column: usize) -> Option<String> {
        self.columns.unusable(column)
    }

    fn notes(&self) -> Vec<String> {
        vec![if self.is_stream { "Arrow IPC stream" } else { "Arrow IPC" }.to_string()]
    }
}
