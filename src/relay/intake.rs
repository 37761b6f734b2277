//! Messages as they come, up to the child that they are about: direction, names, sizes, loops.
//!
//! What is dropped here was never understood; it costs a counter and a log line. The first check of
//! a local message is the reserved name: under the core's own name nobody speaks but the core, or
//! any local client could obtain the core's certificate.

use std::num::NonZeroU32;

use super::{
    Effect, Note, Outcome, Relay, Side, Weight,
    child::{Child, Repeat},
    outbox::Slot,
    record::{AwaitCsr, Occurred, Stage},
};
use crate::{
    links::Message,
    reason::Reason,
    schedule::{Now, Stamp},
    wire::{
        CertificateMessage, CrtAck, CrtErr, CsrReq, CsrRes, Header, Kind, MAX_PAYLOAD, Mid,
        PayloadError, ThingName, Verdict, barrier_topic, probe_topic,
    },
    x509,
};

/// The most devices without a record whose messages are counted.
const MOST_STRANGERS: usize = 1_024;

/// The most messages of one child that are read in a second.
const READS: NonZeroU32 = NonZeroU32::new(10).expect("ten is not zero");

impl Relay {
    /// A message from either broker. It is acknowledged whatever it is, after its writes.
    pub(super) fn on_message(&mut self, now: Now, side: Side, message: Message, out: &mut Outcome) {
        let delivery = message.delivery;
        let dropped = match side {
            Side::Cloud => self.on_cloud_message(now, &message, out),
            Side::Local => self.on_local_message(now, &message, out),
        };
        if let Err(drop) = dropped {
            self.drop_message(side, drop, out);
        }
        out.then.extend(delivery.map(|delivery| Effect::Ack(side, delivery)));
    }

    fn drop_message(&mut self, side: Side, drop: Dropped, out: &mut Outcome) {
        self.counters.count(Some(side), drop.reason);
        let weight = match drop.reason {
            Reason::OtherCore => return,
            Reason::BridgeLoop | Reason::ReservedName => Weight::Alarm,
            _ => Weight::Refused,
        };
        out.then.push(Effect::Note(Note {
            weight,
            side: Some(side),
            child: drop.child,
            state: "none",
            reason: drop.reason,
            detail: None,
        }));
    }

    fn on_cloud_message(
        &mut self,
        now: Now,
        message: &Message,
        out: &mut Outcome,
    ) -> Result<(), Dropped> {
        if message.topic == probe_topic(&self.settings.core) {
            if self.cloud.is_probe(&message.payload) {
                self.on_evidence(now);
            }
            return Ok(());
        }
        self.on_evidence(now);
        let topics = &self.settings.cloud_topics;
        let (name, kind) = topics.read(&message.topic).ok_or(Dropped::nobody(Reason::BadTopic))?;
        let dropped = |reason| Dropped { child: Some(name.clone()), reason };
        let header = Header::read(&message.payload);
        if header.core.as_ref().is_some_and(|core| *core != self.settings.core) {
            return Err(dropped(Reason::OtherCore));
        }
        if kind.is_uplink() {
            return self.on_own_uplink(now, &name, &header, out).map_err(dropped);
        }
        if header.mid.is_some_and(|mid| self.local.recent.contains(mid)) {
            return Err(dropped(Reason::BridgeLoop));
        }
        if !self.serves(&name) {
            return Err(dropped(Reason::NotServed));
        }
        if kind == Kind::CsrReq && message.retain {
            return Err(dropped(Reason::Retained));
        }
        self.on_downlink(now, &name, kind, &message.payload, out).map_err(dropped)
    }

    fn on_evidence(&mut self, now: Now) {
        if self.cloud.on_evidence(now.tick, &self.settings) {
            self.on_cloud_up(now);
        }
    }

    /// One of the uplink topics, seen from the cloud's side: a receipt, if it is ours.
    fn on_own_uplink(
        &mut self,
        now: Now,
        name: &ThingName,
        header: &Header,
        out: &mut Outcome,
    ) -> Result<(), Reason> {
        let is_ours = header.core.as_ref() == Some(&self.settings.core);
        let mid = header.mid.filter(|_| is_ours).ok_or(Reason::WrongDirection)?;
        self.with_child(now, name, out, |child, scene| child.on_receipt(scene, mid));
        Ok(())
    }

    fn on_downlink(
        &mut self,
        now: Now,
        name: &ThingName,
        kind: Kind,
        payload: &[u8],
        out: &mut Outcome,
    ) -> Result<(), Reason> {
        match kind {
            Kind::CsrReq | Kind::Crt if self.is_full(now) => return Err(Reason::StoreFull),
            Kind::CsrReq => {
                let request = CsrReq::parse(payload).map_err(reason_of)?;
                if !self.has_room_for(name) {
                    return Err(Reason::StoreFull);
                }
                self.on_request(now, name, request, out);
            }
            Kind::Crt => {
                let message = CertificateMessage::parse(payload).map_err(reason_of)?;
                let facts =
                    x509::read_certificate(&message.chain[0]).map_err(|refusal| refusal.0)?;
                self.admit_for_certificate(now, name, &message);
                self.with_child(now, name, out, |child, scene| {
                    child.on_certificate(scene, facts.key, &message);
                })
                .ok_or(Reason::NoWaitingCsr)?;
            }
            Kind::Result => {
                let verdict = Verdict::parse(payload).map_err(reason_of)?;
                self.with_child(now, name, out, |child, scene| child.on_verdict(scene, &verdict))
                    .ok_or(Reason::StaleResult)?;
            }
            Kind::CsrRes | Kind::CrtAck | Kind::CrtErr => return Err(Reason::WrongDirection),
        }
        Ok(())
    }

    /// A device that the cloud says is ours, is named, or has a record, as each has that was heard
    /// lately, is served; another is tried.
    fn on_request(&mut self, now: Now, name: &ThingName, request: CsrReq, out: &mut Outcome) {
        let is_ours = request.header.core.is_some()
            || *name == self.settings.core
            || self.settings.children.names(name)
            || self.children.contains_key(name);
        if !is_ours {
            return self.try_device(now, name, request, out);
        }
        if self.admit(now, name).is_some() {
            self.with_child(now, name, out, |child, scene| child.on_request(scene, request));
        }
    }

    /// A certificate that the cloud says is for a child of ours is answered even if nothing is
    /// known of that child.
    fn admit_for_certificate(&mut self, now: Now, name: &ThingName, message: &CertificateMessage) {
        if message.header.core.is_some() {
            let _ = self.admit(now, name);
        }
    }

    fn on_local_message(
        &mut self,
        now: Now,
        message: &Message,
        out: &mut Outcome,
    ) -> Result<(), Dropped> {
        if message.topic == barrier_topic(&self.settings.core) {
            self.local.on_barrier(message);
            return Ok(());
        }
        let topics = &self.settings.local_topics;
        let (name, kind) = topics.read(&message.topic).ok_or(Dropped::nobody(Reason::BadTopic))?;
        let dropped = |reason| Dropped { child: Some(name.clone()), reason };
        if name == self.settings.core {
            return Err(dropped(Reason::ReservedName));
        }
        if !kind.is_uplink() {
            return Err(dropped(Reason::WrongDirection));
        }
        if !self.settings.children.serves(&name) {
            return Err(dropped(Reason::NotServed));
        }
        if message.retain && kind != Kind::CsrRes {
            return Err(dropped(Reason::Retained));
        }
        if message.payload.len() > MAX_PAYLOAD {
            return Err(dropped(Reason::TooLarge));
        }
        self.on_uplink(now, &name, kind, message, out).map_err(dropped)
    }

    fn on_uplink(
        &mut self,
        now: Now,
        name: &ThingName,
        kind: Kind,
        message: &Message,
        out: &mut Outcome,
    ) -> Result<(), Reason> {
        if !self.may_read(now, name) {
            return Err(Reason::Flood);
        }
        if let Some(mid) = Header::read(&message.payload).mid
            && (self.cloud.recent.contains(mid)
                || self.children.get(name).is_some_and(|c| c.has_mid(mid)))
        {
            return Err(Reason::BridgeLoop);
        }
        let arrival = self.local.arrival(message);
        let said = Said::parse(kind, &message.payload)?;
        let has_room = !self.is_full(now) && self.has_room_for(name);
        if matches!(said, Said::Csr(_)) && !has_room {
            return Err(Reason::StoreFull);
        }
        self.admit_speaker(now, name).ok_or(Reason::TooManyRecords)?;
        self.with_child(now, name, out, |child, scene| {
            child.heard(now);
            match said {
                Said::Csr(csr) => child.on_csr(scene, csr, arrival),
                Said::Ack(ack) => child.on_ack(scene, &ack, arrival),
                Said::Err(err) => child.on_error(scene, &err, arrival),
            }
        });
        Ok(())
    }

    /// Whether one more message of the device is read now.
    fn may_read(&mut self, now: Now, name: &ThingName) -> bool {
        if let Some(child) = self.children.get_mut(name) {
            return child.live.reads.take(READS, now.tick);
        }
        if self.strangers.len() >= MOST_STRANGERS {
            self.strangers.clear();
        }
        self.strangers.entry(name.clone()).or_default().take(READS, now.tick)
    }

    /// The first message of a child makes its record; one that was only tried is taken up as if it
    /// had been asked.
    fn admit_speaker(&mut self, now: Now, name: &ThingName) -> Option<()> {
        let trial = self.trials.get(name).map(|trial| (trial.request.clone(), trial.to_child));
        self.admit(now, name)?;
        if let Some((child, (request, to_child))) = self.children.get_mut(name).zip(trial) {
            child.take_up(now, request, to_child);
            self.under_way += 1;
        }
        Some(())
    }
}

/// A message that is dropped, and why.
struct Dropped {
    child: Option<ThingName>,
    reason: Reason,
}

impl Dropped {
    fn nobody(reason: Reason) -> Self {
        Self { child: None, reason }
    }
}

/// A message of a child's that could be read.
enum Said {
    Csr(CsrRes),
    Ack(CrtAck),
    Err(CrtErr),
}

impl Said {
    fn parse(kind: Kind, payload: &[u8]) -> Result<Self, Reason> {
        match kind {
            Kind::CsrRes => CsrRes::parse(payload).map(Self::Csr).map_err(reason_of),
            Kind::CrtAck => CrtAck::parse(payload).map(Self::Ack).map_err(reason_of),
            Kind::CrtErr => CrtErr::parse(payload).map(Self::Err).map_err(reason_of),
            Kind::CsrReq | Kind::Crt | Kind::Result => Err(Reason::WrongDirection),
        }
    }
}

fn reason_of(error: PayloadError) -> Reason {
    match error {
        PayloadError::Empty => Reason::EmptyPayload,
        PayloadError::TooLarge { .. } => Reason::TooLarge,
        PayloadError::NotAnObject
        | PayloadError::Missing(_)
        | PayloadError::BadPem
        | PayloadError::TooManyCertificates { .. } => Reason::Unreadable,
    }
}

impl Child {
    /// Whether a message of ours about this child has the id.
    fn has_mid(&self, mid: Mid) -> bool {
        let csr = match &self.record.stage {
            Stage::AwaitCert(stage) => Some(stage.csr.mid),
            Stage::AwaitAck(stage) => Some(stage.csr.mid),
            Stage::AwaitCsr(_) | Stage::Done(_) => None,
        };
        let notices = Slot::ALL.into_iter().filter_map(|slot| slot.notice(&self.record.outbox));
        csr == Some(mid) || notices.into_iter().any(|notice| notice.mid == mid)
    }

    /// A child that was only tried has answered: its rotation is the one it was tried with.
    fn take_up(&mut self, now: Now, request: CsrReq, to_child: Repeat) {
        if request.header.rotation.is_none() {
            self.record.requested = Some(Occurred { at: Stamp::now(now) });
        }
        self.record.rotation = request.header.rotation;
        self.record.began = Stamp::now(now);
        self.record.nonce = request.nonce;
        self.record.not_after = request.not_after;
        let hold_until = request.hold_until;
        self.go(Stage::AwaitCsr(AwaitCsr { since: Stamp::now(now), hold_until }));
        self.live.to_child = Repeat { flying: None, ..to_child };
        self.live.sure_copy = to_child.last;
    }
}
