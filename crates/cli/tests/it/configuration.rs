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
        (FILE, "--set epochs", ["--set epochs: expected key=value", ""]),
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
