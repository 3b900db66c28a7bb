//! Residual quantization of features: at each level the number of the nearest of some centers.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::{Normalize, Write, a_bt};

/// Most levels of codebooks.
pub const LEVELS_MAX: usize = 8;

/// Most centers of a level.
pub const CENTERS_MAX: usize = 4096;

/// Rows that are compared with the centers at once.
const BLOCK: usize = 256;

/// Centers of each level. A feature is divided by its length (L2); at each level its code is the
/// nearest center, the first of equally near ones, which is then subtracted.
#[derive(Clone, Debug, PartialEq)]
pub struct Codebooks {
    levels: Vec<Centers>,
    width: usize,
}

/// The centers of one level.
#[derive(Clone, Debug, PartialEq)]
pub struct Centers {
    /// (K, F), row-major.
    centers: Vec<f32>,
    /// Half the square of the length of each; (K).
    halves: Vec<f32>,
}

impl Codebooks {
    /// Codebooks of `centers` (L, K, F).
    ///
    /// # Panics
    /// If there are other than L * K * F numbers, or none.
    pub fn new([levels, size, width]: [usize; 3], centers: &[f32]) -> Codebooks {
        assert!(!centers.is_empty(), "codebooks without centers");
        assert_eq!(centers.len(), levels * size * width, "codebooks of {levels}, {size}, {width}");
        let level = |centers: &[f32]| Centers::new(centers.to_vec(), width);
        Codebooks { levels: centers.chunks_exact(size * width).map(level).collect(), width }
    }

    /// The same of levels of equally many centers.
    ///
    /// # Panics
    /// If there is no level.
    pub fn of_levels(levels: Vec<Centers>, width: usize) -> Codebooks {
        assert!(!levels.is_empty(), "codebooks without centers");
        Codebooks { levels, width }
    }

    /// Levels (L), centers of each (K), and numbers of a center (F).
    pub fn shape(&self) -> [usize; 3] {
        [self.levels.len(), self.levels[0].halves.len(), self.width]
    }

    /// All centers; (L, K, F).
    pub fn centers(&self) -> Vec<f32> {
        self.levels.iter().flat_map(|level| &level.centers).copied().collect()
    }

    /// The first `levels` of them.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn first(&self, levels: usize) -> Codebooks {
        Codebooks { levels: self.levels[..levels].to_vec(), width: self.width }
    }

    /// Appends the codes of `rows` (n, F), (n, L). Those of a row do not depend on the rows beside.
    pub fn codes(&self, rows: &[f16], to: &mut Vec<u32>) {
        let (width, count) = (self.width, self.levels.len());
        for rows in rows.chunks(BLOCK * width) {
            let (mut x, first) = (normalized(rows, width), to.len());
            to.resize(first + rows.len() / width * count, 0);
            for (level, centers) in self.levels.iter().enumerate() {
                let codes = centers.nearest(&x);
                centers.subtract(&codes, &mut x);
                let of_level = to[first..].iter_mut().skip(level).step_by(count);
                of_level.zip(codes).for_each(|(to, code)| *to = code);
            }
        }
    }
}

impl Centers {
    /// Centers of `width` numbers.
    ///
    /// # Panics
    /// If the numbers are of no whole center.
    pub fn new(centers: Vec<f32>, width: usize) -> Centers {
        assert_eq!(centers.len() % width, 0, "centers of {width} numbers");
        let half = |center: &[f32]| {
            let square: f64 = center.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
            (0.5 * square) as f32
        };
        Centers { halves: centers.chunks_exact(width).map(half).collect(), centers }
    }

    /// All centers; (K, F).
    pub fn as_slice(&self) -> &[f32] {
        &self.centers
    }

    /// For each of `x` (n, F) the number of the nearest center, the first of equally near ones.
    pub fn nearest(&self, x: &[f32]) -> Vec<u32> {
        let size = self.halves.len();
        let width = self.centers.len() / size;
        let (count, mut products) = (x.len() / width, vec![0.0; x.len() / width * size]);
        a_bt([count, size, width], x, &self.centers, 1.0, Write::Overwrite, &mut products);
        // |x - c|^2 is least where x * c - |c|^2 / 2 is greatest.
        let nearest = |products: &[f32]| {
            let (mut best, mut greatest) = (0, f32::NEG_INFINITY);
            for (center, (product, half)) in products.iter().zip(&self.halves).enumerate() {
                if product - half > greatest {
                    (best, greatest) = (center as u32, product - half);
                }
            }
            best
        };
        products.chunks_exact(size).map(nearest).collect()
    }

    /// Subtracts from each of `x` (n, F) the center that `codes` (n) name.
    pub fn subtract(&self, codes: &[u32], x: &mut [f32]) {
        let width = self.centers.len() / self.halves.len();
        for (x, code) in x.chunks_exact_mut(width).zip(codes) {
            let center = &self.centers[*code as usize * width..][..width];
            x.iter_mut().zip(center).for_each(|(x, center)| *x -= center);
        }
    }
}

/// Each of `rows` (n, F), divided by its length; a row of zeros stays.
pub fn normalized(rows: &[f16], width: usize) -> Vec<f32> {
    let mut x = vec![0.0; rows.len()];
    rows.convert_to_f32_slice(&mut x);
    x.chunks_exact_mut(width).for_each(|row| Normalize::Rows.apply(row));
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::values;

    /// Every distance in f64, level by level.
    fn obvious([levels, size, width]: [usize; 3], centers: &[f32], row: &[f16]) -> Vec<u32> {
        let mut x: Vec<f64> = row.iter().map(|x| f64::from(x.to_f32())).collect();
        let length = x.iter().map(|x| x * x).sum::<f64>().sqrt();
        x.iter_mut().for_each(|x| *x /= if length == 0.0 { 1.0 } else { length });
        let mut codes = Vec::new();
        for level in 0..levels {
            let center = |code: usize| &centers[(level * size + code) * width..][..width];
            let distance = |code: usize| -> f64 {
                x.iter().zip(center(code)).map(|(x, c)| (x - f64::from(*c)).powi(2)).sum()
            };
            let best = (0..size).min_by(|a, b| distance(*a).total_cmp(&distance(*b))).unwrap();
            x.iter_mut().zip(center(best)).for_each(|(x, c)| *x -= f64::from(*c));
            codes.push(best as u32);
        }
        codes
    }

    #[test]
    fn codes_are_those_of_the_obvious_comparison() {
        // A row of zeros is among them, and more rows than are compared at once.
        for shape in [[1, 2, 3], [3, 7, 20], [2, 33, 65]] {
            let [levels, size, width] = shape;
            let centers = values(1, levels * size * width);
            let mut rows: Vec<f16> =
                values(2, 300 * width).into_iter().map(f16::from_f32).collect();
            rows[..width].fill(f16::ZERO);
            let (books, mut codes) = (Codebooks::new(shape, &centers), vec![9]);
            books.codes(&rows, &mut codes);
            let expected = rows.chunks(width).flat_map(|row| obvious(shape, &centers, row));
            assert_eq!(codes[1..], expected.collect::<Vec<_>>(), "{shape:?}");
            assert_eq!((books.shape(), books.centers()), (shape, centers));
            // Alone, and by fewer levels, a row has the same.
            for (row, of_row) in rows.chunks(width).zip(codes[1..].chunks(levels)).take(9) {
                let mut alone = Vec::new();
                books.first(1).codes(row, &mut alone);
                books.codes(row, &mut alone);
                assert_eq!(alone, [&of_row[..1], of_row].concat());
            }
        }
    }

    #[test]
    fn the_first_of_equally_near_centers_is_the_code() {
        let books = Codebooks::new([1, 3, 2], &[-1.0, 0.0, 1.0, 0.0, 1.0, 0.0]);
        let mut codes = Vec::new();
        books.codes(&[1.0, 0.0, 0.0, 2.0].map(f16::from_f32), &mut codes);
        assert_eq!(codes, [1, 0]);
    }
}
