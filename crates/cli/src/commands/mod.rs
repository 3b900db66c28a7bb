//! The commands, one file each: arguments, what they call, what they print.

pub mod ablate;
pub mod bench;
pub mod delta;
pub mod demo;
pub mod doctor;
pub mod encode;
pub mod encoder;
pub mod eval;
pub mod images;
pub mod import;
pub mod plan;
pub mod prepare;
pub mod preprocess;
pub mod publish;
pub mod score;
pub mod serve;
pub mod synth;
pub mod train;
pub mod vectors;
