//! Outlines of articles as signed distances: negative inside, positive outside.
//!
//! Knows points of a plane where an article fills about -1..1, y pointing down. Does not know
//! colors or pixels.

use super::style::Silhouette;

/// What a point belongs to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Distance {
    /// To the printed body.
    pub(super) body: f32,
    /// To the unprinted trim (handles, rims, collars), which lies over the body.
    pub(super) trim: f32,
}

impl Distance {
    /// To the whole article.
    pub(super) fn whole(self) -> f32 {
        self.body.min(self.trim)
    }
}

const SHIRT: [[f32; 2]; 14] = [
    [-0.24, -0.86],
    [-0.10, -0.74],
    [0.10, -0.74],
    [0.24, -0.86],
    [0.52, -0.74],
    [0.98, -0.22],
    [0.70, 0.02],
    [0.50, -0.20],
    [0.52, 0.88],
    [-0.52, 0.88],
    [-0.50, -0.20],
    [-0.70, 0.02],
    [-0.98, -0.22],
    [-0.52, -0.74],
];

const BAG: [[f32; 2]; 4] = [[-0.58, -0.28], [0.58, -0.28], [0.74, 0.88], [-0.74, 0.88]];

/// Distances of the point (`x`, `y`) to an article of the given kind.
pub(super) fn distance(silhouette: Silhouette, x: f32, y: f32) -> Distance {
    match silhouette {
        Silhouette::Plate => {
            let center = x.hypot(y);
            Distance { body: center - 0.92, trim: (center - 0.88).abs() - 0.04 }
        }
        Silhouette::Cushion => {
            // Sides drawn in a little, corners pulled out.
            let pinch = 0.08 * (1.0 - (x.abs() - y.abs()).abs()).clamp(0.0, 1.0);
            let (dx, dy) = (x.abs() - 0.64 - pinch, y.abs() - 0.64 - pinch);
            let body = dx.max(0.0).hypot(dy.max(0.0)) + dx.max(dy).min(0.0) - 0.1;
            Distance { body, trim: (body + 0.02).abs() - 0.02 }
        }
        Silhouette::Vase => {
            let belly = 0.40 * (-((y - 0.28) / 0.42).powi(2)).exp();
            let lip = 0.12 * (-((y + 0.92) / 0.12).powi(2)).exp();
            let foot = 0.10 * (-((y - 0.95) / 0.16).powi(2)).exp();
            let side = (x.abs() - 0.17 - belly - lip - foot) * 0.8;
            let body = side.max(y.abs() - 0.95);
            Distance { body, trim: body.max(-0.85 - y) }.with_rim(y)
        }
        Silhouette::Shirt => {
            let body = polygon(&SHIRT, x, y) - 0.02;
            let collar = (x.hypot((y + 0.92) * 0.9) - 0.235).abs() - 0.035;
            Distance { body, trim: collar.max(body) }
        }
        Silhouette::Bag => {
            let arc = (x / 0.34).hypot((y + 0.28) / 0.56) - 1.0;
            let handle = (arc * 0.34).abs() - 0.055;
            let body = polygon(&BAG, x, y) - 0.05;
            Distance { body, trim: handle.max(y + 0.26) }
        }
    }
}

impl Distance {
    /// The upper end of a body as its trim.
    fn with_rim(self, y: f32) -> Distance {
        Distance { body: self.body, trim: self.body.max(y + 0.85) }
    }
}

/// Distance to a closed polygon.
fn polygon(corners: &[[f32; 2]], x: f32, y: f32) -> f32 {
    let mut nearest = f32::INFINITY;
    let mut inside = false;
    let mut before = corners[corners.len() - 1];
    for &corner in corners {
        let (ex, ey) = (before[0] - corner[0], before[1] - corner[1]);
        let (wx, wy) = (x - corner[0], y - corner[1]);
        let along = ((wx * ex + wy * ey) / (ex * ex + ey * ey)).clamp(0.0, 1.0);
        nearest = nearest.min((wx - ex * along).hypot(wy - ey * along));
        let crosses = (corner[1] > y) != (before[1] > y);
        if crosses
            && x < (before[0] - corner[0]) * (y - corner[1]) / (before[1] - corner[1]) + corner[0]
        {
            inside = !inside;
        }
        before = corner;
    }
    if inside { -nearest } else { nearest }
}

#[cfg(test)]
mod tests {
    use super::super::style::SILHOUETTES;
    use super::*;

    #[test]
    fn articles_fill_the_middle_and_leave_the_border() {
        for silhouette in SILHOUETTES {
            assert!(distance(silhouette, 0.0, 0.2).body < -0.1, "{silhouette:?}");
            for at in [-1.2_f32, 1.2] {
                assert!(distance(silhouette, at, 0.0).whole() > 0.0, "{silhouette:?}");
                assert!(distance(silhouette, 0.0, at).whole() > 0.0, "{silhouette:?}");
            }
        }
    }

    #[test]
    fn polygon_distances_are_those_of_a_square() {
        let square = [[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]];
        let near = |x, y, want: f32| assert!((polygon(&square, x, y) - want).abs() < 1e-6);
        near(0.0, 0.0, -1.0);
        near(0.5, 0.0, -0.5);
        near(3.0, 0.0, 2.0);
        near(4.0, 5.0, 5.0);
    }
}
