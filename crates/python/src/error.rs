//! The program's errors as exceptions, with the same words.

use ams_cli::Refusal;
use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError, PyValueError};
use pyo3::{PyErr, create_exception};

create_exception!(
    ams,
    InputError,
    PyValueError,
    "Something outside is not as it has to be: what the program says before it ends with code 1."
);
create_exception!(
    ams,
    InternalError,
    PyRuntimeError,
    "A defect of ams: what the program says before it ends with code 2."
);

/// An error of the world.
pub(crate) fn input(what: impl ToString) -> PyErr {
    InputError::new_err(what.to_string())
}

/// What a command ended with.
pub(crate) fn refused(refusal: Refusal) -> PyErr {
    match refusal {
        Refusal::User(words) => InputError::new_err(words),
        Refusal::Internal(words) => InternalError::new_err(words),
        Refusal::Interrupted => PyKeyboardInterrupt::new_err(()),
    }
}
