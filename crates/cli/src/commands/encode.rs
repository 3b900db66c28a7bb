//! `ams encode`: from pictures to image features.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ams_data::catalogue::Catalogue;
use ams_data::dataset::Dataset;
use ams_fabric::Fabric;
use ams_image::encode::{EncodeOptions, EncodeReport, Others, SemanticIdsReport, encode_together};
use ams_image::encoder::Encoder;
use ams_image::listing::{below, lines_of, listed};
use ams_image::precomputed::{PrecomputedOptions, precomputed};
use ams_image::table::{SameName, Unpacked, is_parquet, unpack_pictures};
use ams_image::{CodesCard, RowType, SemanticIds};
use ams_location::{Locations, Unfinished};
use serde::Serialize;
use tempfile::TempDir;

use crate::commands::encoder::EncoderArguments;
use crate::commands::train::own_codes;
use crate::failure::Failure;
use crate::interrupt::stop_on_interrupt;
use crate::launch::{Launch, threads};
use crate::locations::here;
use crate::output::{BAR, Output, count};
use crate::threads::thread_count;

/// Turn the pictures of a dataset's items into image features.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The dataset whose items name the pictures; without one, `--list` does, or all pictures
    /// below `--images` are meant.
    #[arg(required_unless_present = "out")]
    dataset: Option<PathBuf>,
    /// The folder the names are relative to, or a Parquet file of pictures (`struct{bytes,
    /// path}`).
    #[arg(long, value_name = "DIR", required_unless_present = "features")]
    images: Option<PathBuf>,
    /// Names of pictures instead of a dataset's: a table as `ams prepare` reads it, with a column
    /// `image`, `path`, `filename` or the like, or one name a line.
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
    /// Precomputed features: .npy or .safetensors, a row per line of `--keys`, or .parquet with a
    /// column of lists of floats and one of names.
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
    /// How numbers are kept: halfs, or bytes with a scale per picture, which need half the memory;
    /// as the store that is there does, unless given.
    #[arg(long, value_enum)]
    rows: Option<RowsName>,
    /// Largest share of pictures that may have no feature, 0 to 1; above it, nothing is made but
    /// the list of failures.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = share)]
    max_failed: f64,
    /// Pictures of a Parquet file whose `path` repeats: the number of its row, counted from 0, is
    /// put before every name.
    #[arg(long, requires = "images", conflicts_with = "features")]
    number_repeated: bool,
    /// Pictures of the store that the dataset does not name stay.
    #[arg(long, conflicts_with = "features")]
    keep: bool,
    /// Semantic ids by residual k-means: levels x centers of each, such as 3x64, or `none`; those
    /// of the store that is there, unless given. Codebooks are learned once, and new pictures get
    /// codes by them; `none` and then levels again learns anew.
    #[arg(long, value_name = "LxK")]
    semantic_ids: Option<SemanticIds>,
    /// Number of pictures between two writes to the disk; a run that was killed encodes up to twice
    /// as many again.
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
    /// Files below the folder of pictures that are none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    passed_over: &'a BTreeMap<String, u64>,
    /// Names of the list that were in it before.
    #[serde(skip_serializing_if = "Option::is_none")]
    listed_again: Option<u64>,
    /// What the Parquet file of pictures has.
    #[serde(skip_serializing_if = "Option::is_none")]
    parquet: Option<&'a Unpacked>,
    seconds: f64,
}

pub(crate) fn run(
    arguments: Arguments,
    launch: &Launch,
    locations: &Locations,
    output: Output<'_>,
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
    let images = Pictures::open(fetched(&arguments.images)?, &arguments)?;
    let listed = match (&dataset, fetched(&arguments.list)?) {
        (Some(dataset), _) => Some(pictures(dataset)?),
        (None, Some(list)) => Some(listed(&list, arguments.list_column.as_deref())?),
        (None, None) => None,
    };
    let in_list = listed.as_ref().filter(|_| arguments.list.is_some()).map(Vec::len);
    let rows = arguments.rows.map(RowType::from);
    let mut passed_over = BTreeMap::new();
    let report = match fetched(&arguments.features)? {
        Some(features) => {
            let keys = fetched(&arguments.keys)?;
            let names = names_with_features(&features, keys.as_deref(), listed)?;
            let options = PrecomputedOptions {
                tensor: arguments.tensor,
                key_column: arguments.key_column,
                rows,
                max_failed: arguments.max_failed,
                semantic_ids: arguments.semantic_ids,
                ..PrecomputedOptions::new(features, keys, out)
            };
            if launch.rank() > 0 {
                return Ok(());
            }
            precomputed(&options, names)?
        }
        None if arguments.encoder.is_precomputed() => return Err(Failure::user(NEEDS_FEATURES)),
        None => {
            let encoder = arguments.encoder.open(|path| Ok(locations.input(path)?))?;
            let images = images.as_ref().expect("clap asks for it without --features");
            let names = listed.map_or_else(|| images.names(&mut passed_over), Ok)?;
            let mut options = EncodeOptions::new(images.folder(), out);
            options.rows = rows;
            options.max_failed = arguments.max_failed;
            options.semantic_ids = arguments.semantic_ids;
            options.chunk = arguments.chunk as usize;
            options.others = if arguments.keep { Others::Keep } else { Others::Remove };
            options.threads = threads(arguments.threads);
            let stop = stop_on_interrupt(launch.rank(), output)?;
            let fabric = &mut *launch.fabric();
            encode_pictures(&options, names, encoder.as_ref(), fabric, &stop, output)?
        }
    };
    place.publish()?;
    let seconds = begin.elapsed().as_secs_f64();
    let parquet = images.as_ref().and_then(Pictures::unpacked);
    let again = |names: usize| (names as u64).checked_sub(report.names).filter(|it| *it > 0);
    let listed_again = in_list.and_then(again);
    let timed =
        Timed { report: &report, passed_over: &passed_over, listed_again, parquet, seconds };
    output.finish(&timed, || text(&timed, &named));
    Ok(())
}

/// The advice where rows that were computed elsewhere are wanted, but not given.
const NEEDS_FEATURES: &str = "--encoder precomputed needs --features FILE and --keys FILE";

/// The names whose rows are taken from `features`: those that are listed, or all of them.
fn names_with_features(
    features: &Path,
    keys: Option<&Path>,
    listed: Option<Vec<String>>,
) -> Result<Vec<String>, Failure> {
    if keys.is_none() && !is_parquet(features) {
        let what = "names no pictures itself: give the names of its rows with --keys FILE";
        return Err(Failure::user(format!("{}: {what}", features.display())));
    }
    match (listed, keys) {
        (Some(names), _) => Ok(names),
        (None, Some(keys)) => Ok(lines_of(keys)?),
        (None, None) => Err(Failure::user(
            "no pictures are named beside --features: give a dataset, --list or --keys",
        )),
    }
}

enum Pictures {
    Folder(PathBuf),
    /// Unpacked from a Parquet file, with their names.
    Unpacked(TempDir, Unpacked),
}

impl Pictures {
    fn open(path: Option<PathBuf>, arguments: &Arguments) -> Result<Option<Pictures>, Failure> {
        let Some(path) = path else { return Ok(None) };
        if !is_parquet(&path) {
            if arguments.number_repeated {
                let what = "--number-repeated is for a Parquet file of pictures; a folder's names are distinct";
                return Err(Failure::user(format!("{}: {what}", path.display())));
            }
            return Ok(Some(Pictures::Folder(path)));
        }
        let folder = TempDir::new()
            .map_err(|error| Failure::user(format!("no room to unpack pictures: {error}")))?;
        let same = if arguments.number_repeated { SameName::Number } else { SameName::Refuse };
        let unpacked = unpack_pictures(&path, folder.path(), same)?;
        let Unpacked { rows, without_picture, .. } = unpacked;
        if without_picture as f64 > arguments.max_failed * rows as f64 {
            let share = arguments.max_failed * 100.0;
            return Err(Failure::user(format!(
                "{}: {without_picture} of {rows} rows have no picture, more than the {share:.0} % that may; --max-failed 1 \
                 accepts any share",
                path.display()
            )));
        }
        Ok(Some(Pictures::Unpacked(folder, unpacked)))
    }

    fn folder(&self) -> &Path {
        match self {
            Pictures::Folder(path) => path,
            Pictures::Unpacked(folder, _) => folder.path(),
        }
    }

    fn unpacked(&self) -> Option<&Unpacked> {
        match self {
            Pictures::Folder(_) => None,
            Pictures::Unpacked(_, unpacked) => Some(unpacked),
        }
    }

    /// All of them; files that are none are counted.
    fn names(&self, passed_over: &mut BTreeMap<String, u64>) -> Result<Vec<String>, Failure> {
        let path = match self {
            Pictures::Folder(path) => path,
            Pictures::Unpacked(_, unpacked) => return Ok(unpacked.names.clone()),
        };
        let found = below(path)?;
        *passed_over = found.passed_over;
        if found.pictures.is_empty() {
            let others = if passed_over.is_empty() {
                String::new()
            } else {
                format!("; passed over, no pictures: {}", listed_counts(passed_over))
            };
            let what = format!("there is no picture below the folder{others}");
            return Err(Failure::user(format!("{}: {what}", path.display())));
        }
        Ok(found.pictures)
    }
}

/// What there is of each, the most first, as many kinds as anybody reads.
fn listed_counts(counts: &BTreeMap<String, u64>) -> String {
    const SHOWN: usize = 8;
    let mut kinds: Vec<(&String, &u64)> = counts.iter().collect();
    kinds.sort_by_key(|(name, of)| (std::cmp::Reverse(**of), *name));
    let shown = kinds.iter().take(SHOWN).map(|(name, of)| format!("{} {name}", count(**of)));
    let mut text = shown.collect::<Vec<String>>().join(", ");
    let others: u64 = kinds.iter().skip(SHOWN).map(|(_, of)| **of).sum();
    if others > 0 {
        text += &format!(", {} others", count(others));
    }
    text
}

/// A share, 0 to 1.
fn share(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    value.ok_or_else(|| "expected a share from 0 to 1, such as 0.8".to_owned())
}

/// The names of all pictures of a dataset's items.
pub(crate) fn pictures(dataset: &Dataset) -> Result<Vec<String>, Failure> {
    let catalogue = Catalogue::open(dataset)?;
    let names = (0..catalogue.len()).filter_map(|row| catalogue.image(row));
    Ok(names.map(str::to_owned).collect())
}

/// Encodes with a progress bar.
pub(crate) fn encode_pictures(
    options: &EncodeOptions,
    names: Vec<String>,
    encoder: &dyn Encoder,
    fabric: &mut dyn Fabric,
    stop: &AtomicBool,
    output: Output<'_>,
) -> Result<EncodeReport, Failure> {
    let is_first = fabric.rank() == 0;
    let bar = output.bar("encode", names.len() as u64, BAR);
    let report = encode_together(options, names, encoder, fabric, &mut |progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        if stop.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    bar.finish_and_clear();
    if stop.load(Ordering::Relaxed) && report.is_err() {
        if is_first {
            eprintln!("stopped; the same command goes on where it was");
        }
        return Err(Failure::Interrupted);
    }
    Ok(report?)
}

fn text(timed: &Timed<'_>, out: &Path) -> String {
    let Timed { report, passed_over, listed_again, parquet, seconds } = timed;
    let mut text = format!(
        "{}: {} images of {} numbers by {} ({} encoded, {} reused) in {seconds:.1} s\n",
        out.display(),
        count(report.images),
        report.dim,
        report.encoder,
        count(report.encoded),
        count(report.reused),
    );
    if let Some(runtime) = &report.runtime {
        text += &format!("  computed by {runtime}\n");
    }
    for (reason, names) in &report.failed {
        let formats = match reason.as_str() {
            "unsupported" => format!("{}; ", listed_counts(&report.unsupported)),
            _ => String::new(),
        };
        let names = count(*names);
        text += &format!("  without a feature, {reason}: {names} ({formats}see failed.csv)\n");
    }
    if !passed_over.is_empty() {
        text += &format!("  passed over, no pictures: {}\n", listed_counts(passed_over));
    }
    if let Some(names) = listed_again {
        text += &format!("  names that the list has again: {}\n", count(*names));
    }
    if let Some(Unpacked { rows, without_picture, repeated, .. }) = parquet {
        if *without_picture > 0 {
            let (rows, without) = (count(*rows), count(*without_picture));
            text += &format!("  rows without a picture: {without} of {rows}\n");
        }
        if *repeated > 0 {
            let repeated = count(*repeated);
            text += &format!("  rows with a name and picture of a row before: {repeated}\n");
        }
    }
    if let Some(found) = &report.respelled {
        let (names, name, file) = (count(found.names), &found.name, &found.file);
        text +=
            &format!("  found under another spelling: {names}, such as `{file}` for `{name}`\n");
    }
    if let Some(matched) = &report.matched
        && matched.zeroed > 0
    {
        let share = 100.0 * matched.zeroed as f64 / matched.numbers as f64;
        text += &format!(
            "  became 0, too small for a half beside larger ones: {} of {} numbers ({share:.1} %)\n",
            count(matched.zeroed),
            count(matched.numbers),
        );
    }
    if let Some(SemanticIdsReport { card: CodesCard { levels, size, own, .. }, images }) =
        &report.semantic_ids
    {
        text += &format!("  {}\n", own_codes([*levels, *size], *own, *images));
    }
    text
}
