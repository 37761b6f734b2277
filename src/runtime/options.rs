//! The two links as the settings want them: to whom, as whom, and what is subscribed to.

use aws_greengrass_ipc::Client;

use super::RuntimeError;
use crate::{
    config::{CloudLink, Config, LocalLink, MqttLink},
    links::{Link, Qos, greengrass, mqtt, pubsub},
    relay::Side,
    wire::{Kind, Topics, barrier_topic, probe_topic},
};

/// Publishes at QoS 1 that may be under way to the cloud's broker when its `unconfirmed` is larger.
const INFLIGHT: usize = 1000;

/// Events of a link through the nucleus that may wait for the loop.
const EVENTS: usize = 1024;

/// The link to the floor: uplinks, and the barrier.
pub(super) fn local(config: &Config, nucleus: Option<&Client>) -> Result<Link, RuntimeError> {
    let settings = &config.relay;
    let mut topics: Vec<String> = filters(&settings.local_topics, Kind::is_uplink).collect();
    topics.push(barrier_topic(&settings.core));
    match &config.local {
        LocalLink::Mqtt(link) => {
            let mut options = options(link);
            options.subscriptions = at_least_once(topics).collect();
            started(Side::Local, options)
        }
        LocalLink::Pubsub => {
            let client = nucleus.ok_or(RuntimeError::NoNucleus(Side::Local))?.clone();
            Ok(pubsub::spawn(pubsub::Options { client, topics, events: EVENTS }))
        }
    }
}

/// The link to the cloud. Both directions: downlinks are for us, uplinks are receipts.
pub(super) fn cloud(config: &Config, nucleus: Option<&Client>) -> Result<Link, RuntimeError> {
    let settings = &config.relay;
    let probe = probe_topic(&settings.core);
    let downlinks = filters(&settings.cloud_topics, |kind| !kind.is_uplink());
    let uplinks = filters(&settings.cloud_topics, Kind::is_uplink);
    match &config.cloud {
        CloudLink::Mqtt(link) => {
            let mut options = options(link);
            options.subscriptions = at_least_once(downlinks.chain(uplinks)).collect();
            options.subscriptions.push((probe, Qos::AtMostOnce));
            let unconfirmed = settings.unconfirmed.clamp(1, INFLIGHT);
            options.inflight = u16::try_from(unconfirmed).unwrap_or(u16::MAX);
            started(Side::Cloud, options)
        }
        CloudLink::Greengrass => {
            let client = nucleus.ok_or(RuntimeError::NoNucleus(Side::Cloud))?.clone();
            let loopbacks = uplinks.chain([probe]).collect();
            let downlinks = downlinks.collect();
            Ok(greengrass::spawn(greengrass::Options {
                client,
                downlinks,
                loopbacks,
                unconfirmed: settings.unconfirmed,
                events: EVENTS,
            }))
        }
    }
}

fn started(side: Side, options: mqtt::Options) -> Result<Link, RuntimeError> {
    mqtt::spawn(options).map_err(|error| RuntimeError::Link { side, error })
}

fn options(link: &MqttLink) -> mqtt::Options {
    let mut options = mqtt::Options::new(&link.host, link.port, &link.client_id);
    options.tls.clone_from(&link.files);
    options
}

fn filters(topics: &Topics, wanted: impl Fn(Kind) -> bool) -> impl Iterator<Item = String> {
    Kind::ALL.into_iter().filter(move |kind| wanted(*kind)).map(|kind| topics.filter(kind))
}

fn at_least_once(filters: impl IntoIterator<Item = String>) -> impl Iterator<Item = (String, Qos)> {
    filters.into_iter().map(|filter| (filter, Qos::AtLeastOnce))
}
