//! The report of a simulated experiment: lifts beside the true ones, what the variants showed, and
//! which offline number went with the truth.

use std::fmt::Display;

use ams_market::{Compared, Design, Estimate, Metric, Report, SeedReport, VariantReport};
use ams_model::metrics::Interval;
use ams_train::ablate::{Cells, thousands};

use crate::document::{Block, Chart, Curve, Document, Marks, Point, RowMark, Section};

/// The report of what `ams simulate` found.
pub fn experiment(report: &Report) -> Document {
    let [a, b] = &report.variants;
    let views = report.seeds.iter().map(|seed| seed.page_views).sum();
    let count = report.seeds.len();
    let over = match count {
        1 => "One shop was simulated, so intervals are over its users and its models.".to_owned(),
        _ => format!("{count} shops were simulated; intervals are by Student's t over them."),
    };
    let lead = vec![
        format!("A is {a}, B is {b}: {} page views, all worlds together.", thousands(views)),
        over,
        "The true lift is that of all users on B over all users on A, by the true probabilities of \
         what was shown."
            .to_owned(),
    ];
    let sections = [
        section("lifts", "Lifts beside the truth", lifts(report)),
        section("luck", "Whether the intervals have the truth", luck(report)),
        section("days", "Day by day", days(report)),
        section("variants", "What the variants earned", earned(report)),
        section("cold", "New items", cold(report)),
        section("concentration", "Which items are shown", concentration(report)),
        section("calibration", "Calibration of what is shown", calibration(report)),
        section("offline", "Which offline number to trust", offline(report)),
        section("settings", "What was simulated", settings(report)),
    ];
    let title = format!("Experiment: {b} against {a}");
    Document { title, lead, sections: sections.into_iter().flatten().collect() }
}

fn section(id: &str, title: &str, blocks: Vec<Block>) -> Option<Section> {
    let section = Section { id: id.to_owned(), title: title.to_owned(), blocks };
    (!section.blocks.is_empty()).then_some(section)
}

fn text(words: &str) -> Block {
    Block::Text(words.to_owned())
}

fn header<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).to_vec()
}

fn name(metric: Metric) -> &'static str {
    match metric {
        Metric::Ctr => "CTR",
        Metric::Ecpm => "eCPM",
        Metric::Gpm => "GPM",
        Metric::Revenue => "revenue a user",
        Metric::ColdCtr => "CTR of new items",
        Metric::ColdShare => "share of new items",
    }
}

const METRICS: [Metric; 6] =
    [Metric::Ctr, Metric::Ecpm, Metric::Gpm, Metric::Revenue, Metric::ColdCtr, Metric::ColdShare];

/// A dash where there is nothing.
fn or_dash(of: Option<impl Display>) -> String {
    of.map_or("-".to_owned(), |it| it.to_string())
}

fn signed(value: Option<f64>) -> String {
    or_dash(value.map(|value| format!("{:+.1} %", 100.0 * value)))
}

fn share(value: Option<f64>) -> String {
    or_dash(value.map(|value| format!("{:.1} %", 100.0 * value)))
}

fn number(value: Option<f64>, digits: usize) -> String {
    or_dash(value.map(|value| format!("{value:.digits$}")))
}

fn with_interval(estimate: Option<Estimate>) -> String {
    let Some(Estimate { value, low, high }) = estimate else { return "-".to_owned() };
    let ends = low.zip(high);
    let ends = ends.map(|(low, high)| format!(" [{:+.1}, {:+.1}]", 100.0 * low, 100.0 * high));
    signed(Some(value)) + &ends.unwrap_or_default()
}

/// The mean of those that there are.
fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values: Vec<f64> = values.flatten().collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// What a design says of a metric: over seeds, or over the users of the only one.
struct Found {
    truth: Option<Estimate>,
    measured: Option<Estimate>,
    bias: Option<Estimate>,
}

fn found(report: &Report, design: Design, metric: Metric) -> Option<Found> {
    if let [seed] = &report.seeds[..] {
        let of = compared(seed, design, metric)?;
        let truth = match design {
            Design::Same => of.truth.map(|value| Estimate { value, low: None, high: None }),
            _ => seed.truth[&metric],
        };
        return Some(Found { truth, measured: of.measured, bias: of.bias });
    }
    let of = report.over_seeds.iter().find(|it| (it.design, it.metric) == (design, metric))?;
    Some(Found { truth: of.truth, measured: of.measured, bias: of.bias })
}

fn compared(seed: &SeedReport, design: Design, metric: Metric) -> Option<Compared> {
    let of = seed.designs.iter().find(|it| it.design == design)?;
    of.lifts.get(&metric).copied()
}

/// The experiments that were made, without A against A.
fn designs(report: &Report) -> impl Iterator<Item = Design> {
    report.config.designs.iter().copied().filter(|it| *it != Design::Same)
}

fn lifts(report: &Report) -> Vec<Block> {
    let interval = |estimate: Estimate| {
        let percent = |value: f64| 100.0 * value;
        let Estimate { value, low, high } = estimate;
        Interval { mean: percent(value), low: low.map(percent), high: high.map(percent) }
    };
    let (mut charts, mut rows) = (Vec::new(), Vec::new());
    for design in designs(report) {
        let mut marks = Vec::new();
        for metric in METRICS {
            let Some(of) = found(report, design, metric) else { continue };
            for (what, estimate) in [("true", of.truth), ("measured", of.measured)] {
                let name = format!("{}, {what}", name(metric));
                // The intervals of new items would hide the others.
                if !matches!(metric, Metric::ColdCtr | Metric::ColdShare | Metric::Gpm) {
                    marks.push(RowMark { name, value: estimate.map(interval) });
                }
            }
            rows.push(vec![
                design.as_str().to_owned(),
                name(metric).to_owned(),
                with_interval(of.truth),
                with_interval(of.measured),
                with_interval(of.bias),
            ]);
        }
        charts.push(Chart {
            title: format!("Lifts of B over A, {}", design.as_str()),
            x: "lift, %".to_owned(),
            y: "metric".to_owned(),
            marks: Marks::Rows { rows: marks, differences: true },
        });
    }
    if rows.is_empty() {
        return vec![Block::Note("No design was simulated, only the truth.".to_owned())];
    }
    let header = header(["design", "metric", "true lift", "measured lift", "bias of the design"]);
    vec![
        Block::Charts(charts),
        Block::Table(Cells { header, rows }),
        text(
            "The bias is that of the same users in the experiment and in the truth, by true \
             probabilities: the luck of who is in which half is not in it.",
        ),
    ]
}

/// How often intervals have the truth, and how wide they are.
fn luck(report: &Report) -> Vec<Block> {
    let mut rows = Vec::new();
    for of in &report.over_seeds {
        let wide = |of_lift: fn(&Compared) -> Option<Estimate>| {
            mean(report.seeds.iter().map(|seed| {
                let found = of_lift(&compared(seed, of.design, of.metric)?)?;
                Some(found.high? - found.low?)
            }))
        };
        let over_users = wide(|it| it.over_users);
        rows.push(vec![
            of.design.as_str().to_owned(),
            name(of.metric).to_owned(),
            format!("{} of {}", of.covered, of.of),
            // Reports of before had no interval over users beside the one that is reported.
            or_dash(over_users.map(|_| format!("{} of {}", of.covered_over_users, of.of))),
            share(wide(|it| it.measured)),
            share(over_users),
        ]);
    }
    if rows.is_empty() {
        return rows_of_halves(report);
    }
    let header =
        header(["design", "metric", "has the truth", "over users alone", "width", "of that"]);
    let mut blocks = vec![text(
        "An interval over users alone does not know that another training of the same \
         configuration is another model. The one that is reported does: it is the wider one of \
         that and an interval over the models of a variant, or over days where it has one model.",
    )];
    blocks.push(Block::Table(Cells { header, rows }));
    blocks.extend(rows_of_halves(report));
    blocks
}

/// Halves with the same models.
fn rows_of_halves(report: &Report) -> Vec<Block> {
    let of = report.seeds.iter().filter_map(|seed| seed.a_a.get(&Metric::Ctr).copied().flatten());
    let all: Vec<Estimate> = of.collect();
    let inside = all.iter().filter(|it| it.covers(0.0)).count();
    vec![Block::Text(format!(
        "Two halves of the users who are all on A, with the same models, differ in CTR by 0 within \
         the interval over users in {inside} of {} shops.",
        all.len()
    ))]
}

fn days(report: &Report) -> Vec<Block> {
    let days = report.config.days;
    let point = |day: usize, value: f64| Point { x: (day + 1) as f64, y: 100.0 * value };
    let chart = |metric: Metric| {
        let truth = |day: usize| {
            mean(report.seeds.iter().map(|seed| *seed.truth_by_day.get(day)?.get(&metric)?))
        };
        let curve = |name: &str, of: &dyn Fn(usize) -> Option<f64>| Curve {
            name: name.to_owned(),
            points: (0..days).filter_map(|day| Some(point(day, of(day)?))).collect(),
        };
        let mut curves = vec![curve("truth", &truth)];
        for design in designs(report) {
            let of_day = |day: usize| {
                mean(report.seeds.iter().map(|seed| {
                    let of = seed.designs.iter().find(|it| it.design == design)?;
                    Some((*of.days.get(day)?.get(&metric)?)?.value)
                }))
            };
            curves.push(curve(design.as_str(), &of_day));
        }
        Chart {
            title: format!("Lift of {} by day", name(metric)),
            x: "day".to_owned(),
            y: "lift, %".to_owned(),
            marks: Marks::Curves(curves),
        }
    };
    let charts = [Metric::Ctr, Metric::Ecpm, Metric::Revenue].map(chart).to_vec();
    vec![
        Block::Charts(charts),
        text(
            "On the first day the models are the same in all worlds; from the second on each has \
             learned from what its world showed. Means over shops.",
        ),
    ]
}

/// A number of a variant in a world.
type Value = fn(&VariantReport) -> Option<f64>;

/// Its mean over seeds.
type OverSeeds<'a> = dyn Fn(Value) -> Option<f64> + 'a;

/// A row of every variant in every world, of means over seeds.
fn of_variants(
    report: &Report,
    names: &[&str],
    cells: &[&dyn Fn(&OverSeeds<'_>) -> String],
) -> Block {
    let Some(first) = report.seeds.first() else { return text("No shop was simulated.") };
    let row = |of: &VariantReport| {
        let over_seeds = |value: Value| {
            mean(report.seeds.iter().map(|seed| {
                let same =
                    |it: &&VariantReport| (&it.world, &it.variant) == (&of.world, &of.variant);
                value(seed.variants.iter().find(same)?)
            }))
        };
        let world = format!("{}, {}", of.world, of.variant.to_uppercase());
        std::iter::once(world).chain(cells.iter().map(|cell| cell(&over_seeds))).collect()
    };
    let header = std::iter::once("world").chain(names.iter().copied()).map(str::to_owned);
    let rows = first.variants.iter().map(row).collect();
    Block::Table(Cells { header: header.collect(), rows })
}

fn happened(of: &VariantReport, metric: Metric) -> Option<f64> {
    of.happened.get(&metric).copied().flatten()
}

fn earned(report: &Report) -> Vec<Block> {
    vec![
        of_variants(
            report,
            &["CTR", "eCPM", "GPM", "revenue a user", "regret", "diversity"],
            &[
                &|of| share(of(|it| happened(it, Metric::Ctr))),
                &|of| number(of(|it| happened(it, Metric::Ecpm)), 1),
                &|of| number(of(|it| happened(it, Metric::Gpm)), 1),
                &|of| number(of(|it| happened(it, Metric::Revenue)), 3),
                &|of| share(of(|it| it.pages.regret)),
                &|of| number(of(|it| it.pages.diversity), 3),
            ],
        ),
        text(
            "The regret is the share of the value of the best page of the candidates, bids times true \
         probabilities, that is lost. Diversity is the mean of 1 - cosine over pairs of pictures \
         of a page.",
        ),
    ]
}

fn cold(report: &Report) -> Vec<Block> {
    let impressions = report.config.cold_impressions;
    let until = format!("median days until {impressions} impressions");
    vec![
        of_variants(
            report,
            &[
                "share of impressions",
                "CTR",
                "true CTR",
                "predicted over true",
                "new",
                "known",
                &until,
            ],
            &[
                &|of| share(of(|it| happened(it, Metric::ColdShare))),
                &|of| share(of(|it| happened(it, Metric::ColdCtr))),
                &|of| share(of(|it| it.expected.get(&Metric::ColdCtr).copied().flatten())),
                &|of| number(of(|it| it.items.cold_calibration), 2),
                &|of| number(of(|it| Some(it.items.new as f64)), 1),
                &|of| number(of(|it| Some(it.items.known as f64)), 1),
                &|of| number(of(|it| it.items.days_until_known), 2),
            ],
        ),
        Block::Text(format!(
            "An item is new in its first {} days; known once it had {impressions} impressions. The \
         median is of all new items, and missing where fewer than half became known.",
            report.config.cold_days
        )),
    ]
}

fn concentration(report: &Report) -> Vec<Block> {
    vec![of_variants(
        report,
        &[
            "coverage",
            "Gini",
            "share of the top 1 %",
            "age of items, days",
            "age of models, nights",
        ],
        &[
            &|of| share(of(|it| Some(it.items.coverage))),
            &|of| number(of(|it| it.items.gini), 3),
            &|of| share(of(|it| it.items.top_share)),
            &|of| number(of(|it| it.items.age), 2),
            &|of| number(of(|it| mean(it.versions.iter().map(|it| Some(it.age as f64)))), 2),
        ],
    )]
}

fn calibration(report: &Report) -> Vec<Block> {
    vec![
        text(
            "Predicted over true rates. What is overrated is what is shown, so those of what is \
             shown are larger than those of all candidates (winner's curse).",
        ),
        of_variants(
            report,
            &["of candidates", "of what is shown", "of new items shown"],
            &[
                &|of| number(of(|it| it.pages.ranked_calibration), 3),
                &|of| number(of(|it| it.pages.shown_calibration), 3),
                &|of| number(of(|it| it.items.cold_calibration), 3),
            ],
        ),
    ]
}

fn offline(report: &Report) -> Vec<Block> {
    let row = |of: &ams_market::Offline| {
        let (days, correlation) = (of.days.to_string(), number(of.rank_correlation, 2));
        vec![of.metric.clone(), of.world.clone(), days, correlation]
    };
    let rows: Vec<Vec<String>> = report.offline.iter().map(row).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let mark = |of: &ams_market::Offline| RowMark {
        name: format!("{}, {}", of.metric, of.world),
        value: of.rank_correlation.map(|mean| Interval { mean, low: None, high: None }),
    };
    let chart = Chart {
        title: "Rank correlation with the true lift of the day".to_owned(),
        x: "Spearman's rank correlation".to_owned(),
        y: "metric, world".to_owned(),
        marks: Marks::Rows { rows: report.offline.iter().map(mark).collect(), differences: true },
    };
    let header = header(["B's less A's", "measured in", "days", "rank correlation"]);
    vec![Block::Charts(vec![chart]), Block::Table(Cells { header, rows })]
}

fn settings(report: &Report) -> Vec<Block> {
    let text = serde_json::to_string_pretty(&report.config).expect("settings are JSON");
    vec![Block::Code { caption: "The settings of the market".to_owned(), text }]
}
