//! A published model beside the trainer it came from.

use std::path::Path;

use ams_bundle::{Model, Scratch};
use ams_data::Groups;
use ams_data::dataset::{Dataset, SplitName};
use ams_data::samples::SampleFile;
use ams_model::{Aggregator, ImageArm};
use ams_train::Job;
use ams_train::config::ModelConfig;
use ams_train::run;
use tempfile::TempDir;

use crate::shop::{config, publish, shop};

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
        let (images, concatenate_length) = (arm, LENGTH);
        config.model = ModelConfig { images, aggregator, concatenate_length, ..config.model };
        let (bundle, _) = publish(&config, 2);
        let run = run::folder(&config);
        let mut trainer = run::open(&run, Job::solo(2)).unwrap();
        let predicted = trainer.evaluate(SplitName::Test).unwrap();
        let (groups, scored) = score_test(&bundle);
        let lengths = groups.behaviors.as_slice().windows(2).map(|at| (at[1] - at[0]) as usize);
        let (least, most) = (lengths.clone().min().unwrap(), lengths.max().unwrap());
        assert!(least < LENGTH && LENGTH < most, "histories of {least} to {most}");
        // The trainer's rows come part by part, in file order; so do these.
        assert_eq!(predicted.labels, groups.labels);
        assert_eq!(predicted.times, groups.times);
        // Towers ran over other batches: GEMM may round the last bit otherwise.
        for (row, (trainer, scorer)) in predicted.logits.iter().zip(&scored).enumerate() {
            let difference = (trainer - scorer).abs();
            assert!(difference <= 1e-6 * trainer.abs().max(1.0), "row {row}: {trainer} {scorer}");
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
