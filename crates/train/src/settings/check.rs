//! Checks of settings that their types cannot express. Errors name the key, the value and what was
//! expected.

use ams_model::settings::range;

use super::phases::epochs;
use super::{
    AlignConfig, Base, Candidate, Config, DataConfig, EvictionConfig, ImageArm, ModelConfig,
    ModelPart, NetworkSettings, PhaseConfig, Similarity, TowerSharing, TowerWeights, TrainConfig,
    UnknownIds, WarmParts,
};
use crate::error::{Error, Result};

fn bad(key: &str, what: String) -> Result<()> {
    Err(Error::Config { key: key.to_owned(), what })
}

impl Config {
    /// Checks the settings without any file that they name.
    ///
    /// # Errors
    /// [`Error::Config`] with the first key whose value is outside its range or contradicts another
    /// one.
    pub fn check(&self) -> Result<()> {
        if self.name.is_empty() || self.name.contains(['/', '\\']) || self.name.starts_with('.') {
            return bad("name", format!("{:?} is not the name of a folder", self.name));
        }
        self.train.check_optimization(&self.model)?;
        self.train.check_rows()?;
        self.train.check_length(&self.model.network)?;
        self.train.check_phases(&self.model)?;
        self.model.check()?;
        self.data.check_contents()?;
        self.check_warm_start()?;
        self.align.as_ref().map_or(Ok(()), |align| self.check_align(align))
    }
}

impl Config {
    /// The alignment, and what a loss beside the clicks needs of the model.
    fn check_align(&self, align: &AlignConfig) -> Result<()> {
        align.check()?;
        let (model, weight) = (&self.model, align.weight);
        if weight == 0.0 {
            return Ok(());
        }
        let lacks = if model.network.images != ImageArm::Joint {
            "the model does not embed both images of ads and of histories: set model.images = \"joint\""
        } else if model.towers != TowerSharing::Shared {
            "images of ads and of histories go through different towers: set model.towers = \"shared\""
        } else if model.tower_weights != TowerWeights::Trained {
            "the tower is not trained: set model.tower_weights = \"trained\""
        } else {
            return Ok(());
        };
        bad("align.weight", format!("{weight}, but {lacks}, or the weight to 0"))
    }

    /// Towers of an earlier training know the vectors of its map alone.
    fn check_warm_start(&self) -> Result<()> {
        let warm = self.train.warm_start.as_ref().map_or(WarmParts::None, |warm| warm.parts);
        if warm == WarmParts::Training {
            let train = &self.train;
            let lacks = if !train.phases.is_empty() {
                "train.phases count the steps of one training: leave them out"
            } else if train.min_occurrences > 1 && train.sketch_bytes.is_none() {
                "train.min_occurrences counts the samples of one training: set train.sketch_bytes"
            } else if train.refit {
                "train.refit begins again: leave it out"
            } else {
                ""
            };
            if !lacks.is_empty() {
                return bad("train.warm_start.parts", format!("\"training\", but {lacks}"));
            }
        }
        if self.aligns().is_none() || warm == WarmParts::None {
            return Ok(());
        }
        let what = "takes over weights that were trained with another map than [align] makes: set \
                    data.images to the vectors of the earlier map (`ams vectors --images`, \
                    `ams encode --features`) and leave [align] out";
        bad("train.warm_start", what.to_owned())
    }
}

impl TrainConfig {
    /// Lanes, learning rates and what else decides a step.
    fn check_optimization(&self, model: &ModelConfig) -> Result<()> {
        let TrainConfig { batch, lanes, learning_rate, decay, .. } = *self;
        if !lanes.is_power_of_two() {
            return bad("train.lanes", format!("{lanes}, expected a power of two such as 8"));
        }
        if batch < lanes {
            let what = format!("{batch} impressions for {lanes} lanes, expected at least one each");
            return bad("train.batch", what);
        }
        let rates = [
            ("train.learning_rate", Some(learning_rate)),
            ("train.rows_learning_rate", self.rows_learning_rate),
        ];
        for (key, rate) in rates {
            if let Some(rate) = rate.filter(|rate| !(*rate > 0.0 && rate.is_finite())) {
                return bad(key, format!("{rate}, expected a positive number"));
            }
        }
        let l2 = self.l2_ids;
        if !(l2 >= 0.0 && l2.is_finite()) {
            return bad("train.l2_ids", format!("{l2}, expected a number of at least 0"));
        }
        if self.min_occurrences == 0 {
            return bad("train.min_occurrences", "0, expected at least 1".to_owned());
        }
        let learned = model.network.unknown == UnknownIds::Learned;
        if learned && model.network.id_dropout.is_none() && self.min_occurrences == 1 {
            let what = "\"learned\", but no id is replaced by it in training: set \
                        model.id_dropout to more than 0 or train.min_occurrences to more than 1";
            return bad("model.unknown", what.to_owned());
        }
        self.check_in_batch(model)?;
        let TrainConfig { tower_dropout: rate, tower_weight_decay: wd, .. } = *self;
        if let Err(what) = range::share(&rate) {
            return bad("train.tower_dropout", what);
        }
        if rate > 0.0 && model.tower.len() == 1 {
            let what =
                format!("{rate} of the hidden units, but model.tower = {:?} has none", model.tower);
            return bad("train.tower_dropout", what);
        }
        if !(wd >= 0.0 && wd * learning_rate < 1.0) {
            let what = format!(
                "{wd}, expected at least 0 and, times train.learning_rate = {learning_rate}, less than 1"
            );
            return bad("train.tower_weight_decay", what);
        }
        if let Some(norm) = self.clip_norm.filter(|norm| !(*norm > 0.0 && norm.is_finite())) {
            return bad("train.clip_norm", format!("{norm}, expected a positive number"));
        }
        if !(decay > 0.0 && decay <= 1.0) || self.decay_every == 0 {
            let what = format!("{decay} every {} steps, expected 0 < decay <= 1", self.decay_every);
            return bad("train.decay", what);
        }
        Ok(())
    }

    /// Which ids have rows, and how long.
    fn check_rows(&self) -> Result<()> {
        let TrainConfig { min_occurrences, l2_ids, .. } = *self;
        if let Some(bytes) = self.sketch_bytes {
            let lacks = if bytes < 4096 {
                "expected at least 4096".to_owned()
            } else if min_occurrences <= 1 {
                format!(
                    "but train.min_occurrences = {min_occurrences} needs no count: leave it out"
                )
            } else if l2_ids > 0.0 {
                format!("but train.l2_ids = {l2_ids} needs the exact count: leave one of them out")
            } else {
                return self.check_eviction();
            };
            return bad("train.sketch_bytes", format!("{bytes}, {lacks}"));
        }
        self.check_eviction()
    }

    fn check_eviction(&self) -> Result<()> {
        let Some(EvictionConfig { days, lane_bytes, floor }) = self.eviction else {
            return Ok(());
        };
        if days == Some(0) {
            return bad("train.eviction.days", "0, expected at least 1".to_owned());
        }
        if let Some(bytes) = lane_bytes.filter(|bytes| *bytes < 40_960) {
            let what = format!("{bytes}, expected at least 40960");
            return bad("train.eviction.lane_bytes", what);
        }
        if !(floor > 0.0 && floor <= 1.0) {
            let what = format!("{floor}, expected 0 < floor <= 1");
            return bad("train.eviction.floor", what);
        }
        Ok(())
    }

    /// Negatives of batches.
    fn check_in_batch(&self, model: &ModelConfig) -> Result<()> {
        let TrainConfig { in_batch_negatives: negatives, in_batch_weight: weight, .. } = *self;
        if negatives > 0 && model.network.base != Base::PreRank {
            let what = format!(
                "{negatives}, but the network has no vectors of users and ads to score them with: set \
                 model.base = \"pre-rank\", or 0"
            );
            return bad("train.in_batch_negatives", what);
        }
        if !(weight > 0.0 && weight.is_finite()) {
            return bad("train.in_batch_weight", format!("{weight}, expected a positive number"));
        }
        Ok(())
    }

    /// Epochs, validation and checkpoints.
    fn check_length(&self, model: &NetworkSettings) -> Result<()> {
        if self.epochs == 0 {
            return bad("train.epochs", "0, expected at least 1".to_owned());
        }
        let tail = self.validation_tail;
        if let Err(what) = range::share(&tail) {
            return bad("train.validation_tail", what);
        }
        if tail > 0.0 && self.validation_parts > 0 {
            let what = format!(
                "{tail} beside train.validation_parts = {}: hold out users or the newest \
                                groups, not both",
                self.validation_parts
            );
            return bad("train.validation_tail", what);
        }
        match self.early_stop {
            Some(0) => {
                return bad("train.early_stop", "0 evaluations, expected at least 1".to_owned());
            }
            Some(_) if self.validation_parts == 0 && self.validation_tail == 0.0 => {
                let what = "needs samples held out of the training: set train.validation_parts or \
                            train.validation_tail";
                return bad("train.early_stop", what.to_owned());
            }
            _ => {}
        }
        if self.evaluations_per_epoch == 0 {
            return bad("train.evaluations_per_epoch", "0, expected at least 1".to_owned());
        }
        if self.max_steps == Some(0) {
            return bad("train.max_steps", "0, expected at least 1".to_owned());
        }
        if self.refit && self.early_stop.is_none() {
            let what = "needs a number of steps to be found: set train.early_stop";
            return bad("train.refit", what.to_owned());
        }
        let candidates = &self.candidates;
        if candidates.contains(&Candidate::Similarity) && model.similarity == Similarity::None {
            let what =
                "\"similarity\" is \"ids\" without a model.similarity: set one, or leave it out";
            return bad("train.candidates", what.to_owned());
        }
        if candidates.contains(&Candidate::Ids) && model.searches_pictures() {
            let what = "\"ids\" has no pictures to search by: set model.search.by = \"category\", or \
                        leave it out";
            return bad("train.candidates", what.to_owned());
        }
        if !candidates.is_empty() && !self.refit {
            let what = "the chosen one is trained on all samples: set train.refit = true";
            return bad("train.candidates", what.to_owned());
        }
        if let Some(at) =
            (1..candidates.len()).find(|&at| candidates[..at].contains(&candidates[at]))
        {
            let what = format!("{:?} stands there twice", candidates[at].as_str());
            return bad("train.candidates", what);
        }
        let errors = self.candidate_errors;
        if !(errors >= 0.0 && errors.is_finite()) {
            return bad("train.candidate_errors", format!("{errors}, expected at least 0"));
        }
        if self.keep_checkpoints == 0 {
            return bad("train.keep_checkpoints", "0, expected at least 1".to_owned());
        }
        Ok(())
    }
}

impl TrainConfig {
    /// The phases one by one, then all of them beside the epochs and the candidates.
    fn check_phases(&self, model: &ModelConfig) -> Result<()> {
        for (at, phase) in self.phases.iter().enumerate() {
            if let Err((key, what)) = self.check_phase(phase, model) {
                return bad(
                    &format!("train.phases[{at}].{key}"),
                    format!("phase {}: {what}", at + 1),
                );
            }
        }
        let sum = epochs(&self.phases);
        if !self.phases.is_empty() && sum != u64::from(self.epochs) {
            let what = format!(
                "{}, but the epochs of train.phases are {sum} in all: leave train.epochs out, or \
                 set it to their sum",
                self.epochs
            );
            return bad("train.epochs", what);
        }
        let towers = |of: &Candidate| matches!(of, Candidate::Ids | Candidate::Similarity);
        let only_towers = |phase: &PhaseConfig| phase.learns == [ModelPart::Images];
        if let Some(of) = self.candidates.iter().find(|of| towers(of))
            && !self.phases.is_empty()
            && self.phases.iter().all(only_towers)
        {
            let what = format!(
                "{:?} has no towers, and train.phases let nothing else learn: add a phase with \
                 \"ids\" or \"network\", or leave it out",
                of.as_str()
            );
            return bad("train.candidates", what);
        }
        Ok(())
    }

    /// A key of a phase and what is wrong with its value.
    fn check_phase(
        &self,
        phase: &PhaseConfig,
        model: &ModelConfig,
    ) -> std::result::Result<(), (&'static str, String)> {
        let PhaseConfig { epochs, learns, learning_rate, rows_learning_rate } = phase;
        if *epochs == 0 {
            return Err(("epochs", "0, expected at least 1".to_owned()));
        }
        if learns.is_empty() {
            let known = ModelPart::ALL.map(ModelPart::as_str);
            return Err(("learns", format!("[], expected at least one of {known:?}")));
        }
        if let Some(at) = (1..learns.len()).find(|&at| learns[..at].contains(&learns[at])) {
            return Err(("learns", format!("{:?} stands there twice", learns[at].as_str())));
        }
        if !learns.iter().any(|part| model.has(*part)) {
            let what = "[\"images\"], but the model has no towers that are trained (model.images, \
                        model.tower_weights): leave the phase out, or let something else learn";
            return Err(("learns", what.to_owned()));
        }
        let rates =
            [("learning_rate", *learning_rate), ("rows_learning_rate", *rows_learning_rate)];
        for (key, rate) in rates {
            if let Some(rate) = rate.filter(|rate| !(*rate > 0.0 && rate.is_finite())) {
                return Err((key, format!("{rate}, expected a positive number")));
            }
        }
        let (wd, rate) = (self.tower_weight_decay, learning_rate.unwrap_or(self.learning_rate));
        if wd * rate >= 1.0 {
            let what =
                format!("{rate}, expected, times train.tower_weight_decay = {wd}, less than 1");
            return Err(("learning_rate", what));
        }
        Ok(())
    }
}

impl ModelConfig {
    /// Whether there is something in `part` that can learn.
    fn has(&self, part: ModelPart) -> bool {
        let towers =
            self.network.images != ImageArm::None && self.tower_weights == TowerWeights::Trained;
        part != ModelPart::Images || towers
    }
}

impl Config {
    /// Leaves out the phases in which nothing of this model learns, which is another one than the
    /// phases were written for; where that is all of them, they stay, and are refused.
    pub(crate) fn leave_out_idle_phases(&mut self) {
        let Config { model, train, .. } = self;
        let learns = |phase: &PhaseConfig| phase.learns.iter().any(|part| model.has(*part));
        if train.phases.iter().any(learns) {
            train.phases.retain(learns);
            train.epochs = epochs(&train.phases).try_into().unwrap_or(u32::MAX);
        }
    }
}

impl ModelConfig {
    /// Widths, and keys that exclude one another.
    fn check(&self) -> Result<()> {
        if let Err((key, what)) = self.network.check() {
            return bad(&format!("model.{key}"), what);
        }
        if let Err(what) = range::widths(&self.tower) {
            return bad("model.tower", what);
        }
        if let Some(Err(what)) = self.pca.as_ref().map(range::width) {
            return bad("model.pca", what);
        }
        if let Some(projection) = &self.projection {
            if let Err(what) = range::width(&projection.components) {
                return bad("model.projection.components", what);
            }
            if let Some(pca) = self.pca {
                let what = format!("cannot stand beside model.pca = {pca}; set one of them");
                return bad("model.projection", what);
            }
        }
        let (tower, dim) = (&self.tower, self.network.embedding_dim);
        if tower.last() != Some(&dim) {
            let what = format!("{tower:?} ends in another width than model.embedding_dim = {dim}");
            return bad("model.tower", what);
        }
        Ok(())
    }
}

impl DataConfig {
    fn check_contents(&self) -> Result<()> {
        for (at, content) in self.contents.iter().enumerate() {
            let others = self.contents[..at].iter().map(|other| &other.name[..]);
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if content.name.is_empty() || !content.name.chars().all(plain) {
                let what = format!("{:?}, expected letters, digits, - and _", content.name);
                return bad("data.contents.name", what);
            }
            if others.chain(["image"]).any(|other| other == content.name) {
                return bad("data.contents.name", format!("{:?} is taken", content.name));
            }
        }
        Ok(())
    }
}
