//! `ams init`: what it proposes is what `prepare` needs, and what it does not know it says.

use std::fs;

use serde_json::Value;

use crate::place::Place;

impl Place {
    /// Runs the commands of a report up to `until`; what the last one prints.
    fn follow(&self, report: &Value, until: &str) -> Value {
        for command in report["commands"].as_array().unwrap() {
            let words = command.as_str().unwrap().strip_prefix("ams ").unwrap();
            let said = self.json(words);
            if words.starts_with(until) {
                return said;
            }
        }
        panic!("no {until} in {report}");
    }

    fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }
}

/// Asserts that `text` has all of `words`.
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in\n{text}");
    }
}

#[test]
fn a_folder_becomes_a_trained_model() {
    let place = Place::new();
    let made = place.json("synth --out shop --size tiny");
    let report = place.json("init shop --out new");
    assert_eq!(report["events"], serde_json::json!(["shop/events.parquet"]));
    assert_eq!(report["items"], serde_json::json!(["shop/items.csv"]));
    assert_eq!(report["images"], "shop");
    says(&report["left_out"].to_string(), &["truth.parquet", "truth_items.csv"]);
    let prepare = place.text("new/prepare.toml");
    says(
        &prepare,
        &[
            "user = \"user\"",
            "label = \"label\"",
            "# 0 or 1; ",
            "user_fields = [\"age\", \"gender\"]",
            "context_fields = [\"position\", \"hour\"]",
            "item_fields = [\"category\", \"brand\", \"price\"]",
            "image = \"image\"",
        ],
    );
    says(&place.text("new/train.toml"), &["preset = \"recommended\"", "of the first "]);
    let prepared =
        place.json(report["commands"][0].as_str().unwrap().strip_prefix("ams ").unwrap());
    assert_eq!(prepared["rows"], made["events"], "{prepared}");
    fs::remove_dir_all(place.path("new/data")).unwrap();
    let evaluated = place.follow(&report, "eval");
    assert!(evaluated["impressions"].as_u64().unwrap() > 0, "{evaluated}");
    // A day of it: the log ends there.
    says(&place.text("new/daily.toml"), &["warm_start = \"none\"", "images = \"shop\""]);
    place.refuses(
        "daily new/daily.toml --day 2030-01-01 --set name=\"shop\"",
        &["2030-01-01 is not there yet"],
    );
    place.refuses("init shop --out new", &["new/prepare.toml", "--replace"]);
    assert_eq!(place.json("init shop --out new --replace"), report);
}

#[test]
fn ratings_without_pictures() {
    let place = Place::new();
    let mut ratings = "userId,movieId,rating,timestamp\n".to_owned();
    for at in 0..600 {
        let (user, movie, stars) = (at % 23, at * 7 % 40, 1 + at * 3 % 5);
        ratings += &format!("{user},{movie},{stars},{}\n", 964_982_703 + at * 3600);
    }
    place.write("ml/ratings.csv", ratings);
    let mut movies = "movieId,title,genres\n".to_owned();
    for movie in 0..40 {
        let genres = ["Drama", "Comedy|Romance", "Action|Comedy", "Drama|War"][movie % 4];
        movies += &format!("{movie},\"Film {movie}, The (19{movie:02})\",{genres}\n");
    }
    place.write("ml/movies.csv", movies);
    place.write("ml/README.md", "words");
    let report = place.json("init ml");
    says(&report["unsure"].to_string(), &["positive_from"]);
    says(&report["left_out"].to_string(), &["ml/README.md"]);
    let prepare = place.text("prepare.toml");
    says(
        &prepare,
        &[
            "# numbers from 1 to 5\n# UNSURE: the upper half counts as positive",
            "positive_from = 4.0",
            "label = \"rating\"",
            "item_fields = [\"genres:multi:|\"]",
            "title (nearly every value is different",
            "no column of the items names a picture",
        ],
    );
    says(&place.text("train.toml"), &["No pictures were found: ids alone"]);
    let prepared = place.follow(&report, "prepare");
    assert_eq!(prepared["items"], 40, "{prepared}");
}

/// Columns that nobody should learn from, pictures in a folder of their own, words as labels.
#[test]
fn what_is_unsure_is_said() {
    let place = Place::new();
    let mut log = "client_ref,product_no,action,local_time,paid,device\n".to_owned();
    for at in 0..300 {
        let action = if at % 4 == 0 { "purchase" } else { "view" };
        let paid = if at % 4 == 0 { "yes" } else { "no" };
        let day = 13 + at / 60;
        log += &format!(
            "c{},p{},{action},{day}/02/2024 10:{:02},{paid},d{}\n",
            at % 17,
            at % 11,
            at % 60,
            at * 5 % 3
        );
    }
    place.write("log.csv", log);
    let items = (0..11).map(|at| format!("p{at},{at}.jpg\n")).collect::<String>();
    place.write("goods.csv", format!("product_no,photo\n{items}"));
    (0..11).for_each(|at| place.write(&format!("all/photos/{at}.jpg"), "a picture"));
    let report = place.json("init log.csv goods.csv all");
    assert_eq!(report["images"], "all/photos");
    let prepare = place.text("prepare.toml");
    says(
        &prepare,
        &[
            "time_format = \"%d/%m/%Y %H:%M\"",
            "positive = [\"purchase\"]",
            "UNSURE: which words are positive is yours to say",
            "paid (it tells the label of every row)",
            "context_fields = [\"device\"]",
            "UNSURE: its name only resembles a known one",
        ],
    );
    place.follow(&report, "prepare");

    place.write("likes.csv", "user,item,time\na,x,2024-01-01\nb,y,2024-01-02\na,y,2024-01-03\n");
    let report = place.json("init likes.csv --out likes");
    says(&report["unsure"].to_string(), &["negatives"]);
    says(&place.text("likes/prepare.toml"), &["negatives = {", "contemporary"]);
}

#[test]
fn what_is_no_log_is_refused() {
    let place = Place::new();
    place.write("goods.csv", "sku,price\na,1\nb,2\n");
    place.write("pairs.csv", "user,item\na,x\nb,y\n");
    place.write("nothing.csv", "user,item,time\n");
    place.write("noise.parquet", "no parquet");
    place.write("folder/a.txt", "");
    for (data, words) in [
        ("absent", &["absent"][..]),
        ("folder", &["no table of events", "found: no table"]),
        ("goods.csv", &["no table of events", "goods.csv (sku, price)"]),
        ("pairs.csv", &["no column for the time", "user, item"]),
        ("nothing.csv", &["nothing.csv", "no rows"]),
        ("noise.parquet", &["noise.parquet"]),
        ("s3://bucket/log", &["paths of this host"]),
    ] {
        place.refuses(&format!("init {data}"), words);
    }
}
