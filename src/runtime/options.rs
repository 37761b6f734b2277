//! The two links as the settings want them: to whom, as whom, and what is subscribed to.

use crate::{
    config::MqttLink,
    links::{Qos, mqtt},
    relay::Settings,
    wire::{Kind, Topics, barrier_topic, probe_topic},
};

/// Publishes at QoS 1 that may be under way to the cloud's broker when its `unconfirmed` is larger.
const INFLIGHT: usize = 1000;

pub(super) fn local(link: &MqttLink, settings: &Settings) -> mqtt::Options {
    let mut options = options(link);
    options.subscriptions = subscriptions(&settings.local_topics, Kind::is_uplink);
    options.subscriptions.push((barrier_topic(&settings.core), Qos::AtLeastOnce));
    options
}

/// Both directions: downlinks are for us, uplinks are receipts.
pub(super) fn cloud(link: &MqttLink, settings: &Settings) -> mqtt::Options {
    let mut options = options(link);
    options.subscriptions = subscriptions(&settings.cloud_topics, |_| true);
    options.subscriptions.push((probe_topic(&settings.core), Qos::AtMostOnce));
    options.inflight = u16::try_from(settings.unconfirmed.clamp(1, INFLIGHT)).unwrap_or(u16::MAX);
    options
}

fn options(link: &MqttLink) -> mqtt::Options {
    let mut options = mqtt::Options::new(&link.host, link.port, &link.client_id);
    options.tls.clone_from(&link.files);
    options
}

fn subscriptions(topics: &Topics, wanted: impl Fn(Kind) -> bool) -> Vec<(String, Qos)> {
    let kinds = Kind::ALL.into_iter().filter(|kind| wanted(*kind));
    kinds.map(|kind| (topics.filter(kind), Qos::AtLeastOnce)).collect()
}
