//! A tiny shop on the way to a model, as far as a test needs it.

use serde_json::Value;

use crate::place::Place;

/// `ams prepare` of the shop, but for `--out`.
pub const PREPARE: &str = "prepare --events shop/events.parquet --items shop/items.csv \
    --user-fields gender,age --item-fields category,brand --context-fields hour,position";

/// `ams train` of the shop, small.
pub const TRAIN: &str = "train shop.toml --set model.tower=[16,12]";

/// The configuration of [`TRAIN`].
pub const CONFIG: &str = "\
name = \"tiny\"

[data]
samples = \"data\"

[train]
batch = 64
log_every = 1
";

impl Place {
    /// A shop in `shop` and its configuration in `shop.toml`; the report of `ams synth`.
    pub fn shop(&self) -> Value {
        self.write("shop.toml", CONFIG);
        self.json("synth --out shop --size tiny")
    }

    /// The shop's dataset in `data`; the report of `ams prepare`.
    pub fn prepared(&self) -> Value {
        self.json(&format!("{PREPARE} --out data"))
    }

    /// The shop's feature store in `data/images`; the report of `ams encode`.
    pub fn encoded(&self) -> Value {
        self.json("encode data --images shop --dim 64")
    }

    /// A place with a shop, its dataset and its feature store.
    pub fn with_data() -> Place {
        let place = Place::new();
        place.shop();
        place.prepared();
        place.encoded();
        place
    }

    /// Likewise with a trained run in `runs/tiny`.
    pub fn with_run() -> Place {
        let place = Place::with_data();
        place.json(TRAIN);
        place
    }
}
