//! What can be told of a folder of models from its files: by `ams status`, where no server runs,
//! and by the page of the admin port.

use std::path::Path;
use std::time::SystemTime;

use ams_bundle::arrival::{self, Arrival};
use ams_bundle::folder::MANIFEST;
use ams_bundle::{Error, describe, whole_versions};
use ams_daily::{Comparison, Day, Days, Decision, Outcome};
use serde::Serialize;

use super::decisions::{Author, CanaryShare, Decisions, ModelDecisions};
use super::offline::{model_names, serving};

/// A model and its versions.
#[derive(Clone, Debug, Serialize)]
pub struct ModelOverview {
    /// Name of its folder.
    pub model: String,
    /// The version that serves by the files of the folder: a server may have settings of its own,
    /// or refuse it.
    pub serving: Option<u64>,
    /// Whether that was pinned by an operator.
    pub pinned: bool,
    /// The version that a share of the users has.
    pub canary: Option<CanaryShare>,
    /// Who unloaded the model and when, if somebody did.
    pub unloaded: Option<Author>,
    /// The newest day with data that is known of the model, if it is made day by day.
    pub newest_day: Option<Day>,
    /// Days from the data of the version that serves to the newest day.
    pub days_behind: Option<i64>,
    /// What became of the day that was made last.
    pub last_day: Option<DayOverview>,
    /// The last day that was refused.
    pub last_refused: Option<DayOverview>,
    /// Versions, the newest first.
    pub versions: Vec<VersionOverview>,
    /// What could not be read.
    pub problems: Vec<String>,
}

/// What became of a day.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DayOverview {
    /// The day.
    pub day: Day,
    /// What became of it.
    pub outcome: Outcome,
    /// The version of its model, if that was published.
    pub version: Option<u64>,
    /// Why it was refused.
    pub reasons: Vec<String>,
}

/// A version on disk.
#[derive(Clone, Debug, Serialize)]
pub struct VersionOverview {
    /// Its number.
    pub version: u64,
    /// What it does.
    pub state: VersionState,
    /// blake3 over its files; none of one that cannot be read.
    pub hash: Option<String>,
    /// Bytes of its files and its deltas.
    pub bytes: u64,
    /// Number of the last delta that follows.
    pub deltas: u64,
    /// Whether its rates are calibrated.
    pub calibrated: bool,
    /// When its manifest was written, in Unix seconds, where the disk knows it.
    pub published: Option<u64>,
    /// The day of its data, if it was made by `ams daily`.
    pub day: Option<Day>,
    /// The version it was held against.
    pub held_against: Option<u64>,
    /// What the gate compared.
    pub compared: Vec<Comparison>,
    /// Why it may serve.
    pub reasons: Vec<String>,
    /// Who took it back and when, if somebody did.
    pub withdrawn: Option<Author>,
    /// What is wrong with its files.
    pub problem: Option<String>,
}

/// What a version does, by the files of its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VersionState {
    /// It serves.
    Serves,
    /// A share of the users has it.
    Canary,
    /// It does not serve by itself any more.
    Withdrawn,
    /// Its files are not all there.
    Arriving,
    /// Its files cannot be read.
    Broken,
    /// Another one serves.
    Rests,
}

/// What can be told of the models of the folder `models`, in order of their names; of what cannot
/// be read, why. Numbers of versions are not read, so that a damaged one may look whole.
///
/// # Errors
/// If the folder, or what operators decided, cannot be read.
pub fn overview(models: &Path) -> Result<Vec<ModelOverview>, Error> {
    let decisions = Decisions::read(models)?;
    let mut all = Vec::new();
    for name in model_names(models)? {
        let model = of_model(models, &name, &decisions.of(&name));
        // Such as `lost+found`: no model.
        if !model.versions.is_empty() || model.last_day.is_some() || !model.problems.is_empty() {
            all.push(model);
        }
    }
    Ok(all)
}

fn of_model(models: &Path, name: &str, decided: &ModelDecisions) -> ModelOverview {
    let folder = models.join(name);
    let mut problems = Vec::new();
    let mut said = |error: Error| problems.push(error.to_string());
    let found = whole_versions(&folder).map_err(&mut said).unwrap_or_default();
    let days = Days::read(&folder).map_err(&mut said).unwrap_or_default();
    let version = |&version: &u64| of_version(&folder, version, decided);
    let mut versions: Vec<VersionOverview> = found.iter().rev().map(version).collect();
    let is_bad =
        |of: &VersionOverview| matches!(of.state, VersionState::Arriving | VersionState::Broken);
    let good: Vec<u64> =
        versions.iter().rev().filter(|of| !is_bad(of)).map(|of| of.version).collect();
    let serving = serving(&good, decided);
    for of in versions.iter_mut().filter(|of| Some(of.version) == serving) {
        of.state = VersionState::Serves;
    }
    let of_versions = versions.iter().filter_map(|version| version.day).max();
    let newest_day = of_versions.max(days.as_ref().and_then(Days::newest));
    let day = serving.and_then(|serving| versions.iter().find(|of| of.version == serving)?.day);
    let told = |entry: &ams_daily::Entry| DayOverview {
        day: entry.day,
        outcome: entry.outcome,
        version: entry.version,
        reasons: entry.reasons.clone(),
    };
    ModelOverview {
        model: name.to_owned(),
        serving,
        pinned: decided.pinned.as_ref().is_some_and(|pinned| Some(pinned.version) == serving),
        canary: decided.canary.clone(),
        unloaded: decided.unloaded.clone(),
        newest_day,
        days_behind: newest_day.zip(day).map(|(newest, day)| newest.since(day)),
        last_day: days.as_ref().and_then(|days| days.days.last()).map(told),
        last_refused: days.as_ref().and_then(Days::last_refused).map(told),
        versions,
        problems,
    }
}

/// A version, as if another one served.
fn of_version(folder: &Path, version: u64, decided: &ModelDecisions) -> VersionOverview {
    let place = folder.join(version.to_string());
    let withdrawn = decided.withdrawn.get(&version).cloned();
    let is_canary = decided.canary.as_ref().is_some_and(|canary| canary.version == version);
    let mut of = VersionOverview {
        version,
        state: match (is_canary, &withdrawn) {
            (true, _) => VersionState::Canary,
            (false, Some(_)) => VersionState::Withdrawn,
            (false, None) => VersionState::Rests,
        },
        hash: None,
        bytes: 0,
        deltas: 0,
        calibrated: false,
        published: written(&place.join(MANIFEST)),
        day: None,
        held_against: None,
        compared: Vec::new(),
        reasons: Vec::new(),
        withdrawn,
        problem: None,
    };
    match arrival::look(&place) {
        Ok((Arrival::Whole, _)) => {}
        Ok((Arrival::Arriving(what), _)) => {
            (of.state, of.problem) = (VersionState::Arriving, Some(what));
            return of;
        }
        Ok((Arrival::Absent, _)) => {
            of.problem = Some("it is not there any more".to_owned());
            of.state = VersionState::Broken;
            return of;
        }
        // Describing it says what is wrong.
        Err(_) => {}
    }
    match describe(&place) {
        Ok(described) => {
            of.hash = Some(described.hash);
            (of.bytes, of.deltas) = (described.bytes, described.deltas);
            of.calibrated = described.meta.calibrated;
            match described.decision.as_ref().map(Decision::read) {
                Some(Ok(decision)) => {
                    of.day = Some(decision.day);
                    of.held_against = decision.serving.map(|serving| serving.version);
                    (of.compared, of.reasons) = (decision.compared, decision.reasons);
                }
                Some(Err(error)) => of.problem = Some(format!("decision.json: {error}")),
                None => {}
            }
        }
        Err(error) => (of.state, of.problem) = (VersionState::Broken, Some(error.to_string())),
    }
    of
}

/// When a file was written, in Unix seconds.
fn written(path: &Path) -> Option<u64> {
    let written = std::fs::metadata(path).ok()?.modified().ok()?;
    Some(written.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs())
}
