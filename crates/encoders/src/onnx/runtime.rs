//! Networks computed by an ONNX Runtime that is installed: its library is loaded when a network is
//! opened, nothing of it is part of the program.
//!
//! A session computes on one thread, so that a row depends on its picture alone, not on how many
//! threads there are. Every thread that asks has a session of its own, as long as their weights
//! fit in [`WEIGHTS`] together; others wait.
//!
//! Knows sessions. Does not know where a library is.

use std::ffi::CStr;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use ams_data::{Error, Result};
use ort::ep::{CUDA, CoreML, ExecutionProviderDispatch, MIGraphX, OpenVINO, TensorRT};
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;

use super::graph::Part;
use super::network::Network;

/// Bytes that the weights of all sessions of a network may take together; one session is always
/// allowed.
const WEIGHTS: u64 = 8 << 30;

/// Pictures that a graphics processor takes at once.
const BATCH: usize = 16;

/// What computes networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Runtime {
    /// tract, which is part of the program.
    #[default]
    Tract,
    /// An ONNX Runtime that is installed, 1.18 or newer.
    OnnxRuntime {
        /// The shared library, `libonnxruntime.so`. A process loads one library: the first.
        library: PathBuf,
        /// Computes on the processor if none.
        accelerator: Option<Accelerator>,
    },
}

/// The execution providers of ONNX Runtime other than the processor. A row then depends on the
/// pictures beside it by a rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// Nvidia's CUDA.
    Cuda,
    /// Nvidia's TensorRT.
    TensorRt,
    /// AMD's MIGraphX.
    MiGraphX,
    /// Intel's OpenVINO.
    OpenVino,
    /// Apple's Core ML.
    CoreMl,
}

impl Accelerator {
    fn provider(self) -> ExecutionProviderDispatch {
        let provider = match self {
            Accelerator::Cuda => CUDA::default().build(),
            Accelerator::TensorRt => TensorRT::default().build(),
            Accelerator::MiGraphX => MIGraphX::default().build(),
            Accelerator::OpenVino => OpenVINO::default().build(),
            Accelerator::CoreMl => CoreML::default().build(),
        };
        provider.error_on_failure()
    }
}

impl Runtime {
    /// Pictures that are worth taking at once.
    pub(super) fn batch(&self) -> usize {
        match self {
            Runtime::OnnxRuntime { accelerator: Some(_), .. } => BATCH,
            Runtime::OnnxRuntime { .. } | Runtime::Tract => 1,
        }
    }

    /// Loads the library, to tell early whether it can be used.
    ///
    /// # Errors
    /// If it is no ONNX Runtime, or one that is too old.
    pub fn check(&self) -> Result<()> {
        match self {
            Runtime::Tract => Ok(()),
            Runtime::OnnxRuntime { library, .. } => load(library),
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Runtime::Tract => write!(f, "tract"),
            Runtime::OnnxRuntime { library, accelerator } => {
                write!(f, "onnxruntime ({})", library.display())?;
                accelerator.map_or(Ok(()), |accelerator| write!(f, " on {accelerator:?}"))
            }
        }
    }
}

/// Oldest version of ONNX Runtime that has what is used: 1.18.
const MINOR: u32 = ort::MINOR_VERSION;

fn load(library: &Path) -> Result<()> {
    let cannot = |why: &str| {
        let what = format!(
            "this ONNX Runtime cannot be used: {why}; expected version 1.{MINOR} or newer (`pip install \
             onnxruntime`), or say --runtime tract"
        );
        Error::content(library, what)
    };
    // `ort` waits for itself for ever if its library does not open, so it is asked for after that.
    is_runtime(library).map_err(|why| cannot(&why))?;
    let load =
        || ort::init_from(library).map(|environment| environment.with_telemetry(false).commit());
    match catch_unwind(load) {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(cannot(&error.to_string())),
        Err(_) => Err(cannot("it does not start (panic caught)")),
    }
}

/// Whether a file is the library of an ONNX Runtime that is new enough; why not.
#[allow(unsafe_code)]
fn is_runtime(library: &Path) -> std::result::Result<(), String> {
    // SAFETY: the library is one that the user names or has installed as an ONNX Runtime, and its
    // initialization is that library's.
    let opened = unsafe { libloading::Library::new(library) };
    let opened = opened.map_err(|error| format!("it does not open: {error}"))?;
    type Base = unsafe extern "C" fn() -> *const ort::sys::OrtApiBase;
    // SAFETY: the function of this name has this type in every ONNX Runtime.
    let base = unsafe { opened.get::<Base>(b"OrtGetApiBase\0") };
    let base = base.map_err(|_| "it has no function `OrtGetApiBase`".to_owned())?;
    // SAFETY: the base lives as long as the library, and its version is a text that ends in zero.
    let version = unsafe {
        let base = base();
        if base.is_null() {
            return Err("it has no interface".to_owned());
        }
        CStr::from_ptr(((*base).GetVersionString)()).to_string_lossy().into_owned()
    };
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(1), Some(minor)) if minor >= MINOR => Ok(()),
        _ => Err(format!("it is version {version}")),
    }
}

/// The sessions of one network.
pub(super) struct Sessions {
    settings: Arc<Settings>,
    idle: Mutex<Idle>,
    returned: Condvar,
}

/// What every session is made of.
struct Settings {
    path: PathBuf,
    /// The network as a file.
    model: Vec<u8>,
    /// Dimensions of an input; more than one picture only if the file insists.
    shape: [usize; 4],
    level: GraphOptimizationLevel,
    accelerator: Option<Accelerator>,
    /// Most sessions.
    most: usize,
}

struct Idle {
    sessions: Vec<Session>,
    /// Sessions that exist.
    made: usize,
}

impl Sessions {
    pub(super) fn open(
        part: &Part,
        library: &Path,
        accelerator: Option<Accelerator>,
        shape: [usize; 4],
    ) -> Result<Sessions> {
        load(library)?;
        let model = part.encode();
        let weights = (model.len() as u64 + part.outside_bytes()).max(1);
        let most = if accelerator.is_some() { 1 } else { (WEIGHTS / weights).max(1) };
        Ok(Sessions::new(Settings {
            path: part.path().to_path_buf(),
            model,
            shape,
            level: GraphOptimizationLevel::All,
            accelerator,
            most: usize::try_from(most).unwrap_or(usize::MAX),
        }))
    }

    fn new(settings: Settings) -> Sessions {
        Sessions {
            settings: Arc::new(settings),
            idle: Mutex::new(Idle { sessions: Vec::new(), made: 0 }),
            returned: Condvar::new(),
        }
    }

    /// The network as the file has it, on the processor.
    pub(super) fn plain(&self) -> Result<Sessions> {
        let Settings { path, model, shape, .. } = &*self.settings;
        Ok(Sessions::new(Settings {
            path: path.clone(),
            model: model.clone(),
            shape: *shape,
            level: GraphOptimizationLevel::Disable,
            accelerator: None,
            most: 1,
        }))
    }

    /// Dimensions of the output for `input`.
    pub(super) fn output_shape(&self, input: &[f32]) -> std::result::Result<Vec<usize>, String> {
        let mut sizes = Vec::new();
        self.with_output(input, &mut |shape, _| {
            sizes.extend(shape.iter().map(|size| usize::try_from(*size).unwrap_or(0)));
        })?;
        Ok(sizes)
    }

    fn with_output(
        &self,
        input: &[f32],
        take: &mut dyn FnMut(&[i64], &[f32]),
    ) -> std::result::Result<(), String> {
        let mut session = self.take()?;
        let [_, others @ ..] = self.settings.shape;
        let pictures = input.len() / others.iter().product::<usize>();
        let mut run = || -> ort::Result<()> {
            let shape = [pictures, others[0], others[1], others[2]];
            let input = TensorRef::from_array_view((shape, input))?;
            let outputs = session.run(ort::inputs![input])?;
            let (shape, values) = outputs[0].try_extract_tensor::<f32>()?;
            take(shape, values);
            Ok(())
        };
        let ran = catch_unwind(AssertUnwindSafe(&mut run));
        self.put(session);
        match ran {
            Ok(ran) => ran.map_err(|error| error.to_string()),
            Err(_) => Err("it gave up (panic caught)".to_owned()),
        }
    }

    /// A session that is nobody's; waits if there may be no more.
    fn take(&self) -> std::result::Result<Session, String> {
        let mut idle = self.idle.lock().expect("no thread panics while it holds the lock");
        loop {
            if let Some(session) = idle.sessions.pop() {
                return Ok(session);
            }
            if idle.made < self.settings.most {
                idle.made += 1;
                break;
            }
            idle = self.returned.wait(idle).expect("no thread panics while it holds the lock");
        }
        drop(idle);
        let made = catch_unwind(AssertUnwindSafe(|| self.settings.session()));
        let made = match made {
            Ok(made) => made.map_err(|error| error.to_string()),
            Err(_) => Err("it gave up (panic caught)".to_owned()),
        };
        made.inspect_err(|_| {
            let mut idle = self.idle.lock().expect("no thread panics while it holds the lock");
            idle.made -= 1;
            self.returned.notify_one();
        })
    }

    fn put(&self, session: Session) {
        let mut idle = self.idle.lock().expect("no thread panics while it holds the lock");
        idle.sessions.push(session);
        self.returned.notify_one();
    }
}

impl Settings {
    fn session(&self) -> ort::Result<Session> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let mut builder = Session::builder()?
            .with_optimization_level(self.level)?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            .with_deterministic_compute(true)?
            .with_log_level(LogLevel::Fatal)?
            .with_config_entry(
                "session.model_external_initializers_file_folder_path",
                folder.to_string_lossy(),
            )?;
        if let Some(accelerator) = self.accelerator {
            builder = builder.with_execution_providers([accelerator.provider()])?;
        }
        builder.commit_from_memory(&self.model)
    }
}

impl Network for Sessions {
    fn run(&self, input: &[f32], take: &mut dyn FnMut(&[f32])) -> std::result::Result<(), String> {
        self.with_output(input, &mut |_, values| take(values))
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("path", &self.settings.path).finish_non_exhaustive()
    }
}
