//! How a window of the log becomes a version: its dataset, its training, its model.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ams_bundle::folder::MANIFEST;
use ams_bundle::{Model, next_version};
use ams_daily::{Delay, FollowClock, Window, WindowMaking, instant, remove_leftovers, shown_at};
use ams_data::dataset::{CARD, Dataset};
use ams_data::prepare::{Accept, Chain, Clock, Existing, plan};
use ams_data::schema::Split;
use ams_train::Job;
use ams_train::run::Start;
use ams_train::settings::Config;
use rayon::ThreadPoolBuilder;
use serde_json::Value;

use super::{Follow, now};
use crate::commands::daily::config::{encode_flags, publication};
use crate::commands::publish::publish_version;
use crate::commands::train;
use crate::commands::versions::{self, PublishAs};
use crate::config_file;
use crate::failure::Failure;
use crate::locations::{places, solo};
use crate::output::{Caller, Output};

impl Follow<'_> {
    /// Makes the first version, of the log before.
    pub(super) fn begin(&mut self) -> Result<FollowClock, Failure> {
        let making = self.making(None)?;
        let place = self.config.work.join("base");
        let data = place.join("data");
        if !data.join(CARD).exists() {
            remove_leftovers(&place, "data")?;
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
        let window = self.publish(&making, &place, begin, None)?;
        let now = Clock { newest: begin.saturating_sub(1), open: begin };
        let clock = FollowClock { begin, now, length: self.config.spans().length };
        self.state.clock = Some(clock);
        self.end(window)?;
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
    pub(super) fn make_closed(&mut self, clock: FollowClock) -> Result<bool, Failure> {
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
            remove_leftovers(&place, "data")?;
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
        let done = self.publish(&making, &place, until, loss)?;
        self.end(done)
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
        let config: Config = config_file::read(&run.join("config.toml"), &[])?;
        let config = config.going_on(&run, place.join("data"), place.join("runs"));
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
        until: i64,
        loss: Option<f64>,
    ) -> Result<Window, Failure> {
        let WindowMaking { window, version } = *making;
        let there = self.model().join(version.to_string());
        self.bring(version, &there, place)?;
        let hash = Model::open(&there)?.hash().to_owned();
        let published = now();
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
            rows: landed.iter().map(|(_, rows)| rows).sum(),
            impressions: dataset.card().counts.train,
            loss,
            version,
            hash,
            published,
            event_to_score: Delay::until(published, came),
            landed_to_score: Delay::until(published, landed),
        })
    }

    fn model(&self) -> PathBuf {
        self.config.models.join(&self.config.name)
    }

    /// Lets `version` of the training in `place` appear as the folder `there`.
    fn bring(&self, version: u64, there: &Path, place: &Path) -> Result<(), Failure> {
        let name = &self.config.name;
        let (run, own) = (place.join("runs").join(name), place.join("candidate").join(name));
        let command = "ams train --follow";
        let candidate = versions::candidate(&own, there, version, command, |path| {
            let publication = publication(&self.config.publish)?;
            let job = solo(self.locations, self.threads);
            publish_version(&run, path, version, &publication, job)?;
            Ok(())
        })?;
        if candidate == there {
            return Ok(());
        }
        remove_leftovers(&candidate, MANIFEST)?;
        let before = self.state.windows.last();
        let before = before.map(|before| self.model().join(before.version.to_string()));
        let is_delta = self.config.publish_as == PublishAs::Delta;
        let base = match before.filter(|base| is_delta && base.exists()) {
            Some(before) => {
                let every = self.config.whole_every;
                versions::base(before, &candidate, every, self.output)?
            }
            None => None,
        };
        versions::bring(&candidate, there, version, base.as_deref(), self.output)
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
