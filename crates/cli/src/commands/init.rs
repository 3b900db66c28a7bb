//! `ams init`: from tables that nobody has described to the files that the way needs.
//!
//! Every line of a file that it writes has its evidence above it; what may be wrong begins with
//! `UNSURE`. Nothing is prepared or trained.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ams_data::prepare::{About, Guess, Inputs, PrepareOptions, Proposal, about, plan, propose};
use ams_data::source::{LocalFiles, Table, TableOptions, open_all};
use ams_data::staging::write_whole;
use ams_image::listing::{files_below, is_named_like_a_picture};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::Output;

/// How files of tables end; compressed ones have another ending behind it.
const TABLES: [&str; 10] =
    ["csv", "tsv", "txt", "json", "jsonl", "ndjson", "parquet", "pq", "arrow", "feather"];
const COMPRESSED: [&str; 4] = ["gz", "zst", "zstd", "bz2"];

/// Look at a log and its pictures, and write the settings for `prepare`, `train` and `daily` with
/// the reason of each; print the commands to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Tables of events, items and users (Parquet, CSV, TSV, JSON lines, Arrow), and folders of
    /// them or of pictures.
    #[arg(required = true, value_name = "DATA")]
    data: Vec<PathBuf>,
    /// The folder for `prepare.toml`, `train.toml` and `daily.toml`.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Replace files that are there already.
    #[arg(long)]
    replace: bool,
}

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    prepare: PathBuf,
    train: PathBuf,
    daily: PathBuf,
    events: Vec<PathBuf>,
    items: Vec<PathBuf>,
    users: Vec<PathBuf>,
    /// The folder that the names of pictures are relative to.
    images: Option<PathBuf>,
    /// What may be wrong.
    unsure: Vec<String>,
    /// Files that are no part of it, and why.
    left_out: Vec<String>,
    commands: Vec<String>,
}

/// Files of the same columns.
struct Group {
    paths: Vec<PathBuf>,
    table: Box<dyn Table>,
    about: About,
    bytes: u64,
}

/// What was found in the places that were named.
#[derive(Default)]
struct Found {
    groups: Vec<Group>,
    /// Names of pictures in each folder, relative to it.
    pictures: BTreeMap<PathBuf, BTreeSet<String>>,
    left_out: Vec<String>,
}

/// The tables that are used.
struct Chosen {
    events: Group,
    items: Option<Group>,
    users: Option<Group>,
    left_out: Vec<String>,
}

/// The folder that the names of pictures are relative to.
struct Images {
    folder: PathBuf,
    evidence: String,
}

pub(crate) fn run(arguments: &Arguments, output: Output) -> Result<(), Failure> {
    let out = &arguments.out;
    let [to_prepare, to_train, to_daily] =
        ["prepare.toml", "train.toml", "daily.toml"].map(|name| out.join(name));
    for path in [&to_prepare, &to_train, &to_daily] {
        if path.exists() && !arguments.replace {
            let what = "is there already; choose another folder with --out, or --replace it";
            return Err(Failure::user(format!("{}: {what}", path.display())));
        }
    }
    let mut found = Found::default();
    for path in &arguments.data {
        found.look(path)?;
    }
    let Found { groups, pictures, left_out } = found;
    let mut chosen = choose(groups)?;
    chosen.left_out.extend(left_out);
    let (items, users) = (chosen.items.as_ref(), chosen.users.as_ref());
    let proposal = propose(
        chosen.events.table.as_ref(),
        items.map(|group| group.table.as_ref()),
        users.map(|group| group.table.as_ref()),
    )?;
    let images = images(&proposal.pictures, &pictures);
    let refused = refused(&chosen, &proposal.options);
    let commands = commands(&chosen, images.as_ref(), out);
    let mut unsure: Vec<String> = proposal
        .guesses
        .iter()
        .filter_map(|guess| Some(format!("{}: {}", guess.of, guess.doubt.as_ref()?)))
        .collect();
    unsure.extend(refused.iter().map(|why| format!("prepare refuses these settings: {why}")));
    if images.is_none() && !proposal.pictures.is_empty() {
        unsure.push("pictures: the items name some, but no folder with them was named".to_owned());
    }
    std::fs::create_dir_all(out)
        .map_err(|error| Failure::user(format!("{}: {error}", out.display())))?;
    write_whole(&to_prepare, prepare_toml(&proposal, &chosen, refused.as_deref(), &commands)?)?;
    write_whole(&to_train, train_toml(out, images.as_ref(), &proposal))?;
    write_whole(&to_daily, daily_toml(out, &chosen, images.as_ref()))?;
    let paths = |group: Option<&Group>| group.map_or(Vec::new(), |group| group.paths.clone());
    let report = Report {
        prepare: to_prepare,
        train: to_train,
        daily: to_daily,
        events: chosen.events.paths.clone(),
        items: paths(chosen.items.as_ref()),
        users: paths(chosen.users.as_ref()),
        images: images.map(|images| images.folder),
        unsure,
        left_out: chosen.left_out,
        commands,
    };
    output.finish(&report, || text(&report));
    Ok(())
}

impl Found {
    /// Looks at a file, or at everything below a folder.
    fn look(&mut self, path: &Path) -> Result<(), Failure> {
        let unreadable = |error| Failure::user(format!("{}: {error}", path.display()));
        if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
            // One that was named is a table, however it ends.
            return self.add(path).map_err(Failure::user);
        }
        let mut pictures = BTreeSet::new();
        for name in files_below(path)? {
            let file = path.join(&name);
            if is_named_like_a_picture(&name) {
                pictures.insert(name);
            } else if is_table(&name) {
                if let Err(why) = self.add(&file) {
                    self.left_out.push(why);
                }
            } else {
                self.left_out.push(format!("{}: no table by its ending", file.display()));
            }
        }
        self.pictures.insert(path.to_path_buf(), pictures);
        Ok(())
    }

    /// Adds a file to those of the same columns.
    fn add(&mut self, path: &Path) -> Result<(), String> {
        let open = |paths: &[PathBuf]| {
            open_all(&LocalFiles, paths, &TableOptions::default())
                .map_err(|error| error.to_string())
        };
        let table = open(&[path.to_path_buf()])?;
        let about = about(table.as_ref()).map_err(|error| error.to_string())?;
        let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
        let alike = |group: &&mut Group| group.table.columns() == table.columns();
        if let Some(group) = self.groups.iter_mut().find(alike) {
            let mut paths = group.paths.clone();
            paths.push(path.to_path_buf());
            // Files of several formats are no one table.
            group.table = open(&paths)?;
            group.paths = paths;
            group.bytes += bytes;
            return Ok(());
        }
        self.groups.push(Group { paths: vec![path.to_path_buf()], table, about, bytes });
        Ok(())
    }
}

/// Whether a file's name ends as a table's.
fn is_table(name: &str) -> bool {
    let mut endings = name.rsplit('.').map(str::to_lowercase).take(2);
    let last = endings.next().unwrap_or_default();
    let ending = if COMPRESSED.contains(&&last[..]) { endings.next() } else { Some(last) };
    ending.is_some_and(|ending| TABLES.contains(&&ending[..]))
}

/// Of each kind of table the one that says most: that with pictures, then the largest.
fn choose(mut groups: Vec<Group>) -> Result<Chosen, Failure> {
    let rank = |group: &Group| {
        let pictures = group.about == About::Items { pictures: true };
        (!pictures, u64::MAX - group.bytes, group.paths.clone())
    };
    groups.sort_by_key(rank);
    let (mut events, mut items, mut users, mut left_out) = (None, None, None, Vec::new());
    let mut seen = Vec::new();
    for group in groups {
        let first = group.paths[0].display();
        let columns = group.table.columns().join(", ");
        seen.push(format!("{first} ({columns})"));
        let (place, kind) = match group.about {
            About::Events => (&mut events, "events"),
            About::Items { .. } => (&mut items, "items"),
            About::Users => (&mut users, "users"),
            About::Nothing => {
                left_out.push(format!("{first}: it has neither users nor items"));
                continue;
            }
        };
        match place {
            None => *place = Some(group),
            Some(_) => left_out.push(format!("{first}: another table says more of the {kind}")),
        }
    }
    let events = events.ok_or_else(|| {
        let seen = if seen.is_empty() { "no table".to_owned() } else { seen.join("; ") };
        Failure::user(format!(
            "no table of events: one has a column of users and one of items, such as `user` and `item`; found: {seen}"
        ))
    })?;
    Ok(Chosen { events, items, users, left_out })
}

/// The folder below which the files `names` are, if there is one.
fn images(names: &[String], folders: &BTreeMap<PathBuf, BTreeSet<String>>) -> Option<Images> {
    let mut best: Option<(usize, PathBuf)> = None;
    for (folder, files) in folders {
        // A name is relative to the folder, or to one below it.
        let mut below: BTreeMap<&str, usize> = BTreeMap::new();
        for name in names.iter().take(200) {
            let end = format!("/{name}");
            if files.contains(name) {
                *below.entry("").or_default() += 1;
            } else if let Some(file) = files.iter().find(|file| file.ends_with(&end)) {
                *below.entry(&file[..file.len() - end.len()]).or_default() += 1;
            }
        }
        for (prefix, count) in below {
            if best.as_ref().is_none_or(|(most, _)| count > *most) {
                best = Some((
                    count,
                    if prefix.is_empty() { folder.clone() } else { folder.join(prefix) },
                ));
            }
        }
    }
    let (count, folder) = best?;
    let evidence = format!(
        "{count} of the first {} pictures that items name are files of {}",
        names.len().min(200),
        folder.display()
    );
    Some(Images { folder, evidence })
}

/// Why `prepare` does not take these options, if it does not.
fn refused(chosen: &Chosen, options: &PrepareOptions) -> Option<String> {
    let open = |group: &Group| open_all(&LocalFiles, &group.paths, &TableOptions::default());
    let inputs = || -> Result<Inputs, ams_data::Error> {
        Ok(Inputs {
            events: open(&chosen.events)?,
            items: chosen.items.as_ref().map(open).transpose()?,
            users: chosen.users.as_ref().map(open).transpose()?,
        })
    };
    let planned = inputs().and_then(|inputs| plan(inputs, options.clone()));
    planned.err().map(|error| error.to_string())
}

/// The commands from the tables to a server.
fn commands(chosen: &Chosen, images: Option<&Images>, out: &Path) -> Vec<String> {
    let at = |name: &str| quoted(&out.join(name));
    let tables = |flag: &str, group: Option<&Group>| {
        group.map_or(String::new(), |group| {
            let paths: Vec<String> = group.paths.iter().map(|path| quoted(path)).collect();
            format!(" --{flag} {}", paths.join(" "))
        })
    };
    let prepare = format!(
        "ams prepare --config {}{}{}{} --out {}",
        at("prepare.toml"),
        tables("events", Some(&chosen.events)),
        tables("items", chosen.items.as_ref()),
        tables("users", chosen.users.as_ref()),
        at("data")
    );
    let encode = images
        .map(|images| format!("ams encode {} --images {}", at("data"), quoted(&images.folder)));
    let others = [
        format!("ams train {}", at("train.toml")),
        format!("ams eval {}", quoted(&out.join("runs").join("first"))),
        format!(
            "ams publish {} --to {} && ams serve {}",
            quoted(&out.join("runs").join("first")),
            at("models"),
            at("models")
        ),
    ];
    std::iter::once(prepare).chain(encode).chain(others).collect()
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let text = path.strip_prefix(".").unwrap_or(path).display().to_string();
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '=' | '+');
    if !text.is_empty() && text.chars().all(plain) && !text.starts_with('-') {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The settings of `prepare` with their reasons.
fn prepare_toml(
    proposal: &Proposal,
    chosen: &Chosen,
    refused: Option<&str>,
    commands: &[String],
) -> Result<String, Failure> {
    let all = toml::Table::try_from(&proposal.options)
        .map_err(|error| Failure::user(format!("prepare.toml: {error}")))?;
    let mut text = comment(&format!("Settings of: {}", commands[0]));
    text += &comment(
        "Written by `ams init`: above each setting is what was seen. Look at the UNSURE ones.",
    );
    if let Some(why) = refused {
        text += &comment(&format!("UNSURE: `ams prepare` refuses these settings: {why}"));
    }
    for left in &chosen.left_out {
        text += &comment(&format!("Left out: {left}"));
    }
    let (columns, others): (Vec<&Guess>, Vec<&Guess>) =
        proposal.guesses.iter().partition(|guess| guess.of.starts_with("columns."));
    for guess in others {
        text += &setting(&guess.of, guess, all.get(&guess.of));
    }
    text += "\n[columns]\n";
    let table = all.get("columns").and_then(toml::Value::as_table);
    for guess in columns {
        let key = guess.of.trim_start_matches("columns.");
        text += &setting(key, guess, table.and_then(|table| table.get(key)));
    }
    Ok(text)
}

/// A setting below its reason; the reason alone, if there is no such setting.
fn setting(key: &str, guess: &Guess, value: Option<&toml::Value>) -> String {
    let mut text = "\n".to_owned();
    let of = if value.is_some() { String::new() } else { format!("{key}: ") };
    text += &comment(&format!("{of}{}", guess.evidence));
    if let Some(doubt) = &guess.doubt {
        text += &comment(&format!("UNSURE: {doubt}"));
    }
    text += &value.map_or(String::new(), |value| format!("{key} = {value}\n"));
    text
}

/// Words as comments of TOML, which texts from tables cannot end.
fn comment(words: &str) -> String {
    let lines = words.split(|c: char| c.is_control() && c != '\t');
    lines.filter(|line| !line.is_empty()).map(|line| format!("# {line}\n")).collect()
}

/// The settings of `train`.
fn train_toml(out: &Path, images: Option<&Images>, proposal: &Proposal) -> String {
    let at = |name: &str| toml::Value::from(out.join(name).display().to_string());
    let mut text = comment("Settings of `ams train`; docs/configuration.md has all of them.");
    text += "name = \"first\"\n";
    text += &format!("runs = {}\n\n[data]\nsamples = {}\n\n[model]\n", at("runs"), at("data"));
    match images {
        Some(images) => {
            text += &comment(&images.evidence);
            text += &comment(
                "Ids alone, similarity of pictures and towers are compared; what is best is trained.",
            );
        }
        None => {
            let why = match proposal.pictures.is_empty() {
                true => {
                    "No pictures were found: ids alone are trained, until `ams encode` made features."
                }
                false => {
                    "UNSURE: items name pictures, but none of their files was found: ids alone are \
                     trained, until `ams encode` made features."
                }
            };
            text += &comment(why);
        }
    }
    text += &comment(
        "The newest tenth of the training samples decides what is best, and after how many epochs \
         (docs/pictures.md).",
    );
    text + "preset = \"recommended\"\n"
}

/// The settings of `daily`.
fn daily_toml(out: &Path, chosen: &Chosen, images: Option<&Images>) -> String {
    let value = |path: &Path| toml::Value::from(path.display().to_string());
    let at = |name: &str| value(&out.join(name));
    let mut text = comment(&format!(
        "Settings of: ams daily {} --day yesterday (docs/daily.md)",
        quoted(&out.join("daily.toml"))
    ));
    text += &format!("name = \"first\"\nmodels = {}\nwork = {}\n", at("models"), at("daily"));
    text += &format!("train = {}\n", at("train.toml"));
    text += &comment(
        "The preset `recommended` chooses between models of different shapes: none begins with another one's weights.",
    );
    text += &format!("warm_start = \"none\"\n\n[prepare]\nconfig = {}\n", at("prepare.toml"));
    let tables = [
        ("events", Some(&chosen.events)),
        ("items", chosen.items.as_ref()),
        ("users", chosen.users.as_ref()),
    ];
    for (key, group) in tables {
        let paths = group.map(|group| group.paths.iter().map(|path| value(path)).collect());
        text += &paths
            .map_or(String::new(), |paths| format!("{key} = {}\n", toml::Value::Array(paths)));
    }
    if let Some(images) = images {
        text += &format!("\n[encode]\nimages = {}\n", value(&images.folder));
    }
    text
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut files = |what: &str, paths: &[PathBuf]| {
        if !paths.is_empty() {
            let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            text += &format!("{what:<9} {}\n", paths.join(", "));
        }
    };
    files("events", &report.events);
    files("items", &report.items);
    files("users", &report.users);
    files("pictures", report.images.as_slice());
    for left in &report.left_out {
        text += &format!("left out  {left}\n");
    }
    for doubt in &report.unsure {
        text += &format!("unsure    {doubt}\n");
    }
    text += &format!(
        "\nWrote {}, {} and {}: look at what is unsure, then run\n\n",
        report.prepare.display(),
        report.train.display(),
        report.daily.display()
    );
    report.commands.iter().fold(text, |text, command| text + &format!("  {command}\n"))
}
