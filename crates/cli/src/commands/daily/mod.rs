//! `ams daily`: a model that is made anew every day: the log until that day, new pictures, a
//! training, and a gate before the new version serves.
//!
//! ```text
//! WORK/state.json          what was decided, day by day
//! WORK/images              the feature store
//! WORK/DAY/data            the dataset of a day
//! WORK/DAY/runs/NAME       its training
//! WORK/DAY/candidate/NAME/VERSION   its model, until it may serve
//! MODELS/NAME/VERSION      .. and then, with decision.json
//! MODELS/NAME/days.json    the newest days of the state, for servers and `ams status`
//! ```
//! Every part of a day appears whole, and is passed over where it is there. So a day that was
//! killed goes on, and ends with the same bits.

pub(crate) mod config;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use ams_bundle::folder::MANIFEST;
use ams_bundle::{Model, add_decision, next_version, whole_versions};
use ams_daily::{
    Day, Decision, Entry, Facts, Making, Outcome, Sanity, State, instant, predict, remove_leftovers,
};
use ams_data::dataset::{CARD, Dataset, SplitName};
use ams_data::lock::Lock;
use ams_data::prepare::{DayRows, plan};
use ams_data::staging::remove_folder;
use ams_data::{Catalogue, Id, PictureName};
use ams_image::FeatureStore;
use ams_location::Locations;
use ams_train::PublishSettings;
use ams_train::settings::WarmParts;
use rayon::ThreadPoolBuilder;
use serde::Serialize;
use serde_json::Value;

use self::config::DailyConfig;
use crate::commands::prepare;
use crate::commands::publish::publish_version;
use crate::commands::versions::{self, PublishAs};
use crate::failure::Failure;
use crate::interrupt::stop_on_interrupt;
use crate::launch::{Launch, threads};
use crate::locations::{here, solo};
use crate::output::{Caller, Output, count, metric, table};
use crate::threads::thread_count;

/// Make a model anew for a day: prepare the log until then, encode new pictures, train, and publish
/// the version if it may take the place of the one that serves.
///
/// Exit code 3: a day was refused, and the version before it serves on.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How the model is made, a TOML file (docs/daily.md).
    config: PathBuf,
    /// The day, such as 2024-03-05, in UTC; `yesterday` is by the clock of this host.
    #[arg(long, value_name = "DAY", conflicts_with_all = ["from", "to"], required_unless_present = "from",
        value_parser = day)]
    day: Option<Day>,
    /// The first of several days.
    #[arg(long, value_name = "DAY", requires = "to")]
    from: Option<Day>,
    /// The last of several days.
    #[arg(long, value_name = "DAY", requires = "from")]
    to: Option<Day>,
    /// Overrides one setting of the file, such as `keep=5`; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Threads; as many as there are cores unless given. The result does not depend on it.
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
}

/// Reads a day.
fn day(text: &str) -> Result<Day, String> {
    if text != "yesterday" {
        return text.parse();
    }
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.map_err(|_| "the clock is before 1970".to_owned())?.as_secs();
    Ok(Day::of(i64::try_from(seconds).unwrap_or_default()).plus(-1))
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    /// The days that were asked for.
    days: &'a [Entry],
    /// The version that serves.
    serving: Option<u64>,
}

pub(crate) fn run(
    arguments: Arguments,
    launch: &Launch,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    launch.one_process("ams daily")?;
    let config = DailyConfig::read(&locations.input(&arguments.config)?, &arguments.set)?;
    config.check_train(locations)?;
    for (key, path) in [("models", &config.models), ("work", &config.work)] {
        here(
            key,
            path,
            "a day appears by renames; `ams publish` and `ams delta` bring versions to a bucket",
        )?;
    }
    let days = days(&arguments)?;
    let _lock = Lock::take(&config.work, "daily")?;
    let file = config.work.join("state.json");
    let state = State::read(&file, &config.name)?;
    let stop = stop_on_interrupt(0, output)?;
    let threads = threads(arguments.threads);
    let publication = config.publication()?;
    let mut daily =
        Daily { config, publication, file, state, threads, stop, launch, locations, output };
    if daily.state.newest().is_some() {
        // It may have ended before.
        daily.tell()?;
        daily.clean()?;
    }
    let mut done = Vec::new();
    for day in days {
        let entry = daily.day(day)?;
        output.say(&words(&entry));
        done.push(entry);
    }
    let model = &daily.config.name;
    let serving = ams_serve::serving_version(&daily.config.models, model)?;
    let report = Report { model, days: &done, serving };
    output.finish(&report, || text(&report));
    let refused: Vec<String> = done
        .iter()
        .filter(|entry| entry.outcome == Outcome::Refused)
        .map(|entry| entry.day.to_string())
        .collect();
    if refused.is_empty() {
        return Ok(());
    }
    Err(Failure::Refused(format!(
        "{}: refused; the version before serves on. {} has the reasons",
        refused.join(", "),
        daily.file.display()
    )))
}

fn days(arguments: &Arguments) -> Result<Vec<Day>, Failure> {
    let (first, last) = match (arguments.day, arguments.from, arguments.to) {
        (Some(day), ..) => (day, day),
        (None, Some(from), Some(to)) => (from, to),
        _ => unreachable!("clap asks for a day, or two"),
    };
    if last < first {
        return Err(Failure::user(format!("--from {first} is later than --to {last}")));
    }
    let mut days = vec![first];
    while days[days.len() - 1] < last {
        days.push(days[days.len() - 1].plus(1));
    }
    Ok(days)
}

/// A model, and the means to make it.
struct Daily<'a> {
    config: DailyConfig,
    publication: PublishSettings,
    /// Path of the state.
    file: PathBuf,
    state: State,
    threads: usize,
    stop: Arc<AtomicBool>,
    launch: &'a Launch,
    locations: &'a Locations,
    output: Output<'a>,
}

impl Daily<'_> {
    /// Makes `day`, or says what was decided about it.
    fn day(&mut self, day: Day) -> Result<Entry, Failure> {
        if let Some(done) = self.state.of(day) {
            return Ok(done.clone());
        }
        self.in_order(day)?;
        let place = self.config.work.join(day.to_string());
        let data = place.join("data");
        let making = match self.state.making.clone() {
            Some(making) if data.join(CARD).exists() => making,
            // The log may have been mended since.
            _ => match self.begin(day)? {
                Some(making) => making,
                None => return self.end(Entry::empty(day)),
            },
        };
        self.output.say(&format!(
            "{day}: judged by what was shown from {} on",
            instant(making.judged_from)
        ));
        remove_leftovers(&place, "data")?;
        self.prepare(&making, &data)?;
        let dataset = Dataset::open(&data)?;
        let store = self.encode(&data)?;
        let serving = making.serving.map(|version| self.version(version));
        let serving = serving.map(|path| Model::open(&path)).transpose()?;
        let facts = self.facts(day, &dataset, store.as_ref(), serving.as_ref())?;
        let mut entry = Entry { facts: Some(facts), ..Entry::of(&making) };
        let facts = entry.facts.as_ref().expect("just given");
        entry.reasons = self.config.sanity.faults(facts, &self.state.sound_before(day));
        if entry.reasons.is_empty() {
            self.train(&making, &place)?;
            let candidate = self.publish(&making, &place)?;
            let judged = match &serving {
                Some(serving) => self.judge(&making, &dataset, &candidate, serving, &mut entry)?,
                None => 0,
            };
            if entry.reasons.is_empty() {
                let decision = self.decision(&making, &entry, serving.as_ref(), judged);
                self.take_up(&making, &candidate, &decision, &mut entry)?;
            }
        }
        if !entry.reasons.is_empty() {
            entry.outcome = Outcome::Refused;
            let candidate = place.join("candidate");
            if candidate.exists() {
                remove_folder(&candidate)?;
            }
        }
        self.end(entry)
    }

    /// Holds the model of a day against the one that serves; by how many impressions.
    fn judge(
        &self,
        making: &Making,
        dataset: &Dataset,
        candidate: &Path,
        serving: &Model,
        entry: &mut Entry,
    ) -> Result<u64, Failure> {
        let new = Model::open_bundle(candidate)?;
        let shown = making.judged_from..making.until;
        let (pool, sampling) = (self.pool()?, self.publication.calibration.sampling);
        let predicted = |model| pool.install(|| predict(model, dataset, sampling, shown.clone()));
        let (new, serving) = (predicted(&new)?, predicted(serving)?);
        let seen = dataset.item_counts(SplitName::Train)?;
        let is_cold = |item| !seen.contains_key(&Id(item));
        let gate = &self.config.gate;
        entry.compared = gate.compare(&new, &serving, &is_cold);
        entry.reasons = gate.faults(&entry.compared);
        Ok(new.len() as u64)
    }

    /// Why the model of a day may serve.
    fn decision(
        &self,
        making: &Making,
        entry: &Entry,
        serving: Option<&Model>,
        judged: u64,
    ) -> Decision {
        let before = self.state.sound_before(making.day).len().min(Sanity::MOST);
        let least = self.config.sanity.days;
        Decision::of(making, entry, serving, judged, [before, least])
    }

    /// That no day after `day` is done or begun.
    fn in_order(&self, day: Day) -> Result<(), Failure> {
        let newest = self.state.newest().filter(|newest| *newest > day);
        if let Some(newest) = newest {
            return Err(Failure::user(format!(
                "{day} comes before {newest}, which is done, and days are made in order; {} has what was decided",
                self.file.display()
            )));
        }
        match self.state.making.as_ref().filter(|making| making.day != day) {
            None => Ok(()),
            Some(making) => Err(Failure::user(format!(
                "{} was begun and is not done; make it first: --day {0}",
                making.day
            ))),
        }
    }

    /// Finds out what there is of `day`, and writes down how it is made; none if it has no event.
    fn begin(&mut self, day: Day) -> Result<Option<Making>, Failure> {
        let rows = self.rows()?;
        let Some((&newest, _)) = rows.last_key_value() else {
            return Err(Failure::user("the log has no row with a time"));
        };
        if Day::of(newest) < day {
            let newest = Day::of(newest);
            return Err(Failure::user(format!("the log ends on {newest}; {day} is not there yet")));
        }
        let Some(&DayRows { rows: count, last }) = rows.get(&day.begin()) else { return Ok(None) };
        let next = day.plus(1);
        let (judged_from, until) = if rows.contains_key(&next.begin()) {
            (next.begin(), day.plus(2).begin())
        } else {
            (last + 1 - (self.config.judge_hours * 3600.0) as i64, next.begin())
        };
        let models = &self.config.models;
        let making = Making {
            day,
            rows: count,
            judged_from,
            until,
            version: next_version(&models.join(&self.config.name))?,
            serving: ams_serve::serving_version(models, &self.config.name)?,
        };
        self.state.making = Some(making.clone());
        self.state.write(&self.file)?;
        Ok(Some(making))
    }

    /// The rows of the log by the first second of their day.
    fn rows(&self) -> Result<BTreeMap<i64, DayRows>, Failure> {
        let mut flags = self.config.prepare_flags()?;
        flags.extend(["--out".into(), "unused".into()]);
        let (inputs, options) = prepare::read(&flags, self.locations)?;
        Ok(plan(inputs, options)?.rows_by_day()?)
    }

    fn prepare(&self, making: &Making, data: &Path) -> Result<(), Failure> {
        if data.join(CARD).exists() {
            return Ok(());
        }
        let mut given: Vec<OsString> = vec!["prepare".into()];
        given.extend(self.config.prepare_flags()?);
        given.extend(["--out".into(), data.into()]);
        given.extend(["--until".into(), instant(making.until).into()]);
        given.extend(["--test-from".into(), instant(making.judged_from).into()]);
        if let Some(days) = self.config.days {
            let first = making.day.plus(1 - i64::from(days)).begin();
            given.extend(["--train-from".into(), instant(first).into()]);
        }
        self.command(given).map(drop)
    }

    /// The feature store with the pictures of the day, if there are any.
    fn encode(&self, data: &Path) -> Result<Option<FeatureStore>, Failure> {
        let Some(flags) = self.config.encode_flags()? else { return Ok(None) };
        let out = self.config.work.join("images");
        let mut given: Vec<OsString> = vec!["encode".into(), data.into()];
        given.extend(flags);
        given.extend(["--out".into(), out.clone().into(), self.threads_flag()]);
        self.command(given)?;
        Ok(Some(FeatureStore::open(&out)?))
    }

    fn facts(
        &self,
        day: Day,
        dataset: &Dataset,
        store: Option<&FeatureStore>,
        serving: Option<&Model>,
    ) -> Result<Facts, Failure> {
        let has_picture = |name: PictureName| store.is_some_and(|it| it.key(name).is_some());
        let pool = self.pool()?;
        let mut facts = pool.install(|| Facts::of(dataset, day, &has_picture))?;
        facts.rows = self.state.making.as_ref().map_or(0, |making| making.rows);
        if let Some(serving) = serving {
            let shown = day.begin()..day.plus(1).begin();
            let sampling = self.publication.calibration.sampling;
            facts.add_model(&pool.install(|| predict(serving, dataset, sampling, shown))?);
        }
        if let (Some(store), Some(serving)) = (store, serving) {
            facts.pictures_changed = changed(dataset, store, serving)?;
        }
        Ok(facts)
    }

    /// Trains, with weights of the day whose version serves.
    fn train(&self, making: &Making, place: &Path) -> Result<(), Failure> {
        let quoted = |path: &Path| Value::from(path.display().to_string()).to_string();
        let name = &self.config.name;
        let mut sets = vec![
            format!("name={name:?}"),
            format!("runs={}", quoted(&place.join("runs"))),
            format!("data.samples={}", quoted(&place.join("data"))),
        ];
        if self.config.encode.is_some() {
            sets.push(format!("data.images={}", quoted(&self.config.work.join("images"))));
        }
        let before = making.serving.and_then(|version| self.state.of_version(version));
        if let Some(before) = before.filter(|_| self.config.warm_start != WarmParts::None) {
            let from = self.config.work.join(before.day.to_string()).join("runs").join(name);
            let parts = serde_json::to_string(&self.config.warm_start).expect("a word");
            let from = quoted(&from);
            sets.push(format!("train.warm_start={{ from = {from}, parts = {parts} }}"));
        }
        let mut given: Vec<OsString> = vec!["train".into(), self.config.train.clone().into()];
        given.extend(["--auto-resume".into(), self.threads_flag()]);
        sets.into_iter().for_each(|set| given.extend(["--set".into(), set.into()]));
        self.command(given).map(drop)
    }

    /// The version of the day, beside those that serve.
    fn publish(&self, making: &Making, place: &Path) -> Result<PathBuf, Failure> {
        let model = place.join("candidate").join(&self.config.name);
        let (run, there) = (self.run_of(place), self.version(making.version));
        versions::candidate(&model, &there, making.version, "ams daily", |path| {
            publish_version(
                &run,
                path,
                making.version,
                &self.publication,
                solo(self.locations, self.threads),
            )?;
            Ok(())
        })
    }

    fn run_of(&self, place: &Path) -> PathBuf {
        place.join("runs").join(&self.config.name)
    }

    /// Moves the candidate, with the decision, to where it serves.
    fn take_up(
        &self,
        making: &Making,
        candidate: &Path,
        decision: &Decision,
        entry: &mut Entry,
    ) -> Result<(), Failure> {
        let there = self.version(making.version);
        if candidate != there {
            for name in ["decision.json", MANIFEST] {
                remove_leftovers(candidate, name)?;
            }
            add_decision(candidate, &decision.object())?;
            let base = self.base(making, candidate)?;
            versions::bring(candidate, &there, making.version, base.as_deref(), self.output)?;
        }
        entry.version = Some(making.version);
        entry.hash = Some(Model::open(&there)?.hash().to_owned());
        Ok(())
    }

    /// The version that the candidate is published as a delta of; none if it is published whole.
    fn base(&self, making: &Making, candidate: &Path) -> Result<Option<PathBuf>, Failure> {
        let Some(base) = making.serving.filter(|_| self.config.publish_as == PublishAs::Delta)
        else {
            return Ok(None);
        };
        versions::base(self.version(base), candidate, self.config.whole_every, self.output)
    }

    /// Writes down what was decided, and removes what is kept no longer.
    fn end(&mut self, entry: Entry) -> Result<Entry, Failure> {
        self.state.days.push(entry.clone());
        self.state.making = None;
        self.state.write(&self.file)?;
        self.tell()?;
        self.clean()?;
        Ok(entry)
    }

    /// Writes down beside the versions what was decided.
    fn tell(&self) -> Result<(), Failure> {
        Ok(self.state.told().write(&self.config.models.join(&self.config.name))?)
    }

    /// Removes versions and days beyond those that are kept. The version that serves stays, and so
    /// do the days of versions that are there: a training begins with one of them.
    fn clean(&self) -> Result<(), Failure> {
        let keep = self.config.keep;
        let model = self.config.models.join(&self.config.name);
        let serving = ams_serve::serving_version(&self.config.models, &self.config.name)?;
        let ours = |version| self.state.days.iter().any(|day| day.version == Some(version));
        versions::remove_old(&model, keep, serving, ours)?;
        for folder in [&model, &self.config.work] {
            versions::remove_retired(folder)?;
        }
        let left = whole_versions(&model)?;
        let days = &self.state.days;
        for entry in &days[..days.len().saturating_sub(keep)] {
            let place = self.config.work.join(entry.day.to_string());
            let is_needed = entry.version.is_some_and(|version| left.contains(&version));
            if !is_needed && place.exists() {
                remove_folder(&place)?;
            }
        }
        Ok(())
    }

    fn version(&self, version: u64) -> PathBuf {
        self.config.models.join(&self.config.name).join(version.to_string())
    }

    fn threads_flag(&self) -> OsString {
        format!("--threads={}", self.threads).into()
    }

    fn pool(&self) -> Result<rayon::ThreadPool, Failure> {
        let pool = ThreadPoolBuilder::new().num_threads(self.threads).build();
        pool.map_err(|error| Failure::user(format!("--threads {}: {error}", self.threads)))
    }

    /// Runs another command in this process; what it would print with `--json`.
    fn command(&self, given: Vec<OsString>) -> Result<Value, Failure> {
        let caller = Caller::stopped_by(&self.stop);
        crate::within(&given, self.launch, self.locations, &caller)?;
        Ok(serde_json::from_str(&caller.report()).unwrap_or_default())
    }
}

/// Share of the pictures that the version that serves knows by another content than the store has
/// now; none if it knows none of them.
fn changed(
    dataset: &Dataset,
    store: &FeatureStore,
    serving: &Model,
) -> Result<Option<f64>, Failure> {
    let catalogue = Catalogue::open(dataset)?;
    let (mut known, mut others) = (0u64, 0u64);
    for name in (0..catalogue.len()).filter_map(|row| catalogue.image(row)) {
        let name = PictureName::of(name);
        let (before, now) = (serving.image(name), store.key(name));
        if before.is_some() && now.is_some() {
            known += 1;
            others += u64::from(before != now);
        }
    }
    Ok((known > 0).then(|| others as f64 / known as f64))
}

/// A day in a line, with its reasons below it.
fn words(entry: &Entry) -> String {
    let Entry { day, outcome, reasons, version, .. } = entry;
    let mut words = match (outcome, version) {
        (Outcome::Published, Some(version)) => format!("{day}: published as version {version}"),
        (Outcome::Published, None) => format!("{day}: published"),
        (Outcome::Refused, _) => format!("{day}: refused"),
        (Outcome::Empty, _) => format!("{day}: no event"),
    };
    reasons.iter().for_each(|reason| words += &format!("\n  {reason}"));
    words
}

/// The days as a table.
fn text(report: &Report<'_>) -> String {
    let row = |entry: &Entry| {
        let value = |name: &str| {
            let found = entry.compared.iter().find(|of| of.metric == name);
            let gain = found.and_then(|of| of.gain).map(|gain| format!("{gain:+.4}"));
            [metric(found.and_then(|of| of.new)), gain.unwrap_or_else(|| "-".to_owned())]
        };
        let [gauc, gauc_gain] = value("GAUC");
        let [logloss, logloss_gain] = value("log loss");
        let facts = entry.facts.as_ref();
        let outcome = match (entry.outcome, entry.version) {
            (Outcome::Published, Some(version)) => format!("version {version}"),
            (Outcome::Published, None) => "published".to_owned(),
            (Outcome::Refused, _) => "refused".to_owned(),
            (Outcome::Empty, _) => "no event".to_owned(),
        };
        vec![
            entry.day.to_string(),
            facts.map_or("-".to_owned(), |facts| count(facts.impressions)),
            outcome,
            gauc,
            gauc_gain,
            logloss,
            logloss_gain,
        ]
    };
    let rows: Vec<Vec<String>> = report.days.iter().map(row).collect();
    let header = ["day", "impressions", "outcome", "GAUC", "gain", "log loss", "gain"];
    let serving = report.serving.map_or("none".to_owned(), |version| version.to_string());
    format!("{}version of {} that serves: {serving}\n", table(&header, &rows), report.model)
}
