//! `ams encode` on folders and lists as people have them: what is found, and what is said of the
//! rest.

use std::fs;

use serde_json::json;

use crate::place::Place;

/// A picture of 8 x 8 pixels that goes from black to a color.
pub fn bitmap(color: [u8; 3]) -> Vec<u8> {
    let mut file = b"BM".to_vec();
    for word in [54 + 8 * 8 * 3u32, 0, 54, 40, 8, 8, 1 | 24 << 16, 0, 0, 0, 0, 0, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend((0..64u16).flat_map(|at| color.map(|value| (u16::from(value) * at / 63) as u8)));
    file
}

/// A folder `pictures` with a bitmap for each of these names.
fn pictures(place: &Place, names: &[&str]) {
    for (at, name) in names.iter().enumerate() {
        place.write(&format!("pictures/{name}"), bitmap([at as u8, 200, 9 + at as u8]));
    }
}

#[test]
fn a_folder_is_encoded_by_what_is_in_its_files() {
    let place = Place::new();
    pictures(&place, &["a.jpg", "b.jfif", "c.jpe", "deep/d", "e.DAT"]);
    place.write("pictures/f.avif", b"\0\0\0\x1cftypavif\0\0\0\0mif1avif");
    place.write("pictures/g.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic");
    place.write("pictures/notes.txt", "notes");
    place.write("pictures/README", "read me");
    let report = place.json("encode --images pictures --out store --dim 64");
    assert_eq!((&report["images"], &report["names"]), (&json!(5), &json!(7)), "{report}");
    assert_eq!(report["failed"], json!({"unsupported": 2}));
    assert_eq!(report["unsupported"], json!({"AVIF": 1, "HEIC": 1}));
    assert_eq!(report["passed_over"], json!({".txt": 1, "no ending": 1}));
    let done = place.run("encode --images pictures --out store --dim 64");
    for words in
        ["unsupported: 2 (1 AVIF, 1 HEIC; see failed.csv)", "no pictures: 1 .txt, 1 no ending"]
    {
        assert!(done.out.contains(words), "{words} not in {}", done.out);
    }
    place.write("none/notes.txt", "notes");
    let words = ["none: there is no picture below the folder; passed over, no pictures: 1 .txt"];
    place.refuses("encode --images none --out other --dim 64", &words);
}

#[test]
fn lists_are_read_as_logs_are_and_names_are_found() {
    let place = Place::new();
    pictures(&place, &["a.bmp", "b c.bmp", "deep/d.bmp"]);
    let whole = fs::canonicalize(place.path("pictures/a.bmp")).unwrap();
    let lists = [
        (
            "tabs",
            "id\tposter name\timage\n1\tx\ta.bmp\n2\ty\tb c.bmp\n3\tz\tdeep/d.bmp\n".to_owned(),
        ),
        ("semicolons", "id;Image_Path\n1;a.bmp\n2;b c.bmp\n3;deep/d.bmp\n".to_owned()),
        ("lines", "\u{feff}a.bmp\r\nb c.bmp\r\ndeep/d.bmp\r\n".to_owned()),
        ("headless", "1,a.bmp\n2,b c.bmp\n3,deep/d.bmp\n".to_owned()),
        ("spelled", format!("image\n{}\nB%20C.bmp\ndeep\\d.bmp\n", whole.display())),
    ];
    for (name, text) in lists {
        place.write(name, text);
        let encode = format!("encode --images pictures --list {name} --out {name}.store --dim 64");
        let report = place.json(&encode);
        let found = (&report["images"], &report["names"], &report["failed"]);
        assert_eq!(found, (&json!(3), &json!(3), &json!({})), "{name}: {report}");
        let respelled = if name == "spelled" { json!(3) } else { json!(null) };
        assert_eq!(report["respelled"]["names"], respelled, "{name}: {report}");
    }
    place.write("twice", "a.bmp\nb c.bmp\na.bmp\n");
    let report = place.json("encode --images pictures --list twice --out twice.store --dim 64");
    assert_eq!((&report["names"], &report["listed_again"]), (&json!(2), &json!(1)), "{report}");
    place.write("poster", "id,poster\n1,a.bmp\n");
    let words = ["poster: no column is called image", "--list-column", "`id`, `poster`"];
    place.refuses("encode --images pictures --list poster --out x --dim 64", &words);
    let named = "encode --images pictures --list poster --list-column poster --out x --dim 64";
    assert_eq!(place.json(named)["images"], json!(1));
}

#[test]
fn many_failures_are_listed_and_accepted_if_told() {
    let place = Place::new();
    pictures(&place, &["a.bmp", "b.bmp"]);
    place.write("list", "a.bmp\nb.bmp\nc.bmp\nd.bmp\ne.bmp\n");
    let encode = "encode --images pictures --list list --out store --dim 64";
    let done = place.run(encode);
    assert_eq!((done.code, &done.out[..]), (Some(1), ""), "{done:#?}");
    for word in ["3 of 5 pictures have no feature", "store.partial/failed.csv", "--max-failed 1"] {
        assert!(done.err.contains(word), "no {word} in {}", done.err);
    }
    let list = String::from_utf8(place.read("store.partial/failed.csv")).unwrap();
    assert_eq!(list.lines().count(), 1 + 3, "{list}");
    // What was encoded is there already.
    let report = place.json(&format!("{encode} --max-failed 0.6"));
    assert_eq!((&report["encoded"], &report["reused"]), (&json!(0), &json!(2)), "{report}");
    assert!(!place.path("store.partial").exists());
    let done = place.run(&format!("{encode} --max-failed 60"));
    assert!(done.code == Some(1) && done.err.contains("a share from 0 to 1"), "{done:#?}");
}
