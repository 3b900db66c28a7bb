//! The nights of a simulation: `ams daily` makes the versions, in folders of their own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ams_bundle::Model;
use ams_daily::{Day, Entry, State};
use ams_data::synth::{Dice, Entity, Shown};
use ams_location::Locations;
use ams_market::{
    Arm, Design, Explored, ExploredFile, InProcess, Learned, Nights, Scene, Variant, World,
};
use ams_serve::serving_version;
use clap::{Args, Command};
use toml::{Table, Value};

use super::config::{SimulateConfig, VariantConfig};
use super::remote::Remote;
use crate::commands::encode;
use crate::failure::Failure;
use crate::launch::Launch;
use crate::output::Caller;
use crate::settings::flags;

/// What all seeds of a simulation have in common.
pub(super) struct Place<'a> {
    pub(super) config: &'a SimulateConfig,
    pub(super) out: &'a Path,
    /// The server that answers, if it is not this process.
    pub(super) url: Option<&'a str>,
    pub(super) threads: usize,
    pub(super) caller: Caller,
    pub(super) launch: &'a Launch,
    pub(super) locations: &'a Locations,
}

/// The versions of a seed.
pub(super) struct Daily<'a> {
    place: &'a Place<'a>,
    folder: PathBuf,
    /// The features of all pictures.
    store: PathBuf,
    /// The pictures of the items, as `items.csv` names them.
    images: Vec<String>,
}

/// Those of a world.
pub(super) struct OfWorld<'a> {
    seed: &'a Daily<'a>,
    scene: &'a Scene,
    world: World,
    explored: ExploredFile,
}

fn make(folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(|error| unusable(folder, &error))
}

fn unusable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::user(format!("{}: {error}", path.display()))
}

/// A path as a value of TOML.
fn text(path: &Path) -> Result<Value, Failure> {
    let here = std::path::absolute(path).map_err(|error| unusable(path, &error))?;
    let text = here.into_os_string().into_string();
    text.map(Value::String).map_err(|_| Failure::user(format!("{}: not Unicode", path.display())))
}

fn write(path: &Path, table: &Table) -> Result<(), Failure> {
    let text = toml::to_string(table).expect("a table is TOML");
    Ok(ams_data::staging::write_whole(path, text)?)
}

impl Place<'_> {
    /// Runs another command in this process.
    fn command(&self, given: &[OsString]) -> Result<(), Failure> {
        crate::within(given, self.launch, self.locations, &self.caller)
    }

    fn threads_flag(&self) -> OsString {
        format!("--threads={}", self.threads).into()
    }
}

impl<'a> Daily<'a> {
    /// Writes the files of the shop, whose pictures `draw` draws, encodes these, and writes the log
    /// of the days before.
    pub(super) fn begin(
        place: &'a Place<'a>,
        scene: &Scene,
        draw: impl FnOnce(&Path) -> Result<Vec<String>, Failure>,
    ) -> Result<Daily<'a>, Failure> {
        let folder = place.out.join(format!("seed-{}", scene.seed()));
        let (shop, before) = (folder.join("shop"), folder.join("before"));
        make(&shop)?;
        make(&before)?;
        let images = draw(&shop)?;
        for (number, log) in scene.before().iter().enumerate() {
            let file = before.join(format!("{number:03}.parquet"));
            scene.shop().write_log(&file, log.iter().copied())?;
        }
        let store = shop.join("features");
        let all = shop.join("all.csv");
        scene.shop().write_items(&all, scene.shop().config().days)?;
        let mut given: Vec<OsString> = vec!["encode".into(), "--list".into(), all.into()];
        given.extend(["--list-column", "image", "--images"].map(OsString::from));
        given.extend([shop.into(), "--out".into(), store.clone().into(), place.threads_flag()]);
        let command = encode::Arguments::augment_args(Command::new("encode"));
        given.extend(flags(&command, &place.config.encode, "encode")?);
        place.command(&given)?;
        Ok(Daily { place, folder, store, images })
    }

    /// The pictures of the items.
    pub(super) fn images(&self) -> &[String] {
        &self.images
    }

    /// The folder of their features.
    pub(super) fn store(&self) -> &Path {
        &self.store
    }

    /// The versions of a world that begins.
    pub(super) fn of_world(
        &'a self,
        scene: &'a Scene,
        world: World,
    ) -> Result<OfWorld<'a>, Failure> {
        let folder = self.folder.join(world.name());
        make(&folder)?;
        let explored = ExploredFile::create(&folder.join("explored.parquet"))?;
        Ok(OfWorld { seed: self, scene, world, explored })
    }
}

impl OfWorld<'_> {
    /// Writes the ends of files.
    pub(super) fn end(self) -> Result<(), Failure> {
        Ok(self.explored.finish()?)
    }

    /// The folder of a model.
    fn folder(&self, arm: Arm) -> PathBuf {
        self.seed.folder.join(self.world.name()).join(arm.name())
    }

    fn models(&self) -> PathBuf {
        self.seed.place.out.join("models")
    }

    fn name(&self, arm: Arm) -> String {
        format!("{}-{}-{}", self.scene.seed(), self.world.name(), arm.name())
    }

    fn config(&self, arm: Arm) -> &VariantConfig {
        let SimulateConfig { a, b, .. } = self.seed.place.config;
        if self.is_same() { a } else { [a, b][arm.variant] }
    }

    /// Whether both variants are A.
    fn is_same(&self) -> bool {
        self.world == World::Divided(Design::Same)
    }

    /// The seed of the trainings of a model, where that of the first model of a variant is `given`:
    /// the same in all worlds. Those of A and A are different.
    fn training_seed(&self, given: i64, arm: Arm) -> i64 {
        let stream = 2 * arm.replica + if self.is_same() { arm.variant } else { 0 };
        match stream {
            0 => given,
            stream => {
                let mut dice = Dice::new(given as u64, Entity::Assignment, stream as u64, 3);
                dice.below(1 << 31) as i64
            }
        }
    }

    /// Writes the files that `ams daily` is given, where the newest day is `day` and the items of
    /// the next one are listed already; the path of its configuration.
    fn write_files(&self, arm: Arm, day: usize) -> Result<PathBuf, Failure> {
        let (folder, log) = (self.folder(arm), self.folder(arm).join("log"));
        make(&log)?;
        let items = folder.join("items.csv");
        self.scene.shop().write_items(&items, day + 1)?;
        let mut events = vec![text(&self.seed.folder.join("before"))?];
        if day >= self.scene.first_day() {
            events.push(text(&log)?);
        }
        let train = folder.join("train.toml");
        let mut settings: Table = toml::from_str(&self.config(arm).train)
            .map_err(|error| Failure::user(format!("{}: {error}", self.config(arm).name)))?;
        let data = settings.entry("data").or_insert_with(|| Value::Table(Table::new()));
        let data = data.as_table_mut().ok_or_else(|| Failure::user("data is no table"))?;
        data.insert("images".to_owned(), text(&self.seed.store)?);
        let own = Value::Integer(self.scene.seed() as i64);
        // What is no number is refused by the training.
        if let Value::Integer(seed) = settings.entry("seed").or_insert(own) {
            *seed = self.training_seed(*seed, arm);
        }
        write(&train, &settings)?;
        let word = |text: &str| Value::String(text.to_owned());
        let mut prepare = Table::from_iter([
            ("events".to_owned(), Value::Array(events)),
            ("items".to_owned(), text(&items)?),
        ]);
        for (key, fields) in [
            ("user_fields", "gender,age"),
            ("item_fields", "category,brand"),
            ("context_fields", "hour,position"),
        ] {
            prepare.insert(key.to_owned(), word(fields));
        }
        let mut daily = self.seed.place.config.daily.clone();
        daily.insert("name".to_owned(), Value::String(self.name(arm)));
        daily.insert("models".to_owned(), text(&self.models())?);
        daily.insert("work".to_owned(), text(&folder.join("daily"))?);
        daily.insert("train".to_owned(), text(&train)?);
        daily.insert("prepare".to_owned(), Value::Table(prepare));
        let path = folder.join("daily.toml");
        write(&path, &daily)?;
        Ok(path)
    }

    /// Has `ams daily` make the version of `day`; what was decided, and the version that serves.
    fn make_day(&self, arm: Arm, day: usize) -> Result<(Entry, u64), Failure> {
        let config = self.write_files(arm, day)?;
        let date = Day::of(self.scene.shop().midnight(day));
        let given = ["daily".into(), config.into(), "--day".into(), date.to_string().into()];
        let given: Vec<OsString> =
            given.into_iter().chain([self.seed.place.threads_flag()]).collect();
        match self.seed.place.command(&given) {
            // The version before serves on.
            Ok(()) | Err(Failure::Refused(_)) => {}
            Err(failure) => return Err(failure),
        }
        let name = self.name(arm);
        let state = self.folder(arm).join("daily/state.json");
        let state = State::read(&state, &name)?;
        let entry = state.of(date).expect("it was just made").clone();
        let serving = serving_version(&self.models(), &name)?;
        let lacking = || {
            let reasons = entry.reasons.join("; ");
            Failure::user(format!("{name}: no version serves on {date}: {reasons}"))
        };
        let serving = serving.ok_or_else(lacking)?;
        Ok((entry, serving))
    }

    fn version(&self, arm: Arm, version: u64) -> Result<Box<dyn Variant>, Failure> {
        let name = self.name(arm);
        Ok(match self.seed.place.url {
            Some(url) => Box::new(Remote::when_there(url, &name, version)?),
            None => {
                let path = self.models().join(name).join(version.to_string());
                Box::new(InProcess(Model::open(&path)?))
            }
        })
    }
}

impl Nights for OfWorld<'_> {
    type Error = Failure;

    fn first(&mut self, _: World, arm: Arm) -> Result<Box<dyn Variant>, Failure> {
        let (_, serving) = self.make_day(arm, self.scene.first_day() - 1)?;
        self.version(arm, serving)
    }

    fn night(&mut self, _: World, arm: Arm, day: usize, log: &[Shown]) -> Result<Learned, Failure> {
        let file = self.folder(arm).join("log").join(format!("{day:03}.parquet"));
        self.scene.shop().write_log(&file, log.iter().copied())?;
        let (entry, serving) = self.make_day(arm, day)?;
        let is_new = entry.version.is_some();
        let metric = |of: &ams_daily::Comparison| {
            let value = if is_new { of.new } else { of.serving };
            Some((of.metric.clone(), value?))
        };
        let metrics: BTreeMap<String, f64> = entry.compared.iter().filter_map(metric).collect();
        Ok(Learned { variant: self.version(arm, serving)?, is_new, metrics })
    }

    fn explored(&mut self, _: World, pages: &[Explored]) -> Result<(), Failure> {
        Ok(self.explored.push(self.scene, pages)?)
    }
}
