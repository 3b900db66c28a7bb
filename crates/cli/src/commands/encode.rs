//! `ams encode`: from pictures to image features.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ams_data::catalogue::Catalogue;
use ams_data::dataset::Dataset;
use ams_image::encode::{EncodeOptions, EncodeReport, encode};
use ams_image::encoder::Encoder;
use ams_image::precomputed::{PrecomputedOptions, precomputed};
use serde::Serialize;

use crate::commands::encoder::EncoderArguments;
use crate::commands::train::{stop_on_interrupt, thread_count};
use crate::failure::Failure;
use crate::output::{BAR, Output, count};

/// Turn the pictures of a dataset's items into image features.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The dataset whose items name the pictures.
    dataset: PathBuf,
    /// The folder the names are relative to.
    #[arg(long, value_name = "DIR", required_unless_present = "features")]
    images: Option<PathBuf>,
    /// The feature store; `images` inside the dataset unless given.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    encoder: EncoderArguments,
    /// Precomputed features: .npy or .safetensors, a row per line of `--keys`.
    #[arg(long, value_name = "FILE", requires = "keys")]
    features: Option<PathBuf>,
    /// Names of the precomputed rows, one a line.
    #[arg(long, value_name = "FILE", requires = "features")]
    keys: Option<PathBuf>,
    /// The tensor of a safetensors file that holds more than one.
    #[arg(long, value_name = "NAME", requires = "features")]
    tensor: Option<String>,
    /// Threads; as many as there are cores unless given.
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
}

/// The report with the time it took.
#[derive(Debug, Serialize)]
struct Timed<'a> {
    #[serde(flatten)]
    report: &'a EncodeReport,
    seconds: f64,
}

/// Runs the command.
pub fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let begin = std::time::Instant::now();
    let dataset = Dataset::open(&arguments.dataset)?;
    let out = arguments.out.unwrap_or_else(|| arguments.dataset.join("images"));
    let names = pictures(&dataset)?;
    let report = match (arguments.features, arguments.keys) {
        (Some(features), Some(keys)) => {
            let options = PrecomputedOptions {
                tensor: arguments.tensor,
                ..PrecomputedOptions::new(features, keys, &out)
            };
            precomputed(&options, names)?
        }
        _ if arguments.encoder.is_precomputed() => {
            let what = "--encoder precomputed needs --features FILE and --keys FILE";
            return Err(Failure::user(what));
        }
        _ => {
            let encoder = arguments.encoder.open()?;
            let images = arguments.images.expect("clap asks for it without --features");
            let mut options = EncodeOptions::new(images, &out);
            options.threads = arguments.threads.unwrap_or(0);
            let stop = stop_on_interrupt(0)?;
            encode_pictures(&options, names, encoder.as_ref(), &stop, output)?
        }
    };
    let seconds = begin.elapsed().as_secs_f64();
    output.finish(&Timed { report: &report, seconds }, || text(&report, &out, seconds));
    Ok(())
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
    stop: &AtomicBool,
    output: Output,
) -> Result<EncodeReport, Failure> {
    let bar = output.bar("encode", names.len() as u64, BAR);
    let report = encode(options, names, encoder, &mut |progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        match stop.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    bar.finish_and_clear();
    if stop.load(Ordering::Relaxed) && report.is_err() {
        eprintln!("stopped; the same command goes on where it was");
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
