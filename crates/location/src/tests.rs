//! Fetching and publishing against a bucket in memory.

use std::sync::Arc;

use object_store::memory::InMemory;

use super::*;
use crate::object::{LocalFile, Object};

/// A bucket, and a host with a cache.
struct World {
    store: Arc<InMemory>,
    host: tempfile::TempDir,
}

fn address(key: &str) -> Address {
    Address::parse(Path::new(&format!("s3://b/{key}"))).unwrap().unwrap()
}

impl World {
    fn new() -> World {
        World { store: Arc::new(InMemory::new()), host: tempfile::tempdir().unwrap() }
    }

    fn remote(&self) -> Remote {
        let store: Arc<InMemory> = Arc::clone(&self.store);
        Remote::of(store, &address("x")).unwrap()
    }

    /// Writes files of this host; where they are.
    fn folder(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = self.host.path().join(name);
        for (file, text) in files {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    /// Publishes files as all that is at `key`.
    fn publish(&self, key: &str, files: &[(&str, &str)]) {
        let from = self.folder("made", files);
        upload::upload(&self.remote(), &address(key), &from, None, &mut Index::default()).unwrap();
        std::fs::remove_dir_all(from).unwrap();
    }

    /// Fetches `key`; what is there then, and how many objects were fetched.
    fn fetch(&self, key: &str) -> (Vec<(String, String)>, usize) {
        let cache = Cache::new(&self.host.path().join("cache"), &address(key));
        let mut index = Index::read(&cache).unwrap();
        let there = self.remote().list(&address(key)).unwrap();
        let times = |object: &Object| {
            let file = std::fs::metadata(cache.path(&object.key));
            file.and_then(|it| it.modified()).ok()
        };
        let before: Vec<_> = there.iter().map(times).collect();
        cache.fetch(&self.remote(), &address(key), &there, &mut index).unwrap();
        index.write(&cache).unwrap();
        let after: Vec<_> = there.iter().map(times).collect();
        let fetched = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        let text = |object: &Object| {
            let text = std::fs::read_to_string(cache.path(&object.key)).unwrap();
            (object.key.clone(), text)
        };
        (there.iter().map(text).collect(), fetched)
    }

    fn keys(&self, key: &str) -> Vec<String> {
        self.remote().list(&address(key)).unwrap().into_iter().map(|it| it.key).collect()
    }
}

#[test]
fn what_was_published_is_fetched_once() {
    let world = World::new();
    world.publish("d", &[("dataset.json", "{}"), ("train/part-00", "a"), (".d.lock", "")]);
    world.publish("d2", &[("dataset.json", "other")]);
    let (files, fetched) = world.fetch("d");
    let expected = [("d/dataset.json", "{}"), ("d/train/part-00", "a")];
    assert_eq!(files, expected.map(|(key, text)| (key.to_owned(), text.to_owned())));
    assert_eq!(fetched, 2);
    assert_eq!(world.fetch("d").1, 0, "kept");
    // A changed object is fetched again, and so is a file that was changed here.
    world.publish("d", &[("dataset.json", "{}"), ("train/part-00", "b")]);
    assert_eq!(world.fetch("d").0[1].1, "b");
    let kept = world.host.path().join("cache/s3/b/d/train/part-00");
    std::fs::write(&kept, "x").unwrap();
    assert_eq!(world.fetch("d").0[1].1, "b");
    // What is gone there goes here.
    world.publish("d", &[("dataset.json", "{}")]);
    world.fetch("d");
    assert!(!kept.exists());
    assert_eq!(world.keys("d2"), ["d2/dataset.json"]);
    assert_eq!(world.fetch("d2/dataset.json").0[0].1, "other", "one object");
}

#[test]
fn objects_that_stand_for_folders_are_no_files() {
    let world = World::new();
    let remote = world.remote();
    let files = world.folder("made", &[("empty", ""), ("picture", "p")]);
    let (empty, picture) = (files.join("empty"), files.join("picture"));
    let put = |from: &Path, key: &str| {
        remote.put(&[&LocalFile { path: from.to_path_buf(), key: key.to_owned() }]).unwrap();
    };
    put(&picture, "shop/pictures/0.png");
    put(&picture, "shop/pictures/cats/1.png");
    put(&empty, "shop/pictures/none.png");
    // As they are listed: `shop/pictures/`, `shop/pictures/cats/` and Hadoop's.
    put(&empty, "shop/pictures");
    put(&empty, "shop/pictures/cats");
    put(&empty, "shop/pictures/cats_$folder$");
    put(&empty, "shop_$folder$");
    let expected = ["shop/pictures/0.png", "shop/pictures/cats/1.png", "shop/pictures/none.png"];
    assert_eq!(world.keys("shop/pictures"), expected);
    assert_eq!(world.keys("shop"), expected);
    let files = world.fetch("shop/pictures").0.into_iter().map(|(key, _)| key);
    assert_eq!(files.collect::<Vec<String>>(), expected);
    // The prefix itself, and a folder with nothing below it, whose key cannot be asked for without
    // its `/`.
    let object = |key: &str, bytes| Object { key: key.to_owned(), bytes, tag: String::new() };
    let cache = Cache::new(&world.host.path().join("cache"), &address("shop/pictures"));
    let mut index = Index::default();
    let mut there = remote.list(&address("shop/pictures")).unwrap();
    there.push(object("shop/pictures/vacant", 0));
    cache.fetch(&remote, &address("shop/pictures"), &there, &mut index).unwrap();
    assert!(!cache.path("shop/pictures/vacant").exists());
    there.push(object("shop/pictures/zzz", 1));
    let error = cache.fetch(&remote, &address("shop/pictures"), &there, &mut index).unwrap_err();
    assert!(error.to_string().contains("s3://b/shop/pictures/zzz"), "{error}");
}

#[test]
fn what_somebody_else_wrote_is_not_written_over() {
    let world = World::new();
    world.publish("d", &[("images.json", "1"), ("part-1", "1")]);
    let seen: Vec<Object> = world.remote().list(&address("d")).unwrap();
    let seen = seen.into_iter().filter(|it| is_manifest(&it.key)).collect();
    world.publish("d", &[("images.json", "2"), ("part-1", "1"), ("part-2", "2")]);
    let mine = world.folder("mine", &[("images.json", "3"), ("part-1", "1"), ("part-3", "3")]);
    let mut index = Index::default();
    let end = upload::upload(&world.remote(), &address("d"), &mine, Some(&seen), &mut index);
    let error = end.unwrap_err().to_string();
    assert!(error.contains("s3://b/d: another process has written there meanwhile"), "{error}");
    assert_eq!(world.keys("d"), ["d/images.json", "d/part-1", "d/part-2"]);
}

#[test]
fn what_a_failed_upload_left_is_no_reason_to_take_the_manifest_away() {
    let world = World::new();
    let listing = |part: &str| format!("{{\"files\": {{\"{part}\": 1}}}}");
    world.publish("d", &[("images.json", &listing("part-1")), ("part-1", "1")]);
    let remote = world.remote();
    let orphan = world.folder("orphan", &[("part-2", "left behind")]);
    let file = LocalFile { path: orphan.join("part-2"), key: "d/part-2".to_owned() };
    remote.put(&[&file]).unwrap();
    let there = remote.list(&address("d")).unwrap();
    let manifests: Vec<&Object> = there.iter().filter(|it| is_manifest(&it.key)).collect();
    let spoken_of = upload::spoken_of(&remote, &there, &manifests).unwrap();
    assert_eq!(spoken_of.into_iter().collect::<Vec<_>>(), ["d/part-1"]);
    // A manifest without a list speaks of everything below.
    world.publish("e", &[("dataset.json", "{}"), ("train/part-1", "1")]);
    let there = remote.list(&address("e")).unwrap();
    let manifests: Vec<&Object> = there.iter().filter(|it| is_manifest(&it.key)).collect();
    assert_eq!(upload::spoken_of(&remote, &there, &manifests).unwrap().len(), 2);
}

#[test]
fn large_files_go_in_parts() {
    let world = World::new();
    let text = "0123456789abcdef".repeat((17 << 20) / 16);
    world.publish("big", &[("one", &text)]);
    let (files, _) = world.fetch("big");
    assert!(files[0].1 == text);
}

#[test]
fn tables_are_read_where_they_are() {
    use ams_data::source::{Files, Table, TableOptions, open_all};

    /// Finds files in the bucket of a world.
    struct Bucket(Arc<Remote>);
    impl Files for Bucket {
        fn list(&self, named: &Path) -> Result<Vec<ams_data::source::Listed>> {
            tables::list(&self.0, &Address::parse_folder(named)?.unwrap())
        }
        fn expand(&self, pattern: &str) -> Result<Vec<PathBuf>> {
            tables::expand(&self.0, &address("logs"), pattern)
        }
    }
    let world = World::new();
    let long: String = (0..2_000_000).map(|n| format!("{n},{}\n", n % 7)).collect();
    world.publish("logs/dt=1", &[("part-0.csv", "user,item\n1,a\n"), ("_SUCCESS", "x")]);
    world.publish("logs/dt=2", &[("part-1.csv", "item,user\nb,2\n"), ("part-2.csv", "")]);
    world.publish("long", &[("long.csv", &format!("user,item\n{long}"))]);
    let bucket = Bucket(Arc::new(world.remote()));
    let open = |named: &str| open_all(&bucket, &[PathBuf::from(named)], &TableOptions::default());
    let rows = |table: &dyn Table| {
        let mut rows = Vec::new();
        for batch in table.batches(&[0, 1]).unwrap() {
            let batch = batch.unwrap();
            let row =
                |row| format!("{}: {},{}", batch.place(row), batch.get(0, row), batch.get(1, row));
            rows.extend((0..batch.rows()).map(row));
        }
        rows
    };
    let expected = ["dt=1/part-0.csv, line 2: 1,a", "dt=2/part-1.csv, line 2: 2,b"];
    for named in ["s3://b/logs", "s3://b/logs/", "s3://b/logs/*/part-*", "s3://b/logs/**/*.csv"] {
        let table = open(named).unwrap();
        assert_eq!(rows(table.as_ref()), expected, "{named}");
        assert_eq!(table.columns(), ["user", "item", "dt"], "{named}");
    }
    // Longer than what is fetched at a time, and read twice.
    let table = open("s3://b/long/long.csv").unwrap();
    let first = rows(table.as_ref());
    assert_eq!((first.len(), &first[1_999_999][..]), (2_000_000, "line 2000001: 1999999,1"));
    assert!(rows(table.as_ref()) == first);
    // Another object under the name.
    world.publish("long", &[("long.csv", "user,item\n1,a\n")]);
    let changed = table.batches(&[0]).err().map(|error| error.to_string()).unwrap();
    assert_eq!(
        changed,
        "s3://b/long/long.csv: changed or went away while it was read; start again"
    );
    for (named, expected) in [
        ("s3://b/none", "s3://b/none: No such file or folder"),
        ("s3://b/logs/*.tsv", "s3://b/logs/*.tsv: no file matches the pattern"),
    ] {
        assert!(open(named).err().unwrap().to_string().starts_with(expected), "{named}");
    }
}

#[test]
fn a_folder_that_grows_has_one_writer_the_last_that_began() {
    let world = World::new();
    let growing = |holder: &str| {
        let here = world.host.path().join(holder);
        Growing::new(world.remote(), address("runs/a"), here, holder.to_owned())
    };
    let (first, second) = (growing("first"), growing("second"));
    let names = ["log".to_owned(), "step-1/part".to_owned()];
    world.folder("first", &[("log", "1"), ("step-1/part", "p"), ("step-1/other", "o")]);
    first.hold().unwrap();
    first.put(&names).unwrap();
    first.hold().unwrap();
    assert_eq!(second.list().unwrap(), names);
    second.fetch(&names[..1]).unwrap();
    assert_eq!(std::fs::read_to_string(second.here().join("log")).unwrap(), "1");
    assert!(!second.here().join("step-1").exists());
    second.hold().unwrap();
    let error = first.hold().unwrap_err().to_string();
    let expected = "s3://b/runs/a: another job writes this folder now ({\"holder\":\"second\",\"writes\":1}); this one ends";
    assert_eq!(error, expected);
    assert!(first.hold().is_err(), "nor later");
    second.hold().unwrap();
    second.remove(&names[..1]).unwrap();
    assert_eq!(second.list().unwrap(), names[1..]);
    let gone = second.fetch(&names).unwrap_err().to_string();
    assert_eq!(gone, "s3://b/runs/a/log: is not there");
}

#[test]
fn files_that_are_not_picked_are_not_fetched() {
    let world = World::new();
    world.publish("d", &[("a", "1"), ("b", "2")]);
    let all = world.remote().list(&address("d")).unwrap();
    let of = |key: &str| address(key);
    let some = picked(&of("d"), all.clone(), &|names| {
        assert_eq!(names, ["a", "b"]);
        vec!["b".to_owned()]
    });
    assert_eq!(some, all[1..]);
}
