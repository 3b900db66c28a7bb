//! The matrix products that a step is made of, each alone, beside the peak of the processor and the
//! speed of its memory.

use std::time::Instant;

use ams_model::linalg::{self, Packed, Write};
use ams_model::{Tower, TowerBuffers, TowerConfig, TowerScratch};
use half::f16;
use rayon::ThreadPool;
use serde::Serialize;

use crate::measure::machine::MachineSpeed;

/// Seconds that a product is repeated.
const SECONDS: f64 = 0.3;

/// Images of one lane of the reference step, and their features' width.
const IMAGES: usize = 250;
const FEATURES: usize = 4_096;
/// Columns of a gradient that lanes sum at a time.
const COLUMNS: usize = 256;

/// The products of the reference step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProductsReport {
    /// The machine, measured in the same run.
    pub machine: MachineSpeed,
    /// Bytes of a second cache that blocks were cut for.
    pub second_cache: usize,
    /// Threads, each of which does every product on data of its own.
    pub threads: usize,
    /// The products.
    pub products: Vec<ProductSpeed>,
}

/// One product, by all threads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProductSpeed {
    /// What it is for.
    pub name: String,
    /// Rows, columns, and the length of a sum.
    pub shape: [usize; 3],
    /// Milliseconds of one product on one thread, median.
    pub ms: f64,
    /// 10^9 floating-point operations a second, all threads together.
    pub gflops: f64,
    /// Ratio of `gflops` to the peak, from 0 to 1.
    pub share_of_peak: f64,
}

/// Times the products on all threads of `pool`.
pub fn products(pool: &ThreadPool) -> ProductsReport {
    let machine = MachineSpeed::of(pool);
    let threads = pool.current_num_threads();
    let dense = [
        ("rank network, first layer", [1_024, 200, 324]),
        ("rank network, second layer", [1_024, 80, 200]),
        ("attention, second layer", [8_192, 16, 64]),
        ("tower, second layer", [IMAGES, 64, 256]),
    ];
    let mut all = vec![
        speed(pool, machine, "towers forward", [IMAGES, 256, FEATURES], tower_forward),
        speed(pool, machine, "towers' gradient", [FEATURES, 256, IMAGES], tower_gradient),
    ];
    for (name, shape) in dense {
        all.push(speed(pool, machine, name, shape, || layer(shape)));
        let [m, n, k] = shape;
        let transposed = [n, k, m];
        all.push(speed(pool, machine, &format!("{name}, gradient"), transposed, || {
            layer_gradient(transposed)
        }));
    }
    ProductsReport { machine, second_cache: linalg::second_cache(), threads, products: all }
}

/// Times what `prepare` makes, once on every thread.
fn speed<F: FnMut()>(
    pool: &ThreadPool,
    machine: MachineSpeed,
    name: &str,
    shape: [usize; 3],
    prepare: impl Fn() -> F + Sync,
) -> ProductSpeed {
    let medians = pool.broadcast(|_| {
        let mut product = prepare();
        product();
        let begin = Instant::now();
        let mut times = Vec::new();
        while begin.elapsed().as_secs_f64() < SECONDS {
            let begin = Instant::now();
            product();
            times.push(begin.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    let operations = 2.0 * shape.iter().map(|side| *side as f64).product::<f64>();
    let gflops = medians.iter().map(|seconds| operations / seconds / 1e9).sum::<f64>();
    let ms = 1e3 * medians.iter().sum::<f64>() / medians.len() as f64;
    let name = name.to_owned();
    ProductSpeed { name, shape, ms, gflops, share_of_peak: gflops / machine.peak_gflops }
}

/// Values between -1 and 1, none of them 0.
fn values(len: usize) -> impl Iterator<Item = f32> {
    (0..len).map(|at| (at * 2_654_435_761 % 1_999) as f32 / 999.0 - 0.999_5)
}

/// A tower, features of one lane, and what a forward pass over them leaves.
struct OneTower {
    tower: Tower,
    weights: Vec<f32>,
    features: Vec<f16>,
    packed: Packed,
    scratch: TowerScratch,
    out: Vec<f32>,
}

impl OneTower {
    fn new() -> OneTower {
        let tower = Tower::new(TowerConfig { input: FEATURES, widths: vec![256, 64, 16] });
        let weights = tower.init(1, "image");
        let features = values(IMAGES * FEATURES).map(f16::from_f32).collect();
        let mut packed = Packed::default();
        tower.pack(&weights, &mut packed);
        let (scratch, out) = (TowerScratch::default(), Vec::new());
        OneTower { tower, weights, features, packed, scratch, out }
    }

    fn forward(&mut self) {
        let OneTower { tower, weights, features, packed, scratch, out } = self;
        let rows = features.chunks(FEATURES).collect::<Vec<&[f16]>>();
        tower.forward(weights, packed.panels(), &rows[..], 1.0, scratch, out);
    }
}

fn tower_forward() -> impl FnMut() {
    let mut tower = OneTower::new();
    move || tower.forward()
}

fn tower_gradient() -> impl FnMut() {
    let mut tower = OneTower::new();
    tower.forward();
    let dout = values(IMAGES * tower.tower.dim()).collect::<Vec<f32>>();
    let mut gradient = vec![0.0; tower.weights.len()];
    tower.tower.backward(&tower.weights, &mut tower.scratch, &dout, &mut gradient);
    let (mut buffers, mut part) = (TowerBuffers::default(), vec![0.0; COLUMNS * 256]);
    move || {
        let rows = tower.features.chunks(FEATURES).collect::<Vec<&[f16]>>();
        for from in (0..FEATURES).step_by(COLUMNS) {
            let columns = from..from + COLUMNS;
            let OneTower { tower, scratch, .. } = &tower;
            tower.backward_columns(&rows[..], 1.0, scratch, columns, None, &mut buffers, &mut part);
        }
    }
}

fn layer([m, n, k]: [usize; 3]) -> impl FnMut() {
    let (a, b) = (values(m * k).collect::<Vec<f32>>(), values(n * k).collect::<Vec<f32>>());
    let mut c = vec![0.0; m * n];
    move || linalg::a_bt([m, n, k], &a, &b, 1.0, Write::Overwrite, &mut c)
}

fn layer_gradient([m, n, k]: [usize; 3]) -> impl FnMut() {
    let (a, b) = (values(k * m).collect::<Vec<f32>>(), values(k * n).collect::<Vec<f32>>());
    let mut c = vec![0.0; m * n];
    move || linalg::at_b([m, n, k], &a, &b, 1.0, Write::Overwrite, &mut c)
}
