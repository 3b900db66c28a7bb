//! `ams align` on a tiny shop, and its vectors on the way to a model.

use serde_json::{Value, json};

use crate::place::{Place, count, has_keys, number};
use crate::shop::{CONFIG, TRAIN};

/// A short alignment: that of the shop's features, which have 64 numbers.
pub const ALIGN: &str = "\n[align]\ncomponents = 24\nwidth = 12\nsteps = 8\nbatch = 32\n\
                         evaluate_every = 4\n";

/// A place with data and a configuration that has a table `[align]`.
pub fn place() -> Place {
    let place = Place::with_data();
    place.write("shop.toml", CONFIG.to_owned() + ALIGN);
    place
}

#[test]
fn aligned_vectors_are_features_like_any_others() {
    let place = place();
    let aligned = place.json("align shop.toml");
    has_keys(&aligned, "run steps chosen looks found width seconds threads lanes per_step");
    assert_eq!((&aligned["run"], &aligned["steps"]), (&json!("runs/tiny"), &json!(8)));
    let steps: Vec<u64> =
        aligned["looks"].as_array().unwrap().iter().map(|look| count(&look["step"])).collect();
    assert_eq!(steps, [0, 4, 8]);
    assert!(steps.contains(&count(&aligned["chosen"])));
    assert!((0.3..0.9).contains(&number(&aligned["looks"][0]["auc"])));
    place.refuses("align shop.toml", &["holds an earlier alignment", "--replace"]);
    let again = place.json("align shop.toml --resume");
    assert_eq!((&again["looks"], &again["resumed_from"]), (&aligned["looks"], &json!(8)));

    let vectors = place.json("vectors --images runs/tiny --data data --out vectors");
    assert_eq!((&vectors["dim"], &vectors["without"]), (&json!(12), &json!(0)));
    assert_eq!(vectors["images"], aligned["found"]["images"]);
    let encoded = place.json("encode data --features vectors/images.parquet --out aligned");
    assert_eq!((&encoded["dim"], &encoded["images"]), (&json!(12), &vectors["images"]));
    assert_eq!(encoded["failed"], json!({}));
    place.write("plain.toml", CONFIG.replace("tiny", "plain"));
    place.json("train plain.toml --set model.tower=[16,12] --set data.images=aligned");

    place.refuses(
        "vectors --images runs/tiny --data data --store aligned --out other",
        &["the map was made of features of builtin", "precomputed"],
    );
    place.refuses("vectors --images models --data data --out other", &["models"]);
}

/// The map is in the bundle: a picture that comes back as a new one has the vector it had.
#[test]
fn a_training_aligns_first_and_a_delta_makes_vectors_of_its_map() {
    let place = place();
    let similar = "--set model.similarity=histogram --set model.interactions=product";
    let report = place.json(&format!("{TRAIN} {similar}"));
    assert_eq!(report["alignment"]["steps"], json!(8));
    assert!(place.path("runs/tiny/aligned").exists());
    place.refuses(
        "train shop.toml --set name=warm --set train.warm_start.from=runs/tiny",
        &["train.warm_start", "another map", "vectors --images"],
    );
    place.json("publish runs/tiny --to models");
    let samples: Value = serde_json::from_slice(&place.read("models/tiny/1/samples.json")).unwrap();
    place.write("page.json", samples[0].to_string());
    let score = || place.json("score --model models/tiny --request page.json")["ctr"].clone();
    let known = score();
    let items = String::from_utf8(place.read("shop/items.csv")).unwrap();
    let column = items.lines().next().unwrap().split(',').position(|name| name == "image");
    let pictures = items.lines().skip(1).map(|line| line.split(',').nth(column.unwrap()).unwrap());
    place.write("gone", pictures.map(|name| format!("{name}\n")).collect::<String>());
    place.json("delta models/tiny --remove-pictures gone");
    assert_ne!(score(), known, "pictures count");
    place.json("delta models/tiny --images data/images");
    assert_eq!(score(), known);
}

#[test]
fn people_see_the_table_of_the_gate() {
    let place = place();
    let done = place.run("align shop.toml --set align.holdout=0.3");
    assert_eq!(done.code, Some(0), "{done:#?}");
    let lines = ["impressions of held-out pictures", "AUC of cosines", "is the result", "aligned "];
    assert!(lines.iter().all(|line| done.out.contains(line)), "{}", done.out);
    let done = place.run("align shop.toml --set align.holdout=0 --set name=other");
    assert!(done.out.contains("nothing was judged: step 8 it is"), "{}", done.out);
}
