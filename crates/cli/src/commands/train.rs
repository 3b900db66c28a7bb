//! `ams train`: learn a model.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ams_fabric::Solo;
use ams_train::Config;
use ams_train::run::{self, RunReport, Start, Wish};

use crate::config_file;
use crate::failure::Failure;
use crate::output::{Output, count, metric};

/// Train a model as a TOML file says.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The configuration, a TOML file.
    config: PathBuf,
    /// Overrides one setting, such as `train.epochs=3`; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Threads; as many as there are cores unless given. The result does not depend on it.
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
    /// Go on from the newest checkpoint of the run.
    #[arg(long, conflicts_with = "replace")]
    resume: bool,
    /// Remove an earlier training of the same name.
    #[arg(long)]
    replace: bool,
}

/// Runs the command.
pub fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let config: Config = config_file::read(&arguments.config, &arguments.set)?;
    let start = match (arguments.resume, arguments.replace) {
        (true, _) => Start::Resume,
        (_, true) => Start::Replace,
        _ => Start::Fresh,
    };
    let stop = stop_on_interrupt()?;
    let report = train(&config, start, threads(arguments.threads), &stop, output)?;
    output.finish(&report, || text(&report));
    if report.finished { Ok(()) } else { Err(Failure::Interrupted) }
}

/// Trains with a progress bar until done or `stop`.
pub fn train(
    config: &Config,
    start: Start,
    threads: usize,
    stop: &AtomicBool,
    output: Output,
) -> Result<RunReport, Failure> {
    const BAR: &str = "{prefix:>10} {bar:32} step {pos}/{len} eta {eta} {msg}";
    let bar = output.bar("train", 0, BAR);
    let begin = std::time::Instant::now();
    let mut seen = 0;
    let mut smooth = None;
    let mut watch = |report: &ams_train::StepReport, steps: u64| {
        seen += report.impressions;
        let loss = smooth.map_or(report.loss, |loss: f64| 0.95 * loss + 0.05 * report.loss);
        smooth = Some(loss);
        bar.set_length(steps);
        bar.set_position(report.cursor.step);
        let rate = seen as f64 / begin.elapsed().as_secs_f64().max(1e-9);
        bar.set_message(format!("{} impressions/s loss {loss:.4}", count(rate as u64)));
        if stop.load(Ordering::Relaxed) { Wish::Stop } else { Wish::GoOn }
    };
    let report = run::train(config, start, Box::new(Solo), threads, &mut watch);
    bar.finish_and_clear();
    Ok(report?)
}

/// Reads `--threads`. Far more threads than cores would only wait for each other.
pub fn thread_count(text: &str) -> Result<usize, String> {
    const MOST: usize = 1024;
    let count = text.parse().ok().filter(|count| (1..=MOST).contains(count));
    count.ok_or_else(|| format!("expected 1 to {MOST}"))
}

/// The number of threads asked for, or one per core.
pub fn threads(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |cores| cores.get()))
}

/// Becomes true on the first Ctrl-C; the second one ends the process at once.
pub fn stop_on_interrupt() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if seen.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping after this step with a checkpoint; once more to stop at once");
    })
    .map_err(|error| Failure::user(format!("cannot listen to Ctrl-C: {error}")))?;
    Ok(stop)
}

fn text(report: &RunReport) -> String {
    let end = match report.finished {
        true => "trained",
        false => "stopped with a checkpoint; go on with --resume:",
    };
    format!(
        "{end} {}: {} steps, {} impressions in {:.1} s ({} impressions/s), loss {}\n",
        report.run.display(),
        count(report.steps),
        count(report.impressions),
        report.seconds,
        count(report.impressions_per_second as u64),
        metric(report.loss),
    )
}
