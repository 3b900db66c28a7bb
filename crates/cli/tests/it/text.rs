//! Numbers and tables as people read them.

#[allow(dead_code)] // What no test asks for.
#[path = "../../src/text.rs"]
mod text;

use text::{bytes, count, table};

#[test]
fn tables_align() {
    let rows = [vec!["a".into(), "1".into()], vec!["long".into(), "23".into()]];
    assert_eq!(table(&["name", "n"], &rows), "name   n\na      1\nlong  23\n");
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
