//! First values: each a pure function of a seed and a name, never of a shared generator.
//!
//! A counter generator (splitmix64) makes value `i` of a stream from the stream's key and `i`
//! alone, in integer and exactly rounded arithmetic: the same bits on every machine, in any order.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Half-width of the uniform distribution of embedding rows and of the no-image vectors.
///
/// Small, so that a row nobody has trained (a cold item) says little.
pub(crate) const ROW_RANGE: f32 = 0.05;

/// The distribution of a tensor's first values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Every value the same.
    Constant(f32),
    /// Uniform in (-range, range).
    Uniform(f32),
}

impl Init {
    /// He uniform, for a layer that a PReLU follows: keeps the variance of `inputs` values.
    pub(crate) fn he(inputs: usize) -> Init {
        Init::Uniform((6.0 / inputs.max(1) as f32).sqrt())
    }

    /// The distribution of `gain` times the values.
    pub fn scaled(self, gain: f32) -> Init {
        match self {
            Init::Constant(value) => Init::Constant(value * gain),
            Init::Uniform(range) => Init::Uniform(range * gain),
        }
    }

    /// Xavier uniform, for a linear layer.
    pub(crate) fn xavier(inputs: usize, outputs: usize) -> Init {
        Init::Uniform((6.0 / (inputs + outputs).max(1) as f32).sqrt())
    }
}

/// Fills `out` (D) with the first values of row `id` of `table`: uniform in +-[`ROW_RANGE`], from
/// (`seed`, `table`, `id`) only.
pub fn row_init(seed: u64, table: &str, id: u64, out: &mut [f32]) {
    fill_uniform(mix(xxh3_64_with_seed(table.as_bytes(), seed) ^ mix(id)), ROW_RANGE, out);
}

/// Fills `out` with the first values of the tensor `name` of `network`, from (`seed`, `network`,
/// `name`) only.
pub fn dense_init(seed: u64, network: &str, name: &str, init: Init, out: &mut [f32]) {
    match init {
        Init::Constant(value) => out.fill(value),
        Init::Uniform(range) => {
            let network = xxh3_64_with_seed(network.as_bytes(), seed);
            fill_uniform(xxh3_64_with_seed(name.as_bytes(), network), range, out);
        }
    }
}

fn fill_uniform(key: u64, range: f32, out: &mut [f32]) {
    for (i, value) in out.iter_mut().enumerate() {
        // The middle of one of 2^23 cells of (-1, 1): symmetric, and never the edge.
        let cell = (mix(key.wrapping_add(i as u64)) >> 41) as f32;
        *value = ((cell + 0.5) * (1.0 / (1 << 22) as f32) - 1.0) * range;
    }
}

/// One output of splitmix64 from the state `x`.
pub fn mix(x: u64) -> u64 {
    let x = x.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seed: u64, table: &str, id: u64) -> [f32; 12] {
        let mut out = [0.0; 12];
        row_init(seed, table, id, &mut out);
        out
    }

    #[test]
    fn rows_depend_on_seed_table_and_id_alone() {
        assert_eq!(row(1, "a", 2), row(1, "a", 2));
        for other in [row(2, "a", 2), row(1, "b", 2), row(1, "a", 3)] {
            assert_ne!(row(1, "a", 2), other);
        }
    }

    #[test]
    fn rows_are_uniform_and_uncorrelated() {
        let rows: Vec<_> = (0..10_000).map(|id| row(7, "rows", id)).collect();
        let all: Vec<f64> = rows.iter().flatten().map(|&x| f64::from(x / ROW_RANGE)).collect();
        let moment = |power: i32| all.iter().map(|x| x.powi(power)).sum::<f64>() / all.len() as f64;
        assert!(all.iter().all(|x| x.abs() < 1.0));
        assert!(moment(1).abs() < 0.01, "{}", moment(1));
        assert!((moment(2) - 1.0 / 3.0).abs() < 0.01, "{}", moment(2));
        assert!((moment(4) - 1.0 / 5.0).abs() < 0.01, "{}", moment(4));
        let lag =
            |by: usize| all.windows(by + 1).map(|w| w[0] * w[by]).sum::<f64>() / all.len() as f64;
        for by in [1, 12] {
            assert!(lag(by).abs() < 0.01, "lag {by}: {}", lag(by));
        }
    }

    #[test]
    fn first_values_never_change() {
        // Two builds must agree on rows nobody has seen: a resumed training makes them anew.
        let first = row(42, "rows", 7)[0];
        let key = mix(xxh3_64_with_seed(b"rows", 42) ^ mix(7));
        let expected = (((mix(key) >> 41) as f64 + 0.5) / f64::from(1 << 22) - 1.0) * 0.05;
        assert!((f64::from(first) - expected).abs() < 1e-8, "{first} {expected}");
    }

    #[test]
    fn streams_of_neighboring_ids_do_not_overlap() {
        let (a, b) = (row(1, "rows", 1), row(1, "rows", 2));
        assert!(a.iter().all(|x| !b.contains(x)));
    }
}
