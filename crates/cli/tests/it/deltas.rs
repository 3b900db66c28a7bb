//! What changes after a model was published: new pictures and items reach a server while it is
//! asked.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::place::Place;
use crate::serve::{Serving, published};
use crate::shop::TRAIN;

/// The items of the shop and their pictures.
fn items(place: &Place) -> Vec<(String, String)> {
    let items = String::from_utf8(place.read("shop/items.csv")).unwrap();
    let mut lines = items.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let [item, image] =
        ["item", "image"].map(|name| names.iter().position(|known| *known == name).unwrap());
    let cells = lines.map(|line| line.split(',').collect::<Vec<_>>());
    cells.map(|row| (row[item].to_owned(), row[image].to_owned())).collect()
}

/// The first item of the request, and its picture.
fn shown(page: &Value, place: &Place) -> (String, String) {
    let shown = &page["candidates"]["item"][0];
    items(place).into_iter().find(|(item, _)| shown == item).unwrap()
}

/// The rate a server gives the request's first candidate, if it is asked of that alone.
fn rate(serving: &Serving, page: &Value) -> (Value, Value) {
    let mut page = page.clone();
    page["candidates"] = json!({"item": [page["candidates"]["item"][0]]});
    let (status, scored) = serving.score(&page);
    assert_eq!(status, 200, "{scored}");
    (scored["ctr"][0].clone(), scored["missing"].clone())
}

#[test]
fn new_pictures_and_items_are_live_at_once() {
    let (place, page) = published();
    let (item, picture) = shown(&page, &place);
    let serving = Serving::new(
        &place,
        "--poll 0.05 --deadline-ms 60000 --pictures --encoder builtin --dim 64",
    );
    let deltas = |number: u64| {
        serving.until("followed", || serving.state()["deltas"]["1"] == number);
    };
    let (known, missing) = rate(&serving, &page);
    assert_eq!(missing["images"], json!([]));

    // Gone, by the program; a server that polls takes it up.
    place.write("gone", format!("{picture}\n"));
    let written = place.json("delta models/tiny --remove-pictures gone");
    assert_eq!((&written["delta"], &written["removed_pictures"]), (&json!(1), &json!(1)));
    deltas(1);
    let (without, _) = rate(&serving, &page);
    assert_ne!(without, known);
    // The program scores what is on disk, with its deltas.
    place.write("page.json", page.to_string());
    let scored = place.json("score --model models/tiny --request page.json");
    assert_eq!(serving.score(&page), (200, scored));

    // Back again, as bytes: the server encodes and embeds it, and is what it was.
    let bytes = place.read(&format!("shop/{picture}"));
    let put = |name: &str, bytes: &[u8]| {
        serving.put(&format!("/admin/models/tiny/pictures/{name}"), bytes)
    };
    let (status, state) = put(&picture, &bytes);
    assert_eq!((status, &state[0]["deltas"]["1"]), (200, &json!(2)), "{state}");
    assert_eq!(rate(&serving, &page).0, known);
    let (status, problem) = put("broken.png", &bytes[..40]);
    assert_eq!(status, 400, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("broken.png"), "{problem}");

    // A new item that looks like a known one, and has its fields.
    let change = |body: Value| serving.change("/admin/models/tiny/changes", &body);
    let new = json!({"items": [{"item": "brand new", "picture": picture, "features": {"category": "c1"}}]});
    assert_eq!(change(new).0, 200);
    let mut asked = page.clone();
    asked["candidates"] = json!({"item": ["brand new"]});
    let (_, scored) = serving.score(&asked);
    assert_eq!(
        (&scored["missing"]["items"], &scored["missing"]["images"]),
        (&json!([]), &json!([]))
    );

    // By feature, whatever an encoder elsewhere made of it.
    let feature = vec![0.25; 64];
    let by_feature = json!({"pictures": [{"name": "new.png", "feature": feature}],
        "items": [{"item": "brand new", "picture": "new.png"}], "remove_items": [item]});
    assert_eq!(change(by_feature).0, 200);
    let (_, again) = serving.score(&asked);
    assert_ne!(again["ctr"], scored["ctr"]);
    assert_eq!(rate(&serving, &page).1["items"], json!([item]));
    for (body, words) in [
        (json!({"pictures": [{"name": "x", "feature": [1.0]}]}), "has 1 numbers, expected 64"),
        (json!({"items": [{"item": "x", "features": {"color": 1}}]}), "has the field color"),
        (json!({"item": []}), "unknown field `item`"),
    ] {
        let (status, problem) = change(body);
        assert_eq!(status, 400, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    }
    // Started again, it is what it was.
    let expected = serving.score(&asked);
    assert_eq!(serving.stop(), Some(0));
    let serving = Serving::new(&place, "--deadline-ms 60000");
    assert_eq!(serving.score(&asked), expected);
    assert_eq!(serving.change("/admin/models/tiny/changes", &json!({})).0, 200);
    assert_eq!(serving.put("/admin/models/tiny/pictures/x.png", &bytes).0, 409);
}

#[test]
fn a_store_and_a_dataset_become_a_delta() {
    let (place, _) = published();
    // Everything is known.
    let nothing = place.json("delta models/tiny --images data/images --items data");
    assert_eq!((&nothing["delta"], &nothing["pictures"]), (&Value::Null, &json!(0)));
    assert!(!place.path("models/tiny/1/deltas").exists());
    // Two pictures change their content.
    let items = items(&place);
    let [one, other] = [0, 1].map(|at| format!("shop/{}", items[at].1));
    let (first, second) = (place.read(&one), place.read(&other));
    place.write(&one, second);
    place.write(&other, first);
    place.json("encode data --images shop --dim 64 --out again");
    let written = place.json("delta models/tiny --images again");
    assert_eq!((&written["delta"], &written["pictures"]), (&json!(1), &json!(2)));
    // Another encoder's features are nothing to these towers.
    place.json("encode data --images shop --dim 32 --out narrow");
    place.refuses("delta models/tiny --images narrow", &["features by builtin-32", "builtin-64"]);
    place.refuses("delta models/tiny --remove-items absent", &["absent: No such file"]);
}

#[test]
fn what_is_known_is_not_written_again() {
    let (place, page) = published();
    let (item, picture) = shown(&page, &place);
    place.write("gone", format!("{picture}\n"));
    place.write("item", format!("{item}\n"));
    let ask = "delta models/tiny --remove-pictures gone --remove-items item";
    let first = place.json(ask);
    assert_eq!((&first["delta"], &first["removed_items"]), (&json!(1), &json!(1)));
    let again = place.json(ask);
    assert_eq!((&again["delta"], &again["removed_pictures"]), (&Value::Null, &json!(0)));
    // The same picture, put again and again, is one delta.
    let serving = Serving::new(&place, "--deadline-ms 60000 --pictures --encoder builtin --dim 64");
    let bytes = place.read(&format!("shop/{picture}"));
    for _ in 0..20 {
        let (status, state) =
            serving.put(&format!("/admin/models/tiny/pictures/{picture}"), &bytes);
        assert_eq!((status, &state[0]["deltas"]["1"]), (200, &json!(2)), "{state}");
    }
}

#[test]
fn deltas_are_verified_compacted_and_carried() {
    let (place, page) = published();
    let (item, picture) = shown(&page, &place);
    place.write("page.json", page.to_string());
    place.write("gone", format!("{picture}\n"));
    place.write("item", format!("{item}\n"));
    place.json("encode data --images shop --dim 64 --out store");
    let nothing = place.json("delta verify models/tiny");
    assert_eq!((&nothing["version"], &nothing["deltas"]), (&json!(1), &json!([])));
    place.json("delta models/tiny --remove-pictures gone");
    place.json("delta models/tiny --images store");
    // One server has all of them, and one will come from behind.
    let serving = Serving::new(&place, "--poll 0.05 --deadline-ms 60000");
    place.json("delta models/tiny --remove-items item");
    serving.until("followed", || serving.state()["deltas"]["1"] == 3);
    let verified = place.json("delta verify models/tiny");
    let numbers: Vec<&Value> =
        verified["deltas"].as_array().unwrap().iter().map(|delta| &delta["number"]).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let scored = place.json("score --model models/tiny --request page.json");
    assert_eq!(serving.score(&page), (200, scored.clone()));

    let damaged = "models/tiny/1/deltas/0002/ids.safetensors";
    let whole = place.read(damaged);
    place.write(damaged, &whole[1..]);
    for ask in ["verify models/tiny", "compact models/tiny", "models/tiny --remove-items gone"] {
        let words = ["deltas/0002: delta 2 is damaged: ", "ids.safetensors: ", "from a copy"];
        place.refuses(&format!("delta {ask}"), &words);
    }
    place.write(damaged, whole);

    let compacted = place.json("delta compact models/tiny");
    assert_eq!((&compacted["before"], &compacted["deltas"]), (&json!(3), &json!(3)));
    assert_eq!(place.names("models/tiny/1/deltas"), ["0001-0003"]);
    assert_eq!(place.json("score --model models/tiny --request page.json"), scored);
    assert_eq!(place.json("delta compact models/tiny")["before"], 1);
    let verified = place.json("delta verify models/tiny");
    assert_eq!(
        (&verified["deltas"][0]["number"], &verified["deltas"][0]["compacted"]),
        (&json!(3), &json!(3))
    );
    // Who served before serves on, and follows what comes.
    assert_eq!(serving.score(&page), (200, scored));
    place.json("delta models/tiny --remove-pictures gone");
    serving.until("followed", || serving.state()["deltas"]["1"] == 4);
    assert_eq!(serving.state()["refused_deltas"], json!({}));
    assert_eq!(serving.stop(), Some(0));

    // The next version knows all pictures, and gets what was told of them and of items.
    place.json("publish runs/tiny --to models");
    let carried = place.json("delta models/tiny --carry models/tiny/1");
    assert_eq!(carried["path"].as_str().unwrap().rsplit('/').next(), Some("2"));
    assert_eq!(carried["carried"], json!({"pictures": 1, "items": 1, "left": 0}));
    let score = "score --model models/tiny --request page.json";
    assert_eq!(place.json(score)["missing"]["items"], json!([item]));
    assert_eq!(place.json("delta models/tiny --carry models/tiny/1")["delta"], Value::Null);
    place.refuses("delta models/tiny --carry models/tiny/2", &["--carry models/tiny/2: is the"]);
}

#[test]
fn neighbors_are_those_of_the_encoder_and_of_each_tower() {
    let (place, page) = published();
    let (_, picture) = shown(&page, &place);
    let ask = format!("images neighbors {picture} --store data/images --model models/tiny");
    let found = place.json(&format!("{ask} --count 3 --images shop --sheet near.png"));
    let vectors: Vec<&Value> =
        found["by"].as_array().unwrap().iter().map(|by| &by["vector"]).collect();
    assert_eq!(vectors, ["encoder", "ad", "behavior"]);
    for by in found["by"].as_array().unwrap() {
        let near = by["neighbors"].as_array().unwrap();
        let cosines = near.iter().map(|it| it["cosine"].as_f64().unwrap());
        assert!(near.len() == 3 && cosines.is_sorted_by(|a, b| a >= b), "{by}");
        assert!(near.iter().all(|it| it["picture"] != picture.as_str()), "{by}");
    }
    assert!(place.read("near.png").starts_with(b"\x89PNG\r\n"));
    // A tower knows nothing of a picture that is gone.
    place.write(
        "gone",
        format!("{}\n", found["by"][1]["neighbors"][0]["picture"].as_str().unwrap()),
    );
    place.json("delta models/tiny --remove-pictures gone");
    place
        .refuses(&ask.replace(&picture, "absent.png"), &["no feature of a picture \"absent.png\""]);
}

#[test]
fn a_damaged_delta_is_reported_and_what_served_serves_on() {
    let (place, page) = published();
    place.write("gone", format!("{}\n", shown(&page, &place).1));
    let serving = Serving::new(&place, "--poll 0.05 --deadline-ms 60000");
    let before = serving.score(&page);
    // As a disk that lies: made elsewhere, damaged, and then there at once.
    place.copy("models/tiny/1", "elsewhere/tiny/1");
    place.json("delta elsewhere/tiny --remove-pictures gone");
    let ids = "elsewhere/tiny/1/deltas/0001/pictures.safetensors";
    let whole = place.read(ids);
    let mut bytes = whole.clone();
    *bytes.last_mut().unwrap() ^= 1;
    place.write(ids, &bytes);
    place.copy("elsewhere/tiny/1/deltas", "models/tiny/1/.deltas");
    std::fs::rename(place.path("models/tiny/1/.deltas"), place.path("models/tiny/1/deltas"))
        .unwrap();
    serving.until("refused", || serving.state()["refused_deltas"]["1"].is_string());
    let why = serving.state()["refused_deltas"]["1"].clone();
    assert!(why.as_str().unwrap().contains("0001/pictures.safetensors: blake3 is"), "{why}");
    assert_eq!(serving.score(&page), before);
    assert!(serving.metrics().contains(r#"ams_deltas_refused_total{model="tiny"} 1"#));
    place.write("models/tiny/1/deltas/0001/pictures.safetensors", whole);
    serving.until("followed", || serving.state()["deltas"]["1"] == 1);
    assert_eq!(serving.state()["refused_deltas"], json!({}));
    assert_ne!(serving.score(&page), before);
}

/// Writers of deltas and publishers are killed again and again while the server is asked: no
/// request fails, each is of one state of the model, and what is taken up is whole.
#[test]
fn killed_writers_cost_a_server_nothing() {
    let (place, page) = published();
    let (_, picture) = shown(&page, &place);
    place.write("gone", format!("{picture}\n"));
    place.json("encode data --images shop --dim 64 --out store");
    let serving = Serving::new(&place, "--poll 0.02 --deadline-ms 60000");
    let with = rate(&serving, &page).0;
    place.copy("models/tiny/1", "elsewhere/tiny/1");
    place.json("delta elsewhere/tiny --remove-pictures gone");
    let without = {
        let mut alone = page.clone();
        alone["candidates"] = json!({"item": [page["candidates"]["item"][0]]});
        place.write("alone.json", alone.to_string());
        place.json("score --model elsewhere/tiny --request alone.json")["ctr"][0].clone()
    };
    assert_ne!(with, without);
    let (done, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut killed, mut written) = (0, 0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let (rate, _) = rate(&serving, &page);
                    assert!(
                        rate == with || rate == without,
                        "{rate} is neither {with} nor {without}"
                    );
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for life in 0..40_u64 {
            // In turn: it goes, it comes back; and a new version of the model appears.
            let command = match life % 3 {
                0 => "delta models/tiny --remove-pictures gone",
                1 => "delta models/tiny --images store",
                _ => "publish runs/tiny --to models",
            };
            let mut child =
                place.command(command).stdout(std::process::Stdio::null()).spawn().unwrap();
            if life % 4 < 3 {
                std::thread::sleep(Duration::from_millis(5 + life * 7 % 120));
                let ended = child.try_wait().unwrap().is_some();
                killed += u64::from(!ended);
            } else {
                written += u64::from(child.wait().unwrap().success());
            }
            let _ = child.kill();
            child.wait().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(
        killed > 5 && written > 5 && asked.into_inner() > 50,
        "{killed} killed, {written} written"
    );
    let state = serving.state();
    assert_eq!((&state["refused"], &state["refused_deltas"]), (&json!({}), &json!({})), "{state}");
    // What is on disk now is what serves.
    serving.until("up to date", || {
        let newest = place.json("score --model models/tiny --request alone.json");
        let (_, scored) =
            serving.score(&serde_json::from_slice(&place.read("alone.json")).unwrap());
        scored == newest
    });
}

/// Version 1 of the model, and `new/tiny/2` after another training with its weights.
fn trained_again() -> (Place, Value) {
    let (place, page) = published();
    let warm = "--set train.warm_start.from=runs/tiny --set train.warm_start.parts=all";
    place.json(&format!("{TRAIN} --set name=again {warm}"));
    place.json("publish runs/again --to new --name tiny");
    std::fs::rename(place.path("new/tiny/1"), place.path("new/tiny/2")).unwrap();
    place.write("page.json", page.to_string());
    (place, page)
}

const TOLD: &str = "delta --from models/tiny/1 --to new/tiny/2 --out models/tiny/2";

#[test]
fn a_trained_version_arrives_as_a_delta() {
    let (place, page) = trained_again();
    let score = |model: &str| place.json(&format!("score --model {model} --request page.json"));
    let whole = score("new/tiny/2");
    let serving = Serving::new(&place, "--poll 0.05 --deadline-ms 60000");
    let before = serving.score(&page).1;
    assert_ne!(before["ctr"], whole["ctr"]);

    // Who asks meanwhile sees the one version or the other.
    let done = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut last = before.clone();
            while !done.load(Ordering::Relaxed) {
                let (status, now) = serving.score(&page);
                assert!(status == 200 && (now == before || now == whole), "{now}");
                assert!(last == before || now == whole, "back to version 1");
                last = now;
            }
        });
        let written = place.json(TOLD);
        serving.until("version 2", || serving.state()["live"] == 2);
        done.store(true, Ordering::Relaxed);
        asking.join().unwrap();
        written
    });
    assert_eq!(serving.score(&page), (200, whole.clone()));
    assert_eq!(score("models/tiny"), whole);
    assert_eq!((&written["rounded"], &written["hash"]), (&Value::Null, &written["target"]));
    let bytes = |name: &str| written[name].as_u64().unwrap();
    let on_disk: usize = place.files("models/tiny/2").values().flatten().map(Vec::len).sum();
    assert_eq!(bytes("bytes"), on_disk as u64);
    assert!(bytes("bytes") < bytes("whole_bytes"), "{written}");
    let verified = place.json("delta verify models/tiny/2");
    assert_eq!((&verified["bases"], &verified["hash"]), (&json!([1]), &written["hash"]));

    // An item's delta follows it; the version before serves without either, and then again.
    place.write("gone", format!("{}\n", shown(&page, &place).0));
    assert_eq!(place.json("delta models/tiny --remove-items gone")["delta"], 1);
    serving.until("followed", || serving.state()["deltas"]["2"] == 1);
    let changed = serving.score(&page);
    assert_eq!(changed, (200, score("models/tiny/2")));
    assert_ne!(changed.1["missing"], whole["missing"]);
    assert_eq!(place.json("rollback models/tiny"), json!({"withdrawn": 2, "serving": 1}));
    serving.until("rolled back", || serving.state()["live"] == 1);
    assert_eq!(serving.score(&page), (200, before));
    assert_eq!(serving.tell("/admin/models/tiny/versions/2/activate").0, 200);
    assert_eq!(serving.score(&page), changed);
    assert_eq!(serving.tell("/admin/models/tiny/unload").0, 200);
    assert_ne!(serving.score(&page).0, 200);
    assert_eq!(serving.tell("/admin/models/tiny/versions/2/activate").0, 200);
    assert_eq!(serving.score(&page), changed);

    // Unpacked it is the version that was told, file by file.
    place.json("delta unpack models/tiny/2 --out whole/tiny/2");
    assert_eq!(place.files("whole/tiny/2"), place.files("new/tiny/2"));
    // It needs its base: a server that has it in memory says so, and another waits.
    std::fs::rename(place.path("models/tiny/1"), place.path("parked")).unwrap();
    serving.until("missed", || !serving.state()["changed"]["2"].is_null());
    let changed_files = serving.state()["changed"]["2"].as_str().unwrap().to_owned();
    assert!(changed_files.contains("../1/MANIFEST.json is not there any more"), "{changed_files}");
    place.refuses(
        "score --model models/tiny/2 --request page.json",
        &["version delta of version 1"],
    );
    assert_eq!(serving.score(&page), changed);
}

#[test]
fn what_no_delta_can_tell_is_refused() {
    let (place, _) = trained_again();
    place.refuses(&TOLD.replace("--to new/tiny/2", "--to models/tiny"), &["nothing to tell"]);
    place.refuses(&TOLD.replace("--out models/tiny/2", "--out models/tiny/1"), &["above 1"]);
    place.refuses(&format!("{TOLD} --image-tolerance -1"), &[]);
    place.refuses("delta --from models/tiny/1 --to new/tiny/2", &["--out"]);
    place.json("train shop.toml --set name=other --set model.tower=[8,12]");
    place.json("publish runs/other --to other --name tiny");
    let wide = TOLD.replace("new/tiny/2", "other/tiny/1");
    place.refuses(&wide, &["spec.tower.0 is 8, expected 16", "publish it whole"]);
    let rounded = place.json(&format!("{TOLD} --rows f16 --image-tolerance 0.001"));
    assert!(rounded["rounded"]["embeddings"].as_f64().unwrap() <= 0.001, "{rounded}");
    assert!(rounded["rounded"]["rows"].as_f64().unwrap() < 0.01, "{rounded}");
    assert_ne!(rounded["hash"], rounded["target"]);
    place.json("score --model models/tiny/2 --sample 1");
    place.refuses(TOLD, &["exists already"]);
}
