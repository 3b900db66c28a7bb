//! The processor at hand: its vectors, and its second cache. They decide how a product is cut, and
//! so its speed; never its bits.
//!
//! A program may pretend to have a smaller one ([`pretend`]), to measure what others would see.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pulp::Arch;

/// Bytes of the second cache where the system does not tell: those of the smallest one that servers
/// have.
const SECOND_CACHE: usize = 512 << 10;

/// Whether only vectors of 256 bits are used.
static NARROW: AtomicBool = AtomicBool::new(false);

/// Bytes of the second cache to go by; 0 for those that the system reports.
static CACHE: AtomicUsize = AtomicUsize::new(0);

/// A smaller processor to measure with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pretended {
    /// Vectors of 256 bits and 16 registers (AVX2), though there may be wider ones.
    pub narrow: bool,
    /// Bytes of the second cache.
    pub second_cache: Option<usize>,
}

/// Makes all products of this process go by a smaller processor from now on, or by its own again.
///
/// # Errors
/// If there are no vectors of 256 bits.
pub fn pretend(pretended: Pretended) -> Result<(), String> {
    if pretended.narrow && narrow().is_none() {
        return Err("this processor has no AVX2".to_owned());
    }
    NARROW.store(pretended.narrow, Ordering::Relaxed);
    CACHE.store(pretended.second_cache.map_or(0, |bytes| bytes.max(1)), Ordering::Relaxed);
    Ok(())
}

/// The widest vectors there are, or that are pretended.
#[inline]
pub fn arch() -> Arch {
    if NARROW.load(Ordering::Relaxed)
        && let Some(arch) = narrow()
    {
        return arch;
    }
    Arch::new()
}

#[cfg(target_arch = "x86_64")]
fn narrow() -> Option<Arch> {
    pulp::x86::V3::try_new().map(Arch::V3)
}

#[cfg(not(target_arch = "x86_64"))]
fn narrow() -> Option<Arch> {
    None
}

/// Bytes of one core's second cache.
#[inline]
pub fn second_cache() -> usize {
    static REPORTED: OnceLock<usize> = OnceLock::new();
    match CACHE.load(Ordering::Relaxed) {
        0 => *REPORTED.get_or_init(|| reported().unwrap_or(SECOND_CACHE)),
        bytes => bytes,
    }
}

/// What the system reports, the Linux way.
fn reported() -> Option<usize> {
    (0..8).find_map(|index| {
        let file = |name: &str| {
            let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}");
            std::fs::read_to_string(path).ok()
        };
        (file("level")?.trim() == "2").then(|| file("size")).flatten().as_deref().and_then(bytes)
    })
}

/// A size as the system writes it: `512K`, `2M`.
fn bytes(text: &str) -> Option<usize> {
    let text = text.trim();
    let (digits, unit) = match text.strip_suffix('K') {
        Some(digits) => (digits, 1 << 10),
        None => text.strip_suffix('M').map_or((text, 1), |digits| (digits, 1 << 20)),
    };
    digits.parse::<usize>().ok()?.checked_mul(unit).filter(|bytes| *bytes > 0)
}

/// Columns of a factor whose `rows` floats each are read again and again, and so have to stay in a
/// second cache of `cache` bytes beside as much else: a multiple of `step`, from `step` to `most`.
pub fn columns_in_cache(cache: usize, rows: usize, step: usize, most: usize) -> usize {
    let columns = cache / 2 / (size_of::<f32>() * rows.max(1));
    (columns / step * step).clamp(step, most.max(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_the_system_writes_them() {
        let cases = [
            ("512K\n", Some(512 << 10)),
            ("2048K", Some(2 << 20)),
            ("1M", Some(1 << 20)),
            ("65536", Some(65_536)),
            ("0K", None),
            ("", None),
            ("K", None),
            ("99999999999999999999K", None),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
        assert!(second_cache() > 0);
    }

    #[test]
    fn what_is_read_again_fits_in_half_the_cache() {
        for cache in [0, 100, 256 << 10, 512 << 10, 1 << 20, 2 << 20, usize::MAX] {
            for rows in [0, 1, 250, 256, 512, 5_000] {
                let columns = columns_in_cache(cache, rows, 64, 512);
                assert!((64..=512).contains(&columns) && columns.is_multiple_of(64));
                assert!(columns == 64 || columns * rows.max(1) <= cache / 8, "{cache}, {rows}");
            }
        }
        // The towers' block of 256 images: 512 KB hold 256 columns of it, 1 MB holds 512.
        assert_eq!(columns_in_cache(512 << 10, 256, 256, 512), 256);
        assert_eq!(columns_in_cache(1 << 20, 256, 256, 512), 512);
    }
}
