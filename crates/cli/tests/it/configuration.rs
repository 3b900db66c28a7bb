//! Configuration files: mistakes are shown where they are, and settings of the command line
//! override the file.

use crate::place::Place;

const FILE: &str = "name = 'x'\n[data]\nsamples = 'shop'\n[train]\nepochs = 3\n";

#[test]
fn mistakes_show_the_line_and_the_nearest_key() {
    let place = Place::new();
    for (text, sets, words) in [
        (
            "name = 'x'\n[data]\nsamples='s'\n[train]\nepoch = 3\n",
            "",
            ["did you mean `epochs`?", "file.toml:5"],
        ),
        ("name = 'x'\n[data]\nsamples='s'\n[model]\nimages = 'joints'\n", "", ["`joint`?", ""]),
        (
            "name = 'x'\n[data]\nsamples='s'\n[model]\ntower = [12]\nimage = 'joint'\n",
            "",
            ["did you mean `images`?", "file.toml:6"],
        ),
        (
            "name = 'x'\n[data]\nsamples='s'\n[model]\nmlp = [8, 'four']\n",
            "",
            ["file.toml:5", "expected usize"],
        ),
        ("name = 'x'\n", "", ["missing field `data`", ""]),
        ("name = \n", "", ["file.toml:1", ""]),
        (
            "name = 'x'\n[data]\nsamples='s'\n[train]\nepochs = 'three'\n",
            "",
            ["file.toml:5", "expected u32"],
        ),
        (FILE, "--set train.epoch=5", ["--set train.epoch=5", "`epochs`"]),
        (FILE, "--set train.lanes=eight", ["`train.lanes`", ""]),
        (FILE, "--set model.pra_rank=[3]", ["--set model.pra_rank", "`pre_rank`"]),
        (FILE, "--set model.id_dropout=[0.1]", ["--set model.id_dropout", "a table of fields"]),
        (FILE, "--set model.id_dropout={item=true}", ["--set model.id_dropout", "expected f32"]),
        (
            FILE,
            "--set model.id_dropout={item=1.5}",
            ["model.id_dropout: item = 1.5", "less than 1"],
        ),
        (FILE, "--set epochs", ["--set epochs: expected key=value", ""]),
        (
            "name = 'x'\n[data]\nsamples='s'\n[[train.phases]]\nepochs=1\nlearns=['image']\n",
            "",
            ["did you mean `images`?", "file.toml:6"],
        ),
        (FILE, "--set train.phases=[{epochs=1,learns=['id']}]", ["`id`, expected one of", "`ids`"]),
        (
            FILE,
            "--set train.phases=[{epochs=1},{epochs=1}]",
            ["train.epochs: 3, but the epochs of train.phases are 2 in all", ""],
        ),
    ] {
        place.write("file.toml", text);
        place.refuses(&format!("train file.toml {sets}"), &words);
    }
}

#[test]
fn settings_override_the_file() {
    let place = Place::with_data();
    let base = "name = 'x'\nseed = 2\n[data]\nsamples = 'data'\n[train]\nepochs = 3\n";
    place.write("file.toml", base);
    let sets = ["train.epochs=1", "model.images=none", "name=y", "seed = 7", "train.lanes=1"];
    let mut command = place.command("train file.toml --json");
    for set in sets {
        command.args(["--set", set]);
    }
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let kept = String::from_utf8(place.read("runs/y/config.toml")).unwrap();
    for line in ["name = \"y\"", "seed = 7", "epochs = 1", "images = \"none\"", "lanes = 1"] {
        assert!(kept.contains(line), "{line} is not in\n{kept}");
    }
}

#[test]
fn dropout_of_a_field_that_is_not_there_names_those_that_are() {
    let place = Place::with_data();
    place.write("file.toml", "name = 'x'\ndata.samples = 'data'\n");
    place.refuses(
        "train file.toml --set model.id_dropout={item=0.1,shop=0.1}",
        &["there is no field `shop`; possible are", "image"],
    );
}

#[test]
fn phases_are_settings_of_the_file_and_of_the_command_line() {
    let place = Place::with_data();
    let phases =
        "[[train.phases]]\nepochs = 1\nlearns = ['images']\n[[train.phases]]\nepochs = 1\n";
    place.write("file.toml", format!("name = 'x'\ndata.samples = 'data'\n{phases}"));
    let done = place.run("train file.toml");
    assert_eq!(done.code, Some(0), "{done:#?}");
    let report = place.json("train file.toml --set name=y --set train.batch=1024");
    let steps = report["steps_per_epoch"].as_u64().unwrap();
    assert_eq!((&report["epochs"], report["steps"].as_u64()), (&2.into(), Some(2 * steps)));
    for line in [
        format!("step 1 of {}: phase 1\n", 2 * steps),
        format!("step {} of {}: phase 2\n", steps + 1, 2 * steps),
    ] {
        assert!(done.out.contains(&line), "{line} is not in\n{}", done.out);
    }
    let report =
        place.json("train file.toml --set name=z --set train.phases=[{epochs=1,learns=[\"ids\"]}]");
    assert_eq!((&report["epochs"], report["steps"].as_u64()), (&1.into(), Some(steps)));
    let line = place.read("runs/z/metrics.jsonl");
    let line = String::from_utf8(line).unwrap().lines().last().unwrap().to_owned();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["phase"], &line["per_step"]["tower_backwards"]), (&1.into(), &0.0.into()));
}
