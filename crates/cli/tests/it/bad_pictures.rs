//! A folder of pictures with everything in it that can be wrong with one: counted, listed, and the
//! rest goes on.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::json;

use crate::place::{Done, Place, count};

/// Pictures that are as they should be.
const GOOD: usize = 20;

/// Who may not read what is locked: the user `nobody`.
const NOBODY: u32 = 65_534;

/// A PNG's header that promises 60,000 x 60,000 pixels.
fn bomb() -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    png.extend([60_000u32.to_be_bytes(), 60_000u32.to_be_bytes()].concat());
    png.extend([8, 2, 0, 0, 0]);
    let mut crc = !0u32;
    for byte in &png[12..] {
        crc ^= u32::from(*byte);
        (0..8).for_each(|_| crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 });
    }
    png.extend((!crc).to_be_bytes());
    // Without data it would be no picture at all; the data may be empty.
    png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e\0\0\0\0IEND\xae\x42\x60\x82");
    png
}

/// A dataset of items with these pictures.
fn dataset(place: &Place, names: &[String]) {
    let mut items = "item_id,image\n".to_owned();
    let mut events = "user_id,item_id,click,timestamp\n".to_owned();
    for (at, name) in names.iter().enumerate() {
        items += &format!("i{at},{name}\n");
        events += &format!("u{},i{at},{},{}\n", at % 5, at % 2, 100 + at);
    }
    place.write("items.csv", items);
    place.write("events.csv", events);
    place.json("prepare --events events.csv --items items.csv --accept times --out bad");
}

/// Whether this process may read what nobody may, as the administrator does.
fn is_above_permissions(place: &Place) -> bool {
    fs::metadata(place.path("")).unwrap().uid() == 0
}

/// Runs `ams` as a user for whom permissions count. The administrator becomes `nobody`, by a copy
/// of the program in the place, where that user can reach it.
fn run_as_user(place: &Place, arguments: &str) -> Option<Done> {
    if !is_above_permissions(place) {
        return Some(place.run(arguments));
    }
    fs::copy(env!("CARGO_BIN_EXE_ams"), place.path("ams")).unwrap();
    for name in ["", "bad"] {
        chown(place.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mut command = Command::new(place.path("ams"));
    command.args(arguments.split_whitespace()).current_dir(place.path(""));
    match command.uid(NOBODY).gid(NOBODY).output() {
        Ok(output) => Some(output.into()),
        Err(error) => {
            println!(
                "skipped: cannot become another user here, and permissions do not bind this one: {error}"
            );
            None
        }
    }
}

#[test]
fn every_kind_is_counted_and_listed_and_the_rest_goes_on() {
    let place = Place::new();
    place.shop();
    let all = place.files("shop/images");
    let mut pictures = all.iter().filter_map(|(name, bytes)| Some((name, bytes.as_ref()?)));
    let (mut names, mut last) = (Vec::new(), Vec::new());
    for (at, (name, bytes)) in pictures.by_ref().take(GOOD).enumerate() {
        // What a file is called says nothing about what it is.
        let wrong = if name.ends_with("jpg") { "png" } else { "jpg" };
        let name = format!("good-{at}.{wrong}");
        place.write(&format!("pictures/{name}"), bytes);
        names.push(name);
        last.clone_from(bytes);
    }
    let of =
        |kind: &str| all.iter().find(|(name, _)| name.ends_with(kind)).unwrap().1.as_ref().unwrap();
    let (png, jpeg) = (of("png"), of("jpg"));
    let mut flipped = png.clone();
    let middle = png.len() / 2;
    flipped[middle] ^= 0xff;
    let files: [(&str, &[u8]); 9] = [
        ("zero-bytes.jpg", b""),
        ("truncated.jpg", &jpeg[..jpeg.len() / 2]),
        ("truncated.png", &png[..middle]),
        ("flipped.png", &flipped),
        ("text.jpg", b"Dear shop, here is my picture."),
        ("page.png", b"<html><body>404</body></html>"),
        ("vector.svg", b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>"),
        ("bomb.png", &bomb()),
        ("locked.jpg", &last),
    ];
    for (name, bytes) in files {
        place.write(&format!("pictures/{name}"), bytes);
    }
    let path = |name: &str| place.path(&format!("pictures/{name}"));
    fs::set_permissions(path("locked.jpg"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::File::create(path("endless.jpg")).unwrap().set_len((64 << 20) + 1).unwrap();
    symlink("loop.jpg", path("loop.jpg")).unwrap();
    symlink("round", path("round")).unwrap();
    symlink("nowhere.jpg", path("dangling.jpg")).unwrap();
    fs::create_dir(path("folder.jpg")).unwrap();
    assert!(Command::new("mkfifo").arg(path("pipe.jpg")).status().unwrap().success());

    let expected = [
        ("zero-bytes.jpg", "empty"),
        ("truncated.jpg", "corrupt"),
        ("truncated.png", "corrupt"),
        ("flipped.png", "corrupt"),
        ("text.jpg", "unsupported"),
        ("page.png", "unsupported"),
        ("vector.svg", "unsupported"),
        ("bomb.png", "too_large"),
        ("endless.jpg", "too_large"),
        ("locked.jpg", "unreadable"),
        ("loop.jpg", "unreadable"),
        ("round/picture.jpg", "unreadable"),
        ("folder.jpg", "unreadable"),
        ("pipe.jpg", "unreadable"),
        ("dangling.jpg", "missing"),
        ("gone.jpg", "missing"),
        ("../shop/secret.jpg", "outside"),
    ];
    names.extend(expected.iter().map(|(name, _)| (*name).to_owned()));
    dataset(&place, &names);
    let arguments = "encode bad --images pictures --dim 64 --json";
    let Some(done) = run_as_user(&place, arguments) else { return };
    assert_eq!(done.code, Some(0), "{done:#?}");
    let report = done.json();
    let failed = json!({"corrupt": 3, "empty": 1, "missing": 2, "outside": 1, "too_large": 2, "unreadable": 5, "unsupported": 3});
    assert_eq!(report["failed"], failed, "{report}");
    assert_eq!(count(&report["images"]), GOOD as u64, "{report}");
    let listed = String::from_utf8(place.read("bad/images/failed.csv")).unwrap();
    assert_eq!(listed.lines().count(), 1 + expected.len(), "{listed}");
    for (name, reason) in expected {
        assert!(listed.contains(&format!("{name},{reason},")), "no {name},{reason} in\n{listed}");
    }
}
