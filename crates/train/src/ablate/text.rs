//! Reports as tables for people, as Markdown and as CSV. Knows no number that is not in the report.

use ams_model::metrics::Interval;

use crate::ablate::report::{
    Difference, Report, RowReport, SliceDifference, SliceFigures, Spread, TableReport,
};

impl Report {
    /// The tables in words; `draw` lays out a header and rows of as many cells.
    pub fn text(&self, draw: impl Fn(&[&str], &[Vec<String>]) -> String) -> String {
        let cells = |cells: &Cells| {
            let header: Vec<&str> = cells.header.iter().map(String::as_str).collect();
            draw(&header, &cells.rows)
        };
        let mut text = String::new();
        for part in &self.tables {
            text += &format!("{}\n\n{}\n", title(part), cells(&figures(part)));
            text += &format!("{}\n", cells(&differences(part)));
        }
        text
    }

    /// The report in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("# Ablations: {}\n\n{}", self.name, preamble(self));
        for table in &self.tables {
            text += &format!("\n## {}\n\n", title(table));
            text += &pipes(&figures(table));
            text.push('\n');
            text += &pipes(&differences(table));
            text.push('\n');
            for row in &table.rows {
                let mut settings = row.settings.clone();
                if let Some(warm) = row.warm_start {
                    settings.push(format!("begins with `{}` of the same seed", warm.from));
                }
                let shown = settings.iter().map(|setting| code(setting)).collect::<Vec<_>>();
                text += &format!("- {}: {}\n", row.name, shown.join(", "));
            }
        }
        text
    }

    /// The figures of the report with all their digits: a line for each row and slice of the test,
    /// with the differences to its first baseline and to its twin.
    pub fn csv(&self) -> String {
        let mut header = words(&["table", "row", "shuffled", "slice", "impressions", "seeds"]);
        for metric in ["gauc", "auc", "logloss"] {
            header.extend([format!("{metric}_mean"), format!("{metric}_std")]);
        }
        for to in ["difference", "twin"] {
            header.push(format!("{to}_to"));
            for metric in ["gauc", "auc"] {
                header.extend(["mean", "low", "high"].map(|end| format!("{to}_{metric}_{end}")));
            }
        }
        header.extend(words(&["paper_gauc", "paper_auc", "seconds"]));
        let mut lines = vec![header];
        for table in &self.tables {
            for row in &table.rows {
                lines.extend(csv_lines(self, table, row));
            }
        }
        let field = |cell: &String| {
            let quoted = cell.contains([',', '"', '\n']);
            if quoted { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.clone() }
        };
        let line =
            |cells: &Vec<String>| cells.iter().map(field).collect::<Vec<_>>().join(",") + "\n";
        lines.iter().map(line).collect()
    }
}

/// A table of words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cells {
    /// A name for each column.
    pub header: Vec<String>,
    /// Rows of as many cells.
    pub rows: Vec<Vec<String>>,
}

/// The metrics of every row.
pub fn figures(table: &TableReport) -> Cells {
    let mut header = words(&["row", "GAUC", "AUC", "log loss"]);
    let slices = table.rows.first().map_or(&[][..], |row| &row.slices);
    header.extend(slices.iter().map(|slice| format!("AUC, {}", slice.name)));
    header.extend(words(&["paper: GAUC", "paper: AUC", "seconds"]));
    let row = |row: &RowReport| {
        let mut cells = vec![row.name.clone()];
        cells.extend([&row.gauc, &row.auc, &row.logloss].map(spread));
        cells.extend(row.slices.iter().map(|slice| spread(&slice.auc)));
        cells.extend([row.paper.gauc, row.paper.auc].map(|value| number(value, "")));
        cells.push(row.seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.0}")));
        cells
    };
    Cells { header, rows: table.rows.iter().map(row).collect() }
}

/// The differences between rows, in all of the test and in its slices.
pub fn differences(table: &TableReport) -> Cells {
    let header = words(&["difference", "of", "GAUC", "AUC", "paper: GAUC", "paper: AUC"]);
    let mut rows = Vec::new();
    for row in &table.rows {
        for difference in differences_of(row) {
            let name = format!("{} over {}", row.name, difference.to);
            let [gauc, auc] = [difference.paper.gauc, difference.paper.auc].map(signed);
            let SliceDifference { gauc: g, auc: a, .. } = all(difference);
            rows.push(vec![name.clone(), "all".to_owned(), interval(g), interval(a), gauc, auc]);
            for (slice, figures) in difference.slices.iter().zip(&row.slices) {
                if figures.impressions == 0 {
                    continue;
                }
                let cells = [interval(slice.gauc), interval(slice.auc)];
                let [gauc, auc] = cells;
                let none = || "-".to_owned();
                rows.push(vec![name.clone(), slice.name.clone(), gauc, auc, none(), none()]);
            }
        }
    }
    Cells { header, rows }
}

/// A table's title with the paper's table or figure.
pub fn title(table: &TableReport) -> String {
    let paper =
        table.paper.as_ref().map_or(String::new(), |paper| format!(", the paper's {paper}"));
    format!("{} ({}{paper})", table.title, table.name)
}

/// Dataset, settings, seeds and method of all tables.
pub fn preamble(report: &Report) -> String {
    let counts = &report.dataset.counts;
    let encoder = report.dataset.encoder.as_ref();
    let encoder = encoder.map_or(String::new(), |name| format!("; pictures encoded by {name}"));
    let slice =
        |slice: &SliceFigures| format!("{} of {}", thousands(slice.impressions), slice.name);
    let slices: Vec<String> = report.dataset.slices.iter().skip(1).map(slice).collect();
    let settings: Vec<String> = report.settings.iter().map(|setting| code(setting)).collect();
    let settings =
        if settings.is_empty() { "the defaults".to_owned() } else { settings.join(", ") };
    let seeds: Vec<String> = report.seeds.iter().map(u64::to_string).collect();
    let done = if report.trained == report.trainings {
        String::new()
    } else {
        format!(
            "\n**{} of {} trainings are done**; figures are of those.\n",
            report.trained, report.trainings
        )
    };
    format!(
        "{} training and {} test impressions, {} users ({} in the test), {} items, {:.1} behaviors per \
         impression{encoder}. Test impressions: {}. Cold items are not shown in training, rare ones fewer than \
         10 times.\n\n\
         Settings of all rows: {settings}. Seeds: {}.\n\n\
         Figures are mean ± standard deviation over seeds. A difference is the mean over seeds, in brackets the \
         middle 95 % of {} bootstrap draws of the test's users, the same for both rows: the spread over \
         users, not over seeds; of fewer than ten users there are none. Shuffled rows see each picture name with another name's \
         picture. The paper's figures are of its own data.\n{done}",
        thousands(counts.train),
        thousands(counts.test),
        thousands(counts.users),
        thousands(report.dataset.test_users),
        thousands(counts.items),
        counts.behaviors_mean,
        slices.join(", "),
        seeds.join(", "),
        thousands(report.bootstrap.replicates as u64),
    )
}

fn csv_lines(report: &Report, table: &TableReport, row: &RowReport) -> Vec<Vec<String>> {
    let exact = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    let mut lines = Vec::new();
    for (at, figures) in report.dataset.slices.iter().enumerate() {
        let spreads = match at.checked_sub(1).map(|at| &row.slices[at]) {
            None => [&row.gauc, &row.auc, &row.logloss],
            Some(slice) => [&slice.gauc, &slice.auc, &slice.logloss],
        };
        let mut cells = vec![table.name.clone(), row.name.clone(), row.shuffled.to_string()];
        cells.push(figures.name.clone());
        cells.extend([figures.impressions.to_string(), row.seeds.len().to_string()]);
        cells.extend(spreads.iter().flat_map(|spread| [exact(spread.mean), exact(spread.std)]));
        for difference in [&row.difference, &row.twin_difference] {
            let of = difference.as_ref().map(|difference| match at.checked_sub(1) {
                None => all(difference),
                Some(at) => difference.slices[at].clone(),
            });
            cells.push(
                difference.as_ref().map_or(String::new(), |difference| difference.to.clone()),
            );
            for interval in [of.as_ref().and_then(|of| of.gauc), of.as_ref().and_then(|of| of.auc)]
            {
                cells.extend([
                    exact(interval.map(|interval| interval.mean)),
                    exact(interval.and_then(|interval| interval.low)),
                    exact(interval.and_then(|interval| interval.high)),
                ]);
            }
        }
        let paper = if at == 0 { [row.paper.gauc, row.paper.auc] } else { [None; 2] };
        cells.extend(paper.map(exact));
        cells.push(exact(row.seconds));
        lines.push(cells);
    }
    lines
}

/// Every difference of a row, the one that matters first.
fn differences_of(row: &RowReport) -> impl Iterator<Item = &Difference> {
    row.difference.iter().chain(&row.twin_difference).chain(&row.further_differences)
}

/// A difference in all of the test as one in a slice of it.
fn all(difference: &Difference) -> SliceDifference {
    SliceDifference { name: "all".to_owned(), gauc: difference.gauc, auc: difference.auc }
}

/// A table in Markdown.
pub fn pipes(cells: &Cells) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rows: String = cells.rows.iter().map(|row| line(row)).collect();
    format!("{}|{}\n{rows}", line(&cells.header), "---|".repeat(cells.header.len()))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A setting as code; words stay words.
fn code(setting: &str) -> String {
    if setting.contains('=') { format!("`{setting}`") } else { setting.to_owned() }
}

/// Mean and standard deviation, such as `0.6260 ± 0.0002`.
fn spread(spread: &Spread) -> String {
    let std = spread.std.map_or(String::new(), |std| format!(" ± {std:.4}"));
    number(spread.mean, &std)
}

/// Mean and 95 % interval, such as `+0.0055 [+0.0051, +0.0059]`.
pub fn interval(interval: Option<Interval>) -> String {
    let Some(Interval { mean, low, high }) = interval else { return "-".to_owned() };
    let ends = low.zip(high).map(|(low, high)| format!(" [{low:+.4}, {high:+.4}]"));
    format!("{mean:+.4}{}", ends.unwrap_or_default())
}

fn number(value: Option<f64>, end: &str) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.4}{end}"))
}

/// A difference with its sign and four decimals; a dash where there is none.
fn signed(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:+.4}"))
}

/// A count with thousands separated.
pub fn thousands(value: u64) -> String {
    match value {
        0..1000 => value.to_string(),
        _ => format!("{},{:03}", thousands(value / 1000), value % 1000),
    }
}
