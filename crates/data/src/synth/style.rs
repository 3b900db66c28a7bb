//! Visual style: what a picture shows and nothing else in the shop tells.
//!
//! Knows the factors and how a like becomes a number. Does not know pixels, items or clicks.

use super::dice::Dice;

/// Hues an article can have: name and degrees.
const HUES: [(&str, f32); 6] = [
    ("red", 2.0),
    ("yellow", 42.0),
    ("green", 125.0),
    ("turquoise", 185.0),
    ("blue", 228.0),
    ("purple", 300.0),
];

/// The print on an article.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    Plain,
    Stripes,
    Dots,
    Checks,
}

/// What kind of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silhouette {
    Plate,
    Cushion,
    Vase,
    Shirt,
    Bag,
}

const PATTERNS: [Pattern; 4] = [Pattern::Plain, Pattern::Stripes, Pattern::Dots, Pattern::Checks];

pub(super) const SILHOUETTES: [Silhouette; 5] =
    [Silhouette::Plate, Silhouette::Cushion, Silhouette::Vase, Silhouette::Shirt, Silhouette::Bag];

/// Number of values of each factor.
const VALUES: [usize; 3] = [HUES.len(), PATTERNS.len(), SILHOUETTES.len()];

/// Share of the visual logit's variance that each factor has.
const SHARES: [f64; 3] = [0.55, 0.35, 0.1];

/// Factor values: hue, pattern, silhouette; positions in [`HUES`], [`PATTERNS`], [`SILHOUETTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style(pub(super) [u8; 3]);

impl Style {
    /// Any style, all equally likely.
    pub(super) fn draw(dice: &mut Dice) -> Style {
        Style(VALUES.map(|values| dice.below(values) as u8))
    }

    pub(super) fn hue(self) -> f32 {
        HUES[usize::from(self.0[0])].1
    }

    /// The hue in a word.
    pub(super) fn hue_name(self) -> &'static str {
        HUES[usize::from(self.0[0])].0
    }

    pub(super) fn pattern(self) -> Pattern {
        PATTERNS[usize::from(self.0[1])]
    }

    /// The kind of thing.
    pub(super) fn silhouette(self) -> Silhouette {
        SILHOUETTES[usize::from(self.0[2])]
    }
}

/// What one user likes to look at: a place on the color circle, one print, one kind of thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct VisualTaste {
    /// Degrees on a circle on which the hues of [`HUES`] stand at equal distances.
    color: f64,
    pattern: u8,
    silhouette: u8,
}

impl VisualTaste {
    pub(super) fn draw(dice: &mut Dice) -> VisualTaste {
        VisualTaste {
            color: 360.0 * dice.unit(),
            pattern: dice.below(PATTERNS.len()) as u8,
            silhouette: dice.below(SILHOUETTES.len()) as u8,
        }
    }

    /// How well `style` pleases: mean 0 and variance 1 over all styles. Neighboring hues please
    /// alike, so a few clicks tell the taste; prints and kinds of things are liked or not.
    pub(super) fn matches(self, Style([hue, pattern, silhouette]): Style) -> f64 {
        let place = 360.0 * f64::from(hue) / HUES.len() as f64;
        let parts = [
            std::f64::consts::SQRT_2 * (place - self.color).to_radians().cos(),
            contrast(1 << self.pattern, pattern, PATTERNS.len()),
            contrast(1 << self.silhouette, silhouette, SILHOUETTES.len()),
        ];
        parts.iter().zip(SHARES).map(|(part, share)| share.sqrt() * part).sum()
    }
}

/// Like or dislike of `value` as a number that has mean 0 and variance 1 over all `values`.
pub(super) fn contrast(liked: u32, value: u8, values: usize) -> f64 {
    let share = f64::from(liked.count_ones()) / values as f64;
    let odds = ((1.0 - share) / share).sqrt();
    if liked >> value & 1 == 1 { odds } else { -1.0 / odds }
}

#[cfg(test)]
mod tests {
    use super::super::dice::Entity;
    use super::*;

    #[test]
    fn a_taste_has_mean_zero_and_variance_one_over_all_styles() {
        for user in 0..5 {
            let taste = VisualTaste::draw(&mut Dice::new(1, Entity::Shopper, user, 0));
            let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
            for hue in 0..VALUES[0] as u8 {
                for pattern in 0..VALUES[1] as u8 {
                    for silhouette in 0..VALUES[2] as u8 {
                        let value = taste.matches(Style([hue, pattern, silhouette]));
                        sum += value;
                        squares += value * value;
                        count += 1.0;
                    }
                }
            }
            assert!((sum / count).abs() < 1e-12 && (squares / count - 1.0).abs() < 1e-12);
        }
    }
}
