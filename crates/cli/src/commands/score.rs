//! `ams score`: rank one page view with a published model.

use std::io::Read;
use std::path::{Path, PathBuf};

use ams_bundle::{Model, PageView, Ranked, Scored};
use ams_location::Locations;

use crate::failure::Failure;
use crate::locations::version;
use crate::output::{Output, table};

/// Rank the candidates of one page view with a bundle.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The bundle: a version folder, or a model folder for its newest version.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The request, a JSON file; `-` reads stdin.
    #[arg(long, value_name = "FILE", required_unless_present = "sample")]
    request: Option<PathBuf>,
    /// Instead of a request: the bundle's own example number N, counted from 1 (see its
    /// samples.json).
    #[arg(long, value_name = "N", conflicts_with = "request")]
    sample: Option<usize>,
}

pub(crate) fn run(
    arguments: Arguments,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    let model = Model::open(&version(locations, &arguments.model)?)?;
    let page = match &arguments.request {
        Some(path) => &read_page(&locations.input(path)?)?,
        None => sample(&model, arguments.sample.unwrap_or(1))?,
    };
    let about = |error| match &arguments.request {
        Some(path) => Failure::user(format!("{}: {error}", path.display())),
        None => Failure::from(error),
    };
    let ranked = model.score(page).map_err(about)?;
    let scored = Scored { model: model.name(), version: model.version(), ranked };
    output.finish(&scored, || text(&scored.ranked));
    Ok(())
}

/// The bundle's example `number`, counted from 1.
fn sample(model: &Model, number: usize) -> Result<&PageView, Failure> {
    let samples = model.samples();
    number.checked_sub(1).and_then(|at| samples.get(at)).ok_or_else(|| {
        Failure::user(format!("--sample {number}: the bundle has {} examples", samples.len()))
    })
}

fn read_page(path: &Path) -> Result<PageView, Failure> {
    let unreadable = |error: std::io::Error| Failure::user(format!("{}: {error}", path.display()));
    let mut json = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut json).map_err(unreadable)?
    } else {
        std::fs::File::open(path)
            .and_then(|mut file| file.read_to_end(&mut json))
            .map_err(unreadable)?
    };
    PageView::parse(&json).map_err(|error| Failure::user(format!("{}: {error}", path.display())))
}

fn text(ranked: &Ranked<'_>) -> String {
    let rows: Vec<Vec<String>> = ranked
        .items
        .iter()
        .zip(&ranked.ctr)
        .zip(&ranked.ecpm)
        .map(|((item, ctr), ecpm)| {
            vec![(*item).to_owned(), format!("{ctr:.4}"), format!("{ecpm:.4}")]
        })
        .collect();
    let mut text = table(&["item", "pCTR", "eCPM"], &rows);
    let missing = &ranked.missing;
    for (what, values) in
        [("users", &missing.users), ("items", &missing.items), ("images", &missing.images)]
    {
        if !values.is_empty() {
            text += &format!("unknown {what}, scored with defaults: {}\n", values.join(", "));
        }
    }
    text
}
