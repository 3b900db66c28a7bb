//! A linear map of features: what towers see of them in their place.

use half::f16;
use half::slice::HalfFloatSliceExt;

/// What becomes of a feature before its mean is subtracted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Normalize {
    /// The feature stays as it is.
    #[default]
    None,
    /// It is divided by its length (L2); a feature of zeros stays.
    Rows,
}

impl Normalize {
    /// Normalizes one feature, (F), in place.
    pub fn apply(self, x: &mut [f32]) {
        if self == Normalize::None {
            return;
        }
        let square: f64 = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        if square > 0.0 {
            let factor = 1.0 / square.sqrt();
            x.iter_mut().for_each(|x| *x = (f64::from(*x) * factor) as f32);
        }
    }
}

/// From a feature (F) to (P) numbers: components * (normalized feature - mean), and these divided
/// by their length if `unit`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Projection {
    /// What becomes of the feature first.
    pub normalize: Normalize,
    /// The subtracted mean of features, (F).
    pub mean: Vec<f32>,
    /// The directions, (P, F), row-major.
    pub components: Vec<f32>,
    /// Whether the numbers are divided by their length (L2); zeros stay.
    pub unit: bool,
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
        let mut numbers = Vec::with_capacity(self.outputs());
        let last = if self.unit { Normalize::Rows } else { Normalize::None };
        for row in rows.chunks_exact(width) {
            row.convert_to_f32_slice(&mut x);
            self.normalize.apply(&mut x);
            x.iter_mut().zip(&self.mean).for_each(|(x, mean)| *x -= mean);
            numbers.clear();
            numbers.extend(self.components.chunks_exact(width).map(|component| {
                // Sums side by side: as exact as one, and the compiler can do them at once.
                let mut sums = [0.0_f32; LANES];
                let (whole, rest) = component.split_at(width / LANES * LANES);
                for (c, x) in whole.chunks_exact(LANES).zip(x.chunks_exact(LANES)) {
                    (0..LANES).for_each(|i| sums[i] += c[i] * x[i]);
                }
                let rest = rest.iter().zip(&x[whole.len()..]).map(|(c, x)| c * x).sum::<f32>();
                sums.iter().sum::<f32>() + rest
            }));
            last.apply(&mut numbers);
            out.extend(numbers.iter().map(|&number| f16::from_f32(number)));
        }
        out
    }
}
