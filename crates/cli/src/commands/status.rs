//! `ams status`: the models of a folder, as somebody wants to see them on a Monday morning.

use std::path::PathBuf;
use std::time::SystemTime;

use ams_bundle::Error;
use ams_daily::{Comparison, Outcome};
use ams_serve::{ModelOverview, VersionOverview, VersionState, overview};
use serde::Serialize;

use crate::failure::Failure;
use crate::locations::here;
use crate::output::{Output, bytes, table};

/// Tell of the models of a folder: which version serves, how old its data are, what the gate found,
/// what was taken back or refused, and why.
///
/// Exit code 3: the last day of a model was refused.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder that holds the models.
    models: PathBuf,
    /// Only this model.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    models: Vec<ModelOverview>,
}

pub(crate) fn run(arguments: &Arguments, output: Output<'_>) -> Result<(), Failure> {
    here("MODELS", &arguments.models, "name a copy of the folder")?;
    let mut models = overview(&arguments.models)?;
    if let Some(name) = &arguments.model {
        let known: Vec<String> = models.iter().map(|model| model.model.clone()).collect();
        models.retain(|model| model.model == *name);
        if models.is_empty() {
            let what = format!("has no model `{name}`, expected one of: {}", known.join(", "));
            return Err(Error::content(&arguments.models, what).into());
        }
    }
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = since.map_or(0, |since| since.as_secs());
    let report = Report { models };
    output.finish(&report, || text(&report, now));
    let refused: Vec<String> = report
        .models
        .iter()
        .filter_map(|model| {
            let last = model.last_day.as_ref()?;
            (last.outcome == Outcome::Refused).then(|| format!("{} of {}", last.day, model.model))
        })
        .collect();
    if refused.is_empty() {
        return Ok(());
    }
    Err(Failure::Refused(format!("refused: {}", refused.join(", "))))
}

fn text(report: &Report, now: u64) -> String {
    if report.models.is_empty() {
        return "no model\n".to_owned();
    }
    let models: Vec<String> = report.models.iter().map(|model| of_model(model, now)).collect();
    models.join("\n")
}

fn of_model(model: &ModelOverview, now: u64) -> String {
    let mut text = format!("{}: {}\n", model.model, serves(model, now));
    let mut say = |line: String| text += &format!("  {line}\n");
    if let Some(canary) = &model.canary {
        say(format!("version {} answers {} of 100 users", canary.version, canary.percent));
    }
    let last = model.last_day.as_ref();
    let last_refused = last.filter(|last| last.outcome == Outcome::Refused);
    if let Some(refused) = last_refused.or(model.last_refused.as_ref()) {
        let which = if last_refused.is_some() { "the last day" } else { "the last refused day" };
        say(format!("{which}, {}, was refused: {}", refused.day, refused.reasons.join("; ")));
    }
    for version in &model.versions {
        if let Some(withdrawn) = &version.withdrawn {
            let ago = ago(now, withdrawn.at);
            say(format!("version {} was taken back by {}, {ago}", version.version, withdrawn.by));
        }
        if let Some(problem) = &version.problem {
            say(format!("version {}: {problem}", version.version));
        }
    }
    model.problems.iter().for_each(|problem| say(problem.clone()));
    if model.versions.is_empty() {
        return text;
    }
    let header =
        ["version", "data of", "published", "GAUC gain by the gate", "size", "deltas", "state"];
    let rows: Vec<Vec<String>> = model.versions.iter().map(|version| row(version, now)).collect();
    text + &table(&header, &rows)
}

/// Which version serves, and how fresh it is.
fn serves(model: &ModelOverview, now: u64) -> String {
    if let Some(unloaded) = &model.unloaded {
        return format!("not served, unloaded by {}, {}", unloaded.by, ago(now, unloaded.at));
    }
    let Some(serving) = model.serving else { return "no version serves".to_owned() };
    let mut words = format!("version {serving} serves");
    if model.pinned {
        words += " (pinned)";
    }
    let day = model.versions.iter().find(|of| of.version == serving).and_then(|of| of.day);
    if let Some(day) = day {
        words += &format!(", data of {day}");
    }
    match (model.days_behind, model.newest_day) {
        (Some(0), _) => words += ", the newest day",
        (Some(behind), Some(newest)) => {
            words += &format!(", {} behind the newest day {newest}", days(behind));
        }
        _ => {}
    }
    words
}

fn row(version: &VersionOverview, now: u64) -> Vec<String> {
    let dash = || "-".to_owned();
    let gauc = version.compared.iter().find(|of| of.metric == "GAUC");
    let state = match version.state {
        VersionState::Serves => "serves",
        VersionState::Canary => "canary",
        VersionState::Withdrawn => "taken back",
        VersionState::Arriving => "arriving",
        VersionState::Broken => "broken",
        VersionState::Rests => "",
    };
    vec![
        version.version.to_string(),
        version.day.map_or_else(dash, |day| day.to_string()),
        version.published.map_or_else(dash, |at| ago(now, at)),
        gauc.and_then(gain).unwrap_or_else(dash),
        bytes(version.bytes as f64),
        version.deltas.to_string(),
        state.to_owned(),
    ]
}

/// A gain and its interval.
fn gain(of: &Comparison) -> Option<String> {
    let gain = of.gain?;
    let interval = of.interval.map(|[low, high]| format!(" [{low:+.4}, {high:+.4}]"));
    Some(format!("{gain:+.4}{}", interval.unwrap_or_default()))
}

/// How long before `now` something was, both in Unix seconds.
fn ago(now: u64, at: u64) -> String {
    let seconds = now.saturating_sub(at);
    match (seconds / 60, seconds / 3600) {
        (minutes, _) if minutes < 120 => format!("{minutes} min ago"),
        (_, hours) if hours < 48 => format!("{hours} h ago"),
        (_, hours) => format!("{} ago", days((hours / 24) as i64)),
    }
}

fn days(count: i64) -> String {
    if count == 1 { "1 day".to_owned() } else { format!("{count} days") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_do() {
        for (seconds, expected) in [
            (0, "0 min ago"),
            (7_199, "119 min ago"),
            (7_200, "2 h ago"),
            (172_799, "47 h ago"),
            (172_800, "2 days ago"),
        ] {
            assert_eq!(ago(1_000_000, 1_000_000 - seconds), expected);
        }
        assert_eq!((ago(5, 9), days(1)), ("0 min ago".to_owned(), "1 day".to_owned()));
    }
}
