//! `ams train --follow`: a model that learns from a log as it lands, window after window.
//!
//! ```text
//! WORK/state.json            what was read, waits, and was published
//! WORK/images                the feature store
//! WORK/base/                 the dataset and the training of the log before
//! WORK/waiting/W/PART.parquet    rows of the window that begins at W, until it is closed
//! WORK/windows/W/data        its dataset, with the histories that the next one needs
//! WORK/windows/W/runs/NAME   its training, which goes on with the one before
//! WORK/windows/W/candidate/NAME/VERSION   its model
//! MODELS/NAME/VERSION        .. where it serves
//! MODELS/NAME/follow.json    the newest windows of the state, for servers
//! ```
//! Two things are done, each of which is written down at once when it is whole: a part is read into
//! files of rows that wait, and a window that is closed becomes a version. Everything before is
//! made again after a kill, to the same bits, and nothing twice.

mod config;
mod report;
mod windows;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use ams_daily::{
    FollowClock, FollowState, Landed, MOST_REMEMBERED, Part, PartRead, Waiting, Window,
    remove_leftovers, rows_name, sweep_rows, to_milliseconds,
};
use ams_data::lock::Lock;
use ams_data::prepare::{Chain, Inputs, PrepareOptions, Sorted, plan};
use ams_data::staging::{remove_folder, sync_folder};
use ams_location::{Locations, is_remote};

use self::config::FollowConfig;
use self::report::{Report, text, words};
use crate::commands::daily::config::prepare_flags;
use crate::commands::{prepare, train, versions};
use crate::failure::Failure;
use crate::interrupt::stop_on_interrupt;
use crate::launch::Launch;
use crate::locations::here;
use crate::output::{Output, count};

pub(crate) fn run(
    arguments: &train::Arguments,
    launch: &Launch,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    launch.one_process("ams train --follow")?;
    let Some(folder) = &arguments.follow else {
        return Err(Failure::user("--follow: expected a folder"));
    };
    let (config, sets, threads) = arguments.job.given();
    let config = FollowConfig::read(&locations.input(config)?, sets)?;
    config.check_train(locations)?;
    for (key, path) in [("models", &config.models), ("work", &config.work)] {
        let why = "a version appears by renames; `ams publish` and `ams delta` bring versions to a bucket";
        here(key, path, why)?;
    }
    check_folder(folder)?;
    let _lock = Lock::take(&config.work, "follow")?;
    let file = config.work.join("state.json");
    let state = FollowState::read(&file, &config.name)?;
    check_length(&config, &state)?;
    let stop = stop_on_interrupt(0, output)?;
    let mut follow = Follow {
        config,
        folder: folder.clone(),
        unfinished: Vec::new(),
        file,
        state,
        begun: Vec::new(),
        threads,
        stop,
        launch,
        locations,
        output,
    };
    let ended = follow.go_on(arguments.once);
    if !matches!(ended, Ok(()) | Err(Failure::Interrupted)) {
        return ended;
    }
    let report = Report {
        model: &follow.config.name,
        windows: &follow.begun,
        rows: follow.state.rows,
        waiting: follow.state.waiting.iter().map(|waiting| waiting.rows).sum(),
        unfinished: &follow.unfinished,
    };
    output.finish(&report, || text(&report));
    ended
}

/// That parts can land in `folder`: a disk that is away has not lost those that were read.
fn check_folder(folder: &Path) -> Result<(), Failure> {
    if is_remote(folder) || folder.is_dir() {
        return Ok(());
    }
    let what = format!("{}: no such folder; expected one in which parts land", folder.display());
    Err(Failure::user(what))
}

/// That windows are as long as they were: rows wait in those of the beginning.
fn check_length(config: &FollowConfig, state: &FollowState) -> Result<(), Failure> {
    let (is, was) = (config.spans().length, state.clock.map(|clock| clock.length));
    let Some(was) = was.filter(|was| *was != is) else { return Ok(()) };
    Err(Failure::user(format!(
        "every_minutes is {}, but {} has windows of {} minutes; to change it, begin again in another `work`",
        is / 60,
        config.work.display(),
        was / 60
    )))
}

/// Unix seconds by the clock of this host.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |since| to_milliseconds(since.as_secs_f64()))
}

/// A model, and the means to go on with it.
struct Follow<'a> {
    config: FollowConfig,
    /// Where parts land.
    folder: PathBuf,
    /// Parts that were not whole at the last look.
    unfinished: Vec<String>,
    /// Path of the state.
    file: PathBuf,
    state: FollowState,
    /// The versions that this process published.
    begun: Vec<Window>,
    threads: usize,
    stop: Arc<AtomicBool>,
    launch: &'a Launch,
    locations: &'a Locations,
    output: Output<'a>,
}

impl Follow<'_> {
    fn go_on(&mut self, once: bool) -> Result<(), Failure> {
        self.clean()?;
        let mut clock = match self.state.clock {
            Some(clock) => clock,
            None => self.begin()?,
        };
        self.tell()?;
        loop {
            let mut has_moved = self.make_closed(clock)?;
            for part in self.look()? {
                self.check_stop()?;
                if self.take(&part, &mut clock)? {
                    has_moved = true;
                    self.make_closed(clock)?;
                }
            }
            if has_moved {
                continue;
            }
            if once {
                return Ok(());
            }
            self.rest()?;
        }
    }

    fn check_stop(&self) -> Result<(), Failure> {
        if self.stop.load(Ordering::Relaxed) { Err(Failure::Interrupted) } else { Ok(()) }
    }

    /// Waits until it is time to look again, or somebody wants it to end.
    fn rest(&self) -> Result<(), Failure> {
        let piece = Duration::from_millis(50);
        let mut left = Duration::from_secs_f64(self.config.poll_seconds);
        while !left.is_zero() {
            self.check_stop()?;
            thread::sleep(left.min(piece));
            left = left.saturating_sub(piece);
        }
        self.check_stop()
    }

    /// The parts that are whole and were not read.
    fn look(&mut self) -> Result<Vec<Part>, Failure> {
        check_folder(&self.folder)?;
        let landed = Landed::look(self.locations, &self.folder, &mut self.state.parts)?;
        for name in landed.unfinished.iter().filter(|name| !self.unfinished.contains(name)) {
            self.output.say(&format!("{name} is not whole yet; it is read when it is"));
        }
        self.unfinished = landed.unfinished;
        Ok(landed.new)
    }

    /// Reads a part; whether it was there as it was listed.
    ///
    /// # Errors
    /// If a row of it cannot be understood, or is too far ahead; then nothing of it was taken.
    fn take(&mut self, part: &Part, clock: &mut FollowClock) -> Result<bool, Failure> {
        let number = self.state.parts_read + 1;
        let done = self.set_aside(part, number, clock);
        // If not, somebody writes or removes it, and it is looked at again.
        let is_same = part.is_as_listed();
        if !is_same || done.is_err() {
            self.sweep_waiting()?;
        }
        if !is_same {
            return Ok(false);
        }
        let (read, sorted) = done?;
        clock.now = sorted.clock;
        let (state, landed) = (&mut self.state, part.written().unwrap_or_else(now));
        state.clock = Some(*clock);
        state.parts_read = number;
        state.rows.late += sorted.late;
        state.rows.left_out += sorted.left_out;
        let set_aside: u64 = sorted.spans.values().sum();
        state.rows.read += sorted.late + sorted.left_out + set_aside;
        state.parts.insert(part.name().to_owned(), read);
        let waiting = |(window, rows)| Waiting { window, part: number, rows, landed };
        state.waiting.extend(sorted.spans.into_iter().map(waiting));
        state.write(&self.file)?;
        self.tell()?;
        if sorted.late > 0 {
            let late = count(sorted.late);
            self.output.say(&format!("{}: {late} rows are late and left out", part.name()));
        }
        Ok(true)
    }

    /// Sets the rows of a part aside, as files that count when the state says so.
    fn set_aside(
        &self,
        part: &Part,
        number: u64,
        clock: &FollowClock,
    ) -> Result<(PartRead, Sorted), Failure> {
        let read = part.read()?;
        let (inputs, options) = self.inputs(Some(part.path()))?;
        let chain = Chain::after(&self.before().join("data"), None)?;
        let plan = plan(inputs, options)?.chained(chain)?;
        let (to, name) = (self.waiting(), rows_name(number));
        let sorted = plan.set_aside(&self.config.spans(), clock.now, &to, &name);
        let sorted = sorted.map_err(|error| {
            let help = "nothing of this part was taken; mend or remove it, or set jump_minutes if its time is right";
            Failure::user(format!("{error}; {help}"))
        })?;
        for window in sorted.spans.keys() {
            sync_folder(&to.join(window.to_string()))?;
        }
        if !sorted.spans.is_empty() {
            sync_folder(&to)?;
        }
        Ok((read, sorted))
    }

    fn waiting(&self) -> PathBuf {
        self.config.work.join("waiting")
    }

    fn sweep_waiting(&self) -> Result<(), Failure> {
        Ok(sweep_rows(&self.waiting(), &self.state.waiting)?)
    }

    /// The folder of a window, or of the log before.
    fn place(&self, window: Option<i64>) -> PathBuf {
        let work = &self.config.work;
        window.map_or(work.join("base"), |window| work.join("windows").join(window.to_string()))
    }

    /// The folder of the newest version.
    fn before(&self) -> PathBuf {
        self.place(self.state.windows.last().and_then(|window| window.window))
    }

    /// The tables of `ams prepare` with these events, or with those of the log before.
    fn inputs(&self, events: Option<&Path>) -> Result<(Inputs, PrepareOptions), Failure> {
        let mut table = self.config.prepare.clone();
        if let Some(events) = events {
            let events = events.display().to_string();
            table.insert("events".to_owned(), vec![events].into());
        }
        let mut flags = prepare_flags(&table)?;
        flags.extend(["--out".into(), "unused".into()]);
        prepare::read(&flags, self.locations)
    }

    /// Writes down that a version was published, and removes what is kept no longer.
    fn end(&mut self, window: Window) -> Result<(), Failure> {
        self.output.say(&words(&window));
        self.begun.push(window.clone());
        let more = self.begun.len().saturating_sub(MOST_REMEMBERED);
        self.begun.drain(..more);
        self.state.push(window);
        self.state.write(&self.file)?;
        self.tell()?;
        self.clean()
    }

    /// Writes down beside the versions what was published.
    fn tell(&self) -> Result<(), Failure> {
        Ok(self.state.told().write(&self.config.models.join(&self.config.name))?)
    }

    /// Removes what a kill left, and versions and windows beyond those that are kept.
    fn clean(&self) -> Result<(), Failure> {
        let (work, keep) = (&self.config.work, self.config.keep);
        remove_leftovers(work, "state.json")?;
        let model = self.config.models.join(&self.config.name);
        if model.exists() {
            let serving = ams_serve::serving_version(&self.config.models, &self.config.name)?;
            let ours = |version| self.state.windows.iter().any(|window| window.version == version);
            versions::remove_old(&model, keep, serving, ours)?;
            versions::remove_retired(&model)?;
        }
        versions::remove_retired(work)?;
        self.sweep_waiting()?;
        self.remove_windows()
    }

    /// Removes the folders of windows but the newest and the one that is made.
    fn remove_windows(&self) -> Result<(), Failure> {
        let newest = self.state.windows.last().map(|window| window.window);
        let making = self.state.making.map(|making| making.window);
        let stay: Vec<PathBuf> =
            [making, newest].into_iter().flatten().map(|window| self.place(window)).collect();
        let windows = self.config.work.join("windows");
        let mut places = vec![self.place(None)];
        if windows.exists() {
            versions::remove_retired(&windows)?;
            let failed = |error| Failure::user(format!("{}: {error}", windows.display()));
            for entry in std::fs::read_dir(&windows).map_err(failed)? {
                places.push(entry.map_err(failed)?.path());
            }
        }
        // Before the first version there is nothing but the beginning.
        let goes = |place: &&PathBuf| newest.is_some() && !stay.contains(place) && place.exists();
        for place in places.iter().filter(goes) {
            remove_folder(place)?;
        }
        Ok(())
    }
}
