//! `ams eval`: how good a trained model is on days it has not seen.

use std::path::PathBuf;

use ams_bundle::{Evaluation, evaluate};
use ams_data::Id;
use ams_data::dataset::SplitName;
use ams_fabric::Solo;
use ams_train::{Trainer, run};

use crate::commands::train::{thread_count, threads};
use crate::failure::Failure;
use crate::output::{Output, count, metric, table};

/// Evaluate a run: AUC, GAUC, log loss, calibration, and slices.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The run folder.
    run: PathBuf,
    /// What to predict.
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

/// Runs the command.
pub fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let mut trainer = run::open(&arguments.run, Box::new(Solo), threads(arguments.threads))?;
    let split = match arguments.split {
        Split::Train => SplitName::Train,
        Split::Test => SplitName::Test,
    };
    let path = arguments.run.join("predictions").join(format!("{}.parquet", split.as_str()));
    let evaluation = evaluate_run(&mut trainer, split, Some(&path))?;
    output.finish(&evaluation, || text(&evaluation));
    Ok(())
}

/// Predicts a split, keeps the predictions at `path` if there is one, and evaluates them.
pub fn evaluate_run(
    trainer: &mut Trainer,
    split: SplitName,
    path: Option<&std::path::Path>,
) -> Result<Evaluation, Failure> {
    let predictions = trainer.evaluate(split)?;
    if let Some(path) = path {
        predictions.write(path)?;
    }
    let seen = trainer.dataset().item_counts(SplitName::Train)?;
    Ok(evaluate(&predictions, &|item| seen.get(&Id(item)).copied().unwrap_or(0)))
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
