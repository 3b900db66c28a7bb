//! Draws the picture of an article: its style, and everything about a photograph that is not style.
//!
//! Knows a style, a stream of random numbers and pixels. Does not know items, users or folders. Two
//! pictures of one style agree in hue, print and outline and differ in place, size, tilt,
//! proportions, shade, light, background, shadow, weave and noise.

use super::dice::Dice;
use super::outline::{Distance, distance};
use super::style::{Pattern, Style};
use image::codecs::{jpeg::JpegEncoder, png::PngEncoder};
use image::{ImageResult, Rgb, RgbImage};

type Color = [f32; 3];

/// How a picture is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Jpeg(u8),
    Png,
}

impl Encoding {
    /// Two of three are JPEG.
    pub(super) fn draw(dice: &mut Dice) -> Encoding {
        if dice.happens(0.67) { Encoding::Jpeg(82 + dice.below(13) as u8) } else { Encoding::Png }
    }

    pub(super) fn extension(self) -> &'static str {
        match self {
            Encoding::Jpeg(_) => "jpg",
            Encoding::Png => "png",
        }
    }

    /// The bytes of the file.
    pub(super) fn encode(self, picture: &RgbImage) -> ImageResult<Vec<u8>> {
        let mut bytes = Vec::new();
        match self {
            Encoding::Jpeg(quality) => {
                picture.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, quality))?;
            }
            Encoding::Png => picture.write_with_encoder(PngEncoder::new(&mut bytes))?,
        }
        Ok(bytes)
    }
}

/// Everything about one photograph that its pixels are computed from.
struct Scene {
    style: Style,
    placing: Placing,
    print: Print,
    backdrop: Backdrop,
    /// Unit vector toward the light, in the plane of the picture.
    light: [f32; 2],
    gloss: f32,
    noise: f32,
}

/// Where the article is: the way from pixels to its own plane.
struct Placing {
    center: [f32; 2],
    /// Pixels per unit, across and down.
    unit: [f32; 2],
    turn: [f32; 2],
}

/// What is printed on it.
struct Print {
    base: Color,
    ink: Color,
    trim: Color,
    frequency: f32,
    turn: [f32; 2],
    shift: [f32; 2],
    /// Share of a repeat that is inked.
    ink_share: f32,
    weave: f32,
}

/// What it lies or stands on.
struct Backdrop {
    top: Color,
    bottom: Color,
    /// Height of the edge between wall and floor, 0..1; none when over 1.
    horizon: f32,
    floor: Color,
    shadow: f32,
    shadow_shift: [f32; 2],
}

/// Draws an article of `style`, with sides within `sides` pixels.
pub(super) fn draw(style: Style, sides: [u32; 2], dice: &mut Dice) -> RgbImage {
    let [width, height] = draw_size(sides, dice);
    let scene = Scene {
        style,
        placing: Placing::draw([width as f32, height as f32], dice),
        print: Print::draw(style, dice),
        backdrop: Backdrop::draw(dice),
        light: turn(dice.between(0.0, std::f32::consts::TAU)),
        gloss: dice.between(0.0, 0.22),
        noise: dice.between(0.0, 0.035),
    };
    RgbImage::from_fn(width, height, |x, y| {
        let color = scene.color(x as f32 + 0.5, y as f32 + 0.5, height as f32);
        let grain = scene.noise * dice.between(-1.0, 1.0);
        Rgb(color.map(|channel| ((channel + grain).clamp(0.0, 1.0) * 255.0).round() as u8))
    })
}

fn draw_size([least, most]: [u32; 2], dice: &mut Dice) -> [u32; 2] {
    let long = least as f32 + (most - least) as f32 * dice.unit() as f32;
    let short = (long * dice.between(0.8, 1.0)).max(least as f32);
    let size = [long.round() as u32, short.round() as u32];
    if dice.happens(0.5) { size } else { [size[1], size[0]] }
}

impl Placing {
    fn draw([width, height]: [f32; 2], dice: &mut Dice) -> Placing {
        let half = 0.5 * width.min(height) * dice.between(0.66, 0.88);
        let stretch = dice.between(0.92, 1.08);
        let slack = |side: f32| (0.5 * side - half).max(0.0) * 0.7;
        Placing {
            center: [
                0.5 * width + slack(width) * dice.between(-1.0, 1.0),
                0.5 * height + slack(height) * dice.between(-1.0, 1.0),
            ],
            unit: [half * stretch, half / stretch],
            turn: turn(dice.between(-0.17, 0.17)),
        }
    }

    /// A pixel in the article's plane.
    fn article(&self, x: f32, y: f32) -> [f32; 2] {
        let [x, y] = rotate(self.turn, [x - self.center[0], y - self.center[1]]);
        [x / self.unit[0], y / self.unit[1]]
    }
}

impl Print {
    fn draw(style: Style, dice: &mut Dice) -> Print {
        let hue = style.hue() + dice.between(-7.0, 7.0);
        let saturation = dice.between(0.62, 0.88);
        let lightness = dice.between(0.44, 0.56);
        // Polka dots are pale, tartans mostly dark: as in shops, and statistics without a sense of
        // arrangement can tell the two.
        let pale = dice.happens(match style.pattern() {
            Pattern::Plain | Pattern::Stripes => 0.6,
            Pattern::Dots => 1.0,
            Pattern::Checks => 0.15,
        });
        let ink = if pale {
            hsl(hue, 0.35 * saturation, dice.between(0.88, 0.95))
        } else {
            hsl(hue, saturation, 0.42 * lightness)
        };
        let slant = std::f32::consts::FRAC_PI_4 * dice.below(4) as f32 + dice.between(-0.1, 0.1);
        Print {
            base: hsl(hue, saturation, lightness),
            ink,
            trim: hsl(hue, 0.7 * saturation, 0.62 * lightness),
            frequency: dice.between(1.7, 2.5),
            turn: turn(slant),
            shift: [dice.between(0.0, 1.0), dice.between(0.0, 1.0)],
            ink_share: dice.between(0.38, 0.55),
            weave: dice.between(0.0, 0.03),
        }
    }

    /// How much ink there is at a point of the article's plane; `soft` is a pixel's width there.
    fn ink(&self, pattern: Pattern, point: [f32; 2], soft: f32) -> f32 {
        let [x, y] = rotate(self.turn, point);
        let across = x * self.frequency + self.shift[0];
        let down = y * self.frequency + self.shift[1];
        let soft = soft * self.frequency;
        let band = |at: f32, share: f32| cover((distance_to_middle(at) - 0.5 * share) / soft);
        match pattern {
            Pattern::Plain => 0.0,
            Pattern::Stripes => band(across, self.ink_share),
            Pattern::Dots => {
                // Every other row is set off by half a repeat.
                let row = down.floor();
                let dx = distance_to_middle(across + 0.5 * row.rem_euclid(2.0));
                let radius = dx.hypot(distance_to_middle(down));
                cover((radius - 0.72 * self.ink_share) / soft)
            }
            Pattern::Checks => 0.5 * (band(across, self.ink_share) + band(down, self.ink_share)),
        }
    }

    /// The unlit color at a point of the article's plane.
    fn color(&self, pattern: Pattern, point: [f32; 2], distance: Distance, soft: f32) -> Color {
        let printed = mix(self.base, self.ink, self.ink(pattern, point, soft));
        let thread = (point[0] * 61.0).sin() * (point[1] * 61.0).sin();
        mix(printed, self.trim, cover(distance.trim / soft))
            .map(|c| c * (1.0 + self.weave * thread))
    }
}

impl Backdrop {
    fn draw(dice: &mut Dice) -> Backdrop {
        let hue = dice.between(0.0, 360.0);
        let saturation = dice.between(0.0, 0.22);
        let lightness =
            if dice.happens(0.15) { dice.between(0.22, 0.34) } else { dice.between(0.78, 0.96) };
        let fall = dice.between(0.0, 0.12);
        let stands = dice.happens(0.4);
        Backdrop {
            top: hsl(hue, saturation, lightness),
            bottom: hsl(hue, saturation, lightness - fall),
            horizon: if stands { dice.between(0.62, 0.85) } else { 2.0 },
            floor: hsl(
                hue + dice.between(-60.0, 60.0),
                saturation,
                (lightness - dice.between(0.08, 0.2)).max(0.12),
            ),
            shadow: dice.between(0.12, 0.38),
            shadow_shift: [dice.between(-0.1, 0.1), dice.between(0.04, 0.14)],
        }
    }

    /// `height` is the pixel's, 0 at the top and 1 at the bottom; `soft` is a pixel's.
    fn color(&self, height: f32, soft: f32) -> Color {
        let wall = mix(self.top, self.bottom, height);
        mix(wall, self.floor, cover((self.horizon - height) / soft))
    }
}

impl Scene {
    /// The color of the pixel centered at (`x`, `y`).
    fn color(&self, x: f32, y: f32, height: f32) -> Color {
        let silhouette = self.style.silhouette();
        let point = self.placing.article(x, y);
        let soft = 1.0 / self.placing.unit[0].min(self.placing.unit[1]);
        let here = distance(silhouette, point[0], point[1]);
        let covered = cover(here.whole() / soft);
        let mut color = [0.0; 3];
        if covered < 1.0 {
            color = self.backdrop.color(y / height, 1.0 / height);
            let shift = self.backdrop.shadow_shift;
            let caster = distance(silhouette, point[0] - shift[0], point[1] - shift[1]);
            let dark = self.backdrop.shadow * (-7.0 * caster.whole().max(0.0)).exp();
            color = color.map(|channel| channel * (1.0 - dark));
        }
        if covered > 0.0 {
            let bare = self.print.color(self.style.pattern(), point, here, soft);
            color = mix(color, self.lit(bare, point, here), covered);
        }
        color
    }

    /// The article's color in the light: brighter toward it, darker at the edge, a soft highlight.
    fn lit(&self, bare: Color, point: [f32; 2], here: Distance) -> Color {
        let toward = point[0] * self.light[0] + point[1] * self.light[1];
        let edge = (6.0 * here.whole().min(0.0)).exp();
        let shade = 1.0 + 0.14 * toward - 0.22 * edge;
        let [dx, dy] = [point[0] - 0.4 * self.light[0], point[1] - 0.4 * self.light[1]];
        let highlight = self.gloss * (-(dx * dx + dy * dy) / 0.09).exp();
        bare.map(|channel| channel * shade + highlight)
    }
}

/// Coverage of a pixel whose center is `distance` pixels outside an edge.
fn cover(distance: f32) -> f32 {
    (0.5 - distance).clamp(0.0, 1.0)
}

/// How far `at` is from the middle of its repeat, 0..0.5.
fn distance_to_middle(at: f32) -> f32 {
    (at - at.floor() - 0.5).abs()
}

fn turn(angle: f32) -> [f32; 2] {
    [angle.cos(), angle.sin()]
}

fn rotate([cos, sin]: [f32; 2], [x, y]: [f32; 2]) -> [f32; 2] {
    [x * cos + y * sin, y * cos - x * sin]
}

fn mix(from: Color, to: Color, share: f32) -> Color {
    [0, 1, 2].map(|channel| from[channel] + share * (to[channel] - from[channel]))
}

/// Hue in degrees, saturation and lightness in 0..1, to red, green and blue.
fn hsl(hue: f32, saturation: f32, lightness: f32) -> Color {
    let chroma = saturation * lightness.min(1.0 - lightness);
    [0.0, 8.0, 4.0].map(|offset| {
        let sector = (offset + hue / 30.0).rem_euclid(12.0);
        lightness - chroma * (sector - 3.0).min(9.0 - sector).clamp(-1.0, 1.0)
    })
}

#[cfg(test)]
mod tests {
    use super::super::dice::Entity;
    use super::*;

    fn picture(style: [u8; 3], number: u64) -> RgbImage {
        draw(Style(style), [96, 128], &mut Dice::new(1, Entity::Picture, number, 0))
    }

    /// Share of the strongly colored pixels whose hue is within 30 degrees of `hue`.
    fn share_of_hue(picture: &RgbImage, hue: f32) -> f32 {
        let (mut strong, mut near) = (0.0_f32, 0.0);
        for Rgb(pixel) in picture.pixels() {
            let [r, g, b] = pixel.map(f32::from);
            let chroma = r.max(g).max(b) - r.min(g).min(b);
            if chroma > 90.0 {
                strong += 1.0;
                let angle = (3.0_f32.sqrt() * (g - b)).atan2(2.0 * r - g - b).to_degrees();
                let apart = (angle - hue).rem_euclid(360.0);
                near += f32::from(u8::from(apart.min(360.0 - apart) < 30.0));
            }
        }
        near / strong.max(1.0)
    }

    #[test]
    fn a_picture_has_the_hue_of_its_style_and_the_asked_size() {
        for hue in 0..6 {
            for number in 0..2 {
                let picture = picture([hue, number as u8, 2 * number as u8], number);
                assert!((96..=128).contains(&picture.width()));
                assert!((96..=128).contains(&picture.height()));
                let share = share_of_hue(&picture, Style([hue, 0, 0]).hue());
                assert!(share > 0.8, "hue {hue}: {share}");
            }
        }
    }

    #[test]
    fn pictures_of_one_style_differ_and_repeat() {
        assert_ne!(picture([1, 1, 1], 1), picture([1, 1, 1], 2));
        assert_eq!(picture([1, 1, 1], 1), picture([1, 1, 1], 1));
    }

    #[test]
    fn both_encodings_decode_to_the_picture() {
        let drawn = picture([4, 2, 3], 9);
        for encoding in [Encoding::Jpeg(90), Encoding::Png] {
            let bytes = encoding.encode(&drawn).unwrap();
            let read = image::load_from_memory(&bytes).unwrap().to_rgb8();
            let error: f64 = drawn
                .as_raw()
                .iter()
                .zip(read.as_raw())
                .map(|(a, b)| f64::from(a.abs_diff(*b)))
                .sum::<f64>()
                / drawn.as_raw().len() as f64;
            assert!(error <= if encoding == Encoding::Png { 0.0 } else { 8.0 }, "{error}");
        }
    }

    #[test]
    fn hsl_knows_the_primary_colors() {
        let near = |hue, want: Color| {
            let got = hsl(hue, 1.0, 0.5);
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-6), "{got:?}");
        };
        near(0.0, [1.0, 0.0, 0.0]);
        near(120.0, [0.0, 1.0, 0.0]);
        near(240.0, [0.0, 0.0, 1.0]);
        near(60.0, [1.0, 1.0, 0.0]);
    }
}
