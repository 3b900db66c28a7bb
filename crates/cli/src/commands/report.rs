//! `ams report`: what runs found, as one page to read.

use std::path::{Path, PathBuf};

use ams_data::staging::write_whole;
use ams_location::Locations;
use ams_report::{Frozen, Runs, Ways, html, markdown, report};
use serde::Serialize;

use crate::commands::publish::frozen;
use crate::failure::{Failure, Mistake};
use crate::launch::threads;
use crate::output::{Output, bytes};
use crate::threads::thread_count;

/// Draws of test users for the intervals, unless given.
pub(crate) const DRAWS: usize = 1000;

/// Page views that are explained, unless given.
pub(crate) const PAGES: usize = 3;

/// Write a page about runs: curves, metrics with intervals, the worth of pictures, calibration,
/// traffic, and why a model ranks as it does. It needs no network to be read.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Run folders, as `ams train` writes them; several are compared.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// The file to write; `report.html` or `report.md` unless given.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The form of the page; by the ending of `--out` unless given.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The folder that the names of pictures are relative to, to show small copies of some.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Page views of the test that are explained; with 0 no model is opened.
    #[arg(long, value_name = "N", default_value_t = PAGES as u8, value_parser = clap::value_parser!(u8).range(0..=8))]
    pages: u8,
    /// Draws of test users for the intervals.
    #[arg(long, value_name = "N", default_value_t = DRAWS as u32, value_parser = clap::value_parser!(u32).range(40..=100_000))]
    bootstrap: u32,
    /// Threads; as many as there are cores unless given. The page does not depend on it.
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// One file for a browser.
    Html,
    /// The same numbers without pictures.
    Md,
}

/// What is wanted of a page.
pub(crate) struct Wanted {
    /// The folder of pictures.
    pub images: Option<PathBuf>,
    /// Page views that are explained.
    pub pages: usize,
    /// Bootstrap draws of users for an interval.
    pub draws: usize,
    pub threads: usize,
    /// Whether it is Markdown.
    pub markdown: bool,
}

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Written {
    report: PathBuf,
    bytes: u64,
    runs: usize,
}

pub(crate) fn run(
    arguments: Arguments,
    locations: &Locations,
    output: Output,
) -> Result<(), Failure> {
    let ends_in_md = |path: &Path| path.extension().is_some_and(|ending| ending == "md");
    let markdown = match (arguments.format, &arguments.out) {
        (Some(format), _) => format == Format::Md,
        (None, out) => out.as_deref().is_some_and(ends_in_md),
    };
    let name = if markdown { "report.md" } else { "report.html" };
    let out = arguments.out.unwrap_or_else(|| PathBuf::from(name));
    let runs = arguments.runs.iter().map(|run| Ok(locations.input(run)?));
    let runs = runs.collect::<Result<Vec<PathBuf>, Failure>>()?;
    let wanted = Wanted {
        images: arguments.images.map(|images| locations.input(&images)).transpose()?,
        pages: arguments.pages.into(),
        draws: arguments.bootstrap as usize,
        threads: threads(arguments.threads),
        markdown,
    };
    let place = locations.destination(&out, true)?;
    let bytes_written = write_report(&runs, &wanted, place.local())?;
    place.publish()?;
    let written = Written { report: out, bytes: bytes_written, runs: runs.len() };
    output.finish(&written, || {
        format!(
            "{}: {} about {} runs\n",
            written.report.display(),
            bytes(bytes_written as f64),
            runs.len()
        )
    });
    Ok(())
}

/// Writes a page about `runs` to `path`; its size in bytes.
pub(crate) fn write_report(runs: &[PathBuf], wanted: &Wanted, path: &Path) -> Result<u64, Failure> {
    let freeze = |trainer: &mut ams_train::Trainer| match frozen(trainer) {
        Ok((folder, model)) => Ok(Frozen { folder, model }),
        Err(Failure::User(Mistake { what, .. }) | Failure::Elsewhere(Mistake { what, .. })) => {
            Err(what)
        }
        Err(Failure::Interrupted) => Err("interrupted".to_owned()),
    };
    let Wanted { images, pages, draws, threads, markdown: as_markdown } = wanted;
    let ways = Ways { threads: *threads, pages: *pages, images: images.clone(), freeze: &freeze };
    let document = report(&Runs::gather(runs, &ways)?, *draws, *threads);
    let text = if *as_markdown { markdown(&document) } else { html(&document) };
    let size = text.len() as u64;
    write_whole(path, text)?;
    Ok(size)
}
