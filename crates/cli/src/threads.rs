//! The flags `--threads` and `--page-threads` of all commands.

/// More threads than this would only wait for one another.
const MOST: usize = 1024;

/// Reads a value of these flags, a number from 1 to 1024.
pub(crate) fn thread_count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=MOST).contains(count));
    count.ok_or_else(|| format!("expected 1 to {MOST}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_threads_is_1_to_1024() {
        let error = || Err("expected 1 to 1024".to_owned());
        for (text, expected) in
            [("1", Ok(1)), ("1024", Ok(1024)), ("0", error()), ("1025", error()), ("-1", error())]
        {
            assert_eq!(thread_count(text), expected, "{text}");
        }
    }
}
