//! `ams bench gemm`: the products that a step is made of, each alone.

use ams_train::measure::{self, ProductsReport};

use crate::failure::Failure;
use crate::launch::{Launch, threads};
use crate::output::{Output, bytes, table};
use crate::threads::thread_count;

/// Time the matrix products of the reference step, each alone and on all threads at once, beside
/// the processor's peak and the speed of memory in the same run.
///
/// AMS_VECTORS=avx2 and AMS_SECOND_CACHE=BYTES measure what a smaller processor would see.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Threads; as many as there are cores unless given.
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
}

pub(crate) fn run(
    arguments: Arguments,
    launch: &Launch,
    output: Output<'_>,
) -> Result<(), Failure> {
    launch.one_process("ams bench gemm")?;
    let count = threads(arguments.threads);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build();
    let pool = pool.map_err(|error| Failure::user(format!("--threads {count}: {error}")))?;
    let report = measure::products(&pool);
    output.finish(&report, || text(&report));
    Ok(())
}

fn text(report: &ProductsReport) -> String {
    let row = |it: &measure::ProductSpeed| {
        let [m, n, k] = it.shape;
        vec![
            it.name.clone(),
            format!("{m} x {n} of {k}"),
            format!("{:.3}", it.ms),
            format!("{:.0}", it.gflops),
            format!("{:.0} %", 100.0 * it.share_of_peak),
        ]
    };
    let rows: Vec<Vec<String>> = report.products.iter().map(row).collect();
    let machine = &report.machine;
    format!(
        "{}{} threads: peak {:.0} GFLOP/s, memory {:.1} GB/s copied, third cache {:.1} GB/s read; blocks for a second \
         cache of {}\n",
        table(&["product", "shape", "ms", "GFLOP/s", "of the peak"], &rows),
        report.threads,
        machine.peak_gflops,
        machine.memory_gbs,
        machine.third_cache_gbs,
        bytes(report.second_cache as f64),
    )
}
