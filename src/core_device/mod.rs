//! The drivers of the core's own certificate: where it is, its files, the probe, the restart.
//!
//! They do what [`crate::identity`] decides, and decide nothing about a rotation themselves.

pub mod files;
pub mod life;
pub mod locate;
mod place;
mod preflight;
pub mod probe;
mod refusal;
pub mod restart;
pub mod show;
pub mod workshop;
