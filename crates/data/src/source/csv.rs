//! CSV and what is like it as a table of text.
//!
//! Taken apart here rather than by the csv crate, because that one cannot say where a quotation
//! mark began that never ends, nor whether text follows the mark that ends a cell, and knows no
//! delimiters of several characters: without these a single stray mark swallows rows unseen. A test
//! compares the two wherever both have an answer.

use std::path::Path;

use super::batch::{BatchBuilder, NoText, TextBatch};
use super::encoding::Encoding;
use super::names;
use super::options::{Delimiter, Quoting, TableOptions};
use super::table::{Batches, Table};
use super::text::{Text, Window, line_ends};
use crate::{Error, Result};

/// A CSV file whose header and separator are known.
#[derive(Clone, Debug)]
pub(crate) struct CsvTable {
    text: Text,
    options: TableOptions,
    splitter: Splitter,
    columns: Vec<String>,
    unusable: Vec<Option<String>>,
    /// The first row as it stands there, for messages.
    first_row: String,
    has_header: bool,
    /// Why a cell of the first row cannot be a column's name, if one cannot.
    looks_like_data: bool,
}

impl CsvTable {
    pub(crate) fn open(text: Text, options: &TableOptions) -> Result<CsvTable> {
        let mut window = text.window(false)?;
        let first = first_line(&text, &mut window)?;
        let stated = separator_line(&first);
        let delimiter = match (&options.delimiter, stated) {
            (Some(delimiter), _) => delimiter.clone(),
            (None, Some(delimiter)) => delimiter,
            (None, None) => guess_delimiter(&first, options.header.as_ref().map(Vec::len)),
        };
        let mut table = CsvTable {
            text,
            options: options.clone(),
            splitter: Splitter::new(delimiter, options.quoting),
            columns: Vec::new(),
            unusable: Vec::new(),
            first_row: String::new(),
            has_header: options.header.is_none(),
            looks_like_data: false,
        };
        let mut records = table.records(false)?;
        if !records.next()? {
            return Err(table.text.wrong("no rows"));
        }
        let mut cells = Vec::new();
        for at in 0..records.cells.len() {
            let mut cell = Vec::new();
            records.push_cell(at, &mut cell);
            let cell = String::from_utf8(cell).map_err(|_| {
                let what = format!("line {}: the header is {}", records.line, table.not_utf_8());
                table.text.wrong(what)
            })?;
            if cell.contains('\0') {
                return Err(table
                    .text
                    .wrong(format!("line {}: the header holds a NUL", records.line)));
            }
            cells.push(cell.trim().to_string());
        }
        let (line, raw) = (records.line, String::from_utf8_lossy(records.raw()).into_owned());
        drop(records);
        table.first_row = names::shortened(raw.trim_end(), 120);
        table.looks_like_data = cells.iter().any(|cell| is_value(cell));
        if let Some(header) = &options.header {
            let flag = options.flag("header");
            if cells.len() != header.len() {
                let what = format!(
                    "line {line}: {} cells; {flag} names {} columns: {}",
                    cells.len(),
                    header.len(),
                    header.join(",")
                );
                return Err(table.text.wrong(what));
            }
            if cells == *header {
                let what =
                    format!("line {line} is a header with these names already; leave out {flag}");
                return Err(table.text.wrong(what));
            }
            cells.clone_from(header);
        }
        if cells.iter().all(String::is_empty) {
            return Err(table.text.wrong(format!("line {line} is empty; expected a header")));
        }
        table.unusable = names::unusable_names(&cells);
        table.columns = cells;
        Ok(table)
    }

    /// The batches of these columns.
    pub(crate) fn read(&self, columns: &[usize]) -> Result<Batches<'static>> {
        self.check_usable(columns)?;
        let mut records = self.records(true)?;
        if self.has_header {
            records.next()?;
        }
        let builder = BatchBuilder::new(columns.len());
        Ok(Box::new(Rows { records, columns: columns.to_vec(), builder }))
    }

    fn not_utf_8(&self) -> String {
        match self.text.encoding {
            Encoding::Utf8 => {
                let flag = self.options.flag("encoding");
                format!(
                    "not UTF-8; if the file is of another encoding, say so: {flag} windows-1252 (or latin-1)"
                )
            }
            encoding => format!("no text of {}", encoding.name()),
        }
    }

    fn records(&self, ahead: bool) -> Result<Records> {
        let mut records = Records {
            table: self.clone(),
            window: self.text.window(ahead)?,
            cells: Vec::new(),
            line: 1,
            length: 0,
            next_line: 1,
        };
        let first = first_line(&self.text, &mut records.window)?;
        if separator_line(&first).is_some() {
            records.window.consume(first.len());
            records.next_line = 2;
        }
        Ok(records)
    }

    /// What to say of a mark that seems to be none of quoting.
    fn other_quoting(&self, window: &[u8]) -> String {
        let flag = self.options.flag("quoting");
        let backslashes = memchr::memmem::find(window, b"\\\"").is_some();
        let backslash = if backslashes && self.options.quoting != Quoting::Backslash {
            format!("; if `\\\"` means a mark within a cell, say {flag} backslash")
        } else {
            String::new()
        };
        let trusted = match self.options.quoting {
            Quoting::Trusted => String::new(),
            _ => format!("; if the cell is meant to be so, say {flag} trusted"),
        };
        format!("if marks are plain characters in this file, say {flag} none{backslash}{trusted}")
    }

    fn no_text(&self, wrong: NoText, columns: &[usize]) -> Error {
        let what = if wrong.nul {
            "a NUL byte; is the file damaged?".to_string()
        } else {
            self.not_utf_8()
        };
        let column = &self.columns[columns[wrong.column]];
        self.text.wrong(format!("line {}, column `{column}`: {what}", wrong.line))
    }
}

impl Table for CsvTable {
    fn path(&self) -> &Path {
        self.text.input.path()
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn batches(&self, columns: &[usize]) -> Result<Batches<'_>> {
        self.read(columns)
    }

    fn unusable(&self, column: usize) -> Option<String> {
        self.unusable[column].clone()
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec![format!("CSV, cells separated by `{}`", self.splitter.delimiter)];
        notes.extend(self.text.wrapping());
        if !self.has_header {
            notes.push("no header".to_string());
        }
        notes
    }

    fn hint(&self) -> Option<String> {
        if self.columns.len() == 1 {
            let flag = self.options.flag("delimiter");
            return Some(format!(
                "the first row, `{}`, is one cell; if another mark separates cells, state it: {flag}",
                self.first_row
            ));
        }
        (self.has_header && self.looks_like_data).then(|| {
            let flag = self.options.flag("header");
            format!(
                "the first row looks like data: `{}`; if the file has no header, name its {} columns: {flag} user,item,..",
                self.first_row,
                self.columns.len()
            )
        })
    }
}

/// The rows of a file, one at a time.
struct Records {
    table: CsvTable,
    window: Window,
    /// Of the row that is looked at.
    cells: Vec<Cell>,
    /// The line it begins on.
    line: u64,
    length: usize,
    next_line: u64,
}

impl Records {
    /// Goes on to the next row, if there is one; empty lines are none.
    fn next(&mut self) -> Result<bool> {
        loop {
            self.window.consume(self.length);
            self.length = 0;
            self.line = self.next_line;
            match self.table.splitter.split(
                self.window.bytes(),
                self.window.ended(),
                &mut self.cells,
            ) {
                Step::Row { length, lines } => {
                    self.length = length;
                    self.next_line = self.line + lines;
                    if let [cell] = self.cells[..]
                        && cell.form == Form::Plain
                        && self.is_blank(cell)
                    {
                        continue;
                    }
                    if lines > 1 {
                        self.check_lines()?;
                    }
                    return Ok(true);
                }
                Step::End => return Ok(false),
                Step::Unclosed { mark } => {
                    let window = self.window.bytes();
                    let lines = line_ends(&window[mark..]);
                    let what = format!(
                        "a quotation mark on line {} begins a cell that does not end before the end of the file, {lines} lines below; {}",
                        self.line_of(mark),
                        self.table.other_quoting(&window[mark..])
                    );
                    return Err(self.table.text.wrong(what));
                }
                Step::Backslash { mark } => {
                    let flag = self.table.options.flag("quoting");
                    let what = format!(
                        "line {}: text follows the mark that ends a cell, which a backslash stands before; if `\\\"` means a mark within a cell, say {flag} backslash; if the mark ends the cell, {flag} trusted",
                        self.line_of(mark)
                    );
                    return Err(self.table.text.wrong(what));
                }
                Step::More { mark } => {
                    if let Some(mark) = mark {
                        self.check_length(mark)?;
                    }
                    self.window.more().map_err(|error| self.table.text.failed(error))?;
                }
            }
        }
    }

    fn is_blank(&self, cell: Cell) -> bool {
        let text = &self.window.bytes()[cell.start..cell.end];
        match self.table.columns.len() {
            // The header itself, or rows of which a space may be all.
            0 | 1 => text.is_empty(),
            _ => text.trim_ascii().is_empty(),
        }
    }

    fn line_of(&self, place: usize) -> u64 {
        self.line + line_ends(&self.window.bytes()[..place])
    }

    /// A cell that is very long, of very many lines, and still not at its end.
    fn check_length(&self, mark: usize) -> Result<()> {
        const LONG: usize = 1 << 20;
        const LINES: u64 = 200;
        let cell = &self.window.bytes()[mark..];
        if self.table.splitter.quoting == Quoting::Trusted
            || cell.len() < LONG
            || line_ends(cell) < LINES
        {
            return Ok(());
        }
        let what = format!(
            "a quotation mark on line {} begins a cell of more than {} lines; {}",
            self.line_of(mark),
            line_ends(cell),
            self.table.other_quoting(cell)
        );
        Err(self.table.text.wrong(what))
    }

    /// Whether a cell of several lines has swallowed rows.
    fn check_lines(&self) -> Result<()> {
        if self.table.splitter.quoting == Quoting::Trusted {
            return Ok(());
        }
        let window = self.window.bytes();
        for (position, cell) in self.cells.iter().enumerate() {
            let lines = line_ends(&window[cell.start..cell.end]);
            if cell.form == Form::Plain || lines == 0 {
                continue;
            }
            let why = if cell.form == Form::Followed {
                "text follows the mark that ends it"
            } else if self.looks_swallowed(position) {
                "its lines look like rows"
            } else {
                continue;
            };
            let what = format!(
                "a quotation mark on line {} begins a cell that ends {lines} lines below, and {why}; {}",
                self.line_of(cell.start),
                self.table.other_quoting(&window[cell.start..cell.end])
            );
            return Err(self.table.text.wrong(what));
        }
        Ok(())
    }

    /// Whether a cell is the end of one row, whole rows, and the beginning of another one, as many
    /// cells as rows have, numbers where this row has numbers.
    fn looks_swallowed(&self, position: usize) -> bool {
        let width = self.cells.len();
        let delimiter = self.table.splitter.delimiter.as_bytes();
        let window = self.window.bytes();
        let cell = self.cells[position];
        let text = &window[cell.start..cell.end];
        let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n' || byte == b'\r').collect();
        let lines: Vec<&[u8]> = lines.into_iter().filter(|line| !line.is_empty()).collect();
        if width < 2 || lines.len() < 2 || (width == 2 && lines.len() < 4) {
            return false;
        }
        let own: Vec<bool> =
            self.cells.iter().map(|cell| is_number(&window[cell.start..cell.end])).collect();
        let last = lines.len() - 1;
        lines.iter().enumerate().all(|(at, line)| {
            let cells = pieces(line, delimiter);
            let (first, count) = match at {
                0 => (position, width - position),
                at if at == last => (0, position + 1),
                _ => (0, width),
            };
            let alike = |(at, cell): (usize, &&[u8])| {
                first + at == position || cell.is_empty() || is_number(cell) == own[first + at]
            };
            cells.len() == count && cells.iter().enumerate().all(alike)
        })
    }

    /// Appends a cell's text to `to`.
    fn push_cell(&self, at: usize, to: &mut Vec<u8>) {
        let cell = self.cells[at];
        let text = &self.window.bytes()[cell.start..cell.end];
        match cell.form {
            Form::Plain => to.extend_from_slice(text),
            Form::Quoted if !cell.escapes => to.extend_from_slice(&text[1..text.len() - 1]),
            Form::Quoted | Form::Followed => self.table.splitter.unquote(text, to),
        }
    }

    /// The row as it stands there.
    fn raw(&self) -> &[u8] {
        &self.window.bytes()[..self.length]
    }

    fn uneven(&self) -> Error {
        let table = &self.table;
        let expected = if table.has_header {
            format!("the header has {}", table.columns.len())
        } else {
            format!("expected {}: {}", table.columns.len(), table.columns.join(", "))
        };
        let mut what = format!("line {}: {} cells; {expected}", self.line, self.cells.len());
        let window = self.window.bytes();
        let quoted = self.cells.iter().find(|cell| {
            cell.form == Form::Followed
                || (cell.form == Form::Quoted && line_ends(&window[cell.start..cell.end]) > 0)
        });
        if let Some(cell) = quoted {
            what += &format!(
                "; the quotation mark on line {} begins a cell that ends on line {}; {}",
                self.line_of(cell.start),
                self.line_of(cell.end),
                table.other_quoting(&window[cell.start..cell.end])
            );
        }
        table.text.wrong(what)
    }
}

struct Rows {
    records: Records,
    columns: Vec<usize>,
    builder: BatchBuilder,
}

impl Rows {
    fn batch(&mut self) -> Result<Option<TextBatch>> {
        while self.records.next()? {
            if self.records.cells.len() != self.records.table.columns.len() {
                return Err(self.records.uneven());
            }
            for (to, &column) in self.columns.iter().enumerate() {
                self.builder.push_by(to, |to| self.records.push_cell(column, to));
            }
            if self.builder.end_row(self.records.line) {
                break;
            }
        }
        self.builder.finish().map_err(|wrong| self.records.table.no_text(wrong, &self.columns))
    }
}

impl Iterator for Rows {
    type Item = Result<TextBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batch().transpose()
    }
}

/// How a cell is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    /// From mark to mark.
    Quoted,
    /// Likewise, and text follows.
    Followed,
}

/// A cell of a row: a range of bytes, marks included.
#[derive(Clone, Copy, Debug)]
struct Cell {
    start: usize,
    end: usize,
    form: Form,
    /// There is something within marks that does not mean itself.
    escapes: bool,
}

/// What the splitter found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A row with its number of bytes and lines.
    Row { length: usize, lines: u64 },
    /// The text has to be longer; the mark that began a cell without end so far.
    More { mark: Option<usize> },
    /// The text ends within marks.
    Unclosed { mark: usize },
    /// Text follows a closing mark that a backslash stands before.
    Backslash { mark: usize },
    /// There is nothing more.
    End,
}

#[derive(Clone, Debug)]
struct Splitter {
    delimiter: Delimiter,
    quoting: Quoting,
}

impl Splitter {
    fn new(delimiter: Delimiter, quoting: Quoting) -> Splitter {
        Splitter { delimiter, quoting }
    }

    /// The cells of the first row of `text`; `ended`: nothing comes after it.
    fn split(&self, text: &[u8], ended: bool, cells: &mut Vec<Cell>) -> Step {
        let delimiter = self.delimiter.as_bytes();
        let (first, several) = (delimiter[0], delimiter.len() > 1);
        cells.clear();
        let (mut at, mut lines) = (0, 1);
        if text.is_empty() {
            return if ended { Step::End } else { Step::More { mark: None } };
        }
        loop {
            let start = at;
            let (mut form, mut escapes) = (Form::Plain, false);
            if self.quoting != Quoting::None && text.get(at) == Some(&b'"') {
                match self.quoted(text, at, ended) {
                    Ok((end, escaped)) => (at, form, escapes) = (end, Form::Quoted, escaped),
                    Err(step) => return step,
                }
            }
            // The rest of the cell, all of it where it is not quoted.
            let rest = at;
            let found = loop {
                match text[at..]
                    .iter()
                    .position(|&byte| byte == first || byte == b'\n' || byte == b'\r')
                {
                    None if !ended => return Step::More { mark: None },
                    None => {
                        at = text.len();
                        break None;
                    }
                    Some(length) => at += length,
                }
                if text[at] == first && several && !text[at..].starts_with(delimiter) {
                    if !ended && text.len() - at < delimiter.len() {
                        return Step::More { mark: None };
                    }
                    at += 1;
                    continue;
                }
                break Some(text[at]);
            };
            if form == Form::Quoted && at > rest {
                if self.quoting == Quoting::Checked && rest >= start + 3 && text[rest - 2] == b'\\'
                {
                    return Step::Backslash { mark: rest - 1 };
                }
                form = Form::Followed;
            }
            if form != Form::Plain {
                lines += line_ends(&text[start..at]);
            }
            cells.push(Cell { start, end: at, form, escapes });
            let length = match found {
                None => at,
                Some(b'\n') => at + 1,
                Some(b'\r') if at + 1 < text.len() => at + 1 + usize::from(text[at + 1] == b'\n'),
                Some(b'\r') if !ended => return Step::More { mark: None },
                Some(b'\r') => at + 1,
                Some(_) => {
                    at += delimiter.len();
                    continue;
                }
            };
            return Step::Row { length, lines };
        }
    }

    /// The end of what is quoted from `mark` on, closing mark included, and whether there are
    /// escapes in it.
    fn quoted(&self, text: &[u8], mark: usize, ended: bool) -> Result<(usize, bool), Step> {
        let more = if ended { Step::Unclosed { mark } } else { Step::More { mark: Some(mark) } };
        let (mut at, mut escapes) = (mark + 1, false);
        loop {
            let rest = &text[at.min(text.len())..];
            let found = match self.quoting {
                Quoting::Backslash => memchr::memchr2(b'"', b'\\', rest),
                _ => memchr::memchr(b'"', rest),
            };
            at += found.ok_or(more)?;
            let next = text.get(at + 1).copied();
            if next.is_none() && !ended {
                return Err(more);
            }
            match (text[at], next) {
                (b'\\', Some(b'"' | b'\\')) | (b'"', Some(b'"')) => {
                    escapes = true;
                    at += 2;
                }
                (b'\\', _) => at += 1,
                _ => return Ok((at + 1, escapes)),
            }
        }
    }

    /// Appends what a quoted cell means, and what follows its closing mark as it is.
    fn unquote(&self, text: &[u8], to: &mut Vec<u8>) {
        let mut at = 1;
        while at < text.len() {
            match (text[at], text.get(at + 1)) {
                (b'"', Some(b'"')) => at += 1,
                (b'\\', Some(b'"' | b'\\')) if self.quoting == Quoting::Backslash => at += 1,
                (b'"', _) => {
                    to.extend_from_slice(&text[at + 1..]);
                    return;
                }
                _ => {}
            }
            to.push(text[at]);
            at += 1;
        }
    }
}

/// The first line with its end, as far as it is in 1 MiB.
fn first_line(text: &Text, window: &mut Window) -> Result<Vec<u8>> {
    loop {
        let bytes = window.bytes();
        let end = memchr::memchr2(b'\n', b'\r', bytes);
        // `\r\n` has to be seen whole.
        if let Some(end) = end
            && (bytes[end] == b'\n' || end + 1 < bytes.len() || window.ended())
        {
            let both = bytes[end] == b'\r' && bytes.get(end + 1) == Some(&b'\n');
            return Ok(bytes[..end + 1 + usize::from(both)].to_vec());
        }
        if window.ended() || bytes.len() >= 1 << 20 {
            return Ok(bytes.to_vec());
        }
        window.more().map_err(|error| text.failed(error))?;
    }
}

/// The delimiter of a line `sep=;`, which spreadsheets write before the header.
fn separator_line(line: &[u8]) -> Option<Delimiter> {
    let line = std::str::from_utf8(line).ok()?.trim_end_matches(['\r', '\n']);
    let bare = line.strip_prefix('"').and_then(|line| line.strip_suffix('"')).unwrap_or(line);
    let mut rest = bare.strip_prefix("sep=").or_else(|| bare.strip_prefix("SEP="))?.chars();
    match (rest.next(), rest.next()) {
        (Some(delimiter), None) => Some(Delimiter::from(delimiter)),
        _ => None,
    }
}

/// What separates the cells of the line: whichever usual separator it has most of, outside of
/// quotation marks, or `::`, if it has none of these; a comma if it has nothing. `cells`: how many
/// there have to be, if that is known.
fn guess_delimiter(line: &[u8], cells: Option<usize>) -> Delimiter {
    let mut quoted = false;
    let bare: Vec<u8> = line
        .iter()
        .copied()
        .filter(|&byte| {
            quoted ^= byte == b'"';
            !quoted
        })
        .collect();
    let count = |delimiter: &&str| pieces(&bare, delimiter.as_bytes()).len() - 1;
    // A control character is never part of a text.
    let usual = [",", ";", "\t", "|", "\u{1}"];
    let fits =
        |delimiter: &&&str| cells.is_some_and(|cells| cells > 1 && count(delimiter) + 1 == cells);
    // A comma may also be in numbers.
    let candidates = ["\u{1}", "\t", ";", "|", ",", "::"];
    let found = match candidates.iter().find(fits) {
        Some(delimiter) => delimiter,
        None if count(&"\u{1}") > 0 => "\u{1}",
        None => match usual.iter().rev().max_by_key(|delimiter| count(delimiter)) {
            Some(most) if count(most) > 0 => most,
            _ if count(&"::") > 0 => "::",
            _ => ",",
        },
    };
    found.parse().expect("a delimiter")
}

fn pieces<'t>(text: &'t [u8], delimiter: &[u8]) -> Vec<&'t [u8]> {
    let mut pieces = Vec::new();
    let mut from = 0;
    for at in memchr::memmem::find_iter(text, delimiter) {
        pieces.push(&text[from..at]);
        from = at + delimiter.len();
    }
    pieces.push(&text[from..]);
    pieces
}

fn is_number(cell: &[u8]) -> bool {
    let bare = cell.strip_prefix(b"\"").and_then(|cell| cell.strip_suffix(b"\"")).unwrap_or(cell);
    std::str::from_utf8(bare).is_ok_and(|text| text.trim().parse::<f64>().is_ok_and(f64::is_finite))
}

/// Whether a cell of a header looks more like a value: a number or a date.
fn is_value(cell: &str) -> bool {
    let date = cell.len() >= 10
        && cell.bytes().take(10).enumerate().all(|(at, byte)| match at {
            4 | 7 => matches!(byte, b'-' | b'/' | b'.'),
            _ => byte.is_ascii_digit(),
        });
    date || is_number(cell.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split_all(
        text: &[u8],
        delimiter: &str,
        quoting: Quoting,
    ) -> Result<Vec<Vec<String>>, String> {
        let options = TableOptions {
            delimiter: Some(delimiter.parse().unwrap()),
            quoting,
            ..TableOptions::default()
        };
        let input = std::sync::Arc::new(super::super::MemoryFile::new("f", text.to_vec()));
        let text = Text {
            input,
            compression: super::super::compression::Compression::None,
            encoding: Encoding::Utf8,
            mark: 0,
        };
        let table = CsvTable {
            splitter: Splitter::new(options.delimiter.clone().unwrap(), quoting),
            text,
            options,
            columns: Vec::new(),
            unusable: Vec::new(),
            first_row: String::new(),
            has_header: true,
            looks_like_data: false,
        };
        let mut records = table.records(false).map_err(|error| error.to_string())?;
        let mut rows = Vec::new();
        while records.next().map_err(|error| error.to_string())? {
            let cell = |at| {
                let mut cell = Vec::new();
                records.push_cell(at, &mut cell);
                String::from_utf8(cell).unwrap()
            };
            rows.push((0..records.cells.len()).map(cell).collect());
        }
        Ok(rows)
    }

    fn by_the_crate(text: &[u8], delimiter: u8, quoting: bool) -> Vec<Vec<String>> {
        let mut reader = csv::ReaderBuilder::new();
        reader.has_headers(false).flexible(true).delimiter(delimiter).quoting(quoting);
        let records = reader.from_reader(text).into_records();
        records.map(|row| row.unwrap().iter().map(str::to_string).collect()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_csv_crate_reads_the_same(text in "[a,\"\n\r]{0,24}") {
            let end = format!("{text}\n");
            let theirs = by_the_crate(text.as_bytes(), b',', false);
            prop_assert_eq!(split_all(text.as_bytes(), ",", Quoting::None).unwrap(), theirs);
            // A file that ends within marks is an error here.
            if let Ok(ours) = split_all(text.as_bytes(), ",", Quoting::Trusted) {
                prop_assert_eq!(&ours, &by_the_crate(text.as_bytes(), b',', true));
                prop_assert_eq!(split_all(end.as_bytes(), ",", Quoting::Trusted).ok(), Some(ours));
            }
        }
    }

    #[test]
    fn delimiters_are_found() {
        for (line, cells, expected) in [
            ("user,item\n", None, ","),
            ("user\titem,x\tlabel\n", None, "tab"),
            ("user;price\n", None, ";"),
            ("user|item", None, "|"),
            ("user\u{1}a,b", None, "\\x01"),
            ("user::item::time", None, "::"),
            ("user:item", None, ","),
            ("user", None, ","),
            ("\"a,b,c\";\"d\"", None, ";"),
            ("1;2,5;3,4", Some(3), ";"),
            ("a,b::c", None, ","),
        ] {
            assert_eq!(guess_delimiter(line.as_bytes(), cells).to_string(), expected, "{line}");
        }
    }

    #[test]
    fn several_characters_and_backslashes() {
        let rows = |text: &str, delimiter, quoting| {
            let rows = split_all(text.as_bytes(), delimiter, quoting)?;
            Ok::<_, String>(rows.iter().map(|row| row.join("|")).collect::<Vec<_>>())
        };
        let checked = Quoting::Checked;
        assert_eq!(rows("1::a:b::c\n\"x::y\"::\n", "::", checked).unwrap(), ["1|a:b|c", "x::y|"]);
        assert_eq!(rows("1:::2", "::", checked).unwrap(), ["1|:2"]);
        let spark = r#""say \"hi\"",2"#;
        assert_eq!(rows(spark, ",", Quoting::Backslash).unwrap(), ["say \"hi\"|2"]);
        assert!(rows(r#""say \"hi",2"#, ",", checked).unwrap_err().contains("--quoting backslash"));
        assert_eq!(rows("\"C:\\\",2\n", ",", checked).unwrap(), ["C:\\|2"]);
        assert_eq!(rows("\"a\"b,2\n", ",", checked).unwrap(), ["ab|2"]);
    }
}
