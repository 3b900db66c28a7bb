//! `ams eval --ope`: the worth of a policy, by the log of another one.

use std::path::{Path, PathBuf};

use ams_bundle::{
    Choice, Estimate, Evaluated, LogOptions, Model, OffPolicy, Requests, RewardModel, Weighing,
    off_policy,
};
use ams_data::propensities::{Columns, Further};
use ams_data::source::{TableOptions, open_all};
use ams_location::Locations;
use ams_model::metrics::{Bootstrap, Interval};
use ams_train::Job;

use crate::commands::publish::frozen;
use crate::failure::Failure;
use crate::launch::{Launch, threads};
use crate::locations::{places, run_here, version};
use crate::output::{Output, count, metric, table};

/// Off-policy evaluation: the log, the policy, the model of rewards.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Off-policy evaluation (docs/off-policy.md)")]
pub(crate) struct OpeArguments {
    /// Estimate the mean reward of a policy from a log with propensities: a file, a folder, a
    /// pattern or an address in a bucket.
    #[arg(long, value_name = "LOG")]
    pub(super) ope: Vec<PathBuf>,
    /// The policy: a bundle, a version folder or a model folder for its newest version; instead of
    /// a run.
    #[arg(long, value_name = "DIR", requires = "ope", conflicts_with = "run")]
    policy: Option<PathBuf>,
    /// The policy: a column of the log with its probabilities of the candidates.
    #[arg(long, value_name = "COLUMN", requires = "ope", conflicts_with_all = ["run", "policy"])]
    policy_probabilities: Option<String>,
    /// Choose by eCPM to the power of 1/T. Without it and --top-k: always the best one.
    #[arg(long, value_name = "T", requires = "ope", value_parser = temperature)]
    temperature: Option<f64>,
    /// Choose among the K best ones; all of the same chance without --temperature.
    #[arg(long, value_name = "K", requires = "ope", value_parser = clap::value_parser!(u32).range(1..))]
    top_k: Option<u32>,
    /// Choose any candidate with this probability.
    #[arg(long, value_name = "SHARE", requires = "ope", default_value_t = 0.0, value_parser = share)]
    epsilon: f64,
    /// The page views of the log: JSON lines, each a request and its `page`.
    #[arg(long, value_name = "FILE", requires = "ope")]
    requests: Option<PathBuf>,
    /// Expected rewards of the candidates: a column of the log, instead of the model's rates.
    #[arg(long, value_name = "COLUMN", requires = "ope")]
    expected: Option<String>,
    /// Expected rewards are the rates of this bundle, not the policy's.
    #[arg(long, value_name = "DIR", requires = "ope", conflicts_with = "expected")]
    reward_model: Option<PathBuf>,
    /// Names of columns other than user, item, page, position, time, clicked, propensity,
    /// candidates, probabilities, request; `page=` leaves one out.
    #[arg(long, value_name = "MEANING=NAME", value_delimiter = ',', requires = "ope")]
    columns: Vec<String>,
    /// Whether the weight of an impression is its position's, or the product of those down to it.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = WeighingName::Position, requires = "ope")]
    weighing: WeighingName,
    /// Draws of users for intervals.
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "ope",
        value_parser = clap::value_parser!(u32).range(40..=100_000))]
    bootstrap: u32,
    /// The seed of the draws.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "ope")]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum WeighingName {
    /// Each position by itself, below what the log shows above it.
    Position,
    /// As if the policy had filled the page down to the position.
    Page,
}

fn temperature(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "expected a number above 0".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "expected 0 to 1".to_owned())
}

/// Evaluates the policy that `arguments` or the folder `run` name.
pub(super) fn evaluate(
    arguments: &OpeArguments,
    run: Option<&Path>,
    thread_count: Option<usize>,
    launch: &Launch,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    launch.one_process("ams eval --ope")?;
    let columns = Columns::renamed(arguments.columns.iter().map(String::as_str))?;
    let requests = arguments.requests.as_ref();
    let requests =
        requests.map(|path| Requests::read(&locations.input(path)?).map_err(Failure::from));
    let requests = requests.transpose()?;
    // The folder is there as long as its model.
    let (_folder, model) = match (run, &arguments.policy) {
        (Some(run), _) => {
            let job = Job { places: places(locations), ..launch.job(threads(thread_count)) };
            let mut trainer = ams_train::run::open(&run_here(locations, run)?, job)?;
            let (folder, model) = frozen(&mut trainer)?;
            (Some(folder), Some(model))
        }
        (None, Some(policy)) => (None, Some(Model::open(&version(locations, policy)?)?)),
        (None, None) => (None, None),
    };
    let reward_model = arguments.reward_model.as_ref();
    let reward_model =
        reward_model.map(|named| Ok::<_, Failure>(Model::open(&version(locations, named)?)?));
    let reward_model = reward_model.transpose()?;
    let rewards = match (&arguments.expected, &reward_model, &model) {
        (Some(_), _, _) => RewardModel::Column,
        (None, Some(model), _) | (None, None, Some(model)) => RewardModel::Model(model),
        (None, None, None) => RewardModel::None,
    };
    let (policy, words) = policy(arguments, model.as_ref())?;
    let options = LogOptions {
        columns,
        further: Further {
            policy: arguments.policy_probabilities.clone(),
            expected: arguments.expected.clone(),
        },
        weighing: match arguments.weighing {
            WeighingName::Position => Weighing::Position,
            WeighingName::Page => Weighing::Page,
        },
        bootstrap: Bootstrap { replicates: arguments.bootstrap as usize, seed: arguments.seed },
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads(thread_count)).build();
    let pool = pool.map_err(|error| Failure::user(format!("no threads: {error}")))?;
    let found = pool.install(|| -> Result<OffPolicy, Failure> {
        let log = open_all(locations, &arguments.ope, &TableOptions::default())?;
        Ok(off_policy(&*log, policy, rewards, requests.as_ref(), &options)?)
    })?;
    output.finish(&found, || text(&found, &words));
    Ok(())
}

/// The policy, and its words.
fn policy<'a>(
    arguments: &OpeArguments,
    model: Option<&'a Model>,
) -> Result<(Evaluated<'a>, String), Failure> {
    let OpeArguments { temperature, top_k, epsilon, .. } = *arguments;
    let Some(model) = model else {
        let Some(column) = &arguments.policy_probabilities else {
            let what = "--ope needs a policy: a run, --policy DIR or --policy-probabilities COLUMN";
            return Err(Failure::user(what));
        };
        if temperature.is_some() || top_k.is_some() || epsilon > 0.0 {
            let what = "--temperature, --top-k and --epsilon make a policy of a model; --policy-probabilities is one";
            return Err(Failure::user(what));
        }
        return Ok((Evaluated::Column, format!("the column `{column}`")));
    };
    let best = match (top_k, temperature) {
        (Some(top), _) => top as usize,
        (None, Some(_)) => usize::MAX,
        (None, None) => 1,
    };
    let among = match best {
        1 => "the best one".to_owned(),
        usize::MAX => "all".to_owned(),
        best => format!("the best {best}"),
    };
    let chance = temperature.map_or(String::new(), |of| format!(", temperature {of}"));
    let any = if epsilon > 0.0 { format!(", any with {epsilon}") } else { String::new() };
    let words = format!("{} version {}, {among}{chance}{any}", model.name(), model.version());
    let choice = Choice { temperature, top_k: best, epsilon };
    Ok((Evaluated::Model { model, choice }, words))
}

/// A value with its interval.
fn interval(of: Option<Interval>) -> String {
    match of {
        Some(Interval { mean, low: Some(low), high: Some(high) }) => {
            format!("{mean:.5} [{low:.5}, {high:.5}]")
        }
        Some(Interval { mean, .. }) => format!("{mean:.5}"),
        None => metric(None),
    }
}

fn text(found: &OffPolicy, words: &str) -> String {
    let row = |name: &str, value, lift: String| vec![name.to_owned(), interval(value), lift];
    let mut rows = vec![row("log", found.logged, String::new())];
    for Estimate { estimator, value, lift } in &found.estimates {
        rows.push(row(estimator, *value, interval(*lift)));
    }
    let overlap = &found.overlap;
    let pages = found.pages.map_or(String::new(), |pages| format!(" on {} pages", count(pages)));
    let mut text = format!(
        "Policy: {words}; {} impressions{pages} of {} users\n{}\
         worth {} impressions, mean weight {}, largest weight {:.1} with {:.2} % of all, {} rewards with a weight\n",
        count(found.impressions),
        count(found.users),
        table(&["mean reward", "value", "over the log"], &rows),
        count(overlap.effective_sample_size.round() as u64),
        interval(overlap.mean_weight),
        overlap.largest_weight,
        100.0 * overlap.largest_share,
        count(overlap.rewards),
    );
    for warning in &found.warnings {
        text += &format!("warning: {warning}\n");
    }
    text
}
