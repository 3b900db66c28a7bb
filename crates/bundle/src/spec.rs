//! What a model is made of, in words and sizes: everything needed to compute a score but the
//! numbers.
//!
//! A run resolves its configuration to a [`Spec`]; a bundle carries it; trainer and scorer build
//! their networks from it, so both read the same fields in the same order.

use ams_data::schema::ITEM;
use ams_data::{Field, Id, Schema, Side};
use ams_model::linalg::{CENTERS_MAX, Normalize};
use ams_model::pca::Whiten;
use ams_model::settings::{Beside, Form, UnknownIds, range};
use ams_model::{
    Aggregator, Base, ImageArm, NetworkSettings, RankConfig, SearchBy, SearchSettings, TowerConfig,
};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::input::{Input, Semantic};
use crate::search::SearchField;

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

/// The source of the towers' weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TowerWeights {
    /// Trained with everything else, as in the paper.
    #[default]
    Trained,
    /// Their first values for good: a random projection.
    Random,
    /// The first principal components of the features for good, one linear layer: what is cheapest
    /// to put before a network that is trained elsewhere.
    Pca,
}

/// Where the input of the towers comes from. A model and a feature store belong together only if
/// these agree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSource {
    /// Name of the encoder, for messages.
    pub encoder: String,
    /// The blake3 hash of all that defines the encoder.
    pub encoder_hash: String,
    /// Floats per image feature (F).
    pub dim: usize,
    /// What the towers' input is multiplied with before the first layer: 1 / its rms.
    pub scale: f32,
    /// How many principal components of a feature the towers see in its place, if that is not all
    /// of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pca: Option<usize>,
    /// What becomes of a feature before its components are taken. This and what follows is not
    /// written where it is as usual, because the description is hashed.
    #[serde(default, with = "NormalizeName", skip_serializing_if = "is_usual")]
    pub normalize: Normalize,
    /// How the components are scaled.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub whiten: Whiten,
    /// Whether the components were mapped to aligned vectors, of length 1.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub aligned: bool,
    /// The codebooks of the semantic ids, if the model sees those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codebooks: Option<CodebookSource>,
}

/// The codebooks of a feature store. Codes mean the same only if these agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodebookSource {
    /// Centers of a level (K).
    pub size: usize,
    /// blake3 of the centers of all levels of the store, hex.
    pub hash: String,
}

impl CodebookSource {
    /// The first 8 bytes of the hash, as a big-endian number; none if it is no hash.
    fn book(&self) -> Option<u64> {
        let first = self.hash.get(..16).filter(|_| self.hash.len() == 64)?;
        u64::from_str_radix(first, 16).ok()
    }
}

/// The name of the field whose values are the codes of the first `level` + 1 levels.
fn semantic_field(level: usize) -> String {
    format!("semantic_{}", level + 1)
}

fn is_usual<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// How files and configurations spell [`Normalize`].
#[derive(Serialize, Deserialize)]
#[serde(remote = "Normalize", rename_all = "lowercase")]
pub enum NormalizeName {
    /// [`Normalize::None`].
    None,
    /// [`Normalize::Rows`].
    Rows,
}

impl ImageSource {
    /// Width of the towers' input.
    pub fn input(&self) -> usize {
        self.pca.unwrap_or(self.dim)
    }
}

/// A content besides images that has towers, such as vectors of texts. Items have the same names in
/// all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FurtherContent {
    /// Name of the content, for example `text`.
    pub name: String,
    /// Where the towers' input comes from.
    pub source: ImageSource,
}

/// One tower of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct TowerSpec {
    /// Its name: `ad`, `behavior`, `image` for both, or `sketch`; with `text.` in front for
    /// content `text`.
    pub name: String,
    /// The content it embeds, an index into [`Spec::contents`].
    pub content: usize,
    /// Widths of input and layers.
    pub config: TowerConfig,
    /// The source of its weights.
    pub weights: TowerWeights,
}

impl TowerSpec {
    /// Width of its embeddings.
    pub fn dim(&self) -> usize {
        self.config.widths[self.config.widths.len() - 1]
    }

    /// Whether training changes its weights.
    pub fn is_trained(&self) -> bool {
        self.weights == TowerWeights::Trained
    }
}

/// The towers of one content, as indices into [`Spec::towers`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentTowers {
    /// Embeds the ads', if the model sees them.
    pub ad: Option<usize>,
    /// Embeds the behaviors', if the model sees them.
    pub behavior: Option<usize>,
    /// Makes the sketches of both, if the model compares them.
    pub sketch: Option<usize>,
    /// Makes the vectors by which histories are searched, if they are those of this content: the
    /// same sketches.
    pub search: Option<usize>,
}

/// Name of the first content.
const IMAGE: &str = "image";

/// Width of a sketch, unless features are narrower.
const SKETCH: usize = 64;

/// The shape of a rank model.
///
/// Its JSON is hashed, so the order of its keys is part of the format, see its `Serialize`. A key
/// that is not of the first format is not written where it is as usual.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct Spec {
    /// The settings of the rank network.
    #[serde(skip)]
    pub network: NetworkSettings,
    /// The fields of the samples, in order.
    pub fields: Schema,
    /// Names of fields the model does not see.
    pub exclude_fields: Vec<String>,
    /// Most behaviors a history keeps, the newest; as in the samples the model learned from.
    pub max_behaviors: usize,
    /// Ad fields that form the second query of the multi-query attention.
    pub query_fields: Vec<String>,
    /// Widths of the tower's layers; the last one is that of an embedding.
    pub tower: Vec<usize>,
    /// One tower or two.
    pub sharing: TowerSharing,
    /// The image features behind the model; `None` trains on ids alone, without even image ids.
    pub image_source: Option<ImageSource>,
    /// The source of the towers' weights.
    #[serde(default)]
    pub tower_weights: TowerWeights,
    /// Contents beside images, in the order of their towers.
    #[serde(default)]
    pub further: Vec<FurtherContent>,
}

impl<'de> Deserialize<'de> for Spec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Spec, D::Error> {
        let mut network = NetworkSettings::default();
        let spec = Spec::deserialize(Beside::new(from, Form::Described, &mut network))?;
        Ok(Spec { network, ..spec })
    }
}

impl Serialize for Spec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Spec { network, fields, exclude_fields, max_behaviors, .. } = self;
        let Spec { query_fields, tower, sharing, image_source, tower_weights, further, .. } = self;
        // A later setting is among the last ones.
        let (first, last) = NetworkSettings::KEYS.split_at(FIRST_SETTINGS);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("fields", fields)?;
        map.serialize_entry("exclude_fields", exclude_fields)?;
        map.serialize_entry("max_behaviors", max_behaviors)?;
        network.write_keys(first, Form::Described, &mut map)?;
        map.serialize_entry("query_fields", query_fields)?;
        map.serialize_entry("tower", tower)?;
        map.serialize_entry("sharing", sharing)?;
        map.serialize_entry("image_source", image_source)?;
        network.write_keys(last, Form::Described, &mut map)?;
        if *tower_weights != TowerWeights::default() {
            map.serialize_entry("tower_weights", tower_weights)?;
        }
        if !further.is_empty() {
            map.serialize_entry("further", further)?;
        }
        map.end()
    }
}

/// How many settings of the network stand before the query fields: `images` to `mlp`.
const FIRST_SETTINGS: usize = 6;

impl Spec {
    /// What is wrong with this shape, if anything is: what came and what was expected. Networks may
    /// be built from a spec that passes.
    pub fn check(&self) -> Result<(), String> {
        let source = self.image_source.as_ref();
        let network = &self.network;
        if let Err((key, what)) = network.check() {
            return Err(format!("{}: {what}", Form::Described.name(key)));
        }
        let concatenated = (network.aggregator == Aggregator::Concatenate)
            .then(|| network.concatenate_length.saturating_mul(network.embedding_dim));
        let further = self.further.iter().map(|content| &content.source);
        let sources = source.into_iter().chain(further).flat_map(|s| [s.dim, s.input()]);
        let mut widths = self.tower.iter().copied().chain(sources).chain(concatenated);
        widths.try_for_each(|width| range::width(&width))?;
        if self.network.images != ImageArm::None && source.is_none() {
            return Err(format!("images = {:?} needs an image source", self.network.images));
        }
        if source.is_none() && (self.network.compares() || !self.further.is_empty()) {
            return Err(
                "similarity, attention_cosine and further contents need an image source".to_owned()
            );
        }
        if self.tower_weights == TowerWeights::Pca && self.tower.len() != 1 {
            return Err(format!(
                "tower_weights = pca is one layer, but tower = {:?}; expected [{}]",
                self.tower, network.embedding_dim
            ));
        }
        self.check_semantic()?;
        let contents = self.contents();
        if let Some((name, source)) =
            contents.iter().find(|(_, source)| source.input() > source.dim)
        {
            let (pca, dim) = (source.input(), source.dim);
            return Err(format!("content {name} has {dim} numbers, too few for pca = {pca}"));
        }
        let usual = (Normalize::None, Whiten::None, false);
        let unprojected = |source: &ImageSource| {
            source.pca.is_none() && (source.normalize, source.whiten, source.aligned) != usual
        };
        if let Some((name, _)) = contents.iter().find(|(_, source)| unprojected(source)) {
            return Err(format!("content {name} has normalize, whiten or aligned, but no pca"));
        }
        let mut names: Vec<&str> = contents.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(format!("two contents have one name; they are {}", names.join(", ")));
        }
        if source.is_some() && self.tower.last() != Some(&network.embedding_dim) {
            let (tower, dim) = (&self.tower, network.embedding_dim);
            return Err(format!("tower = {tower:?} has to end in dim = {dim}"));
        }
        let ad = self.used(Side::Ad).map(|(_, field)| field.name.clone());
        let ad: Vec<String> = ad.chain(self.semantic_fields()).collect();
        self.check_search()?;
        self.check_id_dropout(&ad)?;
        match self.query_fields.iter().find(|name| !ad.contains(name)) {
            Some(name) => {
                Err(format!("query field `{name}` is not among the ad fields {}", ad.join(", ")))
            }
            None => self.rank_config().check(),
        }
    }

    /// Checks that the fields whose ids are dropped are among those of the user and of the `ad`. A
    /// preset names items and images, which need not be there.
    fn check_id_dropout(&self, ad: &[String]) -> Result<(), String> {
        let user = self.used(Side::User).map(|(_, field)| &field.name[..]);
        let fields: Vec<&str> = user.chain(ad.iter().map(String::as_str)).chain([IMAGE]).collect();
        let mut named = self.network.id_dropout.fields();
        match named.find(|name| *name != ITEM && !fields.contains(name)) {
            Some(name) => {
                let possible = fields.join(", ");
                Err(format!("id_dropout: there is no field `{name}`; possible are {possible}"))
            }
            None => Ok(()),
        }
    }

    /// Width of every embedding (D).
    pub fn dim(&self) -> usize {
        self.network.embedding_dim
    }

    /// All contents with towers, by name: images first.
    pub fn contents(&self) -> Vec<(&str, &ImageSource)> {
        let images = self.image_source.iter().map(|source| (IMAGE, source));
        let further = self.further.iter().map(|content| (&content.name[..], &content.source));
        images.chain(further).collect()
    }

    /// Inputs pooled once per group, in the order of [`RankConfig::group_fields`].
    pub fn group_inputs(&self) -> Vec<Input> {
        let user = self.inputs_of(Side::User, Input::User);
        let behavior = self.used(Side::Behavior).filter(|(_, field)| !self.attends_to(&field.name));
        let behavior = behavior.map(|(place, _)| Input::Behavior(place));
        let image = self.has_image_ids().then_some(Input::BehaviorImage);
        let codes = (0..self.network.semantic_ids)
            .filter(|level| !self.attends_to(&semantic_field(*level)))
            .map(Input::BehaviorCode);
        let age = self.age_buckets().filter(|_| self.network.base != Base::Din);
        let age = age.map(Input::BehaviorAge);
        user.chain(behavior).chain(image).chain(codes).chain(age).collect()
    }

    /// What is pooled per behavior, in the order of [`RankConfig::behavior_fields`]: what DIN
    /// attends to.
    pub fn behavior_inputs(&self) -> Vec<Input> {
        let attended = self.used(Side::Behavior).filter(|(_, field)| self.attends_to(&field.name));
        let codes = (0..self.network.semantic_ids)
            .filter(|level| self.attends_to(&semantic_field(*level)))
            .map(Input::EachBehaviorCode);
        let age = self.age_buckets().filter(|_| self.network.base == Base::Din);
        let fields = attended.map(|(place, _)| Input::EachBehavior(place));
        fields.chain(codes).chain(age.map(Input::EachBehaviorAge)).collect()
    }

    /// The semantic ids that the model sees, if it does.
    pub fn semantic(&self) -> Option<Semantic> {
        let levels = Some(self.network.semantic_ids).filter(|levels| *levels > 0)?;
        let source = self.image_source.as_ref()?.codebooks.as_ref()?;
        Some(Semantic { levels, size: source.size, book: source.book()? })
    }

    /// The names of the fields of semantic ids, which ads and behaviors have.
    fn semantic_fields(&self) -> impl Iterator<Item = String> {
        (0..self.network.semantic_ids).map(semantic_field)
    }

    fn check_semantic(&self) -> Result<(), String> {
        let levels = self.network.semantic_ids;
        let source = self.image_source.as_ref().and_then(|source| source.codebooks.as_ref());
        let of_others = self.further.iter().any(|content| content.source.codebooks.is_some());
        match (levels, source) {
            (0, None) if !of_others => Ok(()),
            (1.., Some(source)) if !of_others => {
                if !(2..=CENTERS_MAX).contains(&source.size) || source.book().is_none() {
                    let CodebookSource { size, hash } = source;
                    return Err(format!(
                        "codebooks of {size} centers and hash {hash:?}, expected 2 to {CENTERS_MAX} \
                         and 64 hexadecimal digits"
                    ));
                }
                let of_samples =
                    |side| self.used(side).map(|(_, field)| &field.name[..]).collect::<Vec<_>>();
                let names = [of_samples(Side::Ad), of_samples(Side::Behavior)].concat();
                match self.semantic_fields().find(|name| names.contains(&&name[..])) {
                    Some(name) => Err(format!(
                        "the samples have a field {name}, which is the name of a semantic id: give it \
                         another name, or exclude it"
                    )),
                    None => Ok(()),
                }
            }
            (0, _) => {
                Err("codebooks, but semantic_ids = 0 and no other content has any".to_owned())
            }
            _ => Err(format!("semantic_ids = {levels} needs an image source with codebooks")),
        }
    }

    /// Whether ids of images are fields of ads and behaviors.
    fn has_image_ids(&self) -> bool {
        self.network.image_ids && self.image_source.is_some()
    }

    /// The buckets of a behavior's age, if the model sees it.
    fn age_buckets(&self) -> Option<usize> {
        Some(self.network.behavior_age_buckets).filter(|buckets| *buckets > 0)
    }

    /// Whether a score depends on the times of behaviors.
    pub fn sees_ages(&self) -> bool {
        self.age_buckets().is_some() || self.network.similarity.sees_ages()
    }

    /// Whether the ids of the behavior field `name` are weighed by the ad's field of that name.
    fn attends_to(&self, name: &str) -> bool {
        self.network.base == Base::Din && self.query_fields.iter().any(|query| query == name)
    }

    /// What is pooled per impression, in the order of [`RankConfig::impression_fields`]. Vectors
    /// that are computed ahead know no context.
    pub fn impression_inputs(&self) -> Vec<Input> {
        let ad = self.inputs_of(Side::Ad, Input::Ad);
        let context = self.inputs_of(Side::Context, Input::Context);
        let context = context.filter(|_| self.network.base != Base::PreRank);
        let image = self.has_image_ids().then_some(Input::AdImage);
        let codes = (0..self.network.semantic_ids).map(Input::AdCode);
        ad.chain(context).chain(image).chain(codes).collect()
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

    /// Name of an input in messages: its side and field, for example `ad.item`.
    pub fn input_name(&self, input: Input) -> String {
        let (side, name, place) = match input {
            Input::User(place) => (Side::User, "user", place),
            Input::Behavior(place) | Input::EachBehavior(place) => {
                (Side::Behavior, "behavior", place)
            }
            Input::Ad(place) => (Side::Ad, "ad", place),
            Input::Context(place) => (Side::Context, "context", place),
            Input::BehaviorImage => return "behavior.image".to_owned(),
            Input::BehaviorAge(_) | Input::EachBehaviorAge(_) => {
                return "behavior.time".to_owned();
            }
            Input::AdImage => return "ad.image".to_owned(),
            Input::BehaviorCode(level) | Input::EachBehaviorCode(level) => {
                return format!("behavior.{}", semantic_field(level));
            }
            Input::AdCode(level) => return format!("ad.{}", semantic_field(level)),
        };
        let field = self.fields.side(side).nth(place).map_or("?", |field| &field.name);
        format!("{name}.{field}")
    }

    /// The id whose row stands in for the ids of `input` that have none; none where that is zeros.
    pub fn unknown_id(&self, input: Input) -> Option<Id> {
        let learned = self.network.unknown == UnknownIds::Learned;
        learned.then(|| Id::unknown(&self.input_name(input)))
    }

    /// The rank network's shape.
    pub fn rank_config(&self) -> RankConfig {
        let ad_fields: Vec<&str> = self.fields.side(Side::Ad).map(|f| &f.name[..]).collect();
        let is_query = |input: &Input| match input {
            Input::Ad(field) => self.query_fields.iter().any(|name| name == ad_fields[*field]),
            Input::AdCode(level) => self.query_fields.contains(&semantic_field(*level)),
            _ => false,
        };
        let impression_inputs = self.impression_inputs();
        let queries = impression_inputs.iter().enumerate().filter(|(_, input)| is_query(input));
        let contents = self.contents();
        let behavior_fields: Vec<&str> =
            self.fields.side(Side::Behavior).map(|f| &f.name[..]).collect();
        let asks = |input: Input| {
            impression_inputs.iter().position(|other| match (input, *other) {
                (Input::EachBehavior(place), Input::Ad(field)) => {
                    ad_fields[field] == behavior_fields[place]
                }
                (Input::EachBehaviorCode(level), Input::AdCode(of_ad)) => of_ad == level,
                _ => false,
            })
        };
        RankConfig {
            network: self.network.clone(),
            group_fields: self.group_inputs().len(),
            impression_fields: impression_inputs.len(),
            query_fields: queries.map(|(index, _)| index).collect(),
            behavior_fields: self.behavior_inputs().into_iter().filter_map(asks).collect(),
            contents: contents.into_iter().map(|(name, _)| name.to_owned()).collect(),
        }
    }

    /// The towers, content by content.
    pub fn towers(&self) -> Vec<TowerSpec> {
        let mut towers = Vec::new();
        for (content, (name, source)) in self.contents().into_iter().enumerate() {
            let prefix = if content == 0 { String::new() } else { format!("{name}.") };
            let tower = |name: &str, widths: &[usize], weights| TowerSpec {
                name: format!("{prefix}{name}"),
                content,
                config: TowerConfig { input: source.input(), widths: widths.to_vec() },
                weights,
            };
            let embeds = self.embeds();
            towers.extend(embeds.iter().map(|name| tower(name, &self.tower, self.tower_weights)));
            if self.has_sketch(content) {
                let width = SKETCH.min(source.input());
                towers.push(tower("sketch", &[width], TowerWeights::Pca));
            }
        }
        towers
    }

    /// The towers of each content that embed: none, `ad`, `behavior`, both, or `image` if shared.
    fn embeds(&self) -> &'static [&'static str] {
        let shared = self.sharing == TowerSharing::Shared;
        match (self.network.images.has_ad(), self.network.images.has_behavior()) {
            (false, false) => &[],
            _ if shared => &[IMAGE],
            (true, false) => &["ad"],
            (false, true) => &["behavior"],
            (true, true) => &["ad", "behavior"],
        }
    }

    /// Which tower does what, for each of [`Spec::contents`].
    pub fn content_towers(&self) -> Vec<ContentTowers> {
        let (embeds, images) = (self.embeds().len(), self.network.images);
        let (compares, is_search) = (self.network.compares(), self.network.searches_pictures());
        let mut first = 0;
        let mut towers = Vec::new();
        for content in 0..self.contents().len() {
            let sketch = first + embeds;
            towers.push(ContentTowers {
                ad: images.has_ad().then_some(first),
                behavior: images.has_behavior().then(|| sketch - 1),
                sketch: compares.then_some(sketch),
                search: (is_search && content == 0).then_some(sketch),
            });
            first = sketch + usize::from(self.has_sketch(content));
        }
        towers
    }

    /// Whether content `content` has a tower that makes sketches.
    fn has_sketch(&self, content: usize) -> bool {
        self.network.compares() || (content == 0 && self.network.searches_pictures())
    }

    /// Number of behaviors, the newest, that the fields of behaviors pool.
    pub fn pooled(&self) -> usize {
        self.network.search.as_ref().map_or(usize::MAX, |search| search.keep)
    }

    /// The field by whose values histories are searched, if they are.
    pub fn search_field(&self) -> Option<SearchField> {
        let search = self.network.search.as_ref().filter(|by| by.by == SearchBy::Category)?;
        let place = |side| {
            let found = self.used(side).find(|(_, field)| field.name == search.field);
            found.map(|(place, _)| place)
        };
        Some(SearchField { behavior: place(Side::Behavior)?, ad: place(Side::Ad)? })
    }

    fn check_search(&self) -> Result<(), String> {
        let Some(SearchSettings { keep, by, field }) = &self.network.search else { return Ok(()) };
        if *keep > self.max_behaviors {
            return Err(format!(
                "search.keep = {keep}, expected 1 to max_behaviors = {} of the samples",
                self.max_behaviors
            ));
        }
        match by {
            SearchBy::Pictures if self.image_source.is_none() => {
                Err("search.by = pictures needs an image source".to_owned())
            }
            SearchBy::Category if self.search_field().is_none() => {
                let names = |side| self.used(side).map(|(_, field)| &field.name[..]);
                let ad: Vec<&str> = names(Side::Ad).collect();
                let both: Vec<&str> = names(Side::Behavior).filter(|it| ad.contains(it)).collect();
                Err(format!(
                    "search.field = {field:?}, expected a field of behaviors and ads: {}",
                    both.join(", ")
                ))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
