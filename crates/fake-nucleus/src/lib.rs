//! A stand-in for the AWS IoT Greengrass nuclei, for tests and demos only.
//!
//! [`FakeNucleus`] speaks the nuclei's inter-process protocol over a Unix socket, each with the
//! rules, answers, limits and traps of the real one as far as they are known from its source and
//! from measurements. The cloud behind it is a [`Hub`] in this process, or a broker.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod credentials;
mod fault;
mod frame;
mod home;
mod hub;
mod inbox;
mod message;
mod mqtt;
mod nucleus;
mod pending;
mod server;
mod settings;
mod state;
mod topic;

pub use fault::{Fault, WrongAnswer};
pub use hub::{Hub, Message, Qos};
pub use nucleus::{FakeNucleus, Token};
pub use pending::Pending;
pub use settings::{ClientDevices, Mode, Policy, Settings, Timing, TlsFiles, Upstream};
pub use state::{ClientDeviceCall, UpdateAnswer, Verdict};
