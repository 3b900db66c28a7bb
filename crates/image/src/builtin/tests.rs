//! What the builtin encoder promises: the same row always, sane numbers, and visible things
//! recoverable.

use super::*;
use std::f32::consts::TAU;

fn row(encoder: &Builtin, picture: &Rgb) -> Vec<f32> {
    let mut out = vec![0.0; encoder.dim()];
    encode(encoder, picture, &mut Scratch::default(), &mut out);
    out
}

fn encode(encoder: &Builtin, picture: &Rgb, scratch: &mut Scratch, out: &mut [f32]) {
    let fitted = encoder.fit(picture.clone(), scratch);
    encoder.encode(&[fitted], scratch, out).unwrap();
}

fn picture(width: u32, height: u32, color: impl Fn(f32, f32) -> [u8; 3]) -> Rgb {
    let pixels = (0..width * height)
        .flat_map(|at| {
            color((at % width) as f32 / width as f32, (at / width) as f32 / height as f32)
        })
        .collect();
    Rgb { width, height, pixels }
}

/// A product on white: one of 4 hues, 3 shapes, 3 patterns, placed and sized by `random`.
fn product(kind: [usize; 3], random: &mut ChaCha8Rng) -> Rgb {
    let mut uniform = || (random.next_u32() >> 8) as f32 / (1u32 << 24) as f32;
    let (x0, y0) = (0.4 + 0.2 * uniform(), 0.4 + 0.2 * uniform());
    let (size, phase, light) = (0.22 + 0.12 * uniform(), uniform(), 0.7 + 0.3 * uniform());
    let base =
        [[230.0, 40.0, 40.0], [40.0, 170.0, 60.0], [50.0, 80.0, 220.0], [230.0, 190.0, 40.0]];
    picture(80, 80, |x, y| {
        let (dx, dy) = ((x - x0) / size, (y - y0) / size);
        let inside = match kind[1] {
            0 => dx * dx + dy * dy <= 1.0,
            1 => dx.abs().max(dy.abs()) <= 0.9,
            _ => dy.abs() <= 0.9 && dx.abs() <= (dy + 0.9) / 1.8,
        };
        let dark = match kind[2] {
            0 => false,
            1 => ((x + phase) * TAU * 10.0).sin() > 0.0,
            _ => ((x + phase) * TAU * 7.0).sin() * ((y + phase) * TAU * 7.0).sin() > 0.2,
        };
        if inside {
            base[kind[0]].map(|value| (value * light * if dark { 0.5 } else { 1.0 }) as u8)
        } else {
            [248; 3]
        }
    })
}

/// Solves `(K + ridge) a = y` for each column of `y` by elimination; `k` is (n, n), `y` is (n, c).
fn solve(k: &mut [f64], y: &mut [f64], n: usize, c: usize) {
    for pivot in 0..n {
        for row in pivot + 1..n {
            let factor = k[row * n + pivot] / k[pivot * n + pivot];
            (pivot..n).for_each(|at| k[row * n + at] -= factor * k[pivot * n + at]);
            (0..c).for_each(|at| y[row * c + at] -= factor * y[pivot * c + at]);
        }
    }
    for pivot in (0..n).rev() {
        for at in 0..c {
            let known =
                (pivot + 1..n).map(|other| k[pivot * n + other] * y[other * c + at]).sum::<f64>();
            y[pivot * c + at] = (y[pivot * c + at] - known) / k[pivot * n + pivot];
        }
    }
}

/// Share of test rows whose class a linear ridge probe finds.
fn probe(train: &[Vec<f32>], classes: &[usize], test: &[Vec<f32>], truth: &[usize]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let (n, c) = (train.len(), 4);
    let mut k = vec![0.0; n * n];
    for (at, value) in k.iter_mut().enumerate() {
        let (a, b) = (at / n, at % n);
        *value = dot(&train[a], &train[b]) / train[0].len() as f64 + if a == b { 0.1 } else { 0.0 };
    }
    let mut y = vec![-0.3; n * c];
    classes.iter().enumerate().for_each(|(row, class)| y[row * c + class] = 1.0);
    solve(&mut k, &mut y, n, c);
    let right = test.iter().zip(truth).filter(|(row, truth)| {
        let mut scores = [0.0; 4];
        for (other, weights) in train.iter().zip(y.chunks_exact(c)) {
            let near = dot(row, other);
            scores.iter_mut().zip(weights).for_each(|(score, weight)| *score += near * weight);
        }
        (0..c).max_by(|a, b| scores[*a].total_cmp(&scores[*b])) == Some(**truth)
    });
    right.count() as f64 / test.len() as f64
}

#[test]
fn a_linear_probe_recovers_color_shape_and_pattern() {
    let encoder = Builtin::new(DIM, 0).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let kinds = (0..144).map(|at| [at % 4, at / 4 % 3, at / 12 % 3]).collect::<Vec<_>>();
    let rows =
        kinds.iter().map(|kind| row(&encoder, &product(*kind, &mut random))).collect::<Vec<_>>();
    let (train, test) = rows.split_at(108);
    for (factor, least) in [(0, 0.97), (1, 0.9), (2, 0.9)] {
        let classes = kinds.iter().map(|kind| kind[factor]).collect::<Vec<_>>();
        let found = probe(train, &classes[..108], test, &classes[108..]);
        assert!(found >= least, "factor {factor}: {found}, expected {least}");
    }
}

#[test]
fn rows_depend_on_the_picture_alone() {
    let (one, other) = (Builtin::new(DIM, 0).unwrap(), Builtin::new(DIM, 0).unwrap());
    let wave = picture(90, 120, |x, y| [(x * 255.0) as u8, (y * 255.0) as u8, 128]);
    let dark = picture(33, 5, |_, y| [(y * 60.0) as u8; 3]);
    let expected = row(&one, &wave);
    let mut scratch = Scratch::default();
    let mut out = vec![9.0; DIM];
    encode(&other, &dark, &mut scratch, &mut out);
    assert_ne!(out, expected);
    encode(&other, &wave, &mut scratch, &mut out);
    assert_eq!(out, expected);
}

#[test]
fn hashes_tell_encoders_apart() {
    let hash = |dim, seed| Builtin::new(dim, seed).unwrap().hash();
    assert_eq!(hash(64, 1), hash(64, 1));
    assert_ne!(hash(64, 1), hash(64, 2));
    assert_ne!(hash(64, 1), hash(65, 1));
}

#[test]
fn any_size_and_width_gives_finite_numbers_of_about_one() {
    for dim in [8, 100, 4096, 4100] {
        let encoder = Builtin::new(dim, 3).unwrap();
        for (width, height) in [(1, 1), (3, 400), (640, 2), (64, 64)] {
            let picture = picture(width, height, |x, y| [(x * 250.0) as u8, 9, (y * 250.0) as u8]);
            let row = row(&encoder, &picture);
            assert!(row.iter().all(|value| value.is_finite()));
            let rms = (row.iter().map(|value| value * value).sum::<f32>() / dim as f32).sqrt();
            assert!((0.2..5.0).contains(&rms), "dim {dim}, {width} x {height}: rms {rms}");
        }
    }
    assert!(Builtin::new(7, 0).unwrap_err().to_string().contains("8 to 65536"));
}

/// Guards stores against a silent change of the encoder: whoever changes rows raises `VERSION`.
#[test]
fn a_known_picture_has_a_known_row() {
    let encoder = Builtin::new(DIM, 0).unwrap();
    let wave = picture(64, 64, |x, y| [(x * 255.0) as u8, (y * 255.0) as u8, 128]);
    let row = row(&encoder, &wave);
    let places = [0, 250, 500, 900, 1500, 1700, 2000, 3000, 4095];
    let found = places.map(|at| row[at]);
    let expected = [0.0, -0.791, -0.7046, -0.7973, -1.2345, -2.0911, -0.9836, -0.919, 0.3255];
    let near = found.iter().zip(expected).all(|(found, expected)| (*found - expected).abs() < 2e-3);
    assert!(near, "found {found:?}, expected {expected:?}");
}
