//! certrelay: relays AWS IoT's certificate-rotation topics between AWS IoT Core and the child devices
//! behind a gateway, and keeps what is under way so that neither an outage nor a power cut loses it.
//!
//! ```text
//!      cloud's broker                            gateway                              floor's broker
//!  ┌──────────────────┐   MQTT   ┌───────────────────────────────────────┐   MQTT   ┌──────────┐
//!  │ rules · Lambdas  │◄────────►│ cloud link ─┐               ┌─ local  │◄────────►│ children │
//!  └──────────────────┘          │             ▼               ▼  link   │          └──────────┘
//!                                │   events ─► relay (pure) ─► outcomes  │
//!                                │                               │       │
//!                                │                               ▼       │
//!                                │   1 commit to the store, 2 then the   │
//!                                │     sends and acks, in order          │
//!                                └───────────────────────────────────────┘
//! ```
//!
//! The core is sans-io: [`wire`], [`x509`], [`schedule`], [`relay`], [`identity`] and [`child`]'s machine are plain
//! functions of the time, an event and their state. They return what is to be written and done; the
//! drivers around them read clocks, files and sockets, and decide nothing.
//!
//! # Effects and their completions
//!
//! | effect | completion |
//! |---|---|
//! | [`relay::Effect::Publish`] | exactly one [`relay::Event::Sent`]; before it [`relay::Event::BodyLost`] when the store lacks the body |
//! | [`relay::Effect::Verify`] | exactly one [`relay::Event::Verified`] |
//! | [`relay::Effect::Ack`] | none: an ack that is lost brings the message again |
//! | [`relay::Effect::Core`] | none but [`relay::Event::BodyLost`]; what the core says comes as [`relay::Event::Own`] |
//! | [`relay::Effect::Reconnect`] | none: the link reports that it is down, and up |
//! | [`relay::Effect::Renew`] | none: nothing waits for it, and it comes again |
//! | [`relay::Effect::Note`] | none |
//! | [`identity::Effect::Do`] | exactly one [`identity::Event::Done`], or the end of the process |
//! | [`identity::Effect::Say`] | none: the relay keeps it, and asks again for what was lost |
//! | [`identity::Effect::Answer`], [`identity::Effect::Tell`] | none |
//!
//! # Invariants, each with a test that fails without it
//!
//! 1. A local message is acknowledged only after its effect is durable.
//! 2. What was acknowledged ends visibly: delivered, superseded, refused or expired; a lost store is
//!    itself reported.
//! 3. A certificate reaches only the child whose CSR carried its key; nobody on the local side can act
//!    as the core.
//! 4. No old credential is given up, here or by our word to the cloud, on evidence that could be about
//!    another certificate.
//! 5. At every crash point the core, and a child that follows [`child`], has a matching pair installed.
//! 6. "Link down" is never taken for "certificate bad", and never causes a restart.
//! 7. No decision rests on a clock that is not trusted.
//! 8. Memory, disk, rates and retries are bounded; bad input costs a counter and a log line, never a
//!    crash, a stall or another child's turn.
//! 9. Private keys never leave the device, are never logged or readable by others, and are wiped when
//!    superseded.
//!
//! # Where to find what
//!
//! The protocol: [`wire`]. What is refused and why: [`reason`], [`x509`]. A child's rotation at the
//! gateway: [`relay`]. The core's own: [`identity`], done by [`core_device`]. What outlives the process: [`store`]. The brokers: [`links`]. Life as a
//! component: [`nucleus`]. How it all runs: [`runtime`]. What people see: [`status`]. The device's side: [`child`], [`keys`], [`install`].

#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

pub mod child;
pub mod config;
pub mod control;
pub mod core_device;
pub mod expiry;
pub mod identity;
pub mod install;
pub mod keys;
pub mod links;
pub mod local_time;
pub mod lock;
pub mod nucleus;
pub mod proof;
pub mod reason;
pub mod relay;
pub mod runtime;
pub mod schedule;
pub mod status;
pub mod store;
pub mod wire;
pub mod x509;
