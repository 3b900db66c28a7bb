//! Contrastive alignment of a linear map with what users engage with together.
//!
//! ```text
//! x (U, P)  components of pictures      w (D, P)  the map, first the identity on the first D
//! z = x w'                              e = z / |z|, zeros where z is
//! ```
//! A pair i is two items a, b that one user engaged with; B pairs are a batch. With the cosines
//! c(i, j) = e_a(i) e_b(j), q(i, j) = exp((c(i, j) - 1) / temperature), or 0 where pairs i and j
//! are related, and weights w(i), the loss is InfoNCE in both directions:
//! ```text
//! r(i) = sum over j of q(i, j)          from a to b
//! s(j) = sum over i of q(i, j)          from b to a
//! L    = sum over i of w(i) / 2 (log r(i) + log s(i) - 2 log q(i, i))  /  sum of w
//! ```
//! Pairs are related if they are of one user or share an item: then one is no negative of the
//! other. A batch may be divided: whoever has some of its pairs computes q of these rows
//! ([`Rows::scores`]), shares their sums with the others, and then has the whole gradient of its
//! own embeddings ([`Rows::backward`]). Each element is the same whoever computes it.

use std::ops::Range;

use crate::linalg::{self, Write};

/// The least temperature: below it, all of a row's q could round to zero.
pub const LEAST_TEMPERATURE: f32 = 0.05;

/// The map (D, P) that keeps the first D of P components.
///
/// # Panics
/// If there are fewer components than that.
pub fn identity(width: usize, components: usize) -> Vec<f32> {
    assert!(width <= components, "{width} of {components} components");
    let mut w = vec![0.0; width * components];
    (0..width).for_each(|row| w[row * components + row] = 1.0);
    w
}

/// The embeddings `e` (U, D), of length 1 or 0, that the map `w` (D, P) makes of `x` (U, P), and
/// the `lengths` (U) that they had before.
pub fn embed(
    [width, components]: [usize; 2],
    x: &[f32],
    w: &[f32],
    e: &mut Vec<f32>,
    lengths: &mut Vec<f32>,
) {
    let rows = x.len() / components;
    let e = linalg::fit(e, rows * width);
    linalg::a_bt([rows, width, components], x, w, 1.0, Write::Overwrite, e);
    unit(width, e, lengths);
}

/// Scales the rows of `e` (U, D) to length 1, but for zeros, and overwrites `lengths` (U) with what
/// they had.
pub fn unit(width: usize, e: &mut [f32], lengths: &mut Vec<f32>) {
    lengths.clear();
    for e in e.chunks_exact_mut(width) {
        let length = linalg::dot(e, e).sqrt();
        let factor = if length > 0.0 { 1.0 / length } else { 0.0 };
        e.iter_mut().for_each(|e| *e *= factor);
        lengths.push(length);
    }
}

/// Overwrites `de` (U, D), the gradient of the rows `e` of length 1, with that of what they were
/// before, of these `lengths` (U).
pub fn unit_backward(width: usize, e: &[f32], lengths: &[f32], de: &mut [f32]) {
    for ((de, e), &length) in de.chunks_exact_mut(width).zip(e.chunks_exact(width)).zip(lengths) {
        let along = linalg::dot(de, e);
        let factor = if length > 0.0 { 1.0 / length } else { 0.0 };
        de.iter_mut().zip(e).for_each(|(de, e)| *de = (*de - along * e) * factor);
    }
}

/// Overwrites `dw` (D, P) with the gradient of the map, and `de` (U, D), the gradient of the
/// embeddings, with that of what they were before their lengths became 1.
pub fn embed_backward(
    [width, components]: [usize; 2],
    x: &[f32],
    e: &[f32],
    lengths: &[f32],
    de: &mut [f32],
    dw: &mut [f32],
) {
    unit_backward(width, e, lengths, de);
    linalg::at_b([width, components, lengths.len()], de, x, 1.0, Write::Overwrite, dw);
}

/// Adds the gradient of `penalty` * |w - first|^2 to `dw` and returns that term; all (D, P).
pub fn pull(penalty: f32, w: &[f32], first: &[f32], dw: &mut [f32]) -> f64 {
    let mut squares = 0.0;
    for ((dw, w), first) in dw.iter_mut().zip(w).zip(first) {
        let moved = w - first;
        *dw += 2.0 * penalty * moved;
        squares += f64::from(moved) * f64::from(moved);
    }
    f64::from(penalty) * squares
}

/// The pairs of a batch (B), as all see them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pairs {
    /// Whose each pair is.
    pub users: Vec<u64>,
    /// The items of each pair, a and b.
    pub items: Vec<[u64; 2]>,
    /// How much each pair counts.
    pub weights: Vec<f32>,
    /// The embeddings of all a (B, D).
    pub a: Vec<f32>,
    /// The embeddings of all b (B, D).
    pub b: Vec<f32>,
}

impl Pairs {
    /// Number of pairs (B).
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Forgets all pairs, keeping the memory.
    pub fn clear(&mut self) {
        let Pairs { users, items, weights, a, b } = self;
        users.clear();
        items.clear();
        [weights, a, b].into_iter().for_each(Vec::clear);
    }

    /// Whether pair `j` is no negative of pair `i`, and the other way round.
    fn related(&self, i: usize, j: usize) -> bool {
        let ([a, b], [c, d]) = (self.items[i], self.items[j]);
        (self.users[i] == self.users[j]) | (a == c) | (b == d) | (a == d) | (b == c)
    }

    /// One over the sum of the weights, in f64 and in their order; 0 if that is 0.
    fn share(&self) -> f64 {
        let sum: f64 = self.weights.iter().map(|&weight| f64::from(weight)).sum();
        if sum > 0.0 { 1.0 / sum } else { 0.0 }
    }
}

/// The sums of q of all pairs of a batch (B).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// From a to b.
    pub r: Vec<f32>,
    /// From b to a.
    pub s: Vec<f32>,
}

/// A run of the pairs of a batch (n of B), with its room.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// q(i, j) of every i of the run and every j (n, B), and q(j, i).
    from_a: Vec<f32>,
    from_b: Vec<f32>,
    /// Their sums: r and s of every pair of the run.
    pub sums: Sums,
    /// Gradient of the embeddings of `a`, (n, D).
    pub da: Vec<f32>,
    /// Gradient of the embeddings of `b`, (n, D).
    pub db: Vec<f32>,
}

impl Rows {
    /// Computes q of the pairs `run` and its sums. Returns the run's part of the sum over pairs of
    /// w(i) / 2 (log r(i) + log s(i) - 2 log q(i, i)), and the sum of its weights.
    pub fn scores(
        &mut self,
        pairs: &Pairs,
        run: Range<usize>,
        width: usize,
        temperature: f32,
    ) -> [f64; 2] {
        let (n, all) = (run.len(), pairs.len());
        let own = run.start * width..run.end * width;
        let Rows { from_a, from_b, sums, .. } = self;
        let shape = [n, all, width];
        let scale = 1.0 / temperature;
        linalg::a_bt(
            shape,
            &pairs.a[own.clone()],
            &pairs.b,
            scale,
            Write::Overwrite,
            linalg::fit(from_a, n * all),
        );
        linalg::a_bt(
            shape,
            &pairs.b[own],
            &pairs.a,
            scale,
            Write::Overwrite,
            linalg::fit(from_b, n * all),
        );
        sums.r.clear();
        sums.s.clear();
        let (mut loss, mut weights) = (0.0, 0.0);
        let rows = from_a.chunks_exact_mut(all.max(1)).zip(from_b.chunks_exact_mut(all.max(1)));
        for (i, (from_a, from_b)) in run.zip(rows) {
            let match_of = [from_a[i], from_b[i]];
            for (j, (a, b)) in from_a.iter_mut().zip(&mut *from_b).enumerate() {
                // Rather a number that is not used than a branch.
                let is_kept = if i == j { true } else { !pairs.related(i, j) };
                *a = if is_kept { (*a - scale).exp() } else { 0.0 };
                *b = if is_kept { (*b - scale).exp() } else { 0.0 };
            }
            let (r, s) = (sum(from_a), sum(from_b));
            let log = |sum: f32, of: f32| f64::from(sum).ln() - f64::from(of - scale);
            let weight = f64::from(pairs.weights[i]);
            loss += 0.5 * weight * (log(r, match_of[0]) + log(s, match_of[1]));
            weights += weight;
            sums.r.push(r);
            sums.s.push(s);
        }
        [loss, weights]
    }

    /// Computes the gradients of the embeddings of `run`, after [`Rows::scores`] of it, given the
    /// `sums` of all pairs.
    pub fn backward(
        &mut self,
        pairs: &Pairs,
        run: Range<usize>,
        width: usize,
        temperature: f32,
        sums: &Sums,
    ) {
        let (n, all) = (run.len(), pairs.len());
        let Rows { from_a, from_b, da, db, .. } = self;
        let half = (0.5 * pairs.share()) as f32 / temperature;
        let parts = |sums: &[f32]| -> Vec<f32> {
            pairs.weights.iter().zip(sums).map(|(weight, sum)| half * weight / sum).collect()
        };
        let (of_r, of_s) = (parts(&sums.r), parts(&sums.s));
        for (q, own, other) in [(&mut *from_a, &of_r, &of_s), (&mut *from_b, &of_s, &of_r)] {
            for (i, q) in run.clone().zip(q.chunks_exact_mut(all.max(1))) {
                q.iter_mut().zip(other).for_each(|(q, other)| *q *= own[i] + other);
                q[i] -= 2.0 * half * pairs.weights[i];
            }
        }
        let shape = [n, width, all];
        linalg::a_b(shape, from_a, &pairs.b, 1.0, Write::Overwrite, linalg::fit(da, n * width));
        linalg::a_b(shape, from_b, &pairs.a, 1.0, Write::Overwrite, linalg::fit(db, n * width));
    }
}

/// The sum of `values`, in eight interleaved partial sums.
fn sum(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<8>();
    let mut sums = [0.0_f32; 8];
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, value)| *sum += value);
    }
    sums.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adam::Adam;
    use crate::check::{assert_close, assert_gradient, values};

    const P: usize = 7;
    const D: usize = 4;
    const PAIRS: usize = 11;

    /// Pictures (U, P), the pair of pictures of each pair, and the pairs without embeddings: users
    /// with several pairs, and pictures in several.
    fn batch() -> (Vec<f32>, Vec<[usize; 2]>, Pairs) {
        let x = values(1, 9 * P);
        let of: Vec<[usize; 2]> = (0..PAIRS).map(|i| [i % 9, (2 * i + 3) % 8]).collect();
        let pairs = Pairs {
            users: (0..PAIRS as u64).map(|i| i * i % 6).collect(),
            items: of.iter().map(|of| of.map(|item| item as u64)).collect(),
            weights: (0..PAIRS).map(|i| 0.2 + 0.15 * i as f32).collect(),
            ..Pairs::default()
        };
        (x, of, pairs)
    }

    /// Loss and gradient of the map, in runs of these lengths.
    fn step(w: &[f32], temperature: f32, runs: &[usize]) -> (f64, Vec<f32>) {
        let (x, of, mut pairs) = batch();
        let (mut e, mut lengths) = (Vec::new(), Vec::new());
        embed([D, P], &x, w, &mut e, &mut lengths);
        for of in &of {
            pairs.a.extend_from_slice(&e[of[0] * D..][..D]);
            pairs.b.extend_from_slice(&e[of[1] * D..][..D]);
        }
        let ends = runs.iter().scan(0, |end, len| {
            *end += len;
            Some(*end)
        });
        let runs: Vec<Range<usize>> = ends.zip(runs).map(|(end, len)| end - len..end).collect();
        assert_eq!(runs.last().map(|run| run.end), Some(PAIRS));
        let mut rows: Vec<Rows> = runs.iter().map(|_| Rows::default()).collect();
        let (mut loss, mut sums) = ([0.0; 2], Sums::default());
        for (rows, run) in rows.iter_mut().zip(&runs) {
            let part = rows.scores(&pairs, run.clone(), D, temperature);
            loss = [loss[0] + part[0], loss[1] + part[1]];
            sums.r.extend_from_slice(&rows.sums.r);
            sums.s.extend_from_slice(&rows.sums.s);
        }
        let mut de = vec![0.0; e.len()];
        for (rows, run) in rows.iter_mut().zip(&runs) {
            rows.backward(&pairs, run.clone(), D, temperature, &sums);
            for (at, pair) in run.clone().enumerate() {
                linalg::add(&rows.da[at * D..][..D], &mut de[of[pair][0] * D..][..D]);
                linalg::add(&rows.db[at * D..][..D], &mut de[of[pair][1] * D..][..D]);
            }
        }
        let mut dw = vec![f32::NAN; D * P];
        embed_backward([D, P], &x, &e, &lengths, &mut de, &mut dw);
        (loss[0] / loss[1], dw)
    }

    /// The loss as its definition reads: pair by pair, in f64, without a shift.
    fn plain(w: &[f32], temperature: f32) -> f64 {
        let (x, of, pairs) = batch();
        let unit = |item: usize| -> Vec<f64> {
            let z: Vec<f64> = (0..D)
                .map(|d| (0..P).map(|p| f64::from(w[d * P + p]) * f64::from(x[item * P + p])).sum())
                .collect();
            let length = z.iter().map(|z| z * z).sum::<f64>().sqrt();
            z.into_iter().map(|z| z / length).collect()
        };
        let cosine = |a: usize, b: usize| -> f64 {
            let (a, b) = (unit(of[a][0]), unit(of[b][1]));
            a.iter().zip(&b).map(|(a, b)| a * b).sum::<f64>() / f64::from(temperature)
        };
        let kept = |i: usize, j: usize| {
            i == j
                || pairs.users[i] != pairs.users[j]
                    && pairs.items[i].iter().all(|item| !pairs.items[j].contains(item))
        };
        let (mut loss, mut weights) = (0.0, 0.0);
        for i in 0..PAIRS {
            let others: Vec<usize> = (0..PAIRS).filter(|&j| kept(i, j)).collect();
            let forth: f64 = others.iter().map(|&j| cosine(i, j).exp()).sum();
            let back: f64 = others.iter().map(|&j| cosine(j, i).exp()).sum();
            let weight = f64::from(pairs.weights[i]);
            loss += weight * 0.5 * (forth.ln() + back.ln() - 2.0 * cosine(i, i));
            weights += weight;
        }
        loss / weights
    }

    fn map() -> Vec<f32> {
        identity(D, P).iter().zip(values(5, D * P)).map(|(first, x)| first + 0.3 * x).collect()
    }

    #[test]
    fn the_loss_is_its_definition_and_the_gradient_that_of_it() {
        for temperature in [0.25, 1.0, LEAST_TEMPERATURE] {
            let w = map();
            let (loss, dw) = step(&w, temperature, &[PAIRS]);
            let expected = plain(&w, temperature);
            assert!((loss - expected).abs() < 1e-5 * expected.abs(), "{loss} {expected}");
            if temperature > LEAST_TEMPERATURE {
                assert_gradient("w", &w, &dw, |w| plain(w, temperature));
            }
        }
    }

    #[test]
    fn a_divided_batch_has_the_same_bits() {
        let w = map();
        let whole = step(&w, 0.25, &[PAIRS]).1;
        for runs in [&[1, 10][..], &[4, 0, 7], &[3, 3, 3, 2]] {
            assert_eq!(step(&w, 0.25, runs).1, whole, "{runs:?}");
        }
    }

    #[test]
    fn rows_of_zeros_have_no_direction_and_no_gradient() {
        let x = [0.0, 0.0, 3.0, 4.0];
        let (mut e, mut lengths) = (Vec::new(), Vec::new());
        embed([2, 2], &x, &identity(2, 2), &mut e, &mut lengths);
        assert_eq!((&e[..], &lengths[..]), (&[0.0, 0.0, 0.6, 0.8][..], &[0.0, 5.0][..]));
        let mut dw = vec![f32::NAN; 4];
        let mut de = [1.0, 1.0, 0.8, -0.6];
        embed_backward([2, 2], &x, &e, &lengths, &mut de, &mut dw);
        assert_close(&de, &[0.0, 0.0, 0.16, -0.12], 1e-6);
        assert_close(&dw, &[0.48, 0.64, -0.36, -0.48], 1e-6);
    }

    #[test]
    fn the_map_is_pulled_to_where_it_began() {
        let (first, w) = (identity(D, P), map());
        let mut dw = vec![0.0; D * P];
        let term = pull(0.5, &w, &first, &mut dw);
        let distance = |w: &[f32]| -> f64 {
            w.iter().zip(&first).map(|(w, first)| f64::from(w - first).powi(2)).sum()
        };
        assert!((term - 0.5 * distance(&w)).abs() < 1e-9);
        assert_gradient("w", &w, &dw, |w| 0.5 * distance(w));
    }

    /// Steps lower the loss: the parts fit together.
    #[test]
    fn adam_lowers_the_loss() {
        let mut w = identity(D, P);
        let (mut m, mut v) = (vec![0.0; D * P], vec![0.0; D * P]);
        let first = step(&w, 0.25, &[PAIRS]).0;
        for t in 1..=60 {
            let (_, dw) = step(&w, 0.25, &[PAIRS]);
            Adam::default().update(t, 0.01, &mut w, &mut m, &mut v, &dw);
        }
        let last = step(&w, 0.25, &[PAIRS]).0;
        assert!(last < 0.8 * first, "{first} {last}");
    }
}
