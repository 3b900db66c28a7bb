//! Several files as one table: columns are found by their names, partitions are columns too.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{Array, StringArray};

use super::batch::TextBatch;
use super::file::{FileTable, empty};
use super::find::{Found, Part, Skipped};
use super::options::TableOptions;
use super::table::{Batches, Table};
use crate::{Error, Result};

/// The files of a table, read one after the other.
#[derive(Debug)]
pub(crate) struct FilesTable {
    path: PathBuf,
    parts: Vec<Piece>,
    columns: Vec<String>,
    types: Vec<Option<String>>,
    unusable: Vec<Option<String>>,
    partitions: Vec<String>,
    notes: Vec<String>,
    hint: Option<String>,
    options: TableOptions,
}

/// One of the files.
#[derive(Debug)]
struct Piece {
    part: Part,
    /// Of every column of the table, where it is found.
    sources: Vec<ColumnSource>,
}

/// A file whose columns are known.
struct OpenedFile {
    part: Part,
    table: FileTable,
}

/// Where the values of a column are.
#[derive(Clone, Debug)]
enum ColumnSource {
    /// In the file's column at this position.
    File(usize),
    /// All are this one, of a partition.
    Partition(String),
    /// In the file's column, and they have to be the partition's.
    Both(usize, String),
    Missing,
}

/// The table of the files that were found.
pub(crate) fn open(found: Found, options: &TableOptions) -> Result<Box<dyn Table>> {
    let Found { path, parts, mut skipped } = found;
    let mut opened: Vec<OpenedFile> = Vec::new();
    let single = parts.len() == 1;
    for part in parts {
        match FileTable::open(Arc::clone(&part.input), options)? {
            Some(table) => opened.push(OpenedFile { part, table }),
            // A compressed file may hold nothing.
            None if !single => {
                skipped.empty += 1;
                if skipped.example.is_empty() {
                    skipped.example = part.name.to_string();
                }
            }
            None => return Err(empty(part.input.as_ref())),
        }
    }
    let Some(OpenedFile { part: first, table }) = opened.first() else {
        let note = skipped.note().unwrap_or_default();
        return Err(Error::content(&path, format!("no file in it to read; {note}")));
    };
    let differs = |other: &&OpenedFile| other.table.format() != table.format();
    if let Some(OpenedFile { part: other, table: wrong }) = opened.iter().find(differs) {
        let what = format!(
            "files of several formats: {} is {}, {} is {}; name those of one table, such as with a pattern (--{} \
             'FOLDER/*.{}')",
            first.name,
            table.format(),
            other.name,
            wrong.format(),
            if options.name.is_empty() { "events" } else { &options.name },
            table.ending(),
        );
        return Err(Error::content(&path, what));
    }
    if opened.len() == 1 && first.partitions.is_empty() && skipped == Skipped::default() {
        return Ok(Box::new(opened.remove(0).table));
    }
    Ok(Box::new(FilesTable::new(path, opened, &skipped, options)))
}

/// The names of all columns, those of files before those of partitions alone, and the names of
/// partitions; each in the order in which the files have them.
fn column_names(opened: &[OpenedFile]) -> (Vec<String>, Vec<String>) {
    let mut columns: Vec<String> = Vec::new();
    let mut partitions: Vec<String> = Vec::new();
    for OpenedFile { part, table } in opened {
        for name in table.columns() {
            if !columns.contains(name) {
                columns.push(name.clone());
            }
        }
        for (name, _) in &part.partitions {
            if !partitions.contains(name) {
                partitions.push(name.clone());
            }
        }
    }
    let further: Vec<String> =
        partitions.iter().filter(|name| !columns.contains(name)).cloned().collect();
    columns.extend(further);
    (columns, partitions)
}

impl FilesTable {
    fn new(
        path: PathBuf,
        opened: Vec<OpenedFile>,
        skipped: &Skipped,
        options: &TableOptions,
    ) -> FilesTable {
        let (columns, partitions) = column_names(&opened);
        let mut types = vec![None; columns.len()];
        let mut unusable: Vec<Option<String>> = vec![None; columns.len()];
        let several = opened.len() > 1;
        let mut parts = Vec::with_capacity(opened.len());
        for OpenedFile { part, table } in &opened {
            let mut sources = Vec::with_capacity(columns.len());
            for (at, name) in columns.iter().enumerate() {
                let in_file = table.columns().iter().position(|column| column == name);
                let partition = part.partitions.iter().rfind(|(key, _)| key == name);
                let partition = partition.map(|(_, value)| value.clone());
                if let Some(column) = in_file {
                    if types[at].is_none() {
                        types[at] = table.column_type(column);
                    }
                    if unusable[at].is_none() {
                        unusable[at] = table.unusable(column).map(|why| {
                            if several { format!("{why} (in the file {})", part.name) } else { why }
                        });
                    }
                }
                sources.push(match (in_file, partition) {
                    (Some(column), None) => ColumnSource::File(column),
                    (None, Some(value)) => ColumnSource::Partition(value),
                    (Some(column), Some(value)) => ColumnSource::Both(column, value),
                    (None, None) => {
                        // An object that lacks a key lacks the value.
                        if !table.is_sparse() && unusable[at].is_none() {
                            let hint =
                                table.hint().map_or(String::new(), |hint| format!("; {hint}"));
                            let found = table.columns().join(", ");
                            unusable[at] = Some(format!(
                                "the file {} has no such column; it has: {found}{hint}",
                                part.name
                            ));
                        }
                        ColumnSource::Missing
                    }
                });
            }
            parts.push(Piece { part: part.clone(), sources });
        }
        let table = &opened[0].table;
        let mut notes = table.notes();
        if several {
            notes.insert(0, format!("{} files", parts.len()));
        }
        if !partitions.is_empty() {
            notes.push(format!("partition columns: {}", partitions.join(", ")));
        }
        notes.extend(skipped.note());
        let hint = table.hint();
        let options = options.clone();
        FilesTable { path, parts, columns, types, unusable, partitions, notes, hint, options }
    }

    /// The batches of one file.
    fn read(&self, piece: &Piece, columns: &[usize]) -> Result<Batches<'static>> {
        let input = &piece.part.input;
        let sources: Vec<ColumnSource> =
            columns.iter().map(|&column| piece.sources[column].clone()).collect();
        let names: Vec<String> =
            columns.iter().map(|&column| self.columns[column].clone()).collect();
        let in_file = sources.iter().filter_map(|source| match source {
            ColumnSource::File(column) | ColumnSource::Both(column, _) => Some(*column),
            ColumnSource::Partition(_) | ColumnSource::Missing => None,
        });
        let in_file: Vec<usize> = in_file.collect();
        let table = FileTable::open(Arc::clone(input), &self.options)?;
        let table =
            table.ok_or_else(|| Error::content(input.path(), "changed while it was read"))?;
        let batches = table.read(&in_file)?;
        let name = (self.parts.len() > 1).then(|| Arc::clone(&piece.part.name));
        let path = self.path.clone();
        Ok(Box::new(batches.map(move |batch| {
            let batch = batch?;
            let batch = match &name {
                Some(name) => batch.of_file(name),
                None => batch,
            };
            assemble(&path, batch, &sources, &names)
        })))
    }
}

/// The columns of the table from those of a file.
fn assemble(
    path: &Path,
    batch: TextBatch,
    sources: &[ColumnSource],
    names: &[String],
) -> Result<TextBatch> {
    let rows = batch.rows();
    let (columns, batch) = batch.take_columns();
    let mut columns = columns.into_iter();
    let mut all = Vec::with_capacity(sources.len());
    for (source, name) in sources.iter().zip(names) {
        all.push(match source {
            ColumnSource::File(_) => columns.next().expect("it was asked for"),
            ColumnSource::Partition(value) => StringArray::from_iter_values(std::iter::repeat_n(value, rows)),
            ColumnSource::Missing => StringArray::new_null(rows),
            ColumnSource::Both(_, value) => {
                let column = columns.next().expect("it was asked for");
                let text = |row: usize| if column.is_null(row) { "" } else { column.value(row) };
                if let Some(row) = (0..rows).find(|&row| !is_same(text(row), value)) {
                    let what = format!(
                        "{}, column `{name}`: `{}` in the file, `{value}` in the name of its folder; rename one of them",
                        batch.place(row),
                        text(row)
                    );
                    return Err(Error::content(path, what));
                }
                column
            }
        });
    }
    Ok(batch.with_columns(all))
}

/// Whether two texts are one value: `05` and `5` are.
fn is_same(one: &str, other: &str) -> bool {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    one.trim() == other.trim() || number(one).is_some_and(|one| Some(one) == number(other))
}

impl Table for FilesTable {
    fn path(&self) -> &Path {
        &self.path
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn batches(&self, columns: &[usize]) -> Result<Batches<'_>> {
        self.check_usable(columns)?;
        let columns = columns.to_vec();
        let mut ended = false;
        let batches = self.parts.iter().flat_map(move |piece| match self.read(piece, &columns) {
            Ok(batches) => batches,
            Err(error) => Box::new(std::iter::once(Err(error))) as Batches<'static>,
        });
        // After an error nothing comes: rows of the next file would look like the rows after it.
        Ok(Box::new(batches.take_while(move |batch| {
            let goes_on = !ended;
            ended |= batch.is_err();
            goes_on
        })))
    }

    fn column_type(&self, column: usize) -> Option<String> {
        match &self.types[column] {
            Some(name) => Some(name.clone()),
            None => {
                self.partitions.contains(&self.columns[column]).then(|| "partition".to_string())
            }
        }
    }

    fn unusable(&self, column: usize) -> Option<String> {
        self.unusable[column].clone()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}
