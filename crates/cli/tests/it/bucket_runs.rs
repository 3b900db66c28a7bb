//! Runs in a bucket of a real S3 server on this host (moto): trainings that are killed while they
//! compute and while they upload, and go on on a host that has nothing; and what is done with a run
//! and with models that are nowhere else. Skipped where moto is not installed, see `buckets.rs`.

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::buckets::{Mortal, Server, reaches, run};
use crate::faults::{PATIENCE, Running, Start, signal};
use crate::place::{Done, Place, has_keys};
use crate::shop::{PREPARE, TRAIN};

/// A training of some hundred small steps, with a checkpoint every 7, in the bucket.
const KEPT: &str = "train faults.toml --set train.epochs=9 --auto-resume --set runs=s3://shop/runs";

/// A command of a host whose cache is `cache`.
fn on_host(
    place: &Place,
    (start, at): (Start, std::net::SocketAddr),
    cache: &str,
    arguments: &str,
) -> Command {
    let mut command = start.command(place, &format!("{arguments} --json"));
    reaches(&mut command, place, at, true);
    command.env("AMS_CACHE", place.path(cache));
    command
}

/// The steps of the checkpoints of run `tiny` that have a manifest, ascending.
fn whole(server: &Server) -> Vec<u64> {
    let keys = server.keys("runs/tiny/checkpoints/");
    let step = |key: &String| {
        let name = key.strip_prefix("runs/tiny/checkpoints/step-")?;
        name.strip_suffix("/MANIFEST.json")?.parse().ok()
    };
    let mut steps: Vec<u64> = keys.iter().filter_map(step).collect();
    steps.sort_unstable();
    steps
}

/// Kills a process of the job after each of `lives` uploads, in the middle of the next one or
/// before it, and starts it again on another host.
fn survive_kills(starts: &[Start], lives: &[i64]) {
    let place = Place::for_faults();
    let Some(server) = Server::start(&place) else { return };
    place.json("train faults.toml --set train.epochs=9 --set name=undisturbed");
    let want = place.published("runs/undisturbed");
    let mut resumed = 0;
    for (life, &uploads) in lives.iter().enumerate() {
        let start = starts[life % starts.len()];
        let proxy = Mortal::before(server.at, 1 << 30);
        let cache = format!("cache-{life}");
        let newest = whole(&server).last().copied();
        let command = on_host(&place, (start, proxy.at), &cache, KEPT);
        let mut job = Running::started(command, start);
        let begin = Instant::now();
        while (1 << 30) - proxy.left.load(Ordering::SeqCst) < uploads {
            assert!(!job.ended(), "life {life}: {:#?}", job.end(PATIENCE));
            assert!(begin.elapsed() < PATIENCE, "life {life} uploads nothing");
            std::thread::sleep(Duration::from_micros(300));
        }
        let processes = job.processes();
        signal(processes[life % processes.len()], "KILL");
        let done = job.end(PATIENCE);
        assert_ne!(done.code, Some(0), "life {life}: {done:#?}");
        // Nothing that was whole is lost.
        assert!(whole(&server).last().copied() >= newest, "life {life}");
        resumed += usize::from(newest.is_some());
        std::fs::remove_dir_all(place.path(&cache)).unwrap();
    }
    assert!(resumed > 0, "no life went on from a checkpoint");
    let newest = whole(&server).last().copied().unwrap_or(0);
    let done = on_host(&place, (starts[0], server.at), "cache-end", KEPT).output().unwrap();
    let done = Done::from(done);
    assert_eq!(done.code, Some(0), "{done:#?}");
    let report = done.json();
    assert_eq!(report["resumed_from"], json!(newest), "{report}");
    assert_eq!(report["run"], json!("s3://shop/runs/tiny"));
    let publish = "publish s3://shop/runs/tiny --to s3://shop/models";
    let published = run(&place, server.at, true, publish).json();
    assert_eq!(published["hash"], json!(want));
    let left = whole(&server).len();
    assert_eq!(server.keys("runs/tiny/checkpoints/").len(), 10 * left, "only whole checkpoints");
}

#[test]
fn killed_anywhere_a_training_goes_on_on_another_host_with_the_same_bits() {
    survive_kills(&[Start::Alone], &[1, 12, 25, 33, 47, 40]);
}

#[cfg(feature = "mpi")]
#[test]
fn killed_anywhere_a_job_of_two_goes_on_on_other_hosts_with_the_same_bits() {
    survive_kills(&[Start::Mpi(2), Start::Mpi(1)], &[20, 34, 30]);
}

/// Every command with everything in the bucket, each on a host that has nothing.
#[test]
fn a_run_in_a_bucket_is_used_from_any_host() {
    let place = Place::with_data();
    let Some(server) = Server::start(&place) else { return };
    let mut hosts = 0;
    let mut ams = |arguments: &str| -> Value {
        hosts += 1;
        let cache = format!("cache-{hosts}");
        let command = on_host(&place, (Start::Alone, server.at), &cache, arguments).output();
        let done = Done::from(command.unwrap());
        assert_eq!(done.code, Some(0), "ams {arguments}: {done:#?}");
        done.json()
    };
    place.json(TRAIN);
    let here = place.json("publish runs/tiny --to models");
    ams(&format!("{PREPARE} --out s3://shop/data"));
    ams("encode s3://shop/data --images shop --dim 64");
    let train = format!("{TRAIN} --set data.samples=s3://shop/data --set runs=s3://shop/runs");
    let trained = ams(&train);
    assert_eq!(trained["run"], json!("s3://shop/runs/tiny"));
    assert_eq!(ams("eval s3://shop/runs/tiny"), place.json("eval runs/tiny"));
    assert!(server.keys("runs/tiny/").contains(&"runs/tiny/predictions/test.parquet".to_owned()));
    let told = ams("report s3://shop/runs/tiny --out told.md --pages 0 --bootstrap 40");
    assert_eq!(told["runs"], json!(1));
    let told = String::from_utf8(place.read("told.md")).unwrap();
    assert!(!told.contains("cannot be read"), "{told}");
    let publish = "publish s3://shop/runs/tiny --to s3://shop/models";
    assert_eq!(ams(publish)["hash"], here["hash"]);
    // A training that begins with it, of two searches and a refit.
    let warm = "--set train.warm_start={from='RUNS/tiny',parts='all'} --set name=after";
    let after = ams(&format!("{train} {}", warm.replace("RUNS", "s3://shop/runs")));
    let local = place.json(&format!("{TRAIN} {}", warm.replace("RUNS", "runs")));
    assert_eq!(after["loss"], local["loss"]);

    // Versions: a delta of the second from the first, one that is told more, one taken back.
    let calibrated = place.json("publish runs/tiny --to new --negative-rate 0.5");
    let between =
        "delta --from s3://shop/models/tiny/1 --to new/tiny/1 --out s3://shop/models/tiny/2";
    assert_eq!(ams(between)["hash"], calibrated["hash"]);
    let items = String::from_utf8(place.read("shop/items.csv")).unwrap();
    place.write("gone", items.lines().nth(1).unwrap().split(',').next().unwrap());
    let removed = ams("delta s3://shop/models/tiny --remove-items gone");
    assert_eq!((&removed["delta"], &removed["removed_items"]), (&json!(1), &json!(1)));
    assert_eq!(removed["path"], json!("s3://shop/models/tiny/2"));
    assert_eq!(ams("delta s3://shop/models/tiny/2 --remove-items gone")["delta"], Value::Null);
    let verified = ams("delta verify s3://shop/models/tiny");
    assert_eq!(verified["deltas"].as_array().unwrap().len(), 1);
    place.write("gone", items.lines().nth(2).unwrap().split(',').next().unwrap());
    assert_eq!(ams("delta s3://shop/models/tiny --remove-items gone")["delta"], json!(2));
    assert_eq!(ams("delta compact s3://shop/models/tiny")["before"], json!(2));
    let verified = ams("delta verify s3://shop/models/tiny");
    assert_eq!(verified["deltas"][0]["compacted"], json!(2), "{verified}");
    let rolled = ams("rollback s3://shop/models/tiny --by test");
    assert_eq!(rolled, json!({"withdrawn": 2, "serving": 1}));
    assert_eq!(server.keys("models/serving.json").len(), 1);
    let done = run(&place, server.at, true, "rollback s3://shop/models/tiny");
    assert!(done.code == Some(1) && done.err.contains("no valid version below 1"), "{done:#?}");
}

#[test]
fn what_cannot_be_kept_in_a_bucket_is_said() {
    let place = Place::for_faults();
    let Some(server) = Server::start(&place) else { return };
    let refuses = |done: Done, words: &[&str]| {
        assert_eq!((done.code, &done.out[..]), (Some(1), ""), "{done:#?}");
        for word in words {
            assert!(done.err.contains(word), "no {word:?} in {}", done.err);
        }
        assert!(!done.err.contains("panicked"), "{}", done.err);
    };
    let kept = |runs: &str| KEPT.replace("s3://shop/runs", runs);
    let asked = |arguments: &str| run(&place, server.at, true, arguments);
    refuses(asked(&kept("s3://other/runs")), &["s3://other/runs/tiny", "NoSuchBucket"]);
    refuses(asked(&kept("ftp://shop/runs")), &["ftp://shop/runs/tiny: expected s3://"]);
    refuses(run(&place, server.at, false, KEPT), &["s3://shop/runs/tiny", "AWS_ACCESS_KEY_ID"]);
    refuses(asked("eval s3://shop/runs/tiny"), &["s3://shop/runs/tiny: there is nothing"]);
    refuses(
        asked("ablate faults.toml --set runs=s3://shop/runs"),
        &["runs: s3://shop/runs is not on this host", "--out"],
    );
    refuses(asked("status s3://shop/models"), &["s3://shop/models is not on this host"]);
    refuses(asked("rollback s3://shop/models/tiny"), &["s3://shop/models/tiny: there is nothing"]);

    // The network is lost in the middle of the second checkpoint: said with the object's name.
    let mortal = Mortal::before(server.at, 26);
    refuses(run(&place, mortal.at, true, KEPT), &["s3://shop/runs/tiny/"]);
    assert_eq!(whole(&server), [7]);
    // A folder without a manifest is not looked at; a manifest that is cut short is said by its
    // name.
    server.put("/shop/runs/tiny/checkpoints/step-99/lane-00.safetensors", b"half");
    let evaluated = run(&place, server.at, true, "eval s3://shop/runs/tiny");
    has_keys(&evaluated.json(), "gauc slices");
    server.put("/shop/runs/tiny/checkpoints/step-99/MANIFEST.json", b"{");
    let mut command = on_host(&place, (Start::Alone, server.at), "another", KEPT);
    refuses(command.output().unwrap().into(), &["step-99/MANIFEST.json", "step-7 instead, remove"]);
    // Begun anew, all of that is gone.
    let replaced = KEPT.replace("--auto-resume", "--replace");
    assert_eq!(asked(&replaced).json()["resumed_from"], json!(0));
    assert_eq!(server.keys("runs/tiny/checkpoints/step-99").len(), 0);
}
