//! Logs in the forms that people have them in: files, folders, patterns, compressions, formats.
//! Each gives the dataset of the plain file, bit by bit, or an error that names the way out.

use std::io::Write;

use crate::place::Place;

const ITEMS: &str = "item_id,image,brand\n1,1.png,x\n2,2.png,y\n3,3.png,x\n";

/// The rows of a log, without a header: user, item, click, time.
fn rows() -> Vec<[String; 4]> {
    let row = |n: u64| {
        let cells = [n % 7, 1 + n * n % 3, n % 3 / 2, 1_700_000_000 + n * 3600];
        cells.map(|cell| cell.to_string())
    };
    (0..60).map(row).collect()
}

const HEADER: [&str; 4] = ["user_id", "item_id", "click", "timestamp"];

fn separated(rows: &[[String; 4]], by: &str, header: bool) -> String {
    let header = header.then(|| HEADER.join(by));
    let lines = header.into_iter().chain(rows.iter().map(|row| row.join(by)));
    lines.map(|line| line + "\n").collect()
}

fn json(rows: &[[String; 4]]) -> String {
    let pairs = |row: &[String; 4]| {
        let pairs = HEADER.iter().zip(row).map(|(name, value)| format!("\"{name}\": {value}"));
        pairs.collect::<Vec<_>>().join(", ")
    };
    rows.iter().map(|row| format!("{{{}}}\n", pairs(row))).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    to.write_all(text.as_bytes()).unwrap();
    to.finish().unwrap()
}

#[test]
fn one_log_in_many_forms() {
    let place = Place::new();
    let rows = rows();
    let csv = separated(&rows, ",", true);
    place.write("items.csv", ITEMS);
    place.write("plain.csv", &csv);
    place.write("packed.csv.gz", gzip(&csv));
    place.write("log.jsonl", json(&rows));
    place.write("hive.txt", separated(&rows, "\u{1}", true));
    place.write("bare.tsv", separated(&rows, "\t", false));
    place.write("colons.dat", separated(&rows, "::", false));
    let wide: Vec<u8> = csv.encode_utf16().flat_map(u16::to_le_bytes).collect();
    place.write("wide.csv", [&[0xff, 0xfe][..], &wide].concat());
    place.write("sheet.csv", csv.replace('\n', ",,\n"));
    place.write("spark/_SUCCESS", "");
    place.write("spark/.part-0.csv.crc", "crc");
    for (at, part) in rows.chunks(25).enumerate() {
        place.write(&format!("spark/part-{at}.csv"), separated(part, ",", true));
        place.write(&format!("json/dt=2024-01-0{at}/part-0.json"), json(part));
    }
    place.write("spark/part-9.csv", "");
    let prepare = |events: &str, out: &str| {
        place.json(&format!("prepare --events {events} --items items.csv --out {out}/data"))
    };
    prepare("plain.csv", "expected");
    let expected = place.files("expected/data");
    for (at, events) in [
        "packed.csv.gz",
        "log.jsonl",
        "hive.txt",
        "hive.txt --events-delimiter ^A",
        "hive.txt --delimiter \\x01 --items-delimiter ,",
        "bare.tsv --events-header user_id,item_id,click,timestamp",
        "colons.dat --events-delimiter :: --header user_id,item_id,click,timestamp",
        "wide.csv",
        "sheet.csv",
        "spark",
        "spark/part-*",
        "spark/part-2.csv spark/part-0.csv spark/part-1.csv",
        "spark/part-2.csv --events spark/part-0.csv --events spark/part-1.csv",
        "json",
        "json/**/*.json",
    ]
    .into_iter()
    .enumerate()
    {
        prepare(events, &format!("out{at}"));
        assert!(place.files(&format!("out{at}/data")) == expected, "{events}");
    }
}

#[test]
fn logs_that_are_refused() {
    let place = Place::new();
    let rows = rows();
    let csv = separated(&rows, ",", true);
    let lines: Vec<&str> = csv.lines().collect();
    let with_mark = [&lines[..5], &["\"3,1,0,1700010800"], &lines[6..]].concat().join("\n");
    place.write("items.csv", ITEMS);
    place.write("mark.csv", with_mark);
    place.write("bare.csv", separated(&rows, ",", false));
    place.write("spaces.txt", separated(&rows, " ", true));
    place.write("log.csv.gz", &gzip(&csv)[..100]);
    place.write("sheet.xlsx", b"PK\x03\x04\x14\0\x06\0[Content_Types].xml");
    place.write("mixed/a.csv", &csv);
    place.write("mixed/b.jsonl", json(&rows));
    place.write("lacking/a.csv", &csv);
    place.write("lacking/b.csv", csv.replace("click", "clack"));
    place.write("nothing/_SUCCESS", "");
    for (events, words) in [
        ("mark.csv", &["mark.csv: a quotation mark on line 6", "--events-quoting none"][..]),
        (
            "bare.csv",
            &["no column for the user", "`0,1,0,1700000000`", "--events-header user,item"],
        ),
        ("spaces.txt", &["no column for the user", "--events-delimiter"]),
        ("log.csv.gz", &["log.csv.gz: the gzip data is cut short"]),
        ("sheet.xlsx", &["sheet.xlsx: this is an Excel workbook", "save it as CSV"]),
        ("mixed", &["mixed: files of several formats: a.csv is CSV, b.jsonl is JSON"]),
        ("lacking", &["column `click` cannot be used: the file b.csv has no such column"]),
        ("nothing", &["nothing: no file in it to read; skipped: 1 hidden"]),
        ("nothing/*.csv", &["nothing/*.csv: no file matches the pattern"]),
    ] {
        place.refuses(&format!("prepare --events {events} --items items.csv --out data"), words);
    }
}
