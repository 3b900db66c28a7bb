//! Files as tables, through the public functions: what a file or a folder holds, and what is read
//! of it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use arrow_array::builder::{
    FixedSizeBinaryBuilder, ListBuilder, MapBuilder, StringBuilder, StringDictionaryBuilder,
};
use arrow_array::types::Int8Type;
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Date64Array, Decimal128Array,
    DurationNanosecondArray, FixedSizeListArray, Float16Array, Float32Array, Float64Array,
    Int32Array, Int64Array, IntervalDayTimeArray, LargeListArray, LargeStringArray, NullArray,
    RecordBatch, StringArray, StringViewArray, StructArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, UInt64Array,
};
use arrow_buffer::{IntervalDayTime, OffsetBuffer};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use arrow_schema::{DataType, Field, Schema};

use super::*;

/// The rows of a table as `place: cell|cell`, after its columns that can be used and what it says
/// about the others.
fn rows_of(table: &dyn Table) -> Result<Vec<String>> {
    let all = 0..table.columns().len();
    let usable: Vec<_> = all.clone().filter(|&at| table.unusable(at).is_none()).collect();
    let name = |at: usize| match table.unusable(at) {
        None => table.columns()[at].clone(),
        Some(_) => format!("({})", table.columns()[at]),
    };
    let mut lines = vec![all.map(name).collect::<Vec<_>>().join("|")];
    for batch in table.batches(&usable)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            let cells: Vec<_> = (0..usable.len()).map(|column| batch.get(column, row)).collect();
            let cells = cells.join("|").replace('\u{1f}', "+");
            lines.push(format!("{}: {cells}", batch.place(row)));
        }
    }
    Ok(lines)
}

/// Writes files, and reads what is `named` as one table.
fn read(
    files: &[(&str, &[u8])],
    named: &[&str],
    options: &TableOptions,
) -> Result<Vec<String>, String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let named: Vec<PathBuf> = named.iter().map(|name| dir.path().join(name)).collect();
    let rows = open_all(&LocalFiles, &named, options).and_then(|table| rows_of(table.as_ref()));
    let place = format!("{}/", dir.path().display());
    rows.map_err(|error| error.to_string().replace(&place, ""))
}

fn with(bytes: &[u8], options: &TableOptions) -> Result<Vec<String>, String> {
    read(&[("log.csv", bytes)], &["log.csv"], options)
}

fn rows(bytes: &[u8]) -> Vec<String> {
    with(bytes, &TableOptions::default()).unwrap()
}

fn error(bytes: &[u8]) -> String {
    with(bytes, &TableOptions::default()).unwrap_err()
}

fn quoting(quoting: Quoting) -> TableOptions {
    TableOptions { quoting, ..TableOptions::default() }
}

fn headed(names: &str) -> TableOptions {
    let header = names.split(',').map(str::to_string).collect();
    TableOptions { header: Some(header), name: "events".to_string(), ..TableOptions::default() }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    to.write_all(bytes).unwrap();
    to.finish().unwrap()
}

fn utf_16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(bytes).collect()
}

const SMALL: &str = "user,item\n007,a\n8,\n";

#[test]
fn one_table_in_many_forms() {
    let expected = ["user|item", "line 2: 007|a", "line 3: 8|"];
    let marked =
        |text: &str, mark: &[u8], bytes: fn(u16) -> [u8; 2]| [mark, &utf_16(text, bytes)].concat();
    let json = "{\"user\": \"007\", \"item\": \"a\"}\n{\"item\": null, \"user\": 8}\n";
    let array = "[\n{\"user\": \"007\", \"item\": \"a\"},\n{\"user\": 8}\n]";
    let spread = "{\n \"user\": \"007\",\n \"item\": \"a\"\n}\n{\"user\": 8}";
    for (what, bytes) in [
        ("plain", SMALL.into()),
        ("no end", SMALL.trim_end().into()),
        ("windows", SMALL.replace('\n', "\r\n").into_bytes()),
        ("old mac", SMALL.replace('\n', "\r").into_bytes()),
        ("blank lines at the end", format!("{SMALL}\n  \n\r\n").into_bytes()),
        ("byte order mark", format!("\u{feff}{SMALL}").into_bytes()),
        (
            "quoted behind the mark",
            "\u{feff}\"user\",\"item\"\n\"007\",\"a\"\n8,\"\"\n".as_bytes().to_vec(),
        ),
        ("spaces in the header", SMALL.replace("user,item", " user , item ").into_bytes()),
        ("tabs", SMALL.replace(',', "\t").into_bytes()),
        ("semicolons", SMALL.replace(',', ";").into_bytes()),
        ("bars", SMALL.replace(',', "|").into_bytes()),
        ("hive", SMALL.replace(',', "\u{1}").into_bytes()),
        ("movielens", SMALL.replace(',', "::").into_bytes()),
        ("utf-16le", marked(SMALL, &[0xff, 0xfe], u16::to_le_bytes)),
        ("utf-16be", marked(SMALL, &[0xfe, 0xff], u16::to_be_bytes)),
        ("gzip", gzip(SMALL.as_bytes())),
        (
            "gzip in two members",
            [gzip(&SMALL.as_bytes()[..12]), gzip(&SMALL.as_bytes()[12..])].concat(),
        ),
        ("zstd", zstd::encode_all(SMALL.as_bytes(), 1).unwrap()),
        ("gzip around utf-16", gzip(&marked(SMALL, &[0xff, 0xfe], u16::to_le_bytes))),
        ("JSON lines", json.into()),
        ("JSON lines, gzip", gzip(json.as_bytes())),
        (
            "JSON lines, windows and a mark",
            format!("\u{feff}{}", json.replace('\n', "\r\n")).into_bytes(),
        ),
        ("JSON lines with blank ones", json.replace('\n', "\n\n").into_bytes()),
        ("a JSON array", array.into()),
        ("a JSON array on one line", array.replace('\n', "").into()),
        ("JSON objects over lines", spread.into()),
    ] {
        let found = rows(&bytes);
        // Lines are others where there is no header.
        let cells = |line: &String| {
            line.split_once(": ").map_or(line.clone(), |(_, cells)| cells.to_string())
        };
        let want: Vec<_> = expected.iter().map(|line| cells(&line.to_string())).collect();
        assert_eq!(found.iter().map(cells).collect::<Vec<_>>(), want, "{what}");
        if !what.contains("JSON") {
            assert_eq!(found, expected, "{what}");
        }
    }
    let excel = rows(b"sep=;\r\nuser;item\r\n007;a\r\n");
    assert_eq!(excel, ["user|item", "line 3: 007|a"]);
}

#[test]
fn places_cells_and_quotes() {
    let read = rows(b"user,item\n0012345678,\n\"a,\"\"b\nc\",7\nx,y\n");
    assert_eq!(read, ["user|item", "line 2: 0012345678|", "line 3: a,\"b\nc|7", "line 5: x|y"]);
    assert_eq!(rows(b"\xef\xbb\xbfuser;price\n1;2,5\n"), ["user|price", "line 2: 1|2,5"]);
    // Marks within a cell, and of inches.
    assert_eq!(rows(b"a,b\n27\" wide,\"x\"\"y\"\n")[1], "line 2: 27\" wide|x\"y");
    let json = rows(b"\n{\"a\": 1}\n");
    assert_eq!(json, ["a", "line 2: 1"]);
    let spread = rows(b"{\n\"a\":\n1}\n{\"a\": \"}\\\"\"}");
    assert_eq!(spread, ["a", "line 1: 1", "line 4: }\""]);
}

#[test]
fn encodings() {
    let encoded = |encoding, bytes: &[u8]| {
        let options = TableOptions { encoding, ..TableOptions::default() };
        with(bytes, &options).map(|rows| rows[1].clone())
    };
    assert_eq!(encoded(Encoding::Latin1, b"title\nCaf\xe9\n").unwrap(), "line 2: Café");
    assert_eq!(encoded(Encoding::Windows1252, b"title\n\x80 5\n").unwrap(), "line 2: € 5");
    let wide = utf_16("title\nCafé 🧀\n", u16::to_le_bytes);
    assert_eq!(encoded(Encoding::Utf16Le, &wide).unwrap(), "line 2: Café 🧀");
    for (bytes, expected) in [
        (
            &wide[..],
            "log.csv: looks like UTF-16 without a byte order mark; if it is, say so with --encoding utf-16le",
        ),
        (
            b"title\nCaf\xe9\n",
            "log.csv: line 2, column `title`: not UTF-8; if the file is of another encoding, say so: --encoding windows-1252 (or latin-1)",
        ),
        (
            b"caf\xe9\nx\n",
            "log.csv: line 1: the header is not UTF-8; if the file is of another encoding, say so: --encoding windows-1252 (or latin-1)",
        ),
        (
            b"{\"a\": \"x\"}\n{\"a\": \"caf\xe9\"}\n",
            "log.csv: line 2: not UTF-8; if the file is of another encoding, say so: --encoding windows-1252",
        ),
        (
            b"title\na\0b\n",
            "log.csv: holds NUL bytes, so it is no text; is the file damaged, or of another format?",
        ),
    ] {
        assert_eq!(error(bytes), expected);
    }
    let late = [b"title\n".to_vec(), b"0123456789\n".repeat(1000), b"a\0b\n".to_vec()].concat();
    assert_eq!(
        error(&late),
        "log.csv: line 1002, column `title`: a NUL byte; is the file damaged?"
    );
}

#[test]
fn marks_that_swallow_rows() {
    let mut lines: Vec<String> = vec!["user\titem\tquery".to_string()];
    lines.extend((2..602).map(|line| format!("{line}\t5\tred shoes")));
    let text = |change: &[(usize, &str)]| {
        let mut lines = lines.clone();
        change.iter().for_each(|(line, text)| lines[line - 1] = text.to_string());
        lines.join("\n") + "\n"
    };
    let tail = "if marks are plain characters in this file, say --quoting none; if the cell is meant to be so, say --quoting trusted";
    for (what, change, expected) in [
        (
            "never ends",
            &[(6, "6\t5\t\"red shoes")][..],
            "a quotation mark on line 6 begins a cell that does not end before the end of the file, 596 lines below",
        ),
        (
            "text after the end",
            &[(6, "6\t5\t\"red"), (300, "300\t5\t\"blue\" shoes")],
            "a quotation mark on line 6 begins a cell that ends 294 lines below, and text follows the mark that ends it",
        ),
        (
            "ends where a mark stands for inches",
            &[(6, "6\t5\t\"red"), (300, "300\t5\tscreen 27\"")],
            "a quotation mark on line 6 begins a cell that ends 294 lines below, and its lines look like rows",
        ),
        (
            "one row",
            &[(6, "6\t5\t\"red"), (7, "7\t5\tscreen 27\"")],
            "a quotation mark on line 6 begins a cell that ends 1 lines below, and its lines look like rows",
        ),
        (
            "another number of cells",
            &[(6, "6\t\"5\tred"), (9, "9\t5\"\tblue")],
            "a quotation mark on line 6 begins a cell that ends 3 lines below, and its lines look like rows",
        ),
        (
            "uneven",
            &[(6, "\"6\t5\tred"), (9, "9\"")],
            "line 6: 1 cells; the header has 3; the quotation mark on line 6 begins a cell that ends on line 9",
        ),
        (
            "in the header",
            &[(1, "user\t\"item\tquery")],
            "a quotation mark on line 1 begins a cell that does not end before the end of the file, 601 lines below",
        ),
    ] {
        let text = text(change);
        assert_eq!(error(text.as_bytes()), format!("log.csv: {expected}; {tail}"), "{what}");
        let plain = with(text.as_bytes(), &quoting(Quoting::None));
        match what {
            // Without quoting these have the cells of their lines.
            "uneven" => {
                let error = plain.unwrap_err();
                assert!(error.contains("cells; the header has 3"), "{error}");
            }
            _ => assert_eq!(plain.unwrap().len(), 601, "{what}"),
        }
    }
    let long = text(&[(6, &format!("6\t5\t\"red{}", "\nx y z".repeat(800_000)))]);
    let error = error(long.as_bytes());
    assert!(error.contains("a quotation mark on line 6 begins a cell of more than "), "{error}");
    // Sound texts of several lines stay what they are.
    let sound = b"item,text\n1,\"Hello,\nworld\"\n2,\"a, b\nc, d\ne, f\"\n3,\"x\n\n\ny\"\n";
    assert_eq!(rows(sound).len(), 4);
    let table = b"id,text,n\n1,\"one, two\nthree, four\",2\n3,\"a\nb,c,d\",4\n";
    assert_eq!(rows(table).len(), 3);
    let meant = text(&[(6, "6\t5\t\"red"), (9, "9\t5\tblue\"")]);
    assert_eq!(with(meant.as_bytes(), &quoting(Quoting::Trusted)).unwrap().len(), 598);
}

#[test]
fn headers_and_delimiters() {
    let header = "user,item,time";
    assert_eq!(
        with(b"1,2,3\n4,5,6\n", &headed(header)).unwrap(),
        ["user|item|time", "line 1: 1|2|3", "line 2: 4|5|6"]
    );
    assert_eq!(with(b"1;2,5;3\n", &headed(header)).unwrap()[1], "line 1: 1|2,5|3");
    for (options, bytes, expected) in [
        (
            headed(header),
            &b"1,2\n"[..],
            "log.csv: line 1: 2 cells; --events-header names 3 columns: user,item,time",
        ),
        (headed(header), b"1,2,3\n4,5\n", "log.csv: line 2: 2 cells; expected 3: user, item, time"),
        (
            headed(header),
            b"user,item,time\n1,2,3\n",
            "log.csv: line 1 is a header with these names already; leave out --events-header",
        ),
        (
            TableOptions::default(),
            b"a,b\n1,2\n1,2,3\n",
            "log.csv: line 3: 3 cells; the header has 2",
        ),
        (TableOptions::default(), b",\n1,2\n", "log.csv: line 1 is empty; expected a header"),
        (
            TableOptions::default(),
            b"",
            "log.csv: an empty file; expected a header and rows, JSON lines, Parquet or Arrow IPC",
        ),
        (
            TableOptions::default(),
            b" \n\n",
            "log.csv: an empty file; expected a header and rows, JSON lines, Parquet or Arrow IPC",
        ),
    ] {
        assert_eq!(with(bytes, &options).unwrap_err(), expected);
    }
    let hint = |bytes: &[u8], options: &TableOptions| {
        let input = Arc::new(MemoryFile::new("log.csv", bytes.to_vec()));
        open_input(input, options).unwrap().hint().unwrap_or_default()
    };
    let none = TableOptions::default();
    assert_eq!(
        hint(b"1029,505,1,2024-03-04\n", &none),
        "the first row looks like data: `1029,505,1,2024-03-04`; if the file has no header, name its 4 columns: --header user,item,.."
    );
    assert_eq!(
        hint(b"user item\n1 2\n", &none),
        "the first row, `user item`, is one cell; if another mark separates cells, state it: --delimiter"
    );
    assert_eq!(hint(b"user,item\n1,2\n", &none), "");
    let by = |text: &str| TableOptions {
        delimiter: Some(text.parse().unwrap()),
        ..TableOptions::default()
    };
    assert_eq!(with(b"a b\n1 2\n", &by("space")).unwrap()[1], "line 2: 1|2");
    assert_eq!(with(b"a,b|c\n1,2|3\n", &by("|")).unwrap(), ["a,b|c", "line 2: 1,2|3"]);
    assert_eq!(with("a§b\n1§2\n".as_bytes(), &by("§")).unwrap()[1], "line 2: 1|2");
}

#[test]
fn names_that_are_none_or_twice() {
    let spreadsheet = rows(b"user,item,x,x,,\n1,2,3,4,,\n");
    assert_eq!(spreadsheet, ["user|item|(x)|(x)|()|()", "line 2: 1|2"]);
    let table = |bytes: &[u8]| {
        open_input(Arc::new(MemoryFile::new("f", bytes.to_vec())), &TableOptions::default())
            .unwrap()
    };
    let csv = table(b"user,x,x,\n1,3,4,\n");
    let wrong = |table: &dyn Table, column: usize| match table.batches(&[column]) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    assert_eq!(
        wrong(csv.as_ref(), 1),
        "f: column `x` cannot be used: two columns are called `x`; rename one of them"
    );
    assert_eq!(wrong(csv.as_ref(), 3), "f: column `` cannot be used: it has no name");
    assert_eq!(wrong(csv.as_ref(), 0), "");
}

#[test]
fn json_values() {
    let text = |value: &str| rows(format!("{{\"x\": {value}, \"y\": 0}}\n").as_bytes())[1].clone();
    for (value, expected) in [
        ("25", "25"),
        ("25.0", "25"),
        ("-0.0", "0"),
        ("4.2", "4.2"),
        ("12.50", "12.5"),
        ("1e3", "1000"),
        ("1e-7", "0.0000001"),
        ("18446744073709551615", "18446744073709551615"),
        ("9007199254740993.0", "9007199254740992.0"),
        ("123456789012345678901234", "123456789012345690000000.0"),
        ("true", "true"),
        ("null", ""),
        ("NaN", ""),
        ("-Infinity", "-inf"),
        ("\"NaN, \\\"Infinity\"", "NaN, \"Infinity"),
        ("\"\\u00e9\"", "é"),
        ("[\"a\", null, 2, true]", "a+2+true"),
        ("[]", ""),
        ("[null, \"b\"]", "b"),
    ] {
        assert_eq!(text(value), format!("line 1: {expected}|0"), "{value}");
    }
    let lines = |lines: &[&str]| error(lines.join("\n").as_bytes());
    for (text, expected) in [
        (
            &["{\"a\": 1}", "{\"a\": "][..],
            "log.csv: line 2: the object that begins here does not end (EOF while parsing a value); is the file cut short?",
        ),
        (
            &["{\"a\": 1}", "{\"a\": x}", "{\"a\": 1}"],
            "log.csv: line 2, character 7: no JSON (expected value): `{\"a\": x}`",
        ),
        (
            &["{\"a\": 1}", "[1]"],
            "log.csv: line 2: expected an object, `{..}`, on every line; found `[1]`",
        ),
        (&["{\"a\": 1, \"a\": 2}"], "log.csv: line 1, column `a`: the object has this key twice"),
        (
            &["[{\"a\": 1},", "{\"a\": 2}"],
            "log.csv: line 2: the array does not end; is the file cut short?; found ``",
        ),
        (
            &["[{\"a\": 1}", "{\"a\": 2}]"],
            "log.csv: line 2: expected `,` or `]` behind an object of the array; found `{\"a\": 2}]`",
        ),
        (
            &["[{\"a\": 1}]", "{\"a\": 2}"],
            "log.csv: line 2: there is more behind the end of the array; found `{\"a\": 2}`",
        ),
        (&["{}"], "log.csv: its objects are empty; expected keys that are columns"),
        (&["[]"], "log.csv: no rows"),
    ] {
        assert_eq!(lines(text), expected);
    }
    // What nobody uses may be anything.
    assert_eq!(
        rows(b"{\"o\": {\"p\": [1]}, \"a\": 1, \"l\": [[1]]}\n"),
        ["(o)|a|(l)", "line 1: 1"]
    );
    // An object that comes late, in a column that is used.
    let late = ["{\"a\": 1}\n".repeat(20_000), "{\"a\": {\"b\": 1}}\n".to_string()].concat();
    assert_eq!(
        error(late.as_bytes()),
        "log.csv: line 20001, column `a`: an object; expected a value or a list of values"
    );
}

#[test]
fn several_files() {
    let a = b"user,item\n1,a\n";
    let b = b"item,user,more\nb,2,x\n";
    let parquet = parquet_file(&[("user", Arc::new(Int64Array::from(vec![1])))]);
    let names = |table: Result<Vec<String>, String>| table.unwrap().join(" ");
    let none = TableOptions::default();
    let folder = |files: &[(&str, &[u8])]| read(files, &["d"], &none);
    let two = [("d/b.csv", &b[..]), ("d/a.csv", a)];
    assert_eq!(names(folder(&two)), "user|item|(more) a.csv, line 2: 1|a b.csv, line 2: 2|b");
    assert_eq!(
        names(read(&two, &["d/b.csv", "d/a.csv"], &none)),
        "user|item|(more) a.csv, line 2: 1|a b.csv, line 2: 2|b"
    );
    let packed = gzip(b"");
    let spark = [
        ("d/_SUCCESS", &b""[..]),
        ("d/part-0.csv", a),
        ("d/part-1.csv", b""),
        ("d/part-2.csv.gz", &packed[..]),
    ];
    assert_eq!(names(folder(&spark)), "user|item line 2: 1|a");
    let hive = [
        ("d/dt=2024-03-04/c=a%2Fb/x.csv", &a[..]),
        ("d/dt=__HIVE_DEFAULT_PARTITION__/c=US/x.csv", a),
    ];
    assert_eq!(
        names(folder(&hive)),
        "user|item|dt|c dt=2024-03-04/c=a%2Fb/x.csv, line 2: 1|a|2024-03-04|a/b \
         dt=__HIVE_DEFAULT_PARTITION__/c=US/x.csv, line 2: 1|a||US"
    );
    let same = [("d/item=05/x.csv", &b"user,item\n1,5\n"[..])];
    assert_eq!(names(folder(&same)), "user|item line 2: 1|5");
    let sparse = [("d/a.json", &b"{\"user\": 1}"[..]), ("d/b.json", b"{\"item\": 2, \"user\": 3}")];
    assert_eq!(names(folder(&sparse)), "user|item a.json, line 1: 1| b.json, line 1: 3|2");
    for (files, expected) in [
        (
            &[("d/item=6/x.csv", &b"user,item\n1,5\n"[..])][..],
            "d: line 2, column `item`: `5` in the file, `6` in the name of its folder; rename one of them",
        ),
        (
            &[("d/a.csv", a), ("d/b.parquet", &parquet)],
            "d: files of several formats: a.csv is CSV, b.parquet is Parquet; name those of one table, such as with a pattern (--events 'FOLDER/*.csv')",
        ),
        (
            &[("d/a.csv", a), ("d/b.csv", b"user,item\n1,2,3\n")],
            "d/b.csv: line 2: 3 cells; the header has 2",
        ),
        (
            &[("d/a.csv.gz", &gzip(a)[..20])],
            "d/a.csv.gz: the gzip data is cut short; copy or write the file again",
        ),
    ] {
        assert_eq!(folder(files).unwrap_err(), expected);
    }
    // A column that one of the files does not have, once it is used.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.csv"), "user,item\n1,a\n").unwrap();
    std::fs::write(dir.path().join("b.csv"), "2,b\n3,c\n").unwrap();
    let table = open(dir.path(), &none).unwrap();
    let error = table.check_usable(&[1]).unwrap_err().to_string();
    assert!(error.ends_with("column `item` cannot be used: the file b.csv has no such column; it has: 2, b; the first row looks like data: `2,b`; if the file has no header, name its 2 columns: --header user,item,.."), "{error}");
    assert_eq!(table.notes(), ["2 files", "CSV, cells separated by `,`"]);
}

fn parquet_file(columns: &[(&str, ArrayRef)]) -> Vec<u8> {
    let fields = columns.iter().map(|(name, array)| {
        let field = Field::new(*name, array.data_type().clone(), true);
        let uuid = [("ARROW:extension:name".to_string(), "arrow.uuid".to_string())];
        if name.contains("uuid") { field.with_metadata(uuid.into()) } else { field }
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let arrays = columns.iter().map(|(_, array)| Arc::clone(array)).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn ipc_file(columns: &[(&str, ArrayRef)], compression: Option<CompressionType>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns.iter().cloned()).unwrap();
    let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
    let mut bytes = Vec::new();
    let mut writer =
        FileWriter::try_new_with_options(&mut bytes, &batch.schema(), options).unwrap();
    writer.write(&batch).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    bytes
}

fn ipc_stream(columns: &[(&str, ArrayRef)]) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns.iter().cloned()).unwrap();
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    bytes
}

const UUID: [u8; 16] = [
    0x12, 0x3e, 0x45, 0x67, 0xe8, 0x9b, 0x12, 0xd3, 0xa4, 0x56, 0x42, 0x66, 0x14, 0x17, 0x40, 0xff,
];

fn lists() -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new());
    lists.append_value([Some("a"), None, Some("b")]);
    Arc::new(lists.finish())
}

fn fixed(bytes: &[u8]) -> ArrayRef {
    let mut builder = FixedSizeBinaryBuilder::new(bytes.len() as i32);
    builder.append_value(bytes).unwrap();
    Arc::new(builder.finish())
}

/// A type, an array of one value, and its text; none where a column of the type cannot be used.
type Value = (&'static str, ArrayRef, Option<&'static str>);

fn values() -> Vec<Value> {
    [plain_values(), nested_values()].concat()
}

fn plain_values() -> Vec<Value> {
    let mut words = StringDictionaryBuilder::<Int8Type>::new();
    words.append_value("red");
    let half = |value: f32| {
        Float16Array::from(vec![
            <arrow_array::types::Float16Type as arrow_array::ArrowPrimitiveType>::Native::from_f32(
                value,
            ),
        ])
    };
    vec![
        ("text", Arc::new(StringArray::from(vec!["0012"])), Some("0012")),
        ("large text", Arc::new(LargeStringArray::from(vec!["é"])), Some("é")),
        (
            "text view",
            Arc::new(StringViewArray::from(vec!["a longer text than twelve"])),
            Some("a longer text than twelve"),
        ),
        ("words", Arc::new(words.finish()), Some("red")),
        ("int", Arc::new(Int64Array::from(vec![-7])), Some("-7")),
        ("uint", Arc::new(UInt64Array::from(vec![u64::MAX])), Some("18446744073709551615")),
        ("boolean", Arc::new(BooleanArray::from(vec![true])), Some("true")),
        ("float64", Arc::new(Float64Array::from(vec![12.0])), Some("12")),
        (
            "float64 large",
            Arc::new(Float64Array::from(vec![9_007_199_254_740_992.0])),
            Some("9007199254740992.0"),
        ),
        ("float64 small", Arc::new(Float64Array::from(vec![1e-7])), Some("0.0000001")),
        ("float64 nan", Arc::new(Float64Array::from(vec![f64::NAN])), Some("")),
        ("float64 inf", Arc::new(Float64Array::from(vec![f64::NEG_INFINITY])), Some("-inf")),
        ("float32", Arc::new(Float32Array::from(vec![4.2])), Some("4.2")),
        ("float16", Arc::new(half(4.2)), Some("4.2")),
        (
            "decimal",
            Arc::new(Decimal128Array::from(vec![1250]).with_precision_and_scale(10, 2).unwrap()),
            Some("12.5"),
        ),
        (
            "decimal whole",
            Arc::new(Decimal128Array::from(vec![1200]).with_precision_and_scale(10, 2).unwrap()),
            Some("12"),
        ),
        (
            "decimal zeros",
            Arc::new(Decimal128Array::from(vec![1200]).with_precision_and_scale(10, 0).unwrap()),
            Some("1200"),
        ),
        ("date32", Arc::new(Date32Array::from(vec![18527])), Some("2020-09-22")),
        ("date64", Arc::new(Date64Array::from(vec![18527 * 86_400_000])), Some("2020-09-22")),
        (
            "time",
            Arc::new(TimestampMillisecondArray::from(vec![1_600_000_000_999]).with_timezone("UTC")),
            Some("1600000000"),
        ),
        ("time before", Arc::new(TimestampMicrosecondArray::from(vec![-1])), Some("-1")),
        ("duration", Arc::new(DurationNanosecondArray::from(vec![2_500_000_000])), Some("2.5")),
        ("uuid", fixed(&UUID), Some("123e4567-e89b-12d3-a456-4266141740ff")),
        ("bytes of text", Arc::new(BinaryArray::from(vec![&b"u1"[..]])), Some("u1")),
        ("null", Arc::new(NullArray::new(1)), Some("")),
    ]
}

fn nested_values() -> Vec<Value> {
    let item = |data| Arc::new(Field::new("item", data, true));
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    map.keys().append_value("k");
    map.values().append_value("v");
    map.append(true).unwrap();
    let one: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    let structs: ArrayRef = Arc::new(StructArray::from(vec![(item(DataType::Int32), one)]));
    let of_structs = LargeListArray::new(
        item(structs.data_type().clone()),
        OffsetBuffer::from_lengths([1]),
        Arc::clone(&structs),
        None,
    );
    vec![
        ("list", lists(), Some("a+b")),
        (
            "fixed list",
            Arc::new(FixedSizeListArray::new(item(DataType::Int32), 2, Arc::clone(&numbers), None)),
            Some("1+2"),
        ),
        (
            "large list",
            Arc::new(LargeListArray::new(
                item(DataType::Int32),
                OffsetBuffer::from_lengths([2]),
                numbers,
                None,
            )),
            Some("1+2"),
        ),
        ("bytes", Arc::new(BinaryArray::from(vec![&b"\xff\x00"[..]])), None),
        ("struct", structs, None),
        ("list of struct", Arc::new(of_structs), None),
        ("map", Arc::new(map.finish()), None),
    ]
}

#[test]
fn columns_of_every_type() {
    for (name, array, expected) in values() {
        // Beside a column that is used.
        let columns: [(&str, ArrayRef); 2] =
            [("user", Arc::new(StringArray::from(vec!["u"]))), (name, array)];
        let mut files = vec![("Parquet", parquet_file(&columns))];
        if name != "uuid" {
            files.push(("file", ipc_file(&columns, None)));
            files.push(("lz4", ipc_file(&columns, Some(CompressionType::LZ4_FRAME))));
            files.push(("zstd", ipc_file(&columns, Some(CompressionType::ZSTD))));
            files.push(("stream", ipc_stream(&columns)));
        }
        for (form, bytes) in files {
            let found = rows(&bytes);
            match expected {
                Some(text) => {
                    assert_eq!(found[0], format!("user|{name}"), "{form}");
                    assert_eq!(found[1], format!("row 1: u|{text}"), "{form}, {name}");
                }
                None => assert_eq!(
                    found[..2],
                    [format!("user|({name})"), "row 1: u".to_string()],
                    "{form}"
                ),
            }
        }
    }
    let interval: ArrayRef = Arc::new(IntervalDayTimeArray::from(vec![IntervalDayTime::new(1, 2)]));
    let columns: [(&str, ArrayRef); 2] =
        [("user", Arc::new(StringArray::from(vec!["u"]))), ("i", interval)];
    assert_eq!(rows(&ipc_file(&columns, None))[0], "user|(i)");
}

#[test]
fn a_column_that_cannot_be_used_says_why() {
    let (_, structs, _) =
        values().into_iter().find(|(name, ..)| *name == "list of struct").unwrap();
    let file = parquet_file(&[("user", structs)]);
    let table =
        open_input(Arc::new(MemoryFile::new("f.parquet", file)), &TableOptions::default()).unwrap();
    assert_eq!(table.column_type(0).unwrap(), "list of struct");
    let error = table.check_usable(&[0]).unwrap_err().to_string();
    assert_eq!(
        error,
        "f.parquet: column `user` cannot be used: it is of type list of struct; expected texts, numbers, booleans, times, \
         UUIDs or lists of them: write the needed values as a column of their own"
    );
}

#[test]
fn many_rows_in_file_order() {
    let ids: Vec<i64> = (0..20_000).collect();
    let column: ArrayRef = Arc::new(Int64Array::from(ids.clone()));
    let csv: String =
        std::iter::once("id\n".to_string()).chain(ids.iter().map(|id| format!("{id}\n"))).collect();
    let json: String = ids.iter().map(|id| format!("{{\"id\": {id}}}\n")).collect();
    for bytes in [
        csv.clone().into_bytes(),
        gzip(csv.as_bytes()),
        json.into_bytes(),
        parquet_file(&[("id", Arc::clone(&column))]),
        ipc_file(&[("id", Arc::clone(&column))], None),
    ] {
        let table =
            open_input(Arc::new(MemoryFile::new("f", bytes)), &TableOptions::default()).unwrap();
        for _ in 0..2 {
            let mut next = 0;
            for batch in table.batches(&[0, 0]).unwrap() {
                let batch = batch.unwrap();
                assert!(batch.rows() <= batch::BATCH_ROWS);
                for row in 0..batch.rows() {
                    assert_eq!(batch.get(1, row), (next % 20_000).to_string());
                    next += 1;
                }
            }
            assert_eq!(next % 20_000, 0);
        }
    }
}

#[test]
fn files_that_are_damaged_or_of_other_formats() {
    let column: ArrayRef = Arc::new(Int64Array::from((0..50_000).collect::<Vec<_>>()));
    let parquet = parquet_file(&[("id", Arc::clone(&column))]);
    let file = ipc_file(&[("id", Arc::clone(&column))], None);
    let stream = ipc_stream(&[("id", column)]);
    for (bytes, expected) in [
        (&b"PAR1 and then nothing"[..], "cannot be read as Parquet: "),
        (&parquet[..parquet.len() - 20], "cannot be read as Parquet: "),
        (&file[..file.len() - 20], "cannot be read as Arrow IPC: "),
        (&stream[..stream.len() - 8], "the mark that ends a stream is missing"),
        (&stream[..stream.len() / 2], "the mark that ends a stream is missing"),
        (&gzip(&parquet), "Parquet inside gzip"),
        (&gzip(&gzip(b"a,b\n")), "compressed twice"),
        (
            b"PK\x03\x04\x14\0\x06\0[Content_Types].xml",
            "this is an Excel workbook, and not read; save it as CSV UTF-8",
        ),
        (b"<!doctype html><html>", "a page of HTML"),
        (b"BZh91AY&SY", "compressed with bzip2"),
    ] {
        let found = error(bytes);
        assert!(found.contains(expected), "{found}");
    }
    // A size of two exabytes: nothing may ask the system for that.
    let huge = include_bytes!("../../../../fuzz/seeds/table/huge.feather");
    let huge =
        open_input(Arc::new(MemoryFile::new("f", huge[1..].to_vec())), &TableOptions::default());
    let errors: Vec<String> = (huge.unwrap().batches(&[0]).unwrap())
        .filter_map(|batch| Some(batch.err()?.to_string()))
        .collect();
    assert!(errors[0].contains("says that it expands to "), "{errors:?}");
    let mut damaged = file.clone();
    let end = damaged.len();
    for at in (end - 300..end - 10).step_by(7) {
        damaged[at] ^= 0x41;
        // Whatever comes of it, no more than an error.
        let _ = with(&damaged, &TableOptions::default());
    }
}

#[test]
fn an_empty_folder_and_one_of_empty_files() {
    let none = TableOptions::default();
    let folder = |files: &[(&str, &[u8])]| read(files, &["d"], &none).unwrap_err();
    assert_eq!(
        folder(&[("d/_SUCCESS", b""), ("d/part-0", b"")]),
        "d: no file in it to read; skipped: 1 hidden, 1 empty (such as _SUCCESS)"
    );
    assert_eq!(
        folder(&[("d/a.gz", &gzip(b"")[..]), ("d/b.gz", &gzip(b""))]),
        "d: no file in it to read; skipped: 2 empty (such as a.gz)"
    );
    let path = Path::new("/no/such/file.csv");
    assert!(
        open(path, &none)
            .err()
            .unwrap()
            .to_string()
            .starts_with("/no/such/file.csv: No such file or folder")
    );
}

#[test]
fn columns_nobody_asked_for_are_listed() {
    use crate::prepare::{Inputs, PrepareOptions, plan};
    let (_, structs, _) =
        values().into_iter().find(|(name, ..)| *name == "list of struct").unwrap();
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    let columns: [(&str, ArrayRef); 6] = [
        ("request_uuid", fixed(&UUID)),
        ("user", text("u")),
        ("item", text("i")),
        ("click", Arc::new(BooleanArray::from(vec![true]))),
        ("time", Arc::new(Int64Array::from(vec![1_700_000_000]))),
        ("candidates", structs),
    ];
    let open = |columns: &[(&str, ArrayRef)]| {
        let file = MemoryFile::new("log.parquet", parquet_file(columns));
        open_input(Arc::new(file), &TableOptions::default()).unwrap()
    };
    let inputs = |events| Inputs { events, items: None, users: None };
    let plan = |events| plan(inputs(events), PrepareOptions::default());
    let planned = plan(open(&columns)).unwrap();
    let ignored = planned.understood().iter().filter(|row| row.what == "ignored");
    let ignored: Vec<_> = ignored.map(|row| format!("{}: {}", row.column, row.reading)).collect();
    assert_eq!(
        ignored,
        [
            "request_uuid: not listed as a field (UUID)",
            "candidates: not listed as a field (list of struct)",
        ]
    );
    let mut renamed = columns.clone();
    renamed[1].0 = "other";
    renamed[5].0 = "user";
    let error = plan(open(&renamed)).err().unwrap().to_string();
    assert!(
        error.contains("column `user` cannot be used: it is of type list of struct"),
        "{error}"
    );
    // What is no text matters where it is used.
    let latin = b"user,item,click,time,title\n1,2,1,1700000000,caf\xe9\n";
    let csv = |name: &str, bytes: &[u8]| {
        open_input(Arc::new(MemoryFile::new(name, bytes.to_vec())), &TableOptions::default())
            .unwrap()
    };
    plan(csv("log.csv", latin)).expect("the title is not used");
    // Rows of a file without a header are shown.
    let error = plan(csv("log.csv", b"1029,505,1,1709510528\n1030,505,0,1709510529\n"))
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("`1029,505,1,1709510528`") && error.contains("--header user,item,.."),
        "{error}"
    );
}

/// A column in memory has the texts that it has in a file.
#[test]
fn a_column_in_memory_is_read_as_one_of_a_file() {
    let texts = |array: ArrayRef| {
        let field = Field::new("column", array.data_type().clone(), true);
        let texts = column_texts(&field, &array)?;
        Ok::<_, String>(texts.iter().map(|text| text.unwrap_or("-").to_owned()).collect::<Vec<_>>())
    };
    let owned = |texts: &[&str]| Ok(texts.iter().map(|text| (*text).to_owned()).collect());
    let wrong = |what: &str| Err(what.to_owned());
    let cases: [(ArrayRef, Result<Vec<String>, String>); 6] = [
        (Arc::new(Int64Array::from(vec![Some(7), None])), owned(&["7", "-"])),
        (Arc::new(Float64Array::from(vec![25.0, 0.5, f64::NAN])), owned(&["25", "0.5", "-"])),
        (Arc::new(BooleanArray::from(vec![true])), owned(&["true"])),
        (
            Arc::new(TimestampMillisecondArray::from(vec![1_700_000_000_123])),
            owned(&["1700000000"]),
        ),
        (
            Arc::new(BinaryArray::from(vec![&b"a"[..], &b"\xff"[..]])),
            wrong("row 2: bytes that are no text"),
        ),
        (
            Arc::new(IntervalDayTimeArray::from(vec![IntervalDayTime::new(1, 2)])),
            wrong(
                "it is of type interval; expected texts, numbers, booleans, times, UUIDs or lists of them: write the needed values as a column of their own",
            ),
        ),
    ];
    for (array, expected) in cases {
        assert_eq!(texts(Arc::clone(&array)), expected, "{array:?}");
    }
}
