//! The report of an ablation: its tables with a chart of each.

use ams_model::metrics::Interval;
use ams_train::ablate::{Report, RowReport, TableReport, differences, figures, preamble, title};
use ams_train::run::Record;

use crate::document::{Block, Chart, Document, Marks, RowMark, Section};
use crate::learning::{Trained, learning};

/// The report of an ablation, as far as its trainings are done. `records` are those of the first
/// seed, one per row of each table where there is one.
pub fn ablation(report: &Report, records: &[Vec<Option<Record>>]) -> Document {
    // Signs of Markdown are for another form.
    let lead = preamble(report).replace(['`', '*'], "");
    let lead = lead.split("\n").filter(|line| !line.is_empty()).map(str::to_owned);
    Document {
        title: format!("Ablations: {}", report.name),
        lead: lead.collect(),
        sections: report.tables.iter().zip(records).map(|(table, of)| section(table, of)).collect(),
    }
}

fn section(table: &TableReport, records: &[Option<Record>]) -> Section {
    let mut charts =
        vec![rows("GAUC, mean and standard deviation over seeds", "GAUC", false, table, &gauc)];
    if table.rows.iter().any(|row| row.difference.is_some()) {
        let over = |row: &RowReport| row.difference.as_ref().and_then(|it| it.gauc);
        charts.push(rows(
            "Difference of GAUC to the baseline",
            "difference of GAUC",
            true,
            table,
            &over,
        ));
        for at in 0..table.rows.first().map_or(0, |row| row.slices.len()) {
            let of = |row: &RowReport| row.difference.as_ref().and_then(|it| it.slices[at].auc);
            let name =
                format!("Difference of AUC to the baseline, {}", table.rows[0].slices[at].name);
            charts.push(rows(&name, "difference of AUC", true, table, &of));
        }
    }
    if table.rows.iter().any(|row| row.twin_difference.is_some()) {
        let over = |row: &RowReport| row.twin_difference.as_ref().and_then(|it| it.gauc);
        let name = "Difference of GAUC to the twin with shuffled pictures";
        charts.push(rows(name, "difference of GAUC", true, table, &over));
    }
    charts.retain(|chart| !matches!(&chart.marks, Marks::Rows { rows, .. } if rows.is_empty()));
    let settings =
        table.rows.iter().map(|row| format!("{}: {}", row.name, row.settings.join(", ")));
    let mut blocks = Vec::new();
    if !charts.is_empty() {
        blocks.push(Block::Charts(charts));
    }
    blocks.push(Block::Table(figures(table)));
    let differences = differences(table);
    if !differences.rows.is_empty() {
        blocks.push(Block::Table(differences));
    }
    let trainings: Vec<Trained<'_>> = table
        .rows
        .iter()
        .zip(records)
        .filter_map(|(row, record)| Some(Trained { name: &row.name, record: record.as_ref()? }))
        .collect();
    if !trainings.is_empty() {
        blocks.push(Block::Text("How the rows learned, with the first seed:".to_owned()));
        blocks.extend(learning(&trainings));
    }
    let text = settings.collect::<Vec<String>>().join("\n");
    blocks.push(Block::Code { caption: "Settings of the rows".to_owned(), text });
    Section { id: table.name.clone(), title: title(table), blocks }
}

/// The rows of a table that have a value.
fn rows(
    title: &str,
    x: &str,
    differences: bool,
    table: &TableReport,
    of: &dyn Fn(&RowReport) -> Option<Interval>,
) -> Chart {
    let mark = |row: &RowReport| Some(RowMark { name: row.name.clone(), value: Some(of(row)?) });
    let rows = table.rows.iter().filter_map(mark).collect();
    Chart {
        title: title.to_owned(),
        x: x.to_owned(),
        y: "row".to_owned(),
        marks: Marks::Rows { rows, differences },
    }
}

/// Mean and standard deviation over seeds.
fn gauc(row: &RowReport) -> Option<Interval> {
    let mean = row.gauc.mean?;
    let end = |sign: f64| row.gauc.std.map(|std| mean + sign * std);
    Some(Interval { mean, low: end(-1.0), high: end(1.0) })
}
