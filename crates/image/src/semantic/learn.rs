//! Learning codebooks by residual k-means.
//!
//! A function of the rows and their order alone: first centers are drawn with a fixed seed, sums
//! run over the rows in their order, and threads share columns and rows, never a sum.

use ams_linalg::{Centers, Codebooks, normalized};
use half::f16;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

/// Most steps of a level; it ends as soon as no row changes its center.
const STEPS: usize = 20;

/// Rows that one thread compares at once.
const ROWS: usize = 256;

/// Columns that one thread sums at once.
const COLUMNS: usize = 64;

/// Rows of which codebooks of `size` centers are learned, if there are so many.
pub(crate) fn sample(size: usize) -> usize {
    (256 * size).clamp(8192, 65_536)
}

/// Codebooks of `levels` levels of `size` centers, learned of `rows` (n, F).
pub(crate) fn learn(rows: &[f16], width: usize, levels: usize, size: usize) -> Codebooks {
    let mut x = normalized(rows, width);
    let of_level = |level: usize| {
        let centers = level_of(&x, width, size, level as u64);
        let codes = nearest(&centers, &x, width);
        let rows = x.par_chunks_mut(ROWS * width).zip(codes.par_chunks(ROWS));
        rows.for_each(|(x, codes)| centers.subtract(codes, x));
        centers
    };
    let levels = (0..levels).map(of_level).collect();
    Codebooks::of_levels(levels, width)
}

/// The centers of one level, learned of `x` (n, F) by Lloyd's steps.
fn level_of(x: &[f32], width: usize, size: usize, level: u64) -> Centers {
    let mut centers = Centers::new(first_centers(x, width, size, level), width);
    let mut codes = Vec::new();
    for _ in 0..STEPS {
        let now = nearest(&centers, x, width);
        if now == codes {
            break;
        }
        codes = now;
        centers = means(x, width, &codes, &centers);
    }
    centers
}

/// The center of each row.
fn nearest(centers: &Centers, x: &[f32], width: usize) -> Vec<u32> {
    x.par_chunks(ROWS * width).flat_map_iter(|x| centers.nearest(x)).collect()
}

/// First centers (K, F), by k-means++ (Arthur & Vassilvitskii 2007): rows, each drawn with a
/// probability proportional to the square of its distance to the nearest one before. Where all
/// rows are centers, the first one again.
fn first_centers(x: &[f32], width: usize, size: usize, level: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(level);
    let mut draw = || (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let row = |at: usize| &x[at * width..][..width];
    let count = x.len() / width;
    let mut least = vec![f64::INFINITY; count];
    let mut centers: Vec<f32> = Vec::with_capacity(size * width);
    let mut next = (draw() * count as f64) as usize;
    for _ in 0..size {
        let center = row(next).to_vec();
        least.par_iter_mut().enumerate().for_each(|(at, least)| {
            *least = least.min(distance(row(at), &center));
        });
        centers.extend(center);
        let target = draw() * least.iter().sum::<f64>();
        let mut sum = 0.0;
        let reached = least.iter().position(|least| {
            sum += least;
            sum > target
        });
        next = reached.unwrap_or(0);
    }
    // A row that was drawn again is at distance 0, so it is one that repeats the first.
    centers
}

/// The mean of the rows of each center; of the centers without a row, in their order, the rows that
/// are farthest from theirs, or what they were before.
fn means(x: &[f32], width: usize, codes: &[u32], before: &Centers) -> Centers {
    let size = before.as_slice().len() / width;
    let mut counts = vec![0_u32; size];
    codes.iter().for_each(|code| counts[*code as usize] += 1);
    let columns: Vec<Vec<f64>> = (0..width.div_ceil(COLUMNS))
        .into_par_iter()
        .map(|block| {
            let columns = block * COLUMNS..width.min((block + 1) * COLUMNS);
            let mut sums = vec![0.0; size * columns.len()];
            for (row, code) in x.chunks_exact(width).zip(codes) {
                let sums = &mut sums[*code as usize * columns.len()..][..columns.len()];
                let row = &row[columns.clone()];
                sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
            }
            sums
        })
        .collect();
    let mut centers = before.as_slice().to_vec();
    for (center, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        for (block, sums) in columns.iter().enumerate() {
            let width_of = sums.len() / size;
            let to = &mut centers[center * width + block * COLUMNS..][..width_of];
            let sums = &sums[center * width_of..][..width_of];
            to.iter_mut().zip(sums).for_each(|(to, sum)| *to = (sum / f64::from(*count)) as f32);
        }
    }
    let empty: Vec<usize> = (0..size).filter(|center| counts[*center] == 0).collect();
    if !empty.is_empty() {
        for (center, row) in empty.into_iter().zip(farthest(x, width, codes, before)) {
            centers[center * width..][..width].copy_from_slice(&x[row * width..][..width]);
        }
    }
    Centers::new(centers, width)
}

/// The rows that are not at their center, the farthest first, and the first of equally far ones.
fn farthest(x: &[f32], width: usize, codes: &[u32], centers: &Centers) -> Vec<usize> {
    let center = |code: u32| &centers.as_slice()[code as usize * width..][..width];
    let rows = x.par_chunks_exact(width).zip(codes);
    let distances: Vec<f64> = rows.map(|(row, code)| distance(row, center(*code))).collect();
    let mut order: Vec<usize> = (0..codes.len()).filter(|row| distances[*row] > 0.0).collect();
    order.sort_by(|a, b| distances[*b].total_cmp(&distances[*a]).then(a.cmp(b)));
    order
}

/// The square of the distance of two rows.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    const LANES: usize = 16;
    let mut sums = [0.0_f32; LANES];
    let (whole, rest) = a.split_at(a.len() / LANES * LANES);
    for (a, b) in whole.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        (0..LANES).for_each(|i| sums[i] += (a[i] - b[i]) * (a[i] - b[i]));
    }
    let rest: f32 = rest.iter().zip(&b[whole.len()..]).map(|(a, b)| (a - b) * (a - b)).sum();
    f64::from(sums.iter().sum::<f32>() + rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ams_linalg::check::values;
    use rayon::ThreadPoolBuilder;

    /// Rows around `size` points that are far from one another, in turn.
    fn clustered(count: usize, width: usize, size: usize) -> Vec<f16> {
        let points = values(1, size * width);
        let noise = values(2, count * width);
        let row = |row: usize| {
            let point = &points[row % size * width..][..width];
            let noise = &noise[row * width..][..width];
            point.iter().zip(noise).map(|(point, noise)| f16::from_f32(point + 0.02 * noise))
        };
        (0..count).flat_map(row).collect()
    }

    /// Lloyd's steps as one would write them down, in f64, from the same first centers.
    fn obvious(x: &[Vec<f64>], mut centers: Vec<Vec<f64>>) -> (Vec<Vec<f64>>, Vec<usize>) {
        let distance =
            |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum() };
        let assign = |centers: &[Vec<f64>]| -> Vec<usize> {
            let of = |x: &Vec<f64>| {
                let far = |c: &usize| distance(x, &centers[*c]);
                (0..centers.len()).min_by(|a, b| far(a).total_cmp(&far(b))).unwrap()
            };
            x.iter().map(of).collect()
        };
        let mut codes: Vec<usize> = Vec::new();
        for _ in 0..STEPS {
            let now = assign(&centers);
            if now == codes {
                break;
            }
            codes = now;
            for (number, center) in centers.iter_mut().enumerate() {
                let own: Vec<&Vec<f64>> =
                    x.iter().zip(&codes).filter(|(_, c)| **c == number).map(|(x, _)| x).collect();
                for (at, value) in center.iter_mut().enumerate() {
                    if !own.is_empty() {
                        *value = own.iter().map(|x| x[at]).sum::<f64>() / own.len() as f64;
                    }
                }
            }
        }
        let codes = assign(&centers);
        (centers, codes)
    }

    #[test]
    fn codebooks_are_those_of_the_obvious_steps() {
        let (count, width, size) = (300, 70, 5);
        let rows = clustered(count, width, size);
        let books = learn(&rows, width, 3, size);
        let mut codes = Vec::new();
        books.codes(&rows, &mut codes);
        let mut x = normalized(&rows, width);
        for level in 0..3 {
            let first = first_centers(&x, width, size, level as u64);
            let in_f64 = |rows: &[f32]| -> Vec<Vec<f64>> {
                let row = |row: &[f32]| row.iter().map(|x| f64::from(*x)).collect();
                rows.chunks(width).map(row).collect()
            };
            let (centers, expected) = obvious(&in_f64(&x), in_f64(&first));
            let got: Vec<usize> =
                codes.iter().skip(level).step_by(3).map(|code| *code as usize).collect();
            assert_eq!(got, expected, "level {level}");
            let of_level = &books.centers()[level * size * width..][..size * width];
            for (got, want) in of_level.iter().zip(centers.concat()) {
                assert!((f64::from(*got) - want).abs() < 1e-5, "level {level}: {got} {want}");
            }
            let centers = Centers::new(of_level.to_vec(), width);
            let of_level: Vec<u32> = got.iter().map(|code| *code as u32).collect();
            centers.subtract(&of_level, &mut x);
        }
        // The points are found at the first level: rows of one point have one code, and no others.
        let first: Vec<u32> = codes.iter().step_by(3).copied().collect();
        assert!((0..count).all(|row| first[row] == first[row % size]), "{first:?}");
        let different: std::collections::BTreeSet<u32> = first.into_iter().collect();
        assert_eq!(different.len(), size);
    }

    #[test]
    fn threads_do_not_matter() {
        let rows = clustered(1000, 130, 40);
        let on = |threads: usize| {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| learn(&rows, 130, 2, 33))
        };
        assert_eq!(on(1), on(4));
    }

    /// Fewer different rows than centers: all of them are centers, and nothing is left of a row.
    #[test]
    fn repeated_rows_have_no_residual() {
        let rows: Vec<f16> =
            (0..90).flat_map(|row| clustered(3, 4, 3)[row % 3 * 4..][..4].to_vec()).collect();
        let books = learn(&rows, 4, 2, 8);
        let mut codes = Vec::new();
        books.codes(&rows, &mut codes);
        let different: std::collections::BTreeSet<&[u32]> = codes.chunks(2).collect();
        assert_eq!(different.len(), 3, "{different:?}");
        assert!(books.centers()[8 * 4..].iter().all(|x| *x == 0.0));
        assert!(learn(&rows[..4], 4, 1, 2).centers().iter().all(|x| x.is_finite()));
    }

    /// Centers that no row is nearest to become the rows that are farthest from theirs.
    #[test]
    fn empty_centers_begin_anew() {
        let x = [0.0, 0.1, 5.0, 9.0, 5.0];
        let before = Centers::new(vec![0.0, 100.0, 200.0, 300.0], 1);
        let codes = before.nearest(&x);
        assert_eq!(codes, [0; 5]);
        let after = means(&x, 1, &codes, &before);
        let mean = (x.iter().map(|x| f64::from(*x)).sum::<f64>() / 5.0) as f32;
        assert_eq!(after.as_slice(), [mean, 9.0, 5.0, 5.0]);
        // Without another row, they stay.
        let same = means(&[7.0; 3], 1, &[0; 3], &Centers::new(vec![7.0, 70.0], 1));
        assert_eq!(same.as_slice(), [7.0, 70.0]);
    }
}
