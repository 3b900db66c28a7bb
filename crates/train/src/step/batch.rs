//! A worker's micro-batch: groups, the unique ids and images they need, and where each use finds
//! its own.

use ams_bundle::{ContentTowers, Keys};
use ams_data::{Groups, Id, ImageKey, Ragged};
use ams_fabric::{Mailbox, Outbox};
use ams_image::FeatureStore;
use ams_model::rank::{ContentBatch, Lists, NO_IMAGE, RankBatch, Sketches};

use half::f16;

use crate::settings::Placement;
use crate::setup::network::Plan;
use crate::step::dedup::Asks;
use crate::step::mail::{self, Ask, Values};
use crate::step::seat::Seat;
use crate::step::traffic::Counts;

/// Groups on their way through the network.
pub struct MicroBatch {
    /// The impressions and histories.
    pub groups: Groups,
    /// The images of behaviors and ads, by content; there is always a first one.
    pub keys: Vec<Keys>,
    /// The ids asked for.
    pub ids: Asks,
    /// The image keys asked for, per tower.
    pub images: Vec<Asks>,
    /// One list column per input.
    lists: Vec<Ragged<Id>>,
    /// For each value of `lists`, its place in `rows`.
    places: Vec<Vec<u32>>,
    /// By content.
    uses: Vec<Uses>,
    /// The rows of `ids` by owner; (R, D).
    rows: Vec<f32>,
    /// The embeddings of `images` by owner, per tower; (U, D).
    pub embeddings: Vec<Vec<f32>>,
    /// The features of `images` by owner, per tower, (U, F); with the placement `store-in-server`.
    pub features: Vec<Vec<f16>>,
}

/// Where each use of one content finds its embedding in those of a tower; [`NO_IMAGE`] without an
/// image.
#[derive(Default)]
struct Uses {
    /// Of each impression's ad, in the ad tower's.
    ads: Vec<u32>,
    /// Of each behavior, in the behavior tower's.
    behaviors: Vec<u32>,
    /// Of each ad and each behavior, in the sketch's.
    sketch_ads: Vec<u32>,
    sketch_behaviors: Vec<u32>,
}

impl Uses {
    /// Every use with its tower and the keys of what it uses.
    fn of<'a>(
        &'a mut self,
        towers: &ContentTowers,
        keys: &'a Keys,
    ) -> [(Option<usize>, &'a [ImageKey], &'a mut Vec<u32>); 4] {
        let Uses { ads, behaviors, sketch_ads, sketch_behaviors } = self;
        [
            (towers.ad, &keys.ads, ads),
            (towers.behavior, &keys.behaviors, behaviors),
            (towers.sketch, &keys.ads, sketch_ads),
            (towers.sketch, &keys.behaviors, sketch_behaviors),
        ]
    }
}

impl MicroBatch {
    /// An empty one.
    pub fn new(plan: &Plan) -> MicroBatch {
        let inputs = plan.inputs().count();
        MicroBatch {
            groups: Groups::new(&plan.spec.fields),
            keys: vec![Keys::default(); plan.contents.len().max(1)],
            ids: Asks::default(),
            images: vec![Asks::default(); plan.towers.len()],
            lists: vec![Ragged::default(); inputs],
            places: vec![Vec::new(); inputs],
            uses: plan.contents.iter().map(|_| Uses::default()).collect(),
            rows: Vec::new(),
            embeddings: vec![Vec::new(); plan.towers.len()],
            features: vec![Vec::new(); plan.towers.len()],
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
    pub fn deduplicate(&mut self, plan: &Plan, stores: &[FeatureStore], lanes: usize) {
        for (content, keys) in self.keys.iter_mut().enumerate() {
            let store = stores.get(content);
            keys.resolve(&self.groups, |name| {
                store.map_or(ImageKey::NONE, |store| store.key(name))
            });
        }
        self.deduplicate_ids(plan, lanes);
        self.images.iter_mut().for_each(Asks::clear);
        for ((uses, towers), keys) in self.uses.iter_mut().zip(&plan.contents).zip(&self.keys) {
            for (tower, keys, places) in uses.of(towers, keys) {
                number_images(tower.map(|tower| &mut self.images[tower]), keys, places);
            }
        }
        self.images.iter_mut().for_each(|asks| asks.close(lanes));
        for ((uses, towers), keys) in self.uses.iter_mut().zip(&plan.contents).zip(&self.keys) {
            for (tower, _, places) in uses.of(towers, keys) {
                let images = places.iter_mut().filter(|place| **place != NO_IMAGE);
                images.for_each(|place| {
                    *place = self.images[tower.expect("an image has a tower")].place(*place);
                });
            }
        }
    }

    fn deduplicate_ids(&mut self, plan: &Plan, lanes: usize) {
        self.ids.clear();
        for ((input, lists), places) in plan.inputs().zip(&mut self.lists).zip(&mut self.places) {
            input.collect(&self.groups, &self.keys[0], lists);
            places.clear();
            places.extend(lists.values.iter().map(|id| self.ids.add(id.0)));
        }
        self.ids.close(lanes);
        for place in self.places.iter_mut().flatten() {
            *place = self.ids.place(*place);
        }
    }

    /// Adds up what the micro-batch refers to, asks for and holds.
    pub fn count(&self, plan: &Plan, counts: &mut Counts) {
        counts.ids.requested = self.places.iter().map(|places| places.len() as f64).sum();
        counts.ids.unique_per_worker = self.ids.len() as f64;
        let uses = self.uses.iter().flat_map(|uses| {
            [&uses.ads, &uses.behaviors, &uses.sketch_ads, &uses.sketch_behaviors]
        });
        let images = uses.flatten().filter(|place| **place != NO_IMAGE);
        counts.images.requested = images.count() as f64;
        let images: usize = self.images.iter().map(Asks::len).sum();
        counts.images.unique_per_worker = images as f64;
        counts.storage.worker = self.groups.bytes() as f64;
        if plan.placement == Placement::StoreInWorker {
            for (asks, tower) in self.images.iter().zip(&plan.towers) {
                counts.storage.worker += (asks.len() * tower.input() * size_of::<f16>()) as f64;
            }
        }
    }

    /// Writes the asks of every shard.
    pub fn write_asks(&self, placement: Placement, lanes: usize, out: &mut Outbox) {
        out.clear();
        for lane in 0..lanes {
            let images = self.images.iter().map(|asks| match placement {
                // Features that are at hand are not asked for.
                Placement::StoreInWorker => &[][..],
                Placement::Ams | Placement::StoreInServer => asks.of(lane),
            });
            let lists = std::iter::once(self.ids.of(lane)).chain(images);
            Ask::write(self.len(), lists, out.words());
            out.seal();
        }
    }

    /// Writes every shard how often the micro-batch refers to each id that it owns.
    pub fn write_occurrences(&self, lanes: usize, out: &mut Outbox) {
        let mut counts = vec![0; self.ids.len()];
        for &place in self.places.iter().flatten() {
            counts[place as usize] += 1;
        }
        out.clear();
        for lane in 0..lanes {
            let counts = &counts[self.ids.range(lane)];
            for (&id, &count) in self.ids.of(lane).iter().zip(counts) {
                mail::push_occurrences(id, count, out.words());
            }
            out.seal();
        }
    }

    /// Reads the answers of every shard.
    pub fn read_answers(&mut self, plan: &Plan, mail: &Mailbox<'_>, seat: Seat) {
        let dim = plan.spec.dim;
        self.rows.clear();
        self.embeddings.iter_mut().for_each(Vec::clear);
        self.features.iter_mut().for_each(Vec::clear);
        for shard in 0..seat.lanes {
            let mut answer = Values::of_answer(mail.read(shard, seat.lane));
            self.rows.extend_from_slice(answer.floats(self.ids.of(shard).len() * dim));
            for (tower, asks) in self.images.iter().enumerate() {
                let (images, planned) = (asks.of(shard).len(), &plan.towers[tower]);
                match plan.placement {
                    Placement::Ams => {
                        let embeddings = answer.floats(images * planned.dim());
                        self.embeddings[tower].extend_from_slice(embeddings);
                    }
                    Placement::StoreInServer => {
                        let (dim, format) = (planned.input(), plan.features_as);
                        let words = answer.words(images * format.words(dim));
                        mail::read_features(words, dim, format, &mut self.features[tower]);
                    }
                    Placement::StoreInWorker => {}
                }
            }
            answer.end(shard);
        }
    }

    /// The lists of every input, in the order of [`Plan::inputs`]: where each list begins, and
    /// which of the ids asked for its values are.
    pub fn lists(&self) -> impl Iterator<Item = (&[u32], &[u32])> {
        let places = self.lists.iter().zip(&self.places);
        places.map(|(lists, places)| (lists.offsets.as_slice(), &places[..]))
    }

    /// Which of the images asked for each impression's ad and each behavior has; [`NO_IMAGE`]
    /// without one.
    pub fn image_uses(&self) -> (&[u32], &[u32]) {
        self.uses.first().map_or((&[], &[]), |uses| (&uses.ads, &uses.behaviors))
    }

    /// Shows the micro-batch to the network.
    pub fn view<R>(&self, plan: &Plan, run: impl FnOnce(&RankBatch<'_>) -> R) -> R {
        let lists: Vec<Lists<'_>> = self
            .lists
            .iter()
            .zip(&self.places)
            .map(|(lists, rows)| Lists { offsets: lists.offsets.as_slice(), rows })
            .collect();
        let (group_fields, rest) = lists.split_at(plan.group_inputs.len());
        let (impression_fields, behavior_fields) = rest.split_at(plan.impression_inputs.len());
        let embeddings = |tower: Option<usize>| tower.map_or(&[][..], |t| &self.embeddings[t]);
        let mut contents = Vec::with_capacity(self.uses.len());
        for (uses, towers) in self.uses.iter().zip(&plan.contents) {
            contents.push(ContentBatch {
                ad_embeddings: embeddings(towers.ad),
                ad_images: &uses.ads,
                behavior_embeddings: embeddings(towers.behavior),
                behavior_images: &uses.behaviors,
                sketches: Sketches {
                    vectors: embeddings(towers.sketch),
                    dim: towers.sketch.map_or(0, |tower| plan.towers[tower].dim()),
                    ads: &uses.sketch_ads,
                    behaviors: &uses.sketch_behaviors,
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
