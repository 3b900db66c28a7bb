//! A training with refit: how long, and of which candidate, is found on samples held out; the
//! result is trained on all samples.
//!
//! ```text
//! <name>.search              the model, learned from the users that are not held out, with early stop
//! <name>.search-<candidate>  the same of each candidate, where the configuration lists some
//! <name>                     the best one, from its initial weights, on all samples, for the same
//!                            share of epochs; choice.json says what was compared
//! ```
//! Each is a run like any other, with checkpoints of its own: a killed job goes on in the run that
//! it was at, because those before have ended.

use ams_fabric::{Lent, agree, on_first, together};

use crate::error::{Error, Result};
use crate::run::layout::{CHOICE, folder};
use crate::run::once::{self, decide};
use crate::run::progress::StepReport;
use crate::run::report::{Choice, RunReport, Searched};
use crate::settings::{Candidate, Config, Criterion, ImageArm, Interactions, Similarity};
use crate::setup::job::{Job, Next, Start, facts_of};
use crate::setup::sources;

/// As [`super::train`], of a configuration with refit.
pub(super) fn train(
    config: &Config,
    start: Start,
    job: Job,
    watch: &mut dyn FnMut(&StepReport, u64) -> Next,
) -> Result<RunReport> {
    let Job { mut fabric, threads, facts } = job;
    together(&mut *fabric, config.check())?;
    agree::<Error>(&mut *fabric, &facts_of(config))?;
    let mut fabric = Lent::new(fabric);
    let lend =
        |fabric: &Lent| Job { fabric: Box::new(fabric.clone()), threads, facts: facts.clone() };
    // Before anything is trained; its configuration is not known yet, and is compared later.
    on_first(&mut fabric, || match start {
        Start::Fresh => decide(&folder(config), config, start).map(drop),
        Start::Resume | Start::Auto | Start::Replace => Ok(()),
    })?;
    let mut searched = Vec::new();
    let mut best: Option<(usize, Config, RunReport)> = None;
    let (searches, left_out) = searches(config);
    for (at, (candidate, search)) in searches.into_iter().enumerate() {
        // With `--resume` there is something of the first one, at least.
        let start = if at > 0 { resumed(start) } else { start };
        let report = once::train(&search, start, lend(&fabric), watch)?;
        if !report.finished {
            return Ok(report);
        }
        searched.push(Searched {
            candidate,
            run: folder(&search),
            epochs: report.best_step.unwrap_or(report.steps) as f64 / report.steps_per_epoch as f64,
            validation: report.validation,
        });
        let by = |report: &RunReport| goodness(report, config.train.early_stop_by);
        if best.as_ref().is_none_or(|(_, _, best)| by(&report) > by(best)) {
            best = Some((at, search, report));
        }
    }
    let (chosen, search, report) = best.expect("there is always a candidate");
    let found = report.best_step.unwrap_or(report.steps);
    let steps = scaled(found, report.steps_per_epoch, report.steps_per_epoch_of_all_users);
    let refit = refit(config, &search, steps);
    let start = resumed(start);
    let mut report = once::train(&refit, start, lend(&fabric), watch)?;
    let choice = Choice { searched, chosen, steps, left_out };
    let text = serde_json::to_string_pretty(&choice).expect("numbers are JSON") + "\n";
    let path = folder(&refit).join(CHOICE);
    on_first(&mut fabric, || ams_data::staging::write_whole(&path, text).map_err(Error::from))?;
    report.choice = Some(choice);
    Ok(report)
}

/// How a later training starts, where an earlier one of the same job was resumed: it may not have
/// begun.
fn resumed(start: Start) -> Start {
    match start {
        Start::Resume => Start::Auto,
        Start::Fresh | Start::Auto | Start::Replace => start,
    }
}

/// How good the best evaluation is; less than any without one.
fn goodness(report: &RunReport, criterion: Criterion) -> f64 {
    report.validation.and_then(|validation| validation.by(criterion)).unwrap_or(f64::NEG_INFINITY)
}

/// `found` of an epoch of `of` steps, in an epoch of `all` steps: the nearest number, at least 1.
fn scaled(found: u64, of: u64, all: u64) -> u64 {
    let (found, of, all) = (u128::from(found), u128::from(of), u128::from(all));
    u64::try_from((found * all + of / 2) / of).expect("steps of a training").max(1)
}

/// The configurations of the trainings before a refit, and the candidates that are left out:
/// without image features only `ids` can be trained. Where that is no candidate, the training of
/// another one says what is missing.
fn searches(config: &Config) -> (Vec<(Candidate, Config)>, Vec<Candidate>) {
    let one = |candidate: Candidate, name: String| {
        let mut search = variant(config, candidate);
        search.name = name;
        (search.train.refit, search.train.candidates) = (false, Vec::new());
        (candidate, search)
    };
    let name = &config.name;
    if config.train.candidates.is_empty() {
        return (vec![one(Candidate::Full, format!("{name}.search"))], Vec::new());
    }
    let candidates = &config.train.candidates;
    let without_features = config.data.images.is_none()
        && !sources::has_images(&config.data.samples)
        && candidates.contains(&Candidate::Ids);
    let (left_out, trained): (Vec<Candidate>, Vec<Candidate>) =
        candidates.iter().partition(|of| without_features && variant(config, **of).needs_images());
    let search = |of: Candidate| one(of, format!("{name}.search-{}", of.as_str()));
    (trained.into_iter().map(search).collect(), left_out)
}

/// `config` with the model of a candidate. What a run writes down names no preset, because a
/// preset would fill what a candidate leaves out.
fn variant(config: &Config, candidate: Candidate) -> Config {
    let mut config = config.clone();
    let model = &mut config.model;
    model.preset = None;
    match candidate {
        Candidate::Full => {}
        Candidate::Similarity => model.network.images = ImageArm::None,
        Candidate::Ids => {
            let network = &mut model.network;
            (network.images, network.similarity) = (ImageArm::None, Similarity::None);
            network.interactions = Interactions::None;
            (model.pca, model.projection) = (None, None);
            config.align = None;
            config.data.contents.clear();
        }
    }
    config
}

/// The configuration of the refit: the model of `search`, on all samples, for `steps`.
fn refit(config: &Config, search: &Config, steps: u64) -> Config {
    let mut refit = search.clone();
    refit.name.clone_from(&config.name);
    let train = &mut refit.train;
    (train.validation_parts, train.validation_tail) = (0, 0.0);
    (train.early_stop, train.evaluations_per_epoch) = (None, 1);
    train.max_steps = Some(steps);
    refit
}
