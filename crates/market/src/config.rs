//! What is simulated: the shop, the auction, the designs.
//!
//! Knows the settings and their ranges. Does not know what they do.

use ams_data::synth::ShopConfig;
use serde::{Deserialize, Serialize};

use crate::auction::{Auction, Pricing};

/// How an experiment divides users, and the log that its variants learn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Design {
    /// Users are divided by chance; both variants learn from the log of all of them.
    SharedLog,
    /// Users are divided by chance; each variant learns from the log of its own users.
    Diverted,
    /// Groups of users who are alike are divided by chance; both variants learn from the log of
    /// all.
    Clusters,
    /// As `diverted`, but both are on A: its true lift is 0, and a difference is luck.
    #[serde(rename = "a-a")]
    Same,
}

impl Design {
    /// All of them.
    pub const ALL: [Design; 4] =
        [Design::SharedLog, Design::Diverted, Design::Clusters, Design::Same];

    /// The word of the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Design::SharedLog => "shared-log",
            Design::Diverted => "diverted",
            Design::Clusters => "clusters",
            Design::Same => "a-a",
        }
    }
}

/// Where candidates come from: shares of the draws, which sum to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sources {
    /// Items by how often they were clicked.
    pub popularity: f64,
    /// Any items of a department that the user clicked in before.
    pub category: f64,
    /// Items whose pictures are nearest to one that the user clicked before.
    pub pictures: f64,
}

impl Default for Sources {
    fn default() -> Sources {
        Sources { popularity: 0.5, category: 0.25, pictures: 0.25 }
    }
}

/// Page views that are put in random order, whose propensities are logged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Exploration {
    /// Share of the page views that explore. Range: 0 to 1.
    pub share: f64,
    /// Probability that a page view that explores is in random order; otherwise it is ranked, and
    /// logged all the same. Range: more than 0, up to 1.
    pub random: f64,
}

impl Default for Exploration {
    fn default() -> Exploration {
        Exploration { share: 0.05, random: 1.0 }
    }
}

/// A simulation, without the variants and how they are trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MarketConfig {
    /// Seeds: each is a shop of its own, with all designs.
    pub seeds: Vec<u64>,
    /// Days of the experiment. Range: 1 to 100.
    pub days: usize,
    /// Days before it, when pages show items by popularity and nobody ranks. Range: 1 to 100.
    pub days_before: usize,
    /// The designs; all users on A and all on B, which is the truth, are always lived through.
    pub designs: Vec<Design>,
    /// Models of a variant that differ in the seed of their training alone. Each ranks what its
    /// part of the variant's users see. Range: 1 to 100.
    pub replicas: usize,
    /// Candidates of a page view. Range: 1 to 10,000.
    pub candidates: usize,
    /// Candidates that are left for the models after the cheap score. Range: 1 to 10,000.
    pub pre_ranked: usize,
    /// Where candidates come from.
    pub sources: Sources,
    /// What advertisers pay.
    pub auction: Auction,
    /// Probability that a click ends with a purchase. Range: 0 to 1.
    pub conversion: f64,
    /// Random pages.
    pub exploration: Exploration,
    /// Clicks of a user, the newest, that a model is told. Range: 1 to 10,000.
    pub behaviors: usize,
    /// Days from its listing on which an item counts as cold. Range: 1 to 100.
    pub cold_days: usize,
    /// Impressions until an item is no longer unknown: how long this takes is reported. Range: at
    /// least 1.
    pub cold_impressions: u32,
    /// The shop. Its seed and its days are the simulation's.
    pub shop: ShopConfig,
}

impl Default for MarketConfig {
    fn default() -> MarketConfig {
        MarketConfig {
            seeds: vec![1, 2, 3],
            days: 7,
            days_before: 4,
            designs: Design::ALL.to_vec(),
            replicas: 1,
            candidates: 200,
            pre_ranked: 100,
            sources: Sources::default(),
            auction: Auction::default(),
            conversion: 0.05,
            exploration: Exploration::default(),
            behaviors: 50,
            cold_days: 3,
            cold_impressions: 50,
            shop: ShopConfig {
                taste_drift: 0.02,
                leaving_per_day: 0.005,
                cold_share: 0.0,
                ..ShopConfig::default()
            },
        }
    }
}

impl MarketConfig {
    /// A simulation of minutes: one seed, a small shop, three days.
    pub fn quick() -> MarketConfig {
        MarketConfig {
            seeds: vec![1],
            days: 3,
            days_before: 2,
            designs: vec![Design::SharedLog, Design::Diverted, Design::Same],
            candidates: 60,
            pre_ranked: 40,
            cold_impressions: 20,
            exploration: Exploration { share: 0.1, random: 1.0 },
            shop: ShopConfig {
                users: 400,
                items: 200,
                new_per_day: 0.02,
                picture_sides: [48, 64],
                ..MarketConfig::default().shop
            },
            ..MarketConfig::default()
        }
    }

    /// The shop of a seed.
    pub fn shop_of(&self, seed: u64) -> ShopConfig {
        ShopConfig { seed, days: self.days_before + self.days, ..self.shop.clone() }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// The first key that is out of its range, what it is and what it may be.
    pub fn check(&self) -> Result<(), String> {
        let Sources { popularity, category, pictures } = self.sources;
        let Auction { pricing: _, reserve, spread, daily_spread } = self.auction;
        let numbers = [
            ("days", self.days as f64, 1.0, 100.0),
            ("days_before", self.days_before as f64, 1.0, 100.0),
            ("replicas", self.replicas as f64, 1.0, 100.0),
            ("candidates", self.candidates as f64, 1.0, 1e4),
            ("pre_ranked", self.pre_ranked as f64, 1.0, 1e4),
            ("sources.popularity", popularity, 0.0, 1.0),
            ("sources.category", category, 0.0, 1.0),
            ("sources.pictures", pictures, 0.0, 1.0),
            ("the sum of sources", popularity + category + pictures, 1.0 - 1e-9, 1.0 + 1e-9),
            ("auction.reserve", reserve, 0.0, 1e6),
            ("auction.spread", spread, 0.0, 3.0),
            ("auction.daily_spread", daily_spread, 0.0, 3.0),
            ("conversion", self.conversion, 0.0, 1.0),
            ("exploration.share", self.exploration.share, 0.0, 1.0),
            ("exploration.random", self.exploration.random, 1e-9, 1.0),
            ("behaviors", self.behaviors as f64, 1.0, 1e4),
            ("cold_days", self.cold_days as f64, 1.0, 100.0),
            ("cold_impressions", f64::from(self.cold_impressions), 1.0, 1e9),
        ];
        for (key, value, least, most) in numbers {
            if !(least..=most).contains(&value) {
                return Err(format!("{key} is {value}, expected {least} to {most}"));
            }
        }
        if self.seeds.is_empty() {
            return Err("seeds is empty, expected at least one number".to_owned());
        }
        for (key, given, possible) in [
            ("shop.cold_share", self.shop.cold_share, "0: items come on every day"),
            ("shop.passing_days", self.shop.passing_days as f64, "0: there is no test day"),
        ] {
            if given != 0.0 {
                return Err(format!("{key} is {given}, expected {possible}"));
            }
        }
        for (key, repeated) in
            [("seeds", has_twice(&self.seeds)), ("designs", has_twice(&self.designs))]
        {
            if repeated {
                return Err(format!("{key} names one twice"));
            }
        }
        self.shop_of(1).check().map_err(|error| error.to_string())
    }

    /// Whether advertisers pay their own bid.
    pub fn is_first_price(&self) -> bool {
        self.auction.pricing == Pricing::First
    }
}

fn has_twice<T: PartialEq>(values: &[T]) -> bool {
    (1..values.len()).any(|at| values[..at].contains(&values[at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_named() {
        let complaint = |change: &dyn Fn(&mut MarketConfig)| {
            let mut config = MarketConfig::quick();
            change(&mut config);
            config.check().err().unwrap_or_default()
        };
        assert_eq!(complaint(&|_| ()), "");
        assert_eq!(complaint(&|c| c.days = 0), "days is 0, expected 1 to 100");
        assert_eq!(complaint(&|c| c.seeds.clear()), "seeds is empty, expected at least one number");
        assert_eq!(complaint(&|c| c.seeds = vec![2, 2]), "seeds names one twice");
        assert!(complaint(&|c| c.sources.pictures = 0.5).starts_with("the sum of sources is 1.25"));
        assert!(complaint(&|c| c.shop.cold_share = 0.1).starts_with("shop.cold_share is 0.1"));
        assert!(complaint(&|c| c.shop.users = 0).starts_with("synthetic shop: users is 0"));
        assert_eq!(MarketConfig::default().check(), Ok(()));
    }
}
