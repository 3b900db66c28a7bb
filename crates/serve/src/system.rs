//! What the process asks of the operating system and of its C library: open files, and memory that
//! goes back.
//!
//! Knows numbers. Does not know connections or requests.

/// Raises the limit of open files to what an administrator allows; the limit then, or none if there
/// is none or it is not known.
pub(crate) fn open_files() -> Option<u64> {
    #[cfg(unix)]
    {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the call writes one `rlimit`, which is ours and whole.
        #[allow(unsafe_code)]
        let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0;
        if !known {
            return None;
        }
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        // SAFETY: the call reads one `rlimit`, which is ours and whole.
        #[allow(unsafe_code)]
        let is_raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } == 0;
        let now = if is_raised { raised.rlim_cur } else { limit.rlim_cur };
        (now != libc::RLIM_INFINITY).then_some(now)
    }
    #[cfg(not(unix))]
    None
}

/// Gives memory that was freed back to the operating system. GNU's C library keeps it otherwise,
/// for the next burst; others give it back themselves.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call takes the allocator's own locks and moves nothing that is in use.
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
}
