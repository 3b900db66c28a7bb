//! The report: what an experiment says, beside what is true.
//!
//! Knows what was lived. Does not know how it is shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{Design, MarketConfig};
use crate::lift::{Estimate, Metric, Of, Pair, Sums, mean, rank_correlation};
use crate::scene::Scene;
use crate::spread::{Cell, Spread, Variances};
use crate::tally::{Tally, gini, is_new, top_share};
use crate::world::{Lived, World, halves, replicas};

/// What the file of a report says first.
const FORMAT: &str = "ams-simulation/1";

/// Everything that a simulation found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// `ams-simulation/1`.
    pub format: String,
    /// What the variants A and B are called.
    pub variants: [String; 2],
    /// What was simulated.
    pub config: MarketConfig,
    /// Over all seeds.
    pub over_seeds: Vec<OfSeeds>,
    /// Which offline number to trust.
    pub offline: Vec<Offline>,
    /// One seed after the other.
    pub seeds: Vec<SeedReport>,
}

/// One seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SeedReport {
    /// The seed.
    pub seed: u64,
    /// Page views of all worlds.
    pub page_views: u64,
    /// Lifts of all users on B over all on A, by the true probabilities of what was shown. The
    /// interval is over users and models, each in both worlds.
    pub truth: BTreeMap<Metric, Option<Estimate>>,
    /// The same by day.
    pub truth_by_day: Vec<BTreeMap<Metric, Option<f64>>>,
    /// The difference between two halves of users who are all on A, with the same models: the luck
    /// of users alone. `a-a` among the designs has models of its own in each half.
    pub a_a: BTreeMap<Metric, Option<Estimate>>,
    /// The experiments.
    pub designs: Vec<DesignReport>,
    /// Each variant in each world.
    pub variants: Vec<VariantReport>,
}

/// An experiment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DesignReport {
    /// How users were divided.
    pub design: Design,
    /// Users of A and B.
    pub users: [usize; 2],
    /// Units that were given to A and B by chance: users, or clusters of them.
    pub units: [usize; 2],
    /// Over all days.
    pub lifts: BTreeMap<Metric, Compared>,
    /// What was measured on each day.
    pub days: Vec<BTreeMap<Metric, Option<Estimate>>>,
}

/// A lift beside the true one.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Compared {
    /// What the experiment says, with an interval that knows the luck of trainings: the wider one
    /// of that over users and that over models, or over days where a variant has a single model.
    pub measured: Option<Estimate>,
    /// The same with an interval over users alone, which is too narrow where models are made anew.
    #[serde(default)]
    pub over_users: Option<Estimate>,
    /// What the intervals come from, of the logarithm.
    #[serde(default)]
    pub variances: Option<Variances>,
    /// The true lift.
    pub truth: Option<f64>,
    /// Whether the interval of what was measured has the true lift.
    pub covers: Option<bool>,
    /// Whether the one over users alone has it.
    #[serde(default)]
    pub covers_over_users: Option<bool>,
    /// How much more B has over A than in truth, in expectation and for the same users: what the
    /// design does, without the luck of who is in which half.
    pub bias: Option<Estimate>,
}

/// A variant in a world.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VariantReport {
    /// The world: a design, or `all-on-a` and `all-on-b`.
    pub world: String,
    /// `a` or `b`.
    pub variant: String,
    /// What happened.
    pub happened: BTreeMap<Metric, Option<f64>>,
    /// What could be expected of what was shown.
    pub expected: BTreeMap<Metric, Option<f64>>,
    /// Which items it showed.
    pub items: ItemsReport,
    /// What its pages are like.
    pub pages: PagesReport,
    /// Its versions by day of the experiment.
    pub versions: Vec<VersionReport>,
}

/// A version on the day on which it served.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VersionReport {
    /// Nights since it learned: 0 if in the one before.
    pub age: usize,
    /// Its offline metrics.
    pub metrics: BTreeMap<String, f64>,
}

/// Which items were shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ItemsReport {
    /// Share of the listed items that were shown at all.
    pub coverage: f64,
    /// Gini coefficient of the impressions of listed items.
    pub gini: Option<f64>,
    /// Share of the impressions that the hundredth of the items with the most has.
    pub top_share: Option<f64>,
    /// Mean days since the listing of what is shown.
    pub age: Option<f64>,
    /// Predicted over true rate of cold items that were shown.
    pub cold_calibration: Option<f64>,
    /// Items that came during the experiment.
    pub new: usize,
    /// Those of them that had `cold_impressions`.
    pub known: usize,
    /// Median days from the listing to that impression; none if fewer than half had it.
    pub days_until_known: Option<f64>,
}

/// What pages are like.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PagesReport {
    /// Page views.
    pub views: u64,
    /// Share of the value of the best page of the candidates, bids times true probabilities, that
    /// is lost.
    pub regret: Option<f64>,
    /// Mean of 1 - cosine over pairs of pictures of a page.
    pub diversity: Option<f64>,
    /// Predicted over true rate of all candidates that were ranked.
    pub ranked_calibration: Option<f64>,
    /// The same of those that were shown: what is overrated is shown.
    pub shown_calibration: Option<f64>,
}

/// A design over all seeds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OfSeeds {
    /// How users were divided.
    pub design: Design,
    /// What is compared.
    pub metric: Metric,
    /// Mean of the true lifts, with an interval over seeds.
    pub truth: Option<Estimate>,
    /// The same of those that were measured.
    pub measured: Option<Estimate>,
    /// The same of the biases.
    pub bias: Option<Estimate>,
    /// Seeds whose interval has the true lift.
    pub covered: usize,
    /// Seeds whose interval over users alone has it.
    #[serde(default)]
    pub covered_over_users: usize,
    /// Seeds that have an interval and a true lift.
    pub of: usize,
}

/// How an offline metric goes with the true lift of clicks, version by version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Offline {
    /// Where both versions were measured: a design, or `truth` where each is from its own world.
    pub world: String,
    /// The offline metric: that of B less that of A.
    pub metric: String,
    /// Days of all seeds, but the first of each.
    pub days: usize,
    /// Spearman's rank correlation with the true lift of that day.
    pub rank_correlation: Option<f64>,
}

impl Report {
    /// Of all seeds.
    pub fn of(config: &MarketConfig, variants: [String; 2], seeds: Vec<SeedReport>) -> Report {
        let over_seeds = over_seeds(config, &seeds);
        let offline = offline(&seeds);
        let (format, config) = (FORMAT.to_owned(), config.clone());
        Report { format, variants, config, over_seeds, offline, seeds }
    }

    /// The report of all seeds of several reports, which differ in their seeds alone.
    ///
    /// # Errors
    /// In words, if there is none, they differ otherwise, or a seed is in two of them.
    pub fn of_all(reports: Vec<Report>) -> Result<Report, String> {
        let mut reports = reports.into_iter();
        let Report { mut config, variants, mut seeds, .. } =
            reports.next().ok_or("there is no report")?;
        for other in reports {
            let same = MarketConfig { seeds: config.seeds.clone(), ..other.config.clone() };
            if same != config || other.variants != variants {
                return Err("the reports differ in more than their seeds".to_owned());
            }
            config.seeds.extend(other.config.seeds);
            seeds.extend(other.seeds);
        }
        config.check().map_err(|what| format!("all reports: {what}"))?;
        Ok(Report::of(&config, variants, seeds))
    }

    /// The report in a file that [`Report`] was written to as JSON.
    ///
    /// # Errors
    /// In words, if it is not one.
    pub fn from_json(json: &str) -> Result<Report, String> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
        }
        let wrong = |what: String| format!("no report of `ams simulate`: {what}");
        let head: Head = serde_json::from_str(json).map_err(|error| wrong(error.to_string()))?;
        if head.format != FORMAT {
            return Err(wrong(format!("its format is {:?}, expected {FORMAT:?}", head.format)));
        }
        serde_json::from_str(json).map_err(|error| wrong(error.to_string()))
    }
}

/// The sums of every user over all days.
fn of_users(tally: &Tally, users: usize) -> Vec<Sums> {
    let mut sums = vec![Sums::default(); users];
    for day in &tally.users {
        sums.iter_mut().zip(day).for_each(|(sum, day)| sum.add(day));
    }
    sums
}

fn pairs(metric: Metric, of: Of, sums: &[Sums], which: impl Fn(usize) -> bool) -> Vec<Pair> {
    let chosen = sums.iter().enumerate().filter(|(user, _)| which(*user));
    chosen.map(|(_, sums)| metric.parts(sums, of)).collect()
}

/// Users of a world: who of them is meant, and what they belong to.
struct Users<'a> {
    chosen: Vec<usize>,
    unit_of: &'a [usize],
    replica_of: &'a [usize],
}

impl Users<'_> {
    /// Each user on each of `days`.
    fn cells(&self, days: usize) -> Vec<Cell> {
        let of = |day: usize| {
            let cell = move |&user: &usize| Cell {
                unit: self.unit_of[user],
                replica: self.replica_of[user],
                day,
            };
            self.chosen.iter().map(cell)
        };
        (0..days).flat_map(of).collect()
    }

    /// What each brought in on each of `days`, in the order of the cells.
    fn pairs(&self, metric: Metric, of: Of, days: &[Vec<Sums>]) -> Vec<Pair> {
        let of_day =
            |day: &'_ Vec<Sums>| self.chosen.iter().map(|&it| metric.parts(&day[it], of)).collect();
        days.iter().flat_map(|day| -> Vec<Pair> { of_day(day) }).collect()
    }
}

fn of_metrics<T>(of: impl FnMut(Metric) -> T) -> BTreeMap<Metric, T> {
    let mut of = of;
    Metric::ALL.into_iter().map(|metric| (metric, of(metric))).collect()
}

impl SeedReport {
    /// Of the worlds of a seed, among them both in which all users are on one variant.
    ///
    /// # Panics
    /// Without these.
    pub fn of(scene: &Scene, worlds: &[Lived]) -> SeedReport {
        let users = scene.users.len();
        let all = |variant| {
            let world = worlds.iter().find(|lived| lived.world == World::All(variant));
            &world.expect("the truth is lived through").tallies[variant]
        };
        let truths = [0, 1].map(all);
        let (themselves, replica_of): (Vec<usize>, _) = ((0..users).collect(), replicas(scene));
        let those =
            |chosen: Vec<usize>| Users { chosen, unit_of: &themselves, replica_of: &replica_of };
        let everybody = those(themselves.clone());
        let truth_of = |metric: Metric, days: std::ops::Range<usize>| {
            let of =
                |tally: &Tally| everybody.pairs(metric, Of::Expected, &tally.users[days.clone()]);
            Spread::paired(&of(truths[0]), &of(truths[1]), &everybody.cells(days.len()))
        };
        let days = scene.config.days;
        let truth = of_metrics(|metric| truth_of(metric, 0..days).map(|it| it.reported));
        let day = |day: usize| {
            of_metrics(|metric| truth_of(metric, day..day + 1).map(|it| it.reported.value))
        };
        let halves = halves(scene);
        let halves =
            [0, 1].map(|half| those((0..users).filter(|&it| halves[it] == half).collect()));
        let a_a = of_metrics(|metric| {
            let of = |half: &Users<'_>| half.pairs(metric, Of::Happened, &truths[0].users);
            let [a, b] = halves.each_ref().map(|half| (of(half), half.cells(days)));
            Spread::lift([(&a.0, &a.1), (&b.0, &b.1)]).map(|it| it.over_users)
        });
        let designs = worlds.iter().filter_map(|lived| match lived.world {
            World::Divided(design) => Some(design_report(design, lived, truths, &truth)),
            World::All(_) => None,
        });
        SeedReport {
            seed: scene.seed,
            page_views: worlds.iter().map(|lived| lived.page_views).sum(),
            truth_by_day: (0..scene.config.days).map(day).collect(),
            a_a,
            designs: designs.collect(),
            variants: worlds.iter().flat_map(|lived| variant_reports(scene, lived)).collect(),
            truth,
        }
    }
}

fn design_report(
    design: Design,
    lived: &Lived,
    truths: [&Tally; 2],
    truth: &BTreeMap<Metric, Option<Estimate>>,
) -> DesignReport {
    let is_same = design == Design::Same;
    let truths = if is_same { [truths[0]; 2] } else { truths };
    let sides = [0, 1].map(|variant: usize| Users {
        chosen: (0..lived.variant_of.len()).filter(|&it| lived.variant_of[it] == variant).collect(),
        unit_of: &lived.unit_of,
        replica_of: &lived.replica_of,
    });
    let measured = |metric: Metric, days: std::ops::Range<usize>| {
        let [a, b] = [0, 1].map(|variant: usize| {
            let of = &lived.tallies[variant].users[days.clone()];
            (sides[variant].pairs(metric, Of::Happened, of), sides[variant].cells(days.len()))
        });
        Spread::lift([(&a.0, &a.1), (&b.0, &b.1)])
    };
    let days = lived.metrics.len();
    let compared = |metric: Metric| {
        let measured = measured(metric, 0..days);
        let truth = if is_same { Some(0.0) } else { truth[&metric].map(|it| it.value) };
        let of_sides = [0, 1].map(|variant: usize| {
            [truths[variant], &lived.tallies[variant]]
                .map(|tally| sides[variant].pairs(metric, Of::Expected, &tally.users))
        });
        let [a_cells, b_cells] = sides.each_ref().map(|side| side.cells(days));
        let [[a_truth, a], [b_truth, b]] = &of_sides;
        let bias = Spread::bias([a_truth, a], [b_truth, b], [&a_cells, &b_cells]);
        let covers = |estimate: Option<Estimate>| {
            estimate.filter(|it| it.low.is_some()).zip(truth).map(|(it, at)| it.covers(at))
        };
        let reported = measured.map(|it| it.reported);
        let over_users = measured.map(|it| it.over_users);
        Compared {
            measured: reported,
            over_users,
            variances: measured.and_then(|it| it.variances),
            truth,
            covers: covers(reported),
            covers_over_users: covers(over_users),
            bias: bias.map(|it| it.reported),
        }
    };
    let units = sides
        .each_ref()
        .map(|side| -> Vec<usize> { side.chosen.iter().map(|&it| lived.unit_of[it]).collect() });
    let day =
        |day: usize| of_metrics(|metric| measured(metric, day..day + 1).map(|it| it.reported));
    DesignReport {
        design,
        users: sides.each_ref().map(|side| side.chosen.len()),
        units: units.map(|mut different| {
            different.sort_unstable();
            different.dedup();
            different.len()
        }),
        lifts: of_metrics(compared),
        days: (0..days).map(day).collect(),
    }
}

fn variant_reports(scene: &Scene, lived: &Lived) -> Vec<VariantReport> {
    let of = |variant: usize| {
        let tally = &lived.tallies[variant];
        let sums = of_users(tally, scene.users.len());
        let is_in = |user: usize| lived.variant_of[user] == variant;
        let rate = |of: Of| {
            of_metrics(|metric| {
                let pairs = pairs(metric, of, &sums, is_in);
                let above: f64 = pairs.iter().map(|pair| pair.0).sum();
                ratio(above, pairs.iter().map(|pair| pair.1).sum())
            })
        };
        let versions = lived.metrics.iter().zip(&tally.model_age);
        VariantReport {
            world: lived.world.name(),
            variant: ["a", "b"][variant].to_owned(),
            happened: rate(Of::Happened),
            expected: rate(Of::Expected),
            items: items_report(scene, tally),
            pages: pages_report(tally),
            versions: versions
                .map(|(of, &age)| VersionReport { age, metrics: of[variant].clone() })
                .collect(),
        }
    };
    let there = (0..2).filter(|&it| !lived.tallies[it].users.is_empty());
    there.map(of).collect()
}

fn ratio(above: f64, below: f64) -> Option<f64> {
    (below > 0.0).then(|| above / below)
}

fn items_report(scene: &Scene, tally: &Tally) -> ItemsReport {
    let days = scene.first_day()..scene.first_day() + scene.config.days;
    let items = 0..scene.names.len() as u32;
    let is_listed = |item: &u32| days.clone().any(|day| scene.shop.is_listed(*item, day));
    let listed: Vec<u64> =
        items.clone().filter(is_listed).map(|item| tally.items[item as usize]).collect();
    let impressions = listed.iter().sum::<u64>() as f64;
    let new: Vec<u32> = items.filter(|&item| is_new(scene, item)).collect();
    let mut known: Vec<f64> =
        new.iter().filter_map(|&item| tally.cold.known_after[item as usize]).collect();
    known.sort_by(f64::total_cmp);
    // The median of all new items, of which those that are not known yet take longest.
    let middle = new.len().saturating_sub(1) / 2;
    ItemsReport {
        coverage: listed.iter().filter(|&&it| it > 0).count() as f64 / listed.len() as f64,
        age: ratio(tally.item_age, impressions),
        gini: gini(listed.clone()),
        top_share: top_share(listed),
        cold_calibration: ratio(tally.cold.rate, tally.cold.truth),
        new: new.len(),
        known: known.len(),
        days_until_known: known.get(middle).copied(),
    }
}

fn pages_report(tally: &Tally) -> PagesReport {
    let mut sums = crate::page::PageSums::default();
    tally.pages.iter().for_each(|day| sums.add(day));
    PagesReport {
        views: sums.pages as u64,
        regret: ratio(sums.best - sums.value, sums.best),
        diversity: ratio(sums.apart, sums.pairs),
        ranked_calibration: ratio(sums.ranked_rate, sums.ranked_truth),
        shown_calibration: ratio(sums.shown_rate, sums.shown_truth),
    }
}

fn over_seeds(config: &MarketConfig, seeds: &[SeedReport]) -> Vec<OfSeeds> {
    let of = |design: Design, metric: Metric| {
        let of_design = |seed: &SeedReport| {
            let found = seed.designs.iter().find(|it| it.design == design);
            found.map(|it| it.lifts[&metric])
        };
        let lifts: Vec<Compared> = seeds.iter().filter_map(of_design).collect();
        let values = |of: &dyn Fn(&Compared) -> Option<f64>| -> Vec<f64> {
            lifts.iter().filter_map(of).collect()
        };
        OfSeeds {
            design,
            metric,
            truth: mean(&values(&|it| it.truth)),
            measured: mean(&values(&|it| it.measured.map(|it| it.value))),
            bias: mean(&values(&|it| it.bias.map(|it| it.value))),
            covered: lifts.iter().filter(|it| it.covers == Some(true)).count(),
            covered_over_users: lifts
                .iter()
                .filter(|it| it.covers_over_users == Some(true))
                .count(),
            of: lifts.iter().filter(|it| it.covers.is_some()).count(),
        }
    };
    let designs = config.designs.iter();
    designs.flat_map(|&design| Metric::ALL.map(|metric| of(design, metric))).collect()
}

/// The world and variant, where the versions of A and B of a comparison are.
type Sides = [(String, &'static str); 2];

fn offline(seeds: &[SeedReport]) -> Vec<Offline> {
    let Some(first) = seeds.first() else { return Vec::new() };
    let truth = ("truth".to_owned(), [("all-on-a".to_owned(), "a"), ("all-on-b".to_owned(), "b")]);
    // Of A against A, no difference stands for B's.
    let designs = first.designs.iter().filter(|it| it.design != Design::Same);
    let designs = designs.map(|it| it.design.as_str().to_owned());
    let worlds = designs.map(|it| (it.clone(), [(it.clone(), "a"), (it, "b")]));
    let mut found = Vec::new();
    for (world, sides) in std::iter::once(truth).chain(worlds) {
        let mut pairs: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        seeds.iter().for_each(|seed| add_pairs(seed, &sides, &mut pairs));
        found.extend(pairs.into_iter().map(|(metric, pairs)| Offline {
            world: world.clone(),
            metric,
            days: pairs.len(),
            rank_correlation: rank_correlation(&pairs),
        }));
    }
    found
}

/// Of every day: by how much more B's version has of each offline metric, and the true lift.
fn add_pairs(seed: &SeedReport, sides: &Sides, pairs: &mut BTreeMap<String, Vec<(f64, f64)>>) {
    let versions = |(world, variant): &(String, &'static str)| {
        let of = seed.variants.iter().find(|it| it.world == *world && it.variant == *variant);
        of.map_or(&[][..], |it| &it.versions[..])
    };
    let (a, b) = (versions(&sides[0]), versions(&sides[1]));
    for ((a, b), truth) in a.iter().zip(b).zip(&seed.truth_by_day) {
        let Some(lift) = truth[&Metric::Ctr] else { continue };
        for (metric, of_b) in &b.metrics {
            if let Some(of_a) = a.metrics.get(metric) {
                pairs.entry(metric.clone()).or_default().push((of_b - of_a, lift));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use ams_bundle::PageView;
    use ams_data::synth::{Dice, Entity, Look, Shown};
    use rayon::ThreadPoolBuilder;

    use super::*;
    use crate::config::Exploration;
    use crate::variant::{Desk, Variant};
    use crate::world::{Arm, Learned, Nights, live};

    /// Rates that are the items' alone.
    #[derive(Clone)]
    struct Rates(Arc<HashMap<String, f32>>);

    impl Variant for Rates {
        fn desk(&self) -> Box<dyn Desk + '_> {
            Box::new(self.clone())
        }
    }

    impl Desk for Rates {
        fn rates(&mut self, page: &PageView, rates: &mut Vec<f32>) -> Result<(), String> {
            rates.clear();
            rates.extend(page.candidates.item.iter().map(|item| self.0[&item.0]));
            Ok(())
        }
    }

    /// How a variant comes by its rates.
    #[derive(Clone, Copy)]
    enum Kind {
        /// What a few users would click, with errors of this size.
        Fixed(f64),
        /// Clicks over impressions of the log that it learns from.
        Learning,
        /// As `Fixed`, with errors of a size between 0 and this, by the luck of the night.
        Lucky(f64),
    }

    struct Simple<'a> {
        scene: &'a Scene,
        kinds: [Kind; 2],
        /// Of every model.
        counts: BTreeMap<Arm, Vec<[f64; 2]>>,
        /// A number of the newest night of a model.
        luck: u64,
    }

    impl<'a> Simple<'a> {
        fn new(scene: &'a Scene, kinds: [Kind; 2]) -> Simple<'a> {
            Simple { scene, kinds, counts: BTreeMap::new(), luck: 0 }
        }

        fn kind(&self, world: World, arm: Arm) -> Kind {
            let is_same = world == World::Divided(Design::Same);
            self.kinds[if is_same { 0 } else { arm.variant }]
        }

        fn learn(&mut self, world: World, arm: Arm, day: usize, log: &[Shown]) {
            let name = world.name() + &arm.name();
            let mix = |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte));
            self.luck = name.bytes().fold(day as u64, mix);
            let items = self.scene.names.len();
            let counts = self.counts.entry(arm).or_insert_with(|| vec![[2.0, 10.0]; items]);
            for shown in log {
                let [clicks, impressions] = &mut counts[shown.item as usize];
                *clicks += f64::from(u8::from(shown.clicked));
                *impressions += 1.0;
            }
        }

        fn rates(&self, world: World, arm: Arm) -> Box<dyn Variant> {
            let variant = arm.variant;
            let of = |(item, name): (usize, &String)| {
                let rate = match self.kind(world, arm) {
                    Kind::Learning => {
                        let [clicks, impressions] = self.counts[&arm][item];
                        clicks / impressions
                    }
                    kind @ (Kind::Fixed(most) | Kind::Lucky(most)) => {
                        let (error, stream) = match kind {
                            Kind::Lucky(_) => {
                                let seed = self.scene.seed;
                                let mut dice = Dice::new(seed, Entity::Bid, self.luck, 1);
                                (most * dice.below(1000) as f64 / 1e3, self.luck)
                            }
                            _ => (most, variant as u64),
                        };
                        let day = self.scene.shop.day(0);
                        let at = Look { position: 0, hour: 12 };
                        let true_rate =
                            (0..20).map(|user| day.probability(user, item as u32, at)).sum::<f64>();
                        let mut dice = Dice::new(7, Entity::Bid, item as u64, stream);
                        true_rate / 20.0 * (error * dice.normal()).exp()
                    }
                };
                (name.clone(), rate as f32)
            };
            Box::new(Rates(Arc::new(self.scene.names.iter().enumerate().map(of).collect())))
        }
    }

    impl Nights for Simple<'_> {
        type Error = String;

        fn first(&mut self, world: World, arm: Arm) -> Result<Box<dyn Variant>, String> {
            let scene = self.scene;
            for (day, log) in scene.before().iter().enumerate() {
                self.learn(world, arm, day, log);
            }
            Ok(self.rates(world, arm))
        }

        fn night(
            &mut self,
            world: World,
            arm: Arm,
            day: usize,
            log: &[Shown],
        ) -> Result<Learned, String> {
            self.learn(world, arm, day, log);
            let metrics = BTreeMap::from([("day".to_owned(), day as f64)]);
            Ok(Learned { variant: self.rates(world, arm), is_new: true, metrics })
        }
    }

    fn small() -> MarketConfig {
        let mut config = MarketConfig::quick();
        (config.days, config.days_before, config.candidates) = (1, 1, 40);
        config.exploration = Exploration { share: 0.0, random: 1.0 };
        (config.shop.users, config.shop.items) = (150, 120);
        config.designs = vec![Design::SharedLog];
        config
    }

    fn seed_report(config: &MarketConfig, seed: u64, kinds: [Kind; 2]) -> SeedReport {
        let mut scene = Scene::open(config, seed).unwrap();
        let items = scene.names.len();
        scene.see((0..items).map(|it| vec![(it as f32).sin(), (it as f32).cos()]).collect());
        let designs = config.designs.iter().map(|&it| World::Divided(it));
        let worlds = [World::All(0), World::All(1)].into_iter().chain(designs);
        let lived: Vec<Lived> = worlds
            .map(|world| live(&scene, world, &mut Simple::new(&scene, kinds), &mut |_| ()).unwrap())
            .collect();
        SeedReport::of(&scene, &lived)
    }

    #[test]
    fn the_report_is_the_same_with_any_number_of_threads() {
        let config = MarketConfig {
            days: 3,
            designs: Design::ALL.to_vec(),
            replicas: 2,
            exploration: Exploration { share: 0.2, random: 0.5 },
            ..small()
        };
        let report = |threads: usize| {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let of = || seed_report(&config, 5, [Kind::Learning, Kind::Fixed(0.3)]);
            serde_json::to_string(&Report::of(
                &config,
                ["a".to_owned(), "b".to_owned()],
                vec![pool.install(of)],
            ))
            .unwrap()
        };
        let one = report(1);
        assert_eq!(one, report(2));
        assert_eq!(one, report(4));
        assert!(one.contains("\"design\":\"clusters\""));
        let read = Report::from_json(&one).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), one);
        let same = read.seeds[0].designs.iter().find(|it| it.design == Design::Same).unwrap();
        let of_clicks = same.lifts[&Metric::Ctr];
        // Both are on A, with models of their own; days and models have a variance each.
        assert_eq!(of_clicks.truth, Some(0.0));
        assert!(of_clicks.variances.unwrap().replicas.is_some(), "{of_clicks:?}");
    }

    /// What is measured by users who were divided by chance, of variants that do not learn.
    #[test]
    fn intervals_cover_the_truth_of_a_hundred_seeds() {
        let config = small();
        let (mut equal, mut covered, mut better) = (0, 0, 0);
        for seed in 0..100 {
            let report = seed_report(&config, seed, [Kind::Fixed(1.0), Kind::Fixed(0.1)]);
            equal += usize::from(report.a_a[&Metric::Ctr].unwrap().covers(0.0));
            let of = report.designs[0].lifts[&Metric::Ctr];
            covered += usize::from(of.covers.unwrap());
            better += usize::from(of.truth.unwrap() > 0.0);
            // Nobody learns from anybody.
            assert!(of.bias.unwrap().value.abs() < 1e-12, "{of:?}");
        }
        assert!(equal >= 90, "A/A inside in {equal} of 100");
        assert!(covered >= 90, "the truth inside in {covered} of 100");
        // Bids decide, too, so better rates are not always more clicks.
        assert!(better >= 60, "B is better in {better} of 100");
    }

    /// Variants that are made anew every night, better or worse by luck: of forty seeds, how many
    /// intervals of A/A have 0, and how many of A/B the truth; the same of those over users alone.
    fn lucky(replicas: usize, days: usize) -> [[usize; 2]; 2] {
        let mut config = MarketConfig { days, replicas, candidates: 20, pre_ranked: 20, ..small() };
        (config.shop.users, config.shop.items) = (150, 60);
        config.designs = vec![Design::Same, Design::Diverted];
        let kinds = [Kind::Lucky(3.0), Kind::Lucky(1.0)];
        let mut inside = [[0; 2]; 2];
        for seed in 0..40 {
            let report = seed_report(&config, seed, kinds);
            for (design, inside) in report.designs.iter().zip(&mut inside) {
                let of = design.lifts[&Metric::Ctr];
                inside[0] += usize::from(of.covers == Some(true));
                inside[1] += usize::from(of.covers_over_users == Some(true));
            }
        }
        inside
    }

    #[test]
    fn intervals_know_the_luck_of_nights() {
        for (replicas, days) in [(3, 2), (1, 5)] {
            let [same, different] = lucky(replicas, days);
            let told = format!("{replicas} models, {days} days: A/A {same:?}, A/B {different:?}");
            assert!(same[0] >= 36 && different[0] >= 34, "{told}");
            assert!(same[1] <= same[0] && different[1] <= different[0], "{told}");
        }
    }

    #[test]
    fn reports_of_seeds_are_one_report() {
        let kinds = [Kind::Fixed(1.0), Kind::Fixed(0.1)];
        let report = |seeds: &[u64]| {
            let config = MarketConfig { seeds: seeds.to_vec(), ..small() };
            let of = seeds.iter().map(|&seed| seed_report(&config, seed, kinds)).collect();
            Report::of(&config, ["a".to_owned(), "b".to_owned()], of)
        };
        let json = |report: &Report| serde_json::to_string(report).unwrap();
        let all = Report::of_all(vec![report(&[4]), report(&[5, 6])]).unwrap();
        assert_eq!(json(&all), json(&report(&[4, 5, 6])));
        let refused = |reports: Vec<Report>| Report::of_all(reports).unwrap_err();
        assert_eq!(refused(vec![all.clone(), report(&[5])]), "all reports: seeds names one twice");
        let mut other = report(&[7]);
        other.config.days = 9;
        assert_eq!(refused(vec![all, other]), "the reports differ in more than their seeds");
        let wrong = Report::from_json("{\"format\":\"ams-run/1\"}").unwrap_err();
        assert!(wrong.contains("ams-run/1") && wrong.contains("ams-simulation/1"), "{wrong}");
    }

    /// Two that learn alike differ by nothing, whoever they learn from.
    #[test]
    fn equal_variants_have_no_lift() {
        let config =
            MarketConfig { days: 3, designs: vec![Design::SharedLog, Design::Diverted], ..small() };
        let seeds: Vec<SeedReport> = (0..3)
            .map(|seed| seed_report(&config, seed, [Kind::Learning, Kind::Learning]))
            .collect();
        let of_clicks = over_seeds(&config, &seeds).into_iter();
        for of in of_clicks.filter(|it| it.metric == Metric::Ctr) {
            assert_eq!((of.truth.unwrap().value, of.of), (0.0, 3));
            let bias = of.bias.unwrap().value;
            // In the world of the shared log nothing is another than in truth.
            let most = if of.design == Design::SharedLog { 1e-12 } else { 0.1 };
            assert!(bias.abs() < most, "{bias}");
        }
    }

    #[test]
    fn what_is_reported_of_items_and_pages_is_in_range() {
        let config = MarketConfig { days: 3, cold_impressions: 5, ..small() };
        let report = seed_report(&config, 2, [Kind::Fixed(0.5), Kind::Fixed(0.0)]);
        assert_eq!(report.variants.len(), 4);
        for of in &report.variants {
            let (items, pages) = (&of.items, &of.pages);
            assert!((0.0..=1.0).contains(&items.coverage), "{items:?}");
            assert!((0.0..1.0).contains(&items.gini.unwrap()), "{items:?}");
            assert!((0.0..1.0).contains(&pages.regret.unwrap()), "{pages:?}");
            assert!((0.0..=2.0).contains(&pages.diversity.unwrap()), "{pages:?}");
            assert!(items.known <= items.new && items.new > 0, "{items:?}");
            assert_eq!(of.versions.len(), 3);
            assert_eq!(of.versions.iter().map(|it| it.age).sum::<usize>(), 0);
        }
        let [a, b] = [0, 1].map(|at: usize| &report.variants[at].pages);
        assert!(b.regret < a.regret, "the one without errors loses less");
        // What is overrated is what is shown.
        assert!(a.shown_calibration > a.ranked_calibration, "{a:?}");
    }
}
