//! [`Options`] say where the nucleus is, [`Client`] connects to it. Its methods are the operations;
//! those that subscribe give a [`Subscription`], which is read by [`Subscription::next`] and reports
//! [`Update`]s. What can go wrong with a call is a [`CallError`]; why there is no connection is a
//! [`ConnectError`] in [`State`].
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod client;
mod connection;
mod demux;
mod error;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod model;
mod options;
mod queue;
mod state;
mod subscription;
mod supervisor;
mod text;
mod wire;

pub use client::Client;
pub use error::{CallError, ConnectError, ErrorCode, ProtocolError, ServiceError, Step};
pub use model::{
    ClientDeviceAuthToken, ComponentState, ComponentUpdate, ConfigurationUpdate,
    ConfigurationValidityReport, DeferComponentUpdate, IoTCoreMessage, PublishToIoTCore,
    PublishToTopic, Qos, ReceiveMode, TopicMessage, TopicPayload, ValidateConfiguration, Validity,
};
pub use options::{AuthToken, Backoff, EnvError, Options, QueueLimits, Timeouts};
pub use queue::Inactive;
pub use state::{Nucleus, State};
pub use subscription::{Subscription, Update};
pub use wire::FrameError;
