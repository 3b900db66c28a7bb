//! Importers of data with given histories or none, on miniatures in the same layout.

#![allow(clippy::unwrap_used)] // A failed step is a failed test.
use std::path::Path;

use ams_data::barsctr::{self, Video};
use ams_data::catalogue::Catalogue;
use ams_data::edges;
use ams_data::negatives::{Method, NegativeOptions};
use ams_data::prepare::{Existing, PrepareReport};
use ams_data::samples::{TextItem, read_texts};
use ams_data::{Dataset, SplitName};

/// All groups as text: split, user, history newest first, shown items with `+` for a click.
fn groups(dir: &Path) -> Vec<String> {
    let found = ams_data::check::check(dir, &mut |_, _| {}).unwrap();
    assert_eq!(found.problems, [""; 0]);
    let dataset = Dataset::open(dir).unwrap();
    let mut groups = Vec::new();
    for split in SplitName::ALL {
        for part in 0..dataset.card().parts {
            let path = dataset.part_path(split, part);
            for group in read_texts(&path, dataset.schema(), 99, |_| true).unwrap() {
                let item = |item: &TextItem| {
                    item.item.clone() + if item.label == Some(1) { "+" } else { "" }
                };
                let items =
                    |items: &[TextItem]| items.iter().map(item).collect::<Vec<_>>().join(" ");
                let (past, shown) = (items(&group.behaviors), items(&group.impressions));
                groups.push(format!("{} {} [{past}] {shown}", split.as_str(), group.user));
            }
        }
    }
    groups.sort();
    groups
}

/// Runs an importer over a folder with these files.
fn import(
    files: &[(&str, &str)],
    run: impl Fn(&Path, &Path) -> ams_data::Result<PrepareReport>,
) -> (tempfile::TempDir, Result<PrepareReport, String>) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let report = run(dir.path(), &dir.path().join("out"));
    let tidy = |error: ams_data::Error| {
        assert!(!dir.path().join("out").exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), files.len());
        error.to_string().replace(&dir.path().display().to_string(), "DIR")
    };
    let report = report.map_err(tidy);
    (dir, report)
}

fn video(
    video: Video,
    files: &[(&str, &str)],
    max_behaviors: usize,
) -> (tempfile::TempDir, Result<PrepareReport, String>) {
    let options = barsctr::Options { name: None, max_behaviors, existing: Existing::Refuse };
    import(files, |dir, out| barsctr::import(dir, video, out, &options, &mut |_| {}))
}

const KUAI: [(&str, &str); 2] = [
    (
        "train.csv",
        "timestamp,user_id,item_id,is_click,is_like,is_follow,pos_items,neg_items\n\
         0.1,u,10,1,0,0,,5\n0.2,v,11,0,0,0,10,\n0.3,u,12,0,0,0,10,5\n0.4,u,13,1,1,0,10,5^12\n",
    ),
    (
        "test.csv",
        "timestamp,user_id,item_id,is_click,is_like,is_follow,pos_items,neg_items\n\
         0.5,u,14,1,0,0,10^13^9,5\n0.6,u,15,0,0,0,10^13^9,5\n",
    ),
];

#[test]
fn kuaivideo() {
    let (dir, report) = video(Video::Kuai, &KUAI, 2);
    let report = report.unwrap();
    let expected =
        ["test u [9 13] 14+ 15", "train u [10] 12 13+", "train u [] 10+", "train v [10] 11"];
    assert_eq!(groups(&dir.path().join("out")), expected);
    assert_eq!((report.rows, report.counts.items, report.counts.items_with_image), (6, 7, 7));
    assert_eq!((report.counts.train, report.counts.test, report.counts.clicks), (4, 2, 3));
}

#[test]
fn microvideo() {
    let header = "user_id,item_id,cate_id,is_click,clicked_items,clicked_categories,timestamp\n";
    let train = format!("{header}1,7,a,1,8^9,b^c,3\n1,8,b,0,8^9,b^c,4\n");
    let test = format!("{header}1,6,c,0,9,c,5\n");
    let (dir, report) = video(Video::Micro, &[("train.csv", &train), ("test.csv", &test)], 100);
    report.unwrap();
    let out = dir.path().join("out");
    assert_eq!(groups(&out), ["test 1 [9] 6", "train 1 [9 8] 7+ 8"]);
    let catalogue = Catalogue::open(&Dataset::open(&out).unwrap()).unwrap();
    let item = |row| (catalogue.item(row), catalogue.image(row), catalogue.values(0, row).next());
    let expected = [("6", "c"), ("7", "a"), ("8", "b"), ("9", "c")];
    let expected = expected.map(|(item, category)| (item, Some(item), Some(category)));
    assert_eq!((0..4).map(item).collect::<Vec<_>>(), expected);

    let torn = train.replace("b^c,4", "b,4").replace("8^9,b,4", "8^7,b,4");
    let (_dir, report) = video(Video::Micro, &[("train.csv", &torn), ("test.csv", &test)], 100);
    assert_eq!(
        report.unwrap_err(),
        "DIR/train.csv: line 3, column `clicked_categories`: 1 categories of 2 items; expected one of each"
    );
    let (_dir, report) = video(Video::Kuai, &[("train.csv", &train), ("test.csv", &test)], 100);
    let error = report.unwrap_err();
    assert!(error.starts_with("DIR/train.csv: no column `pos_items`; found: user_id"), "{error}");
}

fn pairs(
    files: &[(&str, &str)],
    options: &edges::Options,
) -> (tempfile::TempDir, Result<PrepareReport, String>) {
    import(files, |dir, out| {
        let test = files.get(1).map(|(name, _)| dir.join(name));
        edges::import(&dir.join(files[0].0), test.as_deref(), out, options)
    })
}

fn one_uniform() -> edges::Options {
    let negatives =
        NegativeOptions { count: 1, method: Method::Uniform, ..NegativeOptions::default() };
    edges::Options { negatives, ..edges::Options::default() }
}

#[test]
fn pairs_have_all_others_as_history() {
    let lines = [("train.txt", "u a b c\nv b\nw\n\nv b"), ("test.txt", "u d a\nv a\n")];
    let table = [
        ("train.csv", "when,user_id,item_id\n,u,a\n,u,b\n,u,c\n,v,b\n,v,b\n"),
        ("test.tsv", "user_id\titem_id\nu\td\nu\ta\nv\ta\n"),
    ];
    for files in [lines, table] {
        let (dir, report) = pairs(&files, &one_uniform());
        let report = report.unwrap();
        // u has had everything; for v there are c and d.
        let clicked = |group: &String| {
            let (begin, shown) = group.split_once("] ").unwrap();
            let shown: Vec<_> = shown.split(' ').collect();
            let negatives = shown.iter().filter(|item| !item.ends_with('+'));
            assert!(
                negatives
                    .clone()
                    .all(|&item| begin.contains(" v ") && (item == "c" || item == "d"))
            );
            assert_eq!(negatives.count(), usize::from(begin.contains(" v ")));
            let positives: Vec<_> = shown.into_iter().filter(|item| item.ends_with('+')).collect();
            format!("{begin}] {}", positives.join(" "))
        };
        let found: Vec<_> = groups(&dir.path().join("out")).iter().map(clicked).collect();
        let expected = [
            "test u [c b a] d+",
            "test v [b] a+",
            "train u [a c] b+",
            "train u [b a] c+",
            "train u [c b] a+",
            "train v [] b+",
        ];
        assert_eq!(found, expected);
        let drawn = report.drawn.unwrap();
        assert_eq!((drawn.negatives, drawn.short, report.dropped.duplicates), (2, 4, 2));
        assert_eq!(report.warnings, [edges::LEAVE_ONE_OUT]);
    }
}

#[test]
fn a_share_of_the_pairs_is_the_test() {
    let lines: Vec<_> = (0..300)
        .map(|user| {
            let items: Vec<_> = (0..10).map(|n| ((user * 7 + n * 13) % 200).to_string()).collect();
            format!("u{user} {}", items.join(" "))
        })
        .collect();
    let options = edges::Options { test_fraction: 0.2, ..one_uniform() };
    let (dir, report) = pairs(&[("pairs.txt", &lines.join("\n"))], &options);
    let counts = report.unwrap().counts;
    assert_eq!((counts.clicks, counts.users), (3000, 300));
    // A fifth of nine of ten.
    assert!((counts.test as f64 / 2.0 / 3000.0 - 0.18).abs() < 0.02, "{counts:?}");
    let firsts = groups(&dir.path().join("out"));
    assert_eq!(
        firsts.iter().filter(|group| group.starts_with("train")).count() as u64,
        counts.train / 2
    );
    // The order of the lines changes nothing.
    let backwards: Vec<_> = lines.iter().rev().cloned().collect();
    let (other, _) = pairs(&[("pairs.txt", &backwards.join("\n"))], &options);
    assert_eq!(firsts, groups(&other.path().join("out")));
}

#[test]
fn pairs_that_are_none() {
    let error = |name: &str, text: &str, options: &edges::Options| {
        pairs(&[(name, text)], options).1.unwrap_err()
    };
    let plain = one_uniform();
    for (name, text, expected) in [
        ("a.txt", "1 2\n3,4\n", "DIR/a.txt: line 2: a comma; expected `user item item ..`"),
        ("a.csv", "1,2\n3,4\n", "DIR/a.csv: the first line is 1, 2, which is no header"),
        ("a.csv", "who,what,when\na,b,c\n", "DIR/a.csv: no column `user`; found: who, what, when"),
        ("a.txt", "\n", "DIR/a.txt: no pair of a user and an item"),
    ] {
        let found = error(name, text, &plain);
        assert!(found.starts_with(expected), "{found}");
    }
    let contemporary = NegativeOptions { method: Method::Contemporary, ..plain.negatives.clone() };
    let options = edges::Options { negatives: contemporary, ..plain };
    let found = error("a.txt", "u a b\n", &options);
    assert!(
        found
            .starts_with("negatives from contemporary; expected uniform, popularity or stratified"),
        "{found}"
    );
}
