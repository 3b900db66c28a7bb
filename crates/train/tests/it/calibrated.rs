//! Publishing with a calibration that is fitted to what a run held out, or to its test.

use std::path::Path;

use ams_bundle::{Calibration, Model, Sampling};
use ams_data::synth::ShopConfig;
use ams_model::calibration::Curve;
use ams_train::run::{self, Next, Start};
use ams_train::{
    CalibrationReport, CalibrationSettings, CurveKind, FittedTo, Job, PublishSettings, publish,
};
use tempfile::TempDir;

use super::shop::{make_shop_of, narrow, publish_run};

/// What is published of `run` as `<place>/models/<version>` and told of it.
fn published(
    run: &Path,
    version: u32,
    threads: usize,
    settings: &CalibrationSettings,
) -> Result<(Model, Option<CalibrationReport>), String> {
    let mut trainer = run::open(run, Job::solo(threads)).unwrap();
    let place = run.join("models").join(version.to_string());
    let settings = PublishSettings { calibration: settings.clone(), ..PublishSettings::default() };
    match publish(&mut trainer, &place, &[], &settings) {
        Ok(published) => Ok((Model::open(&place).unwrap(), published.calibration)),
        Err(error) => {
            assert!(!place.exists());
            Err(error.to_string())
        }
    }
}

/// The curve is that of the samples held out, by the model as it is published, on any number of
/// threads.
#[test]
fn a_curve_is_fitted_to_what_was_held_out() {
    let folder = TempDir::new().unwrap();
    // Eight days, so that there is something to learn.
    make_shop_of(&ShopConfig { days: 8, ..ShopConfig::tiny() }, folder.path());
    let mut config = narrow(folder.path());
    config.data.samples = folder.path().join("data");
    (config.train.epochs, config.train.batch, config.train.validation_tail) = (6, 64, 0.3);
    run::train(&config, Start::Fresh, Job::solo(2), &mut |_, _| Next::GoOn).unwrap();
    let run = folder.path().join("run");
    let mut trainer = run::open(&run, Job::solo(2)).unwrap();
    let predicted = trainer.predict_held_out(&mut || ()).unwrap();
    let sampling = Sampling { negative_rate: 0.25, click_weight: 1.0 };
    type Fit = fn(&[f32], &[u8]) -> Result<Curve, String>;
    let kinds: [(CurveKind, Fit); 2] =
        [(CurveKind::Platt, Curve::platt), (CurveKind::Isotonic, Curve::isotonic)];
    for (at, (curve, fit)) in (0..).step_by(2).zip(kinds) {
        let settings = CalibrationSettings { curve, sampling, ..CalibrationSettings::default() };
        let (model, report) = published(&run, at, 1, &settings).unwrap();
        let again = published(&run, at + 1, 2, &settings).unwrap();
        assert_eq!((model.hash(), &report), (again.0.hash(), &again.1));
        let curve = Some(fit(&predicted.logits, &predicted.labels).unwrap());
        assert_eq!(model.calibration(), Some(&Calibration { curve, sampling }));
        let report = report.unwrap();
        assert_eq!(report.all.before.impressions, predicted.len() as u64);
        assert_eq!((report.fitted_to, report.shown.len()), (FittedTo::HeldOut, 0));
        assert!(report.all.after.rates.logloss < report.all.before.rates.logloss, "{report:?}");
    }
    // Without a calibration it is the bundle as ever.
    let mut trainer = run::open(&run, Job::solo(1)).unwrap();
    let place = run.join("models/20");
    let none = publish(&mut trainer, &place, &[], &PublishSettings::default()).unwrap();
    assert_eq!((none.manifest.hash(), none.calibration), (publish_run(&run, 2).1, None));
}

/// A run that has learned from all samples has none to fit a curve to; a shift needs none.
#[test]
fn a_run_that_held_nothing_out_is_explained() {
    let folder = TempDir::new().unwrap();
    let mut config = narrow(folder.path());
    config.train.max_steps = Some(2);
    run::train(&config, Start::Fresh, Job::solo(2), &mut |_, _| Next::GoOn).unwrap();
    let run = folder.path().join("run");
    let settings = |curve, negative_rate| CalibrationSettings {
        curve,
        sampling: Sampling { negative_rate, ..Sampling::default() },
        ..CalibrationSettings::default()
    };
    for (settings, expected) in [
        (settings(CurveKind::Platt, 1.0), "calibration: the run has learned from all training"),
        (settings(CurveKind::None, 2.0), "calibration: negative_rate = 2, expected above 0 and"),
    ] {
        let error = published(&run, 1, 1, &settings).expect_err(expected);
        assert!(error.starts_with(expected), "{error}");
    }
    let (model, report) = published(&run, 1, 1, &settings(CurveKind::None, 0.5)).unwrap();
    let expected = Sampling { negative_rate: 0.5, click_weight: 1.0 };
    assert_eq!(model.calibration(), Some(&Calibration { curve: None, sampling: expected }));
    assert_eq!(report, None);
}
