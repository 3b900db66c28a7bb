//! The report as tables.

use std::path::Path;

use ams_market::{Estimate, Metric, Report};

use crate::output::{count, table};

fn percent(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{:+.1} %", 100.0 * value))
}

fn share(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{:.1} %", 100.0 * value))
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
}

/// A lift with its interval.
fn interval(estimate: Option<Estimate>) -> String {
    match estimate {
        None => "-".to_owned(),
        Some(Estimate { value, low: Some(low), high: Some(high) }) => {
            format!("{:+.1} % [{:+.1}, {:+.1}]", 100.0 * value, 100.0 * low, 100.0 * high)
        }
        Some(Estimate { value, .. }) => percent(Some(value)),
    }
}

fn name(metric: Metric) -> &'static str {
    match metric {
        Metric::Ctr => "CTR",
        Metric::Ecpm => "eCPM",
        Metric::Gpm => "GPM",
        Metric::Revenue => "revenue",
        Metric::ColdCtr => "cold CTR",
        Metric::ColdShare => "cold share",
    }
}

/// The whole report for people; `file` has more of it.
pub(super) fn text(report: &Report, file: &Path) -> String {
    let [a, b] = &report.variants;
    let seeds = report.seeds.len();
    let views = count(report.seeds.iter().map(|seed| seed.page_views).sum());
    format!(
        "A is {a}, B is {b}; {seeds} seeds, {views} page views\n\n{}\n{}\n{}{}{}\n",
        lifts(report),
        variants(report),
        same(report),
        offline(report),
        file.display()
    )
}

/// Measured and true lifts. Of one seed the intervals are over its users and models.
fn lifts(report: &Report) -> String {
    let mut rows = Vec::new();
    for of in &report.over_seeds {
        let single = match &report.seeds[..] {
            [seed] => seed.designs.iter().find(|it| it.design == of.design),
            _ => None,
        };
        let (measured, bias) = match single {
            Some(design) => (design.lifts[&of.metric].measured, design.lifts[&of.metric].bias),
            None => (of.measured, of.bias),
        };
        rows.push(vec![
            of.design.as_str().to_owned(),
            name(of.metric).to_owned(),
            percent(of.truth.map(|it| it.value)),
            interval(measured),
            interval(bias),
            format!("{} of {}", of.covered, of.of),
            format!("{} of {}", of.covered_over_users, of.of),
        ]);
    }
    let header =
        ["B over A", "metric", "true lift", "measured lift", "bias", "covers", "over users"];
    table(&header, &rows)
}

/// What the variants showed, in the first seed.
fn variants(report: &Report) -> String {
    let Some(seed) = report.seeds.first() else { return String::new() };
    let row = |of: &ams_market::VariantReport| {
        let happened = |metric: Metric| of.happened[&metric];
        vec![
            of.world.clone(),
            of.variant.to_owned(),
            share(happened(Metric::Ctr)),
            number(happened(Metric::Ecpm), 1),
            number(happened(Metric::Gpm), 1),
            share(happened(Metric::ColdShare)),
            share(happened(Metric::ColdCtr)),
            format!("{} of {}", of.items.known, of.items.new),
            number(of.items.days_until_known, 2),
            share(Some(of.items.coverage)),
            number(of.items.gini, 3),
            share(of.items.top_share),
            number(of.pages.diversity, 3),
            share(of.pages.regret),
            number(of.pages.ranked_calibration, 2),
            number(of.pages.shown_calibration, 2),
        ]
    };
    let rows: Vec<Vec<String>> = seed.variants.iter().map(row).collect();
    let header = [
        "world",
        "",
        "CTR",
        "eCPM",
        "GPM",
        "cold share",
        "cold CTR",
        "known",
        "after days",
        "coverage",
        "Gini",
        "top 1 %",
        "diversity",
        "regret",
        "ranked p/t",
        "shown p/t",
    ];
    table(&header, &rows)
}

/// The difference between halves that are both on A.
fn same(report: &Report) -> String {
    let inside =
        report.seeds.iter().filter(|seed| seed.a_a[&Metric::Ctr].is_some_and(|it| it.covers(0.0)));
    let (inside, seeds) = (inside.count(), report.seeds.len());
    format!(
        "A/A: the CTR of two halves on A differs by 0 within its interval in {inside} of {seeds} seeds\n"
    )
}

/// How offline metrics go with the true lift.
fn offline(report: &Report) -> String {
    if report.offline.is_empty() {
        return String::new();
    }
    let row = |of: &ams_market::Offline| {
        vec![
            of.metric.clone(),
            of.world.clone(),
            of.days.to_string(),
            number(of.rank_correlation, 2),
        ]
    };
    let rows: Vec<Vec<String>> = report.offline.iter().map(row).collect();
    let header = ["B's less A's", "measured in", "days", "rank correlation with the true lift"];
    format!("\n{}\n", table(&header, &rows))
}
