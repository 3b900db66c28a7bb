//! Numbers and tables as people read them.

#[allow(dead_code)] // What no test asks for.
#[path = "../../src/text.rs"]
mod shown;

use shown::{bytes, count, fitted, table};
use unicode_width::UnicodeWidthStr;

#[test]
fn tables_align() {
    let rows = [vec!["a".into(), "1".into()], vec!["long".into(), "23".into()]];
    assert_eq!(table(&["name", "n"], &rows), "name   n\na      1\nlong  23\n");
}

#[test]
fn tables_that_fit() {
    let long = "x".repeat(500_000) + "\nsecond line";
    let rows = [
        vec!["item field".into(), "items.csv: title".into(), long, "text".into()],
        vec![
            "user".into(),
            "名前".into(),
            "日本語のとても長い文章です、本当に".into(),
            "a\u{1f}b\tc".into(),
        ],
    ];
    let text = fitted(&["role", "column", "example", "read as"], &rows, 2, 60);
    let expected = [
        "role                  column            example    read as",
        "item field  items.csv: title  xxxxxxxxxxxxxxx…       text",
        "user                    名前   日本語のとても…  a, b\\tc",
    ];
    assert!(text.lines().all(|line| line.width() <= 60), "{text}");
    assert_eq!(text.lines().count(), expected.len(), "{text}");
    assert!(text.contains("…     text"), "{text}");
    let wide = "read as ".repeat(40);
    let rows = [vec!["ignored".into(), "c".repeat(300), "e".repeat(300), wide]];
    let text = fitted(&["role", "column", "example", "read as"], &rows, 2, 100);
    assert!(text.lines().all(|line| line.width() <= 100), "{text}");
}

#[test]
fn bytes_have_three_digits() {
    let cases = [
        (0.0, "0 B"),
        (999.0, "999 B"),
        (1000.0, "1.0 kB"),
        (99_949.0, "99.9 kB"),
        (99_960.0, "100 kB"),
        (999_600.0, "1.0 MB"),
        (5.24e9, "5.2 GB"),
    ];
    for (value, want) in cases {
        assert_eq!(bytes(value), want);
    }
}

#[test]
fn counts_have_separators() {
    let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")];
    for (value, want) in cases {
        assert_eq!(count(value), want);
    }
}
