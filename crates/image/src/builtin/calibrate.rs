//! Synthetic pictures that only fix the encoder's constants.
//!
//! Knows how to throw colored shapes onto a ground. Does not know any real picture.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use super::pyramid::SIDE;

/// How many pictures are drawn.
pub(crate) const PICTURES: usize = 64;

/// One shape: an ellipse or a box, plain or striped.
struct Shape {
    middle: [f32; 2],
    half: [f32; 2],
    round: bool,
    colors: [[u8; 3]; 2],
    /// Width of a stripe in pixels.
    stripe: f32,
    /// Direction of the stripes.
    slope: f32,
}

/// Draws one picture, 64 x 64 RGB: up to eight shapes on a plain ground, white every second time.
pub(crate) fn draw(random: &mut ChaCha8Rng) -> Vec<u8> {
    let ground = if random.next_u32() & 1 == 0 { [250; 3] } else { color(random) };
    let mut pixels = ground.repeat(SIDE * SIDE);
    for _ in 0..1 + random.next_u32() % 8 {
        paint(&mut pixels, &shape(random));
    }
    pixels
}

fn shape(random: &mut ChaCha8Rng) -> Shape {
    let side = SIDE as f32;
    Shape {
        middle: [between(random, 0.0, side), between(random, 0.0, side)],
        half: [between(random, 3.0, side / 2.0), between(random, 3.0, side / 2.0)],
        round: random.next_u32() & 1 == 0,
        colors: [color(random), color(random)],
        stripe: between(random, 1.5, 24.0),
        slope: between(random, -2.0, 2.0),
    }
}

fn paint(pixels: &mut [u8], shape: &Shape) {
    for y in 0..SIDE {
        for x in 0..SIDE {
            let across = (x as f32 - shape.middle[0]) / shape.half[0];
            let down = (y as f32 - shape.middle[1]) / shape.half[1];
            let inside = if shape.round {
                across * across + down * down <= 1.0
            } else {
                across.abs().max(down.abs()) <= 1.0
            };
            if inside {
                let along = (x as f32 + shape.slope * y as f32 + 1000.0) / shape.stripe;
                let color = shape.colors[along as usize % 2];
                pixels[(y * SIDE + x) * 3..][..3].copy_from_slice(&color);
            }
        }
    }
}

fn between(random: &mut ChaCha8Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * (random.next_u32() >> 8) as f32 / (1u32 << 24) as f32
}

fn color(random: &mut ChaCha8Rng) -> [u8; 3] {
    let [red, green, blue, _] = random.next_u32().to_le_bytes();
    [red, green, blue]
}
