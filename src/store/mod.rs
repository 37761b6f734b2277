//! The embedded store: what has to outlive an outage, a kill and a power cut.
//!
//! Owns the store's promise, whoever keeps it: a commit that returned is durable as a whole, one
//! that failed is there as a whole or not at all. [`Options`] opens the real store, a redb file;
//! [`MemoryDisk`] its twin for tests; [`StoreThread`] runs either off the event loop. Never decides
//! what is stored, never retries: after any error the handle is spent, and who holds it opens anew
//! as [`StoreError::fate`] says.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the store is files and a thread of its own"
)]

mod disk;
mod error;
mod frame;
mod memory;
mod place;
mod tables;
#[cfg(test)]
mod tests;
mod thread;

use std::path::PathBuf;

pub use disk::{DiskStore, Options};
pub use error::{Fate, StoreError};
pub use memory::{Fault, MemoryDisk, MemoryStore};
pub use thread::{Answer, Busy, Job, Start, StillClosing, StoreThread};

use crate::{
    relay::{Body, Snapshot, Write},
    wire::ThingName,
};

/// An open store. After any error it is spent: every later call yields [`StoreError::Closed`].
pub trait Store: Send {
    /// Everything but the bodies. Records that can't be read are removed with their bodies, for
    /// good, before they are reported in [`Snapshot::damaged`].
    fn load(&mut self) -> Result<Snapshot, StoreError>;

    /// One body, as it was put. `None` if there is none, or none that can be read: such a one is
    /// removed, so that it is asked for again like one that never came.
    fn body(&mut self, thing: &ThingName, body: Body) -> Result<Option<Vec<u8>>, StoreError>;

    /// Makes all writes durable, in order, together or not at all. No writes: nothing is done.
    /// After an error they may still turn out to be durable; only a new [`Store::load`] can tell.
    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError>;
}

/// Opens a store, again and again.
pub trait OpenStore: Send {
    /// What it opens.
    type Store: Store;

    /// Opens the store, making a new one if there is none. The handle before must be dropped.
    fn open(&mut self) -> Result<Opened<Self::Store>, StoreError>;
}

/// A store that was opened.
#[derive(Debug)]
pub struct Opened<S> {
    /// The store.
    pub store: S,
    /// Where the file before lies now, if it was damaged: what it held is lost to the relay.
    pub set_aside: Option<PathBuf>,
}
