//! A published model beside the trainer it came from.

use std::collections::HashMap;
use std::path::Path;

use ams_bundle::{Changes, Model, Scratch, vectors};
use ams_data::dataset::{Dataset, SplitName};
use ams_data::samples::SampleFile;
use ams_data::{Groups, Id, ImageKey};
use ams_image::FeatureStore;
use ams_model::{Aggregator, ImageArm};
use ams_train::run;
use ams_train::settings::{
    Base, ContentConfig, Interactions, SearchBy, SearchSettings, Similarity, TowerSharing,
    UnknownIds,
};
use ams_train::{Config, Job};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int64Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;

use super::shop::{HALF_WHITENED, config, publish, shop};

/// What the aggregator `concatenate` has room for: less than some histories have, more than others.
const LENGTH: usize = 5;

#[test]
fn the_scorer_says_what_the_trainer_says() {
    let folder = TempDir::new().unwrap();
    for (arm, aggregator) in [
        (ImageArm::None, Aggregator::Sum),
        (ImageArm::Ad, Aggregator::Sum),
        (ImageArm::Behavior, Aggregator::Concatenate),
        (ImageArm::Joint, Aggregator::Max),
        (ImageArm::Joint, Aggregator::Sum),
        (ImageArm::Behavior, Aggregator::Attentive),
        (ImageArm::Joint, Aggregator::MultiQueryAttentive),
    ] {
        let mut config = config(&folder.path().join(format!("{arm:?} {aggregator:?}")));
        let network = &mut config.model.network;
        (network.images, network.aggregator) = (arm, aggregator);
        network.concatenate_length = LENGTH;
        check(&config);
    }
}

/// Every base network, what the network is told besides, towers that do not learn, and two
/// contents.
#[test]
fn the_scorer_says_what_the_trainer_says_of_other_networks() {
    let folder = TempDir::new().unwrap();
    let text = ContentConfig { name: "text".to_owned(), features: shop().join("data/images") };
    type Change<'a> = &'a dyn Fn(&mut Config);
    let changes: [Change<'_>; 16] = [
        &|config| config.model.network.base = Base::LogisticRegression,
        &|config| {
            (config.model.network.base, config.model.network.images) = (Base::Din, ImageArm::Ad)
        },
        &|config| {
            (config.model.network.base, config.model.network.aggregator) =
                (Base::PreRank, Aggregator::Sum);
        },
        &|config| config.model.network.behavior_age_buckets = 24,
        &|config| {
            config.model.network.base = Base::Din;
            config.model.network.behavior_age_buckets = 32;
        },
        &|config| {
            config.model.network.images = ImageArm::None;
            config.model.network.similarity = Similarity::Cosine;
        },
        &|config| {
            config.model.projection = Some(HALF_WHITENED);
            config.model.network.similarity = Similarity::Cosine;
        },
        &|config| {
            config.model.projection = Some(HALF_WHITENED);
            config.model.network.similarity = Similarity::Statistics;
        },
        &|config| config.model.network.attention_cosine = true,
        &|config| {
            config.model.network.base = Base::Din;
            config.model.network.images = ImageArm::None;
            config.model.network.attention_cosine = true;
        },
        &|config| {
            config.model.network.unknown = UnknownIds::Learned;
            config.train.min_occurrences = 20;
        },
        &|config| {
            config.model.network.images = ImageArm::None;
            config.model.network.semantic_ids = 2;
        },
        &|config| {
            config.model.network.semantic_ids = 3;
            (config.model.network.base, config.model.network.aggregator) =
                (Base::PreRank, Aggregator::Sum);
        },
        &|config| {
            let network = &mut config.model.network;
            (network.base, network.semantic_ids) = (Base::Din, 3);
            (network.unknown, network.id_dropout) = (UnknownIds::Learned, 0.2.into());
            network.search =
                Some(SearchSettings { keep: 4, by: SearchBy::Category, field: "category".into() });
            config.model.query_fields = Some(vec!["item".to_owned(), "semantic_1".to_owned()]);
            config.model.projection = Some(HALF_WHITENED);
        },
        &|config| {
            config.model.network.unknown = UnknownIds::Learned;
            (config.model.network.base, config.model.network.id_dropout) = (Base::Din, 0.2.into());
        },
        &|config| {
            config.data.contents = vec![text.clone()];
            config.model.pca = Some(16);
            config.model.towers = TowerSharing::Shared;
            config.model.network.base = Base::Din;
            config.model.network.interactions = Interactions::Product;
            config.model.network.similarity = Similarity::Histogram;
            config.train.tower_dropout = 0.2;
        },
    ];
    for (case, change) in changes.into_iter().enumerate() {
        let mut config = config(&folder.path().join(case.to_string()));
        change(&mut config);
        check(&config);
    }
}

#[test]
fn the_scorer_searches_as_the_trainer_does() {
    let folder = TempDir::new().unwrap();
    for by in [SearchBy::Pictures, SearchBy::Category] {
        for (base, aggregator) in
            [(Base::Mlp, Aggregator::MultiQueryAttentive), (Base::Din, Aggregator::Sum)]
        {
            let mut config = config(&folder.path().join(format!("{by:?} {base:?}")));
            let network = &mut config.model.network;
            (network.base, network.aggregator) = (base, aggregator);
            let field = SearchSettings::category();
            network.search = Some(SearchSettings { keep: 4, by, field });
            check(&config);
        }
    }
}

/// Trains and publishes `config`, and holds the bundle's scores of the test against the trainer's.
fn check(config: &Config) {
    let (bundle, _) = publish(config, 2);
    let mut trainer = run::open(&run::folder(config), Job::solo(2)).unwrap();
    let predicted = trainer.evaluate(SplitName::Test).unwrap();
    let (groups, scored) = score_test(&bundle);
    let lengths = groups.behaviors.as_slice().windows(2).map(|at| (at[1] - at[0]) as usize);
    let (least, most) = (lengths.clone().min().unwrap(), lengths.max().unwrap());
    assert!(least < LENGTH && LENGTH < most, "histories of {least} to {most}");
    // The trainer's rows come part by part, in file order; so do these.
    assert_eq!(predicted.labels, groups.labels);
    assert_eq!(predicted.times, groups.times);
    // Towers ran over other batches.
    for (row, (trainer, scorer)) in predicted.logits.iter().zip(&scored).enumerate() {
        let difference = (trainer - scorer).abs();
        let bound = 1e-6 * trainer.abs().max(1.0);
        assert!(difference <= bound, "{:?} row {row}: {trainer} {scorer}", config.model);
    }
}

#[test]
fn exported_vectors_give_the_scores() {
    let folder = TempDir::new().unwrap();
    let mut config = config(folder.path());
    (config.model.network.base, config.model.network.aggregator) = (Base::PreRank, Aggregator::Sum);
    config.model.network.pre_rank = vec![16, 6];
    let (bundle, _) = publish(&config, 2);
    let (groups, logits) = score_test(&bundle);
    let model = Model::open(&bundle).unwrap();
    let dataset = Dataset::open(shop().join("data")).unwrap();
    let out = folder.path().join("vectors");
    let exported = vectors::export(&model, &dataset, SplitName::Test, &out).unwrap();
    assert_eq!((exported.ads as u64, exported.dim), (dataset.card().counts.items, 6));

    let read = |file: &str| {
        let file = std::fs::File::open(out.join(file)).unwrap();
        let mut reader = ParquetRecordBatchReaderBuilder::try_new(file)
            .and_then(|reader| reader.with_batch_size(1 << 20).build())
            .unwrap();
        reader.next().unwrap().unwrap()
    };
    let vector = |table: &RecordBatch, row: usize| -> Vec<f32> {
        let vectors = table.column_by_name("vector").unwrap().as_fixed_size_list().value(row);
        vectors.as_primitive::<Float32Type>().values().to_vec()
    };
    let (ads, users) = (read(vectors::ADS), read(vectors::USERS));
    let items = ads.column(0).as_string::<i32>();
    let rows: HashMap<u64, usize> =
        (0..items.len()).map(|row| (Id::of("item", items.value(row)).0, row)).collect();
    let ids = users.column(0).as_primitive::<UInt64Type>();
    let times = users.column(1).as_primitive::<Int64Type>();
    let mut compared = 0;
    for group in 0..groups.len() {
        let user = ids.values().iter().position(|id| *id == groups.users[group].0).unwrap();
        let impressions = groups.impressions.range(group);
        // An older group than the one whose vector was exported.
        if times.value(user) != groups.times[impressions.start] {
            assert!(times.value(user) > groups.times[impressions.start]);
            continue;
        }
        for row in impressions {
            let ad = vector(&ads, rows[&groups.ad_fields[0].row(row)[0].0]);
            let product: f32 = vector(&users, user).iter().zip(&ad).map(|(u, a)| u * a).sum();
            assert!((product - logits[row]).abs() < 1e-5, "{product} {}", logits[row]);
            compared += 1;
        }
    }
    assert!(compared > 100, "{compared}");
}

/// A picture that comes after publishing is embedded as if it had been there.
#[test]
fn new_images_are_embedded_as_publishing_does() {
    let folder = TempDir::new().unwrap();
    let store = FeatureStore::open(&shop().join("data/images")).unwrap();
    for (pca, projection) in [(None, None), (Some(16), None), (None, Some(HALF_WHITENED))] {
        let mut config = config(&folder.path().join(format!("{pca:?} {projection:?}")));
        (config.model.pca, config.model.projection) = (pca, projection);
        let model = Model::open(&publish(&config, 2).0).unwrap();
        let towers = model.image_towers().len();
        assert_eq!(towers, 2);
        for (_, key) in store.pictures().take(40) {
            let row = store.row(key).unwrap().halfs();
            let feature: Vec<f32> = row.iter().map(|half| half.to_f32()).collect();
            let embedded = model.embed(0, &feature).unwrap();
            for (tower, embedding) in embedded.iter().enumerate() {
                assert_eq!(&embedding[..], model.embedding(tower, key).unwrap(), "{projection:?}");
            }
        }
    }
}

/// A picture that comes after publishing has the codes that the store gives it, also if no tower
/// sees it.
#[test]
fn new_images_have_the_codes_of_the_store() {
    let folder = TempDir::new().unwrap();
    let store = FeatureStore::open(&shop().join("data/images")).unwrap();
    let codes = store.codes().unwrap();
    for images in [ImageArm::None, ImageArm::Joint] {
        let mut config = config(&folder.path().join(format!("{images:?}")));
        let network = &mut config.model.network;
        (network.images, network.semantic_ids) = (images, 2);
        let model = Model::open(&publish(&config, 2).0).unwrap();
        let mut changes = Changes::default();
        for (name, key) in store.pictures() {
            let expected: Vec<u32> =
                codes.of(key).unwrap()[..2].iter().map(|it| (*it).into()).collect();
            assert_eq!(model.codes(key), expected);
            // The same feature under another key.
            let row = store.row(key).unwrap().halfs();
            let feature: Vec<f32> = row.iter().map(|half| half.to_f32()).collect();
            assert!(changes.picture(&model, 0, name, ImageKey(!key.0), &feature).unwrap());
        }
        let next = model.change(&changes).unwrap();
        for (name, key) in store.pictures() {
            assert_eq!(next.image(name), ImageKey(!key.0));
            assert_eq!(next.codes(ImageKey(!key.0)), model.codes(key));
        }
    }
}

/// All test groups, and what the bundle says of them.
fn score_test(bundle: &Path) -> (Groups, Vec<f32>) {
    let model = Model::open(bundle).unwrap();
    let dataset = Dataset::open(shop().join("data")).unwrap();
    let mut groups = Groups::new(dataset.schema());
    for part in 0..dataset.card().parts {
        let path = dataset.part_path(SplitName::Test, part);
        if path.exists() {
            let file = SampleFile::open(&path, dataset.schema()).unwrap();
            (0..file.blocks()).for_each(|block| file.read(block, &mut groups).unwrap());
        }
    }
    let mut logits = Vec::new();
    model.score_groups(&groups, &mut Scratch::default(), &mut logits);
    (groups, logits)
}
