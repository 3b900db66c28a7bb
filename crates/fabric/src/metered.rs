//! A fabric that knows how much it moved and how long that took.

use std::time::{Duration, Instant};

use crate::{Fabric, Lost};

/// What one process sent to others, since the start or since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    /// Bytes sent to other processes, of the buffers handed over.
    pub bytes: u64,
    /// Number of exchanges, barriers included.
    pub exchanges: u64,
    /// Time spent in exchanges, waiting for others included.
    pub time: Duration,
}

/// Counts what passes through another fabric.
pub struct Metered {
    inner: Box<dyn Fabric>,
    meter: Meter,
}

impl Metered {
    /// Counts what passes through `inner`.
    pub fn new(inner: Box<dyn Fabric>) -> Metered {
        Metered { inner, meter: Meter::default() }
    }

    /// Exchanges and bytes since the last [`Metered::take`].
    pub fn meter(&self) -> Meter {
        self.meter
    }

    /// What was counted; counts anew.
    pub fn take(&mut self) -> Meter {
        std::mem::take(&mut self.meter)
    }

    /// Counts on from `meter`, as if nothing had passed since.
    pub fn restore(&mut self, meter: Meter) {
        self.meter = meter;
    }
}

impl Fabric for Metered {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn exchange(
        &mut self,
        send: &[u32],
        counts: &[usize],
        recv: &mut Vec<u32>,
    ) -> Result<Vec<usize>, Lost> {
        let begin = Instant::now();
        let got = self.inner.exchange(send, counts, recv)?;
        self.meter.time += begin.elapsed();
        self.meter.exchanges += 1;
        self.meter.bytes += 4 * (send.len() - counts[self.inner.rank()]) as u64;
        Ok(got)
    }
}
