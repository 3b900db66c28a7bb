//! Arrow IPC as a table of text: files (Feather of version 2) and streams.

use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::{FileDecoder, StreamReader, read_footer_length};
use arrow_ipc::{Block, MetadataVersion};
use arrow_schema::{ArrowError, SchemaRef};

use super::arrow::{ArrowColumns, Wanted};
use super::batch::BATCH_ROWS;
use super::compression::Compression;
use super::input::{Input, ReadAt};
use super::{Batches, Table};
use crate::{Error, Result};

/// An Arrow IPC file or stream.
#[derive(Clone, Debug)]
pub(crate) struct IpcTable {
    input: Arc<dyn Input>,
    schema: SchemaRef,
    /// Of a file; a stream has none.
    footer: Option<Footer>,
    columns: ArrowColumns,
}

#[derive(Clone, Debug)]
struct Footer {
    version: MetadataVersion,
    dictionaries: Vec<Block>,
    batches: Vec<Block>,
}

/// The bytes that end a stream.
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

impl IpcTable {
    /// Reads the schema of a file, or of a stream.
    pub(crate) fn open(input: Arc<dyn Input>, stream: bool) -> Result<IpcTable> {
        let (schema, footer) = match stream {
            true => (stream_schema(&input)?, None),
            false => {
                let (schema, footer) = footer(&input).map_err(unreadable(&input))?;
                (schema, Some(footer))
            }
        };
        let columns = ArrowColumns::new(&schema, |_| false);
        let mut table = IpcTable { input, schema, footer, columns };
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
        let Some(footer) = self.footer.clone() else {
            let reader = stream(&input, Some(columns.to_vec()))?;
            return Ok(Box::new(reader.map(move |batch| batch.map_err(unreadable(&input)))));
        };
        let at = input.at_random().map_err(Error::io(input.path()))?;
        let mut decoder =
            FileDecoder::new(self.schema.clone(), footer.version).with_projection(columns.to_vec());
        for block in &footer.dictionaries {
            body(at.as_ref(), input.length(), block)
                .and_then(|body| decoder.read_dictionary(block, &body))
                .map_err(unreadable(&input))?;
        }
        Ok(Box::new(footer.batches.into_iter().filter_map(move |block| {
            let batch = body(at.as_ref(), input.length(), &block)
                .and_then(|body| decoder.read_record_batch(&block, &body));
            batch.map_err(unreadable(&input)).transpose()
        })))
    }
}

fn unreadable(input: &Arc<dyn Input>) -> impl Fn(ArrowError) -> Error {
    |error| Error::content(input.path(), format!("cannot be read as Arrow IPC: {error}"))
}

fn invalid(what: impl Into<String>) -> ArrowError {
    ArrowError::ParseError(what.into())
}

/// The schema and the places of batches that the end of a file tells.
fn footer(input: &Arc<dyn Input>) -> Result<(SchemaRef, Footer), ArrowError> {
    let at = input.at_random()?;
    let cut = || invalid("it has no footer; it is cut short, or its writer was not closed");
    let end = input.length().checked_sub(10).filter(|&end| end > 8).ok_or_else(cut)?;
    let tail: [u8; 10] = at.read_at(end, 10)?[..].try_into().map_err(|_| cut())?;
    let length = read_footer_length(tail).map_err(|_| cut())?;
    let start = end.checked_sub(length as u64).ok_or_else(cut)?;
    let bytes = at.read_at(start, length)?;
    let footer = arrow_ipc::root_as_footer(&bytes).map_err(|error| invalid(error.to_string()))?;
    let schema = footer.schema().ok_or_else(|| invalid("it has no schema"))?;
    let about = Footer {
        version: footer.version(),
        dictionaries: footer.dictionaries().iter().flatten().copied().collect(),
        batches: footer.recordBatches().iter().flatten().copied().collect(),
    };
    Ok((Arc::new(arrow_ipc::convert::fb_to_schema(schema)), about))
}

/// A message with its body.
fn body(at: &dyn ReadAt, file: u64, block: &Block) -> Result<Buffer, ArrowError> {
    let length = i64::from(block.metaDataLength()).checked_add(block.bodyLength());
    let range = (u64::try_from(block.offset()), length.map(u64::try_from));
    match range {
        (Ok(start), Some(Ok(length)))
            if start.checked_add(length).is_some_and(|end| end <= file) =>
        {
            Ok(Buffer::from(at.read_at(start, length as usize)?))
        }
        _ => Err(invalid("a batch lies outside of the file")),
    }
}

fn stream(
    input: &Arc<dyn Input>,
    columns: Option<Vec<usize>>,
) -> Result<StreamReader<BufReader<Box<dyn std::io::Read + Send>>>> {
    let bytes = Compression::None.reader(input.as_ref(), columns.is_some())?;
    StreamReader::try_new(BufReader::with_capacity(1 << 16, bytes), columns)
        .map_err(unreadable(input))
}

fn stream_schema(input: &Arc<dyn Input>) -> Result<SchemaRef> {
    let schema = stream(input, None)?.schema();
    // A stream that was cut between two messages would only look shorter.
    let at = input.at_random().map_err(Error::io(input.path()))?;
    let end = input.length().saturating_sub(END.len() as u64);
    if at.read_at(end, END.len()).map_err(Error::io(input.path()))?[..] != END {
        let what = "cannot be read as Arrow IPC: the mark that ends a stream is missing; it is cut short, or its writer \
                    was not closed";
        return Err(Error::content(input.path(), what));
    }
    Ok(schema)
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
        vec![if self.footer.is_some() { "Arrow IPC" } else { "Arrow IPC stream" }.to_string()]
    }
}
