//! `ams bench agree`: whether trainer, bundle and server give one score.

use std::path::PathBuf;

use ams_bundle::{Model, PageView, Scratch};
use ams_data::dataset::{Dataset, SplitName};
use ams_data::samples::{TextGroup, read_texts};
use ams_serve::post_each;
use ams_train::Job;
use ams_train::run;
use serde::{Deserialize, Serialize};

use crate::commands::publish::page;
use crate::failure::Failure;
use crate::launch::{Launch, threads};
use crate::output::{Output, count};

/// Compare three click-through rates of every impression of a run's test: those of the trainer, of
/// the bundle and, with --url, of a server.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder of a finished run, as `ams train` writes it.
    run: PathBuf,
    /// The bundle that was published from the run: a version folder, or a model folder for its
    /// newest version.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A server that has the model, such as http://127.0.0.1:8600.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// How many impressions, the first of the test.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    impressions: u32,
}

/// What was compared; differences of click-through rates.
#[derive(Debug, Serialize)]
struct Agreement {
    impressions: usize,
    /// Largest difference of bundle and trainer.
    bundle_to_trainer: f64,
    /// Largest difference of server and bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_to_bundle: Option<f64>,
    /// The sum of the bundle's rates.
    ctr_sum: f64,
}

/// What is read of an answer.
#[derive(Deserialize)]
struct Answer {
    ctr: Vec<f32>,
}

pub(crate) fn run(
    arguments: Arguments,
    launch: &Launch,
    output: Output<'_>,
) -> Result<(), Failure> {
    launch.one_process("ams bench agree")?;
    let mut trainer = run::open(&arguments.run, Job::solo(threads(None)))?;
    let predicted = trainer.evaluate(SplitName::Test)?;
    let model = Model::open(&arguments.model)?;
    let pages = pages(trainer.dataset(), arguments.impressions as usize)?;
    let mut scratch = Scratch::default();
    let (mut rates, mut one) = (Vec::with_capacity(pages.len()), Vec::new());
    for page in &pages {
        model.ctrs(page, &mut scratch, &mut one)?;
        rates.extend_from_slice(&one);
    }
    let mut trained = predicted.logits;
    model.rates(&mut trained);
    let far = |a: f32, b: f32| (f64::from(a) - f64::from(b)).abs();
    let farthest = |distances: &mut dyn Iterator<Item = f64>| distances.fold(0.0, f64::max);
    let bundle_to_trainer = farthest(&mut rates.iter().zip(trained).map(|(&a, b)| far(a, b)));
    let server_to_bundle = match &arguments.url {
        None => None,
        Some(url) => {
            let url = format!("{}/v1/models/{}/score", url.trim_end_matches('/'), model.name());
            let json = |page| serde_json::to_vec(page).expect("page views are JSON");
            let answers = post_each(&url, pages.iter().map(json)).map_err(Failure::user)?;
            let rate = |answer: &Vec<u8>| match serde_json::from_slice::<Answer>(answer) {
                Ok(Answer { ctr }) if ctr.len() == 1 => Ok(ctr[0]),
                _ => Err(Failure::user(format!("{url}: {}", String::from_utf8_lossy(answer)))),
            };
            let served = answers.iter().map(rate).collect::<Result<Vec<f32>, _>>()?;
            Some(farthest(&mut served.iter().zip(&rates).map(|(&a, &b)| far(a, b))))
        }
    };
    let agreement = Agreement {
        impressions: rates.len(),
        bundle_to_trainer,
        server_to_bundle,
        ctr_sum: rates.iter().map(|&rate| f64::from(rate)).sum(),
    };
    output.finish(&agreement, || {
        let server = agreement
            .server_to_bundle
            .map_or(String::new(), |it| format!("; server and bundle by {it:e} at most"));
        format!(
            "{} impressions: bundle and trainer differ by {:e} at most{server}\n",
            count(agreement.impressions as u64),
            agreement.bundle_to_trainer
        )
    });
    Ok(())
}

/// The first impressions of the test as page views of one candidate, in the order of the trainer's
/// predictions.
fn pages(dataset: &Dataset, most: usize) -> Result<Vec<PageView>, Failure> {
    let mut pages = Vec::new();
    for part in 0..dataset.card().parts {
        let path = dataset.part_path(SplitName::Test, part);
        if pages.len() >= most || !path.exists() {
            continue;
        }
        for group in read_texts(&path, dataset.schema(), usize::MAX, |_| true)? {
            let of_one = |shown| TextGroup { impressions: vec![shown], ..group.clone() };
            // The ages of behaviors are those before the first impression of the group.
            let time = group.impressions.first().map(|first| first.time);
            let page = |shown| PageView { time, ..page(&of_one(shown)) };
            pages.extend(group.impressions.iter().cloned().map(page));
        }
    }
    pages.truncate(most);
    Ok(pages)
}
