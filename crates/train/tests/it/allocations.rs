//! What a step takes from the allocator once its buffers have their sizes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ams_data::catalogue::Catalogue;
use ams_data::dataset::Dataset;
use ams_data::simulate::{SimulateConfig, simulate};
use ams_train::{Config, Job, Trainer};
use tempfile::TempDir;

use super::shop::{PLACEMENTS, config};

/// Counts what each thread takes.
struct Counting;

thread_local! {
    static TAKEN: Cell<[u64; 2]> = const { Cell::new([0, 0]) };
}

// SAFETY: every call goes to the system's allocator as it came; counting takes no memory.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let count = |taken: &Cell<[u64; 2]>| {
            let [calls, bytes] = taken.get();
            taken.set([calls + 1, bytes + layout.size() as u64]);
        };
        // Where a thread is ending there is nothing to count any more.
        let _ = TAKEN.try_with(count);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// [allocations, bytes] of one step on one thread, the same batch every time.
fn taken_by_a_step(config: &Config) -> [u64; 2] {
    let mut trainer = Trainer::new(config.clone(), Job::solo(1)).unwrap();
    for _ in 0..4 {
        trainer.step().unwrap().expect("a step");
    }
    let taken = |trainer: &Trainer| {
        let [here, there] = [TAKEN.get(), trainer.lanes().pool().install(|| TAKEN.get())];
        [here[0] + there[0], here[1] + there[1]]
    };
    let before = taken(&trainer);
    trainer.step().unwrap().expect("a step");
    let after = taken(&trainer);
    [after[0] - before[0], after[1] - before[1]]
}

#[test]
fn a_step_takes_no_buffers_after_warm_up() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let shape = SimulateConfig {
        batches: 1,
        impressions: 2_048,
        groups: 256,
        behaviors_mean: 20.0,
        items: 500,
        user_fields: 3,
        context_fields: 2,
        even: true,
        ..SimulateConfig::paper()
    };
    simulate(&shape, &data).unwrap();
    let catalogue = Catalogue::open(&Dataset::open(&data).unwrap()).unwrap();
    let names = (0..catalogue.len()).filter_map(|row| catalogue.image(row)).map(str::to_owned);
    ams_image::simulated(&data.join("images"), names, 128, 1).unwrap();
    for placement in PLACEMENTS {
        let mut config = config(folder.path());
        config.data.samples = data.clone();
        (config.train.placement, config.train.batch, config.train.epochs) = (placement, 2_048, 100);
        let [calls, bytes] = taken_by_a_step(&config);
        // Lists of slices, a few per lane; what they point to is some megabytes, and stays.
        assert!(calls < 250 && bytes < 64 << 10, "{placement:?}: {calls} times, {bytes} bytes");
    }
}
