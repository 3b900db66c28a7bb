//! The dataset card `dataset.json`: which fields there are, how the samples were made, what they
//! count.
//!
//! A dataset is a folder:
//! ```text
//! dataset.json            this card
//! items.parquet           item, image (nullable), one column per item field: the catalogue
//! train/part-PP.parquet   groups of the users whose hash falls into part PP; see `samples`
//! test/part-PP.parquet    the same of later impressions
//! images/                 the feature store, where `encode` puts it by default
//! ```

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::Id;
use crate::value::{self, Buckets};

/// `format` of a card this build reads and writes.
pub const FORMAT: &str = "ams-dataset/1";

/// Parts of a dataset and of a feature store unless a card says otherwise.
pub const PARTS: usize = 64;

/// The name of the field (and column) that identifies the user.
pub const USER: &str = "user";

/// The name of the field that identifies the item, on the ad and the behavior side.
pub const ITEM: &str = "item";

/// The list of past behaviors, in a sample file.
pub const BEHAVIORS: &str = "behaviors";

/// The list of impressions, in a sample file.
pub const IMPRESSIONS: &str = "impressions";

/// The column that names a picture.
pub const IMAGE: &str = "image";

/// The column that says when.
pub const TIME: &str = "time";

/// The column that says clicked or not.
pub(crate) const LABEL: &str = "label";

/// What a field describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The user: one value list per group.
    User,
    /// The item of one past behavior: one value list per behavior.
    Behavior,
    /// The item shown: one value list per impression.
    Ad,
    /// The circumstances (hour, page, device): one value list per impression.
    Context,
}

/// One categorical field on one side. The same name on two sides (say `category` of the ad and of
/// the behaviors) means the same ids and the same embedding rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Column name in the sample files, and the text hashed into the ids.
    pub name: String,
    /// Whether the field describes users, items or the circumstances.
    pub side: Side,
    /// Whether a value is a list (`list<utf8>` in the files) rather than at most one text.
    #[serde(default)]
    pub multi: bool,
    /// How its texts are read. None, as in cards from before there were kinds: every text is a
    /// value of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<FieldKind>,
}

/// How the texts of a field are read; see [`crate::value`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FieldKind {
    /// One category, [`value::category`]; of `user` and `item` [`value::id`].
    Categorical,
    /// A list of categories.
    List {
        /// Where a list that comes as one text is cut.
        separator: String,
    },
    /// A number, [`value::measure`], which is the id of its bucket.
    Numeric {
        /// Edges between the buckets, ascending.
        edges: Buckets,
    },
}

impl Field {
    /// A field whose texts are values as they are.
    pub fn verbatim(name: &str, side: Side, multi: bool) -> Field {
        Field { name: name.to_string(), side, multi, kind: None }
    }

    /// Whether this is the field `other`, read in the same way but for the edges of numbers.
    pub fn reads_alike(&self, other: &Field) -> bool {
        let kinds = match (&self.kind, &other.kind) {
            (Some(FieldKind::Numeric { .. }), Some(FieldKind::Numeric { .. })) => true,
            (Some(FieldKind::List { .. }), Some(FieldKind::List { .. })) => true,
            (one, other) => one == other,
        };
        kinds && (&self.name, self.side, self.multi) == (&other.name, other.side, other.multi)
    }

    /// The edges between its buckets, if it is numeric.
    pub fn edges(&self) -> Option<&Buckets> {
        match &self.kind {
            Some(FieldKind::Numeric { edges }) => Some(edges),
            _ => None,
        }
    }

    /// The value that `text` says, one value of this field: empty if it is missing. A number is as
    /// it came.
    ///
    /// # Errors
    /// What came and what was expected.
    pub fn value<'a>(&self, text: &'a str) -> Result<Cow<'a, str>, String> {
        match &self.kind {
            None => Ok(Cow::Borrowed(text)),
            Some(FieldKind::Numeric { .. }) => Ok(match value::measure(text, None)? {
                Some(_) => Cow::Borrowed(text.trim()),
                None => Cow::Borrowed(""),
            }),
            Some(_) if matches!(&self.name[..], USER | ITEM) => value::id(text),
            Some(_) => value::category(text),
        }
    }

    /// The id of `text`, one value of this field; `None` if it is missing.
    ///
    /// # Errors
    /// As [`Field::value`].
    pub fn id(&self, text: &str) -> Result<Option<Id>, String> {
        if let Some(edges) = self.edges() {
            let number = value::measure(text, None)?;
            return Ok(number.map(|number| edges.id(&self.name, number)));
        }
        let text = self.value(text)?;
        Ok((!text.is_empty()).then(|| Id::of(&self.name, &text)))
    }

    /// The texts of a list that comes as one text; of a field that is no list, the text itself.
    pub fn cut<'a>(&self, text: &'a str) -> Vec<Cow<'a, str>> {
        match &self.kind {
            Some(FieldKind::List { separator }) => value::parts(text, Some(separator)),
            _ => vec![Cow::Borrowed(text)],
        }
    }
}

/// The fields of a dataset in file order. `user` (side user) and `item` (sides behavior and ad) are
/// always among them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schema {
    /// All fields, in file order.
    pub fields: Vec<Field>,
}

impl Schema {
    /// The fields of one side, in file order.
    pub fn side(&self, side: Side) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(move |field| field.side == side)
    }

    /// Whether these are the fields of `other`, read in the same way but for the edges of numbers.
    pub fn reads_alike(&self, other: &Schema) -> bool {
        self.fields.len() == other.fields.len()
            && self.fields.iter().zip(&other.fields).all(|(one, other)| one.reads_alike(other))
    }
}

/// What the samples count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Users with at least one group.
    pub users: u64,
    /// Items of the catalogue.
    pub items: u64,
    /// Items of the catalogue that name a picture.
    pub items_with_image: u64,
    /// Items of the catalogue that are held out of training; not written if there are none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub items_held_out: u64,
    /// Groups in train and test.
    pub groups: u64,
    /// Impressions in train and test.
    pub impressions: u64,
    /// Number of impressions whose label is 1.
    pub clicks: u64,
    /// Behaviors per impression, on average (every impression of a group counts the group's
    /// history).
    pub behaviors_mean: f64,
    /// Number of impressions in `train/`.
    pub train: u64,
    /// Number of impressions in `test/`.
    pub test: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Items that training never sees, neither shown nor in a history: a share of all, chosen by their
/// texts, so that a model can be judged on items it does not know. The items of a smaller share are
/// among those of a larger one with the same seed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldOut {
    /// Share of the items, 0..1.
    pub share: f64,
    /// Seed of the choice; equal seeds choose equal items.
    #[serde(default = "first_seed")]
    pub seed: u64,
}

fn first_seed() -> u64 {
    1
}

impl HoldOut {
    /// Whether this item is held out: its hash, as a fraction of 2^64, is below the share.
    pub fn holds(&self, item: &str) -> bool {
        let hash = xxh3_64_with_seed(item.as_bytes(), self.seed);
        // The upper 53 bits, which a double holds exactly.
        ((hash >> 11) as f64) < self.share * (1u64 << 53) as f64
    }
}

/// Where the labels come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Labels {
    /// Shown and clicked or not, as logged.
    Observed,
    /// The log holds positives only; the negatives were drawn.
    Sampled {
        /// Number of negatives per positive.
        negatives: u32,
        /// How they were drawn: `uniform`, `popularity`, `stratified`, `contemporary` or `around`
        /// (until version 0.1 called `contemporary`).
        method: String,
        /// The seed of the draw.
        seed: u64,
    },
}

/// How train and test were separated. Never at random.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Split {
    /// Impressions at or after this instant (unix seconds) are the test.
    Time {
        /// First instant of the test.
        test_from: i64,
    },
    /// The last share of each user's impressions is the test.
    UserTail {
        /// Share of a user's impressions held out, 0..1.
        fraction: f64,
    },
}

/// The card of a dataset, `dataset.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Name and version of the format; equal to [`FORMAT`].
    pub format: String,
    /// What the dataset is called in reports.
    pub name: String,
    /// Number of parts of `train/` and `test/`, a power of two.
    pub parts: usize,
    /// The fields, in the order of the sample files' columns.
    pub fields: Schema,
    /// How train and test were separated.
    pub split: Split,
    /// Where the labels come from.
    pub labels: Labels,
    /// Which items were held out of training, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_out_items: Option<HoldOut>,
    /// Most behaviors a group keeps.
    pub max_behaviors: usize,
    /// What the samples count.
    pub counts: Counts,
}
