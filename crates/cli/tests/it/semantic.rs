//! Semantic ids on their way from pictures to a server that is told of new ones.

use serde_json::{Value, json};

use crate::place::{Place, count, number};
use crate::serve::Serving;
use crate::shop::TRAIN;

#[test]
fn semantic_ids_go_from_pictures_to_a_server() {
    let place = Place::new();
    place.shop();
    place.prepared();
    let encode = "encode data --images shop --dim 64";
    place.refuses(&format!("{encode} --semantic-ids 3x1"), &["expected levels x centers", "3x64"]);
    place.run(encode);
    let train = format!("{TRAIN} --set model.images=none --set model.semantic_ids=2");
    place.refuses(&train, &["model.semantic_ids", "no semantic ids", "--semantic-ids 2x64"]);
    // The store that is there gets them, without encoding again; a later encoding says them, too.
    let told = place.json(&format!("{encode} --semantic-ids 2x5"));
    assert_eq!((&told["encoded"], &told["semantic_ids"]["levels"]), (&json!(0), &json!(2)));
    let words = "semantic ids: 2 levels of 5; ";
    let out = place.run(encode).out;
    assert!(
        out.contains(words) && out.contains("% of the images have codes of their own"),
        "{out}"
    );

    let trained = place.json(&train)["semantic_ids"].clone();
    for key in ["levels", "size", "images", "own"] {
        assert_eq!(trained[key], told["semantic_ids"][key], "{key} of {trained}");
    }
    assert!(place.run(&format!("{train} --resume")).out.contains(words));
    place.json("publish runs/tiny --to models");
    let serving = Serving::new(
        &place,
        "--poll 0.05 --deadline-ms 60000 --pictures --encoder builtin --dim 64",
    );
    let url = &serving.address;
    let agreement = place.json(&format!("bench agree runs/tiny --model models/tiny --url {url}"));
    assert!(count(&agreement["impressions"]) > 100, "{agreement}");
    assert_eq!(agreement["server_to_bundle"], 0.0, "{agreement}");
    assert!(number(&agreement["bundle_to_trainer"]) < 1e-6, "{agreement}");

    // A picture that goes and comes again, as bytes or from the store, has the codes it had.
    let samples: Value = serde_json::from_slice(&place.read("models/tiny/1/samples.json")).unwrap();
    let (page, mut all) = (&samples[0], String::new());
    let expected = serving.score(page);
    for picture in place.names("shop/images").into_iter().flat_map(|folder| {
        let inside = place.names(&format!("shop/images/{folder}"));
        inside.into_iter().map(move |name| format!("images/{folder}/{name}"))
    }) {
        all += &format!("{picture}\n");
    }
    place.write("gone", &all);
    let follow = |number: u64| {
        serving.until("followed", || serving.state()["deltas"]["1"] == number);
    };
    place.json("delta models/tiny --remove-pictures gone");
    follow(1);
    assert_ne!(serving.score(page), expected);
    place.json("delta models/tiny --images data/images");
    follow(2);
    assert_eq!(serving.score(page), expected);
    let picture = all.lines().next().unwrap();
    let change = json!({"remove_pictures": [picture]});
    assert_eq!(serving.change("/admin/models/tiny/changes", &change).0, 200);
    let bytes = place.read(&format!("shop/{picture}"));
    let (status, _) = serving.put(&format!("/admin/models/tiny/pictures/{picture}"), &bytes);
    assert_eq!((status, serving.score(page)), (200, expected.clone()));
    place.write("page.json", page.to_string());
    let scored = place.json("score --model models/tiny --request page.json");
    assert_eq!(expected, (200, scored));
    assert_eq!(serving.stop(), Some(0));
}
