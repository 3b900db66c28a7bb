//! `docs/configuration.md`, generated from the settings: from their doc comments, their types and
//! their defaults; and the ranges that it states, tried.

use std::path::{Path, PathBuf};

use ams_fabric::Solo;
use ams_train::Config;
use ams_train::run::validation;
use ams_train::settings::preset;
use ams_train::setup::{resolve, sources};
use serde::Deserialize;
use toml::{Table, Value};

use super::shop::shop;

const SOURCE: &str = concat!(
    include_str!("../../src/settings/mod.rs"),
    include_str!("../../src/settings/eviction.rs"),
    include_str!("../../src/settings/phases.rs"),
    include_str!("../../src/settings/preset.rs"),
    include_str!("../../../model/src/settings/network.rs"),
    include_str!("../../src/settings/align.rs")
);

/// The required keys, and every table: what is not in it has a default.
const REQUIRED: &str = "
name = 'x'
[data]
samples = 's'
[[data.contents]]
name = 'c'
features = 'f'
[model]
[model.projection]
components = 1
[model.search]
keep = 1
[[train.phases]]
epochs = 2
[train.eviction]
[train.warm_start]
from = 'r'
[align]
";

const BEGINNING: &str = "\
# Configuration

<!-- Generated from crates/train/src/settings: UPDATE_DOCS=1 cargo test -p ams-train configuration -->

This page has every key of the TOML file of a training, table by table.
[train.md](train.md#settings) has a commented example.
`--set train.epochs=5` overrides one key, which is named with its table.
An unknown key and a value outside its range are errors.
Relative paths begin at the working directory.
Numbers are finite: `inf` and `nan` are errors.
";

/// A table of the file: `` for the keys before the first one.
struct Section {
    path: String,
    /// The type of the field that it is, such as `Option<WarmStart>`.
    kind: String,
    meaning: String,
    keys: Vec<Key>,
}

struct Key {
    /// With its table, such as `train.epochs`.
    path: String,
    name: String,
    /// As Rust has it.
    kind: String,
    doc: Doc,
}

/// A doc comment of a field.
#[derive(Default)]
struct Doc {
    meaning: String,
    default: Option<String>,
    range: Option<String>,
    /// Value and meaning.
    values: Vec<(String, String)>,
}

impl Doc {
    /// Reads `lines`, without their slashes: sentences, then a list of values.
    fn parse(lines: &[&str], path: &str) -> Doc {
        let (mut text, mut values) = (String::new(), Vec::<String>::new());
        for line in lines.iter().map(|line| line.trim()) {
            match (line.strip_prefix("- "), values.last_mut()) {
                (Some(value), _) => values.push(value.to_owned()),
                (None, Some(value)) => *value += &format!(" {line}"),
                (None, None) => text += &format!(" {line}"),
            }
        }
        let text = text.trim_start();
        let sentence = |text: &str| {
            let whole = text.strip_suffix('.');
            whole.unwrap_or_else(|| panic!("{path}: {text:?} is no sentence")).to_owned()
        };
        let (text, range) = match text.split_once(" Range: ") {
            Some((text, range)) => (text, Some(sentence(range))),
            None => (text, None),
        };
        let (text, default) = match text.split_once(" Default: ") {
            Some((text, default)) => (text, Some(sentence(default))),
            None => (text, None),
        };
        assert!(!text.contains("[`"), "{path}: {text:?} has a link of Rust");
        let values = values.iter().map(|value| {
            let (name, meaning) = value.split_once("`: ").expect(path);
            (name.trim_start_matches('`').to_owned(), sentence(meaning) + ".")
        });
        Doc { meaning: sentence(text) + ".", default, range, values: values.collect() }
    }
}

/// The members of a struct or an enumeration of the settings, with the lines of their docs.
fn members(keyword: &str, name: &str) -> Option<Vec<(Vec<&'static str>, &'static str)>> {
    // What the macro of settings declares is indented.
    let head = ["\n", "\n    "].map(|indent| format!("{indent}pub {keyword} {name} {{\n"));
    let rest = head.iter().find_map(|head| Some(SOURCE.split_once(head)?.1))?;
    let (mut members, mut doc) = (Vec::new(), Vec::new());
    for line in rest.lines().map(str::trim).take_while(|line| *line != "}") {
        match line.strip_prefix("///") {
            Some(text) => doc.push(text),
            None if line.starts_with("#[") => {}
            None => {
                // Without the default and the check that a setting may be declared with.
                let code = line.split(" = ").next().expect("a line has a beginning");
                members.push((std::mem::take(&mut doc), code.trim_end_matches([',', ';'])));
            }
        }
    }
    Some(members)
}

/// The type within `Option<..>` and `Vec<..>`.
fn inner(kind: &str) -> &str {
    let within = ["Option<", "Vec<"].iter().find_map(|outer| kind.strip_prefix(outer));
    within.map_or(kind, |kind| inner(kind.strip_suffix('>').expect("is closed")))
}

/// The fields of the struct `kind` that are keys of its table: the settings of the network, which
/// are a field, stand for themselves.
fn fields(kind: &str) -> Vec<(Vec<&'static str>, &'static str)> {
    let members = members("struct", inner(kind)).expect("a struct of the settings");
    let flat = |(doc, code): (_, &'static str)| match code.split_once(": ") {
        Some((_, kind @ "NetworkSettings")) => fields(kind),
        _ => vec![(doc, code)],
    };
    members.into_iter().flat_map(flat).collect()
}

/// The table `path`, a field of type `kind`, and those within.
fn sections(path: &str, kind: &str, meaning: &str) -> Vec<Section> {
    let (mut keys, mut within) = (Vec::new(), Vec::new());
    for (doc, code) in fields(kind) {
        let (name, kind) = code.trim_start_matches("pub ").split_once(": ").expect(code);
        let path = [path, name].join(".").trim_start_matches('.').to_owned();
        let mut doc = Doc::parse(&doc, &path);
        if members("struct", inner(kind)).is_some() {
            within.extend(sections(&path, kind, &doc.meaning));
            continue;
        }
        if doc.values.is_empty()
            && let Some(variants) = members("enum", inner(kind))
        {
            let meanings = variants.iter().map(|(doc, _)| Doc::parse(doc, &path).meaning);
            doc.values = choices(&path).into_iter().zip(meanings).collect();
        }
        keys.push(Key { path, name: name.to_owned(), kind: kind.to_owned(), doc });
    }
    let (path, kind, meaning) = (path.to_owned(), kind.to_owned(), meaning.to_owned());
    let mut all = vec![Section { path, kind, meaning, keys }];
    all.append(&mut within);
    all
}

fn every_section() -> Vec<Section> {
    sections("", "Config", "These keys come before the first table.")
}

/// The place of `path` in `table`: the table that has it, and its key there.
fn place<'a, 'b>(table: &'a mut Table, path: &'b str) -> (&'a mut Table, &'b str) {
    let Some((first, rest)) = path.split_once('.') else { return (table, path) };
    match table.entry(first).or_insert_with(|| Value::Table(Table::new())) {
        Value::Table(table) => place(table, rest),
        Value::Array(tables) => place(tables[0].as_table_mut().expect("a table"), rest),
        value => panic!("{path}: {value} is no table"),
    }
}

fn put(table: &mut Table, path: &str, value: Value) {
    let (table, key) = place(table, path);
    table.insert(key.to_owned(), value);
}

fn required() -> Table {
    toml::from_str(REQUIRED).expect("TOML")
}

/// Every key that has a value if the file has the required ones only.
fn defaults() -> Table {
    let config = Config::deserialize(required()).expect("the required keys");
    toml::from_str(&toml::to_string(&config).expect("TOML")).expect("TOML")
}

fn is_required(path: &str) -> bool {
    let mut table = required();
    let (within, key) = place(&mut table, path);
    within.remove(key).is_some()
        && Config::deserialize(table).is_err_and(|error| error.message().contains("missing field"))
}

/// The values of the enumeration at `path`.
fn choices(path: &str) -> Vec<String> {
    // Of a list of them, by an item of it.
    let wrong = [Value::from("?"), Value::from(vec!["?"])];
    let known = wrong.into_iter().find_map(|wrong| {
        let mut table = required();
        put(&mut table, path, wrong);
        let error = Config::deserialize(table).expect_err(path);
        let (_, known) = error.message().split_once(", expected ").expect(path);
        let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        (!known.is_empty()).then(|| known.into_iter().map(str::to_owned).collect())
    });
    known.expect(path)
}

fn code(text: impl std::fmt::Display) -> String {
    format!("`{text}`")
}

fn row(cells: &[impl AsRef<str>]) -> String {
    let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
    assert!(!cells.iter().any(|cell| cell.contains('|')), "{cells:?}");
    // An empty cell is one space wide.
    format!("| {} |\n", cells.join(" | ")).replace("|  |", "| |")
}

fn head(cells: &[impl AsRef<str>]) -> String {
    format!("\n{}{}|\n", row(cells), "|---".repeat(cells.len()))
}

impl Section {
    fn page(&self) -> String {
        let title = match (&self.path[..], self.kind.starts_with("Vec<")) {
            ("", _) => "Top level".to_owned(),
            (path, true) => code(format!("[[{path}]]")),
            (path, false) => code(format!("[{path}]")),
        };
        let mut page = format!("\n## {title}\n\n{}\n", self.meaning.replace(". ", ".\n"));
        page += match (&self.path[..], self.kind.starts_with("Vec<")) {
            ("", _) => "",
            (path, _) if is_required(path) => "The table is required.\n",
            (_, true) => "The table is optional, and may be repeated.\n",
            (_, false) => "The table is optional.\n",
        };
        page += &head(&["key", "type", "default", "range", "meaning"]);
        for key in &self.keys {
            let range = key.doc.range.as_deref().unwrap_or_default();
            page +=
                &row(&[&code(&key.name)[..], &key.kind(), &key.default(), range, &key.doc.meaning]);
        }
        let listed = |key: &&Key| !key.doc.values.is_empty();
        if self.keys.iter().any(|key| listed(&key)) {
            page += &head(&["key", "value", "meaning"]);
        }
        for key in self.keys.iter().filter(listed) {
            let mut name = code(&key.name);
            for (value, meaning) in &key.doc.values {
                page += &row(&[&std::mem::take(&mut name), &code(value), meaning]);
            }
        }
        page
    }
}

impl Key {
    fn kind(&self) -> String {
        match &self.kind[..] {
            "Vec<usize>" => "list of integers".to_owned(),
            "[usize; 2]" => "list of 2 integers".to_owned(),
            "Vec<String>" | "Option<Vec<String>>" => "list of texts".to_owned(),
            "bool" => "boolean".to_owned(),
            kind => match inner(kind) {
                "String" => "text".to_owned(),
                "PathBuf" => "path".to_owned(),
                "u32" | "u64" | "usize" => "integer".to_owned(),
                "f32" => "number".to_owned(),
                "IdRates" => "number, or table of numbers".to_owned(),
                _ => {
                    let of = if kind.starts_with("Vec<") { "list of " } else { "" };
                    let choices: Vec<String> = choices(&self.path).iter().map(code).collect();
                    format!("{of}{}", choices.join(", "))
                }
            },
        }
    }

    fn default(&self) -> String {
        let mut defaults = defaults();
        let (table, key) = place(&mut defaults, &self.path);
        match (&self.doc.default, table.get(key)) {
            (None, Some(_)) if is_required(&self.path) => "required".to_owned(),
            (None, Some(value)) => code(value),
            (Some(default), None) => default.clone(),
            (None, None) => panic!("{}: the doc has no `Default: ..`", self.path),
            (Some(_), Some(value)) => panic!("{}: `Default: ..`, but it is {value}", self.path),
        }
    }
}

/// The keys that presets set, with the values of each.
fn presets(sections: &[Section]) -> String {
    let names = choices("model.preset");
    let expanded = |name: &String| {
        let mut table = Table::new();
        put(&mut table, "model.preset", Value::from(&name[..]));
        preset::expand(&mut table);
        table
    };
    let mut of_presets: Vec<Table> = names.iter().map(expanded).collect();
    let mut page = "\n## Presets\n\n`model.preset` names values that stand in for the defaults.\n\
                    Keys of the file and of `--set` take precedence over them.\n"
        .to_owned();
    page +=
        &head(&["key".to_owned()].into_iter().chain(names.iter().map(code)).collect::<Vec<_>>());
    let keys = sections.iter().flat_map(|section| &section.keys);
    for key in keys.filter(|key| key.path != "model.preset") {
        let mut value = |table| {
            let (table, name): (&mut Table, _) = place(table, &key.path);
            table.get(name).map(code)
        };
        let values: Vec<Option<String>> = of_presets.iter_mut().map(&mut value).collect();
        if values.iter().any(Option::is_some) {
            let values = values.into_iter().map(|value| value.unwrap_or_else(|| key.default()));
            page += &row(&[code(&key.path)].into_iter().chain(values).collect::<Vec<_>>());
        }
    }
    page
}

#[test]
fn the_page_of_the_configuration_is_up_to_date() {
    let sections = every_section();
    let tables: String = sections.iter().map(Section::page).collect();
    let page = format!("{BEGINNING}{tables}{}", presets(&sections));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = page.lines().zip(written.lines().chain([""; 1000])).find(|(a, b)| a != b);
    assert!(
        page == written,
        "docs/configuration.md is not that of the settings; write it with UPDATE_DOCS=1\n{differs:#?}"
    );
}

#[test]
fn every_key_has_a_meaning_and_its_range() {
    for key in every_section().iter().flat_map(|section| &section.keys) {
        let Key { path, kind, doc, .. } = key;
        assert!(doc.meaning.starts_with(char::is_uppercase), "{path}: {}", doc.meaning);
        let counts =
            matches!(inner(kind), "u32" | "u64" | "usize" | "f32" | "IdRates" | "[usize; 2]");
        // `Config::check` names the key.
        let checked = SOURCE.contains(&format!("{path:?},"));
        assert!(doc.range.is_some() || !(counts || checked), "{path}: no `Range: ..` in its doc");
        if !doc.values.is_empty() {
            let listed: Vec<&String> = doc.values.iter().map(|(value, _)| value).collect();
            assert_eq!(listed, choices(path).iter().collect::<Vec<_>>(), "{path}");
        }
    }
}

/// A number of `range` at each of its bounds and one beyond it, with whether it is in the range.
/// Bounds that are other keys, and what follows a semicolon, are left out.
fn bounds(range: &str, is_integer: bool) -> Vec<(String, bool)> {
    let first = range.split(';').next().unwrap_or_default().trim_start_matches("each ");
    let mut tried = Vec::new();
    let mut add = |bound: &str, beyond: i128, of_bound: bool| {
        let other = match (is_integer, bound.parse::<i128>(), bound.parse::<f64>()) {
            (true, Ok(bound), _) => (bound + beyond).to_string(),
            (false, _, Ok(bound)) => format!("{:?}", bound + beyond as f64 / 1000.0),
            _ => return,
        };
        let is_whole = is_integer || bound.contains('.');
        let bound = if is_whole { bound.to_owned() } else { format!("{bound}.0") };
        tried.extend([(bound, of_bound), (other, !of_bound)]);
    };
    for part in first.split(", ").flat_map(|part| part.split(" and ")) {
        if let Some((low, high)) = part.split_once(" to ") {
            add(low, -1, true);
            add(high, 1, true);
        } else if let Some(low) = part.strip_prefix("at least ") {
            add(low, -1, true);
        } else if let Some(low) = part.strip_prefix("more than ") {
            add(low, 1, false);
        } else if let Some(high) = part.strip_prefix("at most ") {
            add(high, 1, true);
        } else if let Some(high) = part.strip_prefix("less than ") {
            add(high, -1, false);
        }
    }
    if !is_integer {
        tried.extend(["inf", "nan"].map(|text| (text.to_owned(), false)));
    }
    tried
}

/// All that is checked of a configuration before files of samples are opened.
fn check(table: Table) -> Result<(), String> {
    let mut table = table;
    preset::expand(&mut table);
    let config = Config::deserialize(table).map_err(|error| error.to_string())?;
    let checked = sources::open(&config).and_then(|(dataset, stores)| {
        resolve::resolve(&config, &dataset, &stores)?;
        resolve::topology(&config, &dataset, &Solo)?;
        validation::check(&config, dataset.card())
    });
    checked.map_err(|error| error.to_string())
}

#[test]
fn ranges_are_those_that_are_checked() {
    let samples: PathBuf = shop().join("data");
    let mut tried = 0;
    for key in every_section().iter().flat_map(|section| &section.keys) {
        let (path, range) = (&key.path[..], key.doc.range.as_deref().unwrap_or_default());
        let is_integer = match inner(&key.kind) {
            "f32" | "IdRates" => false,
            "u32" | "u64" | "usize" | "[usize; 2]" => true,
            _ => continue,
        };
        for (text, is_good) in bounds(range, is_integer) {
            let mut table: Table = toml::from_str("name = 'x'").expect("TOML");
            put(&mut table, "data.samples", Value::from(samples.to_str().unwrap()));
            if path.starts_with("train.phases.") {
                let phases: Table = toml::from_str("phases = [{ epochs = 1 }]").unwrap();
                put(&mut table, "train.phases", phases["phases"].clone());
            }
            // For `early_stop`; a tail of the time excludes it.
            if path != "train.validation_tail" {
                put(&mut table, "train.validation_parts", Value::from(4));
            }
            // For `sketch_bytes`.
            put(&mut table, "train.min_occurrences", Value::from(2));
            let value = toml::from_str::<Table>(&format!("value = {text}"));
            let checked = value.map_err(|error| error.to_string()).and_then(|mut value| {
                let value = value.remove("value").unwrap();
                let is_list = matches!(&key.kind[..], "Vec<usize>" | "[usize; 2]");
                let value = if is_list {
                    let mut defaults = defaults();
                    let (defaults, name) = place(&mut defaults, path);
                    let mut list = defaults[name].as_array().unwrap().clone();
                    list[0] = value;
                    Value::Array(list)
                } else {
                    value
                };
                if path == "model.embedding_dim" {
                    put(&mut table, "model.tower", Value::Array(vec![value.clone()]));
                }
                put(&mut table, path, value);
                check(table)
            });
            assert_eq!(checked.is_ok(), is_good, "{path} = {text}, range {range}: {checked:?}");
            tried += 1;
        }
    }
    assert!(tried > 70, "{tried} values were tried");
}
