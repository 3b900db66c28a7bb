//! `ams ablate`: the paper's tables on a dataset, with differences and how far they can be trusted.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use ams_data::staging::write_whole;
use ams_location::Locations;
use ams_train::ablate::{Ablation, Report, Request, Twins};
use ams_train::run::Start;
use ams_train::{Config, Job};

use crate::commands::train::train;
use crate::config_file;
use crate::failure::Failure;
use crate::interrupt::stop_on_interrupt;
use crate::launch::{Launch, threads};
use crate::locations::{here, localize};
use crate::output::{Output, metric, table};
use crate::threads::thread_count;

/// Train the paper's tables on a dataset and compare: every row is the configuration with a few
/// other settings. Goes on where it was interrupted.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configuration, a TOML file.
    config: PathBuf,
    /// Overrides one setting of all rows, such as `train.epochs=3`; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Which tables, of `arms`, `aggregators`, `base`, `warm-up`, `pre-rank` and `small`; all
    /// unless given.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    tables: Vec<String>,
    /// Which rows also get a twin with shuffled images: all that see images, those of `arms` and
    /// `small`, or none.
    #[arg(long, value_enum, default_value_t = TwinsOf::Usual)]
    twins: TwinsOf,
    /// How many seeds every row is trained with, from the configuration's on.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// The folder of runs and results; `<runs>/<name>-ablate` of the configuration unless given.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Threads; as many as there are cores unless given. The result does not depend on it.
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
    /// Draws of test users for the intervals of differences.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(40..=100_000))]
    bootstrap: u32,
    /// Writes the tables as Markdown to this file too.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Writes the tables as CSV to this file too.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum TwinsOf {
    All,
    Usual,
    None,
}

pub(crate) fn run(
    arguments: Arguments,
    launch: &Launch,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    launch.one_process("ams ablate")?;
    for (what, path) in
        [("--out", &arguments.out), ("--markdown", &arguments.markdown), ("--csv", &arguments.csv)]
    {
        if let Some(path) = path {
            here(
                what,
                path,
                "an ablation continues from the files there; copy its results at the end",
            )?;
        }
    }
    let request = request(&arguments);
    let path = &locations.input(&arguments.config)?;
    // Read once: a file that is edited meanwhile does not change half of the rows.
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::user(format!("{}: {error}", path.display())))?;
    let configure = |settings: &[String]| {
        let sets = [&arguments.set, settings].concat();
        let mut config: Config = config_file::parse(&path.display().to_string(), &text, &sets)?;
        if arguments.out.is_none() {
            here("runs", &config.runs, "an ablation continues from the files there; name --out")?;
        }
        localize(&mut config, locations)?;
        Ok::<_, Failure>(config)
    };
    let mut ablation = Ablation::open(&request, &configure)?;
    let mut report = write(&ablation, &arguments)?;
    let stop = stop_on_interrupt(0, output)?;
    let threads = threads(arguments.threads);
    let mut interrupted = false;
    while let Some(next) = ablation.next()?.cloned() {
        if stop.load(Ordering::Relaxed) {
            interrupted = true;
            break;
        }
        let trained = train(&next.config, Start::Auto, Job::solo(threads), &stop, None, output)?;
        if !trained.finished {
            interrupted = true;
            break;
        }
        let gauc = ablation.finish(&next.name, &trained, Job::solo(threads))?;
        let (trainings, done) = ablation.trainings();
        let rows: Vec<String> = next.rows.iter().map(|row| row.join(": ")).collect();
        eprintln!(
            "{done:>3} of {trainings}  {}  seed {}  GAUC {}  {:.1} s",
            rows.join("; "),
            next.seed,
            metric(gauc),
            trained.seconds
        );
        report = write(&ablation, &arguments)?;
    }
    output.finish(&report, || {
        let (trainings, trained) = ablation.trainings();
        let out = ablation.out().display();
        let page = page(ablation.out());
        let done = format!(
            "{trained} of {trainings} trainings are done; all of it is in {out}\nTo read about it: {}\n",
            page.display()
        );
        report.text(table) + &done
    });
    if interrupted { Err(Failure::Interrupted) } else { Ok(()) }
}

fn request(arguments: &Arguments) -> Request {
    Request {
        tables: arguments.tables.clone(),
        twins: match arguments.twins {
            TwinsOf::All => Twins::All,
            TwinsOf::Usual => Twins::Usual,
            TwinsOf::None => Twins::None,
        },
        seeds: arguments.seeds,
        out: arguments.out.clone(),
        replicates: arguments.bootstrap as usize,
    }
}

/// Writes what is known so far wherever it is wanted.
fn write(ablation: &Ablation, arguments: &Arguments) -> Result<Report, Failure> {
    let report = ablation.report();
    ablation.write(&report)?;
    let document = ams_report::ablation(&report, &ablation.records()?);
    write_whole(&page(ablation.out()), ams_report::html(&document))?;
    let copy = |path: &Option<PathBuf>, text: fn(&Report) -> String| match path {
        Some(path) => write_whole(path, text(&report)),
        None => Ok(()),
    };
    copy(&arguments.markdown, Report::markdown)?;
    copy(&arguments.csv, Report::csv)?;
    Ok(report)
}

/// The page about an ablation in the folder `out`.
fn page(out: &Path) -> PathBuf {
    out.join("report.html")
}
