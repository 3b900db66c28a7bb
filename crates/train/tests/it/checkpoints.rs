//! Checkpoints that are damaged, foreign or half written, and trainings that go on from the others.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ams_bundle::folder::{Folder, MANIFEST};
use ams_fabric::ThreadFabric;
use ams_train::run::checkpoint::{self, Checkpoint, FORMAT, Meta};
use ams_train::run::{self, Next, Start};
use ams_train::{Config, Error, Job};
use tempfile::TempDir;

use super::shop::{
    config, copy_folder, copy_of_shop, go_on, narrow, publish_run, refusal, stop_at, train,
    undisturbed,
};

/// The steps of [`stopped`].
const STEPS: [u64; 3] = [8, 12, 14];

/// A training below `runs` that was stopped after step 14 of 16 and has the checkpoints of
/// [`STEPS`].
fn stopped(runs: &Path) -> Config {
    static STOPPED: OnceLock<TempDir> = OnceLock::new();
    let config = |runs: &Path| {
        let mut config = narrow(runs);
        (config.train.checkpoint_every, config.train.keep_checkpoints) = (Some(4), 3);
        config
    };
    let once = STOPPED.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let config = config(folder.path());
        let report = train(&config, Start::Fresh, (2, 1), stop_at(14, 0)).remove(0).unwrap();
        assert_eq!((report.steps, report.finished), (14, false));
        folder
    });
    copy_folder(once.path(), runs);
    config(runs)
}

fn checkpoints(config: &Config) -> PathBuf {
    run::folder(config).join(run::CHECKPOINTS)
}

fn steps(config: &Config) -> Vec<u64> {
    checkpoint::list(&checkpoints(config)).unwrap().into_iter().map(|(step, _)| step).collect()
}

/// Everything in the checkpoints' folder.
fn names(config: &Config) -> Vec<String> {
    let entries = fs::read_dir(checkpoints(config)).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from:?} is not in {}", path.display());
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn damaged_checkpoints_are_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let config = config(folder.path());
    let run = run::folder(&config);
    let go_on = &mut |_: &_, _| Next::GoOn;
    let report = run::train(&config, Start::Fresh, Job::solo(1), go_on).unwrap();
    let checkpoint = run.join(format!("checkpoints/step-{}", report.steps));
    let lane = checkpoint.join("lane-03.safetensors");
    let good = fs::read(&lane).unwrap();
    let flipped: Vec<u8> = good.iter().map(|byte| byte ^ 1).collect();
    for (damage, want) in [
        (Some(&good[..good.len() / 2]), "bytes, expected"),
        (Some(&flipped[..]), "blake3 is"),
        (None, "No such file"),
    ] {
        match damage {
            Some(bytes) => fs::write(&lane, bytes).unwrap(),
            None => fs::remove_file(&lane).unwrap(),
        }
        let error = run::open(&run, Job::solo(1)).err().expect("an error").to_string();
        assert!(error.contains("lane-03.safetensors") && error.contains(want), "{error}");
    }
    fs::write(&lane, &good).unwrap();
    assert!(run::open(&run, Job::solo(1)).is_ok());
}

/// A whole file that belongs elsewhere.
fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
}

/// The checkpoint before the newest one, which is `at`.
fn older(at: &Path) -> PathBuf {
    at.with_file_name("step-12")
}

const DENSE: &str = "dense.safetensors";
const LANE_2: &str = "lane-02.safetensors";
const LANE_3: &str = "lane-03.safetensors";

/// Spoils the newest checkpoint, in this folder.
type Damage = fn(&Path);

/// Every damage, and the file and words that say so.
const DAMAGES: [(Damage, &str, &str); 15] = [
    (|at| edit(&at.join(MANIFEST), |bytes| bytes.truncate(100)), MANIFEST, "EOF while parsing"),
    (|at| edit(&at.join(MANIFEST), Vec::clear), MANIFEST, "EOF while parsing"),
    (|at| fs::remove_file(at.join(MANIFEST)).unwrap(), MANIFEST, "No such file"),
    (|at| replace(&at.join(MANIFEST), "\"step\": 14", "\"step\": 15"), MANIFEST, "blake3 of meta"),
    (|at| replace(&at.join(MANIFEST), "\"seed\": 7", "\"seed\": 8"), MANIFEST, "blake3 of meta"),
    (|at| replace(&at.join(MANIFEST), "point/2", "point/1"), MANIFEST, "expected \"ams-checkpoint"),
    (|at| replace(&at.join(MANIFEST), LANE_3, "lane-3"), LANE_3, "is not listed in MANIFEST.json"),
    (|at| edit(&at.join(LANE_3), |bytes| bytes.truncate(99)), LANE_3, "99 bytes, expected"),
    (|at| edit(&at.join(LANE_3), |bytes| bytes[300] ^= 16), LANE_3, "blake3 is"),
    (|at| fs::remove_file(at.join(LANE_3)).unwrap(), LANE_3, "No such file"),
    (|at| edit(&at.join(DENSE), |bytes| bytes.push(0)), DENSE, "bytes, expected"),
    // Files that are whole, but of another lane or another step.
    (|at| copy(&at.join(LANE_2), &at.join(LANE_3)), LANE_3, "expected"),
    (|at| copy(&older(at).join(LANE_3), &at.join(LANE_3)), LANE_3, "expected"),
    (|at| copy(&older(at).join(DENSE), &at.join(DENSE)), DENSE, "blake3 is"),
    (|at| copy(&older(at).join(MANIFEST), &at.join(MANIFEST)), DENSE, "blake3 is"),
];

#[test]
fn whatever_is_damaged_is_named_with_the_way_out() {
    for (damage, file, want) in DAMAGES {
        let folder = TempDir::new().unwrap();
        let config = stopped(folder.path());
        let [_, older, newest] = STEPS.map(|step| checkpoint::path(&checkpoints(&config), step));
        damage(&newest);
        let error = run::open(&run::folder(&config), Job::solo(1)).err().expect(want);
        assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
        let said = error.to_string();
        let place = newest.join(file).display().to_string();
        assert!(said.starts_with(&place) && said.contains(want), "{place}, {want:?}: {said}");
        let way_out =
            format!("\nto go on from {} instead, remove {}", older.display(), newest.display());
        assert!(said.ends_with(&way_out), "{said}");
        // However one goes on, the same is said, and nothing is touched.
        assert_eq!(refusal(&config, Start::Resume), said);
        assert_eq!(refusal(&config, Start::Auto), said);
        assert_eq!(steps(&config), STEPS);
    }
}

#[test]
fn no_bit_of_a_manifest_may_change() {
    let folder = TempDir::new().unwrap();
    let config = stopped(folder.path());
    let path = checkpoint::path(&checkpoints(&config), 14);
    let lanes = (0..config.train.lanes).map(|lane| format!("lane-{lane:02}.safetensors"));
    let files: Vec<String> = lanes.chain(["dense.safetensors".to_owned()]).collect();
    let open = || -> Result<(), String> {
        let text = |error: ams_bundle::Error| error.to_string();
        Checkpoint::open(&path).map_err(|error| error.to_string())?;
        let folder = Folder::<Meta>::open(&path, FORMAT).map_err(text)?;
        files.iter().try_for_each(|file| folder.read(file).map(drop)).map_err(text)
    };
    assert_eq!(open(), Ok(()));
    let manifest = path.join(MANIFEST);
    let good = fs::read(&manifest).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&manifest, &bad).unwrap();
        let around = String::from_utf8_lossy(&good[at.saturating_sub(20)..good.len().min(at + 20)]);
        assert!(open().is_err(), "bit {} of byte {at}, in {around:?}", at % 8);
    }
}

/// A checkpoint of a program that did not know a setting yet: its seal holds, and the setting is
/// the usual.
#[test]
fn a_checkpoint_from_before_a_setting_is_read() {
    let folder = TempDir::new().unwrap();
    let config = stopped(folder.path());
    let manifest = checkpoint::path(&checkpoints(&config), 14).join(MANIFEST);
    let mut json: serde_json::Value =
        serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    let meta = json["meta"].as_object_mut().unwrap();
    assert!(meta["config"]["train"].as_object_mut().unwrap().remove("l2_ids").is_some());
    meta.remove("blake3");
    let seal = blake3::hash(serde_json::to_string(meta).unwrap().as_bytes());
    meta.insert("blake3".to_owned(), seal.to_hex().to_string().into());
    fs::write(&manifest, json.to_string()).unwrap();
    let trainer = run::open(&run::folder(&config), Job::solo(1)).unwrap();
    assert_eq!(trainer.config().train.l2_ids, 0.0);
    assert_eq!(trainer.cursor().step, 14);
}

#[test]
fn without_the_damaged_checkpoint_a_training_goes_on_to_the_same_bits() {
    let folder = TempDir::new().unwrap();
    let config = stopped(folder.path());
    let [.., older, newest] = STEPS.map(|step| checkpoint::path(&checkpoints(&config), step));
    for (damaged, next) in [(newest, 12), (older, 8)] {
        edit(&damaged.join("lane-05.safetensors"), |bytes| bytes[200] ^= 1);
        let error = refusal(&config, Start::Resume);
        let older = checkpoint::path(&checkpoints(&config), next);
        assert!(error.contains(&format!("to go on from {} instead", older.display())), "{error}");
        fs::remove_dir_all(&damaged).unwrap();
    }
    // There is no earlier one to advise.
    let last = checkpoint::path(&checkpoints(&config), 8);
    let whole = fs::read(last.join("lane-05.safetensors")).unwrap();
    edit(&last.join("lane-05.safetensors"), |bytes| bytes[200] ^= 1);
    let error = refusal(&config, Start::Resume);
    assert!(error.contains("lane-05.safetensors: blake3 is") && !error.contains('\n'), "{error}");
    fs::write(last.join("lane-05.safetensors"), whole).unwrap();

    let report = train(&config, Start::Resume, (1, 1), go_on).remove(0).unwrap();
    assert_eq!((report.resumed_from, report.steps, report.finished), (8, 16, true));
    assert_eq!(publish_run(&report.run, 1).1, undisturbed());
}

#[test]
fn a_file_damaged_on_one_rank_stops_all_ranks() {
    let folder = TempDir::new().unwrap();
    let config = stopped(folder.path());
    let newest = checkpoint::path(&checkpoints(&config), 14);
    // Of eight lanes on four ranks, lane 5 is on rank 2.
    edit(&newest.join("lane-05.safetensors"), |bytes| bytes[200] ^= 1);
    let resumed = train(&config, Start::Resume, (4, 1), go_on);
    let opened = ThreadFabric::run(4, |fabric| {
        run::open(&run::folder(&config), Job::of(fabric, 1)).map(drop)
    });
    for ends in [resumed.into_iter().map(|end| end.map(drop)).collect(), opened] {
        let errors: Vec<Error> = ends.into_iter().map(Result::unwrap_err).collect();
        let own = errors[2].to_string();
        assert!(own.contains("lane-05.safetensors: blake3 is"), "{own}");
        assert!(own.contains("step-12 instead, remove"), "{own}");
        for (rank, error) in errors.into_iter().enumerate() {
            // None lost the others: none of them would wait for ever, whatever the fabric.
            match error {
                Error::Elsewhere { rank: 2, what } => assert!(rank != 2 && what == own, "{what}"),
                error => assert!(rank == 2 && matches!(error, Error::Damaged { .. }), "{error:?}"),
            }
        }
    }
}

#[test]
fn checkpoints_of_other_data_or_features_are_refused_in_words() {
    let gender = "{\n      \"name\": \"gender\",\n      \"side\": \"user\",\n      \"multi\": false,\n      \"kind\": \"categorical\"\n    },";
    let (dataset, images) = ("dataset.json", "images/images.json");
    let was = "was trained on";
    let features = "image features of builtin-64-seed1 (64 numbers)";
    let other_features = format!("{was} other {features} than there are now");
    let cases = [
        (
            dataset,
            "\"name\": \"",
            "\"name\": \"other ",
            format!("{was} another dataset than the one that is there now"),
        ),
        (dataset, gender, "", format!("{was} other fields than the dataset has now")),
        (
            images,
            "seed1",
            "seed2",
            format!("{was} {features}, but now there are builtin-64-seed2 (64 numbers)"),
        ),
        (images, "\"encoder_hash\": \"", "\"encoder_hash\": \"0", other_features.clone()),
        // Other pictures: a file of the store has another hash.
        (images, "\"blake3\": \"", "\"blake3\": \"0", other_features),
    ];
    for (file, from, to, want) in cases {
        let folder = TempDir::new().unwrap();
        let mut config = narrow(folder.path());
        config.data.samples = copy_of_shop(&folder.path().join("data"));
        train(&config, Start::Fresh, (1, 1), stop_at(1, 0)).remove(0).unwrap();
        replace(&config.data.samples.join(file), from, to);
        let place = checkpoint::path(&checkpoints(&config), 1);
        let want = format!("{}: {want}", place.display());
        let ends = train(&config, Start::Auto, (2, 1), go_on);
        let errors = ends.into_iter().map(|end| end.unwrap_err().to_string()).collect::<Vec<_>>();
        assert_eq!(errors, [want.clone(), format!("rank 0: {want}")]);
        let error = run::open(&run::folder(&config), Job::solo(1)).err().unwrap();
        assert_eq!(error.to_string(), want);
    }
}

#[test]
fn a_checkpoint_of_another_training_is_refused() {
    let folder = TempDir::new().unwrap();
    let config = stopped(folder.path());
    let other = Config { name: "other".to_owned(), seed: 8, ..config.clone() };
    train(&other, Start::Fresh, (1, 1), stop_at(15, 0)).remove(0).unwrap();
    let foreign = checkpoint::path(&checkpoints(&other), 15);
    copy_folder(&foreign, &checkpoint::path(&checkpoints(&config), 15));
    for end in train(&config, Start::Resume, (2, 1), go_on) {
        let error = end.unwrap_err().to_string();
        let want =
            "config.toml: the checkpoint was trained with another configuration than this one";
        assert!(error.ends_with(want), "{error}");
    }
}

#[test]
fn exactly_the_newest_checkpoints_stay() {
    for keep in [1, 3] {
        let folder = TempDir::new().unwrap();
        let mut config = narrow(folder.path());
        (config.train.checkpoint_every, config.train.keep_checkpoints) = (Some(1), keep);
        let newest =
            |step: u64| (1 + step.saturating_sub(keep as u64)..=step).collect::<Vec<u64>>();
        let watch = |_, step| {
            assert_eq!(steps(&config), newest(step - 1));
            Next::GoOn
        };
        assert!(train(&config, Start::Fresh, (1, 1), watch).remove(0).unwrap().finished);
        assert_eq!(steps(&config), newest(16));
        assert_eq!(names(&config).len(), keep);
    }
}

#[test]
fn what_killed_processes_left_is_not_read_and_goes_away() {
    let folder = TempDir::new().unwrap();
    let config = stopped(folder.path());
    let newest = checkpoint::path(&checkpoints(&config), 14);
    // Killed before the manifest, just before the rename, and while an old one was removed.
    let half = checkpoints(&config).join(".step-16.building");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("lane-00.safetensors"), "half").unwrap();
    copy_folder(&newest, &checkpoints(&config).join(".step-15.building"));
    copy_folder(&newest, &checkpoints(&config).join(".step-4.retired"));
    assert_eq!(steps(&config), STEPS);
    let ends = train(&config, Start::Auto, (4, 1), go_on);
    let report = ends.into_iter().next().unwrap().unwrap();
    assert_eq!((report.resumed_from, report.finished), (14, true));
    assert_eq!(names(&config), ["step-12", "step-14", "step-16"]);
    assert_eq!(publish_run(&report.run, 1).1, undisturbed());
}

#[test]
fn a_finished_training_has_nothing_left_to_do() {
    let folder = TempDir::new().unwrap();
    let config = stopped(folder.path());
    for (size, impressions) in [(2, true), (1, false), (4, false)] {
        for end in train(&config, Start::Auto, (size, 1), go_on) {
            let report = end.unwrap();
            assert_eq!((report.steps, report.finished), (16, true));
            assert_eq!(report.impressions > 0, impressions);
        }
        assert_eq!(steps(&config), [12, 14, 16]);
    }
}
