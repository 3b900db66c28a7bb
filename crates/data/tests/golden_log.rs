//! One log of 600 rows, written in the ways people write logs: every way gives the same dataset bit
//! by bit, or an error that names the way out.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ams_data::prepare::{Existing, FieldColumn, Inputs, PrepareOptions, SplitBy, plan};
use ams_data::source::{Encoding, LocalFiles, Quoting, TableOptions, open_all};
use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array,
    Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, StringViewArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, types::Int32Type,
};
use parquet::arrow::ArrowWriter;

const ROWS: i64 = 600;
const BEGIN: i64 = 1_709_510_528;

/// Row `row`: user, item, label, unix seconds, hour.
fn row(row: i64) -> [i64; 5] {
    let time = BEGIN + row * 937;
    [1000 + row * 7 % 61, 500 + row * row % 40, i64::from(row * 5 % 7 < 2), time, time / 3600 % 24]
}

const HEADER: [&str; 5] = ["user_id", "item_id", "label", "timestamp", "hour"];

/// The files of one way to write the log, and how it is read.
struct Way {
    files: Vec<(String, Vec<u8>)>,
    /// What is named as `--events`; empty: the only file.
    named: Vec<&'static str>,
    tables: TableOptions,
    set: fn(&mut PrepareOptions),
}

impl Way {
    fn file(name: &str, bytes: impl Into<Vec<u8>>) -> Way {
        Way {
            files: vec![(name.to_string(), bytes.into())],
            named: Vec::new(),
            tables: TableOptions { name: "events".into(), ..TableOptions::default() },
            set: |_| {},
        }
    }

    fn files(files: Vec<(&str, Vec<u8>)>, named: &[&'static str]) -> Way {
        let files = files.into_iter().map(|(name, bytes)| (name.to_string(), bytes)).collect();
        Way { files, named: named.to_vec(), ..Way::file("", "") }
    }

    fn set(self, set: fn(&mut PrepareOptions)) -> Way {
        Way { set, ..self }
    }

    fn header(mut self) -> Way {
        self.tables.header = Some(HEADER.map(str::to_string).to_vec());
        self
    }

    fn encoding(mut self, encoding: Encoding) -> Way {
        self.tables.encoding = encoding;
        self
    }

    fn delimiter(mut self, delimiter: &str) -> Way {
        self.tables.delimiter = Some(delimiter.parse().unwrap());
        self
    }
}

/// The log as lines of cells between `delimiter`, each cell as `cell` writes it; the first line is
/// the header.
fn lines(delimiter: &str, cell: impl Fn(usize, i64) -> String) -> Vec<String> {
    let mut lines = vec![HEADER.join(delimiter)];
    for at in 0..ROWS {
        let cells: Vec<_> =
            row(at).iter().enumerate().map(|(column, v)| cell(column, *v)).collect();
        lines.push(cells.join(delimiter));
    }
    lines
}

fn text(lines: &[String]) -> String {
    lines.join("\n") + "\n"
}

fn csv() -> String {
    text(&lines(",", |_, value| value.to_string()))
}

/// CSV in which column `of` is written by `write`.
fn with(of: usize, write: impl Fn(i64) -> String) -> String {
    text(&lines(",", |column, value| if column == of { write(value) } else { value.to_string() }))
}

/// CSV with the times in a form of strftime.
fn timed(format: &str) -> String {
    with(3, |time| {
        let time = jiff::Timestamp::from_second(time).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
        time.strftime(format).to_string()
    })
}

fn json_lines() -> String {
    let line = |at| {
        let [user, item, label, time, hour] = row(at);
        format!(
            r#"{{"user_id": {user}, "item_id": "{item}", "label": {}, "timestamp": {time}, "hour": {hour}.0, "x": {{"y": [1]}}}}"#,
            label == 1
        )
    };
    (0..ROWS).map(|at| line(at) + "\n").collect()
}

fn column(of: usize) -> Vec<i64> {
    (0..ROWS).map(|at| row(at)[of]).collect()
}

fn texts(of: usize) -> Vec<String> {
    column(of).iter().map(i64::to_string).collect()
}

/// The log as a batch, some columns replaced.
fn batch(replaced: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let mut replaced: BTreeMap<&str, ArrayRef> = replaced.into_iter().collect();
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for (at, name) in HEADER.iter().enumerate() {
        let plain = || Arc::new(Int64Array::from(column(at))) as ArrayRef;
        columns.push((name.to_string(), replaced.remove(name).unwrap_or_else(plain)));
    }
    columns.extend(replaced.into_iter().map(|(name, array)| (name.to_string(), array)));
    RecordBatch::try_from_iter(columns).unwrap()
}

fn parquet(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn ipc_file(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = arrow_ipc::writer::FileWriter::try_new(&mut bytes, &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    bytes
}

fn ipc_stream(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(&mut bytes, &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn utf16(text: &str, little: bool) -> Vec<u8> {
    let units = std::iter::once('\u{feff}').chain(text.chars()).collect::<String>();
    let bytes = |unit: u16| if little { unit.to_le_bytes() } else { unit.to_be_bytes() };
    units.encode_utf16().flat_map(bytes).collect()
}

/// Parts of the log, each with the header.
fn parts(count: usize) -> Vec<Vec<u8>> {
    let lines = lines(",", |_, value| value.to_string());
    let rows = lines[1..].chunks((ROWS as usize).div_ceil(count));
    rows.map(|rows| text(&[&lines[..1], rows].concat()).into_bytes()).collect()
}

/// Parts by day, without the column of the hour, which stands in the folder's name.
fn by_hour() -> Way {
    let mut hours: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for at in 0..ROWS {
        let row = row(at);
        let cells: Vec<_> = row[..4].iter().map(i64::to_string).collect();
        hours.entry(row[4]).or_insert_with(|| vec![HEADER[..4].join(",")]).push(cells.join(","));
    }
    let files = hours
        .iter()
        .map(|(hour, lines)| (format!("log/hour={hour}/part-00000.csv"), text(lines).into_bytes()));
    Way { files: files.collect(), named: vec!["log"], ..Way::file("", "") }
}

fn ways() -> Vec<(&'static str, Way)> {
    let plain = csv();
    let bytes = plain.as_bytes();
    let three = parts(3);
    let float = |of: usize| {
        Arc::new(Float64Array::from_iter_values(column(of).iter().map(|&v| v as f64))) as ArrayRef
    };
    let string = |of: usize| Arc::new(StringArray::from(texts(of))) as ArrayRef;
    let quoted = |delimiter: &str| text(&lines(delimiter, |_, value| format!("\"{value}\"")));
    let separated = |delimiter: &str| text(&lines(delimiter, |_, value| value.to_string()));
    let mut shuffled = lines(",", |_, value| value.to_string());
    shuffled[1..].reverse();
    let mut wide = lines(",", |_, value| value.to_string());
    wide[0] += ",note,note,,";
    wide[1..].iter_mut().for_each(|line| *line += ",\"a, b\",x,,");
    let reordered = |at: i64| {
        let [user, item, label, time, hour] = row(at);
        format!("{time},{hour},{label},{item},{user}\n")
    };
    let halves = (
        "timestamp,hour,label,item_id,user_id\n".to_string()
            + &(0..300).map(reordered).collect::<String>(),
        "timestamp,hour,label,item_id,user_id\n".to_string()
            + &(300..ROWS).map(reordered).collect::<String>(),
    );
    let json_array = format!("[{}]", json_lines().trim_end().replace('\n', ",\n"));
    let without_header = plain.split_once('\n').unwrap().1.to_string();
    vec![
        ("comma", Way::file("log.csv", bytes)),
        ("semicolon", Way::file("log.csv", separated(";"))),
        ("tab", Way::file("log.tsv", separated("\t"))),
        ("pipe", Way::file("log.txt", separated("|"))),
        ("two colons", Way::file("ratings.dat", separated("::")).delimiter("::")),
        ("Hive's ^A", Way::file("000000_0", separated("\u{1}")).delimiter("^A")),
        ("a delimiter in quotes", Way::file("log.csv", separated("\t")).delimiter("'\\t'")),
        ("quoted", Way::file("log.csv", quoted(","))),
        ("quoted, semicolon", Way::file("log.csv", quoted(";"))),
        (
            "no quoting",
            Way {
                tables: TableOptions { quoting: Quoting::None, ..Way::file("", "").tables },
                ..Way::file("log.tsv", separated("\t"))
            },
        ),
        ("spaces around", Way::file("log.csv", text(&lines(",", |_, v| format!(" {v} "))))),
        ("CRLF", Way::file("log.csv", plain.replace('\n', "\r\n"))),
        ("CR", Way::file("log.csv", plain.replace('\n', "\r"))),
        ("no end of line", Way::file("log.csv", plain.trim_end())),
        ("blank lines behind", Way::file("log.csv", plain.clone() + "\n\n")),
        ("byte order mark", Way::file("log.csv", [b"\xef\xbb\xbf", bytes].concat())),
        ("UTF-16, little", Way::file("log.csv", utf16(&plain, true))),
        ("UTF-16, big", Way::file("log.csv", utf16(&plain, false))),
        ("Latin-1", Way::file("log.csv", bytes).encoding(Encoding::Latin1)),
        ("Excel's first line", Way::file("log.csv", format!("sep=;\n{}", separated(";")))),
        ("without header", Way::file("log.csv", without_header.clone()).header()),
        ("columns nobody uses", Way::file("log.csv", text(&wide))),
        ("gzip", Way::file("log.csv.gz", gzip(bytes))),
        (
            "gzip in members",
            Way::file("log.csv.gz", [gzip(&bytes[..4000]), gzip(&bytes[4000..])].concat()),
        ),
        ("gzip by another name", Way::file("log", gzip(bytes))),
        ("zstd", Way::file("log.csv.zst", zstd::encode_all(bytes, 1).unwrap())),
        ("JSON lines", Way::file("log.jsonl", json_lines())),
        ("JSON lines, gzip", Way::file("log.json.gz", gzip(json_lines().as_bytes()))),
        ("JSON array", Way::file("log.json", json_array)),
        ("rows in another order", Way::file("log.csv", text(&shuffled))),
        ("Parquet", Way::file("log.parquet", parquet(&batch(vec![])))),
        (
            "Parquet of floats",
            Way::file(
                "log.parquet",
                parquet(&batch(vec![
                    ("user_id", float(0)),
                    ("item_id", float(1)),
                    ("label", float(2)),
                    ("timestamp", float(3)),
                    ("hour", float(4)),
                ])),
            ),
        ),
        (
            "Parquet of texts",
            Way::file(
                "log.parquet",
                parquet(&batch(vec![
                    ("user_id", string(0)),
                    ("item_id", string(1)),
                    ("label", string(2)),
                    ("timestamp", string(3)),
                    ("hour", string(4)),
                ])),
            ),
        ),
        (
            "Parquet of many types",
            Way::file(
                "log.parquet",
                parquet(&batch(vec![
                    (
                        "user_id",
                        Arc::new(Int32Array::from_iter_values(column(0).iter().map(|&v| v as i32))),
                    ),
                    (
                        "item_id",
                        Arc::new(
                            texts(1)
                                .iter()
                                .map(String::as_str)
                                .collect::<DictionaryArray<Int32Type>>(),
                        ),
                    ),
                    (
                        "label",
                        Arc::new(BooleanArray::from_iter(column(2).iter().map(|&v| Some(v == 1)))),
                    ),
                    (
                        "timestamp",
                        Arc::new(TimestampMillisecondArray::from_iter_values(
                            column(3).iter().map(|v| v * 1000 + 7),
                        )),
                    ),
                    (
                        "hour",
                        Arc::new(Float32Array::from_iter_values(
                            column(4).iter().map(|&v| v as f32),
                        )),
                    ),
                    ("day", Arc::new(Date32Array::from(vec![1; ROWS as usize]))),
                ])),
            ),
        ),
        (
            "Parquet of views and decimals",
            Way::file(
                "log.parquet",
                parquet(&batch(vec![
                    ("user_id", Arc::new(StringViewArray::from_iter_values(texts(0)))),
                    (
                        "item_id",
                        Arc::new(
                            Decimal128Array::from_iter_values(
                                column(1).iter().map(|&v| i128::from(v) * 100),
                            )
                            .with_precision_and_scale(20, 2)
                            .unwrap(),
                        ),
                    ),
                    (
                        "timestamp",
                        Arc::new(
                            TimestampMicrosecondArray::from_iter_values(
                                column(3).iter().map(|v| v * 1_000_000),
                            )
                            .with_timezone("UTC"),
                        ),
                    ),
                ])),
            ),
        ),
        ("Arrow IPC file", Way::file("log.arrow", ipc_file(&batch(vec![])))),
        ("Arrow IPC stream", Way::file("log.arrows", ipc_stream(&batch(vec![])))),
        (
            "several files",
            Way::files(
                vec![
                    ("a.csv", three[0].clone()),
                    ("b.csv", three[1].clone()),
                    ("c.csv", three[2].clone()),
                ],
                &["c.csv", "a.csv", "b.csv"],
            ),
        ),
        (
            "a pattern",
            Way::files(
                vec![
                    ("a.csv", three[0].clone()),
                    ("b.csv", three[1].clone()),
                    ("c.csv", three[2].clone()),
                    ("d.txt", b"x".to_vec()),
                ],
                &["*.csv"],
            ),
        ),
        (
            "Spark's folder",
            Way::files(
                vec![
                    ("log/part-00000.csv.gz", gzip(&three[0])),
                    ("log/part-00001.csv.gz", gzip(&three[1])),
                    ("log/part-00002.csv.gz", gzip(&three[2])),
                    ("log/_SUCCESS", vec![]),
                    ("log/._SUCCESS.crc", b"crc".to_vec()),
                ],
                &["log"],
            ),
        ),
        ("Hive's partitions", by_hour()),
        (
            "files with columns in another order",
            Way::files(
                vec![("log/1.csv", halves.0.into_bytes()), ("log/2.csv", halves.1.into_bytes())],
                &["log"],
            ),
        ),
        ("unix milliseconds", Way::file("log.csv", with(3, |time| format!("{time}123")))),
        ("unix microseconds", Way::file("log.csv", with(3, |time| format!("{time}123456")))),
        ("unix nanoseconds", Way::file("log.csv", with(3, |time| format!("{time}123456789")))),
        (
            "unix seconds with a fraction",
            Way::file("log.csv", with(3, |time| format!("{time}.75"))),
        ),
        ("ISO 8601", Way::file("log.csv", timed("%Y-%m-%dT%H:%M:%SZ"))),
        ("ISO 8601 with offset", Way::file("log.csv", timed("%Y-%m-%dT%H:%M:%S+00:00"))),
        ("date and time", Way::file("log.csv", timed("%Y-%m-%d %H:%M:%S"))),
        ("BigQuery", Way::file("log.csv", timed("%Y-%m-%d %H:%M:%S UTC"))),
        ("slashes", Way::file("log.csv", timed("%Y/%m/%d %H:%M:%S"))),
        ("fourteen digits", Way::file("log.csv", timed("%Y%m%d%H%M%S"))),
        ("a server's log", Way::file("log.csv", timed("[%d/%b/%Y:%H:%M:%S +0000]"))),
        ("day first with dots", Way::file("log.csv", timed("%d.%m.%Y %H:%M:%S"))),
        (
            "month first, stated",
            Way::file("log.csv", timed("%m/%d/%Y %H:%M:%S")).set(|options| {
                options.time_format = Some("%m/%d/%Y %H:%M:%S".into());
            }),
        ),
        ("users as floats", Way::file("log.csv", with(0, |user| format!("{user}.0")))),
        ("items as floats", Way::file("log.csv", with(1, |item| format!("{item}.00")))),
        ("hours as floats", Way::file("log.csv", with(4, |hour| format!("{hour}.0")))),
        ("labels true and false", Way::file("log.csv", with(2, |label| (label == 1).to_string()))),
        (
            "labels TRUE and FALSE",
            Way::file("log.csv", with(2, |label| (label == 1).to_string().to_uppercase())),
        ),
        (
            "labels t and f",
            Way::file("log.csv", with(2, |label| ["f", "t"][label as usize].into())),
        ),
        (
            "labels yes and no",
            Way::file("log.csv", with(2, |label| ["no", "yes"][label as usize].into())),
        ),
        ("labels 1.00 and 0.00", Way::file("log.csv", with(2, |label| format!("{label}.00")))),
        (
            "labels as words",
            Way::file("log.csv", with(2, |label| ["view", "click"][label as usize].into()))
                .set(|options| options.positive = vec!["click".into()]),
        ),
        (
            "labels as ratings",
            Way::file("log.csv", with(2, |label| ["2,5", "4,0"][label as usize].replace(',', ".")))
                .set(|options| options.positive_from = Some(4.0)),
        ),
        ("rows twice", Way::file("log.csv", plain.clone() + plain.lines().nth(5).unwrap() + "\n")),
        (
            "rows without user",
            Way::file("log.csv", plain.clone() + "NULL,500,1,1709510528,3\n,500,1,1709510528,3\n"),
        ),
    ]
}

/// What cannot be read, and what the error says.
fn errors() -> Vec<(&'static str, Way, Vec<&'static str>)> {
    let plain = csv();
    let mut unclosed = lines("\t", |_, value| value.to_string());
    unclosed[7] = unclosed[7].replacen('\t', "\t\"", 1);
    let without_header = plain.split_once('\n').unwrap().1.to_string();
    vec![
        (
            "day or month first",
            Way::file("log.csv", timed("%m/%d/%Y %H:%M")),
            vec!["day or month first", "--time-format"],
        ),
        (
            "two digits of a year",
            Way::file("log.csv", timed("%y%m%d%H")),
            vec!["1990", "--time-format"],
        ),
        (
            "Excel's days",
            Way::file("log.csv", with(3, |time| (time / 86_400 + 25_569).to_string())),
            vec!["1990", "--accept times"],
        ),
        (
            "an unclosed quote",
            Way::file("log.tsv", text(&unclosed)),
            vec!["line 8", "--events-quoting none"],
        ),
        (
            "zeros in front",
            Way::file("log.csv", with(1, |item| format!("{item:06}"))),
            vec!["`000500`", "`500`", "--accept items-without-row"],
        ),
        (
            "items of another shop",
            Way::file("log.csv", with(1, |item| format!("x-{item}"))),
            vec!["`x-500`", "--accept items-without-row"],
        ),
        (
            "users of another shop",
            Way::file("log.csv", with(0, |user| format!("0{user}"))),
            vec!["`01000`", "`1000`", "--accept users-without-row"],
        ),
        (
            "ids a spreadsheet rounded",
            Way::file("log.csv", with(0, |user| format!("1.{user}E+15"))),
            vec!["line 2, column `user_id`", "rounded"],
        ),
        (
            "mostly NULL",
            Way::file(
                "log.csv",
                with(0, |user| if user % 3 == 0 { user.to_string() } else { "NULL".into() }),
            ),
            vec!["without user", "--accept dropped-rows"],
        ),
        (
            "labels nobody knows",
            Way::file("log.csv", with(2, |label| ["view", "click"][label as usize].into())),
            vec!["label", "--positive"],
        ),
        (
            "counts as labels",
            Way::file("log.csv", with(2, |label| (label * 3).to_string())),
            vec!["label `3`", "--positive-from"],
        ),
        ("without header", Way::file("log.csv", without_header), vec!["--events-header"]),
        (
            "a cut gzip file",
            Way::file("log.csv.gz", {
                let mut bytes = gzip(plain.as_bytes());
                bytes.truncate(bytes.len() - 20);
                bytes
            }),
            vec!["log.csv.gz"],
        ),
        (
            "a spreadsheet",
            Way::file(
                "log.xlsx",
                b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0[Content_Types].xml xl/workbook.xml".to_vec(),
            ),
            vec!["log.xlsx"],
        ),
        (
            "two formats",
            Way::files(
                vec![
                    ("log/a.csv", plain.clone().into_bytes()),
                    ("log/b.parquet", parquet(&batch(vec![]))),
                ],
                &["log"],
            ),
            vec!["a.csv", "b.parquet"],
        ),
        (
            "an uneven row",
            Way::file("log.csv", plain.replacen("\n", "\n1,2,3\n", 1)),
            vec!["line 2"],
        ),
    ]
}

const ITEMS_HEADER: &str = "item_id,image,category,price,tags\n";

fn items() -> String {
    let row = |item: i64| {
        format!(
            "{item},{item}.jpg,c{},{}.{:02},\"['t{}', 'x']\"\n",
            item % 5,
            item % 17,
            item % 100,
            item % 3
        )
    };
    ITEMS_HEADER.to_string() + &(500..540).map(row).collect::<String>()
}

fn users() -> String {
    let row = |user: i64| format!("{user},{}\n", ["f", "m"][user as usize % 2]);
    "user_id,gender\n".to_string() + &(1000..1061).map(row).collect::<String>()
}

/// Every file of the dataset that this way gives.
fn prepared(way: &Way) -> Result<BTreeMap<PathBuf, Vec<u8>>, String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in &way.files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    std::fs::create_dir(dir.path().join("side")).unwrap();
    let side = |name: &str, text: String| {
        let path = dir.path().join("side").join(name);
        std::fs::write(&path, text).unwrap();
        ams_data::source::open(&path, &TableOptions::default()).unwrap()
    };
    let named: Vec<PathBuf> = match &way.named[..] {
        [] => vec![dir.path().join(&way.files[0].0)],
        names => names.iter().map(|name| dir.path().join(name)).collect(),
    };
    let mut options = PrepareOptions {
        name: Some("golden".to_string()),
        parts: 2,
        split: SplitBy::Last(0.2),
        ..PrepareOptions::default()
    };
    let fields = |texts: &[&str]| -> Option<Vec<FieldColumn>> {
        Some(texts.iter().map(|text| text.parse().unwrap()).collect())
    };
    options.columns.context_fields = fields(&["hour"]);
    options.columns.item_fields = fields(&["category", "price:numeric", "tags:multi"]);
    options.columns.user_fields = fields(&["gender"]);
    (way.set)(&mut options);
    let out = dir.path().join("set");
    let run = || {
        let inputs = Inputs {
            events: open_all(&LocalFiles, &named, &way.tables)?,
            items: Some(side("items.csv", items())),
            users: Some(side("users.csv", users())),
        };
        plan(inputs, options)?.run(&out, Existing::Refuse, &mut |_| {})
    };
    match run() {
        Ok(_) => Ok(files(&out, &out)),
        Err(error) => {
            assert!(!out.exists(), "nothing half-written stays");
            Err(error.to_string())
        }
    }
}

fn files(root: &Path, dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(root, &path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            all.insert(path.strip_prefix(root).unwrap().to_path_buf(), bytes);
        }
    }
    all
}

#[test]
fn every_way_gives_the_same_dataset() {
    let ways = ways();
    assert!(ways.len() >= 40);
    let expected = prepared(&ways[0].1).unwrap();
    assert_eq!(expected.len(), 6, "{:?}", expected.keys());
    let mut wrong = Vec::new();
    for (name, way) in &ways {
        match prepared(way) {
            Err(error) => wrong.push(format!("{name}: {error}")),
            Ok(found) if found == expected => {}
            Ok(found) => {
                let differs =
                    expected.iter().filter(|(path, bytes)| found.get(*path) != Some(*bytes));
                wrong.push(format!(
                    "{name}: differs in {:?}",
                    differs.map(|(path, _)| path).collect::<Vec<_>>()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_cannot_be_read_names_the_way_out() {
    let mut wrong = Vec::new();
    for (name, way, expected) in errors() {
        match prepared(&way) {
            Ok(_) => wrong.push(format!("{name}: read as if nothing were wrong")),
            Err(error) => {
                let lacks: Vec<_> =
                    expected.iter().filter(|part| !error.contains(**part)).collect();
                if !lacks.is_empty() {
                    wrong.push(format!("{name}: lacks {lacks:?}: {error}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
