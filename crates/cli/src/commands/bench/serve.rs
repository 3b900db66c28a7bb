//! `ams bench serve`: how long a page view takes, in the scorer alone or asked of a server.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ams_bundle::request::Text;
use ams_bundle::{Alone, Helpers, Model, PageView, Scratch, Team, score_while};
use ams_serve::{Latencies, Load, Outcome};
use serde::Serialize;

use crate::failure::Failure;
use crate::launch::Launch;
use crate::output::{Output, table};
use crate::threads::thread_count;

/// Score page views of a published model, one after the other on one core or --page-threads of
/// them, and say how long each takes; or, with --url, ask a server for them at a given rate,
/// whether or not it keeps up.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The bundle: a version folder, or a model folder for its newest version.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Candidates of a page view: one run for each number.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "400")]
    candidates: Vec<usize>,
    /// Behaviors of its user: one run for each number. A model looks at no more than it was
    /// trained with.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "32")]
    behaviors: Vec<usize>,
    /// Page views of a run.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pages: u32,
    /// Threads that score a page view of 512 candidates or more. A server has its own
    /// --page-threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = thread_count, conflicts_with = "url")]
    page_threads: usize,
    /// Instead of the examples' items: page views to replay, a JSON request per line.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["candidates", "behaviors"])]
    requests: Option<PathBuf>,
    /// A server that has the model, such as http://127.0.0.1:8600.
    #[arg(long, value_name = "URL", requires = "rate")]
    url: Option<String>,
    /// Requests per second, at random times: one run for each number.
    #[arg(long, value_name = "R,..", value_delimiter = ',', requires = "url", value_parser = rate)]
    rate: Vec<f64>,
    /// Seconds of a run.
    #[arg(long, value_name = "S", default_value_t = 10.0, requires = "url", value_parser = rate)]
    seconds: f64,
    /// Send the requests to a path that scores nothing, which measures HTTP and this program alone;
    /// the server needs the flag --bench-endpoint.
    #[arg(long, requires = "url")]
    nothing: bool,
    /// A file whose first line is a bearer token.
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
}

/// A rate or a duration.
fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.01..=1e6).contains(rate));
    rate.ok_or_else(|| "expected 0.01 to 1e6".to_owned())
}

/// One run of the load, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Run {
    candidates: usize,
    behaviors: usize,
    ms: Latencies,
    page_views_per_second: f64,
    /// The sum of all predicted click-through rates: a fast wrong scorer has another.
    ctr_sum: f64,
}

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    version: u64,
    pages: u32,
    page_threads: usize,
    runs: Vec<Run>,
}

/// What `--url --json` prints.
#[derive(Debug, Serialize)]
struct ServerReport {
    url: String,
    model: String,
    runs: Vec<ServerRun>,
}

/// One run against a server.
#[derive(Debug, Serialize)]
struct ServerRun {
    candidates: usize,
    behaviors: usize,
    #[serde(flatten)]
    outcome: Outcome,
}

/// Page views that are scored before the clock starts.
const WARM_UP: u32 = 20;

pub(crate) fn run(
    arguments: Arguments,
    launch: &Launch,
    output: Output<'_>,
) -> Result<(), Failure> {
    launch.one_process("ams bench serve")?;
    let model = Model::open(&arguments.model)?;
    let sets = match &arguments.requests {
        Some(file) => vec![recorded(file)?],
        None => made(&model, &arguments)?,
    };
    match &arguments.url {
        Some(url) => ask(url, &model, &sets, &arguments, output),
        None => {
            let page_threads = arguments.page_threads;
            let team = (page_threads > 1).then(|| Team::new(page_threads)).transpose();
            let team = team.map_err(|error| Failure::user(format!("--page-threads: {error}")))?;
            let helpers = team.as_ref().map_or(&Alone as &dyn Helpers, |team| team);
            let run = |pages: &Vec<PageView>| measure(&model, pages, arguments.pages, helpers);
            let report = Report {
                model: model.name().to_owned(),
                version: model.version(),
                pages: arguments.pages,
                page_threads,
                runs: sets.iter().map(run).collect::<Result<_, _>>()?,
            };
            output.finish(&report, || text(&report));
            Ok(())
        }
    }
}

/// Page views of every number of candidates and behaviors.
fn made(model: &Model, arguments: &Arguments) -> Result<Vec<Vec<PageView>>, Failure> {
    let sizes = arguments.candidates.iter().flat_map(|&candidates| {
        arguments.behaviors.iter().map(move |&behaviors| (candidates, behaviors))
    });
    sizes.map(|(candidates, behaviors)| pages(model.samples(), candidates, behaviors)).collect()
}

/// The page views in a file, one per line.
fn recorded(file: &Path) -> Result<Vec<PageView>, Failure> {
    let about = |what: String| Failure::user(format!("{}: {what}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| about(error.to_string()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(at, line): (usize, &str)| {
        PageView::parse(line.as_bytes()).map_err(|error| about(format!("line {}: {error}", at + 1)))
    };
    let pages: Vec<PageView> = lines.map(parse).collect::<Result<_, _>>()?;
    if pages.is_empty() {
        Err(about("no request, expected one per line".to_owned()))
    } else {
        Ok(pages)
    }
}

fn ask(
    url: &str,
    model: &Model,
    sets: &[Vec<PageView>],
    arguments: &Arguments,
    output: Output<'_>,
) -> Result<(), Failure> {
    let token = match &arguments.token_file {
        None => None,
        Some(file) => {
            let text = std::fs::read_to_string(file);
            let text =
                text.map_err(|error| Failure::user(format!("{}: {error}", file.display())))?;
            Some(text.lines().next().unwrap_or_default().trim().to_owned())
        }
    };
    let path = if arguments.nothing {
        "/v1/nothing".to_owned()
    } else {
        format!("/v1/models/{}/score", model.name())
    };
    let mut runs = Vec::new();
    for pages in sets {
        for &rate in &arguments.rate {
            let body = |page: &PageView| serde_json::to_vec(page).expect("page views are JSON");
            let load = Load {
                url: format!("{}{path}", url.trim_end_matches('/')),
                bodies: pages.iter().map(body).collect(),
                rate,
                seconds: arguments.seconds,
                seed: 1,
                token: token.clone(),
                timeout: Duration::from_secs(30),
            };
            let outcome = load.send().map_err(Failure::user)?;
            let (candidates, behaviors) = size(&pages[0]);
            runs.push(ServerRun { candidates, behaviors, outcome });
        }
    }
    let report = ServerReport { url: url.to_owned(), model: model.name().to_owned(), runs };
    output.finish(&report, || server_text(&report));
    Ok(())
}

fn size(page: &PageView) -> (usize, usize) {
    (page.candidates.item.len(), page.user.behaviors.item.len())
}

/// The bundle's examples, each with so many candidates and behaviors: the items of all examples,
/// over and over, beginning elsewhere each time.
fn pages(
    samples: &[PageView],
    candidates: usize,
    behaviors: usize,
) -> Result<Vec<PageView>, Failure> {
    let items: Vec<&Text> = (samples.iter())
        .flat_map(|page| page.candidates.item.iter().chain(&page.user.behaviors.item))
        .collect();
    if items.is_empty() {
        return Err(Failure::user("the bundle has no examples; publish it again"));
    }
    let some = |first: usize, count: usize| -> Vec<Text> {
        items.iter().cycle().skip(first).take(count).map(|&item| item.clone()).collect()
    };
    let page = |(at, sample): (usize, &PageView)| {
        let mut page = sample.clone();
        page.user.behaviors.item = some(at * 31, behaviors);
        page.user.behaviors.time = None;
        page.user.behaviors.features.clear();
        page.candidates.item = some(at * 17, candidates);
        page.candidates.bid = Some((0..candidates).map(|bid| 1.0 + (bid % 7) as f64).collect());
        page.candidates.features.clear();
        page
    };
    Ok(samples.iter().enumerate().map(page).collect())
}

fn measure(
    model: &Model,
    pages: &[PageView],
    count: u32,
    helpers: &dyn Helpers,
) -> Result<Run, Failure> {
    let mut scratch = Scratch::default();
    let (mut ms, mut ctr_sum) = (Vec::with_capacity(count as usize), 0.0);
    for (at, page) in (0..WARM_UP + count).zip(pages.iter().cycle()) {
        let begin = Instant::now();
        let ranked = score_while(model, page, &mut scratch, helpers, || true)?;
        let ranked = ranked.expect("nobody stops it");
        let passed = begin.elapsed().as_secs_f64();
        if at >= WARM_UP {
            ms.push(1e3 * passed);
            ctr_sum += ranked.ctr.iter().map(|&ctr| f64::from(ctr)).sum::<f64>();
        }
    }
    let (candidates, behaviors) = size(&pages[0]);
    Ok(Run {
        candidates,
        behaviors: behaviors.min(model.spec().max_behaviors),
        page_views_per_second: 1e3 * ms.len() as f64 / ms.iter().sum::<f64>(),
        ms: Latencies::of(ms),
        ctr_sum,
    })
}

fn text(report: &Report) -> String {
    let header = [
        "candidates",
        "behaviors",
        "ms, p50",
        "p99",
        "p99.9",
        "max",
        "page views/s",
        "sum of pCTR",
    ];
    let row = |run: &Run| {
        let ms = |ms: f64| format!("{ms:.3}");
        vec![
            run.candidates.to_string(),
            run.behaviors.to_string(),
            ms(run.ms.p50),
            ms(run.ms.p99),
            ms(run.ms.p999),
            ms(run.ms.max),
            format!("{:.0}", run.page_views_per_second),
            format!("{:.6}", run.ctr_sum),
        ]
    };
    table(&header, &report.runs.iter().map(row).collect::<Vec<_>>())
}

fn server_text(report: &ServerReport) -> String {
    let header = [
        "candidates",
        "behaviors",
        "rate",
        "answered/s",
        "ms, p50",
        "p99",
        "p99.9",
        "max",
        "shed",
        "late",
        "failed",
    ];
    let row = |run: &ServerRun| {
        let ServerRun { candidates, behaviors, outcome } = run;
        let ms = |ms: f64| format!("{ms:.2}");
        vec![
            candidates.to_string(),
            behaviors.to_string(),
            format!("{}", outcome.rate),
            format!("{:.1}", outcome.answered_per_second),
            ms(outcome.ms.p50),
            ms(outcome.ms.p99),
            ms(outcome.ms.p999),
            ms(outcome.ms.max),
            outcome.shed.to_string(),
            outcome.late.to_string(),
            outcome.failed.to_string(),
        ]
    };
    table(&header, &report.runs.iter().map(row).collect::<Vec<_>>())
}
