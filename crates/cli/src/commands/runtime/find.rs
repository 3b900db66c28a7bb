//! Where an installed ONNX Runtime is found.
//!
//! Knows the environment, folders. Does not know networks.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ams_encoders::{Accelerator, Runtime};

use super::{RuntimeArguments, RuntimeName};
use crate::failure::Failure;

/// How a program finds its Python's ONNX Runtime without starting it.
const SPEC: &str = "import importlib.util as u, os
s = u.find_spec('onnxruntime')
print(os.path.join(os.path.dirname(s.origin), 'capi') if s and s.origin else '')";

/// Folders of a system's libraries.
const SYSTEM: [&str; 5] = [
    "/usr/local/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
];

impl RuntimeArguments {
    /// The runtime; `auto` has found it.
    ///
    /// # Errors
    /// If what was asked for is not there, or cannot be used.
    pub(crate) fn find(&self) -> Result<Runtime, Failure> {
        let accelerator = self.execution_provider.map(Accelerator::from);
        let asked = self.runtime == RuntimeName::Onnxruntime
            || self.onnxruntime.is_some()
            || accelerator.is_some();
        if self.runtime == RuntimeName::Tract {
            if self.onnxruntime.is_some() || accelerator.is_some() {
                let what = "--runtime tract takes no --onnxruntime and no --execution-provider";
                return Err(Failure::user(what));
            }
            return Ok(Runtime::Tract);
        }
        let (library, named) = match self.named()? {
            Some(library) => (Some(library), true),
            None => (of_python().or_else(of_system), false),
        };
        let Some(library) = library else {
            if asked {
                return Err(Failure::user(NONE));
            }
            return Ok(Runtime::Tract);
        };
        let runtime = Runtime::OnnxRuntime { library, accelerator };
        match runtime.check() {
            Ok(()) => Ok(runtime),
            Err(error) if asked || named => Err(error.into()),
            Err(error) => {
                eprintln!("{error}; tract computes the network");
                Ok(Runtime::Tract)
            }
        }
    }

    /// The library that the command line or the environment names.
    fn named(&self) -> Result<Option<PathBuf>, Failure> {
        let variable = || {
            let path = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty());
            path.map(|path| ("ORT_DYLIB_PATH", PathBuf::from(path)))
        };
        let given = self.onnxruntime.clone().map(|path| ("--onnxruntime", path));
        let Some((by, path)) = given.or_else(variable) else { return Ok(None) };
        let library = if path.is_dir() { library_in(&path) } else { Some(path.clone()) };
        match library.filter(|library| library.is_file()) {
            Some(library) => Ok(Some(library)),
            None => {
                let path = path.display();
                let what =
                    format!("{by} {path}: expected libonnxruntime.so, or a folder that has it");
                Err(Failure::user(what))
            }
        }
    }
}

/// What to do where there is none.
const NONE: &str = "no ONNX Runtime is found: install one (`pip install onnxruntime`), name its library \
                    (--onnxruntime PATH or ORT_DYLIB_PATH), or say --runtime tract";

/// The library in the wheel of the current Python.
fn of_python() -> Option<PathBuf> {
    let environment = std::env::var_os("VIRTUAL_ENV").map(PathBuf::from);
    let python = environment.map_or("python3".into(), |folder| folder.join("bin/python"));
    let found = Command::new(python)
        .args(["-c", SPEC])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let folder = String::from_utf8(found.stdout).ok()?;
    library_in(Path::new(folder.trim_end()))
}

/// The library among those of the system.
fn of_system() -> Option<PathBuf> {
    let more = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let more = std::env::split_paths(&more).collect::<Vec<PathBuf>>();
    let system = SYSTEM.map(PathBuf::from);
    more.iter().chain(&system).find_map(|folder| library_in(folder))
}

/// The library in `folder`; the name that sorts last if there are several versions.
fn library_in(folder: &Path) -> Option<PathBuf> {
    if folder.as_os_str().is_empty() {
        return None;
    }
    let is_library = |name: &str| {
        name.starts_with("libonnxruntime.so")
            || (name.starts_with("libonnxruntime.") && name.ends_with(".dylib"))
            || name == "onnxruntime.dll"
    };
    let entries = folder.read_dir().ok()?.filter_map(Result::ok);
    let libraries = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_library));
    libraries.map(|entry| entry.path()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_known_by_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let found = || {
            let library = library_in(folder.path())?;
            library.file_name().map(|name| name.to_string_lossy().into_owned())
        };
        let touch = |name: &str| std::fs::write(folder.path().join(name), "").expect("a file");
        touch("libonnxruntime_providers_shared.so");
        touch("onnxruntime_pybind11_state.so");
        assert_eq!(found(), None);
        touch("libonnxruntime.so.1.20.0");
        touch("libonnxruntime.so.1.32.0");
        assert_eq!(found().as_deref(), Some("libonnxruntime.so.1.32.0"));
        assert_eq!(library_in(Path::new("")), None);
        assert_eq!(library_in(Path::new("no/such/folder")), None);
    }
}
