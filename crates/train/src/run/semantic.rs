//! The semantic ids that a model sees, for reports.

use ams_bundle::{Semantic, Spec};
use ams_image::FeatureStore;
use serde::Serialize;

/// The semantic ids that a model sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SemanticReport {
    /// Codes of a picture.
    pub levels: usize,
    /// Centers of a level.
    pub size: usize,
    /// Pictures with codes.
    pub images: u64,
    /// Those that share all of their codes with no other.
    pub own: u64,
}

impl SemanticReport {
    /// Those of the model of `spec`, if it sees some, of the images in `stores`.
    pub(crate) fn of(spec: &Spec, stores: &[FeatureStore]) -> Option<SemanticReport> {
        let Semantic { levels, size, .. } = spec.semantic()?;
        let store = stores.first()?;
        let own = store.codes()?.own(levels);
        Some(SemanticReport { levels, size, images: store.card().images, own })
    }
}
