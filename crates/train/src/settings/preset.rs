//! Presets: sets of values that stand in for the defaults, below the keys of a file.

use ams_model::settings::IdRates;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::settings::phases;

/// Name of a set of values that stand in for the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// The network and the optimizer of the paper: the defaults.
    Paper,
    /// For small data: the best values found on logs of some hundred thousand impressions.
    Small,
    /// For data whose pictures may help or not: aligned vectors, and a choice on the newest
    /// samples between no pictures, similarity alone, and towers, each of which must be better than
    /// those before it by its standard error; the number of epochs is found there, too. In training
    /// a twentieth of the ads lacks its own id and its picture's, as a new item does. Four
    /// trainings instead of one.
    Recommended,
}

/// Keys that [`Preset::Small`] stands for.
const SMALL: &str = r#"
[model]
base = "din"
aggregator = "attentive"
towers = "shared"
pca = 64
tower = [12]
interactions = "product"
similarity = "histogram"

[train]
rows_learning_rate = 0.002
l2_ids = 0.01
tower_weight_decay = 1.0
"#;

/// Keys that [`Preset::Recommended`] stands for.
const RECOMMENDED: &str = r#"
[model]
base = "din"
aggregator = "attentive"
towers = "shared"
tower = [12]
interactions = "product"
similarity = "histogram"
id_dropout = { item = 0.05, image = 0.05 }
unknown = "learned"

[train]
epochs = 10
rows_learning_rate = 0.002
l2_ids = 0.01
tower_weight_decay = 1.0
validation_tail = 0.1
evaluations_per_epoch = 4
early_stop = 6
early_stop_by = "logloss"
refit = true
candidates = ["ids", "similarity", "full"]
candidate_errors = 1.0

[align]
"#;

impl Preset {
    fn settings(self) -> Table {
        let text = match self {
            Preset::Paper => "",
            Preset::Small => SMALL,
            Preset::Recommended => RECOMMENDED,
        };
        toml::from_str(text).expect("presets are TOML")
    }
}

/// Section, key of a file, and the key of a preset that it excludes.
const EXCLUDED: [[&str; 3]; 4] = [
    ["model", "projection", "pca"],
    ["model", "pca", "projection"],
    ["train", "validation_parts", "validation_tail"],
    ["train", "phases", "epochs"],
];

/// Keys of a preset that are for a search of the number of epochs.
const SEARCH: [&str; 5] =
    ["validation_tail", "early_stop", "refit", "candidates", "candidate_errors"];

/// Puts the settings of `model.preset`, where `config` has one, where it has none of its own, and
/// the epochs of `train.phases` where it has no other. `train.early_stop = 0` is no value.
pub fn expand(config: &mut Table) {
    let searches = !takes_no_early_stop(config);
    let preset = config.get("model").and_then(|model| model.get("preset")).cloned();
    // What is no preset is found out when the configuration is understood.
    if let Some(preset) = preset.and_then(|preset| preset.try_into::<Preset>().ok()) {
        let mut settings = preset.settings();
        // A key of the file stands in for those of the preset that exclude it.
        for [section, key, excluded] in EXCLUDED {
            let has = |section: &Value| section.get(key).is_some();
            if config.get(section).is_some_and(has)
                && let Some(Value::Table(settings)) = settings.get_mut(section)
            {
                settings.remove(excluded);
            }
        }
        if let (false, Some(Value::Table(train))) = (searches, settings.get_mut("train")) {
            SEARCH.iter().for_each(|key| drop(train.remove(*key)));
        }
        leave_ids(config, &mut settings);
        merge(config, settings);
    }
    phases::fill_epochs(config);
}

/// Removes `train.early_stop` where it is 0; whether it was.
fn takes_no_early_stop(config: &mut Table) -> bool {
    let Some(Value::Table(train)) = config.get_mut("train") else { return false };
    let none = train.get("early_stop").and_then(Value::as_integer) == Some(0);
    if none {
        train.remove("early_stop");
    }
    none
}

/// Takes the dropout of ids out of a preset's `settings` where `config` has its own, rate by rate;
/// and the unknown row that learns where nothing would train it.
fn leave_ids(config: &Table, settings: &mut Table) {
    let Some(Value::Table(of_preset)) = settings.get_mut("model") else { return };
    let typed = |section: &str, key: &str| config.get(section).and_then(|table| table.get(key));
    let Some(rates) = typed("model", "id_dropout") else { return };
    of_preset.remove("id_dropout");
    let drops = IdRates::deserialize(rates.clone()).map_or(true, |rates| !rates.is_none());
    let admits = typed("train", "min_occurrences").and_then(Value::as_integer).unwrap_or(1) > 1;
    if !drops && !admits {
        of_preset.remove("unknown");
    }
}

/// Adds what `under` has and `table` has not.
fn merge(table: &mut Table, under: Table) {
    for (key, value) in under {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(table)), Value::Table(under)) => merge(table, under),
            (Some(_), _) => {}
            (None, value) => {
                table.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::settings::{ModelConfig, TowerSharing, TrainConfig, UnknownIds};

    fn read(text: &str) -> Config {
        let mut table: Table = toml::from_str(text).expect("TOML");
        expand(&mut table);
        let config = Config::deserialize(Value::Table(table)).expect("a configuration");
        config.check().expect("a good one");
        config
    }

    #[test]
    fn a_preset_stands_below_the_keys_of_the_file() {
        let head = "name = 'x'\n[data]\nsamples = 's'\n";
        let plain = read(head);
        assert_eq!(read(&format!("{head}[train]\nearly_stop = 0\n")), plain);
        let paper = read(&format!("{head}[model]\npreset = 'paper'\n"));
        let preset = Some(Preset::Paper);
        assert_eq!(paper, Config { model: ModelConfig { preset, ..plain.model.clone() }, ..plain });
        assert_eq!(
            (paper.model, paper.train),
            (ModelConfig { preset, ..ModelConfig::default() }, TrainConfig::default())
        );

        let small = read(&format!("{head}[model]\npreset = 'small'\nmlp = [7]\n"));
        assert_eq!(
            (&small.model.network.mlp[..], small.model.towers),
            (&[7][..], TowerSharing::Shared)
        );
        let other = read(&format!("{head}[model]\npreset = 'small'\ntowers = 'separate'\n"));
        assert_eq!(
            (other.model.towers, other.model.pca),
            (TowerSharing::Separate, small.model.pca)
        );
        let projected =
            read(&format!("{head}[model]\npreset = 'small'\nprojection = {{ components = 8 }}\n"));
        assert_eq!(
            (projected.model.pca, projected.model.projected().unwrap().components),
            (None, 8)
        );
        let recommended = read(&format!(
            "{head}[model]\npreset = 'recommended'\n[train]\nvalidation_parts = 8\n[align]\nsteps = 9\n"
        ));
        let align = recommended.align.clone().expect("the preset aligns");
        assert_eq!((align.steps, align.shape(1280)), (9, [64, 128]));
        assert_eq!(recommended.train.validation_tail, 0.0);
        assert_eq!(recommended.train.candidates.len(), 3);
        let fixed = read(&format!(
            "{head}[model]\npreset = 'recommended'\n[train]\nearly_stop = 0\nepochs = 3\n"
        ))
        .train;
        assert_eq!((fixed.epochs, fixed.early_stop, fixed.refit), (3, None, false));
        assert_eq!((fixed.validation_tail, fixed.candidates.len()), (0.0, 0));
        let rate = ["item", "image"].map(|field| recommended.model.network.id_dropout.of(field));
        assert_eq!(rate, [0.05; 2]);
        // Rates of the file are all there are; and nothing learns what none drops.
        for (typed, rate, unknown) in [
            ("{ user = 0.5 }", [0.0, 0.5], UnknownIds::Learned),
            ("0.25", [0.25; 2], UnknownIds::Learned),
            ("0.0", [0.0; 2], UnknownIds::Zero),
            ("{}", [0.0; 2], UnknownIds::Zero),
        ] {
            let network =
                read(&format!("{head}[model]\npreset = 'recommended'\nid_dropout = {typed}\n"));
            let network = network.model.network;
            let rates = ["item", "user"].map(|field| network.id_dropout.of(field));
            assert_eq!((rates, network.unknown), (rate, unknown), "{typed}");
        }
        // What a run writes down means the same, whatever presets become later.
        for config in [small, recommended] {
            let written = toml::to_string(&config).expect("TOML");
            assert_eq!(read(&written), config);
        }
    }
}
