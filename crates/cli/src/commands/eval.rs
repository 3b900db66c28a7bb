//! `ams eval`: how good a trained model is on days it has not seen.

use std::path::PathBuf;

use ams_bundle::{Evaluation, evaluate};
use ams_data::Id;
use ams_data::dataset::SplitName;
use ams_location::Locations;
use ams_train::Trainer;
use ams_train::run;

use crate::failure::Failure;
use crate::launch::{Launch, threads};
use crate::output::{Output, count, metric, table};
use crate::threads::thread_count;

/// Evaluate a run: AUC, GAUC, log loss, calibration, and slices.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder of a finished run, as `ams train` writes it.
    run: PathBuf,
    /// The split whose impressions are predicted.
    #[arg(long, value_enum, default_value_t = Split::Test)]
    split: Split,
    /// Threads; as many as there are cores unless given.
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Split {
    Train,
    Test,
}

pub(crate) fn run(
    arguments: Arguments,
    launch: &Launch,
    locations: &Locations,
    output: Output,
) -> Result<(), Failure> {
    let mut trainer =
        run::open(&locations.input(&arguments.run)?, launch.job(threads(arguments.threads)))?;
    let split = match arguments.split {
        Split::Train => SplitName::Train,
        Split::Test => SplitName::Test,
    };
    let name = format!("{}.parquet", split.as_str());
    let place = locations.destination(&arguments.run.join("predictions").join(name), true)?;
    if let Some(evaluation) = evaluate_run(&mut trainer, split, Some(place.local()))? {
        place.publish()?;
        output.finish(&evaluation, || text(&evaluation));
    }
    Ok(())
}

/// Predicts a split on all processes of the job; the first one keeps the predictions at `path` if
/// there is one, and evaluates them.
pub(crate) fn evaluate_run(
    trainer: &mut Trainer,
    split: SplitName,
    path: Option<&std::path::Path>,
) -> Result<Option<Evaluation>, Failure> {
    let predictions = trainer.evaluate(split)?;
    if trainer.rank() > 0 {
        return Ok(None);
    }
    if let Some(path) = path {
        predictions.write(path)?;
    }
    let seen = trainer.dataset().item_counts(SplitName::Train)?;
    let frequency = |item| seen.get(&Id(item)).copied().unwrap_or(0);
    Ok(Some(trainer.pool().install(|| evaluate(&predictions, &frequency))))
}

fn text(evaluation: &Evaluation) -> String {
    let row = |name: &str, impressions: u64, auc, gauc, logloss| {
        vec![name.to_owned(), count(impressions), metric(gauc), metric(auc), metric(logloss)]
    };
    let all = &evaluation.all;
    let mut rows = vec![row("all", all.impressions, all.auc, all.gauc, all.logloss)];
    for slice in &evaluation.slices {
        rows.push(row(&slice.name, slice.impressions, slice.auc, slice.gauc, slice.logloss));
    }
    format!(
        "{}normalized entropy {}, calibration {}, {} users ({} with one class only, left out of GAUC)\n",
        table(&["slice", "impressions", "GAUC", "AUC", "log loss"], &rows),
        metric(all.ne),
        metric(all.calibration),
        count(all.users),
        count(all.users_without_auc),
    )
}
