//! Readers of Arrow and Parquet panic on some damaged files; who reads files from outside reads
//! them in here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::Error;

/// What `read` gives of the file `path`. What it was reading must not be used after an error.
///
/// # Errors
/// Those of `read`; [`Error::Content`] if it panics.
pub fn guarded<T, E: From<Error>>(
    path: &Path,
    read: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        let what = "is damaged: its parts contradict each other; write it again";
        Err(Error::content(path, what).into())
    })
}
