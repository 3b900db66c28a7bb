//! Principal components of features: the directions in which they differ most.
//!
//! By subspace iteration from fixed first directions (Halko, Martinsson & Tropp 2011, Algorithm
//! 4.4), which costs a few products with the data instead of a covariance matrix of F * F: enough
//! for what a tower or a cosine makes of it. A function of the rows and their order alone.

use half::f16;
use serde::{Deserialize, Serialize};

use crate::init::{Init, dense_init};
use crate::linalg::{self, Normalize, Projection, Write};

/// More directions are followed than asked for, so that the last ones are good too.
const OVERSAMPLING: usize = 8;

/// Products with the data and back.
const ITERATIONS: usize = 12;

/// A component has no variance if it has less than this share of the largest one.
const NO_VARIANCE: f64 = 1e-12;

/// How the components of a projection are scaled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whiten {
    /// They are not: a component has its variance.
    #[default]
    None,
    /// Each is divided by the fourth root of its variance: small differences count for more, but
    /// less than large ones.
    Half,
    /// Each is divided by its standard deviation: all differences count alike.
    Full,
}

impl Whiten {
    /// What each component is multiplied with; 0 where it has no variance. Square roots are the
    /// same on every processor, powers are not.
    pub fn factors(self, variances: &[f32]) -> Vec<f32> {
        let largest = variances.iter().fold(0.0_f32, |most, variance| most.max(*variance));
        let factor = |variance: &f32| {
            let variance = f64::from(*variance);
            let divisor = match self {
                Whiten::None => return 1.0,
                Whiten::Half => variance.sqrt().sqrt(),
                Whiten::Full => variance.sqrt(),
            };
            let is_null = variance <= NO_VARIANCE * f64::from(largest);
            if is_null { 0.0 } else { (1.0 / divisor) as f32 }
        };
        variances.iter().map(factor).collect()
    }
}

/// Principal components of a sample of features.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pca {
    /// What became of the rows first.
    pub normalize: Normalize,
    /// The mean of the rows; (F).
    pub mean: Vec<f32>,
    /// Orthonormal directions, the one with the largest variance first; (P, F). Where rows do not
    /// have that many, the last ones are zeros. The largest number of each is positive.
    pub components: Vec<f32>,
    /// The variance in each direction; (P).
    pub variances: Vec<f32>,
}

impl Pca {
    /// The first `count` (P) principal components of `rows`, slices of `width` (F), after they are
    /// normalized.
    pub fn fit(rows: &[&[f16]], width: usize, count: usize, normalize: Normalize) -> Pca {
        let (n, followed) = (rows.len(), (count + OVERSAMPLING).min(width));
        let (x, mean) = centered(rows, width, normalize);
        // (followed, width): a direction per row.
        let mut directions = vec![0.0; followed * width];
        dense_init(0, "pca", "directions", Init::Uniform(1.0), &mut directions);
        let mut along = vec![0.0; n * followed];
        for _ in 0..ITERATIONS {
            orthonormal(&mut directions, width);
            linalg::a_bt([n, followed, width], &x, &directions, 1.0, Write::Overwrite, &mut along);
            linalg::at_b([followed, width, n], &along, &x, 1.0, Write::Overwrite, &mut directions);
        }
        orthonormal(&mut directions, width);
        linalg::a_bt([n, followed, width], &x, &directions, 1.0, Write::Overwrite, &mut along);
        let mut gram = vec![0.0; followed * followed];
        let shape = [followed, followed, n];
        linalg::at_b(shape, &along, &along, 1.0 / n.max(1) as f32, Write::Overwrite, &mut gram);
        let (values, turns) = eigen(gram.into_iter().map(f64::from).collect(), followed);
        let mut components = vec![0.0; count * width];
        let turns: Vec<f32> = turns.into_iter().map(|turn| turn as f32).collect();
        let kept = count.min(followed);
        let shape = [kept, width, followed];
        let turns = &turns[..kept * followed];
        linalg::a_b(
            shape,
            turns,
            &directions,
            1.0,
            Write::Overwrite,
            &mut components[..kept * width],
        );
        components.chunks_exact_mut(width).for_each(point_up);
        let mut variances: Vec<f32> =
            values.into_iter().map(|value| value.max(0.0) as f32).collect();
        variances.resize(count.max(followed), 0.0);
        variances.truncate(count);
        Pca { normalize, mean, components, variances }
    }

    /// The map from a feature to its components, scaled as `whiten` says.
    pub fn projection(self, whiten: Whiten) -> Projection {
        let Pca { normalize, mean, mut components, variances } = self;
        let rows = components.chunks_exact_mut(mean.len());
        for (component, factor) in rows.zip(whiten.factors(&variances)) {
            component.iter_mut().for_each(|x| *x *= factor);
        }
        Projection { normalize, mean, components, unit: false }
    }
}

/// The normalized rows less their mean, (n, width), and the mean.
fn centered(rows: &[&[f16]], width: usize, normalize: Normalize) -> (Vec<f32>, Vec<f32>) {
    let mut x = vec![0.0; rows.len() * width];
    let mut sums = vec![0.0_f64; width];
    for (row, x) in rows.iter().zip(x.chunks_exact_mut(width)) {
        linalg::widen(width, |_| row, x);
        normalize.apply(x);
        sums.iter_mut().zip(&*x).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    let mean: Vec<f32> = sums.iter().map(|sum| (sum / rows.len().max(1) as f64) as f32).collect();
    for x in x.chunks_exact_mut(width) {
        x.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= mean);
    }
    (x, mean)
}

/// Gram and Schmidt, twice for the sake of rounding; a row that depends on those before becomes
/// zeros.
fn orthonormal(rows: &mut [f32], width: usize) {
    for at in 0..rows.len() / width {
        let (before, rest) = rows.split_at_mut(at * width);
        let row = &mut rest[..width];
        let length = linalg::dot(row, row).sqrt();
        for _ in 0..2 {
            for other in before.chunks_exact(width) {
                linalg::axpy(-linalg::dot(other, row), other, row);
            }
        }
        let left = linalg::dot(row, row).sqrt();
        let factor = if left > 1e-5 * length && left > 0.0 { 1.0 / left } else { 0.0 };
        row.iter_mut().for_each(|x| *x *= factor);
    }
}

/// Turns a direction so that its largest number is positive.
fn point_up(direction: &mut [f32]) {
    let largest =
        direction.iter().fold(0.0_f32, |most, x| if x.abs() > most.abs() { *x } else { most });
    if largest < 0.0 {
        direction.iter_mut().for_each(|x| *x = -*x);
    }
}

/// Eigenvalues of a symmetric matrix (n, n), descending, and eigenvectors in rows, by Jacobi's
/// rotations.
fn eigen(mut a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    const SWEEPS: usize = 30;
    let mut vectors = vec![0.0; n * n];
    (0..n).for_each(|i| vectors[i * n + i] = 1.0);
    for _ in 0..SWEEPS {
        let off: f64 = (0..n * n).filter(|at| at / n != at % n).map(|at| a[at] * a[at]).sum();
        let all: f64 = a.iter().map(|x| x * x).sum();
        if off <= 1e-24 * all {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                let (app, aqq, apq) = (a[p * n + p], a[q * n + q], a[p * n + q]);
                if apq == 0.0 {
                    continue;
                }
                let theta = (aqq - app) / (2.0 * apq);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                for k in 0..n {
                    let (akp, akq) = (a[k * n + p], a[k * n + q]);
                    a[k * n + p] = c * akp - s * akq;
                    a[k * n + q] = s * akp + c * akq;
                }
                for k in 0..n {
                    let (apk, aqk) = (a[p * n + k], a[q * n + k]);
                    a[p * n + k] = c * apk - s * aqk;
                    a[q * n + k] = s * apk + c * aqk;
                    let (vp, vq) = (vectors[p * n + k], vectors[q * n + k]);
                    vectors[p * n + k] = c * vp - s * vq;
                    vectors[q * n + k] = s * vp + c * vq;
                }
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[j * n + j].total_cmp(&a[i * n + i]));
    let values = order.iter().map(|&i| a[i * n + i]).collect();
    let rows = order.iter().flat_map(|&i| vectors[i * n..(i + 1) * n].iter().copied()).collect();
    (values, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::values;

    /// 300 rows of 20 numbers around a mean: three large directions, and noise.
    fn rows() -> (Vec<f16>, [Vec<f32>; 3]) {
        let unit = |mut direction: Vec<f32>, before: &[&Vec<f32>]| {
            for other in before {
                let along = linalg::dot(other, &direction);
                linalg::axpy(-along, other, &mut direction);
            }
            let length = linalg::dot(&direction, &direction).sqrt();
            direction.iter_mut().for_each(|x| *x /= length);
            direction
        };
        let a = unit(values(1, 20), &[]);
        let b = unit(values(2, 20), &[&a]);
        let c = unit(values(3, 20), &[&a, &b]);
        let mut rows = Vec::new();
        for row in 0..300 {
            let along = values(100 + row, 3);
            let mut x: Vec<f32> = values(1000 + row, 20).iter().map(|x| 0.05 * x + 1.0).collect();
            for (direction, (along, size)) in
                [&a, &b, &c].into_iter().zip(along.iter().zip([8.0, 4.0, 2.0]))
            {
                linalg::axpy(along * size, direction, &mut x);
            }
            rows.extend(x.into_iter().map(f16::from_f32));
        }
        (rows, [a, b, c])
    }

    #[test]
    fn the_largest_directions_are_found_in_order() {
        let (rows, directions) = rows();
        let rows: Vec<&[f16]> = rows.chunks(20).collect();
        let pca = Pca::fit(&rows, 20, 4, Normalize::None);
        assert_eq!((pca.components.len(), pca.variances.len()), (80, 4));
        for (at, direction) in directions.iter().enumerate() {
            let cosine = linalg::dot(&pca.components[at * 20..][..20], direction).abs();
            assert!(cosine > 0.98, "direction {at}: {cosine}");
        }
        // Uniform numbers of size s have the variance s^2 / 3.
        for (variance, expected) in pca.variances.iter().zip([21.3, 5.3, 1.3]) {
            assert!((variance / expected - 1.0).abs() < 0.2, "{variance} {expected}");
        }
        assert!(pca.variances[3] < 0.01, "{:?}", pca.variances);
        for at in 0..4 {
            for other in 0..4 {
                let product = linalg::dot(
                    &pca.components[at * 20..][..20],
                    &pca.components[other * 20..][..20],
                );
                assert!((product - f32::from(at == other)).abs() < 1e-4, "{at} {other}: {product}");
            }
        }
    }

    /// All components of a matrix keep every distance.
    #[test]
    fn all_components_are_a_rotation() {
        let (rows, _) = rows();
        let rows: Vec<&[f16]> = rows.chunks(20).take(40).collect();
        let pca = Pca::fit(&rows, 20, 20, Normalize::None);
        let (x, _) = centered(&rows, 20, Normalize::None);
        let total: f32 = x.iter().map(|x| x * x).sum::<f32>() / 40.0;
        let kept: f32 = pca.variances.iter().sum();
        assert!((kept / total - 1.0).abs() < 1e-4, "{kept} of {total}");
    }

    #[test]
    fn fewer_rows_than_components_leave_zeros() {
        let (rows, _) = rows();
        let rows: Vec<&[f16]> = rows.chunks(20).take(3).collect();
        let pca = Pca::fit(&rows, 20, 6, Normalize::None);
        assert!(pca.components.iter().all(|x| x.is_finite()));
        assert!(pca.variances[1] > 0.0 && pca.variances[2] < 1e-4, "{:?}", pca.variances);
        assert_eq!(Pca::fit(&[], 20, 2, Normalize::None).variances, [0.0; 2]);
        assert_eq!(Pca::fit(&rows[..1], 20, 2, Normalize::None).variances, [0.0; 2]);
    }

    /// Eigenvalues, descending, and eigenvectors in rows of a symmetric matrix (n, n): the largest
    /// off-diagonal element is rotated away until none is left.
    fn jacobi(mut a: Vec<Vec<f64>>) -> Vec<(f64, Vec<f64>)> {
        let n = a.len();
        let mut v: Vec<Vec<f64>> =
            (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
        loop {
            let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
            let largest = pairs.max_by(|x, y| a[x.0][x.1].abs().total_cmp(&a[y.0][y.1].abs()));
            let Some((p, q)) = largest.filter(|(p, q)| a[*p][*q].abs() > 1e-15) else { break };
            let angle = 0.5 * (2.0 * a[p][q]).atan2(a[q][q] - a[p][p]);
            let (sin, cos) = angle.sin_cos();
            for row in &mut a {
                (row[p], row[q]) = (cos * row[p] - sin * row[q], sin * row[p] + cos * row[q]);
            }
            for k in 0..n {
                (a[p][k], a[q][k]) = (cos * a[p][k] - sin * a[q][k], sin * a[p][k] + cos * a[q][k]);
                (v[p][k], v[q][k]) = (cos * v[p][k] - sin * v[q][k], sin * v[p][k] + cos * v[q][k]);
            }
        }
        let mut pairs: Vec<(f64, Vec<f64>)> = (0..n).map(|i| a[i][i]).zip(v).collect();
        pairs.sort_by(|x, y| y.0.total_cmp(&x.0));
        pairs
    }

    /// The rows projected as one would write it down, in f64.
    fn obvious(
        rows: &[&[f16]],
        count: usize,
        normalize: Normalize,
        power: f64,
    ) -> (Vec<f64>, Vec<Vec<f64>>) {
        let (n, width) = (rows.len() as f64, rows[0].len());
        let mut x: Vec<Vec<f64>> =
            rows.iter().map(|row| row.iter().map(|x| f64::from(x.to_f32())).collect()).collect();
        if normalize == Normalize::Rows {
            for row in &mut x {
                let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
                row.iter_mut().for_each(|x| *x /= if length == 0.0 { 1.0 } else { length });
            }
        }
        let mean: Vec<f64> =
            (0..width).map(|at| x.iter().map(|row| row[at]).sum::<f64>() / n).collect();
        for row in &mut x {
            row.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= mean);
        }
        let covariance = |i: usize, j: usize| x.iter().map(|row| row[i] * row[j]).sum::<f64>() / n;
        let matrix = (0..width).map(|i| (0..width).map(|j| covariance(i, j)).collect()).collect();
        let pairs: Vec<(f64, Vec<f64>)> = jacobi(matrix).into_iter().take(count).collect();
        let project = |row: &Vec<f64>| {
            let along = pairs.iter().map(|(variance, direction)| {
                let largest =
                    direction.iter().fold(0.0_f64, |a, b| if b.abs() > a.abs() { *b } else { a });
                let along: f64 = direction.iter().zip(row).map(|(c, x)| c * x).sum();
                along * largest.signum() / variance.powf(power)
            });
            along.collect()
        };
        (pairs.iter().map(|pair| pair.0).collect(), x.iter().map(project).collect())
    }

    #[test]
    fn a_projection_has_the_values_of_the_obvious_one() {
        let (rows, _) = rows();
        let rows: Vec<&[f16]> = rows.chunks(20).collect();
        for normalize in [Normalize::None, Normalize::Rows] {
            for (whiten, power) in [(Whiten::None, 0.0), (Whiten::Half, 0.25), (Whiten::Full, 0.5)]
            {
                let pca = Pca::fit(&rows, 20, 3, normalize);
                let (variances, expected) = obvious(&rows, 3, normalize, power);
                for (got, want) in pca.variances.iter().zip(variances) {
                    assert!((f64::from(*got) / want - 1.0).abs() < 1e-4, "{got} {want}");
                }
                let projection = pca.projection(whiten);
                let got = projection.apply(&rows.concat());
                for (got, want) in got.iter().zip(expected.concat()) {
                    // Halfs have eleven bits.
                    let close = (f64::from(got.to_f32()) - want).abs() < 1e-3 * want.abs() + 2e-3;
                    assert!(close, "{normalize:?} {whiten:?}: {got} {want}");
                }
            }
        }
    }

    #[test]
    fn components_without_variance_are_zeros() {
        assert_eq!(Whiten::Half.factors(&[16.0, 1.0, 1e-11, 0.0]), [0.5, 1.0, 0.0, 0.0]);
        assert_eq!(Whiten::Full.factors(&[16.0, 1.0, 1e-11, 0.0]), [0.25, 1.0, 0.0, 0.0]);
        assert_eq!(Whiten::None.factors(&[16.0, 0.0]), [1.0, 1.0]);
        assert_eq!(Whiten::Full.factors(&[0.0]), [0.0]);
        // Rows that differ in one direction only, and one of zeros, which has no length.
        let rows: Vec<Vec<f16>> =
            (0..9).map(|at| [at as f32, 0.0, 0.0].map(f16::from_f32).to_vec()).collect();
        let rows: Vec<&[f16]> = rows.iter().map(|row| &row[..]).collect();
        for whiten in [Whiten::Half, Whiten::Full] {
            for normalize in [Normalize::None, Normalize::Rows] {
                let projection = Pca::fit(&rows, 3, 3, normalize).projection(whiten);
                let out = projection.apply(&rows.concat());
                assert!(out.iter().all(|x| x.is_finite()), "{out:?}");
                assert!(out.chunks(3).any(|row| row[0] != f16::ZERO));
                assert!(out.chunks(3).all(|row| row[1..] == [f16::ZERO; 2]), "{out:?}");
            }
        }
    }
}
