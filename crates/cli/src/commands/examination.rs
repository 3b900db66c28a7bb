//! What `ams doctor DATA` says of data: of a prepared dataset, or of a table of events.

use std::path::{Path, PathBuf};

use ams_data::dataset::CARD;
use ams_data::examine::{Examination, Finding, Verdict};
use ams_data::prepare::PrepareOptions;
use ams_data::source::{TableOptions, open_all};
use ams_data::{Dataset, PictureName};
use ams_image::FeatureStore;
use ams_location::{Locations, is_remote};

use crate::commands::own_past;
use crate::config_file;
use crate::failure::Failure;
use crate::output::{count, table};

/// Days that are listed; `--json` has all.
const DAYS: usize = 14;

/// The columns of a table of events; found by common names unless given.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Columns of a table of events")]
pub(crate) struct ColumnArguments {
    /// Settings of `ams prepare` in a TOML file: columns, labels, times.
    #[arg(long, value_name = "FILE", requires = "data")]
    config: Option<PathBuf>,
    /// The column of users.
    #[arg(long, value_name = "COLUMN", requires = "data")]
    user: Option<String>,
    /// The column of items.
    #[arg(long, value_name = "COLUMN", requires = "data")]
    item: Option<String>,
    /// The column of labels.
    #[arg(long, value_name = "COLUMN", requires = "data")]
    label: Option<String>,
    /// The column of times.
    #[arg(long, value_name = "COLUMN", requires = "data")]
    time: Option<String>,
}

impl ColumnArguments {
    fn options(&self, locations: &Locations) -> Result<PrepareOptions, Failure> {
        let mut options: PrepareOptions = match &self.config {
            Some(path) => config_file::read(&locations.input(path)?, &[])?,
            None => PrepareOptions::default(),
        };
        let columns = &mut options.columns;
        for (to, from) in [
            (&mut columns.user, &self.user),
            (&mut columns.item, &self.item),
            (&mut columns.label, &self.label),
            (&mut columns.time, &self.time),
        ] {
            if from.is_some() {
                to.clone_from(from);
            }
        }
        Ok(options)
    }
}

/// Examines `data`: a folder with a card is a dataset, any other file, folder or pattern a table.
pub(crate) fn examine(
    data: &Path,
    columns: &ColumnArguments,
    locations: &Locations,
) -> Result<Examination, Failure> {
    let has_ending = data.extension().is_some() || data.to_string_lossy().contains('*');
    let is_table = match is_remote(data) {
        true => has_ending,
        false => has_ending && !data.is_dir() || data.is_file() || has_no_card(data),
    };
    if is_table {
        let events = open_all(locations, &[data.to_path_buf()], &TableOptions::default())?;
        return Ok(Examination::of_table(events.as_ref(), &columns.options(locations)?)?);
    }
    let dataset = Dataset::open(locations.input(data)?)?;
    let images = dataset.dir().join("images");
    let store = images.is_dir().then(|| FeatureStore::open(&images)).transpose()?;
    let has =
        |picture: PictureName| store.as_ref().is_some_and(|store| store.key(picture).is_some());
    let has_picture: Option<&dyn Fn(PictureName) -> bool> = match store {
        Some(_) => Some(&has),
        None => None,
    };
    Ok(Examination::of_dataset(&dataset, has_picture)?)
}

/// Whether this is a folder with files, none of which is the card of a dataset.
fn has_no_card(data: &Path) -> bool {
    let mut files = data.read_dir().into_iter().flatten();
    data.is_dir() && !data.join(CARD).exists() && files.next().is_some()
}

/// A finding per line, and how to mend what is not `ok`.
pub(crate) fn lines(examination: &Examination) -> String {
    let Examination { impressions, looked_at, one_user_in, findings, days, own_past, .. } =
        examination;
    let mut text = format!("{} impressions", count(*impressions));
    if *one_user_in > 1 {
        text += &format!("; looked at {}, of one user in {one_user_in}", count(*looked_at));
    }
    text += "\n";
    for Finding { check, field, verdict, said, advice } in findings {
        let field = field.iter().map(|field| format!(" `{field}`")).collect::<String>();
        text += &format!("{:<5}{check}{field}: {said}\n", verdict.as_str());
        text += &advice.iter().map(|advice| format!("     -> {advice}\n")).collect::<String>();
    }
    let of = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    text += &format!(
        "{} ok, {} to look at, {} bad\n",
        of(Verdict::Ok),
        of(Verdict::Look),
        of(Verdict::Bad)
    );
    let left_out = days.len().saturating_sub(DAYS);
    let rows = days.iter().skip(left_out).map(|day| {
        let rate = format!("{:.2} %", 100.0 * day.rate());
        vec![day.day.clone(), count(day.impressions), rate]
    });
    text += &table(&["day (UTC)", "impressions", "positive"], &rows.collect::<Vec<_>>());
    if left_out > 0 {
        text += &format!("{left_out} earlier days are in --json\n");
    }
    text += &own_past.as_ref().map_or(String::new(), own_past::lines);
    text
}
