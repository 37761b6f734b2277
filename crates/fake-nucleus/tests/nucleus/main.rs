//! What the stand-in promises: to be no kinder than the real nuclei.
//!
//! Its client is told byte by byte what to say, and shares no code with the stand-in.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod both;
mod broker;
mod client;
mod deployments;
mod faults;
mod java;
mod java_cloud;
mod lite;
mod lite_cloud;
mod local;
mod official;
mod process;
