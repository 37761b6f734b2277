//! What the core wants done, once it may be.
//!
//! Effects are done in order. A certificate for a child may be kept back for a moment, until client
//! device auth knows it; its completion comes all the same.

use std::collections::HashMap;

use super::{Beside, Gateway, RuntimeError, core::Core};
use crate::{
    links::{LinkCommand, Publish, SendError},
    nucleus::Told,
    reason::Reason,
    relay::{Body, CloudState, Effect, Event, Note, Outgoing, Side, Weight},
    status::ClientDevices,
    wire::ThingName,
    x509::{self, Refusal},
};

impl Gateway {
    /// Does a batch's effects. `bodies` are what `reads` named.
    pub(super) async fn perform(
        &mut self,
        effects: Vec<Effect>,
        reads: Vec<(ThingName, Body)>,
        bodies: Vec<Option<Vec<u8>>>,
    ) -> Result<(), RuntimeError> {
        let found: HashMap<_, _> = reads.into_iter().zip(bodies).collect();
        for effect in effects {
            let needed = effect.needs().map(|(name, body)| (name.clone(), body));
            let body = needed.map(|needed| found.get(&needed).and_then(Option::as_deref));
            match effect {
                Effect::Ack(side, delivery) => {
                    self.command(side, LinkCommand::Ack(delivery)).await?;
                }
                Effect::Publish(side, outgoing) => self.publish(side, outgoing, body).await?,
                Effect::Verify { child, key } => {
                    let outcome = body.flatten().map_or(Err(Refusal(Reason::BodyLost)), |csr| {
                        x509::verify_csr_signature(csr)
                    });
                    self.completed.push_back(Event::Verified { child, key, outcome });
                }
                Effect::Core(what) => self.for_core(what, body),
                Effect::Reconnect(side) => {
                    tracing::warn!(link = %side, "takes messages and delivers none: it is to connect anew");
                    self.command(side, LinkCommand::Reconnect).await?;
                }
                Effect::Renew(side) => self.command(side, LinkCommand::Renew).await?,
                Effect::Note(note) => self.journal.log(&note, self.clock.tick()),
            }
        }
        Ok(())
    }

    /// `body`: the one that is needed, if one is, and if the store holds it.
    pub(super) async fn publish(
        &mut self,
        side: Side,
        outgoing: Outgoing,
        body: Option<Option<&[u8]>>,
    ) -> Result<(), RuntimeError> {
        let Outgoing { copy: mid, topic, qos, content } = outgoing;
        let certified = content.certified(body.flatten());
        let payload = match body {
            None => content.render(&[]),
            Some(Some(body)) => content.render(body),
            Some(None) => {
                let lost = content.loss().map(|(child, lost)| Event::BodyLost { child, lost });
                self.completed.extend(lost);
                None
            }
        };
        let Some(payload) = payload else {
            let outcome = Err(SendError::Refused);
            self.completed.push_back(Event::Sent { side, mid, outcome });
            return Ok(());
        };
        let publish = Publish { mid, topic, payload, qos };
        match certified {
            Some((child, pem)) if self.prewarms(side) => {
                if let Some(beside) = &mut self.nucleus {
                    beside.prewarm.start(child, pem, publish);
                }
                Ok(())
            }
            _ => self.command(side, LinkCommand::Publish(publish)).await,
        }
    }

    /// Whether client device auth is to know of a certificate before the child does. It asks the
    /// cloud, so there is no use in it while the cloud is out of reach.
    fn prewarms(&self, side: Side) -> bool {
        let Core::Works(working) = &self.core else { return false };
        let is_reached = working.relay.cloud_state() != CloudState::Down;
        let is_wanted = |beside: &Beside| beside.prewarm.is_wanted();
        side == Side::Local && is_reached && self.nucleus.as_ref().is_some_and(is_wanted)
    }

    /// Client device auth knows a certificate, or does not: the child is told.
    pub(super) async fn on_told(&mut self, told: Told) -> Result<(), RuntimeError> {
        let Told { child, publish, standing, why } = told;
        let why = why.map(|why| crate::wire::escape(&why));
        match standing {
            ClientDevices::Accepts => {}
            ClientDevices::Absent => tracing::info!("no client device auth here"),
            ClientDevices::NotPermitted => tracing::warn!(why, "may not ask client device auth"),
            ClientDevices::Refuses | ClientDevices::Fails => {
                let note = Note {
                    weight: Weight::Refused,
                    side: None,
                    child: Some(child),
                    state: "await-ack",
                    reason: Reason::PrewarmRefused,
                    detail: why,
                };
                self.journal.log(&note, self.clock.tick());
                if let Core::Works(working) = &mut self.core {
                    working.relay.count(None, Reason::PrewarmRefused, 1);
                }
            }
        }
        self.report.client_devices(standing);
        self.command(Side::Local, LinkCommand::Publish(publish)).await
    }

    /// A link always takes commands; one that does not is gone.
    pub(super) async fn command(
        &mut self,
        side: Side,
        command: LinkCommand,
    ) -> Result<(), RuntimeError> {
        let link = match side {
            Side::Cloud => &self.cloud,
            Side::Local => &self.local,
        };
        link.commands.send(command).await.map_err(|_| RuntimeError::LinkEnded(side))
    }
}

/// The bodies that the effects need, each once.
pub(super) fn reads_of(effects: &[Effect]) -> Vec<(ThingName, Body)> {
    let mut reads: Vec<(ThingName, Body)> =
        effects.iter().filter_map(Effect::needs).map(|(name, body)| (name.clone(), body)).collect();
    reads.sort();
    reads.dedup();
    reads
}
