//! A worker's micro-batch: groups, the unique ids and images they need, and where each use finds its own.

use ams_bundle::Keys;
use ams_data::{Groups, Id, ImageKey, Ragged};
use ams_fabric::{Mailbox, Outbox};
use ams_image::FeatureStore;
use ams_model::rank::{Lists, NO_IMAGE, RankBatch};

use half::f16;

use crate::ask::Asks;
use crate::config::Placement;
use crate::embed::read_features;
use crate::plan::Plan;
use crate::traffic::Counts;

/// Groups on their way through the network.
pub struct MicroBatch {
    /// The impressions and histories.
    pub groups: Groups,
    /// The images of behaviors and ads.
    pub keys: Keys,
    /// The ids asked for.
    pub ids: Asks,
    /// The image keys asked for, per tower.
    pub images: Vec<Asks>,
    /// One list column per group input, then per impression input.
    lists: Vec<Ragged<Id>>,
    /// For each value of `lists`, its place in `rows`.
    places: Vec<Vec<u32>>,
    /// For each impression, the place of its ad's image in the ad tower's embeddings.
    ad_images: Vec<u32>,
    /// For each behavior, the place of its image in the behavior tower's embeddings.
    behavior_images: Vec<u32>,
    /// The rows of `ids` by owner; (R, D).
    rows: Vec<f32>,
    /// The embeddings of `images` by owner, per tower; (U, D).
    pub embeddings: Vec<Vec<f32>>,
    /// The features of `images` by owner, per tower, (U, F); with the placement `store-in-server`.
    pub features: Vec<Vec<f16>>,
}

impl MicroBatch {
    /// An empty one.
    pub fn new(plan: &Plan) -> MicroBatch {
        let inputs = plan.inputs().count();
        MicroBatch {
            groups: Groups::new(&plan.spec.fields),
            keys: Keys::default(),
            ids: Asks::default(),
            images: vec![Asks::default(); plan.towers],
            lists: vec![Ragged::default(); inputs],
            places: vec![Vec::new(); inputs],
            ad_images: Vec::new(),
            behavior_images: Vec::new(),
            rows: Vec::new(),
            embeddings: vec![Vec::new(); plan.towers],
            features: vec![Vec::new(); plan.towers],
        }
    }

    /// Number of impressions (B).
    pub fn len(&self) -> usize {
        self.groups.labels.len()
    }

    /// Whether there is no impression.
    pub fn is_empty(&self) -> bool {
        self.groups.labels.is_empty()
    }

    /// Finds every unique id and image the groups need, by owner among `lanes`.
    pub fn deduplicate(&mut self, plan: &Plan, store: Option<&FeatureStore>, lanes: usize) {
        let key = |name| store.map_or(ImageKey::NONE, |store| store.key(name));
        self.keys.resolve(&self.groups, key);
        self.deduplicate_ids(plan, lanes);
        self.images.iter_mut().for_each(Asks::clear);
        let uses = [
            (plan.ad_tower, &self.keys.ads, &mut self.ad_images),
            (plan.behavior_tower, &self.keys.behaviors, &mut self.behavior_images),
        ];
        for (tower, keys, places) in uses {
            number_images(tower.map(|tower| &mut self.images[tower]), keys, places);
        }
        self.images.iter_mut().for_each(|asks| asks.close(lanes));
        let uses = [
            (plan.ad_tower, &mut self.ad_images),
            (plan.behavior_tower, &mut self.behavior_images),
        ];
        for (tower, places) in uses {
            let images = places.iter_mut().filter(|place| **place != NO_IMAGE);
            images.for_each(|place| {
                *place = self.images[tower.expect("an image has a tower")].place(*place);
            });
        }
    }

    fn deduplicate_ids(&mut self, plan: &Plan, lanes: usize) {
        self.ids.clear();
        for ((input, lists), places) in plan.inputs().zip(&mut self.lists).zip(&mut self.places) {
            input.collect(&self.groups, &self.keys, lists);
            places.clear();
            places.extend(lists.values.iter().map(|id| self.ids.add(id.0)));
        }
        self.ids.close(lanes);
        for place in self.places.iter_mut().flatten() {
            *place = self.ids.place(*place);
        }
    }

    /// Adds up what the micro-batch refers to, asks for and holds.
    pub fn count(&self, plan: &Plan, store: Option<&FeatureStore>, counts: &mut Counts) {
        counts.ids.requested = self.places.iter().map(|places| places.len() as f64).sum();
        counts.ids.unique_per_worker = self.ids.len() as f64;
        let uses = self.ad_images.iter().chain(&self.behavior_images);
        counts.images.requested = uses.filter(|place| **place != NO_IMAGE).count() as f64;
        let images: usize = self.images.iter().map(Asks::len).sum();
        counts.images.unique_per_worker = images as f64;
        counts.storage.worker = self.groups.bytes() as f64;
        if let (Placement::StoreInWorker, Some(store)) = (plan.placement, store) {
            counts.storage.worker += (images * store.card().dim * size_of::<f16>()) as f64;
        }
    }

    /// Writes the asks of every shard; see [`crate::worker`] for the words.
    pub fn write_asks(&self, placement: Placement, lanes: usize, out: &mut Outbox) {
        // Features that are at hand are not asked for.
        let images = match placement {
            Placement::StoreInWorker => &[],
            Placement::Ams | Placement::StoreInServer => &self.images[..],
        };
        out.clear();
        for lane in 0..lanes {
            let words = out.words();
            words.push(self.len() as u32);
            words.push(self.ids.of(lane).len() as u32);
            words.extend(images.iter().map(|asks| asks.of(lane).len() as u32));
            words.resize(words.len() + self.images.len() - images.len(), 0);
            for asks in std::iter::once(&self.ids).chain(images) {
                let ids = asks.of(lane).iter();
                words.extend(ids.flat_map(|&id| [id as u32, (id >> 32) as u32]));
            }
            out.seal();
        }
    }

    /// Writes every shard how often the micro-batch refers to each id it owns: the id, low first, and the
    /// count.
    pub fn write_occurrences(&self, lanes: usize, out: &mut Outbox) {
        let mut counts = vec![0; self.ids.len()];
        for &place in self.places.iter().flatten() {
            counts[place as usize] += 1;
        }
        out.clear();
        for lane in 0..lanes {
            let counts = &counts[self.ids.range(lane)];
            for (&id, &count) in self.ids.of(lane).iter().zip(counts) {
                out.words().extend([id as u32, (id >> 32) as u32, count]);
            }
            out.seal();
        }
    }

    /// Reads the answers of every shard.
    pub fn read_answers(&mut self, plan: &Plan, mail: &Mailbox<'_>, lane: usize, lanes: usize) {
        let dim = plan.spec.dim;
        self.rows.clear();
        self.embeddings.iter_mut().for_each(Vec::clear);
        self.features.iter_mut().for_each(Vec::clear);
        for shard in 0..lanes {
            let answer = mail.read(shard, lane);
            let (rows, mut rest) = answer.split_at(self.ids.of(shard).len() * dim);
            self.rows.extend_from_slice(bytemuck::cast_slice(rows));
            for (tower, asks) in self.images.iter().enumerate() {
                let images = asks.of(shard).len();
                let words = match plan.placement {
                    Placement::Ams => images * dim,
                    Placement::StoreInServer => images * plan.features_as.words(plan.feature_dim()),
                    Placement::StoreInWorker => 0,
                };
                let (part, tail) = rest.split_at(words);
                match plan.placement {
                    Placement::Ams => {
                        self.embeddings[tower].extend_from_slice(bytemuck::cast_slice(part));
                    }
                    Placement::StoreInServer => {
                        let (dim, into) = (plan.feature_dim(), &mut self.features[tower]);
                        read_features(part, dim, plan.features_as, into);
                    }
                    Placement::StoreInWorker => {}
                }
                rest = tail;
            }
            assert!(rest.is_empty(), "shard {shard} answers what it was asked");
        }
    }

    /// Shows the micro-batch to the network.
    pub fn view<R>(&self, plan: &Plan, run: impl FnOnce(&RankBatch<'_>) -> R) -> R {
        let lists: Vec<Lists<'_>> = self
            .lists
            .iter()
            .zip(&self.places)
            .map(|(lists, rows)| Lists { offsets: lists.offsets.as_slice(), rows })
            .collect();
        let (group_fields, impression_fields) = lists.split_at(plan.group_inputs.len());
        let embeddings = |tower: Option<usize>| tower.map_or(&[][..], |t| &self.embeddings[t]);
        run(&RankBatch {
            impressions: self.groups.impressions.as_slice(),
            behaviors: self.groups.behaviors.as_slice(),
            group_fields,
            impression_fields,
            rows: &self.rows,
            ad_embeddings: embeddings(plan.ad_tower),
            ad_images: &self.ad_images,
            behavior_embeddings: embeddings(plan.behavior_tower),
            behavior_images: &self.behavior_images,
        })
    }
}

/// Numbers the images of one use; without a tower there are none.
fn number_images(asks: Option<&mut Asks>, keys: &[ImageKey], places: &mut Vec<u32>) {
    places.clear();
    let Some(asks) = asks else {
        places.resize(keys.len(), NO_IMAGE);
        return;
    };
    places.extend(keys.iter().map(|key| match key.is_some() {
        true => asks.add(key.0),
        false => NO_IMAGE,
    }));
}
