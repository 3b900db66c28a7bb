//! The arguments of commands that work in run folders: `ams train`, `ams align` and `ams tune`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ams_location::Locations;
use ams_train::run::Start;
use ams_train::{Config, Job};

use crate::config_file;
use crate::failure::Failure;
use crate::interrupt::stop_on_interrupt;
use crate::launch::{Launch, threads};
use crate::locations::places;
use crate::output::Output;
use crate::threads::thread_count;
use crate::watchdog::Watchdog;

#[derive(Debug, clap::Args)]
pub(crate) struct JobArguments {
    /// The configuration of a training, a TOML file.
    config: PathBuf,
    /// Overrides one setting, such as `train.epochs=3`; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Threads of each process; its share of the cores unless given. The result does not depend on
    /// it.
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
    /// Go on from the newest checkpoint of the run.
    #[arg(long, conflicts_with_all = ["replace", "auto_resume"])]
    resume: bool,
    /// Go on from the newest checkpoint if there is one, else begin: for launchers that start a
    /// job again.
    #[arg(long, conflicts_with = "replace")]
    auto_resume: bool,
    /// Remove an earlier result of the same name.
    #[arg(long)]
    replace: bool,
    /// End the job if it makes no step for so long; 0 waits for ever.
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0, value_parser = seconds)]
    watchdog: f64,
}

/// What a command works with.
pub(crate) struct Begun {
    pub(crate) watchdog: Watchdog,
    /// Whether an earlier result may be there, and what becomes of it.
    pub(crate) start: Start,
    /// True on Ctrl-C.
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) job: Job,
}

impl JobArguments {
    /// The configuration's file, what overrides it, and the threads of the process.
    pub(crate) fn given(&self) -> (&Path, &[String], usize) {
        (&self.config, &self.set, threads(self.threads))
    }

    /// The configuration with what overrides it, its paths are as they were typed.
    pub(crate) fn config(&self, locations: &Locations) -> Result<Config, Failure> {
        self.config_with(locations, &[])
    }

    /// The same with more settings, `key=value` each, which count before all others.
    pub(crate) fn config_with(
        &self,
        locations: &Locations,
        sets: &[String],
    ) -> Result<Config, Failure> {
        let sets = [&self.set[..], sets].concat();
        config_file::read(&locations.input(&self.config)?, &sets)
    }

    /// The job on the processes of `launch`, which Ctrl-C stops and the watchdog watches from now
    /// on; it reaches what `locations` do.
    ///
    /// # Errors
    /// If nothing can listen to Ctrl-C.
    pub(crate) fn begin(
        &self,
        launch: &Launch,
        locations: &Locations,
        output: Output<'_>,
    ) -> Result<Begun, Failure> {
        Ok(Begun {
            watchdog: self.watchdog(launch.rank()),
            start: self.start(),
            stop: stop_on_interrupt(launch.rank(), output)?,
            job: Job { places: places(locations), ..launch.job(threads(self.threads)) },
        })
    }

    /// Whether an earlier result may be there, and what becomes of it.
    fn start(&self) -> Start {
        match (self.resume, self.auto_resume, self.replace) {
            (true, _, _) => Start::Resume,
            (_, true, _) => Start::Auto,
            (_, _, true) => Start::Replace,
            _ => Start::Fresh,
        }
    }

    /// The watchdog of process `rank`, which watches from now on.
    fn watchdog(&self, rank: usize) -> Watchdog {
        let patience = Some(self.watchdog).filter(|seconds| *seconds > 0.0);
        Watchdog::start(patience.map(Duration::from_secs_f64), rank)
    }
}

/// Reads the seconds of `--watchdog`.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=1e9).contains(seconds));
    seconds.ok_or_else(|| "expected seconds, 0 or more".to_owned())
}
