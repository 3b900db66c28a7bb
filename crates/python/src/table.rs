//! Tables of other programs, read and given by Arrow's C stream interface: no value is copied in
//! Python.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::ffi_stream::{ArrowArrayStreamReader, FFI_ArrowArrayStream};
use arrow_array::{
    ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, Float64Array, Int64Array,
    RecordBatch, RecordBatchIterator, RecordBatchReader, StringArray,
};
use arrow_pyarrow::FromPyArrow;
use arrow_schema::{ArrowError, DataType, Field, SchemaRef};
use parquet::arrow::ArrowWriter;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use serde_json::Value;

use crate::error::{InternalError, input};

/// The batches of a table of Python: anything with `__arrow_c_stream__`.
pub(crate) fn stream(table: &Bound<'_, PyAny>) -> PyResult<ArrowArrayStreamReader> {
    if !table.hasattr("__arrow_c_stream__")? {
        return Err(input(format!(
            "a {} has no __arrow_c_stream__; expected a table of pyarrow, pandas 2.2 or later, Polars, DuckDB or the like",
            table.get_type().name()?
        )));
    }
    ArrowArrayStreamReader::from_pyarrow_bound(table)
        .map_err(|error| input(format!("the table cannot be read: {}", error.value(table.py()))))
}

/// What went wrong while a table was read.
pub(crate) fn unreadable(error: ArrowError) -> PyErr {
    input(format!("the table cannot be read: {error}"))
}

/// Writes a table to a Parquet file; how many rows it has.
#[pyfunction]
pub(crate) fn write_parquet(
    py: Python<'_>,
    table: &Bound<'_, PyAny>,
    path: PathBuf,
) -> PyResult<usize> {
    let batches = stream(table)?;
    py.detach(|| {
        let failed = |error: &dyn std::fmt::Display| input(format!("{}: {error}", path.display()));
        let file = File::create(&path).map_err(|error| failed(&error))?;
        let mut writer = ArrowWriter::try_new(file, batches.schema(), None).map_err(|error| {
            input(format!("the table has a type that Parquet has not: {error}"))
        })?;
        let mut rows = 0;
        for batch in batches {
            let batch = batch.map_err(unreadable)?;
            rows += batch.num_rows();
            writer.write(&batch).map_err(|error| failed(&error))?;
        }
        writer.close().map_err(|error| failed(&error))?;
        Ok(rows)
    })
}

/// A table of one batch, which other programs read by `__arrow_c_stream__`.
#[pyclass(frozen, module = "ams")]
pub(crate) struct Table {
    batch: RecordBatch,
}

#[pymethods]
impl Table {
    /// Names of the columns.
    #[getter]
    fn column_names(&self) -> Vec<String> {
        self.batch.schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    /// How many rows there are.
    fn __len__(&self) -> usize {
        self.batch.num_rows()
    }

    fn __repr__(&self) -> String {
        let schema = self.batch.schema();
        let columns = schema.fields().iter();
        let columns: Vec<String> =
            columns.map(|field| format!("{}: {}", field.name(), field.data_type())).collect();
        format!("<ams.Table of {} rows: {}>", self.batch.num_rows(), columns.join(", "))
    }

    /// The stream of Arrow's C interface. Whoever asks for another schema casts it.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let _ = requested_schema;
        let schema: SchemaRef = self.batch.schema();
        let batches = RecordBatchIterator::new([Ok(self.batch.clone())], schema);
        let stream = FFI_ArrowArrayStream::new(Box::new(batches));
        PyCapsule::new_with_value(py, stream, c"arrow_array_stream")
    }
}

impl Table {
    pub(crate) fn new(columns: Vec<(String, ArrayRef)>) -> PyResult<Table> {
        let batch = RecordBatch::try_from_iter(columns);
        let batch = batch.map_err(|error| InternalError::new_err(error.to_string()))?;
        Ok(Table { batch })
    }
}

/// Vectors of `width` numbers, end to end, as a column.
pub(crate) fn vectors(values: Vec<f32>, width: usize) -> ArrayRef {
    let field = Arc::new(Field::new_list_field(DataType::Float32, false));
    let width = i32::try_from(width).expect("a checked spec has sane widths");
    Arc::new(FixedSizeListArray::new(field, width, Arc::new(Float32Array::from(values)), None))
}

/// A table of rows, each a JSON object: objects within become columns `outer.inner`; what a row
/// lacks is null. Lists are left out.
#[pyfunction]
pub(crate) fn rows(objects: Vec<String>) -> PyResult<Table> {
    let mut columns: Vec<(String, Vec<Value>)> = Vec::new();
    for (row, object) in objects.iter().enumerate() {
        let object: Value = serde_json::from_str(object)
            .map_err(|error| input(format!("line {}: {error}", row + 1)))?;
        put(&mut columns, "", &object, row);
    }
    let count = objects.len();
    let column = |(name, mut values): (String, Vec<Value>)| {
        values.resize(count, Value::Null);
        (name, typed(&values))
    };
    Table::new(columns.into_iter().map(column).collect())
}

/// Puts the values of an object into columns at `row`.
fn put(columns: &mut Vec<(String, Vec<Value>)>, name: &str, value: &Value, row: usize) {
    match value {
        Value::Array(_) => {}
        Value::Object(object) => {
            for (key, value) in object {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                put(columns, &name, value, row);
            }
        }
        value => {
            let known = columns.iter().position(|(known, _)| known == name);
            let at = known.unwrap_or_else(|| {
                columns.push((name.to_owned(), Vec::new()));
                columns.len() - 1
            });
            columns[at].1.resize(row, Value::Null);
            columns[at].1.push(value.clone());
        }
    }
}

/// The narrowest type that holds all values.
fn typed(values: &[Value]) -> ArrayRef {
    let all = |is: fn(&Value) -> bool| values.iter().all(|value| value.is_null() || is(value));
    if all(Value::is_i64) {
        Arc::new(values.iter().map(Value::as_i64).collect::<Int64Array>())
    } else if all(Value::is_number) {
        Arc::new(values.iter().map(Value::as_f64).collect::<Float64Array>())
    } else if all(Value::is_boolean) {
        Arc::new(values.iter().map(Value::as_bool).collect::<BooleanArray>())
    } else {
        let text = |value: &Value| match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        Arc::new(values.iter().map(text).collect::<StringArray>())
    }
}
