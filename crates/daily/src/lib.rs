//! The days of a model that is trained again every day: what a day's part of the log is like
//! ([`Facts`]), whether the model of the day may take the place of the one that serves ([`Gate`]),
//! and what was decided ([`State`], and [`Decision`] in a bundle). And the versions of a model that
//! follows a log ([`FollowState`]).
//!
//! Knows samples, bundles and metrics. Does not know how a model is trained, nor the terminal. Days
//! are those of the log, in UTC; no clock is read.

#![deny(missing_docs)]
#![warn(unreachable_pub)]

mod day;
mod decision;
mod facts;
mod follow;
mod gate;
mod parts;
mod predict;
mod sanity;
mod state;

pub use day::{Day, instant};
pub use decision::{Compared, Decision};
pub use facts::Facts;
pub use follow::{
    Delay, FollowClock, FollowState, Followed, MOST_REMEMBERED, PartRead, RowsRead, Waiting,
    Window, WindowMaking, shown_at, to_milliseconds,
};
pub use gate::{Comparison, Gate};
pub use parts::{Landed, Part, rows_name, sweep_rows};
pub use predict::predict;
pub use sanity::Sanity;
pub use state::{Days, Entry, Making, Outcome, State, remove_leftovers};
