//! The module `ams._ams` of Python: the functions of the program, called without a shell.
//!
//! Knows Python's objects, Arrow's C interface, and the commands and models of the program as they
//! are. Does not know how anything is computed, and has no options of its own.
//!
//! In reading order: `error`, Python's exceptions; `table`, what comes from and goes to other
//! programs in Arrow; `pages`, rows of a table as page views; `model`, a bundle; `command`, the
//! commands. What people import is the Python beside it, in `ams/`.

#![warn(unreachable_pub)]

mod command;
mod error;
mod model;
mod pages;
mod table;

use pyo3::prelude::*;

/// The module `ams._ams`.
#[pymodule]
fn _ams(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("InputError", module.py().get_type::<error::InputError>())?;
    module.add("InternalError", module.py().get_type::<error::InternalError>())?;
    module.add_class::<model::Model>()?;
    module.add_class::<table::Table>()?;
    module.add_function(wrap_pyfunction!(command::main, module)?)?;
    module.add_function(wrap_pyfunction!(command::call, module)?)?;
    module.add_function(wrap_pyfunction!(table::write_parquet, module)?)?;
    module.add_function(wrap_pyfunction!(table::rows, module)?)
}
