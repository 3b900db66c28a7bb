//! Impressions in the orders of AUC and GAUC, sorted once for all the parts of them that are asked
//! about.
//!
//! Sorts on the threads of the current rayon pool. What is counted afterwards are integers per
//! score and user, so no result depends on the order among equals, or on the number of threads.

use ams_model::metrics::{Gauc, Impression, auc_of_sorted, gauc_of_sorted};
use rayon::slice::ParallelSliceMut;

/// Impressions in the two orders that AUC and GAUC need.
pub struct Ranking {
    by_score: Vec<Impression>,
    by_user: Vec<Impression>,
}

impl Ranking {
    /// Sorts impressions that are in any order.
    pub fn new(impressions: Vec<Impression>) -> Ranking {
        Ranking { by_score: by_score(impressions.clone()), by_user: by_user(impressions) }
    }

    /// AUC and GAUC of the impressions that have all these marks; without any, of all.
    pub fn of(&self, marks: u16) -> (Option<f64>, Gauc) {
        let marked = |impression: &&Impression| impression.marks & marks == marks;
        rayon::join(
            || auc_of_sorted(self.by_score.iter().filter(marked)),
            || gauc_of_sorted(self.by_user.iter().filter(marked)),
        )
    }
}

/// In the order that [`auc_of_sorted`] wants.
pub fn by_score(mut impressions: Vec<Impression>) -> Vec<Impression> {
    impressions.par_sort_unstable_by_key(Impression::by_score);
    impressions
}

/// In the order that [`gauc_of_sorted`] wants.
pub fn by_user(mut impressions: Vec<Impression>) -> Vec<Impression> {
    impressions.par_sort_unstable_by_key(Impression::by_user);
    impressions
}
