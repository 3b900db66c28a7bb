//! Where features live and towers run: another way of moving things, but one training.

use ams_bundle::TowerSharing;
use ams_train::Config;
use ams_train::settings::{FeatureFormat, Placement};
use tempfile::TempDir;

use super::shop::{PLACEMENTS, Trained, config, narrow, train_in_memory};

/// How far the losses of two placements may be apart, relative to the loss: gradients of the towers
/// are added in another order. Measured over two epochs: 1.5e-8.
const TOLERANCE: f64 = 1e-6;

/// A narrow model with these towers, trained like this.
fn of(towers: TowerSharing, placement: Placement) -> Config {
    let mut config = narrow(TempDir::new().unwrap().path());
    (config.model.towers, config.train.placement) = (towers, placement);
    config
}

#[test]
fn placements_learn_the_same() {
    let folder = TempDir::new().unwrap();
    for towers in [TowerSharing::Separate, TowerSharing::Shared] {
        let [ams, others @ ..] = PLACEMENTS.map(|placement| {
            let mut config = config(folder.path());
            (config.model.towers, config.train.placement) = (towers, placement);
            train_in_memory(&config, 1)
        });
        assert_eq!(ams.steps.len(), 32);
        for (other, placement) in others.iter().zip(&PLACEMENTS[1..]) {
            for (a, b) in ams.steps.iter().zip(&other.steps) {
                assert_eq!((a.cursor, a.impressions), (b.cursor, b.impressions));
                let distance = (a.loss - b.loss).abs() / a.loss;
                let step = a.cursor.step;
                assert!(distance <= TOLERANCE, "{towers:?}, {placement:?}, {step}: {distance:e}");
            }
        }
        // The two that run the towers on the workers differ in nothing but what travels.
        assert!(others[0].dense == others[1].dense && others[0].steps == others[1].steps);
    }
}

#[test]
fn every_placement_has_the_same_bits_on_any_number_of_processes() {
    for towers in [TowerSharing::Separate, TowerSharing::Shared] {
        for placement in PLACEMENTS {
            let config = of(towers, placement);
            let bits = |size| {
                let Trained { steps, dense, .. } = train_in_memory(&config, size);
                (steps, dense)
            };
            let alone = bits(1);
            for size in [2, 4] {
                assert!(bits(size) == alone, "{towers:?}, {placement:?}, {size} processes");
            }
        }
    }
}

#[test]
fn placements_differ_in_what_travels() {
    for towers in [TowerSharing::Separate, TowerSharing::Shared] {
        let [ams, server, worker] =
            PLACEMENTS.map(|place| train_in_memory(&of(towers, place), 1).per_step);
        for (counts, features, embeddings) in
            [(ams, false, true), (server, true, false), (worker, false, false)]
        {
            let traffic = counts.traffic;
            assert_eq!(traffic.features > 0.0, features);
            assert_eq!(traffic.embeddings > 0.0, embeddings);
            // Each embedding comes back as a gradient.
            assert_eq!(traffic.embedding_grads, traffic.embeddings);
            assert_eq!(traffic.rows, ams.traffic.rows);
            assert_eq!(traffic.row_grads, ams.traffic.row_grads);
            assert_eq!(traffic.all_reduce, ams.traffic.all_reduce);
            assert_eq!(counts.ids, ams.ids);
            assert_eq!(counts.images.requested, ams.images.requested);
            assert_eq!(counts.images.unique_per_worker, ams.images.unique_per_worker);
        }
        // A feature of 64 halfs for an embedding of 12 floats.
        assert_eq!(server.traffic.features / 128.0, ams.traffic.embeddings / 48.0);
        // Image keys of 8 bytes are asked for where something comes back.
        assert_eq!(server.traffic.ids, ams.traffic.ids);
        assert_eq!(ams.traffic.ids - worker.traffic.ids, 8.0 * ams.traffic.embeddings / 48.0);
        // Each image has one owner, but many workers.
        assert_eq!(ams.tower_forwards, ams.images.unique_per_shard);
        assert_eq!(server.tower_forwards, server.images.unique_per_worker);
        assert_eq!(worker.tower_forwards, worker.images.unique_per_worker);
        assert!(ams.tower_forwards < server.tower_forwards);
    }
}

#[test]
fn features_as_floats_are_the_same_training_in_twice_the_bytes() {
    let config = of(TowerSharing::Separate, Placement::StoreInServer);
    let mut floats = config.clone();
    floats.train.features_as = FeatureFormat::F32;
    let (halfs, floats) = (train_in_memory(&config, 2), train_in_memory(&floats, 2));
    assert!(halfs.steps == floats.steps && halfs.dense == floats.dense);
    assert_eq!(floats.per_step.traffic.features, 2.0 * halfs.per_step.traffic.features);
}
