//! Where this process stands: alone, or one of the processes a launcher started.
//!
//! The only place that reads the launchers' environment variables.

use std::thread::available_parallelism;

use ams_fabric::{Fabric, Solo};
use ams_train::Job;

use crate::failure::Failure;

/// What launchers tell their processes: a variable with the number of processes, if it has one.
#[cfg(not(feature = "mpi"))]
const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];

/// What launchers tell processes that shall speak MPI.
const MARKS: [&str; 4] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK"];

/// How many processes of the job run on this host.
const LOCAL_SIZES: [&str; 3] =
    ["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_TASKS_PER_NODE"];

/// This process among the processes of its job.
pub(crate) struct Launch {
    #[cfg(feature = "mpi")]
    membership: Option<ams_fabric::mpi::Membership>,
    rank: usize,
    size: usize,
}

impl Launch {
    /// Joins the job this process was started in, if any.
    ///
    /// # Errors
    /// If a launcher started several processes, but this program cannot speak to them.
    pub(crate) fn join() -> Result<Launch, Failure> {
        let launched = MARKS.iter().any(|name| std::env::var_os(name).is_some());
        Launch::join_if(launched)
    }

    #[cfg(feature = "mpi")]
    fn join_if(launched: bool) -> Result<Launch, Failure> {
        yield_when_idle();
        if !launched {
            return Ok(Launch::alone());
        }
        let membership = ams_fabric::mpi::Membership::join()
            .ok_or_else(|| Failure::user("this process is in an MPI job already"))?;
        let fabric = membership.fabric();
        let (rank, size) = (fabric.rank(), fabric.size());
        Ok(Launch { membership: Some(membership), rank, size })
    }

    #[cfg(not(feature = "mpi"))]
    fn join_if(launched: bool) -> Result<Launch, Failure> {
        let size = SIZES.iter().find_map(|name| number(name)).unwrap_or(1);
        if launched && size > 1 {
            return Err(Failure::user(format!(
                "{size} processes were started, but this ams was built without MPI, so each would train \
                 alone and over the others; build it with `cargo build --release --features mpi`"
            )));
        }
        Ok(Launch::alone())
    }

    /// One process that was started by no launcher, or by one for something else than this.
    pub(crate) fn alone() -> Launch {
        Launch {
            #[cfg(feature = "mpi")]
            membership: None,
            rank: 0,
            size: 1,
        }
    }

    /// The number of this process.
    pub(crate) fn rank(&self) -> usize {
        self.rank
    }

    /// The number of processes.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Checks that `command` was not started in several processes, which it is not for.
    pub(crate) fn one_process(&self, command: &str) -> Result<(), Failure> {
        match self.size {
            1 => Ok(()),
            size => Err(Failure::user(format!(
                "`{command}` runs in one process, and {size} were started; start it alone"
            ))),
        }
    }

    pub(crate) fn fabric(&self) -> Box<dyn Fabric> {
        #[cfg(feature = "mpi")]
        if let Some(membership) = &self.membership {
            return Box::new(membership.fabric());
        }
        Box::new(Solo)
    }

    /// The processes as a training sees them.
    pub(crate) fn job(&self, threads: usize) -> Job {
        let facts = if self.size > 1 { facts() } else { Vec::new() };
        Job { fabric: self.fabric(), facts, ..Job::solo(threads) }
    }

    /// What moves the bytes, in words.
    pub(crate) fn engine(&self) -> String {
        #[cfg(feature = "mpi")]
        if self.membership.is_some() {
            return ams_fabric::mpi::Membership::library();
        }
        "none: one process".to_owned()
    }

    /// Ends every process of the job with this exit code. Returns where there is no other.
    pub(crate) fn abort(&self, code: u8) {
        #[cfg(feature = "mpi")]
        if let Some(membership) = self.membership.as_ref().filter(|_| self.size > 1) {
            membership.abort(i32::from(code));
        }
        #[cfg(not(feature = "mpi"))]
        let _ = code;
    }
}

/// The number of threads asked for, or this process's share of the cores.
pub(crate) fn threads(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| {
        let cores = available_parallelism().map_or(1, |cores| cores.get());
        // Fewer than the machine has: the launcher has given each process cores of its own.
        let bound = online().is_some_and(|online| cores < online);
        let processes = LOCAL_SIZES.iter().find_map(|name| number(name)).unwrap_or(1);
        if bound { cores } else { (cores / processes.max(1)).max(1) }
    })
}

/// What has to be the same in all processes for the same bits: program and kind of processor.
pub(crate) fn facts() -> Vec<(String, String)> {
    let program = std::env::current_exe().and_then(std::fs::read).map_or_else(
        |error| error.to_string(),
        |bytes| blake3::hash(&bytes).to_hex()[..16].to_owned(),
    );
    vec![
        ("ams".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("blake3 of the program".to_owned(), program),
        ("processor".to_owned(), processor()),
    ]
}

/// The processor, as far as it decides which kernels run.
pub(crate) fn processor() -> String {
    let mut words = vec![std::env::consts::ARCH];
    #[cfg(target_arch = "x86_64")]
    for (name, here) in [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ] {
        if here {
            words.push(name);
        }
    }
    words.join(" ")
}

pub(crate) fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

/// The number that an environment variable begins with: `4`, or `4(x2)` as Slurm has it.
fn number(name: &str) -> Option<usize> {
    let text = std::env::var(name).ok()?;
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..digits].parse().ok()
}

/// Processors of this machine, from a list such as `0-3,8-11`.
fn online() -> Option<usize> {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    list.trim().split(',').try_fold(0, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(sum + last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    })
}

/// Tells Open MPI, unless the user did, that who waits lets others run: the thread that waits for
/// other processes may share its core with those that compute, and by spinning there it takes a
/// third of a step.
#[cfg(feature = "mpi")]
fn yield_when_idle() {
    const NAME: &str = "OMPI_MCA_mpi_yield_when_idle";
    if std::env::var_os(NAME).is_none() {
        // SAFETY: the program's first act, before any other thread is there to read its
        // environment.
        #[allow(unsafe_code)]
        unsafe {
            std::env::set_var(NAME, "1");
        }
    }
}
