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
mod parts;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ams_bundle::folder::MANIFEST;
use ams_bundle::{Model, next_version};
use ams_daily::{
    Delay, FollowClock, FollowState, PartRead, RowsRead, Waiting, Window, WindowMaking, instant,
    remove_leftovers, shown_at,
};
use ams_data::dataset::{CARD, Dataset};
use ams_data::lock::Lock;
use ams_data::prepare::{Accept, Chain, Clock, Existing, Inputs, PrepareOptions, Sorted, plan};
use ams_data::schema::Split;
use ams_data::staging::{remove_folder, sync_folder};
use ams_location::{Locations, is_remote};
use ams_train::Job;
use ams_train::run::Start;
use ams_train::settings::{Config, TrainConfig, WarmParts, WarmStart};
use rayon::ThreadPoolBuilder;
use serde::Serialize;
use serde_json::Value;

use self::config::FollowConfig;
use self::parts::{Part, Parts};
use crate::commands::daily::config::{encode_flags, prepare_flags, publication};
use crate::commands::publish::publish_version;
use crate::commands::versions::{self, PublishAs};
use crate::commands::{prepare, train};
use crate::config_file;
use crate::failure::Failure;
use crate::interrupt::stop_on_interrupt;
use crate::launch::Launch;
use crate::locations::{here, places, solo};
use crate::output::{Caller, Output, count, metric, table};

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    /// The versions that were published, the newest 60.
    windows: &'a [Window],
    rows: RowsRead,
    /// Rows of windows that are not closed.
    waiting: u64,
    /// Parts that are not whole yet.
    unfinished: &'a [String],
}

pub(crate) fn run(
    arguments: &train::Arguments,
    launch: &Launch,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    if launch.size() > 1 {
        let what = format!("`--follow` runs in one process, not in {}", launch.size());
        return Err(Failure::user(what));
    }
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
    if !is_remote(folder) && !folder.is_dir() {
        let what =
            format!("{}: no such folder; expected one in which parts land", folder.display());
        return Err(Failure::user(what));
    }
    let _lock = Lock::take(&config.work, "follow")?;
    let file = config.work.join("state.json");
    let state = FollowState::read(&file, &config.name)?;
    let stop = stop_on_interrupt(0, output)?;
    let mut follow = Follow {
        config,
        parts: Parts { folder: folder.clone(), unfinished: Vec::new() },
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
        unfinished: &follow.parts.unfinished,
    };
    output.finish(&report, || text(&report));
    ended
}

/// A model, and the means to go on with it.
struct Follow<'a> {
    config: FollowConfig,
    parts: Parts,
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
            let new = self.parts.look(self.locations, &mut self.state.parts, self.output)?;
            for part in new {
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
        let (state, landed) = (&mut self.state, part.landed());
        state.clock = Some(*clock);
        state.parts_read = number;
        state.rows.late += sorted.late;
        state.rows.left_out += sorted.left_out;
        let set_aside: u64 = sorted.spans.values().sum();
        state.rows.read += sorted.late + sorted.left_out + set_aside;
        state.parts.insert(part.name.clone(), read);
        let waiting = |(window, rows)| Waiting { window, part: number, rows, landed };
        state.waiting.extend(sorted.spans.into_iter().map(waiting));
        state.write(&self.file)?;
        self.tell()?;
        if sorted.late > 0 {
            let late = count(sorted.late);
            self.output.say(&format!("{}: {late} rows are late and left out", part.name));
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
        let (to, name) = (self.waiting(), parts::file_name(number));
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
        parts::sweep(&self.waiting(), &self.state.waiting)
    }

    /// Makes the first version, of the log before.
    fn begin(&mut self) -> Result<FollowClock, Failure> {
        let making = self.making(None)?;
        let place = self.config.work.join("base");
        let data = place.join("data");
        if !data.join(CARD).exists() {
            self.output.say("the log before is prepared");
            let (inputs, options) = self.inputs(None)?;
            let plan = plan(inputs, options)?.chained(Chain::first())?;
            plan.run(&data, Existing::Refuse, &mut |_| ())?;
        }
        let dataset = Dataset::open(&data)?;
        let Split::Time { test_from: begin } = dataset.card().split else {
            return Err(Failure::user(format!("{}: is split by users", data.display())));
        };
        self.encode(&data)?;
        self.first_training(&place)?;
        let rows = dataset.card().counts.impressions;
        let window = self.publish(&making, &place, None, begin, rows, None)?;
        let now = Clock { newest: begin.saturating_sub(1), open: begin };
        let clock = FollowClock { begin, now };
        self.state.clock = Some(clock);
        // Not of the log that is followed.
        self.end(Window { rows: 0, ..window })?;
        Ok(clock)
    }

    /// What version comes next; written down before anything of it is made.
    fn making(&mut self, window: Option<i64>) -> Result<WindowMaking, Failure> {
        if let Some(making) = self.state.making.filter(|making| making.window == window) {
            return Ok(making);
        }
        let version = next_version(&self.config.models.join(&self.config.name))?;
        let making = WindowMaking { window, version };
        self.state.making = Some(making);
        self.state.write(&self.file)?;
        Ok(making)
    }

    /// Makes versions of all windows that are closed; whether there were some.
    fn make_closed(&mut self, clock: FollowClock) -> Result<bool, Failure> {
        let mut some = false;
        let open = self.config.spans().of(clock.now.open);
        while let Some(window) = self.state.closed(open) {
            self.check_stop()?;
            self.make(window, clock)?;
            some = true;
        }
        Ok(some)
    }

    /// Makes the version of the window that begins at `window`.
    fn make(&mut self, window: i64, clock: FollowClock) -> Result<(), Failure> {
        let making = self.making(Some(window))?;
        let place = self.place(Some(window));
        let data = place.join("data");
        let until = window + self.config.spans().length;
        let before = self.before();
        if !data.join(CARD).exists() {
            let rows = self.waiting().join(window.to_string());
            let (inputs, mut options) = self.inputs(Some(&rows))?;
            // The first window may begin within the log before.
            options.train_from = Some(instant(window.max(clock.begin)));
            options.until = Some(instant(until));
            // A window is too short for shares to mean something.
            options.accept.extend([
                Accept::DroppedRows,
                Accept::ItemsWithoutRow,
                Accept::UsersWithoutRow,
                Accept::RepeatedRows,
            ]);
            let days = self.config.history_days.map(|days| 86_400 * i64::from(days));
            let chain = Chain::after(&before.join("data"), days.map(|days| until - days))?;
            let plan = plan(inputs, options)?.chained(chain)?;
            plan.run(&data, Existing::Refuse, &mut |_| ())?;
        }
        let loss = self.train(&before, &place)?;
        let rows = self.state.waiting.iter().filter(|waiting| waiting.window == window);
        let rows = rows.map(|waiting| waiting.rows).sum();
        let done = self.publish(&making, &place, Some(window), until, rows, loss)?;
        self.end(done)
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

    fn pool(&self) -> Result<rayon::ThreadPool, Failure> {
        let pool = ThreadPoolBuilder::new().num_threads(self.threads).build();
        pool.map_err(|error| Failure::user(format!("--threads {}: {error}", self.threads)))
    }

    fn images(&self) -> Option<PathBuf> {
        self.config.encode.as_ref().map(|_| self.config.work.join("images"))
    }

    fn encode(&self, data: &Path) -> Result<(), Failure> {
        let flags = encode_flags(self.config.encode.as_ref())?;
        let Some((flags, out)) = flags.zip(self.images()) else { return Ok(()) };
        let mut given: Vec<OsString> = vec!["encode".into(), data.into()];
        given.extend(flags);
        given.extend(["--out".into(), out.into(), self.threads_flag()]);
        self.command(&given)
    }

    fn first_training(&self, place: &Path) -> Result<(), Failure> {
        let quoted = |path: PathBuf| Value::from(path.display().to_string()).to_string();
        let mut sets = vec![
            format!("name={:?}", self.config.name),
            format!("runs={}", quoted(place.join("runs"))),
            format!("data.samples={}", quoted(place.join("data"))),
        ];
        sets.extend(self.images().map(|images| format!("data.images={}", quoted(images))));
        let mut given: Vec<OsString> = vec!["train".into(), self.config.train.clone().into()];
        given.extend(["--auto-resume".into(), self.threads_flag()]);
        sets.into_iter().for_each(|set| given.extend(["--set".into(), set.into()]));
        self.command(&given)
    }

    /// Goes on with the training in `before` on the samples in `place`; the mean loss of these when
    /// they came.
    fn train(&self, before: &Path, place: &Path) -> Result<Option<f64>, Failure> {
        let run = before.join("runs").join(&self.config.name);
        let mut config: Config = config_file::read(&run.join("config.toml"), &[])?;
        config.runs = place.join("runs");
        config.data.samples = place.join("data");
        let train = std::mem::take(&mut config.train);
        config.train = TrainConfig {
            epochs: 1,
            validation_parts: 0,
            validation_tail: 0.0,
            early_stop: None,
            evaluations_per_epoch: 1,
            refit: false,
            candidates: Vec::new(),
            max_steps: None,
            phases: Vec::new(),
            warm_start: Some(WarmStart { from: run, parts: WarmParts::Training }),
            ..train
        };
        let quiet = Caller::stopped_by(&self.stop);
        let job = Job { places: places(self.locations), ..self.launch.job(self.threads) };
        let output = Output::to(&quiet);
        let report = train::train(&config, Start::Auto, job, &self.stop, None, output)?;
        // As it is read from the state.
        let loss = report.loss.map(|loss| (loss * 1e6).round() / 1e6);
        if report.finished { Ok(loss) } else { Err(Failure::Interrupted) }
    }

    /// Publishes the training in `place`.
    fn publish(
        &self,
        making: &WindowMaking,
        place: &Path,
        window: Option<i64>,
        until: i64,
        rows: u64,
        loss: Option<f64>,
    ) -> Result<Window, Failure> {
        let WindowMaking { version, .. } = *making;
        let name = &self.config.name;
        let model = self.config.models.join(name);
        let there = model.join(version.to_string());
        let run = place.join("runs").join(name);
        let own = place.join("candidate").join(name);
        let command = "ams train --follow";
        let candidate = versions::candidate(&own, &there, version, command, |path| {
            let publication = publication(&self.config.publish)?;
            publish_version(&run, path, version, &publication, solo(self.locations, self.threads))?;
            Ok(())
        })?;
        if candidate != there {
            remove_leftovers(&candidate, MANIFEST)?;
            let before = self.state.windows.last().map(|before| before.version.to_string());
            let before = before.map(|version| model.join(version)).filter(|base| base.exists());
            let base = match before.filter(|_| self.config.publish_as == PublishAs::Delta) {
                Some(before) => {
                    let every = self.config.whole_every;
                    versions::base(before, &candidate, every, self.output)?
                }
                None => None,
            };
            versions::bring(&candidate, &there, version, base.as_deref(), self.output)?;
        }
        let hash = Model::open(&there)?.hash().to_owned();
        let published = parts::now();
        let dataset = Dataset::open(place.join("data"))?;
        let (mut came, mut landed) = (Vec::new(), Vec::new());
        if window.is_some() {
            let times = self.pool()?.install(|| shown_at(&dataset))?;
            came.extend(times.into_iter().map(|time| (time as f64, 1)));
            let rows = self.state.waiting.iter().filter(|of| Some(of.window) == window);
            landed.extend(rows.map(|of| (of.landed, of.rows)));
        }
        Ok(Window {
            window,
            until,
            rows,
            impressions: dataset.card().counts.train,
            loss,
            version,
            hash,
            published,
            event_to_score: Delay::until(published, came),
            landed_to_score: Delay::until(published, landed),
        })
    }

    /// Writes down that a version was published, and removes what is kept no longer.
    fn end(&mut self, window: Window) -> Result<(), Failure> {
        self.output.say(&words(&window));
        self.begun.push(window.clone());
        let more = self.begun.len().saturating_sub(60);
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
        let making = self.state.making.map(|making| making.window);
        let newest = self.state.windows.last().map(|window| window.window);
        let mut stay: Vec<PathBuf> =
            making.into_iter().chain(newest).map(|window| self.place(window)).collect();
        if newest.is_none() {
            stay.push(self.place(None));
        }
        let mut places = vec![self.place(None)];
        let windows = work.join("windows");
        if windows.exists() {
            versions::remove_retired(&windows)?;
            places.extend(parts::entries(&windows)?);
        }
        for place in places.iter().filter(|place| place.exists() && !stay.contains(place)) {
            remove_folder(place)?;
        }
        Ok(())
    }

    fn threads_flag(&self) -> OsString {
        format!("--threads={}", self.threads).into()
    }

    /// Runs another command in this process.
    fn command(&self, given: &[OsString]) -> Result<(), Failure> {
        let caller = Caller::stopped_by(&self.stop);
        crate::within(given, self.launch, self.locations, &caller)
    }
}

/// A version in a line.
fn words(of: &Window) -> String {
    let rows = count(of.impressions);
    let Some(window) = of.window else {
        return format!(
            "version {}: {rows} impressions of the log before {}",
            of.version,
            instant(of.until)
        );
    };
    let delay = |name: &str, delay: Option<Delay>| {
        delay.map_or(String::new(), |of| {
            format!(", {name} {:.1} s (p50), {:.1} s (p95)", of.p50, of.p95)
        })
    };
    format!(
        "version {}: {rows} impressions from {} on, loss {}{}{}",
        of.version,
        instant(window),
        metric(of.loss),
        delay("event to score", of.event_to_score),
        delay("landed to score", of.landed_to_score)
    )
}

/// What was done, as a table.
fn text(report: &Report<'_>) -> String {
    let seconds = |delay: Option<Delay>| {
        delay.map_or("-".to_owned(), |delay| format!("{:.1} / {:.1}", delay.p50, delay.p95))
    };
    let row = |of: &Window| {
        vec![
            of.window.map_or("before".to_owned(), instant),
            count(of.impressions),
            of.version.to_string(),
            metric(of.loss),
            seconds(of.event_to_score),
            seconds(of.landed_to_score),
        ]
    };
    let rows: Vec<Vec<String>> = report.windows.iter().map(row).collect();
    let header =
        ["window", "impressions", "version", "loss", "event to score, s p50 / p95", "landed, s"];
    let RowsRead { read, published, late, left_out } = report.rows;
    let mut told = format!(
        "{}{} rows read: {} published, {} wait, {} late, {} left out\n",
        table(&header, &rows),
        count(read),
        count(published),
        count(report.waiting),
        count(late),
        count(left_out)
    );
    for part in report.unfinished {
        told += &format!("{part} is not whole yet\n");
    }
    told
}
