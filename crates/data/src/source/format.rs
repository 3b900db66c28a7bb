//! What a file is, by its first bytes: endings lie, and often there is none.

use super::compression::Compression;

/// A format of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// CSV, TSV and the like.
    Csv,
    Json,
    Parquet,
    IpcFile,
    IpcStream,
}

impl Format {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Csv => "CSV",
            Format::Json => "JSON lines",
            Format::Parquet => "Parquet",
            Format::IpcFile => "Arrow IPC",
            Format::IpcStream => "Arrow IPC stream",
        }
    }
}

/// Bytes that tell formats apart.
pub(crate) const START: usize = 4096;

const PANDAS: &str = "read it with pandas and write it with `to_parquet`";

/// Whether a file begins as one of a format does.
type Test = fn(&[u8]) -> bool;

/// Formats that are recognized and not read, the special before the general: test of a file's
/// first bytes, name, advice.
const KNOWN: &[(Test, &str, &str)] = &[
    (|start| start.starts_with(b"PARE"), "encrypted Parquet", "write it without encryption"),
    (
        |start| start.starts_with(b"FEA1"),
        "Feather of version 1",
        "write it as version 2 (pyarrow.feather.write_feather) or as Parquet",
    ),
    (
        |start| is_zip_with(start, &[b"[Content_Types].xml", b"xl/"]),
        "an Excel workbook",
        "save it as CSV UTF-8, or read it with pandas.read_excel and write it with `to_parquet`",
    ),
    (
        |start| is_zip_with(start, &[b"opendocument.spreadsheet"]),
        "an OpenDocument spreadsheet",
        "save it as CSV UTF-8",
    ),
    (
        |start| start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06"),
        "a zip archive",
        "unpack it (unzip) and name the files in it",
    ),
    (
        |start| start.starts_with(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
        "an old Excel workbook (.xls)",
        "save it as CSV UTF-8",
    ),
    (
        |start| start.starts_with(b"BZh"),
        "compressed with bzip2",
        "decompress it (bunzip2), or compress it with gzip or zstd instead",
    ),
    (
        |start| start.starts_with(b"\xfd7zXZ\0"),
        "compressed with xz",
        "decompress it (unxz), or compress it with gzip or zstd instead",
    ),
    (
        |start| start.starts_with(b"\x04\x22\x4d\x18"),
        "compressed with lz4",
        "decompress it (unlz4), or compress it with gzip or zstd instead",
    ),
    (
        |start| start.starts_with(b"\xff\x06\0\0sNaPpY"),
        "compressed with snappy",
        "decompress it, or compress it with gzip or zstd instead",
    ),
    (
        |start| start.starts_with(b"\x1f\x9d"),
        "compressed with compress (.Z)",
        "decompress it (uncompress), or compress it with gzip or zstd instead",
    ),
    (
        |start| start.starts_with(b"\x89LZO"),
        "compressed with lzop",
        "decompress it (lzop -d), or compress it with gzip or zstd instead",
    ),
    (
        |start| start.starts_with(b"7z\xbc\xaf\x27\x1c"),
        "a 7z archive",
        "unpack it and name the files in it",
    ),
    (
        |start| start.get(257..262) == Some(b"ustar"),
        "a tar archive",
        "unpack it (tar -xf) and name the files in it",
    ),
    (
        |start| start.starts_with(b"ORC"),
        "ORC",
        "write it as Parquet (spark.read.orc(..).write.parquet(..), or pyarrow.orc.read_table and pyarrow.parquet.write_table)",
    ),
    (
        |start| start.starts_with(b"Obj\x01"),
        "Avro",
        "write it as Parquet (spark.read.format(\"avro\").load(..).write.parquet(..))",
    ),
    (
        |start| start.starts_with(b"SQLite format 3\0"),
        "an SQLite database",
        "write its table as CSV: sqlite3 -header -csv FILE 'select * from TABLE' > events.csv",
    ),
    (
        |start| start.get(8..12) == Some(b"DUCK"),
        "a DuckDB database",
        "write its table as Parquet: COPY t TO 'events.parquet'",
    ),
    (
        |start| start.starts_with(b"SEQ") && start.get(3).is_some_and(|&version| version < 16),
        "a Hadoop sequence file",
        "write it as Parquet",
    ),
    (|start| start.starts_with(b"\x89HDF\r\n"), "HDF5", PANDAS),
    (
        |start| start.starts_with(b"\x93NUMPY"),
        "a NumPy array",
        "make it a table with named columns and write it as Parquet",
    ),
    (
        |start| matches!(start, [0x80, 2..=5, b'c' | b'}' | b']' | 0x95, ..]),
        "a Python pickle",
        PANDAS,
    ),
    (|start| start.starts_with(b"%PDF"), "a PDF", "export the table in it as CSV"),
    (
        |start| start.starts_with(b"version https://git-lfs"),
        "a pointer of Git LFS, not the file itself",
        "fetch the file: git lfs pull",
    ),
];

/// Whether a zip archive has one of `parts` in its first bytes.
fn is_zip_with(start: &[u8], parts: &[&[u8]]) -> bool {
    let has = |part: &&[u8]| memchr::memmem::find(start, part).is_some();
    start.starts_with(b"PK\x03\x04") && parts.iter().any(has)
}

/// What a binary file that begins with `start` is; `None` for text.
///
/// # Errors
/// What it is, if it is known and not read, and what to do.
pub(crate) fn binary(start: &[u8]) -> Result<Option<Format>, String> {
    match start {
        [b'P', b'A', b'R', b'1', ..] => return Ok(Some(Format::Parquet)),
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] => return Ok(Some(Format::IpcFile)),
        // A continuation mark and the length of a schema.
        [0xff, 0xff, 0xff, 0xff, _, _, _, 0, ..] => return Ok(Some(Format::IpcStream)),
        _ => {}
    }
    match KNOWN.iter().find(|(is, ..)| is(start)) {
        Some((_, what, instead)) => Err(refusal(what, instead)),
        None => Ok(None),
    }
}

/// What the text is that begins with `start`, decompressed and decoded.
///
/// # Errors
/// What it is, if it is known and not read, and what to do.
pub(crate) fn text(start: &[u8]) -> Result<Format, String> {
    let mut text = start.trim_ascii_start();
    let lower = text[..text.len().min(64)].to_ascii_lowercase();
    if lower.starts_with(b"<!doctype html") || lower.starts_with(b"<html") {
        return Err(refusal(
            "a page of HTML",
            "is it an error or a login page that was downloaded instead? Else export the table as CSV",
        ));
    }
    if lower.starts_with(b"<?xml") {
        return Err(refusal(
            "XML",
            "is it a server's error that was downloaded instead? Else export the table as CSV",
        ));
    }
    if let [b'[', rest @ ..] = text {
        text = rest.trim_ascii_start();
        return match text {
            [b'{' | b']', ..] => Ok(Format::Json),
            [b'[', ..] => Err(refusal(
                "a JSON array of arrays",
                "write an array of objects, or an object on each line, so that columns have names",
            )),
            _ => Ok(Format::Csv),
        };
    }
    if let [b'{', rest @ ..] = text
        && matches!(rest.trim_ascii_start(), [b'"' | b'}', ..])
    {
        return Ok(Format::Json);
    }
    Ok(Format::Csv)
}

/// What to say about a compressed file with `inner` in it.
pub(crate) fn compressed(inner: Format, compression: Compression) -> String {
    let name = compression.name().unwrap_or("");
    refusal(
        &format!("{} inside {name}", inner.name()),
        "decompress it; it is compressed within anyway",
    )
}

fn refusal(what: &str, instead: &str) -> String {
    format!(
        "this is {what}, and not read; {instead} (read are CSV, TSV, JSON lines, also with gzip or zstd, Parquet and Arrow IPC)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_and_what_is_not() {
        for (start, expected) in [
            (&b"PAR1..."[..], "Parquet"),
            (b"ARROW1\0\0", "Arrow IPC"),
            (b"\xff\xff\xff\xff\x78\x01\0\0", "Arrow IPC stream"),
            (b"user,item\n", "CSV"),
            (b"\n {\"user\": 1}", "JSON lines"),
            (b"[\n  {\"user\": 1}", "JSON lines"),
            (b"[]", "JSON lines"),
            (b"{user},{item}\n", "CSV"),
            (b"[user],[item]\n", "CSV"),
            (b"[[1, 2]]", "a JSON array of arrays"),
            (b"<!DOCTYPE HTML>", "a page of HTML"),
            (b"<?xml version", "XML"),
            (b"PK\x03\x04....[Content_Types].xml", "an Excel workbook"),
            (b"PK\x03\x04....events.csv", "a zip archive"),
            (b"BZh91AY", "bzip2"),
            (b"\xfd7zXZ\0", "xz"),
            (b"\x04\x22\x4d\x18", "lz4"),
            (b"\xff\x06\0\0sNaPpY", "snappy"),
            (b"ORC\x0a", "ORC"),
            (b"Obj\x01\x04", "Avro"),
            (b"SQLite format 3\0", "SQLite"),
            (b"FEA1", "Feather of version 1"),
        ] {
            let found = match binary(start) {
                Ok(Some(format)) => Ok(format),
                Ok(None) => text(start),
                Err(what) => Err(what),
            };
            match found {
                Ok(format) => assert_eq!(format.name(), expected),
                Err(what) => assert!(what.contains(expected), "{what}"),
            }
        }
    }
}
