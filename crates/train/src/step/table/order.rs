//! The rows that go first, found without a copy of their keys: they may be most of the memory.

/// Bits of a digit.
const DIGIT: u32 = 16;

/// The key number `nth`, counted from 0, of different keys in ascending order; `each` shows all of
/// them, more than `nth`, in any order, as often as it is asked.
///
/// A pass over the keys counts those of each value of a digit, among those whose digits before are
/// the ones that were found.
pub(super) fn nth_key(mut nth: usize, each: impl Fn(&mut dyn FnMut(u128))) -> u128 {
    let mut counts = vec![0_usize; 1 << DIGIT];
    let mut found = 0_u128;
    for digit in (0..u128::BITS / DIGIT).rev() {
        counts.fill(0);
        each(&mut |key| {
            let digits = key >> (digit * DIGIT);
            if digits >> DIGIT == found {
                counts[usize::from(digits as u16)] += 1;
            }
        });
        let mut value = 0;
        while nth >= counts[value] {
            nth -= counts[value];
            value += 1;
        }
        found = (found << DIGIT) | value as u128;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_key_is_that_of_a_sorted_list() {
        let product = |n: u128| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let spread = (0..300).map(product);
        let alike = (0..300).map(|n| product(n) % 1_000 + (7 << 96));
        let ends = [0, u128::MAX, 1 << 127, u128::MAX >> 1];
        let mut keys: Vec<u128> = spread.chain(alike).chain(ends).collect();
        keys.sort_unstable();
        keys.dedup();
        for nth in [0, 1, 2, 17, 150, 299, 300, 301, keys.len() - 1] {
            let got = nth_key(nth, |see| keys.iter().rev().for_each(|&key| see(key)));
            assert_eq!(got, keys[nth], "{nth}");
        }
    }
}
