//! A dataset with the shape of the paper's mini-batch and nothing in it to learn: it shows what a
//! step moves and costs at that size, not what a model finds out.
//!
//! Per batch: 60,000 impressions of 7,970 groups, 32.6 behaviors a group. That makes 320 thousand
//! references to images and, over 27 fields with the image ids that the model adds on both sides,
//! 1.44 million ids.
//!
//! Items follow Zipf's law with exponent 1, drawn as the floor of exp(u ln(items + 1)): item k then
//! has the probability ln(1 + 1/k) / ln(items + 1). So a few items are in every history, some of
//! them twice, and most are rare, as in a real log. Every item has a picture of its own; the
//! catalogue holds only items that somebody refers to. All other values and the labels are drawn
//! evenly and know nothing of each other.
//!
//! Every pair of groups, group and item has a random stream of its own, so one config gives the
//! same bytes. Groups are drawn twice, once to learn which items there are; memory is bounded by
//! the catalogue, eight bytes per group and one part. Knows the sample files. Does not know
//! pictures, models or lanes.

use std::fs;
use std::path::Path;

use arrow_array::LargeStringArray;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::dataset::{SplitName, part_path, write_card};
use crate::samples::{BLOCK_GROUPS, Behavior, GroupRow, Impression, SampleWriter};
use crate::schema::{Card, Counts, FORMAT, Field, ITEM, Labels, PARTS, Schema, Side, Split, USER};
use crate::staging::StagedFolder;
use crate::{Catalogue, Error, Id, Result, part_of};

/// What is called clicked, of all impressions.
const CLICK_RATE: f64 = 0.04;

/// The midnight before the first impression; all impressions are of the day after it.
const MIDNIGHT: i64 = 1_700_006_400;
const DAY: i64 = 86_400;
/// A group's impressions are less than this apart.
const HOUR: i64 = 3_600;
/// How far histories reach back, as in the paper.
const FORTNIGHT: i64 = 14 * DAY;

/// Different values of the user fields other than `user`: the most and the least of any.
const USER_VALUES: [u64; 2] = [100_000, 2];
/// Likewise of the item fields other than `item`.
const ITEM_VALUES: [u64; 2] = [10_000, 2];
/// Likewise of the context fields.
const CONTEXT_VALUES: [u64; 2] = [1_000, 2];

/// What to write. The default is three batches of the paper's size; the same config gives the same
/// bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimulateConfig {
    /// Seed from which all ids and labels are drawn.
    pub seed: u64,
    /// How many batches to write; no two of them share a user.
    pub batches: u64,
    /// Impressions of one batch.
    pub impressions: u64,
    /// Groups of one batch, each of another user.
    pub groups: u64,
    /// Behaviors of a group, on average.
    pub behaviors_mean: f64,
    /// Items there are to draw from.
    pub items: u64,
    /// Fields of the user, `user` among them.
    pub user_fields: usize,
    /// Fields of an item, `item` among them; a behavior has them and an ad has them.
    pub item_fields: usize,
    /// Fields of an impression's circumstances.
    pub context_fields: usize,
    /// All groups alike, and items taken in turn: there are exactly as many images in a batch as
    /// there are items, as long as it refers to that many.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub even: bool,
}

impl Default for SimulateConfig {
    fn default() -> Self {
        SimulateConfig::paper()
    }
}

impl SimulateConfig {
    /// Three batches of the paper's size.
    pub fn paper() -> SimulateConfig {
        SimulateConfig {
            seed: 1,
            batches: 3,
            impressions: 60_000,
            groups: 7_970,
            behaviors_mean: 32.6,
            items: 10_000_000,
            user_fields: 15,
            item_fields: 2,
            context_fields: 6,
            even: false,
        }
    }

    /// The same with a `divisor`-th of the groups, impressions and items, for quick runs.
    ///
    /// # Panics
    /// If `divisor` is zero.
    pub fn scaled(self, divisor: u64) -> SimulateConfig {
        let share = |count: u64| (count / divisor).max(1);
        SimulateConfig {
            impressions: share(self.impressions),
            groups: share(self.groups),
            items: share(self.items),
            ..self
        }
    }

    /// Fields of the samples and of the image ids that the model adds on the behavior and the ad
    /// side: 27 in the paper.
    pub fn fields(&self) -> usize {
        self.user_fields + 2 * (self.item_fields + 1) + self.context_fields
    }

    /// Checks every number.
    ///
    /// # Errors
    /// [`Error::Option`] naming the first number out of its range, what it is and what it may be.
    pub fn check(&self) -> Result<()> {
        let whole = |name, value: u64, least: u64, most: u64| {
            in_range(name, value as f64, least as f64, most as f64)
        };
        whole("batches", self.batches, 1, 1 << 20)?;
        whole("groups", self.groups, 1, 1 << 30)?;
        whole("impressions", self.impressions, self.groups, 1 << 40)?;
        in_range("behaviors_mean", self.behaviors_mean, 1.0, 10_000.0)?;
        whole("items", self.items, 1, i32::MAX as u64)?;
        whole("user_fields", self.user_fields as u64, 1, 1_000)?;
        whole("item_fields", self.item_fields as u64, 1, 1_000)?;
        whole("context_fields", self.context_fields as u64, 0, 1_000)
    }

    fn schema(&self) -> Schema {
        let one = |name: String, side| Field::verbatim(&name, side, false);
        let item_side = |side| {
            let others = (1..self.item_fields).map(item_field);
            std::iter::once(ITEM.to_string()).chain(others).map(move |name| one(name, side))
        };
        let user = std::iter::once(one(USER.to_string(), Side::User));
        let profile = (1..self.user_fields).map(|at| one(format!("profile_{at}"), Side::User));
        let context =
            (0..self.context_fields).map(|at| one(format!("context_{}", at + 1), Side::Context));
        let fields = user
            .chain(profile)
            .chain(item_side(Side::Behavior))
            .chain(item_side(Side::Ad))
            .chain(context);
        Schema { fields: fields.collect() }
    }
}

/// The name of an item field other than `item`, counted from 1. The first one is called as in the
/// paper, whose second query asks for it.
fn item_field(at: usize) -> String {
    if at == 1 { "category".to_string() } else { format!("category_{at}") }
}

fn in_range(name: &str, value: f64, least: f64, most: f64) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::option(format!("simulated batches: {name} is {value}, expected {least} to {most}")))
}

/// What was written, over all batches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SimulateReport {
    /// Number of batches, each of one step.
    pub batches: u64,
    /// Number of distinct users.
    pub users: u64,
    /// Items that are referred to, each with a picture.
    pub items: u64,
    /// Groups, one per user.
    pub groups: u64,
    /// Number of impressions in all batches.
    pub impressions: u64,
    /// Behaviors, once per group.
    pub behaviors: u64,
    /// Images that impressions and behaviors refer to, with repetitions.
    pub image_references: u64,
    /// Ids, with repetitions, counting an image id for every impression and behavior as the model
    /// adds it.
    pub id_references: u64,
}

/// Writes the dataset of `config` as the new folder `out`, all of it in the train half. It appears
/// whole or not at all.
///
/// # Errors
/// [`Error::Option`] if the config makes no sense or `out` exists and is not an empty folder;
/// [`Error::Io`].
pub fn simulate(config: &SimulateConfig, out: &Path) -> Result<SimulateReport> {
    config.check()?;
    refuse_to_overwrite(out)?;
    let folder = StagedFolder::create(out)?;
    let dir = folder.temporary();
    let crowd = Crowd::new(config);
    let items = crowd.referenced();
    let catalogue = crowd.catalogue(&items);
    catalogue.write(dir)?;
    for split in SplitName::ALL {
        let path = dir.join(split.as_str());
        fs::create_dir_all(&path).map_err(Error::io(&path))?;
    }
    let counts = crowd.write(dir, &catalogue, &items)?;
    let card = crowd.card(counts);
    write_card(dir, &card)?;
    folder.replace()?;
    Ok(crowd.report(&card.counts))
}

fn refuse_to_overwrite(out: &Path) -> Result<()> {
    let refuse = |what: &str| Err(Error::option(format!("{}: {what}", out.display())));
    if out.file_name().is_none() {
        return refuse("expected the name of a folder to make");
    }
    let exists = fs::symlink_metadata(out).is_ok();
    let empty_folder = fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    if exists && !empty_folder {
        return refuse("exists already; choose another folder or remove it");
    }
    Ok(())
}

/// All groups, drawn as they are asked for.
struct Crowd<'a> {
    config: &'a SimulateConfig,
    schema: Schema,
    groups: u64,
    impressions: u64,
    behaviors: u64,
    /// How many different values each field has.
    user_values: Vec<u64>,
    item_values: Vec<u64>,
    context_values: Vec<u64>,
}

/// The items of one group, by number.
#[derive(Default)]
struct GroupItems {
    behaviors: Vec<u32>,
    impressions: Vec<u32>,
}

impl<'a> Crowd<'a> {
    fn new(config: &'a SimulateConfig) -> Crowd<'a> {
        let groups = config.groups * config.batches;
        Crowd {
            config,
            schema: config.schema(),
            groups,
            impressions: config.impressions * config.batches,
            behaviors: (config.behaviors_mean * groups as f64).round() as u64,
            user_values: cardinalities(config.user_fields - 1, USER_VALUES),
            item_values: cardinalities(config.item_fields - 1, ITEM_VALUES),
            context_values: cardinalities(config.context_fields, CONTEXT_VALUES),
        }
    }

    fn stream(&self, entity: Entity, number: u64) -> Stream {
        Stream::new(self.config.seed, entity, number)
    }

    /// Draws the items of a group.
    fn items(&self, group: u64, to: &mut GroupItems) {
        let mut pair = self.stream(Entity::Pair, group / 2);
        let mut draw = self.stream(Entity::GroupItems, group);
        let counts = [self.behaviors, self.impressions];
        if self.config.even {
            let mut before = 0;
            for (total, items) in counts.into_iter().zip([&mut to.behaviors, &mut to.impressions]) {
                let turns = before + begin(total, self.groups, group)
                    ..before + begin(total, self.groups, group + 1);
                items.clear();
                items.extend(turns.map(|turn| (turn % self.config.items) as u32 + 1));
                before += total;
            }
            return;
        }
        for (total, items) in counts.into_iter().zip([&mut to.behaviors, &mut to.impressions]) {
            let count = share(total, self.groups, group, &mut pair);
            items.clear();
            items.extend((0..count).map(|_| draw.zipf(self.config.items)));
        }
    }

    /// The numbers of all items that a group refers to, ascending.
    fn referenced(&self) -> Vec<u32> {
        let mut bits = vec![0u64; self.config.items as usize / 64 + 1];
        let mut items = GroupItems::default();
        for group in 0..self.groups {
            self.items(group, &mut items);
            for &item in items.behaviors.iter().chain(&items.impressions) {
                bits[item as usize / 64] |= 1 << (item % 64);
            }
        }
        let numbers = 0..=self.config.items as u32;
        numbers.filter(|&item| bits[item as usize / 64] >> (item % 64) & 1 == 1).collect()
    }

    fn catalogue(&self, items: &[u32]) -> Catalogue {
        // Of one width, so that their texts ascend as their numbers do.
        let width = self.config.items.to_string().len();
        let texts = |prefix: &str| {
            LargeStringArray::from_iter_values(
                items.iter().map(|item| format!("{prefix}{item:0width$}")),
            )
        };
        let values: Vec<Vec<u64>> = items
            .iter()
            .map(|&item| {
                let mut draw = self.stream(Entity::Item, u64::from(item));
                self.item_values.iter().map(|&values| draw.below(values)).collect()
            })
            .collect();
        let columns = (0..self.item_values.len())
            .map(|field| {
                LargeStringArray::from_iter_values(values.iter().map(|row| row[field].to_string()))
            })
            .collect();
        let fields = crate::catalogue::item_fields(&self.schema);
        Catalogue::new(texts(""), texts("p"), fields, columns)
    }

    /// Writes every part of both halves below `dir`; `items` are the numbers of the catalogue's
    /// rows.
    fn write(&self, dir: &Path, catalogue: &Catalogue, items: &[u32]) -> Result<Counts> {
        let mut members = vec![Vec::new(); PARTS];
        for group in 0..self.groups {
            members[part_of(Id::of(USER, &user_name(group)).0, PARTS)].push(group);
        }
        let mut clicks = 0;
        let mut known = 0;
        for (part, members) in members.iter().enumerate() {
            let writer = |split| {
                let path = part_path(dir, split, part);
                SampleWriter::create(&path, &self.schema, catalogue, BLOCK_GROUPS)
            };
            let mut train = writer(SplitName::Train)?;
            let mut drawn = GroupItems::default();
            for &group in members {
                self.items(group, &mut drawn);
                known += (drawn.behaviors.len() * drawn.impressions.len()) as u64;
                clicks += self.write_group(group, &drawn, items, &mut train)?;
            }
            train.finish()?;
            writer(SplitName::Test)?.finish()?;
        }
        Ok(Counts {
            users: self.groups,
            items: catalogue.len() as u64,
            items_with_image: catalogue.with_image() as u64,
            groups: self.groups,
            impressions: self.impressions,
            clicks,
            behaviors_mean: known as f64 / self.impressions as f64,
            train: self.impressions,
            test: 0,
            ..Counts::default()
        })
    }

    /// Writes one group; returns its clicks.
    fn write_group(
        &self,
        group: u64,
        drawn: &GroupItems,
        items: &[u32],
        writer: &mut SampleWriter,
    ) -> Result<u64> {
        let row = |item: &u32| items.binary_search(item).expect("an item referred to") as u32;
        let mut draw = self.stream(Entity::GroupValues, group);
        let values = |draw: &mut Stream, values: &[u64]| -> Vec<String> {
            values.iter().map(|&values| draw.below(values).to_string()).collect()
        };
        let profile = values(&mut draw, &self.user_values);
        let first = MIDNIGHT + draw.below((DAY - HOUR) as u64) as i64;

        // Each in its own slice of the fortnight, the first slice ending just before the first
        // impression.
        let slice = FORTNIGHT / drawn.behaviors.len() as i64;
        let behaviors: Vec<Behavior> = drawn
            .behaviors
            .iter()
            .zip(0..)
            .map(|(item, at)| {
                let age = slice * at + draw.below(slice as u64) as i64;
                Behavior { item: row(item), time: first - 1 - age }
            })
            .collect();

        let count = drawn.impressions.len();
        let labels: Vec<u8> = (0..count).map(|_| u8::from(draw.unit() < CLICK_RATE)).collect();
        let contexts: Vec<Vec<String>> =
            (0..count).map(|_| values(&mut draw, &self.context_values)).collect();
        let contexts: Vec<Vec<&str>> = contexts.iter().map(|texts| borrowed(texts)).collect();
        let impressions: Vec<Impression> = (0..count)
            .map(|at| Impression {
                item: row(&drawn.impressions[at]),
                time: first + HOUR * at as i64 / count as i64,
                label: labels[at],
                context: &contexts[at],
            })
            .collect();
        writer.push(&GroupRow {
            user: &user_name(group),
            user_fields: &borrowed(&profile),
            behaviors: &behaviors,
            impressions: &impressions,
        })?;
        Ok(labels.iter().map(|&label| u64::from(label)).sum())
    }

    fn card(&self, counts: Counts) -> Card {
        Card {
            format: FORMAT.to_string(),
            name: "simulated".to_string(),
            parts: PARTS,
            fields: self.schema.clone(),
            split: Split::Time { test_from: MIDNIGHT + DAY },
            labels: Labels::Observed,
            hold_out_items: None,
            max_behaviors: if self.config.even {
                self.behaviors.div_ceil(self.groups) as usize
            } else {
                share_most(self.behaviors, self.groups) as usize
            },
            counts,
        }
    }

    fn report(&self, counts: &Counts) -> SimulateReport {
        let config = self.config;
        let [of_user, of_item, of_context] =
            [config.user_fields, config.item_fields + 1, config.context_fields]
                .map(|fields| fields as u64);
        SimulateReport {
            batches: config.batches,
            users: counts.users,
            items: counts.items,
            groups: self.groups,
            impressions: self.impressions,
            behaviors: self.behaviors,
            image_references: self.impressions + self.behaviors,
            id_references: self.groups * of_user
                + self.behaviors * of_item
                + self.impressions * (of_item + of_context),
        }
    }
}

fn user_name(group: u64) -> String {
    format!("u{group}")
}

fn borrowed(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

/// How many of `total` the groups before group `group` of `groups` have if all have the same.
fn begin(total: u64, groups: u64, group: u64) -> u64 {
    (u128::from(total) * u128::from(group) / u128::from(groups)) as u64
}

/// How many of `total` group `group` of `groups` has, at least one: its even share, and what the
/// other group of its pair has less than its own. So groups differ by up to twice the mean, and the
/// total is exact.
fn share(total: u64, groups: u64, group: u64, pair: &mut Stream) -> u64 {
    let even = begin(total, groups, group + 1) - begin(total, groups, group);
    let most = total / groups - 1;
    let moved = pair.below(2 * most + 1);
    match (group % 2, group + 1 == groups) {
        (0, true) => even,
        (0, false) => even + moved - most,
        _ => even + most - moved,
    }
}

/// The largest [`share`] there may be.
fn share_most(total: u64, groups: u64) -> u64 {
    total.div_ceil(groups) + total / groups - 1
}

/// How many values each of `count` fields has: in equal ratios from the most to the least.
fn cardinalities(count: usize, [most, least]: [u64; 2]) -> Vec<u64> {
    let ratio = least as f64 / most as f64;
    let steps = count.max(2) - 1;
    let values = |at: usize| most as f64 * ratio.powf(at as f64 / steps as f64);
    (0..count).map(|at| values(at).round() as u64).collect()
}

/// Who draws; part of the key of the stream.
#[derive(Clone, Copy)]
enum Entity {
    Pair = 1,
    GroupItems = 2,
    GroupValues = 3,
    Item = 4,
}

/// The random numbers of one entity.
struct Stream(ChaCha8Rng);

impl Stream {
    fn new(seed: u64, entity: Entity, number: u64) -> Stream {
        let mut key = [0; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([seed, entity as u64, number]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Stream(ChaCha8Rng::from_seed(key))
    }

    fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in `0..count`; the bias is below 2^-32 for any count of this file.
    fn below(&mut self, count: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(count)) >> 64) as u64
    }

    /// An item of `1..=items` by its popularity; see the top of the file.
    fn zipf(&mut self, items: u64) -> u32 {
        let rank = (self.unit() * ((items + 1) as f64).ln()).exp();
        // Rounding may reach the end of the range, which is not part of it.
        (rank as u64).clamp(1, items) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check;
    use crate::{Dataset, Groups, SampleFile};

    fn small() -> SimulateConfig {
        SimulateConfig { batches: 2, ..SimulateConfig::paper().scaled(50) }
    }

    /// The report and all groups of the train half.
    fn written(config: &SimulateConfig) -> (SimulateReport, Dataset, Groups, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("set");
        let report = simulate(config, &out).unwrap();
        let dataset = Dataset::open(&out).unwrap();
        let mut groups = Groups::new(dataset.schema());
        for part in 0..dataset.card().parts {
            let path = dataset.part_path(SplitName::Train, part);
            let file = SampleFile::open(&path, dataset.schema()).unwrap();
            (0..file.blocks()).for_each(|block| file.read(block, &mut groups).unwrap());
        }
        (report, dataset, groups, dir)
    }

    #[test]
    fn the_paper_s_batch_has_the_paper_s_counts() {
        let config = SimulateConfig::paper();
        config.check().unwrap();
        assert_eq!(config.fields(), 27);
        let one = SimulateConfig { batches: 1, ..config };
        let report = Crowd::new(&one).report(&Counts::default());
        let counts = [report.groups, report.impressions, report.behaviors];
        assert_eq!(counts, [7_970, 60_000, 259_822]);
        assert_eq!((report.image_references, report.id_references), (319_822, 1_439_016));
    }

    #[test]
    fn what_is_counted_is_what_is_read() {
        let config = small();
        let (report, dataset, groups, _dir) = written(&config);
        let values = |columns: &[crate::Ragged<Id>]| -> usize {
            columns.iter().map(|column| column.values.len()).sum()
        };
        let (behaviors, impressions) = (groups.behavior_times.len(), groups.labels.len());
        let ids = values(&groups.user_fields)
            + values(&groups.behavior_fields)
            + values(&groups.ad_fields)
            + values(&groups.context_fields)
            + behaviors
            + impressions;
        assert_eq!((groups.len() as u64, report.users), (318, 318));
        assert_eq!((impressions as u64, report.impressions), (2_400, 2_400));
        // 318 groups of 32.6.
        assert_eq!((behaviors as u64, report.behaviors), (10_367, 10_367));
        assert_eq!((ids as u64, report.image_references), (report.id_references, 12_767));
        let pictures = groups.behavior_pictures.iter().chain(&groups.ad_pictures);
        assert!(pictures.into_iter().all(|picture| picture.is_some()));
        let clicks = dataset.card().counts.clicks as f64 / impressions as f64;
        assert!((0.02..0.06).contains(&clicks), "{clicks}");
    }

    #[test]
    fn even_groups_are_alike_and_name_every_item() {
        let config = SimulateConfig {
            groups: 16,
            impressions: 64,
            behaviors_mean: 5.0,
            items: 100,
            batches: 1,
            even: true,
            ..small()
        };
        let (report, dataset, groups, _dir) = written(&config);
        assert_eq!((report.items, report.behaviors), (100, 80));
        assert_eq!(dataset.card().max_behaviors, 5);
        for group in 0..groups.len() {
            assert_eq!(groups.behaviors.range(group).len(), 5);
            assert_eq!(groups.impressions.range(group).len(), 4);
        }
        assert_eq!(check(dataset.dir(), &mut |_, _| {}).unwrap().problems, [""; 0]);
    }

    #[test]
    fn histories_differ_and_none_is_longer_than_the_card_says() {
        let (_, dataset, groups, _dir) = written(&small());
        let lengths: Vec<usize> =
            (0..groups.len()).map(|group| groups.behaviors.range(group).len()).collect();
        let (least, most) = (lengths.iter().min().unwrap(), lengths.iter().max().unwrap());
        assert_eq!(dataset.card().max_behaviors, 64);
        assert!(*least >= 1 && *least < 8, "{least}");
        assert!(*most <= 64 && *most > 56, "{most}");
        let shown = (0..groups.len()).map(|group| groups.impressions.range(group).len());
        assert!(shown.clone().min() < shown.max());
    }

    #[test]
    fn the_dataset_is_sound_and_names_a_picture_per_item() {
        let (report, dataset, _, _dir) = written(&small());
        let found = check(dataset.dir(), &mut |_, _| {}).unwrap();
        assert_eq!(found.problems, [""; 0]);
        assert_eq!((found.files, found.counts.test), (128, 0));
        let catalogue = Catalogue::open(&dataset).unwrap();
        assert_eq!(
            (catalogue.len() as u64, catalogue.with_image() as u64),
            (report.items, report.items)
        );
        assert_eq!((catalogue.item(0), catalogue.image(0)), ("000001", Some("p000001")));
    }

    #[test]
    fn the_first_item_is_as_frequent_as_zipf_says() {
        let mut draw = Stream::new(1, Entity::GroupItems, 0);
        let drawn: Vec<u32> = (0..100_000).map(|_| draw.zipf(1_000)).collect();
        let share = |item| drawn.iter().filter(|&&found| found == item).count() as f64 / 1e5;
        let law = |item: f64| (1.0 + 1.0 / item).ln() / 1_001_f64.ln();
        for item in [1, 2, 10] {
            let (got, expected) = (share(item), law(f64::from(item)));
            assert!((got - expected).abs() < 0.05 * expected, "{item}: {got}, {expected}");
        }
        assert!(drawn.iter().all(|item| (1..=1_000).contains(item)));
    }

    #[test]
    fn values_of_fields_go_from_many_to_few() {
        let user = cardinalities(14, USER_VALUES);
        assert_eq!((user[0], user[6], user[13]), (100_000, 678, 2));
        assert_eq!(cardinalities(1, ITEM_VALUES), [10_000]);
        assert_eq!(cardinalities(0, ITEM_VALUES), [0; 0]);
    }

    #[test]
    fn shares_sum_up_whatever_the_numbers() {
        for (total, groups) in [(1, 1), (7, 7), (8, 7), (3 * 7 + 1, 7), (260, 8), (1_000, 31)] {
            let shares = (0..groups).map(|group| {
                let mut pair = Stream::new(3, Entity::Pair, group / 2);
                share(total, groups, group, &mut pair)
            });
            let shares: Vec<u64> = shares.collect();
            assert_eq!(shares.iter().sum::<u64>(), total, "{shares:?}");
            let most = share_most(total, groups);
            assert!(shares.iter().all(|share| (1..=most).contains(share)), "{shares:?}, {most}");
        }
    }

    #[test]
    fn one_config_gives_the_same_bytes_and_another_seed_others() {
        let bytes = |seed| {
            let (_, dataset, _, _dir) = written(&SimulateConfig { seed, ..small() });
            let parts = (0..PARTS).flat_map(|part| {
                SplitName::ALL.map(|split| fs::read(dataset.part_path(split, part)).unwrap())
            });
            let mut all: Vec<Vec<u8>> = parts.collect();
            all.push(fs::read(dataset.items_path()).unwrap());
            all.push(fs::read(dataset.dir().join(crate::dataset::CARD)).unwrap());
            all
        };
        let first = bytes(1);
        assert_eq!(bytes(1), first);
        assert_ne!(bytes(2), first);
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        let complaint = |change: fn(&mut SimulateConfig)| {
            let mut config = small();
            change(&mut config);
            let dir = tempfile::tempdir().unwrap();
            let error = simulate(&config, &dir.path().join("set")).unwrap_err().to_string();
            assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
            error
        };
        let start = "simulated batches: ";
        assert_eq!(
            complaint(|config| config.impressions = 158),
            format!("{start}impressions is 158, expected 159 to 1099511627776")
        );
        assert_eq!(
            complaint(|config| config.behaviors_mean = f64::NAN),
            format!("{start}behaviors_mean is NaN, expected 1 to 10000")
        );
        assert_eq!(
            complaint(|config| config.items = 0),
            format!("{start}items is 0, expected 1 to 2147483647")
        );
        assert_eq!(
            complaint(|config| config.user_fields = 0),
            format!("{start}user_fields is 0, expected 1 to 1000")
        );
    }

    #[test]
    fn a_folder_with_something_in_it_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mine"), "").unwrap();
        let error = simulate(&small(), dir.path()).unwrap_err().to_string();
        assert!(error.ends_with("exists already; choose another folder or remove it"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
