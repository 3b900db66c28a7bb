//! A published model. Requests and answers are the JSON of the server and of `ams score`, so that
//! texts, times and errors mean the same everywhere; tables are Arrow.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ams_bundle::request::Text;
use ams_bundle::{PageView, Scored, Scratch, SimilarRequest, vectors};
use arrow_array::ffi_stream::ArrowArrayStreamReader;
use arrow_array::{ArrayRef, StringArray};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde::Serialize;
use serde_json::json;

use crate::error::{InternalError, input, refused};
use crate::pages::{Placed, Rows, Shape, Visit};
use crate::table::{self, Table, unreadable};

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
            "calibration": model.calibration(),
            "decision": model.decision(),
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
        let see = |visits: &[Visit], scratch: &mut Scratch, to: &mut Vec<f32>| {
            let pages = visits.iter().map(|visit| visit.iter().map(|placed| &placed.page));
            let scored = self.model.push_ctrs_of_visits(pages, scratch, to);
            scored.map_err(|wrong| {
                format!("row {}: {}", visits[wrong.visit][wrong.page].row, wrong.error)
            })
        };
        let mut rates: Vec<u8> = Vec::new();
        self.each_part(py, batches, Shape::Impressions, &see, &mut |ctrs| {
            rates.extend(ctrs.iter().flat_map(|rate| rate.to_ne_bytes()));
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
        let see = |visits: &[Visit], scratch: &mut Scratch, to: &mut Vec<OfUser>| {
            for Placed { row, page } in visits.iter().flatten() {
                let vector = vectors::of_user(&self.model, page, scratch);
                let vector = vector.map_err(|error| format!("row {row}: {error}"))?;
                to.push(OfUser {
                    user: page.user.id.as_ref().map(|Text(text)| text.clone()),
                    vector,
                });
            }
            Ok(())
        };
        let (mut users, mut values) = (Vec::new(), Vec::new());
        self.each_part(py, batches, Shape::Users, &see, &mut |part| {
            for OfUser { user, vector } in part {
                users.push(user);
                values.extend(vector);
            }
        })?;
        let users: ArrayRef = Arc::new(StringArray::from(users));
        let vectors = table::vectors(values, width);
        Table::new(vec![("user".to_owned(), users), ("vector".to_owned(), vectors)])
    }
}

/// The vector of a row's user.
struct OfUser {
    user: Option<String>,
    vector: Vec<f32>,
}

/// What a thread makes of the visits of some rows, with buffers that others had before.
type See<'s, T> = dyn Fn(&[Visit], &mut Scratch, &mut Vec<T>) -> Result<(), String> + Sync + 's;

impl Model {
    /// Shows `see` the visits of a table, part by part, on all cores, and `take` what it made of
    /// them, in the order of the rows. Python's lock is free meanwhile; a signal ends it. Threads
    /// live as long as some thousand rows: a process that was forked off has none to miss.
    fn each_part<T: Send>(
        &self,
        py: Python<'_>,
        batches: ArrowArrayStreamReader,
        shape: Shape,
        see: &See<'_, T>,
        take: &mut (dyn FnMut(Vec<T>) + Send),
    ) -> PyResult<()> {
        py.detach(|| {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let buffers = Mutex::new(Vec::new());
            let mut before = 0;
            for batch in batches {
                let batch = batch.map_err(unreadable)?;
                let rows = Rows::of(&batch, self.model.spec(), shape);
                let rows = rows.map_err(|what| input(format!("table: {what}")))?;
                // A batch may be smaller than a part: still, no core waits.
                let size = batch.num_rows().div_ceil(threads).clamp(TOGETHER, ROWS);
                let begins: Vec<usize> = (0..batch.num_rows()).step_by(size).collect();
                for round in begins.chunks(threads) {
                    Python::attach(|py| py.check_signals())?;
                    let part = |begin: usize| {
                        let end = batch.num_rows().min(begin + size);
                        part(&rows, begin..end, before, see, &buffers)
                    };
                    for made in all_at_once(round, &part) {
                        take(made.map_err(input)?);
                    }
                }
                before += batch.num_rows();
            }
            Ok(())
        })
    }
}

/// What `see` makes of some rows of a batch.
fn part<T>(
    rows: &Rows,
    range: Range<usize>,
    before: usize,
    see: &See<'_, T>,
    buffers: &Mutex<Vec<Scratch>>,
) -> Result<Vec<T>, String> {
    let (mut visits, mut made) = (Vec::new(), Vec::new());
    let mut scratch = buffers.lock().ok().and_then(|mut free| free.pop()).unwrap_or_default();
    for begin in range.clone().step_by(TOGETHER) {
        let read = rows.read(begin..range.end.min(begin + TOGETHER), before, &mut visits);
        // What is wrong with an earlier row is said first.
        see(&visits, &mut scratch, &mut made)?;
        read.map_err(|what| format!("table: {what}"))?;
        visits.clear();
    }
    if let Ok(mut free) = buffers.lock() {
        free.push(scratch);
    }
    Ok(made)
}

/// The results of `work` for all of `begins`, each on a thread of its own, in their order.
fn all_at_once<R: Send>(begins: &[usize], work: &(dyn Fn(usize) -> R + Sync)) -> Vec<R> {
    if let [begin] = begins {
        return vec![work(*begin)];
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            begins.iter().map(|&begin| scope.spawn(move || work(begin))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, R>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    })
}

/// Rows whose visits are in memory at once: more do not stay in a cache.
const TOGETHER: usize = 256;

/// Rows of a part: about a hundred milliseconds between two looks for signals.
const ROWS: usize = 8192;

/// Why items cannot be named.
const NAMELESS: &str = "the model: its bundle was published before bundles had the names of items";
