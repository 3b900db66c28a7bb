//! A published model. Requests and answers are the JSON of the server and of `ams score`, so that
//! texts, times and errors mean the same everywhere; tables are Arrow.

use std::path::PathBuf;
use std::sync::Arc;

use ams_bundle::request::Text;
use ams_bundle::{PageView, Scored, Scratch, SimilarRequest, vectors};
use arrow_array::ffi_stream::ArrowArrayStreamReader;
use arrow_array::{ArrayRef, StringArray};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde::Serialize;
use serde_json::json;

use crate::error::{InternalError, input, refused};
use crate::pages::{Pages, Placed, Shape};
use crate::table::{self, Table};

/// A bundle in memory. Threads may use it together.
#[pyclass(frozen, module = "ams")]
pub(crate) struct Model {
    model: ams_bundle::Model,
}

fn json(answer: &impl Serialize) -> PyResult<String> {
    serde_json::to_string(answer).map_err(|error| InternalError::new_err(error.to_string()))
}

#[pymethods]
impl Model {
    /// Opens a bundle: the folder of a version, or of a model for its newest version.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Model> {
        py.detach(|| {
            let here = ams_cli::version_here(&path).map_err(refused)?;
            Ok(Model { model: ams_bundle::Model::open(&here).map_err(input)? })
        })
    }

    /// Ranks the candidates of a page view.
    fn score(&self, py: Python<'_>, page: &str) -> PyResult<String> {
        py.detach(|| {
            let page = PageView::parse(page.as_bytes()).map_err(input)?;
            let ranked = self.model.score(&page).map_err(input)?;
            json(&Scored { model: self.model.name(), version: self.model.version(), ranked })
        })
    }

    /// What drew the scores of the best candidates of a page view.
    fn explain(&self, py: Python<'_>, page: &str) -> PyResult<String> {
        py.detach(|| {
            let page = PageView::parse(page.as_bytes()).map_err(input)?;
            json(&self.model.explain(&page, &mut Scratch::default()).map_err(input)?)
        })
    }

    /// Items whose pictures are like one.
    fn similar(&self, py: Python<'_>, request: &str) -> PyResult<String> {
        py.detach(|| {
            let request = SimilarRequest::parse(request.as_bytes()).map_err(input)?;
            json(&self.model.similar(&request).map_err(input)?)
        })
    }

    /// Name, version, hash and description.
    fn card(&self) -> PyResult<String> {
        let model = &self.model;
        json(&json!({
            "name": model.name(),
            "version": model.version(),
            "hash": model.hash(),
            "path": model.path(),
            "deltas": model.deltas(),
            "image_towers": model.image_towers(),
            "meta": model.meta(),
        }))
    }

    /// The bundle's example requests.
    fn samples(&self) -> PyResult<String> {
        json(&self.model.samples())
    }

    /// Predicted click-through rates of the impressions of a table, as the bytes of floats.
    fn predict<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let batches = table::stream(table)?;
        let (mut rates, mut ctrs, mut scratch) = (Vec::new(), Vec::new(), Scratch::default());
        self.each_page(py, batches, Shape::Impressions, &mut |page| {
            self.model.ctrs(&page, &mut scratch, &mut ctrs)?;
            rates.extend(ctrs.iter().flat_map(|rate| rate.to_ne_bytes()));
            Ok(())
        })?;
        Ok(PyBytes::new(py, &rates))
    }

    /// The embeddings of the items' pictures by a tower, the model's first unless named; items
    /// whose picture the model does not know are left out.
    #[pyo3(signature = (tower=None))]
    fn image_vectors(&self, py: Python<'_>, tower: Option<&str>) -> PyResult<Table> {
        py.detach(|| {
            let towers = self.model.image_towers();
            let at = match tower {
                None if towers.is_empty() => {
                    return Err(input(
                        "the model: it has no image tower, so no image has a vector",
                    ));
                }
                None => 0,
                Some(name) => towers.iter().position(|tower| tower == name).ok_or_else(|| {
                    input(format!("tower: no tower {name:?}; the model has {}", towers.join(", ")))
                })?,
            };
            let (mut names, mut values, mut width) = (Vec::new(), Vec::new(), 0);
            let items = self.model.items();
            for (_, item) in items.all() {
                let key = self.model.image(items.picture(item));
                let Some(vector) = self.model.embedding(at, key) else { continue };
                names.push(items.name(item).ok_or_else(|| input(NAMELESS))?.to_owned());
                values.extend_from_slice(vector);
                width = vector.len();
            }
            let names: ArrayRef = Arc::new(StringArray::from(names));
            let vectors = table::vectors(values, width);
            Table::new(vec![("item".to_owned(), names), ("vector".to_owned(), vectors)])
        })
    }

    /// The vectors of all known items, of a pre-rank network.
    fn item_vectors(&self, py: Python<'_>) -> PyResult<Table> {
        py.detach(|| {
            let width = vectors::width(&self.model).map_err(input)?;
            let items = self.model.items();
            let name = |item| items.name(item).map(str::to_owned).ok_or_else(|| input(NAMELESS));
            let names: Vec<String> =
                items.all().map(|(_, item)| name(item)).collect::<PyResult<_>>()?;
            let values = vectors::of_items(&self.model, &names).map_err(input)?;
            let names: ArrayRef = Arc::new(StringArray::from(names));
            let vectors = table::vectors(values, width);
            Table::new(vec![("item".to_owned(), names), ("vector".to_owned(), vectors)])
        })
    }

    /// The vectors of the users of a table's rows, of a pre-rank network.
    fn user_vectors(&self, py: Python<'_>, table: &Bound<'_, PyAny>) -> PyResult<Table> {
        let batches = table::stream(table)?;
        let width = vectors::width(&self.model).map_err(input)?;
        let (mut users, mut values, mut scratch) = (Vec::new(), Vec::new(), Scratch::default());
        self.each_page(py, batches, Shape::Users, &mut |page| {
            values.extend(vectors::of_user(&self.model, &page, &mut scratch)?);
            users.push(page.user.id.map(|Text(text)| text));
            Ok(())
        })?;
        let users: ArrayRef = Arc::new(StringArray::from(users));
        let vectors = table::vectors(values, width);
        Table::new(vec![("user".to_owned(), users), ("vector".to_owned(), vectors)])
    }
}

impl Model {
    /// Shows `see` the page views of a table, without Python's lock; a signal ends it.
    fn each_page(
        &self,
        py: Python<'_>,
        batches: ArrowArrayStreamReader,
        shape: Shape,
        see: &mut (dyn FnMut(PageView) -> ams_bundle::Result<()> + Send),
    ) -> PyResult<()> {
        py.detach(|| {
            for (number, page) in Pages::new(batches, self.model.spec(), shape).enumerate() {
                if number % PAGES == 0 {
                    Python::attach(|py| py.check_signals())?;
                }
                let Placed { place, page } = page?;
                see(page).map_err(|error| input(format!("{place}: {error}")))?;
            }
            Ok(())
        })
    }
}

/// Page views between two looks for signals: some milliseconds.
const PAGES: usize = 256;

/// Why items cannot be named.
const NAMELESS: &str = "the model: its bundle was published before bundles had the names of items";
