//! certrelay

#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

pub mod child;
pub mod config;
pub mod install;
pub mod keys;
pub mod links;
pub mod reason;
pub mod relay;
pub mod runtime;
pub mod schedule;
pub mod status;
pub mod store;
pub mod wire;
pub mod x509;
