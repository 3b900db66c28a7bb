//! Ctrl-C: a job ends with what it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::Failure;
use crate::output::Output;

/// Becomes true on the first Ctrl-C, or when a caller in this process says so; the second Ctrl-C
/// ends the process at once. The first process of a job says so.
pub(crate) fn stop_on_interrupt(
    rank: usize,
    output: Output<'_>,
) -> Result<Arc<AtomicBool>, Failure> {
    if let Some(stop) = output.stop() {
        return Ok(stop);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if seen.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        if rank == 0 {
            eprintln!("stopping after this step with a checkpoint; once more to stop at once");
        }
    })
    .map_err(|error| Failure::user(format!("cannot listen to Ctrl-C: {error}")))?;
    Ok(stop)
}
