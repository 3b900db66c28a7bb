//! `ams eval`: how good a trained model is on days it has not seen.

use std::path::{Path, PathBuf};

use ams_bundle::{Evaluation, Retrieval, Seen, evaluate, retrieval};
use ams_data::Id;
use ams_data::dataset::SplitName;
use ams_location::Locations;
use ams_train::run;
use ams_train::{Job, Trainer};
use serde::Serialize;

use crate::commands::publish::frozen;

use crate::failure::Failure;
use crate::launch::{Launch, threads};
use crate::locations::{places, run_here};
use crate::output::{Output, count, metric, table};
use crate::threads::thread_count;

mod off_policy;

/// Evaluate a run: AUC, GAUC, log loss, calibration, and slices; or a policy by a log with
/// propensities.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder of a finished run, as `ams train` writes it.
    #[arg(required_unless_present = "ope")]
    run: Option<PathBuf>,
    /// The split whose impressions are predicted.
    #[arg(long, value_enum, default_value_t = Split::Test)]
    split: Split,
    /// Rank all items too, by the vectors of a pre-rank network: Recall@K and NDCG@K.
    #[arg(long, conflicts_with = "ope")]
    full_ranking: bool,
    /// The values of K.
    #[arg(long, value_name = "K", value_delimiter = ',', default_value = "10,20,50", requires = "full_ranking",
        value_parser = clap::value_parser!(u32).range(1..))]
    at: Vec<u32>,
    /// What to do with items that a user had in training.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = SeenName::Excluded, requires = "full_ranking")]
    seen: SeenName,
    /// Threads; as many as there are cores unless given.
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
    #[command(flatten)]
    ope: off_policy::OpeArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Split {
    Train,
    Test,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum SeenName {
    /// They are left out.
    Excluded,
    /// They are ranked as any other.
    Ranked,
}

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    evaluation: Evaluation,
    #[serde(skip_serializing_if = "Option::is_none")]
    full_ranking: Option<Retrieval>,
}

pub(crate) fn run(
    arguments: Arguments,
    launch: &Launch,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    let run = arguments.run.as_deref();
    match run {
        Some(run) if arguments.ope.ope.is_empty() => {
            split_of_run(&arguments, run, launch, locations, output)
        }
        _ => {
            off_policy::evaluate(&arguments.ope, run, arguments.threads, launch, locations, output)
        }
    }
}

fn split_of_run(
    arguments: &Arguments,
    run: &Path,
    launch: &Launch,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    if arguments.full_ranking {
        launch.one_process("ams eval --full-ranking")?;
    }
    let job = launch.job(threads(arguments.threads));
    let job = Job { places: places(locations), ..job };
    let mut trainer = run::open(&run_here(locations, run)?, job)?;
    let split = match arguments.split {
        Split::Train => SplitName::Train,
        Split::Test => SplitName::Test,
    };
    let name = format!("{}.parquet", split.as_str());
    let place = locations.destination(&run.join("predictions").join(name), true)?;
    if let Some(evaluation) = evaluate_run(&mut trainer, split, place.local())? {
        let full_ranking = match arguments.full_ranking {
            true => Some(full_ranking(&mut trainer, split, arguments)?),
            false => None,
        };
        place.publish()?;
        let report = Report { evaluation, full_ranking };
        output.finish(&report, || {
            let ranked = report.full_ranking.as_ref().map(ranking_text).unwrap_or_default();
            text(&report.evaluation) + &ranked
        });
    }
    Ok(())
}

/// Predicts a split on all processes of the job; the first one keeps the predictions at `path`
/// and evaluates them.
pub(crate) fn evaluate_run(
    trainer: &mut Trainer,
    split: SplitName,
    path: &Path,
) -> Result<Option<Evaluation>, Failure> {
    let predictions = trainer.evaluate(split)?;
    if trainer.rank() > 0 {
        return Ok(None);
    }
    predictions.write(path)?;
    let seen = trainer.dataset().item_counts(SplitName::Train)?;
    let frequency = |item| seen.get(&Id(item)).copied().unwrap_or(0);
    Ok(Some(trainer.pool().install(|| evaluate(&predictions, &frequency))))
}

fn full_ranking(
    trainer: &mut Trainer,
    split: SplitName,
    arguments: &Arguments,
) -> Result<Retrieval, Failure> {
    let ks: Vec<usize> = arguments.at.iter().map(|&k| k as usize).collect();
    let seen = match arguments.seen {
        SeenName::Excluded => Seen::Excluded,
        SeenName::Ranked => Seen::Ranked,
    };
    let (_folder, model) = frozen(trainer)?;
    let dataset = trainer.dataset().clone();
    let pool = trainer.pool();
    Ok(pool.install(|| retrieval(&model, &dataset, split, &ks, seen))?)
}

fn ranking_text(found: &Retrieval) -> String {
    let rows: Vec<Vec<String>> = found
        .at
        .iter()
        .map(|at| vec![at.k.to_string(), metric(Some(at.recall)), metric(Some(at.ndcg))])
        .collect();
    let seen = match found.seen {
        Seen::Excluded => "without those of their training",
        Seen::Ranked => "with those of their training",
    };
    format!(
        "{}{} users, {} items {seen}\n",
        table(&["K", "Recall@K", "NDCG@K"], &rows),
        count(found.users),
        count(found.items),
    )
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
