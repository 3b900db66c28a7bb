//! A training with refit: how long, and of which candidate, is found on samples held out; the
//! result is trained on all samples.
//!
//! ```text
//! <name>.search              the model, learned from the users that are not held out, with early stop
//! <name>.search-<candidate>  the same of each candidate, where the configuration lists some
//! <name>                     the best one, from its initial weights, on all samples, for the same
//!                            share of epochs; choice.json says what was compared
//! ```
//! Candidates are compared in their order: a later one takes the place of the best one so far if
//! it predicts the samples held out better by `train.candidate_errors` standard errors.
//! Each is a run like any other, with checkpoints of its own: a killed job goes on in the run that
//! it was at, because those before have ended.

use std::sync::Arc;

use ams_fabric::{Lent, agree, on_first, together};
use ams_model::metrics::Gain;

use crate::error::{Error, Result};
use crate::run::compare::{gain, predict_held_out};
use crate::run::layout::{CHOICE, folder};
use crate::run::mirror;
use crate::run::once::{self, decide};
use crate::run::progress::{Cursor, StepReport};
use crate::run::report::{Choice, RunReport, Searched};
use crate::settings::{Candidate, Config, IdRates, ImageArm, Interactions, Similarity};
use crate::setup::job::{Job, Next, Start, facts_of};
use crate::setup::places::localized;
use crate::setup::sources;

/// As [`super::train`], of a configuration with refit.
pub(super) fn train(
    config: &Config,
    start: Start,
    job: Job,
    watch: &mut dyn FnMut(&StepReport, u64) -> Next,
) -> Result<RunReport> {
    let named = job.run_folder(config);
    let Job { mut fabric, threads, facts, places } = job;
    together(&mut *fabric, config.check())?;
    agree::<Error>(&mut *fabric, &facts_of(config))?;
    let mut fabric = Lent::new(fabric);
    let lend = |fabric: &Lent| Job {
        fabric: Box::new(fabric.clone()),
        threads,
        facts: facts.clone(),
        places: Arc::clone(&places),
    };
    // Before anything is trained; its configuration is not known yet, and is compared later.
    let run = together(&mut fabric, named)?;
    on_first(&mut fabric, || match start {
        Start::Fresh if run.is_kept() => mirror::is_free(&run),
        Start::Fresh => decide(&run, config, start).map(drop),
        Start::Resume | Start::Auto | Start::Replace => Ok(()),
    })?;
    let here = together(&mut fabric, localized(config, &*places))?;
    let (searches, left_out) = searches(config, sources::has_images(&here.data.samples));
    let mut ended = Vec::new();
    for (at, (candidate, search)) in searches.into_iter().enumerate() {
        // With `--resume` there is something of the first one, at least.
        let start = if at > 0 { start.later() } else { start };
        let report = once::train(&search, start, lend(&fabric), watch)?;
        if !report.finished {
            return Ok(report);
        }
        ended.push(Search { candidate, config: search, report });
    }
    let mut alive = || {
        watch(&StepReport::round(Cursor::default()), 0);
    };
    let (chosen, gains) = compare(config, &ended, &|| lend(&fabric), &mut alive)?;
    let found = ended[chosen].report.steps_of_best();
    let RunReport { steps_per_epoch, steps_per_epoch_of_all_users: of_all, .. } =
        ended[chosen].report;
    let steps = scaled(found, steps_per_epoch, of_all);
    let search = ended[chosen].config.clone();
    let searched =
        ended.into_iter().zip(gains).map(|(search, gain)| search.outcome(gain)).collect();
    let refit = refit(config, &search, steps);
    let start = start.later();
    let mut report = once::train(&refit, start, lend(&fabric), watch)?;
    let choice = Choice { searched, chosen, steps, left_out };
    let text = serde_json::to_string_pretty(&choice).expect("numbers are JSON") + "\n";
    on_first(&mut fabric, || {
        ams_data::staging::write_whole(&run.here().join(CHOICE), text)?;
        run.commit(&[], CHOICE)
    })?;
    report.choice = Some(choice);
    Ok(report)
}

/// A training before a refit that has ended.
struct Search {
    candidate: Candidate,
    config: Config,
    report: RunReport,
}

impl Search {
    fn outcome(self, gain: Option<Gain>) -> Searched {
        Searched {
            candidate: self.candidate,
            run: folder(&self.config),
            epochs: self.report.epochs_of_best(),
            validation: self.report.validation,
            gain,
        }
    }
}

/// Which of the trainings is the best one, and of each its gain over the best one before it.
fn compare(
    config: &Config,
    searches: &[Search],
    lend: &dyn Fn() -> Job,
    alive: &mut dyn FnMut(),
) -> Result<(usize, Vec<Option<Gain>>)> {
    let criterion = config.train.early_stop_by;
    let predict = |search: &Search, alive: &mut dyn FnMut()| {
        let job = lend();
        predict_held_out(job.run_folder(&search.config)?.here(), job, alive)
    };
    let mut gains = vec![None; searches.len()];
    let mut chosen = 0;
    if searches.len() < 2 {
        return Ok((chosen, gains));
    }
    let mut best = predict(&searches[0], alive)?;
    for (at, search) in searches.iter().enumerate().skip(1) {
        let now = predict(search, alive)?;
        let gain = gain(criterion, &best, &now, &mut *lend().fabric)?;
        gains[at] = gain;
        let errors = f64::from(config.train.candidate_errors);
        if gain.is_some_and(|gain| gain.gain > errors * gain.error) {
            (chosen, best) = (at, now);
        }
    }
    Ok((chosen, gains))
}

/// `found` of an epoch of `of` steps, in an epoch of `all` steps: the nearest number, at least 1.
fn scaled(found: u64, of: u64, all: u64) -> u64 {
    let (found, of, all) = (u128::from(found), u128::from(of), u128::from(all));
    u64::try_from((found * all + of / 2) / of).expect("steps of a training").max(1)
}

/// The configurations of the trainings before a refit on a dataset that has image features or not,
/// and the candidates that are left out: without features only `ids` can be trained. Where that is
/// no candidate, the training of another one says what is missing.
fn searches(config: &Config, has_images: bool) -> (Vec<(Candidate, Config)>, Vec<Candidate>) {
    let one = |candidate: Candidate, name: String| {
        let mut search = variant(config, candidate);
        search.name = name;
        (search.train.refit, search.train.candidates) = (false, Vec::new());
        search.train.candidate_errors = 0.0;
        (candidate, search)
    };
    let name = &config.name;
    if config.train.candidates.is_empty() {
        return (vec![one(Candidate::Full, format!("{name}.search"))], Vec::new());
    }
    let candidates = &config.train.candidates;
    let without_features =
        config.data.images.is_none() && !has_images && candidates.contains(&Candidate::Ids);
    let (left_out, trained): (Vec<Candidate>, Vec<Candidate>) =
        candidates.iter().partition(|of| without_features && variant(config, **of).needs_store());
    let search = |of: Candidate| one(of, format!("{name}.search-{}", of.as_str()));
    (trained.into_iter().map(search).collect(), left_out)
}

/// `config` with the model of a candidate, and the phases in which something of that learns. What a
/// run writes down names no preset, because a preset would fill what a candidate leaves out.
fn variant(config: &Config, candidate: Candidate) -> Config {
    let mut config = config.clone();
    let model = &mut config.model;
    model.preset = None;
    match candidate {
        Candidate::Full => {}
        Candidate::Similarity => {
            model.network.images = ImageArm::None;
            // No tower, whose embeddings it would be of.
            config.align.iter_mut().for_each(|align| align.weight = 0.0);
        }
        Candidate::Ids => {
            let network = &mut model.network;
            let levels = 1..=network.semantic_ids;
            let semantic: Vec<String> = levels.map(|level| format!("semantic_{level}")).collect();
            if let Some(fields) = &mut model.query_fields {
                fields.retain(|name| !semantic.contains(name));
            }
            model.query_fields.take_if(|fields| fields.is_empty() && !semantic.is_empty());
            if let IdRates::Fields(rates) = &mut network.id_dropout {
                rates.retain(|name, _| !semantic.contains(name));
            }
            (network.images, network.similarity) = (ImageArm::None, Similarity::None);
            network.interactions = Interactions::None;
            (network.attention_cosine, network.semantic_ids) = (false, 0);
            (model.pca, model.projection) = (None, None);
            config.align = None;
            config.data.contents.clear();
        }
    }
    config.leave_out_idle_phases();
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
