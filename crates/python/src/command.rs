//! The commands of the program.
//!
//! A command runs in a thread of its own, without Python's lock. The thread that called waits and
//! looks for signals, so that Ctrl-C asks the command to stop: it saves what it has, and then
//! `KeyboardInterrupt` is raised.

use std::ffi::OsString;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, Builder};
use std::time::Duration;

use ams_cli::{Caller, OnStep};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::{InternalError, input, refused};

/// How long a signal may wait.
const PATIENCE: Duration = Duration::from_millis(50);

/// Stack of the thread of a command: that of a program's main thread.
const STACK: usize = 8 << 20;

/// The program itself: runs `arguments`, the program's name first, prints, and gives its exit code.
#[pyfunction]
pub(crate) fn main(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| ams_cli::main(arguments))
}

/// Runs a command; its report, a JSON object, and the words along the way.
#[pyfunction]
#[pyo3(signature = (arguments, on_step=None))]
pub(crate) fn call(
    py: Python<'_>,
    arguments: Vec<OsString>,
    on_step: Option<Py<PyAny>>,
) -> PyResult<(String, String)> {
    let owner = owner();
    if owner != process::id() {
        return Err(input(format!(
            "this process was forked from process {owner} after ams had run a command there, and its threads are \
             not in it; start processes with the method \"spawn\", or run the first command after the fork"
        )));
    }
    let raised = Arc::new(Mutex::new(None));
    let caller = Arc::new_cyclic(|caller: &Weak<Caller>| {
        Caller::new(on_step.map(|function| watched(function, caller.clone(), Arc::clone(&raised))))
    });
    let done = Arc::new(Mutex::new(None));
    let (running, outcome, waiting) = (Arc::clone(&caller), Arc::clone(&done), thread::current());
    let command = move || {
        let result = ams_cli::call(&arguments, &running);
        *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        waiting.unpark();
    };
    let thread = Builder::new().name("ams".to_owned()).stack_size(STACK).spawn(command);
    let thread = thread.map_err(|error| input(format!("no thread for the command: {error}")))?;
    while !thread.is_finished() && done.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
        py.detach(|| thread::park_timeout(PATIENCE));
        if let Err(signal) = py.check_signals() {
            raised.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(signal);
            caller.stop.store(true, Ordering::Relaxed);
        }
    }
    let ended = py.detach(|| thread.join()).is_ok();
    if let Some(error) = raised.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(error);
    }
    match done.lock().unwrap_or_else(PoisonError::into_inner).take().filter(|_| ended) {
        Some(Ok(())) => Ok((caller.report(), caller.said())),
        Some(Err(refusal)) => Err(refused(refusal)),
        None => Err(InternalError::new_err("the thread of the command ended without a result")),
    }
}

/// The process that runs commands: the first that asks.
fn owner() -> u32 {
    static OWNER: AtomicU32 = AtomicU32::new(0);
    let here = process::id();
    OWNER
        .compare_exchange(0, here, Ordering::Relaxed, Ordering::Relaxed)
        .map_or_else(|it| it, |_| here)
}

/// A function of Python that sees steps. If it raises, the training stops with a checkpoint.
fn watched(function: Py<PyAny>, caller: Weak<Caller>, raised: Arc<Mutex<Option<PyErr>>>) -> OnStep {
    Box::new(move |report, steps| {
        let told = Python::attach(|py| {
            let step = PyDict::new(py);
            step.set_item("step", report.cursor.step)?;
            step.set_item("steps", steps)?;
            step.set_item("epoch", report.cursor.epoch)?;
            step.set_item("impressions", report.impressions)?;
            step.set_item("loss", report.loss)?;
            step.set_item("learning_rate", report.learning_rate)?;
            function.call1(py, (step,)).map(drop)
        });
        if let Err(error) = told {
            raised.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            if let Some(caller) = caller.upgrade() {
                caller.stop.store(true, Ordering::Relaxed);
            }
        }
    })
}
