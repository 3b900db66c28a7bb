//! The way on real data, where there are some: the first users of MovieLens 1M with posters.

use std::path::{Path, PathBuf};

use crate::place::{Place, count, has_keys, number};

/// Ratings taken from the beginning of the file.
const RATINGS: usize = 20_000;

/// The folder of the data set beside the repository, if it is there.
fn posters() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    let dir = root.parent()?.join("shared/data/ml1m-posters");
    dir.is_dir().then_some(dir)
}

#[test]
fn movielens_with_posters() {
    let Some(posters) = posters() else {
        println!("skipped: no ../shared/data");
        return;
    };
    let place = Place::new();
    let read = |name: &str| std::fs::read(posters.join(name)).unwrap();
    let ratings = read("ratings.dat");
    let lines: Vec<&[u8]> = ratings.split_inclusive(|byte| *byte == b'\n').take(RATINGS).collect();
    place.write("ml/ratings.dat", lines.concat());
    for name in ["movies.dat", "users.dat"] {
        place.write(&format!("ml/{name}"), read(name));
    }

    std::os::unix::fs::symlink(&posters, place.path("posters")).unwrap();
    let imported = place.json("import movielens ml --out data --images posters/images");
    has_keys(
        &imported,
        "users items groups impressions clicks behaviors_mean items_with_image train test",
    );
    assert_eq!(count(&imported["impressions"]), RATINGS as u64);
    let movies = count(&imported["items"]);
    assert!((3_000..4_000).contains(&movies), "{imported}");
    assert!(count(&imported["items_with_image"]) > movies / 2, "{imported}");

    let held = place.json(
        "import movielens ml --out held --images posters/images --hold-out-items 0.25 --hold-out-seed 2",
    );
    let out = count(&held["items_held_out"]);
    assert!((movies / 5..movies / 3).contains(&out), "{held}");
    assert_eq!(held["test"], imported["test"]);
    let left = count(&imported["train"]) - count(&held["dropped"]["held_out"]);
    assert_eq!(count(&held["train"]), left);
    place.refuses(
        "import movielens ml --out bad --images posters/images --hold-out-items 1",
        &["1 of the items held out", "expected a share between 0 and 1"],
    );

    let encoded = place.json(
        "encode data --features posters/features/effnet_lite0_1280.f16.npy \
         --keys posters/features/image_ids.txt",
    );
    assert_eq!(count(&encoded["dim"]), 1280);
    assert_eq!(count(&encoded["names"]), count(&imported["items_with_image"]));

    place.write("ml.toml", "name = \"joint\"\n[data]\nsamples = \"data\"\n");
    let settings = "--set model.tower=[16,12] --set train.batch=128 --set train.epochs=1";
    let trained = place.json(&format!("train ml.toml {settings}"));
    assert_eq!(count(&trained["impressions"]), count(&imported["train"]));
    let evaluation = place.json("eval runs/joint");
    assert_eq!(count(&evaluation["impressions"]), count(&imported["test"]));
    assert!(number(&evaluation["auc"]) > 0.5, "{evaluation}");
    assert!(number(&evaluation["gauc"]) > 0.0, "{evaluation}");
}
