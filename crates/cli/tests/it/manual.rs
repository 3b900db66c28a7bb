//! What packages bring along: pages of the manual, and completions of shells.

use std::process::{Command, Stdio};

use crate::place::Place;

/// The commands that `--help` lists.
fn commands(place: &Place) -> Vec<String> {
    let help = place.run("--help").out;
    let listed = help.split("Commands:\n").nth(1).unwrap();
    let listed = listed.lines().take_while(|line| !line.is_empty());
    let words = listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    words.filter(|word| !word.is_empty() && *word != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_has_a_page() {
    let place = Place::new();
    let report = place.json("man --out share/man/man1");
    let pages: Vec<&str> =
        report["pages"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    let all = commands(&place);
    assert!(all.len() > 20, "{all:?}");
    for command in &all {
        assert!(pages.contains(&&*format!("ams-{command}.1")), "no {command} in {pages:?}");
    }
    for page in &pages {
        let text = String::from_utf8(place.read(&format!("share/man/man1/{page}"))).unwrap();
        let name = page.strip_suffix(".1").unwrap();
        assert!(text.contains(&format!(".TH {name} 1 ")), "{text}");
    }
    let train = String::from_utf8(place.read("share/man/man1/ams-train.1")).unwrap();
    for word in ["\\-\\-auto\\-resume", "Train"] {
        assert!(train.contains(word), "no {word} in {train}");
    }
    // A reader of pages finds nothing to warn of.
    let mut groff = Command::new("groff");
    groff.args(["-ww", "-man", "-Tutf8", "-z"]).stderr(Stdio::piped());
    let checked = groff.arg(place.path("share/man/man1/ams-train.1")).output();
    match checked {
        Ok(checked) => assert!(checked.stderr.is_empty(), "{checked:?}"),
        Err(_) => eprintln!("skipped: no groff to read a page with"),
    }
    place.write("file", "");
    place.refuses("man --out file/man1", &["file/man1"]);
}

#[test]
fn shells_complete_commands_and_flags() {
    let place = Place::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = place.run(&format!("completions {shell}")).out;
        for word in ["ablate", "auto-resume", "completions"] {
            assert!(script.contains(word), "no {word} in {shell}'s\n{script}");
        }
        assert_eq!(place.json(&format!("completions {shell}"))["script"], script);
    }
    let done = place.run("completions tcsh");
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains("possible values: bash, elvish"), "{done:?}");
    // Bash itself completes a word by the script.
    place.write("ams.bash", place.run("completions bash").out);
    let words = "source ams.bash; COMP_WORDS=(ams tra); COMP_CWORD=1; _ams ams tra ams; \
                 echo \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    match bash.args(["-c", words]).current_dir(place.path("")).output() {
        Ok(done) => assert_eq!(String::from_utf8_lossy(&done.stdout), "train\n", "{done:?}"),
        Err(_) => eprintln!("skipped: no bash to complete a word with"),
    }
}
