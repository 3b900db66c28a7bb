//! Measurements of trainings, steps, tables of rows and samples, and a forecast without any.

pub(crate) mod export;
pub(crate) mod forecast;
pub(crate) mod machine;
pub(crate) mod placements;
pub(crate) mod products;
pub(crate) mod samples;
pub(crate) mod steps;
pub(crate) mod tables;

pub use export::export_step;
pub use forecast::{Cluster, Forecast, Workload, forecast};
pub use machine::MachineSpeed;
pub use placements::{PlacementReport, placement};
pub use products::{ProductSpeed, ProductsReport, products};
pub use samples::{DataReport, Rate, samples};
pub use steps::{StepTimes, resident, steps};
pub use tables::{RowsReport, TableSize, rows};
