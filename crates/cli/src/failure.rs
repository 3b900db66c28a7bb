//! How a command fails, and what the shell sees of it.

use std::any::Any;
use std::ops::Range;
use std::time::Duration;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Exit code of the user's errors.
pub(crate) const USER: u8 = 1;

/// Exit code of our own.
pub(crate) const INTERNAL: u8 = 2;

/// Exit code of a day that was refused.
pub(crate) const REFUSED: u8 = 3;

/// Exit code after Ctrl-C.
pub(crate) const INTERRUPTED: u8 = 130;

/// What is said after a panic.
pub(crate) const DEFECT: &str =
    "this is a defect of ams, not of your input; please report the lines above";

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something outside is not as it has to be.
    User(Mistake),
    /// The user asked to stop; everything is saved.
    Interrupted,
    /// The command did all it should, and its result is that something may not be: why.
    Refused(String),
    /// Another process of the job has an error, and says so.
    Elsewhere(Mistake),
}

/// What is wrong, and where, if it is in a text that can be shown.
#[derive(Debug)]
pub(crate) struct Mistake {
    /// What came, what was expected, and where. A line of it stays one line, so that a file's name
    /// can be searched for in a log.
    pub what: String,
    /// What may have been meant.
    pub help: Option<String>,
    /// A file's name, its text, and the bytes of it that are wrong.
    pub place: Option<(String, String, Range<usize>)>,
}

impl Mistake {
    /// Writes it to stderr, in colors if that is a terminal.
    fn say(&self) {
        anstream::eprintln!("{}", self.rendered(&Renderer::styled()));
    }

    /// Its words without colors, and without the word `error` before them.
    fn words(&self) -> String {
        let text = self.rendered(&Renderer::plain());
        text.strip_prefix("error: ").unwrap_or(&text).to_owned()
    }

    fn rendered(&self, renderer: &Renderer) -> String {
        let title = Level::ERROR.primary_title(&self.what);
        let mut group = match &self.place {
            None => Group::with_title(title),
            Some((name, text, range)) => {
                let here = AnnotationKind::Primary.span(range.clone()).label("here");
                title.element(Snippet::source(text).path(name).annotation(here))
            }
        };
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help));
        }
        renderer.render(&[group])
    }
}

impl Failure {
    /// A user's error of these words.
    pub(crate) fn user(what: impl Into<String>) -> Failure {
        Failure::User(Mistake { what: what.into(), help: None, place: None })
    }

    /// Says what happened on stderr; the exit code.
    pub(crate) fn report(self) -> u8 {
        match self {
            Failure::User(mistake) => {
                mistake.say();
                USER
            }
            Failure::Refused(what) => {
                Mistake { what, help: None, place: None }.say();
                REFUSED
            }
            // What a shell reports for a process ended by Ctrl-C.
            Failure::Interrupted => INTERRUPTED,
            Failure::Elsewhere(mistake) => {
                // The other process ends this one. If it cannot, at least somebody says why.
                std::thread::sleep(Duration::from_secs(5));
                mistake.say();
                USER
            }
        }
    }
}

/// A failure in the words of the program, for a caller in the same process.
#[derive(Debug)]
pub enum Refusal {
    /// Something outside is not as it has to be (exit code 1).
    User(String),
    /// A defect of ours (exit code 2).
    Internal(String),
    /// The caller stopped it; everything is saved (exit code 130).
    Interrupted,
}

impl Refusal {
    /// Of what a panic carries.
    pub(crate) fn of_panic(panic: &(dyn Any + Send)) -> Refusal {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Refusal::Internal(format!("{text}\n{DEFECT}"))
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        match failure {
            Failure::User(mistake) | Failure::Elsewhere(mistake) => Refusal::User(mistake.words()),
            Failure::Refused(what) => Refusal::User(what),
            Failure::Interrupted => Refusal::Interrupted,
        }
    }
}

impl From<ams_train::Error> for Failure {
    fn from(error: ams_train::Error) -> Failure {
        let mistake = Mistake { what: error.to_string(), help: None, place: None };
        match error {
            ams_train::Error::Elsewhere { .. } => Failure::Elsewhere(mistake),
            _ => Failure::User(mistake),
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

/// Words of a library that has no error of its own.
impl From<String> for Failure {
    fn from(what: String) -> Failure {
        Failure::user(what)
    }
}

from_library!(ams_data::Error, ams_bundle::Error, ams_fabric::Lost);
