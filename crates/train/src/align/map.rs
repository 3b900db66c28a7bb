//! What the map reads: principal components of features of length 1.

use ams_data::ImageKey;
use ams_image::FeatureStore;
use ams_model::linalg::{self, Normalize, Write};
use ams_model::pca::{Pca, Whiten};

use crate::setup::components;

/// Rows that are projected in one product.
const TOGETHER: usize = 512;

/// From a feature (F) to (P) numbers: components * (feature / |feature| - mean).
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Components {
    /// The mean of features of length 1; (F).
    pub mean: Vec<f32>,
    /// What each component was multiplied by, for its variance; (P).
    pub scales: Vec<f32>,
    /// Principal components times their scales; (P, F).
    pub components: Vec<f32>,
}

impl Components {
    /// The first `count` components of the features of `store`.
    pub(crate) fn fit(store: &FeatureStore, count: usize, whiten: Whiten) -> Components {
        let Pca { mean, mut components, variances, .. } =
            components::fit(store, count, Normalize::Rows);
        let scales = whiten.factors(&variances);
        for (component, scale) in components.chunks_exact_mut(store.dim()).zip(&scales) {
            component.iter_mut().for_each(|x| *x *= scale);
        }
        Components { mean, scales, components }
    }

    /// Numbers it reads (F) and makes (P).
    pub(crate) fn shape(&self) -> [usize; 2] {
        [self.mean.len(), self.scales.len()]
    }

    /// What it makes of the features of `keys`, images of `store`; (n, P).
    pub(crate) fn of(&self, store: &FeatureStore, keys: &[u64]) -> Vec<f32> {
        let [width, count] = self.shape();
        let mut out = vec![0.0; keys.len() * count];
        let mut rows = Vec::new();
        for (keys, out) in keys.chunks(TOGETHER).zip(out.chunks_mut(TOGETHER * count)) {
            let rows = linalg::fit(&mut rows, keys.len() * width);
            for (&key, row) in keys.iter().zip(rows.chunks_exact_mut(width)) {
                unit_row(store, ImageKey(key), row);
                row.iter_mut().zip(&self.mean).for_each(|(x, mean)| *x -= mean);
            }
            let shape = [keys.len(), count, width];
            linalg::a_bt(shape, rows, &self.components, 1.0, Write::Overwrite, out);
        }
        out
    }
}

/// The feature of an image of `store`, (F), at length 1; zeros stay zeros.
fn unit_row(store: &FeatureStore, key: ImageKey, row: &mut [f32]) {
    let feature = store.row(key).expect("the store named this key").halfs();
    linalg::widen(row.len(), |_| &feature, row);
    Normalize::Rows.apply(row);
}
