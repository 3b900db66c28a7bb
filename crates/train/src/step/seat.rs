//! The address of a lane.

/// Which lane it is, of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    /// Its number, from 0.
    pub lane: usize,
    /// All lanes of the job.
    pub lanes: usize,
}
