//! `ams encode`: from pictures to image features.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ams_data::catalogue::Catalogue;
use ams_data::dataset::Dataset;
use ams_fabric::{Fabric, gather};
use ams_image::RowType;
use ams_image::crew::Crew;
use ams_image::encode::{EncodeOptions, EncodeReport, Others, encode_together};
use ams_image::encoder::Encoder;
use ams_image::listing::{below, listed};
use ams_image::precomputed::{PrecomputedOptions, precomputed};
use ams_image::table::{is_parquet, unpack_pictures};
use ams_location::{Locations, Unfinished};
use serde::Serialize;
use tempfile::TempDir;

use crate::commands::encoder::EncoderArguments;
use crate::commands::train::{stop_on_interrupt, thread_count};
use crate::failure::Failure;
use crate::launch::{Launch, threads};
use crate::locations::here;
use crate::output::{BAR, Output, count};

/// Turn the pictures of a dataset's items into image features.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The dataset whose items name the pictures; without one, `--list` does, or all pictures below `--images` are meant.
    #[arg(required_unless_present = "out")]
    dataset: Option<PathBuf>,
    /// The folder the names are relative to, or a Parquet file of pictures (`struct{bytes, path}`).
    #[arg(long, value_name = "DIR", required_unless_present = "features")]
    images: Option<PathBuf>,
    /// Names of pictures instead of a dataset's: a CSV file with a column `image` or `path`, or one name a line.
    #[arg(long, value_name = "FILE", conflicts_with = "dataset")]
    list: Option<PathBuf>,
    /// The column of `--list` that holds the names.
    #[arg(long, value_name = "COLUMN", requires = "list")]
    list_column: Option<String>,
    /// The feature store; `images` inside the dataset unless given.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    encoder: EncoderArguments,
    /// Precomputed features: .npy or .safetensors, a row per line of `--keys`, or .parquet with a column of lists of
    /// floats and one of names.
    #[arg(long, value_name = "FILE")]
    features: Option<PathBuf>,
    /// Names of the precomputed rows, one a line.
    #[arg(long, value_name = "FILE", requires = "features")]
    keys: Option<PathBuf>,
    /// The column of a Parquet file of precomputed features that names its rows.
    #[arg(long, value_name = "COLUMN", requires = "features", conflicts_with = "keys")]
    key_column: Option<String>,
    /// The tensor of a safetensors file, or the column of a Parquet file, that holds the features.
    #[arg(long, value_name = "NAME", requires = "features")]
    tensor: Option<String>,
    /// How numbers are kept: halfs, or bytes with a scale per picture, which need half the memory; as the store
    /// that is there does, unless given.
    #[arg(long, value_enum)]
    rows: Option<RowsName>,
    /// Pictures of the store that the dataset does not name stay.
    #[arg(long, conflicts_with = "features")]
    keep: bool,
    /// Pictures between two writes to the disk: what a killed run may have to encode again, twice.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    chunk: u32,
    /// Threads; as many as there are cores unless given.
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
}

/// How rows are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum RowsName {
    F16,
    Int8,
}

impl From<RowsName> for RowType {
    fn from(name: RowsName) -> RowType {
        match name {
            RowsName::F16 => RowType::F16,
            RowsName::Int8 => RowType::Int8,
        }
    }
}

/// The report with the time it took.
#[derive(Debug, Serialize)]
struct Timed<'a> {
    #[serde(flatten)]
    report: &'a EncodeReport,
    seconds: f64,
}

/// Runs the command.
pub fn run(
    arguments: Arguments,
    launch: &Launch,
    locations: &Locations,
    output: Output,
) -> Result<(), Failure> {
    let begin = std::time::Instant::now();
    let fetched =
        |path: &Option<PathBuf>| path.as_deref().map(|path| locations.input(path)).transpose();
    let dataset = fetched(&arguments.dataset)?.map(|dir| Dataset::open(&dir)).transpose()?;
    let inside = || arguments.dataset.as_ref().map(|dataset| dataset.join("images"));
    let named = arguments.out.clone().or_else(inside).expect("clap asks for one of them");
    if launch.size() > 1 {
        here("--out", &named, "several processes write a store on a disk that all of them see")?;
    }
    let place = locations.update(&named, Unfinished::GoesOn)?;
    let out = place.local();
    let images = Pictures::open(fetched(&arguments.images)?)?;
    let listed = match (&dataset, fetched(&arguments.list)?) {
        (Some(dataset), _) => Some(pictures(dataset)?),
        (None, Some(list)) => Some(listed(&list, arguments.list_column.as_deref())?),
        (None, None) => None,
    };
    let rows = arguments.rows.map(RowType::from);
    let report = match fetched(&arguments.features)? {
        Some(features) => {
            let keys = fetched(&arguments.keys)?;
            if keys.is_none() && !is_parquet(&features) {
                let what = "names no pictures itself: give the names of its rows with --keys FILE";
                return Err(Failure::user(format!("{}: {what}", features.display())));
            }
            let names = match (listed, &keys) {
                (Some(names), _) => names,
                // Everything that there is a row for.
                (None, Some(keys)) => self::listed(keys, None)?,
                (None, None) => {
                    let what = "which pictures? give a dataset, --list or --keys beside --features";
                    return Err(Failure::user(what));
                }
            };
            let options = PrecomputedOptions {
                tensor: arguments.tensor,
                key_column: arguments.key_column,
                rows,
                ..PrecomputedOptions::new(features, keys, out)
            };
            if launch.rank() > 0 {
                return Ok(());
            }
            precomputed(&options, names)?
        }
        None if arguments.encoder.is_precomputed() => {
            let what = "--encoder precomputed needs --features FILE and --keys FILE";
            return Err(Failure::user(what));
        }
        None => {
            let encoder = arguments.encoder.open(|path| Ok(locations.input(path)?))?;
            let images = images.expect("clap asks for it without --features");
            let names = listed.map_or_else(|| images.names(), Ok)?;
            let mut options = EncodeOptions::new(images.folder(), out);
            options.rows = rows;
            options.chunk = arguments.chunk as usize;
            options.others = if arguments.keep { Others::Keep } else { Others::Remove };
            options.threads = threads(arguments.threads);
            let stop = stop_on_interrupt(launch.rank())?;
            let crew = &mut Processes(launch.fabric());
            encode_pictures(&options, names, encoder.as_ref(), (&stop, crew), output)?
        }
    };
    place.publish()?;
    let seconds = begin.elapsed().as_secs_f64();
    output.finish(&Timed { report: &report, seconds }, || text(&report, &named, seconds));
    Ok(())
}

/// The processes of the job, as they encode.
struct Processes(Box<dyn Fabric>);

impl Crew for Processes {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn texts(&mut self, text: &str) -> ams_data::Result<Vec<String>> {
        gather::texts(&mut *self.0, text).map_err(|lost| ams_data::Error::option(lost.to_string()))
    }
}

/// Where pictures are.
enum Pictures {
    Folder(PathBuf),
    /// Unpacked from a Parquet file, with their names.
    Unpacked(TempDir, Vec<String>),
}

impl Pictures {
    fn open(path: Option<PathBuf>) -> Result<Option<Pictures>, Failure> {
        let Some(path) = path else { return Ok(None) };
        if !is_parquet(&path) {
            return Ok(Some(Pictures::Folder(path)));
        }
        let folder = TempDir::new()
            .map_err(|error| Failure::user(format!("no room to unpack pictures: {error}")))?;
        let names = unpack_pictures(&path, folder.path())?;
        Ok(Some(Pictures::Unpacked(folder, names)))
    }

    fn folder(&self) -> &Path {
        match self {
            Pictures::Folder(path) => path,
            Pictures::Unpacked(folder, _) => folder.path(),
        }
    }

    /// All of them.
    fn names(&self) -> Result<Vec<String>, Failure> {
        match self {
            Pictures::Folder(path) => Ok(below(path)?),
            Pictures::Unpacked(_, names) => Ok(names.clone()),
        }
    }
}

/// The names of all pictures of a dataset's items.
pub fn pictures(dataset: &Dataset) -> Result<Vec<String>, Failure> {
    let catalogue = Catalogue::open(dataset)?;
    let names = (0..catalogue.len()).filter_map(|row| catalogue.image(row));
    Ok(names.map(str::to_owned).collect())
}

/// Encodes with a progress bar.
pub fn encode_pictures(
    options: &EncodeOptions,
    names: Vec<String>,
    encoder: &dyn Encoder,
    (stop, crew): (&AtomicBool, &mut dyn Crew),
    output: Output,
) -> Result<EncodeReport, Failure> {
    let crew_speaks = crew.rank() == 0;
    let bar = output.bar("encode", names.len() as u64, BAR);
    let report = encode_together(options, names, encoder, crew, &mut |progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        match stop.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    bar.finish_and_clear();
    if stop.load(Ordering::Relaxed) && report.is_err() {
        if crew_speaks {
            eprintln!("stopped; the same command goes on where it was");
        }
        return Err(Failure::Interrupted);
    }
    Ok(report?)
}

fn text(report: &EncodeReport, out: &Path, seconds: f64) -> String {
    let mut text = format!(
        "{}: {} images of {} numbers by {} ({} encoded, {} reused) in {seconds:.1} s\n",
        out.display(),
        count(report.images),
        report.dim,
        report.encoder,
        count(report.encoded),
        count(report.reused),
    );
    for (reason, names) in &report.failed {
        text += &format!("  without a feature, {reason}: {} (see failed.csv)\n", count(*names));
    }
    text
}
