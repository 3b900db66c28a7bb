//! A training that goes on with another one.

use std::path::{Path, PathBuf};

use crate::settings::{Config, TrainConfig, WarmParts, WarmStart};

impl Config {
    /// That of a training which goes on with the run `run` of this one, for one pass over the
    /// dataset `samples`, as a run in the folder `runs`. It holds no samples out: what comes next
    /// is in the next dataset.
    pub fn going_on(self, run: &Path, samples: PathBuf, runs: PathBuf) -> Config {
        let warm_start = WarmStart { from: run.to_path_buf(), parts: WarmParts::Training };
        let train = TrainConfig {
            epochs: 1,
            validation_parts: 0,
            validation_tail: 0.0,
            early_stop: None,
            evaluations_per_epoch: 1,
            refit: false,
            candidates: Vec::new(),
            max_steps: None,
            phases: Vec::new(),
            warm_start: Some(warm_start),
            ..self.train
        };
        let mut config = Config { runs, train, ..self };
        config.data.samples = samples;
        config
    }
}
