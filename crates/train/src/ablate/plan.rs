//! From tables to trainings: every row with every seed, equal ones once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::Value;

use crate::ablate::grid::{AblationRow, AblationTable, Twins};
use crate::error::{Error, Result};
use crate::settings::Config;
use crate::setup::job::facts_of;
use crate::setup::sources::Sources;

/// Added to the seed of a training that begins with another one's weights, so that it shuffles in
/// another order.
const WARM_SEED: u64 = 1000;

/// A training of the ablation.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its folder below `runs`.
    pub name: String,
    /// blake3 of everything that decides its result.
    pub hash: String,
    /// The ablation's seed; a warm row trains with another one.
    pub seed: u64,
    /// Whole, with name and folder.
    pub config: Config,
    /// The training it begins with, among those before it.
    pub from: Option<usize>,
    /// The rows whose training it is: table and row each.
    pub rows: Vec<[String; 2]>,
}

/// A row of a table, or the shuffled twin of one.
#[derive(Clone, Debug)]
pub(crate) struct PlannedRow {
    /// Row of the grid.
    pub row: AblationRow,
    /// Whether it is the twin.
    pub shuffled: bool,
    /// Its training with every seed, as indices of [`Plan::runs`].
    pub runs: Vec<usize>,
}

/// A table with the trainings of its rows.
#[derive(Clone, Debug)]
pub(crate) struct PlannedTable {
    /// Table of the grid.
    pub table: AblationTable,
    /// Rows of the table, each followed by its twin if it has one.
    pub rows: Vec<PlannedRow>,
}

/// All trainings of an ablation.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The tables that are compared, in their order.
    pub tables: Vec<PlannedTable>,
    /// The trainings in the order in which they are done: all with the first seed, then all with
    /// the second, so that an ablation that was interrupted is balanced.
    pub runs: Vec<Run>,
}

/// The folder and the names of runs, and the sources that decide them.
pub(crate) struct RunNames<'a> {
    /// The folder of the run folders.
    pub runs: PathBuf,
    /// Hashes of the dataset and of the feature stores.
    pub sources: &'a Sources,
    /// The name of every run so far, by its hash.
    pub by_hash: &'a mut BTreeMap<String, String>,
}

impl Plan {
    /// The trainings of `tables` with `seeds`. `configure` makes a configuration of settings,
    /// `key=value` each.
    ///
    /// # Errors
    /// If a row's settings make no configuration.
    pub(crate) fn new<E: From<Error>>(
        tables: &[AblationTable],
        twins: Twins,
        seeds: &[u64],
        names: &mut RunNames<'_>,
        configure: &dyn Fn(&[String]) -> Result<Config, E>,
    ) -> Result<Plan, E> {
        let with_twin = |row: &AblationRow| {
            let planned = |shuffled| PlannedRow { row: *row, shuffled, runs: Vec::new() };
            let twin = row.has_twin(twins).then(|| planned(true));
            [Some(planned(false)), twin].into_iter().flatten()
        };
        let rows = |table: &AblationTable| table.rows.iter().flat_map(with_twin).collect();
        let planned = tables.iter().map(|&table| PlannedTable { table, rows: rows(&table) });
        let mut plan = Plan { tables: planned.collect(), runs: Vec::new() };
        for &seed in seeds {
            for table in 0..plan.tables.len() {
                for row in 0..plan.tables[table].rows.len() {
                    let run = plan.resolve(table, row, seed, names, configure)?;
                    plan.tables[table].rows[row].runs.push(run);
                }
            }
        }
        Ok(plan)
    }

    /// The training of a row with a seed, which may be one that is there.
    fn resolve<E: From<Error>>(
        &mut self,
        table: usize,
        row: usize,
        seed: u64,
        names: &mut RunNames<'_>,
        configure: &dyn Fn(&[String]) -> Result<Config, E>,
    ) -> Result<usize, E> {
        let PlannedTable { table, rows } = &self.tables[table];
        let planned = &rows[row];
        let mut settings = planned.settings(seed);
        let mut from = None;
        if let Some(warm) = planned.row.warm {
            let source = rows.iter().find(|other| other.is(warm.from));
            let run = source.and_then(|row| row.runs.last()).copied();
            let run = run.expect("rows refer to rows before them");
            let folder = names.runs.join(&self.runs[run].name);
            let folder = Value::from(folder.to_string_lossy().into_owned());
            settings.push(format!("train.warm_start.from={folder}"));
            from = Some(run);
        }
        let mut config = configure(&settings)?;
        config.leave_out_idle_phases();
        config.check()?;
        let begins_with = from.map(|run: usize| &self.runs[run].hash[..]);
        let hash = hash(&config, begins_with, names.sources);
        let row = [table.name.to_owned(), planned.name()];
        if let Some(same) = self.runs.iter().position(|run| run.hash == hash) {
            self.runs[same].rows.push(row);
            return Ok(same);
        }
        let name = name(&row, seed, &hash, names.by_hash);
        config.name.clone_from(&name);
        config.runs.clone_from(&names.runs);
        self.runs.push(Run { name, hash, seed, config, from, rows: vec![row] });
        Ok(self.runs.len() - 1)
    }
}

impl PlannedRow {
    /// Whether it is the row called `name`, and no twin.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.row.name == name && !self.shuffled
    }

    /// Name in reports, with `, shuffled` for a twin.
    pub(crate) fn name(&self) -> String {
        format!("{}{}", self.row.name, if self.shuffled { ", shuffled" } else { "" })
    }

    /// Settings, `key=value` each, without the folder of a warm start.
    pub(crate) fn settings(&self, seed: u64) -> Vec<String> {
        let mut settings: Vec<String> =
            self.row.settings.iter().map(|setting| (*setting).to_owned()).collect();
        let added = if self.row.warm.is_some() { WARM_SEED } else { 0 };
        settings.push(format!("seed={}", seed + added));
        if self.shuffled {
            settings.push(format!("data.shuffle_images={seed}"));
        }
        if let Some(warm) = self.row.warm {
            settings.push(format!("train.warm_start.parts={}", warm.parts));
        }
        settings
    }
}

/// Checks that the settings common to all rows change no row's meaning.
///
/// # Errors
/// The key of a setting that does.
pub(crate) fn check_base(base: &Config) -> Result<()> {
    base.check()?;
    let bad = |key: &str, what: &str| {
        Err(Error::Config { key: key.to_owned(), what: format!("{what}; take it out") })
    };
    if base.train.warm_start.is_some() {
        return bad("train.warm_start", "rows of an ablation begin with each other, or at random");
    }
    if base.data.shuffle_images.is_some() {
        return bad("data.shuffle_images", "twins of an ablation shuffle images, and no other row");
    }
    Ok(())
}

/// blake3 of everything that decides a result: the configuration but for names and folders, the
/// training that it begins with, and its sources.
fn hash(config: &Config, begins_with: Option<&str>, sources: &Sources) -> String {
    const PATHS: [&str; 5] =
        ["name", "runs", "data.samples", "data.images", "train.warm_start.from"];
    let mut facts = facts_of(config);
    facts.retain(|(key, _)| !PATHS.contains(&&key[..]));
    facts.extend(sources.facts());
    facts.extend(begins_with.map(|hash| ("begins with".to_owned(), hash.to_owned())));
    let json = serde_json::to_vec(&facts).expect("facts are text");
    blake3::hash(&json).to_hex().to_string()
}

/// The name of the run with `hash`: the one it had, or a new one after a row.
fn name(
    [table, row]: &[String; 2],
    seed: u64,
    hash: &str,
    names: &mut BTreeMap<String, String>,
) -> String {
    if let Some(name) = names.get(hash) {
        return name.clone();
    }
    let mut row = row.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    while row.contains("--") {
        row = row.replace("--", "-");
    }
    let short = &hash[..8];
    let possible = [
        format!("{row}-{seed}"),
        format!("{table}-{row}-{seed}"),
        format!("{table}-{row}-{seed}-{short}"),
    ];
    let free = |name: &&String| names.values().all(|taken| taken != *name);
    let name = possible.iter().find(free).unwrap_or(&possible[2]).clone();
    names.insert(hash.to_owned(), name.clone());
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ablate::grid::select;

    const SEEDS: [u64; 2] = [1, 2];

    fn configure(settings: &[String]) -> Result<Config> {
        let mut text = "name = 'x'\nruns = 'r'\ndata.samples = 'd'\n".to_owned();
        for setting in settings {
            let (key, value) = setting.split_once('=').unwrap();
            let quoted = value.parse::<u64>().is_ok() || value.starts_with('"');
            text +=
                &if quoted { format!("{key} = {value}\n") } else { format!("{key} = '{value}'\n") };
        }
        toml::from_str(&text).map_err(|error| Error::content("x.toml", error.to_string()))
    }

    fn plan(tables: &[&str], twins: Twins, names: &mut BTreeMap<String, String>) -> Plan {
        let tables: Vec<String> = tables.iter().map(|name| (*name).to_owned()).collect();
        let sources = Sources { dataset: "d".to_owned(), images: None, further: vec![] };
        let runs = PathBuf::from("out/runs");
        let mut names = RunNames { runs, sources: &sources, by_hash: names };
        Plan::new(&select(&tables).unwrap(), twins, &SEEDS, &mut names, &configure).unwrap()
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.runs.iter().map(|run| &run.name[..]).collect()
    }

    #[test]
    fn equal_rows_are_one_training_and_seeds_take_turns() {
        let plan = plan(&["arms", "aggregators"], Twins::Usual, &mut BTreeMap::new());
        let of_seed = |seed: u64| {
            [
                "id-only",
                "ad-image",
                "ad-image-shuffled",
                "behavior-images",
                "behavior-images-shuffled",
                "joint",
                "joint-shuffled",
                "concatenate",
                "max",
                "sum",
                "attentive",
            ]
            .map(|name| format!("{name}-{seed}"))
        };
        assert_eq!(names(&plan), [of_seed(1), of_seed(2)].concat());
        let joint = plan.runs.iter().find(|run| run.name == "joint-2").unwrap();
        let rows = [["arms", "joint"], ["aggregators", "multi-query attentive"]];
        assert_eq!(joint.rows, rows.map(|row| row.map(str::to_owned)));
        let shuffled = &plan.runs[6].config;
        assert_eq!((shuffled.seed, shuffled.data.shuffle_images), (1, Some(1)));
        assert_eq!(plan.tables[1].rows[5].runs, plan.tables[0].rows[5].runs);
    }

    #[test]
    fn warm_rows_begin_with_the_same_seed_of_another_row() {
        let plan = plan(&["warm-up"], Twins::All, &mut BTreeMap::new());
        let at = plan.runs.iter().position(|run| run.name == "joint-full-2").unwrap();
        let run = &plan.runs[at];
        let from = &plan.runs[run.from.unwrap()];
        assert_eq!((&from.name[..], from.seed, run.config.seed), ("joint-2", 2, 1002));
        let warm = run.config.train.warm_start.as_ref().unwrap();
        assert_eq!(warm.from, PathBuf::from("out/runs/joint-2"));
        assert!(run.from < Some(at));
    }

    #[test]
    fn names_stay_with_what_they_were_given_to() {
        let mut given = BTreeMap::new();
        let first = plan(&["aggregators"], Twins::None, &mut given);
        assert_eq!(names(&first)[5], "multi-query-attentive-1");
        let both = plan(&["arms", "aggregators"], Twins::None, &mut given);
        assert_eq!(
            names(&both)[..4],
            ["id-only-1", "ad-image-1", "behavior-images-1", "multi-query-attentive-1"]
        );
        let sources = Sources { dataset: "other".to_owned(), images: None, further: vec![] };
        let tables = select(&["arms".to_owned()]).unwrap();
        let runs = "out/runs".into();
        let mut run_names = RunNames { runs, sources: &sources, by_hash: &mut given };
        let other = Plan::new(&tables, Twins::None, &[1], &mut run_names, &configure).unwrap();
        assert_eq!(names(&other)[0], "arms-id-only-1", "another dataset, another training");
    }

    #[test]
    fn settings_that_would_change_the_rows_are_refused() {
        for (setting, key) in [
            ("train.warm_start.from=\"x\"", "train.warm_start: "),
            ("data.shuffle_images=1", "data.shuffle_images: "),
        ] {
            let base = configure(&[setting.to_owned()]).unwrap();
            let error = check_base(&base).unwrap_err().to_string();
            assert!(error.starts_with(key) && error.ends_with("take it out"), "{error}");
        }
    }
}
