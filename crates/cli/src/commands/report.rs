//! `ams report`: what runs found, as one page to read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ams_data::staging::write_whole;
use ams_location::Locations;
use ams_report::{Document, Frozen, Runs, Ways, experiment, html, markdown, report};
use ams_train::run::Places;
use serde::Serialize;

use crate::browser;
use crate::commands::publish::frozen;
use crate::failure::{Failure, Mistake};
use crate::launch::threads;
use crate::locations::{places, run_here};
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
    #[arg(required_unless_present = "experiment")]
    runs: Vec<PathBuf>,
    /// Write about an experiment instead: the folder that `ams simulate` wrote, or its report.json;
    /// several that differ in their seeds alone are one experiment.
    #[arg(long, value_name = "OUT", num_args = 1.., conflicts_with = "runs")]
    experiment: Vec<PathBuf>,
    /// The file to write; `report.html`, `report.md` or `report.png` unless given.
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
pub(crate) enum Format {
    /// One file for a browser.
    Html,
    /// The same numbers without pictures.
    Md,
    /// The page as a picture, drawn by a Chromium that is installed.
    Png,
}

impl Format {
    /// The form that the ending of a file's name stands for.
    fn of(out: Option<&Path>) -> Format {
        match out.and_then(|out| out.extension()?.to_str()) {
            Some("md") => Format::Md,
            Some("png") => Format::Png,
            _ => Format::Html,
        }
    }
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
    /// Where things are that configurations name.
    pub places: Arc<dyn Places>,
    /// The form of the page.
    pub format: Format,
}

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Written {
    report: PathBuf,
    bytes: u64,
    runs: usize,
}

/// The page about what `ams simulate` found: each of `paths` is its folder, or the report in it.
fn about_experiment(paths: &[PathBuf]) -> Result<Document, Failure> {
    let read = |path: &PathBuf| {
        let file = if path.is_dir() { path.join("report.json") } else { path.clone() };
        let json = std::fs::read_to_string(&file).map_err(ams_data::Error::io(&file))?;
        ams_market::Report::from_json(&json)
            .map_err(|what| Failure::user(format!("{}: {what}", file.display())))
    };
    let reports = paths.iter().map(read).collect::<Result<Vec<_>, Failure>>()?;
    let all = ams_market::Report::of_all(reports)
        .map_err(|what| Failure::user(format!("--experiment: {what}")))?;
    Ok(experiment(&all))
}

pub(crate) fn run(
    arguments: Arguments,
    locations: &Locations,
    output: Output,
) -> Result<(), Failure> {
    let format = arguments.format.unwrap_or_else(|| Format::of(arguments.out.as_deref()));
    let name = match format {
        Format::Html => "report.html",
        Format::Md => "report.md",
        Format::Png => "report.png",
    };
    let out = arguments.out.unwrap_or_else(|| PathBuf::from(name));
    let reports = arguments.experiment.iter().map(|path| Ok(locations.input(path)?));
    let reports = reports.collect::<Result<Vec<PathBuf>, Failure>>()?;
    let of_experiment = match &reports[..] {
        [] => None,
        paths => Some(about_experiment(paths)?),
    };
    let runs = arguments.runs.iter().map(|run| Ok(run_here(locations, run)?));
    let runs = runs.collect::<Result<Vec<PathBuf>, Failure>>()?;
    let wanted = Wanted {
        images: arguments.images.map(|images| locations.input(&images)).transpose()?,
        pages: arguments.pages.into(),
        draws: arguments.bootstrap as usize,
        threads: threads(arguments.threads),
        places: places(locations),
        format,
    };
    let place = locations.destination(&out, true)?;
    let bytes_written = match &of_experiment {
        Some(document) => write_document(document, format, place.local())?,
        None => write_report(&runs, &wanted, place.local())?,
    };
    place.publish()?;
    let written = Written { report: out, bytes: bytes_written, runs: runs.len() };
    output.finish(&written, || {
        let about = match &of_experiment {
            Some(_) => "an experiment".to_owned(),
            None => format!("{} runs", runs.len()),
        };
        format!("{}: {} about {about}\n", written.report.display(), bytes(bytes_written as f64))
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
        Err(Failure::Refused(what)) => Err(what),
        Err(Failure::Interrupted) => Err("interrupted".to_owned()),
    };
    let Wanted { images, pages, draws, threads, places, format } = wanted;
    let ways = Ways {
        threads: *threads,
        places: Arc::clone(places),
        pages: *pages,
        images: images.clone(),
        freeze: &freeze,
    };
    write_document(&report(&Runs::gather(runs, &ways)?, *draws, *threads), *format, path)
}

/// Writes a page to `path`; its size in bytes.
fn write_document(document: &Document, format: Format, path: &Path) -> Result<u64, Failure> {
    match format {
        Format::Html => write_whole(path, html(document))?,
        Format::Md => write_whole(path, markdown(document))?,
        Format::Png => browser::draw(&html(document), path)?,
    }
    Ok(std::fs::metadata(path).map_err(ams_data::Error::io(path))?.len())
}
