//! A world: who is ranked by which variant, and who learns from whom; day after day.
//!
//! Knows days and nights. Does not know how a night makes a new version.

use std::collections::BTreeMap;

use ams_data::synth::{Dice, Entity, Shown};
use rayon::prelude::*;

use crate::config::Design;
use crate::explored::Explored;
use crate::matching::{Known, Matching};
use crate::page::{Buffers, Traffic, UserDay};
use crate::scene::{Click, Scene, in_order};
use crate::tally::Tally;
use crate::variant::{Desk, Variant};

/// A course that things can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum World {
    /// All users on one variant, which learns from all of them: 0 is A, 1 is B. Both together are
    /// the truth.
    All(usize),
    /// An experiment.
    Divided(Design),
}

/// A model of a variant: what ranks for some of the users of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arm {
    /// 0 is A, 1 is B.
    pub variant: usize,
    /// Which of the variant's models, from 0.
    pub replica: usize,
}

impl Arm {
    /// The word for it in files: `a`, `b`, and `a-2` for the second model of A.
    pub fn name(self) -> String {
        let variant = ["a", "b"][self.variant];
        match self.replica {
            0 => variant.to_owned(),
            replica => format!("{variant}-{}", replica + 1),
        }
    }
}

/// What a night made.
pub struct Learned {
    /// The version that serves tomorrow.
    pub variant: Box<dyn Variant>,
    /// Whether it is a new one.
    pub is_new: bool,
    /// Offline metrics of the version that serves tomorrow, by name; empty if none was compared.
    pub metrics: BTreeMap<String, f64>,
}

/// Makes the versions of the variants.
pub trait Nights {
    /// Why there is no version.
    type Error: From<String>;

    /// The version of `arm` that serves on the first day of `world`: it has learned from the days
    /// before, as in every other world.
    ///
    /// # Errors
    /// If there is none.
    fn first(&mut self, world: World, arm: Arm) -> Result<Box<dyn Variant>, Self::Error>;

    /// The night after `day` in `world`: `arm` learns from `log` and what it had before.
    ///
    /// # Errors
    /// If it cannot.
    fn night(
        &mut self,
        world: World,
        arm: Arm,
        day: usize,
        log: &[Shown],
    ) -> Result<Learned, Self::Error>;

    /// Takes the page views of a day in `world` that explored.
    ///
    /// # Errors
    /// If it cannot.
    fn explored(&mut self, _world: World, _pages: &[Explored]) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// What happened in a world.
pub struct Lived {
    pub(crate) world: World,
    /// The variant of every user.
    pub(crate) variant_of: Vec<usize>,
    /// The unit of every user that was given to a variant by chance: itself, or its cluster.
    pub(crate) unit_of: Vec<usize>,
    /// Which of the variant's models ranks for every user.
    pub(crate) replica_of: Vec<usize>,
    /// Of A and B; of a world of one variant the other one is empty.
    pub(crate) tallies: [Tally; 2],
    /// By day of the experiment, of A and B: offline metrics of the versions that serve, the mean
    /// over models.
    pub(crate) metrics: Vec<[BTreeMap<String, f64>; 2]>,
    /// Page views of all days.
    pub page_views: u64,
}

impl World {
    /// The word for it in files and reports.
    pub fn name(self) -> String {
        match self {
            World::All(variant) => format!("all-on-{}", ["a", "b"][variant]),
            World::Divided(design) => design.as_str().to_owned(),
        }
    }

    fn variants(self) -> Vec<usize> {
        match self {
            World::All(variant) => vec![variant],
            World::Divided(_) => vec![0, 1],
        }
    }

    /// Whether a variant learns from users of another one.
    fn learns_from_all(self) -> bool {
        !matches!(self, World::Divided(Design::Diverted | Design::Same))
    }
}

/// Which of two halves a unit belongs to.
fn half(scene: &Scene, unit: u64, kind: u64) -> usize {
    usize::from(Dice::new(scene.seed, Entity::Assignment, unit, kind).happens(0.5))
}

/// The half of every user, by chance.
pub(crate) fn halves(scene: &Scene) -> Vec<usize> {
    (0..scene.users.len() as u64).map(|user| half(scene, user, 0)).collect()
}

/// The model of every user, by chance: the same in every world.
pub(crate) fn replicas(scene: &Scene) -> Vec<usize> {
    let of = |user| Dice::new(scene.seed, Entity::Assignment, user, 2).below(scene.config.replicas);
    (0..scene.users.len() as u64).map(of).collect()
}

/// Users of one age and gender who clicked most in one department before the experiment.
fn clusters(scene: &Scene) -> Vec<usize> {
    let mut numbers: BTreeMap<(&str, &str, usize), usize> = BTreeMap::new();
    (0..scene.users.len())
        .map(|user| {
            let mut clicks = vec![0; scene.shop.categories()];
            for click in &scene.histories[user] {
                clicks[scene.shop.category(click.item)] += 1;
            }
            let most = (0..clicks.len()).rev().max_by_key(|&at| clicks[at]).unwrap_or(0);
            let [(_, age), (_, gender)] = scene.shop.user_fields(user as u32);
            let next = numbers.len();
            *numbers.entry((age, gender, most)).or_insert(next)
        })
        .collect()
}

/// The variant and the unit of every user.
fn divide(scene: &Scene, world: World) -> (Vec<usize>, Vec<usize>) {
    let users = scene.users.len();
    let themselves = (0..users).collect();
    match world {
        World::All(variant) => (vec![variant; users], themselves),
        World::Divided(Design::Clusters) => {
            let clusters = clusters(scene);
            let of = clusters.iter().map(|&cluster| half(scene, cluster as u64, 1)).collect();
            (of, clusters)
        }
        World::Divided(_) => (halves(scene), themselves),
    }
}

/// Lives through `world`. `progress` is told of every day that is over.
///
/// # Errors
/// If a variant does not answer, or there is no version of it.
pub fn live<N: Nights>(
    scene: &Scene,
    world: World,
    nights: &mut N,
    progress: &mut dyn FnMut(usize),
) -> Result<Lived, N::Error> {
    let (variant_of, unit_of) = divide(scene, world);
    let mut known = [(); 2].map(|()| Known::new(scene.shop.items()));
    for of in &mut known {
        scene.before().iter().for_each(|day| of.learn(day));
    }
    let mut lived = Lived {
        world,
        variant_of,
        unit_of,
        replica_of: replicas(scene),
        tallies: [Tally::new(scene), Tally::new(scene)],
        metrics: Vec::new(),
        page_views: 0,
    };
    let mut serving: [Vec<Serving>; 2] = [Vec::new(), Vec::new()];
    for variant in world.variants() {
        for replica in 0..scene.config.replicas {
            let first = nights.first(world, Arm { variant, replica })?;
            serving[variant].push(Serving { variant: first, age: 0, metrics: BTreeMap::new() });
        }
    }
    let mut histories = scene.histories.clone();
    for at in 0..scene.config.days {
        let number = scene.first_day() + at;
        let users = users_of_day(scene, &lived, number, &known, &serving, &mut histories)
            .map_err(N::Error::from)?;
        let mut explored = Vec::new();
        users.iter().for_each(|(_, day)| explored.extend_from_slice(&day.explored));
        nights.explored(world, &explored)?;
        let views = users.iter().map(|(_, day)| day.pages.pages as u64).sum::<u64>();
        lived.page_views += views;
        lived.metrics.push([0, 1].map(|it: usize| means(&serving[it])));
        let mut of_variants = split(users);
        for variant in world.variants() {
            let age = serving[variant].iter().map(|it| it.age).max().unwrap_or(0);
            lived.tallies[variant].day(scene, number, &of_variants[variant], age);
        }
        if at + 1 < scene.config.days {
            for variant in world.variants() {
                let log = log_of(world, variant, &of_variants);
                known[variant].learn(&log);
                for (replica, serving) in serving[variant].iter_mut().enumerate() {
                    serving.take(nights.night(world, Arm { variant, replica }, number, &log)?);
                }
            }
        }
        of_variants.iter_mut().for_each(Vec::clear);
        progress(at + 1);
    }
    Ok(lived)
}

/// A version that serves.
struct Serving {
    variant: Box<dyn Variant>,
    /// Nights since it learned.
    age: usize,
    metrics: BTreeMap<String, f64>,
}

impl Serving {
    fn take(&mut self, learned: Learned) {
        self.age = if learned.is_new { 0 } else { self.age + 1 };
        self.metrics = learned.metrics;
        self.variant = learned.variant;
    }
}

/// The mean of each offline metric that all of these have.
fn means(serving: &[Serving]) -> BTreeMap<String, f64> {
    let Some((first, others)) = serving.split_first() else { return BTreeMap::new() };
    let mean = |(name, value): (&String, &f64)| {
        let of_others = others.iter().map(|it| it.metrics.get(name));
        let sum = of_others.sum::<Option<f64>>()? + value;
        Some((name.clone(), sum / serving.len() as f64))
    };
    first.metrics.iter().filter_map(mean).collect()
}

/// The day of every user, with its variant, in the order of users.
fn users_of_day(
    scene: &Scene,
    lived: &Lived,
    number: usize,
    known: &[Known; 2],
    serving: &[Vec<Serving>; 2],
    histories: &mut [Vec<Click>],
) -> Result<Vec<(usize, UserDay)>, String> {
    let day = scene.shop.day(number);
    let items = 0..scene.shop.items() as u32;
    let auction = &scene.config.auction;
    let bids: Vec<f64> = items.map(|item| auction.bid(scene.seed, item, number)).collect();
    let matching = [0, 1].map(|variant: usize| Matching::of_day(scene, &known[variant], number));
    let desks = || {
        let desks = serving.each_ref().map(|of| -> Vec<Box<dyn Desk + '_>> {
            of.iter().map(|it| it.variant.desk()).collect()
        });
        (desks, Buffers::default())
    };
    histories
        .par_iter_mut()
        .enumerate()
        .map_init(desks, |(desks, buffers), (user, history)| {
            let (variant, replica) = (lived.variant_of[user], lived.replica_of[user]);
            let matching = &matching[variant];
            let traffic = Traffic { scene, day: &day, matching, bids: &bids };
            let desk = &mut *desks[variant][replica];
            let done = traffic.user_day(user as u32, history, desk, buffers)?;
            Ok((variant, done))
        })
        .collect()
}

/// The days of users, by variant and user; none for users of the other one.
fn split(users: Vec<(usize, UserDay)>) -> [Vec<Option<UserDay>>; 2] {
    let mut split = [(); 2].map(|()| Vec::with_capacity(users.len()));
    for (variant, day) in users {
        split[1 - variant].push(None);
        split[variant].push(Some(day));
    }
    split
}

/// The log that a variant learns from, in order of time.
fn log_of(world: World, variant: usize, users: &[Vec<Option<UserDay>>; 2]) -> Vec<Shown> {
    let of = |variant: usize| users[variant].iter().flatten().flat_map(|day| &day.shown);
    let shown = |variant| of(variant).map(|it| it.shown);
    if world.learns_from_all() {
        in_order(shown(0).chain(shown(1)))
    } else {
        in_order(shown(variant))
    }
}
