//! A training step beside the obvious one, and that steps learn.

use std::collections::BTreeMap;
use std::ops::Range;

use ams_bundle::TowerSharing;
use ams_data::SampleFile;
use ams_data::dataset::{Dataset, SplitName};
use ams_model::ImageArm;
use ams_model::params::Layout;
use ams_model::settings::IdRates;
use ams_train::align::align;
use ams_train::run::{Next, Start};
use ams_train::settings::{
    Aggregator, AlignConfig, Base, ContentConfig, Interactions, Placement, SearchBy,
    SearchSettings, Similarity, TowerWeights, UnknownIds,
};
use ams_train::setup::network::Network;
use ams_train::{Config, Job, Trainer};
use tempfile::TempDir;

use super::beginnings::occurrences;
use super::plain;
use super::shop::{HALF_WHITENED, PLACEMENTS, config, shop};

/// How far gradients may be from the obvious ones: the largest difference over the largest
/// gradient, of every layer of W and of the towers (its weights, bias and slopes together) and of
/// every row. Not of every tensor: the last bias of an attention is one number, a sum over all
/// pairs whose terms all but cancel. Measured: layers 2.4e-6, rows 2.4e-6.
const TOLERANCE: f64 = 1e-5;

/// Likewise for the loss. Measured: 5.0e-9.
const LOSS_TOLERANCE: f64 = 1e-7;

/// What Adam's first moment after one step has to be divided by, to be the gradient.
const ONE_LESS_BETA1: f32 = 1.0 - 0.9;

/// Where every layer lies among the dense weights: its weights, bias and slopes, or one lone
/// vector.
fn layers(network: &Network) -> Vec<(String, Range<usize>)> {
    let mut found: Vec<(String, Range<usize>)> = Vec::new();
    let mut add = |of: &str, start: usize, layout: &Layout| {
        for entry in &layout.entries {
            let from = start + entry.view.offset;
            let layer = entry.name.rsplit_once('.').map_or("", |(layer, _)| layer);
            let name = format!("{of} {layer}");
            match found.last_mut() {
                Some((last, range)) if *last == name => range.end += entry.view.len,
                _ => found.push((name, from..from + entry.view.len)),
            }
        }
    };
    add("network", 0, network.rank.layout());
    for tower in &network.towers {
        add(&tower.spec.name, tower.range.start, tower.model.layout());
    }
    found
}

/// The largest difference over the largest value of `want`.
fn distance(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0.0f64, |most, want| most.max(want.abs()));
    let pairs = got.iter().zip(want);
    let difference = pairs.fold(0.0f64, |most, (got, want)| most.max((got - want).abs()));
    // Where there is no gradient there has to be none.
    if difference == 0.0 { 0.0 } else { difference / largest }
}

/// The gradients of a trainer that took one step: dense, and by id.
fn gradients(trainer: &Trainer) -> (Vec<f64>, BTreeMap<u64, Vec<f64>>) {
    let gradient = |m: &f32| f64::from(*m) / f64::from(ONE_LESS_BETA1);
    let lanes = trainer.lanes();
    let mut rows = BTreeMap::new();
    for table in lanes.shards().map(|shard| &shard.table) {
        for slot in table.slots_by_id() {
            let (dim, state) = (table.dim(), table.state(slot));
            let drow = state[dim..2 * dim].iter().map(gradient).collect();
            assert!(rows.insert(table.id(slot), drow).is_none(), "an id has one owner");
        }
    }
    (lanes.dense.m.iter().map(gradient).collect(), rows)
}

/// How often each item is shown in the training samples.
fn shown(config: &Config) -> BTreeMap<u64, u32> {
    let dataset = Dataset::open(&config.data.samples).unwrap();
    let mut counts = BTreeMap::new();
    for part in 0..dataset.card().parts {
        let path = dataset.part_path(SplitName::Train, part);
        let file = SampleFile::open(&path, dataset.schema()).unwrap();
        file.for_each_impression(|item, _, _| *counts.entry(item.0).or_insert(0) += 1).unwrap();
    }
    counts
}

/// Takes one step of `config` and compares it with the obvious one.
fn check(case: &str, config: &Config) {
    // Without hidden layers a row of an id that all share is a sum whose terms all but cancel.
    // Measured: 4.3e-5.
    let cancels = config.model.network.base == Base::LogisticRegression;
    let of_rows = if cancels { 1e-4 } else { TOLERANCE };
    let mut trainer = Trainer::new(config.clone(), Job::solo(2)).unwrap();
    let groups = plain::first_step(config);
    let lanes = trainer.lanes();
    let (network, least) = (&lanes.network, config.train.min_occurrences);
    let counts = (least > 1).then(|| occurrences(config, network));
    let admitted = |id: u64| counts.as_ref().is_none_or(|counts| counts[&id] >= least);
    let shown = shown(config);
    let want = plain::step(network, lanes.stores(), config.seed, &groups, &admitted, &shown);
    let report = trainer.step().unwrap().unwrap();
    assert_eq!(report.impressions, groups.iter().map(|g| g.labels.len() as u64).sum::<u64>());
    let close = |what: &str, got: &[f64], want: &[f64], tolerance| {
        let distance = distance(got, want);
        assert!(distance <= tolerance, "{case}: {what}: {distance:e}");
    };
    close("the loss", &[report.loss], &[want.loss], LOSS_TOLERANCE);
    let in_batch = [report.in_batch, want.in_batch].map(Vec::from_iter);
    close("the loss of negatives", &in_batch[0], &in_batch[1], LOSS_TOLERANCE);
    let contrastive = [report.contrastive, want.contrastive].map(Vec::from_iter);
    close("the contrastive loss", &contrastive[0], &contrastive[1], 1e-6);

    let (dense, rows) = gradients(&trainer);
    let layers = layers(&trainer.lanes().network);
    assert_eq!(layers.last().unwrap().1.end, dense.len(), "every weight is in a layer");
    for (name, range) in layers {
        close(&name, &dense[range.clone()], &want.dense[range], TOLERANCE);
    }
    // Every id has a row, and nothing else.
    let ids = |rows: &BTreeMap<u64, Vec<f64>>| rows.keys().copied().collect::<Vec<u64>>();
    assert_eq!(ids(&rows), ids(&want.rows), "{case}");
    for (id, row) in &rows {
        close(&format!("row {id}"), row, &want.rows[id], of_rows);
    }
}

#[test]
fn a_step_is_the_obvious_one() {
    let folder = TempDir::new().unwrap();
    let mut cases = Vec::new();
    for images in ImageArm::ALL {
        for towers in [TowerSharing::Separate, TowerSharing::Shared] {
            for placement in PLACEMENTS {
                for lanes in [1, 8] {
                    cases.push((images, towers, placement, lanes));
                }
            }
        }
    }
    // Placements differ only where there are towers.
    cases.retain(|case| case.0 != ImageArm::None || case.2 == Placement::Ams);
    for case in cases {
        let mut config = config(folder.path());
        (config.model.network.images, config.model.towers) = (case.0, case.1);
        (config.train.placement, config.train.lanes) = (case.2, case.3);
        check(&format!("{case:?}"), &config);
    }
}

/// Every base network, what the network is told besides, towers that do not learn, and two
/// contents.
#[test]
fn a_step_of_other_networks_is_the_obvious_one() {
    let folder = TempDir::new().unwrap();
    let change = |change: &dyn Fn(&mut Config)| {
        let mut config = config(folder.path());
        change(&mut config);
        config
    };
    // The same pictures by two other encoders would do; here, the same features seen by other
    // towers.
    let text = ContentConfig { name: "text".to_owned(), features: shop().join("data/images") };
    let pre_rank = |config: &mut Config| {
        config.model.network.base = Base::PreRank;
        config.model.network.aggregator = Aggregator::Sum;
    };
    let cases = [
        change(&|config| config.model.network.base = Base::LogisticRegression),
        change(&|config| config.model.network.base = Base::Din),
        change(&|config| {
            config.model.network.base = Base::Din;
            config.model.network.images = ImageArm::None;
        }),
        change(&pre_rank),
        change(&|config| config.model.network.behavior_age_buckets = 24),
        change(&|config| {
            config.model.network.base = Base::Din;
            config.model.network.behavior_age_buckets = 32;
            config.model.network.interactions = Interactions::Product;
        }),
        change(&|config| config.model.network.interactions = Interactions::Product),
        change(&|config| {
            let network = &mut config.model.network;
            (network.images, network.semantic_ids, network.id_dropout) =
                (ImageArm::None, 3, 0.2.into());
        }),
        change(&|config| {
            (config.model.network.base, config.model.network.semantic_ids) = (Base::Din, 2);
            config.model.query_fields = Some(vec!["category".into(), "semantic_2".into()]);
        }),
        change(&|config| {
            config.model.network.images = ImageArm::None;
            config.model.network.similarity = Similarity::Histogram;
        }),
        change(&|config| {
            config.model.network.images = ImageArm::None;
            config.model.network.similarity = Similarity::Statistics;
            config.train.batch = 1 << 20;
        }),
        change(&|config| {
            config.model.projection = Some(HALF_WHITENED);
            config.model.network.attention_cosine = true;
        }),
        change(&|config| {
            config.model.network.base = Base::Din;
            config.model.network.images = ImageArm::None;
            config.model.network.attention_cosine = true;
        }),
        change(&|config| config.model.tower_weights = TowerWeights::Random),
        change(&|config| {
            config.model.tower_weights = TowerWeights::Pca;
            config.model.tower = vec![12];
        }),
        change(&|config| {
            config.model.projection = Some(HALF_WHITENED);
            config.model.network.similarity = Similarity::Histogram;
        }),
        change(&|config| config.data.contents = vec![text.clone()]),
        change(&|config| {
            config.data.contents = vec![text.clone()];
            config.model.pca = Some(16);
            config.model.towers = TowerSharing::Shared;
            config.model.network.base = Base::Din;
            config.model.network.interactions = Interactions::Product;
            config.model.network.similarity = Similarity::Cosine;
        }),
    ];
    for mut config in cases {
        for placement in PLACEMENTS {
            config.train.placement = placement;
            check(&format!("{:?} {placement:?}", config.model), &config);
        }
    }
}

/// Searches by pictures and by a field, which keep more or less than histories have.
#[test]
fn a_step_with_a_search_is_the_obvious_one() {
    let folder = TempDir::new().unwrap();
    let all = [(SearchBy::Pictures, 3), (SearchBy::Category, 3), (SearchBy::Pictures, 50)];
    for (by, keep) in all {
        for (base, similarity) in
            [(Base::Mlp, Similarity::None), (Base::Din, Similarity::Histogram)]
        {
            for (placement, lanes) in PLACEMENTS.into_iter().zip([8, 1, 8]) {
                let mut config = config(folder.path());
                let network = &mut config.model.network;
                (network.base, network.similarity) = (base, similarity);
                network.search = Some(SearchSettings { keep, by, field: "brand".to_owned() });
                (config.train.placement, config.train.lanes) = (placement, lanes);
                check(&format!("{by:?}, {keep}, {base:?}, {placement:?}, {lanes}"), &config);
            }
        }
    }
}

/// Few negatives and more than there are, of all lanes and of one.
#[test]
fn a_step_with_negatives_of_the_batch_is_the_obvious_one() {
    let folder = TempDir::new().unwrap();
    for (negatives, weight, lanes) in [(3, 1.0, 8), (64, 0.3, 8), (5, 2.0, 1)] {
        for images in [ImageArm::None, ImageArm::Joint] {
            let mut config = config(folder.path());
            let network = &mut config.model.network;
            (network.base, network.aggregator) = (Base::PreRank, Aggregator::Sum);
            (network.images, network.id_dropout) = (images, 0.1.into());
            let train = &mut config.train;
            (train.in_batch_negatives, train.in_batch_weight) = (negatives, weight);
            (train.batch, train.lanes) = (512, lanes);
            check(&format!("{negatives} negatives, {images:?}, {lanes} lanes"), &config);
        }
    }
}

/// Beside a loss of images, whose map is that of the components.
#[test]
fn a_step_with_a_contrastive_loss_is_the_obvious_one() {
    let folder = TempDir::new().unwrap();
    let mut config = config(folder.path());
    config.model.towers = TowerSharing::Shared;
    (config.train.batch, config.train.lanes) = (512, 2);
    config.align = Some(AlignConfig { steps: 0, ..AlignConfig::default() });
    let aligned = align(&config, Start::Fresh, Job::solo(2), &mut |_| Next::GoOn).unwrap();
    assert!(aligned.finished && aligned.chosen == 0);
    for weight in [0.3, 4.0] {
        for placement in PLACEMENTS {
            config.align.as_mut().unwrap().weight = weight;
            config.train.placement = placement;
            check(&format!("contrastive loss times {weight}, {placement:?}"), &config);
        }
    }
}

#[test]
fn a_step_with_dropout_is_the_obvious_one() {
    let folder = TempDir::new().unwrap();
    for towers in [TowerSharing::Separate, TowerSharing::Shared] {
        for placement in PLACEMENTS {
            let mut config = config(folder.path());
            (config.model.towers, config.model.tower) = (towers, vec![32, 16, 12]);
            (config.train.placement, config.train.tower_dropout) = (placement, 0.4);
            check(&format!("dropout, {towers:?}, {placement:?}"), &config);
        }
    }
}

/// A row that is dropped has no gradient, and is no row where all its uses are dropped.
#[test]
fn a_step_with_id_dropout_is_the_obvious_one() {
    let folder = TempDir::new().unwrap();
    let rows = |config: &Config| {
        let mut trainer = Trainer::new(config.clone(), Job::solo(2)).unwrap();
        trainer.step().unwrap().unwrap();
        trainer.lanes().shards().map(|shard| shard.table.len()).sum::<usize>()
    };
    let all = rows(&config(folder.path()));
    let fields = [("item", 0.5), ("image", 0.5), ("category", 0.2), ("gender", 0.3)];
    let fields = IdRates::Fields(fields.map(|(name, rate)| (name.to_owned(), rate)).into());
    for (base, rates) in [
        (Base::Mlp, 0.3.into()),
        (Base::Din, 0.9.into()),
        (Base::Mlp, fields.clone()),
        (Base::Din, fields),
    ] {
        for lanes in [1, 8] {
            let mut config = config(folder.path());
            (config.model.network.base, config.model.network.id_dropout) = (base, rates.clone());
            config.train.lanes = lanes;
            check(&format!("id dropout {rates:?}, {base:?}, {lanes} lanes"), &config);
            assert!(rows(&config) < all, "{rates:?}");
        }
    }
}

/// Ids that are dropped, or occur too seldom, have the row of unknown ids: zeros, or one of their
/// input that learns.
#[test]
fn a_step_with_unknown_ids_is_the_obvious_one() {
    let folder = TempDir::new().unwrap();
    for (unknown, rate, least) in [
        (UnknownIds::Zero, 0.0, 4),
        (UnknownIds::Zero, 0.3, 9),
        (UnknownIds::Learned, 0.3, 1),
        (UnknownIds::Learned, 0.0, 4),
        (UnknownIds::Learned, 0.3, 9),
    ] {
        for (base, lanes) in [(Base::Mlp, 8), (Base::Din, 1)] {
            let mut config = config(folder.path());
            let network = &mut config.model.network;
            (network.base, network.id_dropout, network.unknown) = (base, rate.into(), unknown);
            (config.train.lanes, config.train.min_occurrences) = (lanes, least);
            check(&format!("{unknown:?} {rate} {least} {base:?} {lanes}"), &config);
        }
    }
}

#[test]
fn training_lowers_the_loss_and_shuffled_images_are_another_model() {
    let folder = TempDir::new().unwrap();
    let losses = |config: &Config| -> Vec<f64> {
        let mut trainer = Trainer::new(config.clone(), Job::solo(2)).unwrap();
        std::iter::from_fn(|| trainer.step().unwrap()).map(|report| report.loss).collect()
    };
    let mut config = config(folder.path());
    config.train.epochs = 6;
    let real = losses(&config);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&real[..8]), mean(&real[real.len() - 8..]));
    assert!(last < 0.9 * first, "{first} -> {last}");
    config.data.shuffle_images = Some(1);
    assert_ne!(losses(&config), real);
}
