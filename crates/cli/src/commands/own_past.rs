//! How well the labels of a dataset are told by popularity, in words.

use ams_data::own_past::{OwnPast, Told};

use crate::output::table;

/// A line per window, after one that says what the numbers are.
pub(crate) fn lines(own_past: &OwnPast) -> String {
    let cell = |told: &Option<Told>| told.as_ref().map_or("-".into(), |t| format!("{:.3}", t.auc));
    let rows: Vec<Vec<String>> = own_past
        .windows
        .iter()
        .map(|window| {
            let days = match window.days {
                1 => "1 day".to_string(),
                days => format!("{days} days"),
            };
            vec![days, cell(&window.train), cell(&window.test)]
        })
        .collect();
    let mut text =
        "AUC of how often an item was had before, by anybody (0.5: it does not tell the label)\n"
            .to_string();
    text += &table(&["in the last", "train", "test"], &rows);
    text
}
