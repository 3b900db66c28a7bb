//! The color block: which colors, how saturated and light, and where.
//!
//! Knows hue, saturation and value. Does not know shapes.

use super::pyramid::{Pyramid, SIDE};

const HUES: usize = 12;
const SATURATIONS: usize = 4;
const VALUES: usize = 4;
const JOINT: usize = HUES * SATURATIONS * VALUES;
const GRID: usize = 4;
/// Per cell: hues weighted by how colorful a pixel is, and values weighted by how grey it is.
const CELL: usize = HUES + VALUES;
const MEANS: usize = 8;

/// Lengths of the groups: joint of the whole, joint of the center, cells, mean colors.
pub(crate) const GROUPS: [usize; 4] = [JOINT, JOINT, GRID * GRID * CELL, MEANS * MEANS * 3];

/// Numbers of the block.
pub(crate) const LEN: usize = GROUPS[0] + GROUPS[1] + GROUPS[2] + GROUPS[3];

pub(crate) fn describe(pyramid: &Pyramid, out: &mut [f32]) {
    let (whole, rest) = out.split_at_mut(GROUPS[0]);
    let (center, rest) = rest.split_at_mut(GROUPS[1]);
    let (cells, means) = rest.split_at_mut(GROUPS[2]);
    whole.fill(0.0);
    center.fill(0.0);
    cells.fill(0.0);
    let planes = [0, 1, 2].map(|channel| pyramid.plane(0, channel));
    for y in 0..SIDE {
        for x in 0..SIDE {
            let at = y * SIDE + x;
            let [hue, saturation, value] = hsv(planes[0][at], planes[1][at], planes[2][at]);
            let hues = circular(hue);
            let saturations = linear::<SATURATIONS>(saturation);
            let values = linear::<VALUES>(value);
            let near = nearness(x) * nearness(y);
            for (h, hue_weight) in hues {
                for (s, saturation_weight) in saturations {
                    for (v, value_weight) in values {
                        let weight = hue_weight * saturation_weight * value_weight;
                        let bin = (h * SATURATIONS + s) * VALUES + v;
                        whole[bin] += weight;
                        center[bin] += weight * near;
                    }
                }
            }
            let cell = (y * GRID / SIDE) * GRID + x * GRID / SIDE;
            let cell = &mut cells[cell * CELL..][..CELL];
            let chroma = saturation * value;
            hues.iter().for_each(|(h, weight)| cell[*h] += weight * chroma);
            values.iter().for_each(|(v, weight)| cell[HUES + v] += weight * (1.0 - chroma));
        }
    }
    roots(whole);
    roots(center);
    cells.chunks_exact_mut(CELL).for_each(roots);
    mean_colors(pyramid, means);
}

/// Lightness and two opponent colors on a grid of 8 x 8, from the smallest level.
fn mean_colors(pyramid: &Pyramid, out: &mut [f32]) {
    let level = 2;
    let side = Pyramid::side(level);
    let planes = [0, 1, 2].map(|channel| pyramid.plane(level, channel));
    for (cell, out) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let corner = (cell / MEANS) * 2 * side + (cell % MEANS) * 2;
        let [red, green, blue] = planes.map(|plane| {
            (plane[corner] + plane[corner + 1] + plane[corner + side] + plane[corner + side + 1])
                / 4.0
        });
        *out = [(red + green + blue) / 3.0, red - green, blue - (red + green) / 2.0];
    }
}

/// Hue 0..6, saturation and value 0..1.
fn hsv(red: f32, green: f32, blue: f32) -> [f32; 3] {
    let most = red.max(green).max(blue);
    let range = most - red.min(green).min(blue);
    if range <= 1e-6 {
        return [0.0, 0.0, most];
    }
    let hue = if most == red {
        (green - blue) / range
    } else if most == green {
        (blue - red) / range + 2.0
    } else {
        (red - green) / range + 4.0
    };
    [if hue < 0.0 { hue + 6.0 } else { hue }, range / most, most]
}

/// The two hue bins next to `hue` (0..6) and their weights.
fn circular(hue: f32) -> [(usize, f32); 2] {
    let place = hue * (HUES as f32 / 6.0);
    let lower = place as usize;
    let share = place - lower as f32;
    [(lower % HUES, 1.0 - share), ((lower + 1) % HUES, share)]
}

/// The two of `BINS` bins next to `value` (0..1) and their weights.
fn linear<const BINS: usize>(value: f32) -> [(usize, f32); 2] {
    let place = value.clamp(0.0, 1.0) * (BINS - 1) as f32;
    let lower = (place as usize).min(BINS - 2);
    let share = place - lower as f32;
    [(lower, 1.0 - share), (lower + 1, share)]
}

/// 1 in the middle of an edge of the picture, falling to 0 at its ends.
fn nearness(at: usize) -> f32 {
    let from_middle = (at as f32 + 0.5) / (SIDE as f32 / 2.0) - 1.0;
    1.0 - from_middle * from_middle
}

/// Square roots of shares.
fn roots(histogram: &mut [f32]) {
    let total = histogram.iter().sum::<f32>().max(1e-6);
    histogram.iter_mut().for_each(|value| *value = (*value / total).sqrt());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(color: [u8; 3]) -> Vec<f32> {
        let mut pyramid = Pyramid::default();
        pyramid.fill(&color.repeat(SIDE * SIDE));
        let mut out = vec![0.0; LEN];
        describe(&pyramid, &mut out);
        out
    }

    #[test]
    fn one_color_fills_its_bins() {
        let bin = |hue: usize, saturation: usize, value: usize| {
            (hue * SATURATIONS + saturation) * VALUES + value
        };
        assert!((described([255, 0, 0])[bin(0, 3, 3)] - 1.0).abs() < 1e-3);
        assert!((described([0, 255, 0])[bin(4, 3, 3)] - 1.0).abs() < 1e-3);
        assert!((described([0, 0, 255])[bin(8, 3, 3)] - 1.0).abs() < 1e-3);
        assert!((described([0, 0, 0])[bin(0, 0, 0)] - 1.0).abs() < 1e-3);
        assert!((described([85, 85, 85])[bin(0, 0, 1)] - 1.0).abs() < 1e-2);
    }

    #[test]
    fn hue_is_a_circle() {
        assert_eq!(circular(5.75), [(11, 0.5), (0, 0.5)]);
        let [hue, saturation, value] = hsv(1.0, 0.0, 0.5);
        assert!((hue - 5.5).abs() < 1e-6 && saturation == 1.0 && value == 1.0);
    }
}
