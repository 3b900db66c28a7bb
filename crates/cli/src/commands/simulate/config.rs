//! The file of `ams simulate`.

use std::path::{Path, PathBuf};

use ams_market::MarketConfig;
use serde::Deserialize;
use toml::{Table, Value};

use crate::config_file::{self, Settings};
use crate::failure::Failure;

/// An experiment, and how its variants are made.
#[derive(Clone, Debug)]
pub(super) struct SimulateConfig {
    pub(super) a: VariantConfig,
    pub(super) b: VariantConfig,
    /// Keys of `daily.toml`.
    pub(super) daily: Table,
    /// Flags of `ams encode`.
    pub(super) encode: Table,
    pub(super) market: MarketConfig,
}

/// A variant of the model.
#[derive(Clone, Debug)]
pub(super) struct VariantConfig {
    /// What reports call it.
    pub(super) name: String,
    /// The configuration of its trainings, in TOML, without name and data.
    pub(super) train: String,
}

/// What was typed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Given {
    a: GivenVariant,
    b: GivenVariant,
    daily: Table,
    encode: Table,
    market: Table,
}

impl Settings for Given {}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GivenVariant {
    name: Option<String>,
    train: Option<PathBuf>,
}

/// Keys of `daily.toml` that the simulation decides.
const OF_DAYS: [&str; 6] = ["name", "models", "work", "train", "prepare", "encode"];

/// Flags of `ams encode` that it decides.
const OF_STORE: [&str; 6] = ["dataset", "images", "list", "list-column", "out", "threads"];

/// Settings of the shop that it decides.
const OF_SHOP: [&str; 2] = ["seed", "days"];

/// Nights are short: they go on with all weights, and learn from the newest days. The first days of
/// an experiment are not like the days before it, when nobody ranked.
const DAILY: &str = "\
days = 3
warm_start = \"all\"
[sanity]
click_rate = 10.0
impressions = 10.0
per_user = 10.0
auc = 0.5
";

/// Trainings of a shop of the demo's size, and of a small one.
const TRAIN: &str =
    "[train]\nepochs = 2\nbatch = 512\ndecay_every = 200\nrows_learning_rate = 0.016\n";
const QUICK_TRAIN: &str =
    "[train]\nepochs = 2\nbatch = 128\ndecay_every = 100\nrows_learning_rate = 0.016\n";

impl SimulateConfig {
    /// Reads the file `path`; what it does not say is a quick simulation's, or the usual one's.
    ///
    /// # Errors
    /// If the file is not readable, or a key or a value of it is wrong.
    pub(super) fn read(
        path: Option<&Path>,
        sets: &[String],
        quick: bool,
    ) -> Result<SimulateConfig, Failure> {
        let name = path.map_or("the settings".to_owned(), |path| path.display().to_string());
        let given: Given = match path {
            Some(path) => config_file::read(path, sets)?,
            None => config_file::parse(&name, "", sets)?,
        };
        let of_file = |what: String| Failure::user(format!("{name}: {what}"));
        for (section, refused, table) in [
            ("daily", &OF_DAYS[..], &given.daily),
            ("encode", &OF_STORE, &given.encode),
            ("market.shop", &OF_SHOP, &shop_of(&given.market)),
        ] {
            let mut keys = table.keys();
            let found = keys.find(|key| refused.contains(&&*key.replace('_', "-")));
            if let Some(key) = found {
                let what = "the simulation decides this; leave it out";
                return Err(of_file(format!("{section}.{key}: {what}")));
            }
        }
        let usual = if quick { MarketConfig::quick() } else { MarketConfig::default() };
        let mut market = Table::try_from(usual).expect("settings are TOML");
        merge(&mut market, given.market);
        let market: MarketConfig = market.try_into().map_err(|error: toml::de::Error| {
            of_file(format!("market: {}", error.message().replace('\n', " ")))
        })?;
        market.check().map_err(|what| of_file(format!("market: {what}")))?;
        let mut daily: Table = toml::from_str(DAILY).expect("a constant");
        merge(&mut daily, given.daily);
        let mut encode = Table::from_iter([("dim".to_owned(), Value::Integer(64))]);
        merge(&mut encode, given.encode);
        let train = if quick { QUICK_TRAIN } else { TRAIN };
        let variant = |given: GivenVariant, usual: &str, images: &str| {
            let train = match given.train {
                None => Ok(format!("[model]\nimages = {images:?}\n{train}")),
                Some(path) => std::fs::read_to_string(&path)
                    .map_err(|error| Failure::user(format!("{}: {error}", path.display()))),
            };
            let name = given.name.unwrap_or_else(|| usual.to_owned());
            Ok::<VariantConfig, Failure>(VariantConfig { name, train: train? })
        };
        Ok(SimulateConfig {
            a: variant(given.a, "ids", "none")?,
            b: variant(given.b, "pictures", "joint")?,
            daily,
            encode,
            market,
        })
    }
}

/// The settings of the shop, if there are any.
fn shop_of(market: &Table) -> Table {
    market.get("shop").and_then(Value::as_table).cloned().unwrap_or_default()
}

/// Puts the values of `over` into `table`; tables into tables.
fn merge(table: &mut Table, over: Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(over)) => merge(inner, over),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}
