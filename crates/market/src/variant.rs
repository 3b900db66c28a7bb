//! A variant of the model, as the market meets it: rates for the candidates of a page view.
//!
//! Knows page views. Does not know the truth.

use ams_bundle::{Model, PageView, Scratch};

/// A version of a model that answers page views.
pub trait Variant: Send + Sync {
    /// What one thread asks it through.
    fn desk(&self) -> Box<dyn Desk + '_>;
}

/// A variant's answers to one thread.
pub trait Desk {
    /// Overwrites `rates` with the predicted click-through rate of every candidate, in the order of
    /// the page view.
    ///
    /// # Errors
    /// In words, if there is no answer.
    fn rates(&mut self, page: &PageView, rates: &mut Vec<f32>) -> Result<(), String>;
}

/// A bundle that scores in this process.
pub struct InProcess(pub Model);

impl Variant for InProcess {
    fn desk(&self) -> Box<dyn Desk + '_> {
        Box::new(WithScratch { model: &self.0, scratch: Scratch::default() })
    }
}

struct WithScratch<'a> {
    model: &'a Model,
    scratch: Scratch,
}

impl Desk for WithScratch<'_> {
    fn rates(&mut self, page: &PageView, rates: &mut Vec<f32>) -> Result<(), String> {
        let missing = self.model.ctrs(page, &mut self.scratch, rates);
        missing.map(drop).map_err(|error| error.to_string())
    }
}
