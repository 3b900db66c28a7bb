//! The commands, one file each: arguments, what they call, what they print.

pub(crate) mod ablate;
pub(crate) mod align;
pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod delta;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod encode;
pub(crate) mod encoder;
pub(crate) mod eval;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod init;
mod job;
pub(crate) mod man;
pub(crate) mod own_past;
pub(crate) mod plan;
pub(crate) mod prepare;
pub(crate) mod preprocess;
pub(crate) mod publish;
pub(crate) mod report;
pub(crate) mod score;
pub(crate) mod serve;
pub(crate) mod synth;
pub(crate) mod train;
pub(crate) mod tune;
pub(crate) mod vectors;
