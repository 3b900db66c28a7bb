//! What a model is made of, in words and sizes: everything needed to compute a score but the
//! numbers.
//!
//! A run resolves its configuration to a [`Spec`]; a bundle carries it; trainer and scorer build
//! their networks from it, so both read the same fields in the same order.

use ams_data::{Field, Schema, Side};
use ams_model::{Aggregator, ImageArm, RankConfig, TowerConfig};
use serde::{Deserialize, Serialize};

use crate::input::Input;

/// Which towers embed images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TowerSharing {
    /// One tower for ads, one for behaviors (the reading of the paper this project takes).
    #[default]
    Separate,
    /// One tower for both.
    Shared,
}

/// Where the input of the towers comes from. A model and a feature store belong together only if
/// these agree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSource {
    /// The encoder's name.
    pub encoder: String,
    /// The blake3 hash of all that defines the encoder.
    pub encoder_hash: String,
    /// Floats per image feature (F).
    pub dim: usize,
    /// What features are multiplied with before the first tower layer: 1 / rms of the store.
    pub scale: f32,
}

/// The shape of a rank model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The fields of the samples, in order.
    pub fields: Schema,
    /// Names of fields the model does not see.
    pub exclude_fields: Vec<String>,
    /// Most behaviors a history keeps, the newest; as in the samples the model learned from.
    pub max_behaviors: usize,
    /// Which images the network sees.
    pub images: ImageArm,
    /// How behavior image embeddings become one vector.
    pub aggregator: Aggregator,
    /// Width of every embedding (D).
    pub dim: usize,
    /// Widths of the attention's two hidden layers.
    pub attention: [usize; 2],
    /// How many image embeddings the aggregator `concatenate` puts end to end. Specs from before there
    /// was this setting do not have it, and their hash counts: so the usual length is not written.
    #[serde(
        default = "RankConfig::concatenate_length",
        skip_serializing_if = "is_usual_concatenate_length"
    )]
    pub concatenate_length: usize,
    /// Widths of the hidden layers after the concatenation.
    pub mlp: Vec<usize>,
    /// Ad fields that form the second query of the multi-query attention.
    pub query_fields: Vec<String>,
    /// Widths of the tower's layers; the last one is `dim`.
    pub tower: Vec<usize>,
    /// One tower or two.
    pub sharing: TowerSharing,
    /// The image features behind the model; `None` trains on ids alone, without even image ids.
    pub image_source: Option<ImageSource>,
}

fn is_usual_concatenate_length(length: &usize) -> bool {
    *length == RankConfig::concatenate_length()
}

/// No width of a sane model is larger; products of two stay far from overflow.
const WIDTH_MAX: usize = 1 << 24;

impl Spec {
    /// What is wrong with this shape, if anything is: what came and what was expected. Networks may
    /// be built from a spec that passes.
    pub fn check(&self) -> Result<(), String> {
        let source = self.image_source.as_ref();
        let widths = [&[self.dim][..], &self.attention, &self.mlp, &self.tower].concat();
        let concatenated = (self.aggregator == Aggregator::Concatenate)
            .then(|| self.concatenate_length.saturating_mul(self.dim));
        let widths = widths.into_iter().chain(source.map(|source| source.dim));
        let mut widths = widths.chain(concatenated);
        if let Some(width) = widths.find(|&width| width == 0 || width > WIDTH_MAX) {
            return Err(format!("a width is {width}, expected 1 to {WIDTH_MAX}"));
        }
        if self.images != ImageArm::None && source.is_none() {
            return Err(format!("images = {:?} needs an image source", self.images));
        }
        if source.is_some() && self.tower.last() != Some(&self.dim) {
            return Err(format!("tower = {:?} has to end in dim = {}", self.tower, self.dim));
        }
        let ad: Vec<&str> = self.used(Side::Ad).map(|(_, field)| &field.name[..]).collect();
        match self.query_fields.iter().find(|name| !ad.contains(&&name[..])) {
            Some(name) => {
                Err(format!("query field `{name}` is not among the ad fields {}", ad.join(", ")))
            }
            None => self.rank_config().check(),
        }
    }

    /// What is pooled once per group, in the order of [`RankConfig::group_fields`].
    pub fn group_inputs(&self) -> Vec<Input> {
        let user = self.inputs_of(Side::User, Input::User);
        let behavior = self.inputs_of(Side::Behavior, Input::Behavior);
        let image = self.image_source.iter().map(|_| Input::BehaviorImage);
        user.chain(behavior).chain(image).collect()
    }

    /// What is pooled per impression, in the order of [`RankConfig::impression_fields`].
    pub fn impression_inputs(&self) -> Vec<Input> {
        let ad = self.inputs_of(Side::Ad, Input::Ad);
        let context = self.inputs_of(Side::Context, Input::Context);
        let image = self.image_source.iter().map(|_| Input::AdImage);
        ad.chain(context).chain(image).collect()
    }

    /// The inputs of the fields of one side, without the excluded ones.
    fn inputs_of(&self, side: Side, input: fn(usize) -> Input) -> impl Iterator<Item = Input> {
        self.used(side).map(move |(index, _)| input(index))
    }

    /// The fields of one side that the model sees, with their places among all fields of the side.
    fn used(&self, side: Side) -> impl Iterator<Item = (usize, &Field)> {
        let fields = self.fields.side(side).enumerate();
        fields.filter(|(_, field)| !self.exclude_fields.contains(&field.name))
    }

    /// What an input is called in messages: its side and field, such as `ad.item`.
    pub fn input_name(&self, input: Input) -> String {
        let (side, name, place) = match input {
            Input::User(place) => (Side::User, "user", place),
            Input::Behavior(place) => (Side::Behavior, "behavior", place),
            Input::Ad(place) => (Side::Ad, "ad", place),
            Input::Context(place) => (Side::Context, "context", place),
            Input::BehaviorImage => return "behavior.image".to_owned(),
            Input::AdImage => return "ad.image".to_owned(),
        };
        let field = self.fields.side(side).nth(place).map_or("?", |field| &field.name);
        format!("{name}.{field}")
    }

    /// The rank network's shape.
    pub fn rank_config(&self) -> RankConfig {
        let ad_fields: Vec<&str> = self.fields.side(Side::Ad).map(|f| &f.name[..]).collect();
        let is_query = |input: &Input| match input {
            Input::Ad(field) => self.query_fields.iter().any(|name| name == ad_fields[*field]),
            _ => false,
        };
        let impression_inputs = self.impression_inputs();
        let queries = impression_inputs.iter().enumerate().filter(|(_, input)| is_query(input));
        RankConfig {
            dim: self.dim,
            group_fields: self.group_inputs().len(),
            impression_fields: impression_inputs.len(),
            query_fields: queries.map(|(index, _)| index).collect(),
            images: self.images,
            aggregator: self.aggregator,
            attention: self.attention,
            concatenate_length: self.concatenate_length,
            mlp: self.mlp.clone(),
        }
    }

    /// The towers this model trains, by name: none, `ad`, `behavior`, both, or `image` if shared.
    pub fn towers(&self) -> Vec<&'static str> {
        let (ad, behavior) = (self.images.has_ad(), self.images.has_behavior());
        match self.sharing {
            TowerSharing::Shared if ad || behavior => vec!["image"],
            _ => [(ad, "ad"), (behavior, "behavior")]
                .into_iter()
                .filter_map(|(used, name)| used.then_some(name))
                .collect(),
        }
    }

    /// Index into [`Spec::towers`] of the tower that embeds ad images, if the model sees them.
    pub fn ad_tower(&self) -> Option<usize> {
        self.images.has_ad().then_some(0)
    }

    /// Index into [`Spec::towers`] of the tower that embeds behavior images, if the model sees
    /// them.
    pub fn behavior_tower(&self) -> Option<usize> {
        self.images.has_behavior().then(|| self.towers().len() - 1)
    }

    /// The towers' shape; `None` without images.
    pub fn tower_config(&self) -> Option<TowerConfig> {
        let source = self.image_source.as_ref()?;
        Some(TowerConfig { input: source.dim, widths: self.tower.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::spec;

    #[test]
    fn impossible_shapes_are_explained() {
        let good = spec(ImageArm::Joint);
        let cases = [
            (Spec { dim: 0, ..good.clone() }, "a width is 0, expected 1 to 16777216"),
            (Spec { mlp: vec![1 << 40], ..good.clone() }, "a width is 1099511627776"),
            (Spec { tower: vec![4], ..good.clone() }, "tower = [4] has to end in dim = 3"),
            (Spec { tower: vec![], ..good.clone() }, "tower = [] has to end in dim = 3"),
            (Spec { image_source: None, ..good.clone() }, "images = Joint needs an image source"),
            (
                Spec { exclude_fields: vec!["category".into()], ..good.clone() },
                "query field `category` is not among the ad fields item",
            ),
            (Spec { mlp: vec![], ..good.clone() }, "mlp is []"),
            (Spec { concatenate_length: 0, ..good.clone() }, "concatenate_length is [0]"),
            (
                Spec {
                    aggregator: Aggregator::Concatenate,
                    concatenate_length: usize::MAX / 2,
                    ..good.clone()
                },
                "a width is 18446744073709551615",
            ),
        ];
        for (spec, expected) in cases {
            let error = spec.check().expect_err(expected);
            assert!(error.starts_with(expected), "{error}");
        }
        assert_eq!(good.check(), Ok(()));
    }

    #[test]
    fn a_spec_from_before_concatenation_is_read_and_keeps_its_hash() {
        let usual = Spec { concatenate_length: 32, ..spec(ImageArm::Joint) };
        let text = serde_json::to_string(&usual).unwrap();
        assert!(!text.contains("concatenate"), "{text}");
        assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), usual);
        let other = Spec { concatenate_length: 3, ..usual };
        let text = serde_json::to_string(&other).unwrap();
        assert!(text.contains(r#""concatenate_length":3,"#), "{text}");
        assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), other);
    }

    #[test]
    fn inputs_are_named_by_side_and_field() {
        let spec = Spec { exclude_fields: vec!["age".into(), "item".into()], ..spec(ImageArm::Ad) };
        let inputs = [spec.group_inputs(), spec.impression_inputs()].concat();
        let names: Vec<String> = inputs.into_iter().map(|input| spec.input_name(input)).collect();
        let group = ["user.user", "user.tags", "behavior.category", "behavior.image"];
        let impression = ["ad.category", "context.hour", "ad.image"];
        assert_eq!(names, [&group[..], &impression].concat());
    }

    #[test]
    fn towers_follow_arm_and_sharing() {
        let towers = |images, sharing| {
            let spec = Spec { sharing, ..spec(images) };
            (spec.towers(), spec.ad_tower(), spec.behavior_tower())
        };
        let (separate, shared) = (TowerSharing::Separate, TowerSharing::Shared);
        assert_eq!(towers(ImageArm::None, separate), (vec![], None, None));
        assert_eq!(towers(ImageArm::Ad, separate), (vec!["ad"], Some(0), None));
        assert_eq!(towers(ImageArm::Behavior, separate), (vec!["behavior"], None, Some(0)));
        assert_eq!(towers(ImageArm::Joint, separate), (vec!["ad", "behavior"], Some(0), Some(1)));
        assert_eq!(towers(ImageArm::None, shared), (vec![], None, None));
        assert_eq!(towers(ImageArm::Joint, shared), (vec!["image"], Some(0), Some(0)));
    }
}
