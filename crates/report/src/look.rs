//! Page views that a model explains, and pictures near others, as people see them.

use std::path::Path;

use ams_bundle::{Model, PageView, Scratch};
use ams_data::catalogue::Catalogue;
use ams_data::dataset::Dataset;
use ams_data::{ImageKey, PictureName};
use ams_image::FeatureStore;
use ams_image::neighbors::{self, nearest};
use ams_train::Config;

use crate::document::{Candidate, Neighbor, Neighbors, Page, Sheet, Shown, Weights};
use crate::pictures::Pictures;

/// Candidates of a page view that are shown.
const CANDIDATES: usize = 3;

/// Behaviors of a page view that are shown: those that change a score most.
const BEHAVIORS: usize = 8;

/// Neighbors of a picture.
const NEIGHBORS: usize = 6;

/// What a model shows of itself.
#[derive(Default)]
pub(crate) struct Looked {
    pub pages: Vec<Page>,
    pub sheets: Vec<Sheet>,
    /// A sentence for each thing that is missing.
    pub notes: Vec<String>,
}

/// What is to be seen.
pub(crate) struct Wanted<'a> {
    /// Number of page views.
    pub pages: usize,
    /// The folder of pictures.
    pub images: Option<&'a Path>,
}

/// Has `model`, which was trained as in `config`, explain page views, and asks what is near their
/// best candidates.
///
/// # Errors
/// If the catalogue cannot be read.
pub(crate) fn look(
    model: &Model,
    dataset: &Dataset,
    config: &Config,
    wanted: &Wanted<'_>,
) -> Result<Looked, String> {
    let catalogue = Catalogue::open(dataset).map_err(|error| error.to_string())?;
    let mut eyes =
        Eyes { catalogue, pictures: Pictures::new(wanted.images.map(Path::to_path_buf)) };
    let mut looked = Looked::default();
    for sample in model.samples().iter().take(wanted.pages) {
        looked.pages.push(eyes.page(model, sample)?);
    }
    if looked.pages.is_empty() {
        looked.notes.push("The test has no page view with a history to explain.".to_owned());
    }
    if config.needs_images() {
        let folder = config.data.images.clone().unwrap_or(dataset.dir().join("images"));
        match eyes.sheets(model, &folder, &looked.pages) {
            Ok(sheets) => looked.sheets = sheets,
            Err(why) => looked.notes.push(format!("No neighbors of pictures are shown: {why}")),
        }
    }
    looked.notes.extend(eyes.notes(wanted.images.is_some()));
    Ok(looked)
}

struct Eyes {
    catalogue: Catalogue,
    pictures: Pictures,
}

impl Eyes {
    fn page(&mut self, model: &Model, sample: &PageView) -> Result<Page, String> {
        let mut asked = sample.clone();
        asked.options.top_k = Some(CANDIDATES);
        let explained = model.explain(&asked, &mut Scratch::default());
        let explained = explained.map_err(|error| error.to_string())?;
        let most = |behavior: &usize| {
            let raises = explained.candidates.iter().map(|it| it.raises[*behavior].abs());
            raises.fold(0.0_f32, f32::max)
        };
        let mut shown: Vec<usize> = (0..explained.behaviors.len()).collect();
        shown.sort_by(|a, b| most(b).total_cmp(&most(a)).then(a.cmp(b)));
        shown.truncate(BEHAVIORS);
        shown.sort_unstable();
        let of = |all: &[f32]| shown.iter().map(|&at| all[at]).collect::<Vec<f32>>();
        let candidates = explained.candidates.iter().map(|candidate| Candidate {
            shown: self.item(&candidate.item),
            ctr: candidate.ctr,
            ctr_without_history: candidate.ctr_without_history,
            raises: of(&candidate.raises),
            attention: candidate
                .attention
                .iter()
                .map(|it| Weights { over: it.over.clone(), weights: of(&it.weights) })
                .collect(),
        });
        let candidates = candidates.collect();
        Ok(Page {
            user: sample.user.id.as_ref().map(|id| id.0.clone()),
            candidates_in_all: sample.candidates.item.len(),
            behaviors_in_all: explained.behaviors.len(),
            behaviors: shown.iter().map(|&at| self.item(&explained.behaviors[at])).collect(),
            candidates,
        })
    }

    /// An item with its fields and its picture.
    fn item(&mut self, item: &str) -> Shown {
        let catalogue = &self.catalogue;
        let Some(row) = catalogue.find(item) else {
            return Shown { item: item.to_owned(), ..Shown::default() };
        };
        let fields: Vec<&str> =
            (0..catalogue.fields().len()).flat_map(|field| catalogue.values(field, row)).collect();
        let about = fields.join(", ");
        let picture = catalogue.image(row).map(str::to_owned);
        Shown {
            item: item.to_owned(),
            about,
            picture: picture.and_then(|name| self.pictures.address(&name)),
        }
    }

    /// What is near the best candidate of each page, by the encoder and by each tower.
    fn sheets(
        &mut self,
        model: &Model,
        folder: &Path,
        pages: &[Page],
    ) -> Result<Vec<Sheet>, String> {
        let store = FeatureStore::open(folder).map_err(|error| error.to_string())?;
        let names = neighbors::names(folder, &store).map_err(|error| error.to_string())?;
        let keys = neighbors::keys(&store);
        let towers = model.image_towers();
        let mut asked: Vec<ImageKey> = Vec::new();
        let mut sheets = Vec::new();
        for shown in pages.iter().filter_map(|page| page.candidates.first()).map(|it| &it.shown) {
            let row = self.catalogue.find(&shown.item);
            let picture = row.and_then(|row| self.catalogue.image(row));
            let key = picture.map(|name| store.key(PictureName::of(name)));
            let Some(key) = key.filter(|key| key.is_some() && !asked.contains(key)) else {
                continue;
            };
            asked.push(key);
            let mut by = |vector: &str, of: &Vectors<'_>| {
                let near = nearest(key, &keys, NEIGHBORS, of).into_iter();
                let near = near.map(|neighbors::Neighbor { key, cosine }| {
                    let item =
                        names.get(&key).cloned().unwrap_or_else(|| format!("{:016x}", key.0));
                    let picture = self.pictures.address(&item);
                    Neighbor { shown: Shown { item, picture, ..Shown::default() }, cosine }
                });
                Neighbors { vector: vector.to_owned(), nearest: near.collect() }
            };
            let mut all = vec![by("encoder", &|key, out| neighbors::feature(&store, key, out))];
            for (tower, name) in towers.iter().enumerate() {
                let name = format!("tower {name}");
                all.push(by(&name, &|key, out| embedding(model, tower, key, out)));
            }
            sheets.push(Sheet { shown: shown.clone(), by: all });
        }
        Ok(sheets)
    }

    /// What is missing of the pictures.
    fn notes(&self, has_folder: bool) -> Vec<String> {
        let mut notes = Vec::new();
        if self.catalogue.with_image() > 0 && !has_folder {
            notes.push("Pictures are shown with --images FOLDER, the folder that their names are relative to.".to_owned());
        }
        let Pictures { absent, left_out, .. } = self.pictures;
        if absent > 0 {
            notes.push(format!("{absent} pictures cannot be read in the folder of --images."));
        }
        if left_out > 0 {
            notes.push(format!("{left_out} pictures are left out: the page has no room for them."));
        }
        notes
    }
}

/// Overwrites its second argument with the vector of an image; whether there is one.
type Vectors<'a> = dyn Fn(ImageKey, &mut Vec<f32>) -> bool + Sync + 'a;

fn embedding(model: &Model, tower: usize, key: ImageKey, out: &mut Vec<f32>) -> bool {
    out.clear();
    let found = model.embedding(tower, key);
    out.extend(found.into_iter().flatten());
    found.is_some()
}
