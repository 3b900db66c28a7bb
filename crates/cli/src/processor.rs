//! A smaller processor than there is, to measure with: AMS_VECTORS and AMS_SECOND_CACHE.

use ams_model::linalg::{self, Pretended};

use crate::failure::Failure;

/// Pretends what the variables say, if they say something.
pub(crate) fn pretend(variable: impl Fn(&str) -> Option<String>) -> Result<(), Failure> {
    let given = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    let narrow = match given("AMS_VECTORS").as_deref().map(str::trim) {
        None => false,
        Some("avx2") => true,
        Some(other) => {
            return Err(Failure::user(format!("AMS_VECTORS={other}: expected avx2, or nothing")));
        }
    };
    let second_cache = given("AMS_SECOND_CACHE").map(|text| {
        let bytes = text.trim().parse::<usize>().ok().filter(|bytes| *bytes > 0);
        let expected = "expected a number of bytes, such as 524288";
        bytes.ok_or_else(|| Failure::user(format!("AMS_SECOND_CACHE={text}: {expected}")))
    });
    let second_cache = second_cache.transpose()?;
    if !narrow && second_cache.is_none() {
        return Ok(());
    }
    let pretended = Pretended { narrow, second_cache };
    linalg::pretend(pretended).map_err(|why| Failure::user(format!("AMS_VECTORS: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_processor_is_refused() {
        let given = |name: &'static str, value: &'static str| {
            pretend(|asked| (asked == name).then(|| value.to_owned()))
        };
        for (name, value) in [
            ("AMS_VECTORS", "sse"),
            ("AMS_VECTORS", "AVX2"),
            ("AMS_SECOND_CACHE", "0"),
            ("AMS_SECOND_CACHE", "512K"),
            ("AMS_SECOND_CACHE", "-1"),
        ] {
            let Err(Failure::User(mistake)) = given(name, value) else { panic!("{name}={value}") };
            let what = &mistake.what;
            assert!(what.contains(name) && what.contains("expected"), "{what}");
        }
        for name in ["AMS_VECTORS", "AMS_SECOND_CACHE", "OTHER"] {
            assert!(given(name, " ").is_ok());
        }
    }
}
