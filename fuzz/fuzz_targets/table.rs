//! Bytes become rows of text with as many cells as there are columns, twice the same, or an error
//! that says why not.
//!
//!     mkdir -p fuzz/corpus/table
//!     cargo +nightly fuzz run table fuzz/corpus/table fuzz/seeds/table -- -max_len=16384
//! -max_total_time=600
#![no_main]

use std::sync::{Arc, Once};

use ams_data::source::{Encoding, MemoryFile, Quoting, Table, TableOptions, open_input};
use libfuzzer_sys::fuzz_target;

static HOOK: Once = Once::new();

/// Readers of Arrow panic on some damaged files, which `ams_data` turns into errors. Our own panics
/// are faults at once, and others where nothing catches them.
fn forgive_others() {
    let abort = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.location().is_none_or(|place| place.file().contains("/crates/")) {
            abort(panic);
        }
    }));
}

/// Places and cells of all columns that can be used, or the error.
fn rows(table: &dyn Table) -> Result<Vec<String>, String> {
    let columns: Vec<usize> =
        (0..table.columns().len()).filter(|&at| table.unusable(at).is_none()).collect();
    let mut rows = Vec::new();
    for batch in table.batches(&columns).map_err(|error| error.to_string())? {
        let batch = batch.map_err(|error| error.to_string())?;
        for row in 0..batch.rows() {
            let cells = (0..columns.len()).map(|column| batch.get(column, row));
            rows.push(format!("{} {}", batch.place(row), cells.collect::<Vec<_>>().join("\t")));
        }
    }
    Ok(rows)
}

fuzz_target!(|bytes: &[u8]| {
    HOOK.call_once(forgive_others);
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let quoting = Quoting::ALL[usize::from(first & 3)].1;
    let delimiters = [None, Some(","), Some("tab"), Some("::")];
    let delimiter = delimiters[usize::from(first >> 2 & 3)];
    let options = TableOptions {
        delimiter: delimiter.map(|text| text.parse().expect("a delimiter")),
        quoting,
        encoding: if first & 16 == 0 {
            Encoding::Utf8
        } else {
            Encoding::ALL[usize::from(first >> 5) % 5].1
        },
        ..TableOptions::default()
    };
    let file = Arc::new(MemoryFile::new("file", bytes.to_vec()));
    match open_input(file, &options) {
        Err(error) => assert!(error.to_string().len() > "file: ".len()),
        Ok(table) => assert_eq!(rows(table.as_ref()), rows(table.as_ref())),
    }
});
