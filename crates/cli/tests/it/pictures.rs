//! A feature store whose writers die: killed at random moments while they encode, change and
//! compact it. What was committed is never lost, what was encoded is not encoded again, and in the
//! end the files are those of a run that was never disturbed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::interrupt::Running;
use crate::place::{Place, count};
use crate::shop::{PREPARE, TRAIN};

/// Pictures of the shop.
const PICTURES: usize = 300;

/// Pictures per chunk of the journal.
const CHUNK: usize = 8;

fn shop() -> Place {
    let place = Place::new();
    place.json(&format!("synth --out shop --size tiny --items {PICTURES}"));
    place.json(&format!("{PREPARE} --out data"));
    place
}

/// Numbers between 0 and 1, the same in every run of the test.
struct Moments(u64);

impl Iterator for Moments {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some((self.0 >> 40) as f64 / (1u64 << 24) as f64)
    }
}

/// Starts a command and kills it after `patience`; whether it was still running.
fn killed(place: &Place, arguments: &str, patience: Duration) -> bool {
    let mut running = Running(Some(place.command(arguments).spawn().unwrap()));
    std::thread::sleep(patience);
    let child = running.0.as_mut().unwrap();
    let alive = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    alive
}

/// Starts a command and kills it as soon as `moment` has come; whether that came before its end.
fn killed_when(place: &Place, arguments: &str, moment: impl Fn() -> bool) -> bool {
    let mut running = Running(Some(place.command(arguments).spawn().unwrap()));
    let child = running.0.as_mut().unwrap();
    loop {
        let ended = child.try_wait().unwrap().is_some();
        if ended || moment() {
            child.kill().unwrap();
            child.wait().unwrap();
            return !ended;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// The chunks of a journal; one that is being written has another name.
fn chunks(place: &Place, folder: &str) -> Vec<String> {
    let mut names = place.names(folder);
    names.retain(|name| name.starts_with("chunk-") && name.ends_with(".safetensors"));
    names
}

/// The keys in a journal, chunk by chunk.
fn journaled(place: &Place, folder: &str) -> Vec<u64> {
    let mut keys = Vec::new();
    for name in chunks(place, folder) {
        let bytes = place.read(&format!("{folder}/{name}"));
        let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let about: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
        let [from, to] = [0, 1].map(|at| count(&about["keys"]["data_offsets"][at]) as usize);
        let list = &bytes[8 + header + from..8 + header + to];
        keys.extend(list.as_chunks().0.iter().map(|key| u64::from_le_bytes(*key)));
    }
    keys
}

#[test]
fn killed_encodings_lose_at_most_their_last_chunks() {
    let place = shop();
    let encode = |out: &str| {
        format!("encode data --images shop --dim 64 --threads 2 --chunk {CHUNK} --out {out}")
    };
    let undisturbed = place.json(&encode("whole"));
    let mut kills = 0;
    let mut known = 0;
    for moment in Moments(7).take(40) {
        // After so many chunks more, however fast the host is today, and then anywhere in the next
        // one.
        let enough = chunks(&place, "store.partial").len() + (moment * 9.0) as usize;
        let begin = Instant::now();
        let within = Duration::from_secs_f64(0.01 * moment);
        let has_come =
            || begin.elapsed() > within && chunks(&place, "store.partial").len() >= enough;
        if !killed_when(&place, &encode("store"), has_come) {
            break;
        }
        kills += 1;
        let keys = journaled(&place, "store.partial");
        let distinct: BTreeSet<u64> = keys.iter().copied().collect();
        assert_eq!(distinct.len(), keys.len(), "a picture was encoded again");
        assert!(keys.len() >= known || place.path("store").exists(), "{known} were kept");
        known = keys.len();
    }
    assert!(kills >= 2, "{kills} kills");
    let last = place.json(&encode("store"));
    assert_eq!(last["images"], undisturbed["images"]);
    if known > 0 {
        assert!(count(&last["reused"]) >= known as u64, "{last} after {known}");
    }
    assert!(place.files("store") == place.files("whole"), "other files than undisturbed");
    assert_eq!(place.json("images verify store")["images"], undisturbed["images"]);
    let mut names = place.names("");
    names.sort();
    assert_eq!(names, ["data", "shop", "store", "whole"], "nothing stays behind");
}

#[test]
fn killed_changes_leave_the_version_before_or_after() {
    let place = shop();
    let encode = "encode data --images shop --dim 64 --threads 2 --out store";
    place.json(encode);
    let items = String::from_utf8(place.read("shop/items.csv")).unwrap();
    let header: Vec<&str> = items.lines().next().unwrap().split(',').collect();
    let column = header.iter().position(|name| *name == "image").unwrap();
    let pictures: Vec<&str> =
        items.lines().skip(1).map(|line| line.split(',').nth(column).unwrap()).collect();
    let all = count(&place.json("images verify store")["names"]);
    let mut moments = Moments(3);
    let (mut before, mut kills) = (all, 0);
    for round in 0..18 {
        let remove =
            format!("images remove store {} {}", pictures[2 * round], pictures[2 * round + 1]);
        let commands = [(&remove[..], before - 2), ("images compact store", before), (encode, all)];
        let (command, after) = commands[round % 3];
        let patience = Duration::from_secs_f64(0.06 * moments.next().unwrap());
        kills += usize::from(killed(&place, command, patience));
        let found = place.json("images verify store");
        let names = count(&found["names"]);
        assert!(names == before || names == after, "{names} names, neither {before} nor {after}");
        before = names;
    }
    assert!(kills >= 3, "{kills} kills");
    let last = place.json(encode);
    assert_eq!((&last["names"], &last["failed"]), (&json!(all), &json!({})));
    let compact = place.json("images compact store");
    assert_eq!((&compact["names"], &compact["dead"]), (&json!(all), &json!(0)));
}

#[test]
fn bytes_train_like_halfs() {
    let place = Place::with_data();
    let halfs = place.json("images verify data/images");
    place.json("encode data --images shop --dim 64 --out bytes --rows int8");
    let bytes = place.json("images verify bytes");
    assert_eq!((&bytes["rows"], &bytes["images"]), (&json!("int8"), &halfs["images"]));
    let loss = |more: &str| {
        let report = place.json(&format!("{} --replace {more}", TRAIN));
        report["loss"].as_f64().unwrap()
    };
    let (exact, near) = (loss(""), loss("--set data.images=bytes"));
    assert!((exact - near).abs() < 0.01, "{exact} and {near}");
    assert_ne!(exact, near, "it is not the same store");
    let again = loss("--set data.images=bytes --threads 1");
    assert_eq!(near, again, "the same bits on any number of threads");
    let published = place.json("publish runs/tiny --to models");
    assert_eq!(published["version"], json!(1));
    place.json("score --model models/tiny --sample 1");
}

/// A picture of the store that no item has is no part of a version, unless it is asked for.
#[test]
fn pictures_that_no_item_has_leave_the_bundle() {
    let place = Place::with_run();
    let plain = place.json("publish runs/tiny --to models");
    let all = place.json("publish runs/tiny --to models --all-pictures");
    assert_eq!((&plain["hash"], &plain["pictures_left_out"]), (&all["hash"], &Value::Null));
    // One that is another image, and one that is an image that an item has.
    let items = String::from_utf8(place.read("shop/items.csv")).unwrap();
    let name = items.split([',', '\n']).find(|cell| cell.starts_with("images/")).unwrap();
    let mut bytes = place.read(&format!("shop/{name}"));
    place.write("shop/more/same.jpg", &bytes);
    bytes.push(0);
    place.write("shop/more/other.jpg", &bytes);
    place.json("encode --images shop --out data/images --dim 64");
    place.json(&format!("{TRAIN} --set name=more"));
    let trimmed = place.json("publish runs/more --to models");
    let whole = place.json("publish runs/more --to models --all-pictures");
    assert_eq!(
        (&trimmed["pictures_left_out"], &whole["pictures_left_out"]),
        (&json!(2), &Value::Null)
    );
    let length = |model: &str, file: &str| place.read(&format!("models/{model}/{file}")).len();
    for (file, fewer) in [("pictures.safetensors", 2 * 16), ("image_table.safetensors", 8 + 4 * 12)]
    {
        let less = length("more/2", file) - length("more/1", file);
        assert!((fewer..fewer + 200).contains(&less), "{file}: {less} bytes less");
        assert!(length("tiny/1", file).abs_diff(length("more/1", file)) < 16, "{file}");
    }
    let scores = |version: u32| {
        let mut scored = place.json(&format!("score --model models/more/{version} --sample 1"));
        scored["version"].take();
        scored
    };
    assert_eq!(scores(1), scores(2));
    let told = place.run("publish runs/more --to models");
    let words = "left out: 2 pictures that no item of the dataset has\n";
    assert!(told.out.starts_with(words), "{told:?}");
}
