//! The gradient block: which way the edges run, and where.
//!
//! Knows lightness differences. Does not know colors.

use std::f32::consts::PI;

use super::pyramid::Pyramid;

/// Lengths of the groups: fine unsigned, coarse signed.
pub(crate) const GROUPS: [usize; 2] = [8 * 8 * 9, 4 * 4 * 16];

/// Numbers of the block.
pub(crate) const LEN: usize = GROUPS[0] + GROUPS[1];

/// What to measure at one size.
struct Cells {
    level: usize,
    grid: usize,
    bins: usize,
    /// The angle that the bins share evenly: half a turn where light-to-dark equals dark-to-light.
    turn: f32,
}

pub(crate) fn describe(pyramid: &Pyramid, out: &mut [f32]) {
    let (fine, coarse) = out.split_at_mut(GROUPS[0]);
    histograms(pyramid, &Cells { level: 0, grid: 8, bins: 9, turn: PI }, fine);
    histograms(pyramid, &Cells { level: 1, grid: 4, bins: 16, turn: 2.0 * PI }, coarse);
}

fn histograms(pyramid: &Pyramid, cells: &Cells, out: &mut [f32]) {
    let side = Pyramid::side(cells.level);
    let [red, green, blue] = [0, 1, 2].map(|channel| pyramid.plane(cells.level, channel));
    let light = |x: usize, y: usize| {
        let at = y * side + x;
        0.299 * red[at] + 0.587 * green[at] + 0.114 * blue[at]
    };
    out.fill(0.0);
    for y in 1..side - 1 {
        for x in 1..side - 1 {
            let across = light(x + 1, y) - light(x - 1, y);
            let down = light(x, y + 1) - light(x, y - 1);
            let strength = (across * across + down * down).sqrt();
            if strength < 1e-4 {
                continue;
            }
            let angle = down.atan2(across).rem_euclid(cells.turn);
            let place = angle / cells.turn * cells.bins as f32;
            let lower = place as usize;
            let share = place - lower as f32;
            let cell = (y * cells.grid / side) * cells.grid + x * cells.grid / side;
            let bins = &mut out[cell * cells.bins..][..cells.bins];
            bins[lower % cells.bins] += strength * (1.0 - share);
            bins[(lower + 1) % cells.bins] += strength * share;
        }
    }
    normalize(out, cells);
}

/// Square roots, relative to the cell's own strength and the picture's: faint texture counts less
/// than a strong edge, but does not vanish beside one.
fn normalize(out: &mut [f32], cells: &Cells) {
    let mean = out.iter().sum::<f32>() / (cells.grid * cells.grid) as f32;
    for bins in out.chunks_exact_mut(cells.bins) {
        let total = bins.iter().sum::<f32>() + mean + 0.1;
        bins.iter_mut().for_each(|value| *value = (*value / total).sqrt());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin::pyramid::SIDE;

    fn described(light: impl Fn(usize, usize) -> u8) -> Vec<f32> {
        let pixels =
            (0..SIDE * SIDE).flat_map(|at| [light(at % SIDE, at / SIDE); 3]).collect::<Vec<u8>>();
        let mut pyramid = Pyramid::default();
        pyramid.fill(&pixels);
        let mut out = vec![0.0; LEN];
        describe(&pyramid, &mut out);
        out
    }

    #[test]
    fn a_flat_picture_has_no_edges() {
        assert!(described(|_, _| 90).iter().all(|value| *value == 0.0));
    }

    #[test]
    fn a_ramp_points_one_way() {
        let right = described(|x, _| x as u8 * 4);
        let left = described(|x, _| 255 - x as u8 * 4);
        let down = described(|_, y| y as u8 * 4);
        // Unsigned: right and left agree, down is a quarter turn (4.5 of 9 bins) away.
        assert!(right[0] > 0.6 && left[0] > 0.6 && down[0] < 0.1);
        assert!(down[4] > 0.4 && down[5] > 0.4);
        // Signed: right is bin 0, left bin 8 of 16.
        let signed = &right[GROUPS[0]..];
        assert!(signed[0] > 0.6 && signed[8] < 0.1);
        assert!(left[GROUPS[0] + 8] > 0.6);
    }
}
