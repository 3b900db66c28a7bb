//! A linear map of features: what towers see of them in their place.

use half::f16;
use half::slice::HalfFloatSliceExt;

/// From a feature (F) to (P) numbers: components * (feature - mean).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Projection {
    /// The subtracted mean of features, (F).
    pub mean: Vec<f32>,
    /// The directions, (P, F), row-major.
    pub components: Vec<f32>,
}

impl Projection {
    /// Numbers it makes of a feature (P).
    pub fn outputs(&self) -> usize {
        self.components.len() / self.mean.len()
    }

    /// Every row of `rows` (n, F) as (n, P), rounded to halfs like the features themselves.
    pub fn apply(&self, rows: &[f16]) -> Vec<f16> {
        const LANES: usize = 16;
        let width = self.mean.len();
        let mut x = vec![0.0; width];
        let mut out = Vec::with_capacity(rows.len() / width * self.outputs());
        for row in rows.chunks_exact(width) {
            row.convert_to_f32_slice(&mut x);
            x.iter_mut().zip(&self.mean).for_each(|(x, mean)| *x -= mean);
            out.extend(self.components.chunks_exact(width).map(|component| {
                // Sums side by side: as exact as one, and the compiler can do them at once.
                let mut sums = [0.0_f32; LANES];
                let (whole, rest) = component.split_at(width / LANES * LANES);
                for (c, x) in whole.chunks_exact(LANES).zip(x.chunks_exact(LANES)) {
                    (0..LANES).for_each(|i| sums[i] += c[i] * x[i]);
                }
                let rest = rest.iter().zip(&x[whole.len()..]).map(|(c, x)| c * x).sum::<f32>();
                f16::from_f32(sums.iter().sum::<f32>() + rest)
            }));
        }
        out
    }
}
