//! A tiny model for the tests of this crate: a catalogue, weights, groups, and the network run the
//! slow and obvious way.

use std::sync::Arc;

use ams_data::catalogue::Catalogue;
use ams_data::{
    Card, Counts, Dataset, Field, Groups, Id, ImageKey, Labels, PictureName, Ragged, Schema, Side,
    Split,
};
use ams_model::{
    ContentBatch, ImageArm, Lists, NO_IMAGE, NetworkSettings, RankBatch, RankNetwork, RankScratch,
    SearchBy, SearchSettings, Sketches, Tower,
};

use arrow_array::{RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

use ams_model::linalg::{Codebooks, Normalize, Projection};
use ams_model::pca::Whiten;

use crate::calibration::Calibration;
use crate::files::folder::Manifest;
use crate::files::golden::Golden;
use crate::files::layout::BundleMeta;
use crate::input::{Input, Keys};
use crate::model::Model;
use crate::request::PageView;
use crate::spec::{CodebookSource, ImageSource, Spec, TowerSharing, TowerWeights};
use crate::tables::contents::{CodeTable, ContentTable};
use crate::write::{Frozen, RowFormat, Weights, write};

/// Item, picture and category.
pub(crate) type Item = (&'static str, Option<&'static str>, Option<&'static str>);

/// The feature store does not know `lost.png`.
pub(crate) const SHOP: [Item; 6] = [
    ("1", Some("1.png"), Some("shoes")),
    ("2", None, Some("shoes")),
    ("3", Some("3.png"), None),
    ("4", Some("4.png"), Some("hats")),
    ("5", Some("lost.png"), Some("hats")),
    ("6", Some("1.png"), Some("hats")),
];

/// Width of every embedding.
const DIM: usize = 3;

pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) spec: Spec,
    pub(crate) weights: Weights,
    pub(crate) catalogue: Catalogue,
    pub(crate) golden: Golden,
    pub(crate) samples: Vec<PageView>,
    pub(crate) rows: RowFormat,
    pub(crate) calibration: Option<Calibration>,
}

/// One group as text: user, age, tags, the behaviors' items, and items and hours shown.
pub(crate) type Row<'a> =
    (&'a str, &'a str, &'a [&'a str], &'a [&'a str], &'a [(&'a str, &'a str)]);

/// Groups with and without history, one longer than a concatenation, with known and unknown values.
pub(crate) const ROWS: [Row<'static>; 3] = [
    ("u1", "25", &["a", "b"], &["1", "5", "1"], &[("3", "12"), ("4", "12")]),
    ("u2", "", &[], &[], &[("1", "7")]),
    ("nobody", "99", &["z", "a"], &["2", "77", "4", "6"], &[("5", "8"), ("78", "8"), ("2", "8")]),
];

impl Fixture {
    pub(crate) fn new(images: ImageArm) -> Fixture {
        Fixture::of(spec(images))
    }

    pub(crate) fn of(spec: Spec) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let catalogue = catalogue(&dir.path().join("data"), &spec.fields, &SHOP);
        let weights = weights(&spec);
        let mut fixture = Fixture {
            dir,
            spec,
            weights,
            catalogue,
            golden: Golden::default(),
            samples: Vec::new(),
            rows: RowFormat::F32,
            calibration: None,
        };
        fixture.samples = vec![
            PageView::parse(br#"{"user": {"id": "u1"}, "candidates": {"item": ["1"]}}"#).unwrap(),
        ];
        let groups = fixture.groups(&ROWS);
        let logits = fixture.slow_logits(&groups);
        fixture.golden = Golden { groups, logits };
        fixture
    }

    /// Writes the model as version `version` of `<dir>/shop`.
    pub(crate) fn write(&self, version: u64) -> crate::Result<Manifest<BundleMeta>> {
        let frozen = Frozen {
            spec: &self.spec,
            weights: &self.weights,
            catalogue: &self.catalogue,
            golden: &self.golden,
            run: "test",
            steps: 12,
            samples: &self.samples,
            rows: self.rows,
            calibration: self.calibration.as_ref(),
        };
        write(&self.place(version), &frozen)
    }

    /// Its items are `items` from now on.
    pub(crate) fn sell(&mut self, items: &[Item]) {
        self.catalogue = catalogue(&self.dir.path().join("data"), &self.spec.fields, items);
    }

    pub(crate) fn place(&self, version: u64) -> std::path::PathBuf {
        self.dir.path().join("shop").join(version.to_string())
    }

    pub(crate) fn model(&self) -> Model {
        self.write(1).unwrap();
        Model::open(&self.place(1)).unwrap()
    }

    /// What reading a sample file would give.
    pub(crate) fn groups(&self, rows: &[Row<'_>]) -> Groups {
        let mut groups = Groups::new(&self.spec.fields);
        for &(user, age, tags, behaviors, impressions) in rows {
            groups.users.push(Id::of("user", user));
            push(&mut groups.user_fields[0], "user", &[user]);
            push(&mut groups.user_fields[1], "age", &[age]);
            push(&mut groups.user_fields[2], "tags", tags);
            groups.behaviors.push(behaviors.len());
            for item in behaviors {
                push_item(&mut groups.behavior_fields, &mut groups.behavior_pictures, item);
                // At ages of 1, 2, 4 .. seconds, where the model sees them.
                let age = 1 << (groups.behavior_times.len() % 8);
                groups.behavior_times.push(if self.spec.sees_ages() { -age } else { 0 });
            }
            groups.impressions.push(impressions.len());
            for (item, hour) in impressions {
                push_item(&mut groups.ad_fields, &mut groups.ad_pictures, item);
                push(&mut groups.context_fields[0], "hour", &[hour]);
                groups.labels.push(0);
                groups.times.push(0);
            }
        }
        groups
    }

    /// The network over one row per use, zeros for unknown ids, and one embedding per use.
    pub(crate) fn slow_logits(&self, groups: &Groups) -> Vec<f32> {
        let (spec, weights) = (&self.spec, &self.weights);
        let keys: Vec<Keys> =
            weights.contents.iter().map(|table| keys(spec, table, groups)).collect();
        let mut rows: Vec<f32> = Vec::new();
        let mut lists = Vec::new();
        let impression_inputs = spec.impression_inputs();
        let behavior_inputs = spec.behavior_inputs();
        for input in spec.group_inputs().iter().chain(&impression_inputs).chain(&behavior_inputs) {
            let mut ids = Ragged::default();
            input.collect(groups, &keys[0], spec.pooled(), &mut ids);
            let first = rows.len() / DIM;
            for id in &ids.values {
                let place = |id: Id| weights.ids.iter().position(|known| *known == id.0);
                let at = place(*id).or_else(|| place(spec.unknown_id(*input)?));
                rows.extend(at.map_or([0.0; DIM], |at| vector(&weights.rows, at)));
            }
            let places: Vec<u32> = (first..rows.len() / DIM).map(|row| row as u32).collect();
            lists.push((ids.offsets, places));
        }
        let lists: Vec<Lists<'_>> = lists
            .iter()
            .map(|(offsets, rows)| Lists { offsets: offsets.as_slice(), rows })
            .collect();
        let (group_fields, rest) = lists.split_at(spec.group_inputs().len());
        let (impression_fields, behavior_fields) = rest.split_at(impression_inputs.len());
        let contents = self.embedded(&keys);
        let contents: Vec<ContentBatch<'_>> = contents
            .iter()
            .zip(spec.contents())
            .map(|([ads, behaviors, sketch_ads, sketch_behaviors], (_, source))| ContentBatch {
                ad_embeddings: &ads.0,
                ad_images: &ads.1,
                behavior_embeddings: &behaviors.0,
                behavior_images: &behaviors.1,
                sketches: Sketches {
                    vectors: &sketch_ads.0,
                    dim: source.input(),
                    ads: &sketch_ads.1,
                    behaviors: &sketch_behaviors.1,
                },
            })
            .collect();
        let kept = self.slow_kept(groups, &keys);
        let network = RankNetwork::new(spec.rank_config());
        let mut recency = Vec::new();
        crate::input::recency(spec.network.similarity, groups, &mut recency);
        let mut logits = Vec::new();
        network.forward(
            &weights.dense[..network.layout().len()],
            &RankBatch {
                impressions: groups.impressions.as_slice(),
                behaviors: groups.behaviors.as_slice(),
                group_fields,
                impression_fields,
                behavior_fields,
                rows: &rows,
                contents: &contents,
                recency: &recency,
                kept: kept.as_ref().map(|(offsets, rows)| Lists { offsets, rows }),
            },
            &mut RankScratch::default(),
            &mut logits,
        );
        logits
    }

    /// What a search keeps for every impression, by definition: all behaviors of the group, sorted.
    fn slow_kept(&self, groups: &Groups, keys: &[Keys]) -> Option<(Vec<u32>, Vec<u32>)> {
        let SearchSettings { keep, by, field } = self.spec.network.search.as_ref()?;
        let [.., sketch_ads, sketch_behaviors] = &self.embedded(keys)[0];
        let field = |side| self.spec.fields.side(side).position(|it| it.name == *field).unwrap();
        let dim = self.spec.image_source.as_ref().map_or(0, ImageSource::input);
        let cosine = |ad: u32, behavior: u32| {
            let [a, b] = [(&sketch_ads.0, ad), (&sketch_behaviors.0, behavior)]
                .map(|(vectors, at)| &vectors[at as usize * dim..][..dim]);
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
        };
        let likeness = |impression: usize, behavior: usize| match by {
            SearchBy::Category => {
                let [ad, past] = [Side::Ad, Side::Behavior].map(field);
                let values = groups.ad_fields[ad].row(impression);
                let same = |id: &Id| values.contains(id);
                f32::from(u8::from(groups.behavior_fields[past].row(behavior).iter().any(same)))
            }
            SearchBy::Pictures => match (sketch_ads.1[impression], sketch_behaviors.1[behavior]) {
                (NO_IMAGE, _) => 0.0,
                (_, NO_IMAGE) => -2.0,
                (ad, behavior) => cosine(ad, behavior),
            },
        };
        let (mut offsets, mut rows) = (vec![0], Vec::new());
        for group in 0..groups.len() {
            for impression in groups.impressions.range(group) {
                let mut order: Vec<usize> = groups.behaviors.range(group).collect();
                let alike = |at: &usize| likeness(impression, *at);
                order.sort_by(|a, b| alike(b).total_cmp(&alike(a)));
                order.truncate(*keep);
                order.sort_unstable();
                rows.extend(order.into_iter().map(|at| at as u32));
                offsets.push(rows.len() as u32);
            }
        }
        Some((offsets, rows))
    }

    /// Of every content: the ads, the behaviors, and the sketches of both; each with the table of
    /// its tower.
    fn embedded(&self, keys: &[Keys]) -> Vec<[(Vec<f32>, Vec<u32>); 4]> {
        let towers = self.spec.towers();
        let embedded = |content: usize, tower: Option<usize>, keys: &[ImageKey]| {
            let table = &self.weights.contents[content];
            let first = towers.iter().take_while(|tower| tower.content < content).count();
            embed(table, tower.map(|tower| tower - first), keys)
        };
        let each = self.spec.content_towers().into_iter().zip(keys).enumerate();
        each.map(|(content, (towers, Keys { ads, behaviors, .. }))| {
            [
                embedded(content, towers.ad, ads),
                embedded(content, towers.behavior, behaviors),
                embedded(content, towers.sketch.or(towers.search), ads),
                embedded(content, towers.sketch.or(towers.search), behaviors),
            ]
        })
        .collect()
    }
}

/// The keys of every picture in `groups`.
fn keys(spec: &Spec, table: &ContentTable, groups: &Groups) -> Keys {
    let mut keys = Keys::default();
    let key = |name: PictureName| table.pictures.iter().find(|pair| pair.0 == name.0);
    keys.resolve(groups, |name| key(name).map_or(ImageKey::NONE, |pair| ImageKey(pair.1)));
    if let (Some(semantic), Some(of)) = (spec.semantic(), &table.semantic) {
        keys.resolve_codes(semantic, |key, to| {
            let at = table.keys.iter().position(|known| *known == key.0);
            to.extend(at.iter().flat_map(|at| of.codes.iter().map(|codes| codes[*at])));
        });
    }
    keys
}

/// The whole table of one tower, and where each key is in it.
fn embed(table: &ContentTable, tower: Option<usize>, keys: &[ImageKey]) -> (Vec<f32>, Vec<u32>) {
    let Some(tower) = tower else { return (Vec::new(), vec![NO_IMAGE; keys.len()]) };
    let place = |key: &ImageKey| {
        let at = table.keys.iter().position(|known| *known == key.0);
        at.map_or(NO_IMAGE, |at| at as u32)
    };
    (table.embeddings[tower].clone(), keys.iter().map(place).collect())
}

pub(crate) fn spec(images: ImageArm) -> Spec {
    let field = |name: &str, side| Field::verbatim(name, side, name == "tags");
    Spec {
        network: NetworkSettings {
            images,
            embedding_dim: DIM,
            attention: [5, 4],
            concatenate_length: 3,
            mlp: vec![7, 6],
            ..NetworkSettings::default()
        },
        fields: Schema {
            fields: vec![
                field("user", Side::User),
                field("age", Side::User),
                field("tags", Side::User),
                field("item", Side::Behavior),
                field("category", Side::Behavior),
                field("item", Side::Ad),
                field("category", Side::Ad),
                field("hour", Side::Context),
            ],
        },
        exclude_fields: Vec::new(),
        max_behaviors: 4,
        query_fields: vec!["item".to_owned(), "category".to_owned()],
        tower: vec![4, DIM],
        sharing: TowerSharing::Separate,
        image_source: Some(ImageSource {
            encoder: "test".to_owned(),
            encoder_hash: "00".to_owned(),
            dim: 8,
            scale: 0.1 * 7.3,
            pca: None,
            normalize: Normalize::None,
            whiten: Whiten::None,
            aligned: false,
            codebooks: None,
        }),
        tower_weights: TowerWeights::Trained,
        further: Vec::new(),
    }
}

/// `spec` with other settings of its network.
pub(crate) fn with(spec: &Spec, change: impl FnOnce(&mut NetworkSettings)) -> Spec {
    let mut spec = spec.clone();
    change(&mut spec.network);
    spec
}

/// `spec` that sees semantic ids of `levels` levels of three centers.
pub(crate) fn semantic(spec: &Spec, levels: usize) -> Spec {
    let mut spec = with(spec, |n| n.semantic_ids = levels);
    let hash = "00112233445566778899aabbccddeeff".repeat(2);
    let source = spec.image_source.as_mut().expect("the fixture has pictures");
    source.codebooks = Some(CodebookSource { size: 3, hash });
    spec
}

fn catalogue(dir: &std::path::Path, fields: &Schema, items: &[Item]) -> Catalogue {
    std::fs::create_dir_all(dir).unwrap();
    let texts = |of: fn(&Item) -> Option<&'static str>| {
        Arc::new(items.iter().map(of).collect::<StringArray>()) as arrow_array::ArrayRef
    };
    let columns = [
        ("item", texts(|item| Some(item.0))),
        ("image", texts(|item| item.1)),
        ("category", texts(|item| item.2)),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = std::fs::File::create(dir.join("items.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let card = Card {
        format: ams_data::schema::FORMAT.to_owned(),
        name: "test".to_owned(),
        parts: 1,
        fields: fields.clone(),
        split: Split::Time { test_from: 0 },
        labels: Labels::Observed,
        hold_out_items: None,
        max_behaviors: 4,
        counts: Counts { items: items.len() as u64, ..Counts::default() },
    };
    ams_data::dataset::write_card(dir, &card).unwrap();
    Catalogue::open(&Dataset::open(dir).unwrap()).unwrap()
}

/// Names of pictures and keys: the name's hash, changed. Content 1 knows other pictures than
/// content 0.
fn pictures(content: usize) -> Vec<(u64, u64)> {
    let names = [&["1.png", "3.png", "4.png"][..], &["lost.png", "4.png"]][content];
    let hashes = names.iter().map(|name| PictureName::of(name).0);
    let mut pairs: Vec<_> =
        hashes.map(|hash| (hash, hash.rotate_left(7 + content as u32))).collect();
    pairs.sort_unstable();
    pairs
}

fn weights(spec: &Spec) -> Weights {
    let network = RankNetwork::new(spec.rank_config());
    let mut dense = network.init(1);
    let towers = spec.towers();
    for tower in &towers {
        dense.extend(Tower::new(tower.config.clone()).init(1, &tower.name));
    }
    // First values have zero biases; these are all different.
    dense.iter_mut().enumerate().for_each(|(at, weight)| *weight += noise(at as u64) * 0.1);
    // Not of every input: a row may be absent.
    let unknown = [Input::Ad(0), Input::Behavior(0), Input::EachBehavior(0), Input::User(2)];
    let unknown = unknown.map(|input| spec.unknown_id(input));
    let mut ids: Vec<u64> = [
        ("user", &["u1", "u2"][..]),
        ("age", &["25"]),
        ("tags", &["a", "b"]),
        ("item", &["1", "2", "3", "4", "77"]),
        ("category", &["shoes", "hats"]),
        ("hour", &["12", "7"]),
    ]
    .into_iter()
    .flat_map(|(field, values)| values.iter().map(move |value| Id::of(field, value).0))
    .chain(pictures(0).into_iter().map(|(_, key)| Id::of_image(ImageKey(key)).0))
    .chain(unknown.into_iter().flatten().map(|id| id.0))
    .collect();
    if spec.sees_ages() {
        ids.extend([0, 1, 3, 5].map(|bucket| Id::of_age(bucket).0));
    }
    if let Some(of) = spec.semantic() {
        // Not of every prefix: a row may be absent.
        for codes in [[0, 0, 1], [1, 2, 0], [2, 1, 2], [2, 0, 1], [0, 1, 0]] {
            let mut prefixes = Vec::new();
            Id::of_prefixes(of.book, codes, &mut prefixes);
            ids.extend(prefixes.iter().map(|id| id.0));
        }
    }
    ids.sort_unstable();
    ids.dedup();
    let rows = ids.iter().flat_map(|&id| (0..DIM as u64).map(move |d| noise(id ^ d))).collect();
    let contents = (0..1 + spec.further.len()).map(|content| table(spec, content)).collect();
    Weights { dense, ids, rows, contents }
}

/// Arbitrary embeddings of the pictures of one content.
fn table(spec: &Spec, content: usize) -> ContentTable {
    let pictures = pictures(content);
    let mut keys: Vec<u64> = pictures.iter().map(|&(_, key)| key).collect();
    keys.sort_unstable();
    let towers = spec.towers();
    let of: Vec<_> = towers.iter().enumerate().filter(|(_, t)| t.content == content).collect();
    let semantic = spec.semantic().filter(|_| content == 0);
    if of.is_empty() && semantic.is_none() {
        keys.clear();
    }
    let embedding = |(number, width): (usize, u64)| {
        let values = keys.iter().flat_map(|&key| (0..width).map(move |d| key ^ d));
        values.map(|seed| noise(seed.wrapping_add(number as u64 + 1))).collect()
    };
    let embeddings = of.iter().map(|(number, tower)| embedding((*number, tower.dim() as u64)));
    let embeddings = embeddings.collect();
    let source = spec.contents().get(content).map(|(_, source)| (*source).clone());
    let projection = source.and_then(|source| {
        let pca = source.pca?;
        let (mean, components) = (vec![0.5; source.dim], vec![0.25; pca * source.dim]);
        Some(Projection { normalize: source.normalize, mean, components, unit: source.aligned })
    });
    let semantic = semantic.map(|semantic| {
        let shape = [semantic.levels, semantic.size, spec.contents()[content].1.dim];
        let centers: Vec<f32> = (0..shape.iter().product::<usize>() as u64).map(noise).collect();
        let code = |level: usize, at: usize| ((level + 1) * (at + 2) % semantic.size) as u32;
        let of_level = |level: usize| (0..keys.len()).map(|at| code(level, at)).collect();
        CodeTable {
            codebooks: Codebooks::new(shape, &centers),
            codes: (0..semantic.levels).map(of_level).collect(),
        }
    });
    ContentTable { pictures, keys, embeddings, projection, semantic }
}

/// Puts a file of these bytes in the place of another, as published files are read-only.
pub(crate) fn replace(path: &std::path::Path, bytes: impl AsRef<[u8]>) {
    let other = path.with_extension("other");
    std::fs::write(&other, bytes).unwrap();
    std::fs::rename(other, path).unwrap();
}

/// Some float between -1 and 1.
pub(crate) fn noise(seed: u64) -> f32 {
    let hash = Id::of("noise", &seed.to_string()).0 >> 40;
    hash as f32 / (1u64 << 23) as f32 - 1.0
}

fn vector(table: &[f32], at: usize) -> [f32; DIM] {
    table[at * DIM..][..DIM].try_into().unwrap()
}

fn push(column: &mut Ragged<Id>, field: &str, values: &[&str]) {
    let values = values.iter().filter(|value| !value.is_empty());
    let ids: Vec<Id> = values.map(|value| Id::of(field, value)).collect();
    column.push(&ids);
}

fn push_item(columns: &mut [Ragged<Id>], pictures: &mut Vec<PictureName>, item: &str) {
    let known = SHOP.iter().find(|known| known.0 == item);
    push(&mut columns[0], "item", &[item]);
    push(&mut columns[1], "category", &[known.and_then(|known| known.2).unwrap_or("")]);
    pictures.push(PictureName::of(known.and_then(|known| known.1).unwrap_or("")));
}
