//! JSON lines as a table of text: an object on each line, or objects one after the other, or one
//! array of objects.
//!
//! A key that an object does not have is a missing value. Columns are the keys of the first rows.
//! `NaN` and `Infinity`, which are no JSON but what Python writes, are taken as such.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::batch::BatchBuilder;
use super::names::{shortened, write_float};
use super::options::TableOptions;
use super::table::{Batches, Table};
use super::text::{Text, Window, line_ends};
use crate::value::SEPARATOR;
use crate::{Error, Result};

/// Rows whose keys become columns, at most.
const SAMPLE_ROWS: usize = 10_000;

/// Bytes of rows whose keys become columns, about.
const SAMPLE_BYTES: usize = 8 << 20;

/// A file of JSON objects.
#[derive(Clone, Debug)]
pub(crate) struct JsonTable {
    text: Text,
    flag: String,
    layout: Layout,
    columns: Vec<String>,
    shapes: Vec<Shape>,
    /// Whether keys may come that the columns do not have.
    sampled: bool,
}

/// How objects follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// One on each line.
    Lines,
    /// With line breaks within.
    Spread,
    Array,
}

impl JsonTable {
    /// Reads the keys of the first rows.
    pub(crate) fn open(text: Text, options: &TableOptions) -> Result<JsonTable> {
        let mut table = JsonTable {
            text,
            flag: options.flag("encoding"),
            layout: Layout::Lines,
            columns: Vec::new(),
            shapes: Vec::new(),
            sampled: false,
        };
        table.layout = table.find_layout()?;
        let mut objects = table.clone().objects(false)?;
        let mut known: HashMap<String, usize> = HashMap::new();
        let (mut rows, mut bytes) = (0, 0);
        while objects.next()? {
            let line = objects.line;
            let object = objects.object();
            let shapes = parsed(object, |object| {
                let mut json = serde_json::Deserializer::from_slice(object);
                let shapes = Shapes.deserialize(&mut json)?;
                json.end().map(|()| shapes)
            });
            let shapes = shapes.map_err(|error| table.wrong(line, object, &error))?;
            for (key, shape) in shapes {
                let at = *known.entry(key).or_insert_with_key(|key| {
                    table.columns.push(key.clone());
                    table.shapes.push(Shape::default());
                    table.columns.len() - 1
                });
                table.shapes[at] = table.shapes[at].or(shape);
            }
            rows += 1;
            bytes += object.len();
            if rows >= SAMPLE_ROWS || bytes >= SAMPLE_BYTES {
                table.sampled = true;
                break;
            }
        }
        if rows == 0 {
            return Err(table.text.wrong("no rows"));
        }
        if table.columns.is_empty() {
            return Err(table.text.wrong("its objects are empty; expected keys that are columns"));
        }
        Ok(table)
    }

    fn find_layout(&self) -> Result<Layout> {
        let mut window = self.text.window(false)?;
        loop {
            let bytes = window.bytes();
            let start = bytes.trim_ascii_start();
            match start.first() {
                Some(b'[') => return Ok(Layout::Array),
                Some(_) => {
                    let line_end = memchr::memchr(b'\n', start);
                    match (extent(start), line_end) {
                        (Some(end), Some(line)) if end > line => return Ok(Layout::Spread),
                        (Some(_), _) => return Ok(Layout::Lines),
                        (None, _) if window.ended() => {
                            // An object that does not end is told where it is read.
                            return Ok(Layout::Lines);
                        }
                        (None, _) => {}
                    }
                }
                None if window.ended() => return Ok(Layout::Lines),
                None => {}
            }
            window.more().map_err(|error| self.text.failed(error))?;
        }
    }

    fn objects(self, ahead: bool) -> Result<Objects> {
        let window = self.text.window(ahead)?;
        Ok(Objects { table: self, window, line: 1, start: 0, end: 0, next: 0, state: State::Begin })
    }

    fn wrong(&self, line: u64, object: &[u8], error: &serde_json::Error) -> Error {
        if let Err(wrong) = std::str::from_utf8(object) {
            let line = line + line_ends(&object[..wrong.valid_up_to()]);
            let what = format!(
                "line {line}: not UTF-8; if the file is of another encoding, say so: {} windows-1252",
                self.flag
            );
            return self.text.wrong(what);
        }
        let text = error.to_string();
        let what = text.rsplit_once(" at line ").map_or(&text[..], |(what, _)| what);
        let place = line + (error.line() as u64).saturating_sub(1);
        let what = match error.classify() {
            serde_json::error::Category::Data => format!("line {place}: {what}"),
            serde_json::error::Category::Eof => format!(
                "line {line}: the object that begins here does not end ({what}); is the file cut short?"
            ),
            _ => {
                let character = error.column();
                let row = shortened(&String::from_utf8_lossy(object), 80);
                format!("line {place}, character {character}: no JSON ({what}): `{row}`")
            }
        };
        self.text.wrong(what)
    }

    /// The batches of these columns.
    pub(crate) fn read(&self, columns: &[usize]) -> Result<Batches<'static>> {
        self.check_usable(columns)?;
        let mut slots = HashMap::new();
        let mut wanted: Vec<usize> = Vec::new();
        for &column in columns {
            if !wanted.contains(&column) {
                slots.insert(self.columns[column].clone(), wanted.len());
                wanted.push(column);
            }
        }
        let place = |column: &usize| wanted.iter().position(|it| it == column).unwrap_or(0);
        let places: Vec<usize> = columns.iter().map(place).collect();
        let mut cells =
            Cells { slots, texts: Vec::new(), ranges: vec![None; wanted.len()], at: None };
        let mut builder = BatchBuilder::new(places.len());
        let mut objects = self.clone().objects(true)?;
        let mut batch = move || {
            while objects.next()? {
                let object = objects.object();
                let read = parsed(object, |object| {
                    cells.texts.clear();
                    cells.ranges.fill(None);
                    cells.at = None;
                    let mut json = serde_json::Deserializer::from_slice(object);
                    cells.deserialize(&mut json)?;
                    json.end()
                });
                let table = &objects.table;
                if let Err(error) = read {
                    let error = match cells.at.filter(|_| error.is_data()) {
                        Some(slot) => {
                            let name = &table.columns[wanted[slot]];
                            let text = error.to_string();
                            let what =
                                text.rsplit_once(" at line ").map_or(&text[..], |(what, _)| what);
                            table
                                .text
                                .wrong(format!("line {}, column `{name}`: {what}", objects.line))
                        }
                        None => table.wrong(objects.line, object, &error),
                    };
                    return Err(error);
                }
                for (to, &slot) in places.iter().enumerate() {
                    let range = cells.ranges[slot].clone();
                    builder.push(to, range.map_or(&[][..], |range| &cells.texts[range]));
                }
                if builder.end_row(objects.line) {
                    break;
                }
            }
            builder.finish().map_err(|wrong| {
                let name = &objects.table.columns[wanted[places[wrong.column]]];
                objects
                    .table
                    .text
                    .wrong(format!("line {}, column `{name}`: a NUL character", wrong.line))
            })
        };
        Ok(Box::new(std::iter::from_fn(move || batch().transpose())))
    }
}

impl Table for JsonTable {
    fn path(&self) -> &Path {
        self.text.input.path()
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn batches(&self, columns: &[usize]) -> Result<Batches<'_>> {
        self.read(columns)
    }

    fn column_type(&self, column: usize) -> Option<String> {
        Some(self.shapes[column].name())
    }

    fn unusable(&self, column: usize) -> Option<String> {
        let shape = self.shapes[column];
        if self.columns[column].is_empty() {
            return Some("it has no name".to_string());
        }
        (shape.object || shape.nested).then(|| {
            let what = if shape.object { "objects" } else { "lists of lists or objects" };
            format!(
                "it holds {what}; expected texts, numbers, booleans or lists of them: write the needed values under a key \
                 of their own"
            )
        })
    }

    fn notes(&self) -> Vec<String> {
        let name = if self.layout == Layout::Array { "a JSON array" } else { "JSON lines" };
        std::iter::once(name.to_string()).chain(self.text.wrapping()).collect()
    }

    fn hint(&self) -> Option<String> {
        self.sampled.then(|| {
            format!(
                "the columns are the keys of the first {SAMPLE_ROWS} rows or {} MB",
                SAMPLE_BYTES >> 20
            )
        })
    }
}

/// Where between objects the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first one.
    Begin,
    Behind,
    End,
}

/// The objects of a file, one at a time.
struct Objects {
    table: JsonTable,
    window: Window,
    /// The line on which the object begins.
    line: u64,
    /// The object in the window.
    start: usize,
    end: usize,
    /// What has been read of the window.
    next: usize,
    state: State,
}

impl Objects {
    fn object(&self) -> &[u8] {
        &self.window.bytes()[self.start..self.end]
    }

    fn next(&mut self) -> Result<bool> {
        self.line += line_ends(&self.window.bytes()[self.start..self.next]);
        self.window.consume(self.next);
        (self.start, self.end, self.next) = (0, 0, 0);
        loop {
            let bytes = self.window.bytes();
            let blank = bytes.len() - bytes.trim_ascii_start().len();
            self.line += line_ends_before(bytes, blank);
            self.window.consume(blank);
            let bytes = self.window.bytes();
            let ended = self.window.ended();
            let Some(&first) = bytes.first() else {
                if ended {
                    return match (self.table.layout, self.state) {
                        (Layout::Array, State::Begin | State::Behind) => {
                            Err(self.wrong("the array does not end; is the file cut short?"))
                        }
                        _ => Ok(false),
                    };
                }
                self.more()?;
                continue;
            };
            if self.table.layout == Layout::Array {
                match (self.state, first) {
                    (State::Begin, b'[') | (State::Behind, b',') => {
                        let opens = first == b'[';
                        self.window.consume(1);
                        // Behind `[` or a comma an object follows, or the end of an empty array.
                        let next = self.skip_blank()?;
                        match next {
                            Some(b']') if opens => continue,
                            Some(b'{') => {}
                            None => {
                                return Err(
                                    self.wrong("the array does not end; is the file cut short?")
                                );
                            }
                            Some(_) => return Err(self.wrong("expected an object in the array")),
                        }
                        self.state = State::Behind;
                    }
                    (State::Begin | State::Behind, b']') => {
                        self.window.consume(1);
                        self.state = State::End;
                        continue;
                    }
                    (State::End, _) => {
                        return Err(self.wrong("there is more behind the end of the array"));
                    }
                    _ => {
                        return Err(self.wrong("expected `,` or `]` behind an object of the array"));
                    }
                }
                return self.take_object();
            }
            if first != b'{' {
                return Err(self.wrong("expected an object, `{..}`, on every line"));
            }
            return self.take_object();
        }
    }

    /// The next byte that is not blank.
    fn skip_blank(&mut self) -> Result<Option<u8>> {
        loop {
            let bytes = self.window.bytes();
            let blank = bytes.len() - bytes.trim_ascii_start().len();
            self.line += line_ends_before(bytes, blank);
            self.window.consume(blank);
            match self.window.bytes().first() {
                Some(&byte) => return Ok(Some(byte)),
                None if self.window.ended() => return Ok(None),
                None => self.more()?,
            }
        }
    }

    /// Finds the end of the object at the beginning of the window.
    fn take_object(&mut self) -> Result<bool> {
        loop {
            let bytes = self.window.bytes();
            let end = match self.table.layout {
                Layout::Lines => memchr::memchr(b'\n', bytes),
                _ => extent(bytes),
            };
            match end {
                Some(end) => {
                    (self.start, self.end, self.next) = (0, end, end);
                    return Ok(true);
                }
                None if self.window.ended() => {
                    (self.start, self.end, self.next) = (0, bytes.len(), bytes.len());
                    return Ok(true);
                }
                None => self.more()?,
            }
        }
    }

    fn more(&mut self) -> Result<()> {
        self.window.more().map_err(|error| self.table.text.failed(error))
    }

    fn wrong(&self, what: &str) -> Error {
        let bytes = self.window.bytes();
        let line = &bytes[..memchr::memchr(b'\n', bytes).unwrap_or(bytes.len())];
        let line = shortened(&String::from_utf8_lossy(line), 80);
        self.table.text.wrong(format!("line {}: {what}; found `{line}`", self.line))
    }
}

/// Line ends in the first `count` bytes, of which the last may be half of `\r\n`.
fn line_ends_before(bytes: &[u8], count: usize) -> u64 {
    memchr::memchr_iter(b'\n', &bytes[..count]).count() as u64
}

/// The length of the object or list at the beginning of `text`, if it ends there.
fn extent(text: &[u8]) -> Option<usize> {
    let mut depth = 0usize;
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            b'"' => loop {
                at += 1 + memchr::memchr2(b'"', b'\\', text.get(at + 1..)?)?;
                if text[at] == b'"' {
                    break;
                }
                at += 1;
            },
            _ => {}
        }
        at += 1;
    }
    None
}

/// Parses an object; again with what Python writes for numbers that are none, if it cannot be
/// parsed.
fn parsed<T>(
    object: &[u8],
    mut parse: impl FnMut(&[u8]) -> serde_json::Result<T>,
) -> serde_json::Result<T> {
    parse(object).or_else(|error| match without_nan(object).filter(|_| error.is_syntax()) {
        Some(object) => parse(&object),
        None => Err(error),
    })
}

/// `object` with `null` for `NaN` and texts for infinities; `None` if it has none.
fn without_nan(object: &[u8]) -> Option<Vec<u8>> {
    const WORDS: [(&[u8], &[u8]); 3] =
        [(b"NaN", b"null"), (b"-Infinity", b"\"-inf\""), (b"Infinity", b"\"inf\"")];
    let mut plain = Vec::with_capacity(object.len());
    let (mut at, mut quoted, mut found) = (0, false, false);
    while at < object.len() {
        let word = WORDS.iter().find(|(word, _)| !quoted && object[at..].starts_with(word));
        if let Some((word, instead)) = word {
            plain.extend_from_slice(instead);
            at += word.len();
            found = true;
            continue;
        }
        if quoted && object[at] == b'\\' {
            plain.push(object[at]);
            at += 1;
        } else if object[at] == b'"' {
            quoted = !quoted;
        }
        plain.extend(object.get(at));
        at += 1;
    }
    found.then_some(plain)
}

/// What values of a key are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shape {
    text: bool,
    number: bool,
    boolean: bool,
    list: bool,
    object: bool,
    /// A list of lists or objects.
    nested: bool,
}

impl Shape {
    fn or(self, other: Shape) -> Shape {
        Shape {
            text: self.text | other.text,
            number: self.number | other.number,
            boolean: self.boolean | other.boolean,
            list: self.list | other.list,
            object: self.object | other.object,
            nested: self.nested | other.nested,
        }
    }

    fn name(self) -> String {
        let names = [
            (self.text, "text"),
            (self.number, "number"),
            (self.boolean, "boolean"),
            (self.list, "list"),
            (self.object, "object"),
            (self.nested, "list of lists or objects"),
        ];
        let names: Vec<_> = names.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
        if names.is_empty() { "null".to_string() } else { names.join(" or ") }
    }
}

/// Reads the keys of an object and what their values are.
struct Shapes;

impl<'de> DeserializeSeed<'de> for Shapes {
    type Value = Vec<(String, Shape)>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Shapes {
    type Value = Vec<(String, Shape)>;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut shapes = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            shapes.push((key, map.next_value_seed(OneShape)?));
        }
        Ok(shapes)
    }
}

/// Reads what one value is.
struct OneShape;

impl<'de> DeserializeSeed<'de> for OneShape {
    type Value = Shape;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Shape, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneShape {
    type Value = Shape;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape { boolean: true, ..Shape::default() })
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape { number: true, ..Shape::default() })
    }

    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape { number: true, ..Shape::default() })
    }

    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape { number: true, ..Shape::default() })
    }

    fn visit_str<E>(self, _: &str) -> Result<Shape, E> {
        Ok(Shape { text: true, ..Shape::default() })
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
        let mut list = Shape { list: true, ..Shape::default() };
        while let Some(part) = seq.next_element_seed(OneShape)? {
            if part.list || part.object || part.nested {
                list = Shape { nested: true, ..Shape::default() };
            }
        }
        Ok(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Shape { object: true, ..Shape::default() })
    }
}

/// The wanted values of an object as text.
struct Cells {
    /// Where the value of a key goes.
    slots: HashMap<String, usize>,
    texts: Vec<u8>,
    ranges: Vec<Option<std::ops::Range<usize>>>,
    /// The slot that is being read, for messages.
    at: Option<usize>,
}

impl<'de> DeserializeSeed<'de> for &mut Cells {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Cells {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(slot) = map.next_key_seed(Slot(&self.slots))? {
            let Some(slot) = slot else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            self.at = Some(slot);
            if self.ranges[slot].is_some() {
                return Err(A::Error::custom("the object has this key twice"));
            }
            let start = self.texts.len();
            map.next_value_seed(OneText { to: &mut self.texts, in_list: false })?;
            self.ranges[slot] = Some(start..self.texts.len());
            self.at = None;
        }
        Ok(())
    }
}

/// Reads a key as the slot of its value.
struct Slot<'a>(&'a HashMap<String, usize>);

impl<'de> DeserializeSeed<'de> for Slot<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Option<usize>, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Slot<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Option<usize>, E> {
        Ok(self.0.get(key).copied())
    }
}

/// Appends a value as text; says whether there is one.
struct OneText<'a> {
    to: &'a mut Vec<u8>,
    in_list: bool,
}

impl OneText<'_> {
    fn write<E>(self, value: impl std::fmt::Display) -> Result<bool, E> {
        write!(self.to, "{value}").expect("memory can be written");
        Ok(true)
    }
}

impl<'de> DeserializeSeed<'de> for OneText<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneText<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
        self.write(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<bool, E> {
        self.write(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<bool, E> {
        self.write(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<bool, E> {
        write_float(value, &value, self.to);
        Ok(true)
    }

    fn visit_str<E>(self, value: &str) -> Result<bool, E> {
        self.to.extend_from_slice(value.as_bytes());
        Ok(true)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        if self.in_list {
            return Err(A::Error::custom("a list of lists; expected a value or a list of values"));
        }
        let begin = self.to.len();
        loop {
            let end = self.to.len();
            if end > begin {
                self.to.extend_from_slice(SEPARATOR.encode_utf8(&mut [0; 4]).as_bytes());
            }
            match seq.next_element_seed(OneText { to: &mut *self.to, in_list: true })? {
                Some(true) => {}
                Some(false) => self.to.truncate(end),
                None => {
                    self.to.truncate(end);
                    return Ok(end > begin);
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<bool, A::Error> {
        let what = if self.in_list { "a list of objects" } else { "an object" };
        Err(A::Error::custom(format!("{what}; expected a value or a list of values")))
    }
}
