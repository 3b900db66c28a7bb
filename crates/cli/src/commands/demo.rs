//! `ams demo`: the whole way on a synthetic shop, from drawing its pictures to a ranked page view.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use ams_bundle::{Evaluation, Model, PageView};
use ams_data::catalogue::Catalogue;
use ams_data::dataset::{Dataset, SplitName};
use ams_data::prepare::{Columns, Existing, FieldColumn, Inputs, Kind, PrepareOptions, SplitBy};
use ams_data::source::{TableOptions, open};
use ams_data::synth::{Bayes, ShopConfig};
use ams_fabric::Solo;
use ams_image::builtin::Builtin;
use ams_image::encode::EncodeOptions;
use ams_train::Job;
use ams_train::run::{self, Start};
use ams_train::settings::Config;
use serde::{Deserialize, Serialize};

use crate::commands::encode::{encode_pictures, pictures};
use crate::commands::eval::evaluate_run;
use crate::commands::publish::publish;
use crate::commands::report::{DRAWS, Format, PAGES, Wanted, write_report};
use crate::commands::synth::{Size, synth};
use crate::commands::{prepare as prepare_command, train as train_command};
use crate::config_file;
use crate::failure::Failure;
use crate::interrupt::stop_on_interrupt;
use crate::launch::threads;
use crate::output::{Output, count, metric, table};
use crate::threads::thread_count;

/// The file that marks a folder as a demo's, which the next demo may replace.
const MARK: &str = "demo.json";

/// Numbers per picture: a quarter of the encoder's usual width, which a shop of drawn pictures does
/// not need, and a third of the time.
const DIM: usize = 1024;

/// Run everything once on a synthetic shop: draw, prepare, encode, train three models, evaluate,
/// publish, rank a page view.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The demo's folder; an earlier demo in it is replaced.
    #[arg(long, value_name = "DIR", default_value = "demo")]
    out: PathBuf,
    /// Seed of the shop and of the trainings.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How large the shop is.
    #[arg(long, value_enum, default_value_t = Size::Default)]
    size: Size,
    /// Threads; as many as there are cores unless given.
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
}

/// What `--json` prints, and the file `demo.json` holds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Report {
    bayes: Bayes,
    arms: Vec<Arm>,
    seconds: f64,
    bundle: PathBuf,
    hash: String,
    /// The page about the three models.
    #[serde(default)]
    report: PathBuf,
}

/// One row of the demo's table: a trained model and its scores.
#[derive(Debug, Serialize, Deserialize)]
struct Arm {
    name: String,
    auc: Option<f64>,
    gauc: Option<f64>,
    logloss: Option<f64>,
    cold_auc: Option<f64>,
    cold_gauc: Option<f64>,
    seconds: f64,
}

/// The paper's network with a batch and a number of epochs for a small shop: it decays the rate
/// five times in 128,000 steps, and these are its stairs for 3,000.
const PAPER: &str =
    "[train]\nepochs = 3\nbatch = 512\ndecay_every = 200\nrows_learning_rate = 0.016\n";

/// The same for a tiny shop.
const TINY: &str = "[train]\nepochs = 2\nbatch = 64\n";

/// A model of the demo; its name is that of its run.
struct Wish {
    name: &'static str,
    /// Settings of the model, in TOML.
    model: &'static str,
    /// The folder of its published versions, if it is published.
    published: Option<&'static str>,
}

/// The models in the order of the table. Two are published, side by side on the page of `ams serve
/// --demo`; the last one is that of the page view at the end.
const WISHES: [Wish; 3] = [
    Wish { name: "id-only", model: "images = 'none'", published: Some("id-only") },
    Wish { name: "joint", model: "images = 'joint'", published: None },
    Wish { name: "recommended", model: "preset = 'recommended'", published: Some("shop") },
];

/// Where the demo puts things.
struct Places {
    shop: PathBuf,
    data: PathBuf,
    runs: PathBuf,
    models: PathBuf,
    report: PathBuf,
    mark: PathBuf,
}

pub(crate) fn run(arguments: Arguments, output: Output<'_>) -> Result<(), Failure> {
    let begin = Instant::now();
    let threads = threads(arguments.threads);
    let stop = stop_on_interrupt(0, output)?;
    let out = &arguments.out;
    let places = clear(out)?;
    let mut report = Report::default();

    let shop = ShopConfig { seed: arguments.seed, ..arguments.size.config() };
    let made = synth(&shop, &places.shop, output)?;
    output.say(&format!(
        "A shop of {} items with drawn pictures, {} users, {} impressions, {} clicks.\n",
        count(made.items as u64),
        count(made.users as u64),
        count(made.events),
        count(made.clicks),
    ));
    report.bayes = made.bayes;

    prepare(&places, made.test_from, output)?;
    let dataset = Dataset::open(&places.data)?;
    let mut encoding = EncodeOptions::new(&places.shop, places.data.join("images"));
    encoding.threads = threads;
    let encoder = Builtin::new(DIM, 1)?;
    let encoded =
        encode_pictures(&encoding, pictures(&dataset)?, &encoder, &mut Solo, &stop, output)?;
    output.say(&format!(
        "{} pictures encoded to {} numbers each.\n",
        count(encoded.images),
        encoded.dim
    ));

    for Wish { name, model, .. } in WISHES {
        let config = config(name, model, &arguments, &places)?;
        let begin = Instant::now();
        let evaluation = train_arm(&config, threads, &stop, output)?;
        let seconds = begin.elapsed().as_secs_f64();
        output.say(&format!(
            "{name:<11} trained in {seconds:.1} s, GAUC {}",
            metric(evaluation.all.gauc)
        ));
        let cold = evaluation.slices.iter().find(|slice| slice.name == "cold items");
        report.arms.push(Arm {
            name: name.to_owned(),
            auc: evaluation.all.auc,
            gauc: evaluation.all.gauc,
            logloss: evaluation.all.logloss,
            cold_auc: cold.and_then(|slice| slice.auc),
            cold_gauc: cold.and_then(|slice| slice.gauc),
            seconds,
        });
    }

    for Wish { name, published, .. } in WISHES {
        let Some(model) = published else { continue };
        let mut trainer = run::open(&places.runs.join(name), Job::solo(threads))?;
        let published = publish(&mut trainer, &places.models.join(model))?;
        (report.bundle, report.hash) = (published.path, published.hash);
    }
    report.report = write_page(&places, &arguments, threads)?;
    report.seconds = begin.elapsed().as_secs_f64();
    write_mark(&places.mark, &report)?;

    let page = ranked_page(&report.bundle, &dataset)?;
    let look = look(&places);
    output.finish(&report, || format!("\n{}\n{page}\n{look}\n", text(&report)));
    Ok(())
}

/// What to do with a demo.
fn look(places: &Places) -> String {
    format!(
        "To look at it: ams serve {} --demo --demo-pictures {}\nTo read about it: {}",
        places.models.display(),
        places.shop.display(),
        places.report.display()
    )
}

/// Writes the page about the three models.
fn write_page(places: &Places, arguments: &Arguments, threads: usize) -> Result<PathBuf, Failure> {
    let runs: Vec<PathBuf> = WISHES.iter().map(|wish| places.runs.join(wish.name)).collect();
    // Few users of a tiny shop: more draws than users say nothing more.
    let draws = if arguments.size == Size::Tiny { 100 } else { DRAWS };
    let wanted = Wanted {
        images: Some(places.shop.clone()),
        pages: PAGES,
        draws,
        threads,
        places: Job::solo(threads).places,
        format: Format::Html,
    };
    write_report(&runs, &wanted, &places.report)?;
    Ok(places.report.clone())
}

/// An empty folder for the demo: a new one, or an earlier demo's.
fn clear(out: &Path) -> Result<Places, Failure> {
    let unusable = |error: std::io::Error| Failure::user(format!("{}: {error}", out.display()));
    let places = Places {
        shop: out.join("shop"),
        data: out.join("data"),
        runs: out.join("runs"),
        models: out.join("models"),
        report: out.join("report.html"),
        mark: out.join(MARK),
    };
    let empty = match fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(unusable(error)),
    };
    if !empty && !places.mark.exists() {
        let what = "is not empty and no demo made it; choose another folder with --out";
        return Err(Failure::user(format!("{}: {what}", out.display())));
    }
    fs::create_dir_all(out).map_err(unusable)?;
    write_mark(&places.mark, &Report::default())?;
    for place in [&places.shop, &places.data, &places.runs, &places.models] {
        if place.exists() {
            fs::remove_dir_all(place).map_err(unusable)?;
        }
    }
    Ok(places)
}

fn write_mark(path: &Path, report: &Report) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(report).expect("a report is JSON");
    Ok(ams_data::staging::write_whole(path, &text)?)
}

fn prepare(places: &Places, test_from: i64, output: Output<'_>) -> Result<(), Failure> {
    let field = |name: &str| FieldColumn {
        name: name.to_owned(),
        column: name.to_owned(),
        kind: Kind::Categorical,
    };
    let tables = TableOptions::default();
    let inputs = Inputs {
        events: open(&places.shop.join("events.parquet"), &tables)?,
        items: Some(open(&places.shop.join("items.csv"), &tables)?),
        users: None,
    };
    let options = PrepareOptions {
        name: Some("shop".to_owned()),
        split: SplitBy::TestFrom(test_from.to_string()),
        columns: Columns {
            user_fields: Some(vec![field("gender"), field("age")]),
            item_fields: Some(vec![field("category"), field("brand")]),
            context_fields: Some(vec![field("hour"), field("position")]),
            ..Columns::default()
        },
        ..PrepareOptions::default()
    };
    let made = prepare_command::prepare(inputs, options, &places.data, Existing::Refuse, output)?;
    output.say(&prepare_command::text(&made, &places.data));
    Ok(())
}

/// The configuration of a model of the demo.
fn config(
    name: &str,
    model: &str,
    arguments: &Arguments,
    places: &Places,
) -> Result<Config, Failure> {
    let train = match (arguments.size, model.starts_with("preset")) {
        // The preset finds its own length.
        (Size::Default, true) => "",
        (Size::Tiny, true) => "[train]\nbatch = 64\nepochs = 3\n[align]\nsteps = 50\n",
        (Size::Tiny, false) => TINY,
        (Size::Default, false) => PAPER,
    };
    let text = format!(
        "name = {name:?}\nseed = {}\nruns = ''\ndata.samples = ''\nmodel.{model}\n{train}",
        arguments.seed
    );
    let mut config: Config = config_file::parse("the demo's configuration", &text, &[])?;
    (config.runs, config.data.samples) = (places.runs.clone(), places.data.clone());
    Ok(config)
}

/// Trains a model and evaluates it on the test day.
fn train_arm(
    config: &Config,
    threads: usize,
    stop: &AtomicBool,
    output: Output<'_>,
) -> Result<Evaluation, Failure> {
    let report =
        train_command::train(config, Start::Fresh, Job::solo(threads), stop, None, output)?;
    if !report.finished {
        return Err(Failure::Interrupted);
    }
    let mut trainer = run::open(&report.run, Job::solo(threads))?;
    let predictions = report.run.join("predictions").join("test.parquet");
    let evaluation = evaluate_run(&mut trainer, SplitName::Test, &predictions)?;
    Ok(evaluation.expect("a job of one process evaluates in it"))
}

/// The ranking of the first sample page view, in words.
fn ranked_page(bundle: &Path, dataset: &Dataset) -> Result<String, Failure> {
    let model = Model::open(bundle)?;
    let catalogue = Catalogue::open(dataset)?;
    let Some(page) = model.samples().first() else {
        return Ok("The test day has no page view with a history to show.\n".to_owned());
    };
    let ranked = model.score(page)?;
    let describe = |item: &str| describe(item, &catalogue);
    let mut text = format!("A page view of {}:\n", user(page));
    for (item, ctr) in ranked.items.iter().zip(&ranked.ctr).take(5) {
        text += &format!("  {:5.1} %  {}\n", ctr * 100.0, describe(item));
    }
    Ok(text)
}

/// Who looks, in words.
fn user(page: &PageView) -> String {
    let id = page.user.id.as_ref().map_or("somebody", |id| &id.0);
    let history = page.user.behaviors.item.len();
    let candidates = page.candidates.item.len();
    format!("{id}, who clicked {history} items before; {candidates} candidates, best first")
}

/// An item in words: its fields and picture.
fn describe(item: &str, catalogue: &Catalogue) -> String {
    let Some(row) = catalogue.find(item) else { return item.to_owned() };
    let fields: Vec<&str> =
        (0..catalogue.fields().len()).flat_map(|field| catalogue.values(field, row)).collect();
    let picture = catalogue.image(row).unwrap_or("no picture");
    format!("{item} ({}) {picture}", fields.join(", "))
}

fn text(report: &Report) -> String {
    let bayes = &report.bayes;
    let mut rows: Vec<Vec<String>> = report
        .arms
        .iter()
        .map(|arm| {
            vec![
                arm.name.clone(),
                metric(arm.gauc),
                metric(arm.auc),
                metric(arm.logloss),
                metric(arm.cold_gauc),
                metric(arm.cold_auc),
            ]
        })
        .collect();
    rows.push(vec![
        "best possible".to_owned(),
        metric(bayes.gauc),
        metric(bayes.auc),
        "-".to_owned(),
        metric(bayes.cold_gauc),
        metric(bayes.cold_auc),
    ]);
    let header = ["test day", "GAUC", "AUC", "log loss", "cold GAUC", "cold AUC"];
    format!(
        "{}\n{} in {:.0} s; published {}\n",
        table(&header, &rows),
        "Everything",
        report.seconds,
        report.bundle.display()
    )
}
