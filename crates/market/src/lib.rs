//! A market simulation that knows the truth: users of the synthetic shop arrive, two variants of a
//! model rank what they are shown, and the log that comes of it is what the variants learn from.
//!
//! ```text
//! Scene      a shop with bids, and its days before the experiment      scene.rs
//!   World    who is ranked by which variant, who learns from whom      world.rs
//!     day    candidates, ranking, auction, clicks, of every page view  matching, auction, page
//!     night  what `Nights` makes of the day's log: the next versions
//!   Lived    what happened                                             tally.rs
//! Report     lifts beside the true ones, and everything else           report.rs
//! ```
//!
//! Chance is common to all worlds of a seed: when a user comes, and whether an item that is shown
//! then is clicked, never depends on the variant. Users do not meet within a day, so they are
//! simulated on all threads, and everything is summed in their order.
//!
//! Knows the shop, bundles as scorers, auctions, experiments and their statistics. Does not know
//! how a model is trained, the terminal, or HTTP.

#![deny(missing_docs)]
#![warn(unreachable_pub)]

mod auction;
mod config;
mod explored;
mod lift;
mod matching;
mod page;
mod report;
mod scene;
mod spread;
mod tally;
mod variant;
mod world;

pub use auction::{Auction, Pricing};
pub use config::{Design, Exploration, MarketConfig, Sources};
pub use explored::{Explored, ExploredFile};
pub use lift::{Estimate, Metric, Sums, rank_correlation};
pub use report::{
    Compared, DesignReport, ItemsReport, OfSeeds, Offline, PagesReport, Report, SeedReport,
    VariantReport, VersionReport,
};
pub use scene::Scene;
pub use spread::{Freedom, Spread, Variances};
pub use variant::{Desk, InProcess, Variant};
pub use world::{Arm, Learned, Lived, Nights, World, live};
