//! `ams rollback`: the version before serves again.

use std::path::PathBuf;

use serde::Serialize;

use crate::failure::Failure;
use crate::output::Output;

/// Take the version of a model that serves back: the one before it serves again, also after later
/// restarts. Servers of the folder follow at their next look.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder of the model, such as models/shop.
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

pub(crate) fn run(arguments: &Arguments, output: Output<'_>) -> Result<(), Failure> {
    let path = &arguments.model;
    let whole = path.canonicalize();
    let whole = whole.map_err(|error| Failure::user(format!("{}: {error}", path.display())))?;
    let named = whole.file_name().and_then(|name| name.to_str()).zip(whole.parent());
    let Some((model, models)) = named else {
        let what = "expected the folder of a model, such as models/shop";
        return Err(Failure::user(format!("{}: {what}", path.display())));
    };
    let [withdrawn, serving] = ams_serve::roll_back(models, model, &arguments.by)?;
    let report = Report { withdrawn, serving };
    output.finish(&report, || {
        format!("{model}: version {serving} serves; {withdrawn} was taken back\n")
    });
    Ok(())
}
