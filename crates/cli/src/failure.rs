//! How a command fails, and what the shell sees of it.

use std::io::IsTerminal;
use std::time::Duration;

use miette::{Diagnostic, MietteHandlerOpts, Report};

/// Exit code of the user's errors.
pub const USER: u8 = 1;

/// Exit code of our own.
pub const INTERNAL: u8 = 2;

/// Exit code after Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// Wraps errors to the terminal's width, never inside a word. Elsewhere every line stays whole, so that
/// a file's name can be searched for in a log.
pub fn set_look() {
    let look = miette::set_hook(Box::new(|_| {
        let wrap = std::io::stderr().is_terminal();
        Box::new(MietteHandlerOpts::new().wrap_lines(wrap).break_words(false).build())
    }));
    look.expect("errors get their look once");
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// Something outside is not as it has to be.
    User(Report),
    /// The user asked to stop; everything is saved.
    Interrupted,
    /// Another process of the job has an error, and says so.
    Elsewhere(Report),
}

impl Failure {
    /// A user's error of these words.
    pub fn user(what: impl Into<String>) -> Failure {
        Failure::User(Report::msg(what.into()))
    }

    /// A user's error with source code to show.
    pub fn shown(diagnostic: impl Diagnostic + Send + Sync + 'static) -> Failure {
        Failure::User(Report::new(diagnostic))
    }

    /// Says what happened on stderr; the exit code.
    pub fn report(self) -> u8 {
        match self {
            Failure::User(report) => {
                eprintln!("{report:?}");
                USER
            }
            // What a shell reports for a process ended by Ctrl-C.
            Failure::Interrupted => INTERRUPTED,
            Failure::Elsewhere(report) => {
                // The other process ends this one. If it cannot, at least somebody says why.
                std::thread::sleep(Duration::from_secs(5));
                eprintln!("{report:?}");
                USER
            }
        }
    }
}

impl From<ams_train::Error> for Failure {
    fn from(error: ams_train::Error) -> Failure {
        let report = Report::msg(error.to_string());
        match error {
            ams_train::Error::Elsewhere { .. } => Failure::Elsewhere(report),
            _ => Failure::User(report),
        }
    }
}

/// The libraries' errors all speak of the world: their own mistakes are panics.
macro_rules! from_library {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Failure {
                Failure::user(error.to_string())
            }
        })*
    };
}

from_library!(ams_data::Error, ams_bundle::Error, ams_fabric::Lost);
