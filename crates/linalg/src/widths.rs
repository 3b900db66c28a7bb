//! How a product is cut: into blocks of [`DEPTH`] rows, and panels as wide as the processor's
//! vectors suggest.

use pulp::{Simd, WithSimd};

/// Products summed in registers before they reach the destination.
pub const DEPTH: usize = 256;

/// How wide panels are, in floats: at most four vectors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Widths {
    /// What a product is fastest with.
    pub usual: usize,
    /// Up to what width a product does well with a matrix that is one panel as it is.
    pub in_place: usize,
    /// What a listed left factor is fastest with.
    pub wide: usize,
    /// Rows of the left factor that a product with such panels sums at once, 6 or 12.
    pub rows: usize,
}

impl Widths {
    /// Those of this processor.
    pub(crate) fn here() -> Widths {
        struct Here;
        impl WithSimd for Here {
            type Output = Widths;
            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) -> Widths {
                Widths::of::<S>()
            }
        }
        crate::arch().dispatch(Here)
    }

    /// Those of vectors `S`.
    pub(crate) fn of<S: Simd>() -> Widths {
        let (two, four) = (2 * S::F32_LANES, 4 * S::F32_LANES);
        // The sums of 6 rows of four vectors fit into 32 registers. Where two vectors are wide
        // enough to keep all units busy, 12 rows of two do better: more of a panel stays in
        // the nearest cache.
        let many = S::REGISTER_COUNT >= 32;
        let usual = if many && S::F32_LANES < 16 { four } else { two };
        let rows = if many && usual == two { 12 } else { 6 };
        Widths { usual, in_place: if many { four } else { usual }, wide: four, rows }
    }
}
