//! Some texts of very many, for messages and comparisons.

use std::collections::BTreeSet;

/// Texts kept of each side.
const KEPT: usize = 4096;

/// The first texts of many by their order, so that the same are kept whatever came first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    pub(super) texts: BTreeSet<String>,
}

impl Sample {
    pub(crate) fn add(&mut self, text: &str) {
        let full = self.texts.len() >= KEPT;
        if full && self.texts.last().is_some_and(|last| text >= last.as_str()) {
            return;
        }
        self.texts.insert(text.to_string());
        if self.texts.len() > KEPT {
            self.texts.pop_last();
        }
    }

    pub(crate) fn merge(&mut self, other: &Sample) {
        other.texts.iter().for_each(|text| self.add(text));
    }
}
