//! `ams rollback`: the version before serves again.

use std::path::{Path, PathBuf};

use ams_location::{Locations, Unfinished, is_remote};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::Output;

/// Take the version of a model that serves back: the one before it serves again, also after later
/// restarts. Servers of the folder follow at their next look.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder of the model, such as models/shop, here or in a bucket.
    model: PathBuf,
    /// Who decides; kept with the decision.
    #[arg(long, value_name = "WHO", default_value = "ams rollback")]
    by: String,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    /// The version that was taken back.
    withdrawn: u64,
    /// The version that serves.
    serving: u64,
}

pub(crate) fn run(
    arguments: &Arguments,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    let path = &arguments.model;
    let (model, [withdrawn, serving]) = if is_remote(path) {
        in_bucket(path, locations, &arguments.by)?
    } else {
        on_this_host(&ams_location::local(path)?, &arguments.by)?
    };
    let report = Report { withdrawn, serving };
    output.finish(&report, || {
        format!("{model}: version {serving} serves; {withdrawn} was taken back\n")
    });
    Ok(())
}

/// The model's name, the version that was taken back, and the one that serves.
type Taken = (String, [u64; 2]);

/// The same in a bucket: the model's versions and the decisions are fetched, and the decisions
/// published.
fn in_bucket(path: &Path, locations: &Locations, by: &str) -> Result<Taken, Failure> {
    let model = locations.input(path)?;
    let decisions = path.with_file_name(ams_serve::DECISIONS);
    // Here may be what an earlier command could not publish.
    let place = locations.update(&decisions, Unfinished::IsDropped)?;
    let _ = std::fs::remove_file(place.local());
    let place = locations.update(&decisions, Unfinished::IsDropped)?;
    let taken = on_this_host(&model, by)?;
    place.publish()?;
    Ok(taken)
}

fn on_this_host(path: &Path, by: &str) -> Result<Taken, Failure> {
    let whole = path.canonicalize();
    let whole = whole.map_err(|error| Failure::user(format!("{}: {error}", path.display())))?;
    let named = whole.file_name().and_then(|name| name.to_str()).zip(whole.parent());
    let Some((model, models)) = named else {
        let what = "expected the folder of a model, such as models/shop";
        return Err(Failure::user(format!("{}: {what}", path.display())));
    };
    Ok((model.to_owned(), ams_serve::roll_back(models, model, by)?))
}
