//! What a step counts, beside a count by hand; and that what is counted is what is sent.

use std::collections::BTreeSet;

use ams_bundle::TowerSharing;
use ams_data::{Groups, ImageKey, part_of};
use ams_fabric::{AllReduce, ThreadFabric};
use ams_image::FeatureStore;
use ams_model::ImageArm;
use ams_train::settings::{FeatureFormat, Placement, Precision, SearchBy, SearchSettings};
use ams_train::setup::network::TowerDefinition;
use ams_train::step::Lanes;
use ams_train::step::traffic::{Asked, Counts, Storage, Traffic};
use ams_train::{Config, Job, Trainer};
use tempfile::TempDir;

use super::plain::{first_step, ids_of, keys_of};
use super::shop::{PLACEMENTS, narrow, remaining_steps};

/// What one lane's impressions refer to.
struct References {
    /// Every id, as often as it is there.
    ids: Vec<u64>,
    /// Every image, likewise, by tower.
    images: Vec<Vec<u64>>,
    bytes: usize,
}

/// By hand: what the impressions of one lane refer to.
fn references(lanes: &Lanes, groups: &Groups) -> References {
    let network = &lanes.network;
    let keys = keys_of(groups, lanes.stores().first(), None);
    let ids = network.inputs().flat_map(|input| ids_of(input, groups, &keys, usize::MAX).values);
    let mut images = vec![Vec::new(); network.towers.len()];
    let towers = network.contents[0];
    for (tower, keys) in [(towers.ad, &keys.ads), (towers.behavior, &keys.behaviors)] {
        let Some(tower) = tower else { continue };
        images[tower].extend(keys.iter().filter(|key| key.is_some()).map(|key| key.0));
    }
    References { ids: ids.map(|id| id.0).collect(), images, bytes: groups.bytes() }
}

fn unique<'a>(values: impl IntoIterator<Item = &'a u64>) -> BTreeSet<u64> {
    values.into_iter().copied().collect()
}

/// By hand: how often things of one kind are referred to by each lane, and how many there are.
fn asked(by_lane: &[&[u64]]) -> Asked {
    Asked {
        requested: by_lane.iter().map(|lane| lane.len()).sum::<usize>() as f64,
        unique_per_worker: by_lane.iter().map(|lane| unique(*lane).len()).sum::<usize>() as f64,
        unique_per_shard: unique(by_lane.iter().copied().flatten()).len() as f64,
    }
}

fn add(a: Asked, b: Asked) -> Asked {
    Asked {
        requested: a.requested + b.requested,
        unique_per_worker: a.unique_per_worker + b.unique_per_worker,
        unique_per_shard: a.unique_per_shard + b.unique_per_shard,
    }
}

/// By hand: the bytes of a step between `size` processes that share the lanes evenly.
fn moved(config: &Config, lanes: &Lanes, lane_references: &[References], size: usize) -> Traffic {
    let (network, dim, count) = (&lanes.network, lanes.network.spec.dim(), lane_references.len());
    let mut words = Traffic::default();
    let process = |lane: usize| lane * size / count;
    for (worker, references) in lane_references.iter().enumerate() {
        let away = |id: &u64| process(part_of(*id, count)) != process(worker);
        let abroad = (0..count).filter(|shard| process(*shard) != process(worker)).count();
        let rows = unique(&references.ids).iter().filter(|id| away(id)).count();
        let images: usize = references
            .images
            .iter()
            .map(unique)
            .map(|keys| keys.iter().filter(|key| away(key)).count())
            .sum();
        let of_placement = |placement| if config.train.placement == placement { images } else { 0 };
        let (embeddings, features) =
            (of_placement(Placement::Ams), of_placement(Placement::StoreInServer));
        // Impressions and a count of ids and of every tower's images; two words an id.
        words.ids +=
            (abroad * (2 + network.towers.len()) + 2 * (rows + embeddings + features)) as f64;
        words.rows += (rows * dim) as f64;
        words.embeddings += (embeddings * dim) as f64;
        // A loss in f64.
        words.row_grads += (abroad * 2 + rows * dim) as f64;
        words.embedding_grads += (embeddings * dim) as f64;
        words.features += (features
            * config
                .train
                .features_as
                .words(network.towers.first().map_or(0, TowerDefinition::input)))
            as f64;
    }
    let all_reduce = AllReduce::new(config.train.all_reduce.into());
    // What learns beside the towers' first matrices, and these, which are one message each as small
    // as they are here.
    let matrices = network.trained().map(|(_, tower)| tower.first_matrix().len());
    let messages = network.rest.iter().map(|range| range.len()).chain(matrices);
    words.all_reduce =
        messages.map(|values| all_reduce.words_moved(values, size)).sum::<usize>() as f64;
    Counts { traffic: words, ..Counts::default() }.times(4.0).traffic
}

/// By hand: bytes of a step that belong to no kind: one word that says how many follow, for every
/// two lanes of different processes, in each of the three exchanges of mail.
fn headers(lanes: usize, size: usize) -> f64 {
    let abroad = lanes * (lanes - lanes / size);
    (3 * 4 * abroad) as f64
}

fn sum(traffic: Traffic) -> f64 {
    traffic.kinds().iter().map(|(_, bytes)| bytes).sum()
}

/// By hand: everything counted in the first step of `config` on `size` processes.
fn by_hand(config: &Config, lanes: &Lanes, size: usize) -> Counts {
    let (network, store) = (&lanes.network, lanes.stores().first());
    let references: Vec<References> =
        first_step(config).iter().map(|groups| references(lanes, groups)).collect();
    let count = references.len();
    let ids = asked(&references.iter().map(|lane| &lane.ids[..]).collect::<Vec<_>>());
    let mut images = Asked::default();
    for tower in 0..network.towers.len() {
        let of_tower: Vec<&[u64]> = references.iter().map(|lane| &lane.images[tower][..]).collect();
        images = add(images, asked(&of_tower));
    }
    let feature = (2 * store.map_or(0, |store: &FeatureStore| store.card().dim)) as f64;
    let samples = references.iter().map(|lane| lane.bytes).sum::<usize>() as f64;
    let rows = ids.unique_per_shard * (4 * network.spec.dim()) as f64;
    let (towers, storage) = match config.train.placement {
        Placement::Ams => (
            images.unique_per_shard,
            Storage { worker: samples, shard: rows + feature * images.unique_per_shard },
        ),
        Placement::StoreInServer => (
            images.unique_per_worker,
            Storage { worker: samples, shard: rows + feature * images.unique_per_shard },
        ),
        Placement::StoreInWorker => {
            // Nobody asks for what is at hand.
            images.unique_per_shard = 0.0;
            let features = feature * images.unique_per_worker;
            (images.unique_per_worker, Storage { worker: samples + features, shard: rows })
        }
    };
    Counts {
        traffic: moved(config, lanes, &references, count),
        images,
        ids,
        tower_forwards: towers,
        tower_backwards: towers,
        searched: 0.0,
        storage,
        wire_bytes: sum(moved(config, lanes, &references, size)) + headers(count, size),
    }
}

/// What is counted in the first step of `config` on `size` processes, and what it is by hand.
fn counted(config: &Config, size: usize) -> (Counts, Counts) {
    let mut ranks = ThreadFabric::run(size, |fabric| {
        let mut trainer = Trainer::new(config.clone(), Job::of(fabric, 1)).unwrap();
        // What the beginning sent is no part of a step.
        trainer.lanes_mut().take_counts().unwrap();
        trainer.step().unwrap();
        let counts = trainer.lanes_mut().take_counts().unwrap();
        (counts, by_hand(config, trainer.lanes(), size))
    });
    let first = ranks.remove(0);
    assert!(ranks.iter().all(|rank| *rank == first), "every rank hears the sum of all");
    first
}

/// The configuration of a model that sees these images.
fn of(images: ImageArm, towers: TowerSharing, placement: Placement) -> Config {
    let mut config = narrow(TempDir::new().unwrap().path());
    (config.model.network.images, config.model.towers) = (images, towers);
    config.train.placement = placement;
    config
}

#[test]
fn a_step_counts_what_a_count_by_hand_gives() {
    for images in ImageArm::ALL {
        for towers in [TowerSharing::Separate, TowerSharing::Shared] {
            for placement in PLACEMENTS {
                let (got, want) = counted(&of(images, towers, placement), 1);
                assert_eq!(got, want, "{images:?}, {towers:?}, {placement:?}");
                assert_eq!(got.wire_bytes, 0.0, "one process sends nothing");
                // Merged on every worker, and again on every shard; towers run over what is left.
                let Asked { requested, unique_per_worker, unique_per_shard } = got.images;
                let has_images = images != ImageArm::None;
                assert_eq!(requested > unique_per_worker, has_images);
                assert_eq!(unique_per_worker > unique_per_shard, has_images);
                assert_eq!(got.tower_forwards > 0.0, has_images);
                assert!(got.ids.requested > got.ids.unique_per_worker);
                assert!(got.ids.unique_per_worker > got.ids.unique_per_shard);
            }
        }
    }
}

#[test]
fn one_lane_sends_nothing() {
    let mut config = of(ImageArm::Joint, TowerSharing::Separate, Placement::Ams);
    config.train.lanes = 1;
    let (got, want) = counted(&config, 1);
    assert_eq!(got, want);
    assert_eq!(got.traffic, Traffic::default());
    assert_eq!(got.images.unique_per_worker, got.images.unique_per_shard);
}

#[test]
fn counted_bytes_are_the_bytes_sent() {
    for placement in PLACEMENTS {
        for (features_as, all_reduce) in
            [(FeatureFormat::F16, Precision::F32), (FeatureFormat::F32, Precision::Bf16)]
        {
            let mut config = of(ImageArm::Joint, TowerSharing::Separate, placement);
            (config.train.features_as, config.train.all_reduce) = (features_as, all_reduce);
            let alone = counted(&config, 1).0;
            for size in [2, 4, 8] {
                let (got, want) = counted(&config, size);
                assert_eq!(got, want, "{placement:?} on {size} processes");
                // What is counted between lanes does not depend on where they are.
                assert_eq!(Counts { wire_bytes: 0.0, ..got }, alone);
                if size == config.train.lanes {
                    assert_eq!(got.wire_bytes, sum(got.traffic) + headers(8, 8));
                } else {
                    assert!(got.wire_bytes < sum(got.traffic));
                }
            }
        }
    }
    assert_eq!(headers(8, 8), 672.0);
}

#[test]
fn over_a_whole_training_counted_bytes_are_the_bytes_sent() {
    let config = of(ImageArm::Joint, TowerSharing::Shared, Placement::Ams);
    ThreadFabric::run(8, |fabric| {
        let mut trainer = Trainer::new(config.clone(), Job::of(fabric, 1)).unwrap();
        trainer.lanes_mut().take_counts().unwrap();
        // A power of two, so that means are exact.
        assert_eq!(remaining_steps(&mut trainer).len(), 16);
        let counts = trainer.lanes_mut().take_counts().unwrap();
        assert_eq!(counts.wire_bytes, sum(counts.traffic) + headers(8, 8));
        assert_eq!(trainer.lanes_mut().take_counts().unwrap(), Counts::default());
    });
}

/// By hand: the words and the pairs of a search by pictures, wherever lanes are.
fn searched(lanes: &Lanes, samples: &[Groups], keep: usize) -> (f64, f64) {
    let (store, count) = (lanes.stores().first(), samples.len());
    let tower = lanes.network.contents[0].search.expect("a search by pictures");
    let dim = lanes.network.towers[tower].dim();
    let (mut words, mut pairs) = (0, 0);
    for (worker, groups) in samples.iter().enumerate() {
        let keys = keys_of(groups, store, None);
        let images = |keys: &[ImageKey]| -> BTreeSet<u64> {
            keys.iter().filter(|key| key.is_some()).map(|key| key.0).collect()
        };
        let (ads, past) = (images(&keys.ads), images(&keys.behaviors));
        for shard in 0..count {
            let owned = |all: &BTreeSet<u64>| {
                all.iter().filter(|key| part_of(**key, count) == shard).count()
            };
            let mut sent = (2 + dim) * owned(&ads) + 2 + ads.len() * dim + 2 * owned(&past);
            for group in 0..groups.len() {
                let past = owned(&images(&keys.behaviors[groups.behaviors.range(group)]));
                let ads = images(&keys.ads[groups.impressions.range(group)]).len();
                sent += 2 + past + ads + 2 * ads * keep.min(past);
                pairs += past * ads;
            }
            words += if shard == worker { 0 } else { sent };
        }
    }
    (4.0 * words as f64, pairs as f64)
}

#[test]
fn a_search_counts_what_it_moves_and_compares() {
    let folder = TempDir::new().unwrap();
    for keep in [2, 50] {
        let mut config = narrow(folder.path());
        let (by, field) = (SearchBy::Pictures, SearchSettings::category());
        config.model.network.search = Some(SearchSettings { keep, by, field });
        let counts = [1, 4].map(|size| {
            let counts = ThreadFabric::run(size, |fabric| {
                let mut trainer = Trainer::new(config.clone(), Job::of(fabric, 1)).unwrap();
                trainer.step().unwrap();
                let counts = trainer.lanes_mut().take_counts().unwrap();
                (counts, searched(trainer.lanes(), &first_step(&config), keep))
            });
            counts.into_iter().next().unwrap()
        });
        for (counts, by_hand) in counts {
            assert_eq!((counts.traffic.search, counts.searched), by_hand, "{keep}");
        }
        assert_eq!(counts[0].0.traffic, counts[1].0.traffic);
    }
}
