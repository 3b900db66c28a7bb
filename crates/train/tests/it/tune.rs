//! Settings tried on samples held out, stopped and gone on with.

use std::cell::Cell;
use std::path::Path;

use ams_fabric::ThreadFabric;
use ams_train::Job;
use ams_train::run::{Next, Start};
use ams_train::tune::{self, TuneReport, Variant};
use tempfile::TempDir;

use super::shop::narrow;

/// Four learning rates, with four evaluations per epoch.
fn variants(runs: &Path) -> Vec<Variant> {
    let rates = [0.0001, 0.001, 0.01, 0.1];
    let variant = |(at, rate): (usize, f32)| {
        let mut config = narrow(runs);
        config.name = format!("run.tune-{at}");
        config.train.epochs = 2;
        config.train.learning_rate = rate;
        config.train.validation_parts = 8;
        config.train.early_stop = Some(20);
        config.train.evaluations_per_epoch = 4;
        Variant { settings: vec![("train.learning_rate".into(), rate.to_string())], config }
    };
    rates.into_iter().enumerate().map(variant).collect()
}

/// Without the place.
fn placeless(mut report: TuneReport) -> TuneReport {
    for variant in &mut report.variants {
        variant.run = variant.run.file_name().unwrap().into();
    }
    report
}

/// Tunes on `size` processes; the first one stops after `steps` steps of all variants together, or
/// after fewer if there are no more of them.
fn tuned(runs: &Path, start: Start, size: usize, steps: u64) -> (TuneReport, u64) {
    let variants = variants(runs);
    let mut all = ThreadFabric::run(size, |fabric| {
        let (first, taken) = (ams_fabric::Fabric::rank(&fabric) == 0, Cell::new(0));
        let watch = &mut |_, report: &ams_train::StepReport, _| {
            taken.set(taken.get() + u64::from(report.impressions > 0));
            if first && taken.get() >= steps { Next::Stop } else { Next::GoOn }
        };
        let report = tune::tune(&variants, true, start, Job::of(fabric, 1), watch).unwrap();
        (report, taken.get())
    });
    let first = all.remove(0);
    assert!(all.iter().all(|other| *other == first));
    first
}

#[test]
fn stopped_anywhere_halving_decides_the_same() {
    let whole = TempDir::new().unwrap();
    let (want, all) = tuned(whole.path(), Start::Fresh, 1, u64::MAX);
    let want = placeless(want);
    let rounds: Vec<usize> = want.variants.iter().map(|of| of.rounds).collect();
    assert!(want.finished && want.rounds == 3 && rounds.iter().sum::<usize>() == 7, "{want:?}");
    assert_eq!(rounds[want.best.unwrap()], 3);
    for steps in [1, all / 5, all / 2, all * 4 / 5, all] {
        let folder = TempDir::new().unwrap();
        let (stopped, _) = tuned(folder.path(), Start::Fresh, 2, steps);
        assert!(!stopped.finished && stopped.best.is_none(), "{steps}");
        let report = placeless(tuned(folder.path(), Start::Auto, 1, u64::MAX).0);
        let decided = |report: &TuneReport| {
            let of = report.variants.iter().map(|of| (of.rounds, of.gain));
            (report.best, of.collect::<Vec<_>>())
        };
        assert_eq!(decided(&report), decided(&want), "{steps}");
        let best = want.best.unwrap();
        assert_eq!(report.variants[best], want.variants[best], "{steps}");
    }
}
