//! Numbers of 64 bits as two words, the low one first.

/// Appends `number` as two words, the lower one first.
pub fn push(words: &mut Vec<u32>, number: u64) {
    words.extend([number as u32, (number >> 32) as u32]);
}

/// The number of two words.
///
/// # Panics
/// If there are fewer.
pub fn number(words: &[u32]) -> u64 {
    u64::from(words[0]) | u64::from(words[1]) << 32
}

/// The numbers of pairs of words.
pub fn numbers(words: &[u32]) -> impl Iterator<Item = u64> {
    words.chunks_exact(2).map(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive() {
        let all = [0, 1, u64::MAX, 1 << 32, 0xfedc_ba98_7654_3210];
        let mut words = Vec::new();
        all.iter().for_each(|&number| push(&mut words, number));
        assert_eq!(words[8..], [0x7654_3210, 0xfedc_ba98]);
        assert_eq!(numbers(&words).collect::<Vec<_>>(), all);
        assert_eq!(number(&words[4..]), u64::MAX);
    }
}
