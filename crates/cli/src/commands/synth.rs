//! `ams synth`: a shop whose customers we know.

use std::path::PathBuf;

use ams_data::synth::{Progress, ShopConfig, ShopReport, Taste, generate};
use ams_location::Locations;

use crate::failure::Failure;
use crate::output::{BAR, Output, count, metric, table};

/// Generate a synthetic shop: drawn pictures, items, page views and clicks of several days.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder of the new shop.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How large; the other flags change single numbers of it.
    #[arg(long, value_enum, default_value_t = Size::Default)]
    size: Size,
    /// Seed from which everything in the shop is drawn.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Number of users; that of --size unless given.
    #[arg(long, value_name = "N")]
    users: Option<usize>,
    /// How many items, each with a picture.
    #[arg(long, value_name = "N")]
    items: Option<usize>,
    /// How many days; the last one is the test.
    #[arg(long, value_name = "N")]
    days: Option<usize>,
    /// Page views per user and day.
    #[arg(long, value_name = "N")]
    pages_per_day: Option<f64>,
    /// Items per page view.
    #[arg(long, value_name = "N")]
    items_per_page: Option<usize>,
    /// Share of the test day's impressions that show items never shown before.
    #[arg(long, value_name = "SHARE")]
    cold_share: Option<f64>,
    /// Days before the test day on which a passing interest fills most pages, so that only old
    /// clicks show the lasting taste.
    #[arg(long, value_name = "N")]
    passing_days: Option<usize>,
    /// Probability, on each day after the first, that a user's taste in looks is drawn anew.
    #[arg(long, value_name = "PROBABILITY")]
    taste_drift: Option<f64>,
    /// Share of the items that are new on each day after the first.
    #[arg(long, value_name = "SHARE")]
    new_per_day: Option<f64>,
    /// Share of the items that are shown no longer from each day on.
    #[arg(long, value_name = "SHARE")]
    leaving_per_day: Option<f64>,
    /// The taste of users: `visual` depends on the pictures, `none` does not (the control shop).
    #[arg(long, value_enum)]
    taste: Option<TasteName>,
}

/// Named sizes of a shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Size {
    /// A shop for tests, generated within seconds.
    Tiny,
    /// The shop of `ams demo`.
    Default,
}

impl Size {
    /// The shop of this size.
    pub(crate) fn config(self) -> ShopConfig {
        match self {
            Size::Tiny => ShopConfig::tiny(),
            Size::Default => ShopConfig::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum TasteName {
    Visual,
    None,
}

pub(crate) fn run(
    arguments: Arguments,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    let base = arguments.size.config();
    let config = ShopConfig {
        seed: arguments.seed,
        users: arguments.users.unwrap_or(base.users),
        items: arguments.items.unwrap_or(base.items),
        days: arguments.days.unwrap_or(base.days),
        pages_per_day: arguments.pages_per_day.unwrap_or(base.pages_per_day),
        items_per_page: arguments.items_per_page.unwrap_or(base.items_per_page),
        cold_share: arguments.cold_share.unwrap_or(base.cold_share),
        passing_days: arguments.passing_days.unwrap_or(base.passing_days),
        taste_drift: arguments.taste_drift.unwrap_or(base.taste_drift),
        new_per_day: arguments.new_per_day.unwrap_or(base.new_per_day),
        leaving_per_day: arguments.leaving_per_day.unwrap_or(base.leaving_per_day),
        taste: arguments.taste.map_or(base.taste, |taste| match taste {
            TasteName::Visual => Taste::Visual,
            TasteName::None => Taste::None,
        }),
        ..base
    };
    let place = locations.destination(&arguments.out, false)?;
    let report = synth(&config, place.local(), output)?;
    place.publish()?;
    output.finish(&report, || text(&report, &arguments.out));
    Ok(())
}

/// Generates a shop with a progress bar.
pub(crate) fn synth(
    config: &ShopConfig,
    out: &std::path::Path,
    output: Output<'_>,
) -> Result<ShopReport, Failure> {
    let bar = output.bar("draw", 0, BAR);
    let report = generate(config, out, &mut |progress| {
        let (what, done, total) = match progress {
            Progress::Pictures { done, total } => ("draw", done, total),
            Progress::Days { done, total } => ("days", done, total),
        };
        bar.set_prefix(what);
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    Ok(report?)
}

fn text(report: &ShopReport, out: &std::path::Path) -> String {
    let bayes = &report.bayes;
    let rows = [
        ("users", count(report.users as u64)),
        ("items", count(report.items as u64)),
        ("impressions", count(report.events)),
        ("clicks", count(report.clicks)),
        ("pictures", count(report.images as u64)),
        ("test from", format!("{} (unix seconds)", report.test_from)),
        ("test impressions", count(report.test_events)),
        ("of items never shown before", count(report.cold_events)),
        ("best possible AUC", metric(bayes.auc)),
        ("best possible GAUC", metric(bayes.gauc)),
        ("best possible AUC, cold items", metric(bayes.cold_auc)),
        ("best possible GAUC, cold items", metric(bayes.cold_gauc)),
    ];
    let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
    format!("{}\n{}", out.display(), table(&["", ""], &rows).trim_start())
}
