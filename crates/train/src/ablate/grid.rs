//! Which trainings an ablation compares: the paper's tables, as data.
//!
//! A row is a configuration with a few settings of its own, spelled as on the command line.

use serde::Serialize;

use crate::error::{Error, Result};

/// Trainings that are compared with each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AblationTable {
    /// Name on the command line.
    pub name: &'static str,
    /// Title of the table in reports.
    pub title: &'static str,
    /// The paper's table or figure, if it has one.
    pub paper: Option<&'static str>,
    /// Models; a row comes after those it refers to.
    pub rows: &'static [AblationRow],
}

/// A model, trained with every seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AblationRow {
    /// Name, unique in its table.
    pub name: &'static str,
    /// Settings of the row, `key=value` each.
    pub settings: &'static [&'static str],
    /// When it has a twin whose pictures carry no information about their items.
    pub twin: Twin,
    /// Names of the rows that it is compared with; the first is the one that matters.
    pub baselines: &'static [&'static str],
    /// The row whose weights it begins with, unless it begins at random.
    pub warm: Option<Warm>,
    /// The paper's GAUC and AUC of the row.
    pub paper: Figures,
}

/// When a row has a twin with shuffled images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Twin {
    /// It sees no image, or images are not its subject.
    Never,
    /// It has one with [`Twins::All`] alone.
    OnRequest,
    /// With [`Twins::Usual`] and [`Twins::All`].
    Usual,
}

/// Which rows get their twins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twins {
    /// No row has a twin.
    None,
    /// Rows of [`Twin::Usual`] have one.
    Usual,
    /// Every row that can have a twin has one.
    All,
}

/// Weights to begin with: those of another row's training with the same seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Warm {
    /// Name of that row, whose model saw the same days.
    pub from: &'static str,
    /// Parts of the model, as `train.warm_start.parts` spells them.
    pub parts: &'static str,
}

/// Measurements of the paper; `None` where it has none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// GAUC of the paper's test day.
    pub gauc: Option<f64>,
    /// AUC of the paper's test day.
    pub auc: Option<f64>,
}

impl Figures {
    /// Figures of a row that the paper does not have.
    pub(crate) const NONE: Figures = Figures { gauc: None, auc: None };

    const fn gauc(gauc: f64) -> Figures {
        Figures { gauc: Some(gauc), auc: None }
    }

    const fn both(gauc: f64, auc: f64) -> Figures {
        Figures { gauc: Some(gauc), auc: Some(auc) }
    }

    /// The difference to `other`, rounded to the paper's four digits.
    pub(crate) fn minus(self, other: Figures) -> Figures {
        let minus = |a: Option<f64>, b: Option<f64>| Some(((a? - b?) * 1e4).round() / 1e4);
        Figures { gauc: minus(self.gauc, other.gauc), auc: minus(self.auc, other.auc) }
    }
}

/// A row that is compared with nothing.
const fn row(name: &'static str, settings: &'static [&'static str]) -> AblationRow {
    AblationRow {
        name,
        settings,
        twin: Twin::Never,
        baselines: &[],
        warm: None,
        paper: Figures::NONE,
    }
}

impl AblationRow {
    const fn paper(self, paper: Figures) -> AblationRow {
        AblationRow { paper, ..self }
    }

    const fn against(self, baselines: &'static [&'static str]) -> AblationRow {
        AblationRow { baselines, ..self }
    }

    const fn twin(self, twin: Twin) -> AblationRow {
        AblationRow { twin, ..self }
    }

    const fn warm(self, from: &'static str, parts: &'static str) -> AblationRow {
        AblationRow { warm: Some(Warm { from, parts }), ..self }
    }

    /// Whether it has its twin.
    pub(crate) fn has_twin(&self, twins: Twins) -> bool {
        match self.twin {
            Twin::Never => false,
            Twin::OnRequest => twins == Twins::All,
            Twin::Usual => twins != Twins::None,
        }
    }
}

const ID_ONLY: &str = "ID-only";
const BASELINE: &[&str] = &[ID_ONLY];
const NO_IMAGES: &[&str] = &["model.images=none"];
const JOINT_IMAGES: &[&str] = &["model.images=joint"];

const PAPER_ID_ONLY: Figures = Figures::both(0.6205, 0.6758);
const PAPER_JOINT: Figures = Figures::both(0.6260, 0.6795);

const ARMS: AblationTable = AblationTable {
    name: "arms",
    title: "Which images",
    paper: Some("Table 3"),
    rows: &[
        row(ID_ONLY, NO_IMAGES).paper(PAPER_ID_ONLY),
        row("ad image", &["model.images=ad"])
            .against(BASELINE)
            .twin(Twin::Usual)
            .paper(Figures::both(0.6235, 0.6772)),
        row("behavior images", &["model.images=behavior"])
            .against(BASELINE)
            .twin(Twin::Usual)
            .paper(Figures::both(0.6219, 0.6768)),
        row("joint", JOINT_IMAGES).against(BASELINE).twin(Twin::Usual).paper(PAPER_JOINT),
    ],
};

const AGGREGATORS: AblationTable = AblationTable {
    name: "aggregators",
    title: "How behavior images become one vector",
    paper: Some("Table 4"),
    rows: &[
        row(ID_ONLY, NO_IMAGES).paper(Figures::gauc(0.6205)),
        row("concatenate", &["model.images=joint", "model.aggregator=concatenate"])
            .against(BASELINE)
            .twin(Twin::OnRequest)
            .paper(Figures::gauc(0.6232)),
        row("max", &["model.images=joint", "model.aggregator=max"])
            .against(BASELINE)
            .twin(Twin::OnRequest)
            .paper(Figures::gauc(0.6236)),
        row("sum", &["model.images=joint", "model.aggregator=sum"])
            .against(BASELINE)
            .twin(Twin::OnRequest)
            .paper(Figures::gauc(0.6248)),
        row("attentive", &["model.images=joint", "model.aggregator=attentive"])
            .against(BASELINE)
            .twin(Twin::OnRequest)
            .paper(Figures::gauc(0.6257)),
        row(
            "multi-query attentive",
            &["model.images=joint", "model.aggregator=multi-query-attentive"],
        )
        .against(BASELINE)
        .twin(Twin::OnRequest)
        .paper(Figures::gauc(0.6260)),
    ],
};

const BASE: AblationTable = AblationTable {
    name: "base",
    title: "What images add to other base networks",
    paper: Some("Fig. 5"),
    rows: &[
        row(
            "logistic regression, ID-only",
            &["model.base=logistic-regression", "model.images=none"],
        )
        .paper(Figures::gauc(0.6064)),
        row(
            "logistic regression, joint",
            &["model.base=logistic-regression", "model.images=joint"],
        )
        .against(&["logistic regression, ID-only"])
        .twin(Twin::OnRequest)
        .paper(Figures::gauc(0.6073)),
        row("MLP, ID-only", &["model.base=mlp", "model.images=none"]).paper(Figures::gauc(0.6205)),
        row("MLP, joint", &["model.base=mlp", "model.images=joint"])
            .against(&["MLP, ID-only"])
            .twin(Twin::OnRequest)
            .paper(Figures::gauc(0.6260)),
        row("DIN, ID-only", &["model.base=din", "model.images=none"]).paper(Figures::gauc(0.6234)),
        row("DIN, joint", &["model.base=din", "model.images=joint"])
            .against(&["DIN, ID-only"])
            .twin(Twin::OnRequest)
            .paper(Figures::gauc(0.6285)),
    ],
};

/// A warm row begins with a model of the same days; the paper's begins with that of the day before.
/// Its first baseline is as warm as itself; the paper's headline, +.0078, is of warm against cold,
/// the second one.
const WARM_UP: AblationTable = AblationTable {
    name: "warm-up",
    title: "Which weights of an earlier model of the same days to begin with",
    paper: Some("Table 5"),
    rows: &[
        row(ID_ONLY, NO_IMAGES).paper(PAPER_ID_ONLY),
        row("ID-only, all but ids", NO_IMAGES).warm(ID_ONLY, "all-but-ids").against(BASELINE),
        row("ID-only, full", NO_IMAGES).warm(ID_ONLY, "all").against(BASELINE),
        row("joint", JOINT_IMAGES).against(BASELINE).paper(PAPER_JOINT),
        row("joint, all but ids", JOINT_IMAGES)
            .warm("joint", "all-but-ids")
            .against(&["ID-only, all but ids", ID_ONLY, "joint"])
            .paper(Figures::both(0.6283, 0.6814)),
        row("joint, full", JOINT_IMAGES)
            .warm("joint", "all")
            .against(&["ID-only, full", ID_ONLY, "joint"])
            .paper(Figures::gauc(0.6230)),
    ],
};

const PRE_RANK: AblationTable = AblationTable {
    name: "pre-rank",
    title: "What images add to the pre-rank network",
    paper: Some("Table 8"),
    rows: &[
        row(ID_ONLY, &["model.base=pre-rank", "model.aggregator=sum", "model.images=none"])
            .paper(Figures::both(0.6165, 0.6730)),
        row("joint", &["model.base=pre-rank", "model.aggregator=sum", "model.images=joint"])
            .against(BASELINE)
            .twin(Twin::OnRequest)
            .paper(Figures::both(0.6225, 0.6771)),
    ],
};

const PAPER: &str = "preset paper";

/// The preset's base network and optimizer without its images.
const SMALL_ID_ONLY: &str = "ID-only by preset small";

const SMALL: AblationTable = AblationTable {
    name: "small",
    title: "What joint training buys on small data",
    paper: None,
    rows: &[
        row(ID_ONLY, NO_IMAGES),
        row(PAPER, JOINT_IMAGES).against(BASELINE).twin(Twin::Usual),
        row(SMALL_ID_ONLY, &["model.preset=small", "model.images=none", "model.similarity=none"])
            .against(BASELINE),
        row("frozen random towers", &["model.images=joint", "model.tower_weights=random"])
            .against(BASELINE)
            .twin(Twin::Usual),
        row("frozen PCA", &["model.images=joint", "model.tower_weights=pca", "model.tower=[12]"])
            .against(BASELINE)
            .twin(Twin::Usual),
        row("ID-only with cosine similarity", &["model.images=none", "model.similarity=cosine"])
            .against(BASELINE)
            .twin(Twin::Usual),
        row(
            "ID-only with similarity histogram",
            &["model.images=none", "model.similarity=histogram"],
        )
        .against(BASELINE)
        .twin(Twin::Usual),
        row("preset small without towers", &["model.preset=small", "model.images=none"])
            .against(&[ID_ONLY, SMALL_ID_ONLY])
            .twin(Twin::Usual),
        row("preset small", &["model.preset=small"])
            .against(&[ID_ONLY, PAPER, SMALL_ID_ONLY])
            .twin(Twin::Usual),
    ],
};

const PLAIN: &str = "preset small";
const HALF: &str = "model.projection={ components = 64 }";
/// Any key of `[align]` asks for an alignment; this is its default.
const ALIGNED: &str = "align.width=64";

const ALIGN: AblationTable = AblationTable {
    name: "align",
    title: "What alignment buys",
    paper: None,
    rows: &[
        row(SMALL_ID_ONLY, &["model.preset=small", "model.images=none", "model.similarity=none"]),
        row(PLAIN, &["model.preset=small"]).against(&[SMALL_ID_ONLY]).twin(Twin::OnRequest),
        row("half-whitened", &["model.preset=small", HALF])
            .against(&[SMALL_ID_ONLY, PLAIN])
            .twin(Twin::Usual),
        row("aligned", &["model.preset=small", ALIGNED])
            .against(&[SMALL_ID_ONLY, PLAIN, "half-whitened"])
            .twin(Twin::Usual),
        row("half-whitened, without towers", &["model.preset=small", "model.images=none", HALF])
            .against(&[SMALL_ID_ONLY])
            .twin(Twin::Usual),
        row("aligned, without towers", &["model.preset=small", "model.images=none", ALIGNED])
            .against(&[SMALL_ID_ONLY, "half-whitened, without towers"])
            .twin(Twin::Usual),
    ],
};

const SIMILARITY: AblationTable = AblationTable {
    name: "similarity",
    title: "Cosines of which vectors, summed up how",
    paper: None,
    rows: &[
        row(SMALL_ID_ONLY, &["model.preset=small", "model.images=none", "model.similarity=none"]),
        row(
            "cosine of components",
            &["model.preset=small", "model.images=none", "model.similarity=cosine"],
        )
        .against(&[SMALL_ID_ONLY])
        .twin(Twin::OnRequest),
        row("histogram of components", &["model.preset=small", "model.images=none"])
            .against(&[SMALL_ID_ONLY])
            .twin(Twin::OnRequest),
        row(
            "cosine, half-whitened",
            &["model.preset=small", "model.images=none", "model.similarity=cosine", HALF],
        )
        .against(&[SMALL_ID_ONLY])
        .twin(Twin::OnRequest),
        row("histogram, half-whitened", &["model.preset=small", "model.images=none", HALF])
            .against(&[SMALL_ID_ONLY])
            .twin(Twin::OnRequest),
        row(
            "cosine, aligned",
            &["model.preset=small", "model.images=none", "model.similarity=cosine", ALIGNED],
        )
        .against(&[SMALL_ID_ONLY])
        .twin(Twin::OnRequest),
        row("histogram, aligned", &["model.preset=small", "model.images=none", ALIGNED])
            .against(&[SMALL_ID_ONLY])
            .twin(Twin::OnRequest),
    ],
};

/// The preset with its schedule and no choice: ids alone.
const RECOMMENDED_IDS: &str = "ids alone";

const RECOMMENDED: AblationTable = AblationTable {
    name: "recommended",
    title: "What the preset `recommended` chooses, and what it could have chosen",
    paper: None,
    rows: &[
        row(RECOMMENDED_IDS, &["model.preset=recommended", r#"train.candidates=["ids"]"#]),
        row("preset small", &["model.preset=small"]).against(&[RECOMMENDED_IDS]),
        row(
            "similarity alone",
            &["model.preset=recommended", r#"train.candidates=["similarity"]"#],
        )
        .against(&[RECOMMENDED_IDS])
        .twin(Twin::OnRequest),
        row("with towers", &["model.preset=recommended", r#"train.candidates=["full"]"#])
            .against(&[RECOMMENDED_IDS])
            .twin(Twin::OnRequest),
        row("preset recommended", &["model.preset=recommended"])
            .against(&[RECOMMENDED_IDS, "preset small"])
            .twin(Twin::Usual),
    ],
};

/// Every table, in the order of reports.
pub(crate) const TABLES: [AblationTable; 9] =
    [ARMS, AGGREGATORS, BASE, WARM_UP, PRE_RANK, SMALL, ALIGN, SIMILARITY, RECOMMENDED];

/// The tables called `names`, in the order of [`TABLES`] and each once; all if there is no name.
///
/// # Errors
/// If there is none of a name.
pub(crate) fn select(names: &[String]) -> Result<Vec<AblationTable>> {
    let known: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(&&name[..])) {
        let what = format!("there is no table {name:?}; there are {}", known.join(", "));
        return Err(Error::Config { key: "tables".into(), what });
    }
    let wanted =
        |table: &AblationTable| names.is_empty() || names.iter().any(|name| name == table.name);
    Ok(TABLES.into_iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_refer_to_rows_before_them() {
        for table in TABLES {
            for (at, row) in table.rows.iter().enumerate() {
                let before = |name: &&str| table.rows[..at].iter().any(|row| row.name == *name);
                assert!(!before(&row.name), "{} is in {} twice", row.name, table.name);
                let from = row.warm.map(|warm| warm.from);
                for name in row.baselines.iter().chain(&from) {
                    assert!(before(name), "{}: {} refers to {name}", table.name, row.name);
                }
                let whole = |setting: &&str| setting.split_once('=').is_some();
                assert!(row.settings.iter().all(whole), "{:?}", row.settings);
            }
        }
    }

    #[test]
    fn tables_by_name() {
        let names = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let selected = select(&names(&["base", "arms", "base"])).unwrap();
        let selected: Vec<&str> = selected.iter().map(|table| table.name).collect();
        assert_eq!(selected, ["arms", "base"]);
        assert_eq!(select(&[]).unwrap().len(), TABLES.len());
        let error = select(&names(&["arm"])).unwrap_err().to_string();
        let want = "tables: there is no table \"arm\"; there are arms, aggregators, base, warm-up, \
                    pre-rank, small, align, similarity, recommended";
        assert_eq!(error, want);
    }

    #[test]
    fn figures_have_four_digits() {
        let difference = PAPER_JOINT.minus(PAPER_ID_ONLY);
        assert_eq!(difference, Figures::both(0.0055, 0.0037));
        assert_eq!(PAPER_JOINT.minus(Figures::gauc(0.6)), Figures::gauc(0.026));
    }
}
