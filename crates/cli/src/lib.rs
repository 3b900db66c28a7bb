//! The program `ams` as a library: arguments in, exit code out ([`main`]), or for a caller in the
//! same process, arguments in, a report out ([`call`]).
//!
//! One file per command in [`commands`]. Knows every room, as arguments; does no arithmetic and
//! speaks no protocol itself.
//!
//! Exit codes: 0 ok, 1 the user's error (said on stderr, nothing half-written), 2 ours, 3 a day
//! that was refused, 130 after Ctrl-C.
//!
//! Started by `mpirun` or the like, the same commands run on all processes of the job: training,
//! evaluation and encoding are shared by them, everything else the first one does alone.

#![deny(missing_docs)]
#![warn(unreachable_pub)]

mod alignment;
mod browser;
mod commands;
mod config_file;
mod failure;
mod features;
mod interrupt;
mod launch;
mod locations;
mod output;
mod processor;
mod settings;
mod text;
mod threads;
mod watchdog;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ams_location::{Locations, is_remote};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::failure::Failure;
use crate::launch::Launch;
use crate::output::Output;

pub use crate::failure::Refusal;
pub use crate::locations::version_here;
pub use crate::output::{Caller, OnStep};

/// Click-through-rate models that look at pictures: from event logs and a folder of pictures to a
/// ranked page view.
#[derive(Debug, Parser)]
#[command(name = "ams", version, long_version = features::long_version(), propagate_version = true)]
struct Arguments {
    /// One JSON object on stdout, everything else on stderr.
    #[arg(long, global = true, display_order = 900)]
    json: bool,
    /// Where files of buckets (s3://, gs://, az://) are kept; AMS_CACHE or the user's cache folder
    /// unless given.
    #[arg(long, global = true, value_name = "DIR", display_order = 901)]
    cache: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(commands::demo::Arguments),
    Synth(commands::synth::Arguments),
    Init(commands::init::Arguments),
    Prepare(Box<commands::prepare::Arguments>),
    Import(commands::import::Arguments),
    Encode(Box<commands::encode::Arguments>),
    Images(commands::images::Arguments),
    Align(commands::align::Arguments),
    Train(commands::train::Arguments),
    Tune(commands::tune::Arguments),
    Daily(commands::daily::Arguments),
    Simulate(commands::simulate::Arguments),
    Rollback(commands::rollback::Arguments),
    Status(commands::status::Arguments),
    Eval(commands::eval::Arguments),
    Report(commands::report::Arguments),
    Publish(commands::publish::Arguments),
    Delta(commands::delta::Arguments),
    Score(commands::score::Arguments),
    Serve(Box<commands::serve::Arguments>),
    Vectors(commands::vectors::Arguments),
    Doctor(commands::doctor::Arguments),
    Plan(commands::plan::Arguments),
    Bench(commands::bench::Arguments),
    Ablate(commands::ablate::Arguments),
    Completions(commands::completions::Arguments),
    Man(commands::man::Arguments),
}

impl Command {
    fn run(
        self,
        launch: &Launch,
        locations: &Locations,
        output: Output<'_>,
    ) -> Result<(), Failure> {
        match self {
            Command::Align(arguments) => commands::align::run(arguments, launch, locations, output),
            Command::Train(arguments) if arguments.follow.is_some() => {
                commands::follow::run(&arguments, launch, locations, output)
            }
            Command::Train(arguments) => commands::train::run(arguments, launch, locations, output),
            Command::Tune(arguments) => commands::tune::run(arguments, launch, locations, output),
            Command::Encode(arguments) => {
                commands::encode::run(*arguments, launch, locations, output)
            }
            Command::Eval(arguments) => commands::eval::run(arguments, launch, locations, output),
            Command::Doctor(arguments) => {
                commands::doctor::run(arguments, launch, locations, output)
            }
            Command::Bench(arguments) => commands::bench::run(arguments, launch, output),
            Command::Ablate(arguments) => {
                commands::ablate::run(arguments, launch, locations, output)
            }
            _ if launch.rank() > 0 => Ok(()),
            Command::Daily(arguments) => commands::daily::run(arguments, launch, locations, output),
            Command::Simulate(arguments) => {
                commands::simulate::run(arguments, launch, locations, output)
            }
            Command::Rollback(arguments) => commands::rollback::run(&arguments, locations, output),
            Command::Status(arguments) => commands::status::run(&arguments, output),
            Command::Demo(arguments) => commands::demo::run(arguments, output),
            Command::Init(arguments) => commands::init::run(&arguments, output),
            Command::Synth(arguments) => commands::synth::run(arguments, locations, output),
            Command::Prepare(arguments) => commands::prepare::run(*arguments, locations, output),
            Command::Import(arguments) => commands::import::run(arguments, locations, output),
            Command::Images(arguments) => commands::images::run(arguments, locations, output),
            Command::Report(arguments) => commands::report::run(arguments, locations, output),
            Command::Publish(arguments) => commands::publish::run(arguments, locations, output),
            Command::Delta(arguments) => commands::delta::run(arguments, locations, output),
            Command::Score(arguments) => commands::score::run(arguments, locations, output),
            Command::Serve(arguments) => commands::serve::run(*arguments, output),
            Command::Vectors(arguments) => commands::vectors::run(arguments, locations, output),
            Command::Plan(arguments) => commands::plan::run(arguments, output),
            Command::Completions(arguments) => {
                commands::completions::run(arguments, Arguments::command(), output)
            }
            Command::Man(arguments) => commands::man::run(arguments, Arguments::command(), output),
        }
    }
}

/// The program: runs what its `given` arguments, the program's name first, say, and prints what
/// comes of it. The exit code.
pub fn main(given: Vec<OsString>) -> u8 {
    let here = given.clone();
    let expanded = settings::expand(&Arguments::command(), given, |name| std::env::var_os(name));
    let settings::Expanded { arguments, note } = match expanded {
        Ok(expanded) => expanded,
        Err(failure) => return failure.report(),
    };
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Printing can only fail where nobody reads.
            let _ = error.print();
            if let Some(note) = note {
                eprintln!("{note}");
            }
            return if is_asked(&error) { 0 } else { failure::USER };
        }
    };
    if let Err(failure) = processor::pretend(|name| std::env::var(name).ok()) {
        return failure.report();
    }
    let launch = match Launch::join() {
        Ok(launch) => launch,
        Err(failure) => return failure.report(),
    };
    if let Err(failure) = refuse_addresses(&arguments.command, &here) {
        return failure.report();
    }
    let locations = locations::locations(arguments.cache);
    let output = Output::new(arguments.json, launch.rank());
    let command = AssertUnwindSafe(|| arguments.command.run(&launch, &locations, output));
    let code = match catch_unwind(command) {
        Ok(Ok(())) => 0,
        Ok(Err(failure)) => {
            if launch.rank() > 0 {
                // What all processes find out is said by the first, which then ends the others.
                std::thread::sleep(std::time::Duration::from_millis(300));
            }
            failure.report()
        }
        // The panic's own message and place are on stderr already.
        Err(_) => {
            eprintln!("{}", failure::DEFECT);
            failure::INTERNAL
        }
    };
    // The farewell of a job waits for all its processes; after a failure they may wait for this
    // one.
    if code != 0 && code != failure::INTERRUPTED {
        launch.abort(code);
    }
    code
}

/// Runs one command for a `caller` in this process, who gets its report and the words said along
/// the way. `given` are the arguments behind the program's name. Nothing is printed but progress,
/// on a terminal. The process is never ended and its signals are left alone: the caller stops a
/// command.
///
/// # Errors
/// What the program would say before it ends with another exit code than 0.
pub fn call(given: &[OsString], caller: &Caller) -> Result<(), Refusal> {
    let name = OsString::from("ams");
    let arguments = Arguments::try_parse_from(std::iter::once(&name).chain(given))
        .map_err(|error| Refusal::User(error.render().to_string()))?;
    refuse_addresses(&arguments.command, given).map_err(Refusal::from)?;
    let launch = Launch::alone();
    let locations = locations::locations(arguments.cache);
    let output = Output::to(caller);
    let command = AssertUnwindSafe(|| arguments.command.run(&launch, &locations, output));
    catch_unwind(command).map_err(|panic| Refusal::of_panic(&*panic))?.map_err(Refusal::from)
}

/// Runs one command for another one of this process, on its processes and with its places.
fn within(
    given: &[OsString],
    launch: &Launch,
    locations: &Locations,
    caller: &Caller,
) -> Result<(), Failure> {
    let name = OsString::from("ams");
    let arguments = Arguments::try_parse_from(std::iter::once(&name).chain(given));
    let arguments = arguments.map_err(|error| Failure::user(error.render().to_string()))?;
    arguments.command.run(launch, locations, Output::to(caller))
}

/// Whether parsing ended with what was asked for: help, or the version.
fn is_asked(error: &clap::Error) -> bool {
    matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
}

/// Refuses addresses in buckets where a command takes paths of this host alone.
fn refuse_addresses(command: &Command, given: &[OsString]) -> Result<(), Failure> {
    let here_only = matches!(
        command,
        Command::Bench(_)
            | Command::Demo(_)
            | Command::Init(_)
            | Command::Man(_)
            | Command::Simulate(_)
    );
    // A server to measure is an address too, but nothing to read from.
    let remote = |it: &&OsString| {
        is_remote(Path::new(it)) && !it.to_str().is_some_and(|it| it.starts_with("http"))
    };
    match given.iter().find(|it| here_only && remote(it)) {
        None => Ok(()),
        Some(address) => {
            let what = format!("{}: this command takes paths of this host", address.display());
            Err(Failure::user(what))
        }
    }
}
