//! certrelay's cloud side: the functions that audit, issue, retire and report.
//!
//! ```text
//! audit ─► (audit) ─► (rotate) ─► request ─► csr_req
//!                                 issue   ◄─ csr_res ─► crt
//!                                 complete ◄─ crt_ack ─► result
//!                                 report  ◄─ crt_err ─► result
//! every hour: sweep ─► (due) ─► due          (…): a queue
//! ```
//!
//! [`decide`] has the rules: plain functions over plain data. [`functions`] has the order of calls: an
//! intent is written, the idempotent call is made, the outcome is written; so each can be killed
//! anywhere and be run again. [`ports`] is what they call. [`record`] is what they remember.
//!
//! # Invariants, each with a test that fails without it
//!
//! 1. Two new certificates for one key are never ACTIVE at once.
//! 2. No thing is ever without an ACTIVE certificate that it has.
//! 3. No certificate is given up before its successor is proved to be in use, and the grace of that
//!    proof is over; and none while its successor is not ACTIVE.
//! 4. Only a device itself, or the core it is associated with, is heard for it.
//! 5. No word of a device's reaches a mail.

#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::disallowed_methods)]

#[cfg(feature = "aws")]
pub mod aws;
pub mod decide;
pub mod functions;
#[cfg(feature = "memory")]
pub mod memory;
pub mod messages;
pub mod ports;
pub mod record;
pub mod settings;
