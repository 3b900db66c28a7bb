//! The search of a step: which behaviors are kept for each impression, before anything is asked for
//! that only they need.
//!
//! ```text
//! worker                                     shard (owner of the picture)
//! ads of the micro-batch --- queries ----->  sketches, made once and kept
//!                        <-- vectors ------
//! ads' vectors, histories -- histories --->  likeness of every ad to the group's pictures here
//! merge, keep the best   <-- hits ---------  the best pictures of each ad
//! ```
//! So vectors of ads and a few hits travel, never those of histories, whatever the placement. A
//! search by category needs no mail.
//!
//! What is kept depends on the user's history and the ad alone: every shard returns as many hits as
//! are kept, so the best of all are among them.

use ams_bundle::Keys;
use ams_bundle::search as histories;
use ams_data::{Groups, IdMap, ImageKey, Ragged};
use ams_fabric::{Mailbox, Outbox, words};
use ams_image::FeatureStore;
use ams_model::NO_IMAGE;
use ams_model::search::{self, Finder, History, Hit};

use crate::setup::network::Network;
use crate::step::dedup::Asks;
use crate::step::mail::{self, Seat, Values};
use crate::step::tower_run::{Images, TowerRun, Weights};
use crate::step::traffic::{Counts, bytes};

/// A search by pictures: how much it keeps, and the tower that makes the vectors.
#[derive(Clone, Copy)]
pub(crate) struct ByPictures {
    keep: usize,
    tower: usize,
    dim: usize,
}

impl ByPictures {
    /// That of `network`, if it has one.
    pub(crate) fn of(network: &Network) -> Option<ByPictures> {
        let tower = network.contents.first()?.search?;
        let keep = network.spec.network.search.as_ref()?.keep;
        Some(ByPictures { keep, tower, dim: network.towers[tower].dim() })
    }
}

/// The half of a search that a worker does.
#[derive(Default)]
pub(crate) struct SearchWorker {
    /// Counters of this step.
    pub counts: Counts,
    keys: Keys,
    ads: Pictures,
    behaviors: Pictures,
    /// Unit vectors of the ads, by owner; (ads, S).
    vectors: Vec<f32>,
    /// The history of each group, and its different ads.
    histories: Vec<GroupHistory>,
    /// What is kept for each impression; (B) rows of positions in the history of the group.
    kept: Ragged<u32>,
    hits: Vec<Hit>,
    row: Vec<u32>,
}

/// Pictures of a micro-batch.
#[derive(Default)]
struct Pictures {
    asks: Asks,
    /// Of each impression or behavior its position among all pictures by owner, or [`NO_IMAGE`].
    positions: Vec<u32>,
}

impl Pictures {
    fn read(&mut self, keys: &[ImageKey], lanes: usize) {
        let Pictures { asks, positions } = self;
        asks.clear();
        positions.clear();
        let number = |key: &ImageKey| if key.is_some() { asks.add(key.0) } else { NO_IMAGE };
        positions.extend(keys.iter().map(number));
        asks.close(lanes);
        let images = positions.iter_mut().filter(|number| **number != NO_IMAGE);
        images.for_each(|number| *number = asks.position(*number));
    }
}

/// One group as a worker searches it.
#[derive(Default)]
struct GroupHistory {
    behaviors: History,
    /// Its ads as a history: an ad may be shown twice.
    ads: History,
    /// For each shard, the pictures of the history that it owns, by their index in it.
    owned: Ragged<u32>,
}

impl SearchWorker {
    /// The groups with the behaviors that a search by category keeps, and which each impression
    /// keeps, as [`histories::compact`] says.
    pub(crate) fn by_category(&mut self, network: &Network, groups: &Groups) -> Searched {
        let field = network.spec.search_field().expect("the spec was checked");
        histories::by_category(groups, field, network.spec.pooled(), &mut self.kept);
        self.searched(network, groups)
    }

    /// Asks every shard for the vectors of the ads of `groups`.
    pub(crate) fn ask(
        &mut self,
        groups: &Groups,
        stores: &[FeatureStore],
        seat: Seat,
        out: &mut Outbox,
    ) {
        self.counts = Counts::default();
        self.keys.resolve(groups, |name| stores[0].key(name));
        self.ads.read(&self.keys.ads, seat.lanes);
        self.behaviors.read(&self.keys.behaviors, seat.lanes);
        out.clear();
        for shard in 0..seat.lanes {
            let (keys, words) = (self.ads.asks.of(shard), out.words());
            let begin = words.len();
            keys.iter().for_each(|&key| words::push(words, key));
            self.counts.traffic.search += bytes(words.len() - begin, seat.lane, shard);
            out.seal();
        }
    }

    /// Reads the vectors, and sends them to every shard with the histories that are searched there.
    pub(crate) fn send_histories(
        &mut self,
        search: ByPictures,
        groups: &Groups,
        mail: &Mailbox<'_>,
        seat: Seat,
        out: &mut Outbox,
    ) {
        let SearchWorker { counts, ads, behaviors, vectors, histories, .. } = self;
        vectors.clear();
        for shard in 0..seat.lanes {
            let mut answer = Values(mail.read(shard, seat.lane));
            vectors.extend_from_slice(answer.floats(ads.asks.of(shard).len() * search.dim));
            answer.end(shard);
        }
        histories.resize_with(groups.len(), GroupHistory::default);
        for (group, history) in histories.iter_mut().enumerate() {
            history
                .behaviors
                .read(&behaviors.positions[groups.behaviors.range(group)], behaviors.asks.len());
            history.ads.read(&ads.positions[groups.impressions.range(group)], ads.asks.len());
            history.owned.clear();
        }
        out.clear();
        for shard in 0..seat.lanes {
            let words = out.words();
            let begin = words.len();
            let (keys, range) = (behaviors.asks.of(shard), behaviors.asks.range(shard));
            words.extend([ads.asks.len() as u32, keys.len() as u32]);
            mail::push_floats(vectors, words);
            keys.iter().for_each(|&key| words::push(words, key));
            for GroupHistory { behaviors, ads, owned } in &mut *histories {
                let mine = behaviors.images.iter().enumerate();
                let mine = mine.filter(|(_, at)| range.contains(&(**at as usize)));
                let mine: Vec<u32> = mine.map(|(image, _)| image as u32).collect();
                words.extend([mine.len() as u32, ads.images.len() as u32]);
                let position = |&at: &u32| behaviors.images[at as usize] - range.start as u32;
                words.extend(mine.iter().map(position));
                words.extend_from_slice(&ads.images);
                owned.push(&mine);
            }
            counts.traffic.search += bytes(words.len() - begin, seat.lane, shard);
            out.seal();
        }
    }

    /// Reads the hits of every shard, and keeps the best behaviors of each impression.
    pub(crate) fn read_hits(
        &mut self,
        network: &Network,
        search: ByPictures,
        groups: &Groups,
        mail: &Mailbox<'_>,
        seat: Seat,
    ) -> Searched {
        let SearchWorker { histories, kept, hits, row, .. } = self;
        let mut answers: Vec<Values<'_>> =
            (0..seat.lanes).map(|shard| Values(mail.read(shard, seat.lane))).collect();
        kept.clear();
        for (group, history) in histories.iter().enumerate() {
            let GroupHistory { behaviors, ads, owned } = history;
            let count = groups.behaviors.range(group).len();
            let mut of_impressions = vec![Vec::new(); groups.impressions.range(group).len()];
            for ad in 0..ads.images.len() {
                hits.clear();
                for (shard, answer) in answers.iter_mut().enumerate() {
                    let owned = owned.row(shard);
                    let found = answer.words(2 * search.keep.min(owned.len()));
                    hits.extend(found.chunks_exact(2).map(|hit| Hit {
                        image: owned[hit[0] as usize],
                        likeness: f32::from_bits(hit[1]),
                    }));
                }
                search::truncate(hits, search.keep);
                behaviors.keep(hits, search.keep, row);
                ads.of(ad).iter().for_each(|&at| of_impressions[at as usize].clone_from(row));
            }
            for &at in ads.without() {
                histories::newest(count, search.keep, &mut of_impressions[at as usize]);
            }
            of_impressions.iter().for_each(|row| kept.push(row));
        }
        answers.into_iter().enumerate().for_each(|(shard, answer)| answer.end(shard));
        self.searched(network, groups)
    }

    fn searched(&mut self, network: &Network, groups: &Groups) -> Searched {
        let mut kept = std::mem::take(&mut self.kept);
        let (groups, _) = histories::compact(groups, network.spec.pooled(), &mut kept);
        Searched { groups, kept }
    }
}

/// A micro-batch after its search.
pub(crate) struct Searched {
    /// The groups, without behaviors that nobody sees.
    pub groups: Groups,
    /// For each impression the behaviors that are kept, among those of `groups`; (B).
    pub kept: Ragged<u32>,
}

/// What a shard searches with.
pub(crate) struct AtShard<'a> {
    /// The model.
    pub network: &'a Network,
    /// Its weights.
    pub weights: Weights<'a>,
    /// The features of pictures.
    pub stores: &'a [FeatureStore],
    /// The messages of the workers.
    pub mail: &'a Mailbox<'a>,
    /// The shard.
    pub seat: Seat,
    /// The answers.
    pub out: &'a mut Outbox,
}

/// The half of a search that a shard does.
#[derive(Default)]
pub(crate) struct SearchShard {
    /// Counters of this step.
    pub counts: Counts,
    /// Where in `vectors` the vector of a picture is.
    places: IdMap,
    /// Unit vectors of all pictures that were asked for so far, (.., S): they never change.
    vectors: Vec<f32>,
    run: TowerRun,
    made: Vec<f32>,
    /// Room for one message.
    keys: Vec<u64>,
    ads: Vec<f32>,
    images: Vec<f32>,
    finder: Finder,
}

impl SearchShard {
    /// Writes every worker the vectors of the ads that it asked for.
    pub(crate) fn answer(&mut self, search: ByPictures, at: AtShard<'_>) {
        let AtShard { network, weights, stores, mail, seat, out } = at;
        self.counts = Counts::default();
        out.clear();
        for worker in 0..seat.lanes {
            self.keys.clear();
            self.keys.extend(words::numbers(mail.read(worker, seat.lane)));
            self.make(network, search, weights, stores);
            let words = out.words();
            let begin = words.len();
            self.keys.iter().for_each(|&key| mail::push_floats(self.vector(search, key), words));
            self.counts.traffic.search += bytes(words.len() - begin, seat.lane, worker);
            out.seal();
        }
    }

    /// Searches the histories of every worker, and writes it the hits.
    pub(crate) fn search(&mut self, search: ByPictures, at: AtShard<'_>) {
        let AtShard { network, weights, stores, mail, seat, out } = at;
        out.clear();
        for worker in 0..seat.lanes {
            let mut message = Values(mail.read(worker, seat.lane));
            let [ads, keys] = [0, 1].map(|_| message.words(1)[0] as usize);
            let ads = message.floats(ads * search.dim);
            self.keys.clear();
            self.keys.extend(words::numbers(message.words(2 * keys)));
            self.make(network, search, weights, stores);
            let words = out.words();
            let begin = words.len();
            while !message.0.is_empty() {
                let [images, shown] = [0, 1].map(|_| message.words(1)[0] as usize);
                let (images, shown) = (message.words(images), message.words(shown));
                self.search_group(search, ads, images, shown, words);
            }
            self.counts.traffic.search += bytes(words.len() - begin, seat.lane, worker);
            out.seal();
        }
    }

    /// Appends the hits of each of `shown`, positions among `ads`, in the pictures at `images`.
    fn search_group(
        &mut self,
        search: ByPictures,
        ads: &[f32],
        images: &[u32],
        shown: &[u32],
        words: &mut Vec<u32>,
    ) {
        if images.is_empty() {
            return;
        }
        let dim = search.dim;
        let mut vectors = std::mem::take(&mut self.images);
        vectors.clear();
        for &at in images {
            vectors.extend_from_slice(self.vector(search, self.keys[at as usize]));
        }
        let SearchShard { ads: queries, finder, counts, .. } = self;
        queries.clear();
        shown.iter().for_each(|&at| queries.extend_from_slice(&ads[at as usize * dim..][..dim]));
        finder.each(queries, &vectors, dim, search.keep, |hits| {
            hits.iter().for_each(|hit| words.extend([hit.image, hit.likeness.to_bits()]));
        });
        counts.searched += (images.len() * shown.len()) as f64;
        self.images = vectors;
    }

    /// Makes the vectors of those of `keys` that were never asked for.
    fn make(
        &mut self,
        network: &Network,
        search: ByPictures,
        weights: Weights,
        stores: &[FeatureStore],
    ) {
        let SearchShard { places, vectors, run, made, keys, counts, .. } = self;
        let mut news = Vec::new();
        for &key in &*keys {
            let next = places.len() as u32;
            if *places.entry(key).or_insert(next) == next {
                news.push(key);
            }
        }
        if news.is_empty() {
            return;
        }
        let images = Images { keys: &news, mailed: None };
        run.forward(network, search.tower, weights, stores, images, None, made);
        search::normalize(made, search.dim);
        vectors.extend_from_slice(made);
        counts.tower_forwards += news.len() as f64;
    }

    fn vector(&self, search: ByPictures, key: u64) -> &[f32] {
        &self.vectors[self.places[&key] as usize * search.dim..][..search.dim]
    }
}
