//! What was compared on samples held out before a training on all of them.

use ams_train::ablate::Cells;
use ams_train::run::Choice;
use ams_train::settings::Criterion;

use crate::document::Block;
use crate::gather::Run;

/// A sentence and a table for each of `runs` that were chosen from several candidates.
pub(crate) fn choices(runs: &[Run]) -> Vec<Block> {
    let compared = runs.iter().filter_map(|run| {
        let choice = run.record.choice.as_ref()?;
        let several = choice.searched.len() > 1 || !choice.left_out.is_empty();
        several.then(|| blocks(run, choice))
    });
    compared.flatten().collect()
}

fn blocks(run: &Run, choice: &Choice) -> [Block; 2] {
    let (header, rows) = choice.table();
    [Block::Text(sentence(run, choice)), Block::Table(Cells { header, rows })]
}

/// What was chosen, by how much, and what could not be compared.
fn sentence(run: &Run, choice: &Choice) -> String {
    let train = &run.record.config.train;
    let metric = match train.early_stop_by {
        Criterion::Gauc => "GAUC",
        Criterion::Auc => "AUC",
        Criterion::Logloss => "log loss",
    };
    let chosen = choice.searched.get(choice.chosen);
    let name = chosen.map_or("-", |of| of.candidate.as_str());
    let mut text = match chosen.and_then(|of| of.gain) {
        Some(gain) => format!(
            "{}: {name} is better than the best model before it by {:.4} ± {:.4} of {metric}, so it is the one that \
             was trained on all samples.",
            run.name, gain.gain, gain.error
        ),
        None => format!("{}: no other model is better than {name} for sure.", run.name),
    };
    if !choice.left_out.is_empty() {
        let names: Vec<&str> = choice.left_out.iter().map(|of| of.as_str()).collect();
        text += &format!(" Without image features, {} could not be trained.", names.join(" and "));
    }
    text
}
