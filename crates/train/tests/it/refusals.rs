//! Configurations that are refused before anything is done.

use std::ops::ControlFlow;

use ams_image::listing::below;
use ams_image::{Builtin, EncodeOptions, SemanticIds, encode};
use ams_model::Aggregator;
use ams_train::settings::{
    AlignConfig, Candidate, EvictionConfig, ImageArm, ProjectionConfig, SearchBy, SearchSettings,
    TowerSharing, TowerWeights, UnknownIds,
};
use ams_train::{Config, Job, Trainer};
use tempfile::TempDir;

use super::shop::{HALF_WHITENED, config, copy_of_shop, shop};

fn search(config: &mut Config, keep: usize, field: &str) {
    let (by, field) = (SearchBy::Pictures, field.to_owned());
    config.model.network.search = Some(SearchSettings { keep, by, field });
}

fn contrast(config: &mut Config, weight: f32) {
    config.align = Some(AlignConfig { weight, ..AlignConfig::default() });
}

fn evict(config: &mut Config, days: Option<u32>, lane_bytes: Option<u64>, floor: f32) {
    config.train.eviction = Some(EvictionConfig { days, lane_bytes, floor });
}

#[test]
fn configurations_that_make_no_sense_are_refused_by_key() {
    let folder = TempDir::new().unwrap();
    type Spoil = fn(&mut Config);
    let cases: [(&str, Spoil); 57] = [
        ("name", |config| config.name = "a/b".to_owned()),
        ("train.lanes: 6, expected a power of two", |config| config.train.lanes = 6),
        ("train.lanes: 128 lanes cannot share", |config| config.train.lanes = 128),
        ("train.batch", |config| config.train.batch = 4),
        ("train.learning_rate", |config| config.train.learning_rate = f32::NAN),
        ("train.decay", |config| config.train.decay = 0.0),
        ("train.epochs", |config| config.train.epochs = 0),
        ("train.in_batch_negatives: 4, but the network has no vectors", |config| {
            config.train.in_batch_negatives = 4;
        }),
        ("train.in_batch_weight: 0, expected", |config| config.train.in_batch_weight = 0.0),
        ("align.weight: -1, expected", |config| contrast(config, -1.0)),
        (
            "align.weight: 0.5, but images of ads and of histories go through different towers",
            |config| {
                contrast(config, 0.5);
            },
        ),
        ("align.weight: 0.5, but the model does not embed both images", |config| {
            contrast(config, 0.5);
            config.model.network.images = ImageArm::Ad;
        }),
        ("align.weight: 0.5, but the tower is not trained", |config| {
            contrast(config, 0.5);
            config.model.towers = TowerSharing::Shared;
            config.model.tower_weights = TowerWeights::Random;
        }),
        ("train.early_stop: 0 evaluations", |config| config.train.early_stop = Some(0)),
        ("train.evaluations_per_epoch: 0", |config| config.train.evaluations_per_epoch = 0),
        ("train.max_steps: 0", |config| config.train.max_steps = Some(0)),
        ("train.refit: needs a number of steps", |config| config.train.refit = true),
        ("train.candidates: the chosen one", |config| {
            config.train.candidates = vec![Candidate::Ids];
        }),
        ("train.candidates: \"similarity\" is \"ids\" without", |config| {
            (config.train.validation_parts, config.train.early_stop) = (8, Some(1));
            config.train.refit = true;
            config.train.candidates = vec![Candidate::Ids, Candidate::Similarity];
        }),
        ("train.candidates: \"ids\" has no pictures to search by", |config| {
            (config.train.validation_parts, config.train.early_stop) = (8, Some(1));
            config.train.refit = true;
            config.train.candidates = vec![Candidate::Ids];
            search(config, 5, "category");
        }),
        ("model.search: keep = 0, expected 1 to 10000", |config| search(config, 0, "category")),
        ("model: search.keep = 51, expected 1 to max_behaviors = 50 of the samples", |config| {
            search(config, 51, "category");
        }),
        (
            "model: search.field = \"color\", expected a field of behaviors and ads: item",
            |config| {
                search(config, 5, "color");
                config.model.network.search.as_mut().unwrap().by = SearchBy::Category;
            },
        ),
        ("train.candidates: \"ids\" stands there twice", |config| {
            (config.train.validation_parts, config.train.early_stop) = (8, Some(1));
            config.train.refit = true;
            config.train.candidates = vec![Candidate::Ids, Candidate::Ids];
        }),
        ("train.candidate_errors: -1, expected", |config| config.train.candidate_errors = -1.0),
        ("train.early_stop: needs samples held out", |config| config.train.early_stop = Some(1)),
        ("train.validation_tail: 0.1 beside train.validation_parts = 8", |config| {
            (config.train.validation_parts, config.train.validation_tail) = (8, 0.1);
        }),
        (
            "train.validation_tail: the newest impressions have one time, or there are too few",
            |config| {
                config.train.validation_tail = 1e-6;
            },
        ),
        ("train.validation_parts: 3 of the dataset's 64 parts", |config| {
            config.train.validation_parts = 3;
        }),
        ("train.validation_parts: 64 of the dataset's 64 parts, expected fewer", |config| {
            config.train.validation_parts = 64;
        }),
        ("use at most 32 lanes", |config| {
            (config.train.validation_parts, config.train.lanes) = (1, 64);
        }),
        ("train.min_occurrences: 0", |config| config.train.min_occurrences = 0),
        ("train.sketch_bytes: 100, expected at least 4096", |config| {
            (config.train.min_occurrences, config.train.sketch_bytes) = (2, Some(100));
        }),
        ("train.sketch_bytes: 4096, but train.min_occurrences = 1 needs no count", |config| {
            config.train.sketch_bytes = Some(4096);
        }),
        ("train.sketch_bytes: 4096, but train.l2_ids = 0.5 needs the exact count", |config| {
            (config.train.min_occurrences, config.train.sketch_bytes) = (2, Some(4096));
            config.train.l2_ids = 0.5;
        }),
        ("train.eviction.days: 0", |config| evict(config, Some(0), None, 0.9)),
        ("train.eviction.lane_bytes: 1000, expected at least 40960", |config| {
            evict(config, None, Some(1000), 0.9);
        }),
        ("train.eviction.floor: 1.5, expected", |config| evict(config, Some(1), None, 1.5)),
        ("train.eviction.floor: NaN", |config| evict(config, Some(1), None, f32::NAN)),
        ("model.unknown: \"learned\", but no id is replaced", |config| {
            config.model.network.unknown = UnknownIds::Learned;
        }),
        ("train.tower_dropout: 1, expected", |config| config.train.tower_dropout = 1.0),
        ("train.tower_dropout: NaN", |config| config.train.tower_dropout = f32::NAN),
        ("train.tower_dropout: 0.5 of the hidden units, but model.tower = [12]", |config| {
            (config.train.tower_dropout, config.model.tower) = (0.5, vec![12]);
        }),
        ("train.tower_weight_decay: -1", |config| config.train.tower_weight_decay = -1.0),
        ("train.tower_weight_decay: 1000, expected", |config| {
            config.train.tower_weight_decay = 1000.0;
        }),
        ("train.tower_weight_decay: inf", |config| {
            config.train.tower_weight_decay = f32::INFINITY;
        }),
        ("model.tower", |config| config.model.tower = vec![256, 64]),
        ("model.concatenate_length: 0", |config| config.model.network.concatenate_length = 0),
        ("model: a width is", |config| {
            config.model.network.aggregator = Aggregator::Concatenate;
            config.model.network.concatenate_length = i64::MAX as usize;
        }),
        ("model.projection.components: 65 components of 64 numbers", |config| {
            config.model.projection = Some(ProjectionConfig { components: 65, ..HALF_WHITENED });
        }),
        ("model.projection.components: a width is 0", |config| {
            config.model.projection = Some(ProjectionConfig { components: 0, ..HALF_WHITENED });
        }),
        ("model.projection: cannot stand beside model.pca = 8", |config| {
            (config.model.pca, config.model.projection) = (Some(8), Some(HALF_WHITENED));
        }),
        ("there is no ad field \"colour\"; possible are item, category, brand", |config| {
            config.model.query_fields = Some(vec!["colour".to_owned()]);
        }),
        ("there is no field \"sex\"", |config| {
            config.data.exclude_fields = vec!["sex".to_owned()];
        }),
        ("model.semantic_ids: 9 levels, expected 0 to 8", |config| {
            config.model.network.semantic_ids = 9;
        }),
        ("possible are item, category, brand, semantic_1, semantic_2", |config| {
            config.model.network.semantic_ids = 2;
            config.model.query_fields = Some(vec!["semantic_3".to_owned()]);
        }),
        ("nowhere", |config| config.data.samples = "nowhere".into()),
    ];
    for (want, spoil) in cases {
        let mut config = config(folder.path());
        spoil(&mut config);
        let error = Trainer::new(config, Job::solo(1)).err().expect(want).to_string();
        assert!(error.contains(want), "{want:?} is not in {error:?}");
    }
}

#[test]
fn semantic_ids_need_a_store_that_has_some() {
    let folder = TempDir::new().unwrap();
    let samples = copy_of_shop(&folder.path().join("data"));
    std::fs::remove_dir_all(samples.join("images")).unwrap();
    let [without, one] = ["without", "one"].map(|name| folder.path().join(name));
    ams_image::simulated(&without, ["a.png".to_owned()].into_iter(), 8, 1).unwrap();
    let pictures = shop().join("shop");
    let mut options = EncodeOptions::new(&pictures, &one);
    options.semantic_ids = Some(SemanticIds::Of { levels: 1, size: 3 });
    let names = below(&pictures).unwrap().pictures.into_iter().take(5);
    encode(&options, names, &Builtin::new(64, 1).unwrap(), &mut |_| ControlFlow::Continue(()))
        .unwrap();
    let cases = [
        (None, "data.images: the model sees images (model.images, model.similarity, model.sem"),
        (
            Some(without),
            "model.semantic_ids: 2 levels, but the feature store has no semantic ids; run `ams encode`",
        ),
        (Some(one), "model.semantic_ids: 2 levels, but the feature store has semantic ids of 1"),
    ];
    for (images, want) in cases {
        let mut config = config(folder.path());
        (config.data.samples, config.data.images) = (samples.clone(), images);
        (config.model.network.images, config.model.network.semantic_ids) = (ImageArm::None, 2);
        let error = Trainer::new(config, Job::solo(1)).err().expect(want).to_string();
        assert!(error.contains(want), "{want:?} is not in {error:?}");
    }
}
