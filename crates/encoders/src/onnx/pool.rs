//! From what a network's output holds of one picture to one row: as it is, its first token, or a
//! mean over places.
//!
//! Knows dimensions. Does not know networks.

use std::fmt;

/// Largest number of values per row that an encoder may have.
pub(crate) const MAX_DIM: usize = 65_536;

/// How an output of tokens or maps becomes one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// All numbers, end to end.
    None,
    /// The first token, which is the class token of vision transformers that have one.
    First,
    /// The mean over tokens, or over the places of maps (global average).
    Mean,
}

/// Where the numbers of a row are in an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pooling {
    pool: Pool,
    /// Numbers in a row.
    pub dim: usize,
    /// Values that become one number.
    places: usize,
    /// From a place to the next, in values.
    place_stride: usize,
    /// From a number of the row to the next, in values.
    stride: usize,
    /// What a place is.
    noun: &'static str,
}

/// What an output is, by the dimensions of one picture's part.
enum Kind {
    Row,
    /// Tokens, each of some numbers: (T, D).
    Tokens {
        tokens: usize,
        numbers: usize,
    },
    /// Maps: (C, H, W), or (H, W, C) if `last`.
    Maps {
        channels: usize,
        places: usize,
        last: bool,
    },
    Other,
}

impl Pooling {
    /// How the output of these dimensions becomes a row of each of `pictures` pictures; what is
    /// wrong with it, and what to do about that, otherwise.
    pub(crate) fn new(
        shape: &[usize],
        pictures: usize,
        pool: Option<Pool>,
    ) -> Result<Pooling, String> {
        let own = match shape.first() {
            Some(first) if *first == pictures => &shape[1..],
            _ if pictures == 1 => shape,
            _ => {
                return Err(format!("is {shape:?} for {pictures} pictures: expected a row each"));
            }
        };
        let all = own.iter().product::<usize>();
        let flat =
            Pooling { pool: Pool::None, dim: all, places: 1, place_stride: 0, stride: 1, noun: "" };
        let has = format!("is {shape:?} for {pictures} picture(s)");
        let pooling = match (Kind::of(own), pool) {
            (Kind::Row, None) | (_, Some(Pool::None)) => flat,
            (Kind::Row, Some(_)) if own.len() < 2 => {
                return Err(format!("{has}: one row each, nothing to pool; leave --pool out"));
            }
            (Kind::Row, Some(pool)) => Pooling { pool, noun: "place", ..flat },
            (Kind::Tokens { tokens, numbers }, Some(pool)) => Pooling {
                pool,
                dim: numbers,
                places: if pool == Pool::First { 1 } else { tokens },
                place_stride: numbers,
                stride: 1,
                noun: "token",
            },
            (Kind::Tokens { tokens, numbers }, None) => {
                return Err(format!(
                    "{has}: {tokens} tokens of {numbers} numbers each, not one row. Say --pool first (the first token, \
                     which is the class token of ViT, DeiT, DINOv2), --pool mean (the mean of all tokens), or --pool none \
                     ({all} numbers end to end, at most {MAX_DIM}), or choose a later node with --output-node"
                ));
            }
            (Kind::Maps { channels, places, last }, Some(Pool::Mean)) => Pooling {
                pool: Pool::Mean,
                dim: channels,
                places,
                place_stride: if last { channels } else { 1 },
                stride: if last { 1 } else { places },
                noun: "place",
            },
            (Kind::Maps { channels, places, .. }, None | Some(Pool::First)) => {
                let first = if pool.is_some() { "--pool first is for tokens. " } else { "" };
                return Err(format!(
                    "{has}: {channels} maps of {places} places each, not one row. {first}Say --pool mean (the global average, \
                     {channels} numbers), or --pool none ({all} numbers end to end, at most {MAX_DIM}), or choose a later \
                     node with --output-node"
                ));
            }
            (Kind::Other, _) => {
                return Err(format!(
                    "{has}: neither a row, nor tokens, nor maps. Say --pool none ({all} numbers end to end, at most {MAX_DIM}), \
                     or choose another node with --output-node"
                ));
            }
        };
        if pooling.dim == 0 || pooling.dim > MAX_DIM {
            let dim = pooling.dim;
            return Err(format!(
                "{has}: {dim} numbers each, expected 1 to {MAX_DIM}; choose a pooled or later node with --output-node, or \
                 say --pool mean"
            ));
        }
        Ok(pooling)
    }

    /// Puts the row into `row`, from the part of an output that is one picture's.
    ///
    /// A mean is summed in f64, in the order of the places.
    pub(crate) fn take(&self, output: &[f32], row: &mut [f32]) {
        if self.places == 1 {
            row.copy_from_slice(&output[..self.dim]);
            return;
        }
        for (at, to) in row.iter_mut().enumerate() {
            let values = output[at * self.stride..].iter().step_by(self.place_stride);
            let sum: f64 = values.take(self.places).map(|value| f64::from(*value)).sum();
            *to = (sum / self.places as f64) as f32;
        }
    }
}

impl Kind {
    fn of(own: &[usize]) -> Kind {
        match *own {
            _ if own.iter().filter(|size| **size > 1).count() < 2 => Kind::Row,
            [tokens, numbers] => Kind::Tokens { tokens, numbers },
            // Some networks keep channels last, as TensorFlow and Swin do: square maps before more
            // channels tell.
            [height, width, channels] if height == width && channels > width => {
                Kind::Maps { channels, places: height * width, last: true }
            }
            [channels, height, width] => {
                Kind::Maps { channels, places: height * width, last: false }
            }
            _ => Kind::Other,
        }
    }
}

/// In words that are part of an encoder's name and hash; empty where nothing is pooled.
impl fmt::Display for Pooling {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pooling { places, stride, noun, .. } = self;
        match self.pool {
            Pool::First if *noun == "token" => write!(to, ", first token"),
            Pool::Mean if *places > 1 => {
                let last = if *noun == "place" && *stride == 1 { ", channels last" } else { "" };
                write!(to, ", mean of {places} {noun}s{last}")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The row of the numbers 0, 1, 2, .. of that shape, with the words for it; or the error.
    fn row(shape: &[usize], pictures: usize, pool: Option<Pool>) -> Result<String, String> {
        let pooling = Pooling::new(shape, pictures, pool)?;
        let values = shape.iter().product::<usize>() / pictures;
        let output = (0..values).map(|value| value as f32).collect::<Vec<f32>>();
        let mut row = vec![f32::NAN; pooling.dim];
        pooling.take(&output, &mut row);
        Ok(format!("{row:?}{pooling}"))
    }

    #[test]
    fn rows_tokens_and_maps() {
        let cases: [(&[usize], usize, Option<Pool>, &str); 13] = [
            (&[1, 3], 1, None, "[0.0, 1.0, 2.0]"),
            (&[2, 2], 2, None, "[0.0, 1.0]"),
            (&[3], 1, None, "[0.0, 1.0, 2.0]"),
            (&[1, 3, 1, 1], 1, None, "[0.0, 1.0, 2.0]"),
            (&[1, 1, 3], 1, None, "[0.0, 1.0, 2.0]"),
            (&[1, 3, 1, 1], 1, Some(Pool::Mean), "[0.0, 1.0, 2.0]"),
            (&[1, 3, 2], 1, Some(Pool::First), "[0.0, 1.0], first token"),
            (&[1, 3, 2], 1, Some(Pool::Mean), "[2.0, 3.0], mean of 3 tokens"),
            (&[3, 2], 1, Some(Pool::Mean), "[2.0, 3.0], mean of 3 tokens"),
            (&[1, 3, 2], 1, Some(Pool::None), "[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]"),
            (&[1, 3, 2, 2], 1, Some(Pool::Mean), "[1.5, 5.5, 9.5], mean of 4 places"),
            (
                &[1, 2, 2, 3],
                1,
                Some(Pool::Mean),
                "[4.5, 5.5, 6.5], mean of 4 places, channels last",
            ),
            (&[2, 2, 2, 1], 2, Some(Pool::Mean), "[0.5, 2.5], mean of 2 places"),
        ];
        for (shape, pictures, pool, expected) in cases {
            assert_eq!(row(shape, pictures, pool).as_deref(), Ok(expected), "{shape:?} {pool:?}");
        }
    }

    #[test]
    fn nothing_is_pooled_or_laid_flat_unasked() {
        /// Dimensions, pictures, what to do, words of the error.
        type Case = (&'static [usize], usize, Option<Pool>, &'static [&'static str]);
        let cases: [Case; 8] = [
            (&[1, 197, 192], 1, None, &["197 tokens of 192", "--pool first", "37824 numbers"]),
            (&[1, 1280, 7, 7], 1, None, &["1280 maps of 49", "--pool mean", "global average"]),
            (&[1, 7, 7, 1280], 1, Some(Pool::First), &["1280 maps", "--pool first is for tokens"]),
            (&[1, 768], 1, Some(Pool::Mean), &["nothing to pool", "leave --pool out"]),
            (&[1, 257, 384], 1, Some(Pool::None), &["98688 numbers each", "--pool mean"]),
            (&[1, 2, 3, 4, 5], 1, None, &["neither a row", "--pool none"]),
            (&[3, 8], 2, None, &["for 2 pictures: expected a row each"]),
            (&[1, 0], 1, None, &["0 numbers each"]),
        ];
        for (shape, pictures, pool, words) in cases {
            let error = row(shape, pictures, pool).unwrap_err();
            for word in words {
                assert!(error.contains(word), "{error}\nlacks: {word}");
            }
        }
    }
}
