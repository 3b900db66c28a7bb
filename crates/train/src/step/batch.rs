//! A worker's micro-batch: groups, the unique ids and images that they need, and for each value of
//! a field and each picture the position of its answer.
//!
//! An impression is copied twice on its way here: a file is decoded into the window of the feed,
//! and a group of the window is appended to the batch. Its ids are then numbered where they are.

use ams_bundle::{ContentTowers, Keys, recency};
use ams_data::{Groups, ImageKey, Ragged};
use ams_fabric::{Mailbox, Outbox};
use ams_image::FeatureStore;
use ams_model::rank::{ContentBatch, Lists, NO_IMAGE, RankBatch, Sketches};

use half::f16;

use crate::settings::Placement;
use crate::setup::network::Network;
use crate::step::dedup::Asks;
use crate::step::id_dropout::IdDropout;
use crate::step::mail::{self, Ask, Occurrences, Seat, Values};
use crate::step::sighting::Sighting;
use crate::step::traffic::Counts;

/// In `places`, until all ids are known: an id that is dropped.
const DROPPED: u32 = u32::MAX;

/// Groups on their way through the network.
pub(crate) struct MicroBatch {
    /// The impressions and histories.
    pub groups: Groups,
    /// With a search: the behaviors that are kept for each impression, among those of `groups`;
    /// (B).
    pub kept: Ragged<u32>,
    /// The images of behaviors and ads, by content; there is always a first one.
    pub keys: Vec<Keys>,
    /// The ids asked for.
    pub ids: Asks,
    /// The image keys asked for, per tower.
    pub images: Vec<Asks>,
    /// The lists of each input, in the order of [`Network::inputs`]; values are positions in
    /// `rows`, that of a dropped id the last or that of the input in `unknown`.
    lists: Vec<Ragged<u32>>,
    /// The weight of each behavior by its age, if the model sees it; (N).
    recency: Vec<f32>,
    /// For each input the position of its unknown ids' row; empty where that is zeros.
    unknown: Vec<u32>,
    /// The sightings of `ids` by owner, and the newest day, where shards see them.
    sightings: Vec<Sighting>,
    newest: i32,
    /// One index per content.
    image_index: Vec<ImageIndex>,
    /// The rows of `ids` by owner, and that of unknown ids, zeros; (R + 1, D).
    rows: Vec<f32>,
    /// The embeddings of `images` by owner, per tower; (U, D).
    pub embeddings: Vec<Vec<f32>>,
    /// The features of `images` by owner, per tower, (U, F); with the placement `store-in-server`.
    pub features: Vec<Vec<f16>>,
}

/// Positions of the images of one content among the embeddings of a tower; [`NO_IMAGE`] without an
/// image.
#[derive(Default)]
struct ImageIndex {
    /// The ad of each impression, among the embeddings of the ad tower; (B).
    ads: Vec<u32>,
    /// Each behavior, among the embeddings of the behavior tower; (N).
    behaviors: Vec<u32>,
    /// The ad of each impression, among the sketches; (B).
    sketch_ads: Vec<u32>,
    /// Each behavior, among the sketches; (N).
    sketch_behaviors: Vec<u32>,
}

impl ImageIndex {
    /// Every list of positions with its tower and the keys that it is the index of.
    fn lists<'a>(
        &'a mut self,
        towers: &ContentTowers,
        keys: &'a Keys,
    ) -> [(Option<usize>, &'a [ImageKey], &'a mut Vec<u32>); 4] {
        let ImageIndex { ads, behaviors, sketch_ads, sketch_behaviors } = self;
        [
            (towers.ad, &keys.ads, ads),
            (towers.behavior, &keys.behaviors, behaviors),
            (towers.sketch, &keys.ads, sketch_ads),
            (towers.sketch, &keys.behaviors, sketch_behaviors),
        ]
    }
}

impl MicroBatch {
    /// A batch without groups, for the inputs and towers of `network`.
    pub(crate) fn new(network: &Network) -> MicroBatch {
        let inputs = network.inputs().count();
        MicroBatch {
            groups: Groups::new(&network.spec.fields),
            kept: Ragged::default(),
            keys: vec![Keys::default(); network.contents.len().max(1)],
            ids: Asks::default(),
            images: vec![Asks::default(); network.towers.len()],
            lists: vec![Ragged::default(); inputs],
            recency: Vec::new(),
            unknown: Vec::new(),
            sightings: Vec::new(),
            newest: Sighting::NEVER,
            image_index: network.contents.iter().map(|_| ImageIndex::default()).collect(),
            rows: Vec::new(),
            embeddings: vec![Vec::new(); network.towers.len()],
            features: vec![Vec::new(); network.towers.len()],
        }
    }

    /// Number of impressions (B).
    pub(crate) fn len(&self) -> usize {
        self.groups.labels.len()
    }

    /// Finds every unique id and image the groups need, by owner among `lanes`; ids that `dropout`
    /// drops are not needed.
    pub(crate) fn deduplicate(
        &mut self,
        network: &Network,
        stores: &[FeatureStore],
        lanes: usize,
        dropout: Option<IdDropout<'_>>,
    ) {
        for (content, keys) in self.keys.iter_mut().enumerate() {
            let store = stores.get(content);
            keys.resolve(&self.groups, |name| {
                store.map_or(ImageKey::NONE, |store| store.key(name))
            });
        }
        if let Some(semantic) = network.spec.semantic() {
            let codes = stores[0].codes().expect("the spec has the codebooks of the store");
            self.keys[0].resolve_codes(semantic, |key, to| {
                to.extend(codes.of(key).into_iter().flatten().map(|code| u32::from(*code)));
            });
        }
        self.deduplicate_ids(network, lanes, dropout);
        recency(network.spec.network.similarity, &self.groups, &mut self.recency);
        self.images.iter_mut().for_each(Asks::clear);
        let contents = network.contents.iter().zip(&self.keys);
        for (index, (towers, keys)) in self.image_index.iter_mut().zip(contents.clone()) {
            for (tower, keys, numbers) in index.lists(towers, keys) {
                numbers.clear();
                let number = |key: &ImageKey| match tower {
                    Some(tower) if key.is_some() => self.images[tower].add(key.0),
                    _ => NO_IMAGE,
                };
                numbers.extend(keys.iter().map(number));
            }
        }
        self.images.iter_mut().for_each(|asks| asks.close(lanes));
        for (index, (towers, keys)) in self.image_index.iter_mut().zip(contents) {
            for (tower, _, numbers) in index.lists(towers, keys) {
                let images = numbers.iter_mut().filter(|number| **number != NO_IMAGE);
                images.for_each(|number| {
                    *number = self.images[tower.expect("an image has a tower")].position(*number);
                });
            }
        }
    }

    fn deduplicate_ids(&mut self, network: &Network, lanes: usize, dropout: Option<IdDropout<'_>>) {
        let MicroBatch { groups, keys, ids, lists, unknown, .. } = self;
        let newest = network.spec.pooled();
        ids.clear();
        for (number, (input, lists)) in network.inputs().zip(&mut *lists).enumerate() {
            match dropout {
                None => input.collect_as(groups, &keys[0], newest, lists, |id| ids.add(id.0)),
                Some(dropout) => {
                    let mut values = Vec::new();
                    input.collect_as(groups, &keys[0], newest, lists, |id| {
                        values.push(id);
                        DROPPED
                    });
                    let mut next = values.into_iter();
                    for list in 0..lists.len() {
                        let row = lists.row_mut(list);
                        for (value, (position, id)) in row.iter_mut().zip(&mut next).enumerate() {
                            if !dropout.drops(number, input, list, value) {
                                *position = ids.add(id.0);
                            }
                        }
                    }
                }
            }
        }
        unknown.clear();
        unknown.extend(network.unknown.iter().map(|id| ids.add(id.0)));
        ids.close(lanes);
        unknown.iter_mut().for_each(|number| *number = ids.position(*number));
        for (input, lists) in lists.iter_mut().enumerate() {
            let dropped = unknown.get(input).copied().unwrap_or(ids.len() as u32);
            for number in &mut lists.values {
                *number = if *number == DROPPED { dropped } else { ids.position(*number) };
            }
        }
    }

    /// Counts the references of the micro-batch, its asks and its bytes.
    pub(crate) fn count(&self, network: &Network, counts: &mut Counts) {
        let unknown = self.ids.len() as u32;
        let references = self.lists.iter().flat_map(|lists| &lists.values);
        counts.ids.requested = references.filter(|position| **position != unknown).count() as f64;
        counts.ids.unique_per_worker = self.ids.len() as f64;
        let lists = self.image_index.iter().flat_map(|index| {
            [&index.ads, &index.behaviors, &index.sketch_ads, &index.sketch_behaviors]
        });
        let images = lists.flatten().filter(|position| **position != NO_IMAGE);
        counts.images.requested = images.count() as f64;
        let images: usize = self.images.iter().map(Asks::len).sum();
        counts.images.unique_per_worker = images as f64;
        counts.storage.worker = self.groups.bytes() as f64;
        if network.placement == Placement::StoreInWorker {
            for (asks, tower) in self.images.iter().zip(&network.towers) {
                counts.storage.worker += (asks.len() * tower.input() * size_of::<f16>()) as f64;
            }
        }
    }

    /// Finds on which day and how often the samples refer to each id; values of the user and of
    /// behaviors are seen when the group was shown last.
    pub(crate) fn see(&mut self, network: &Network) {
        let MicroBatch { groups, ids, lists, sightings, newest, .. } = self;
        let shown: Vec<i32> = groups.times.iter().map(|&time| Sighting::day_of(time)).collect();
        *newest = shown.iter().copied().max().unwrap_or(Sighting::NEVER);
        let last = |group: usize| shown[groups.impressions.range(group)].iter().copied().max();
        let of_group = |group| last(group).unwrap_or(Sighting::NEVER);
        let of_groups: Vec<i32> = (0..groups.len()).map(of_group).collect();
        let of_behaviors = of_groups.iter().enumerate();
        let of_behaviors: Vec<i32> = of_behaviors
            .flat_map(|(group, &day)| groups.behaviors.range(group).map(move |_| day))
            .collect();
        let once =
            [(&of_groups, network.group_inputs.len()), (&shown, network.impression_inputs.len())];
        let days = once.into_iter().flat_map(|(days, inputs)| std::iter::repeat_n(days, inputs));
        sightings.clear();
        sightings.resize(ids.len(), Sighting::NONE);
        for (lists, days) in lists.iter().zip(days.chain(std::iter::repeat(&of_behaviors))) {
            for (list, &day) in days.iter().enumerate() {
                for &position in lists.row(list) {
                    // The position behind all others is that of dropped ids.
                    if let Some(sighting) = sightings.get_mut(position as usize) {
                        sighting.add(Sighting { day, count: 1 });
                    }
                }
            }
        }
    }

    /// Writes the asks of every shard; with the sightings of [`MicroBatch::see`], if `sees`.
    pub(crate) fn write_asks(
        &self,
        placement: Placement,
        sees: bool,
        lanes: usize,
        out: &mut Outbox,
    ) {
        out.clear();
        for lane in 0..lanes {
            let images = self.images.iter().map(|asks| match placement {
                // Features that are at hand are not asked for.
                Placement::StoreInWorker => &[][..],
                Placement::Ams | Placement::StoreInServer => asks.of(lane),
            });
            let lists = std::iter::once(self.ids.of(lane)).chain(images);
            Ask::write(self.len(), lists, out.words());
            if sees {
                let sightings = &self.sightings[self.ids.range(lane)];
                Ask::write_sightings(self.newest, sightings, out.words());
            }
            out.seal();
        }
    }

    /// Writes every shard how often the micro-batch refers to each id that it owns.
    pub(crate) fn write_occurrences(&self, network: &Network, lanes: usize, out: &mut Outbox) {
        let mut counts = vec![Occurrences { id: 0, count: 0, field: 0 }; self.ids.len()];
        for (lists, &field) in self.lists.iter().zip(&network.field_of) {
            for &position in &lists.values {
                let counts = &mut counts[position as usize];
                (counts.count, counts.field) = (counts.count + 1, field as u32);
            }
        }
        out.clear();
        for lane in 0..lanes {
            let counts = &counts[self.ids.range(lane)];
            for (&id, counts) in self.ids.of(lane).iter().zip(counts) {
                // The rows of unknown ids are asked for, but no value is one.
                if counts.count > 0 {
                    mail::push_occurrences(Occurrences { id, ..*counts }, out.words());
                }
            }
            out.seal();
        }
    }

    /// Reads the answers of every shard.
    pub(crate) fn read_answers(&mut self, network: &Network, mail: &Mailbox<'_>, seat: Seat) {
        let dim = network.spec.dim();
        self.rows.clear();
        self.embeddings.iter_mut().for_each(Vec::clear);
        self.features.iter_mut().for_each(Vec::clear);
        let mut known = Vec::new();
        for shard in 0..seat.lanes {
            let mut answer = Values(mail.read(shard, seat.lane));
            let ids = self.ids.of(shard).len();
            self.rows.extend_from_slice(answer.floats(ids * dim));
            if !self.unknown.is_empty() {
                known.extend(mail::bits(answer.words(ids.div_ceil(32)), ids));
            }
            for (tower, asks) in self.images.iter().enumerate() {
                let (images, definition) = (asks.of(shard).len(), &network.towers[tower]);
                match network.placement {
                    Placement::Ams => {
                        let embeddings = answer.floats(images * definition.dim());
                        self.embeddings[tower].extend_from_slice(embeddings);
                    }
                    Placement::StoreInServer => {
                        let (dim, format) = (definition.input(), network.features_as);
                        let words = answer.words(images * format.words(dim));
                        mail::read_features(words, dim, format, &mut self.features[tower]);
                    }
                    Placement::StoreInWorker => {}
                }
            }
            answer.end(shard);
        }
        // The row of dropped ids; its gradient goes nowhere.
        self.rows.resize(self.rows.len() + dim, 0.0);
        for (lists, &unknown) in self.lists.iter_mut().zip(&self.unknown) {
            let lacking = lists.values.iter_mut().filter(|position| !known[**position as usize]);
            lacking.for_each(|position| *position = unknown);
        }
    }

    /// The lists of every input, in the order of [`Network::inputs`]; values are positions among
    /// the ids asked for.
    pub(crate) fn lists(&self) -> &[Ragged<u32>] {
        &self.lists
    }

    /// The position of each impression's ad, and of each behavior, among the images asked for;
    /// [`NO_IMAGE`] without an image.
    pub(crate) fn image_positions(&self) -> (&[u32], &[u32]) {
        self.image_index.first().map_or((&[], &[]), |index| (&index.ads, &index.behaviors))
    }

    /// Shows the micro-batch to the network.
    pub(crate) fn view<R>(&self, network: &Network, run: impl FnOnce(&RankBatch<'_>) -> R) -> R {
        fn lists_of(column: &Ragged<u32>) -> Lists<'_> {
            Lists { offsets: column.offsets.as_slice(), rows: &column.values }
        }
        let lists: Vec<Lists<'_>> = self.lists.iter().map(lists_of).collect();
        let (group_fields, rest) = lists.split_at(network.group_inputs.len());
        let (impression_fields, behavior_fields) = rest.split_at(network.impression_inputs.len());
        let embeddings = |tower: Option<usize>| tower.map_or(&[][..], |t| &self.embeddings[t]);
        let mut contents = Vec::with_capacity(self.image_index.len());
        for (index, towers) in self.image_index.iter().zip(&network.contents) {
            contents.push(ContentBatch {
                ad_embeddings: embeddings(towers.ad),
                ad_images: &index.ads,
                behavior_embeddings: embeddings(towers.behavior),
                behavior_images: &index.behaviors,
                sketches: Sketches {
                    vectors: embeddings(towers.sketch),
                    dim: towers.sketch.map_or(0, |tower| network.towers[tower].dim()),
                    ads: &index.sketch_ads,
                    behaviors: &index.sketch_behaviors,
                },
            });
        }
        run(&RankBatch {
            impressions: self.groups.impressions.as_slice(),
            behaviors: self.groups.behaviors.as_slice(),
            group_fields,
            impression_fields,
            behavior_fields,
            rows: &self.rows,
            contents: &contents,
            recency: &self.recency,
            kept: network.spec.network.search.as_ref().map(|_| lists_of(&self.kept)),
        })
    }
}
