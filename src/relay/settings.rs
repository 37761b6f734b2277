//! The settings that the relay goes by.

use std::{num::NonZeroU32, time::Duration};

use crate::{
    relay::Children,
    schedule::Backoff,
    wire::{ThingName, Topics},
    x509::{Anchors, CommonNameRule},
};

/// The settings that the relay goes by; all checked when they were read.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The core device's own thing name: reserved on the local side.
    pub core: ThingName,
    /// The topics on the cloud's broker.
    pub cloud_topics: Topics,
    /// The topics on the local broker.
    pub local_topics: Topics,
    /// Whom we serve.
    pub children: Children,
    /// A rotation takes no longer (`rotationTtl`).
    pub rotation_ttl: Duration,
    /// Requests without a rotation id come no faster (`minInterval`).
    pub min_interval: Duration,
    /// What a CSR and a certificate say of their subject (`csr.commonName`).
    pub common_name: CommonNameRule,
    /// A CSR goes to the cloud when it has not changed for this long (`csr.settle`).
    pub settle: Duration,
    /// What a certificate's chain ends in (`certificate.trustAnchorsFile`).
    pub anchors: Option<Anchors>,
    /// Pauses between repeats of `csr_req` to a child (`repeat.request`).
    pub request: Backoff,
    /// Pauses between repeats of `crt` to a child (`repeat.certificate`).
    pub certificate: Backoff,
    /// Pauses between repeats to the cloud (`repeat.cloud`).
    pub cloud: Backoff,
    /// The most messages a second to the cloud; `None`: no limit (`cloud.messagesPerSecond`).
    pub messages_per_second: Option<NonZeroU32>,
    /// The most messages to the cloud that nothing has answered (`cloud.unconfirmed`).
    pub unconfirmed: usize,
    /// The most rotations that are under way at once: so many have room in the store, whatever
    /// becomes of them (by `store.maxBytes`).
    pub most_under_way: usize,
    /// The link is probed when nothing was heard for this long (`cloud.probeInterval`).
    pub probe_interval: Duration,
}
