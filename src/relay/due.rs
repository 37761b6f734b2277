//! When something of a child is sent, and what happens when its time has come.
//!
//! Repeats must not hurt: of `csr_req` and of `crt` the child's broker keeps at most one copy each.
//! The first goes at QoS 1; repeats go at QoS 0, which is not queued for who is absent; another
//! sure copy goes only when the last can't be there any more, or the child is known to be.

use std::time::Duration;

use super::{
    child::{CSR_APART, Child, Echo, ROSTER, Scene, Signature, new_mid},
    event::{Content, Effect, ForCore, Outgoing, Side, Weight},
    outbox::{Complaint, Slot},
    record::{Body, Csr, Outcome, Stage, Write},
    settings::Settings,
};
use crate::{
    links::{ConnectionId, Qos, SendError},
    reason::Reason,
    schedule::{Now, Stamp, Tick, Timestamp},
    wire::{Header, Kind, Mid, render},
};

/// A copy that the broker keeps goes to a child at least so often.
const SURE_COPIES_APART: Duration = Duration::from_secs(86_400);

/// A certificate is checked with the cloud again when the cloud last stood by it so long ago.
const CONFIRMED_FOR: Duration = Duration::from_secs(86_400);

/// So often, over more than half an hour, the cloud is asked whether it stands by a certificate.
/// Then the certificate is sent all the same, and the cloud asked again when it is a day older.
const CONFIRM_ATTEMPTS: u32 = 7;

/// What the local link did not take is offered to it again after so long.
const OFFLINE_APART: Duration = Duration::from_secs(2);

/// The record of a device that was never heard, and of which there is nothing to tell, is kept for
/// so long: it limits what is said of the device.
const NOTHING_KEPT_FOR: Duration = Duration::from_secs(3600);

/// Who goes first to the cloud: acks and errors, then who expires soonest, then who waits longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    class: Class,
    expires: Timestamp,
    due: Tick,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Notice,
    Csr,
}

/// What a child has for the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloudItem {
    /// A notice.
    Notice(Slot),
    /// The CSR.
    Csr(Csr),
    /// The CSR, once its signature is checked.
    Unverified(Csr),
}

/// What becomes of a record when its time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Keep,
    Forget,
}

impl Child {
    /// What is due to the cloud now.
    pub fn cloud_item(&self, now: Tick) -> Option<CloudItem> {
        let notice = [(Slot::Ack, &self.live.ack), (Slot::Err, &self.live.err)]
            .into_iter()
            .find(|(_, repeat)| repeat.is_due(now));
        if let Some((slot, _)) = notice {
            return Some(CloudItem::Notice(slot));
        }
        let csr = self.csr().filter(|_| self.live.csr.is_due(now))?;
        match self.live.signature {
            Signature::Unchecked => Some(CloudItem::Unverified(csr)),
            Signature::Checking => None,
            Signature::Good => Some(CloudItem::Csr(csr)),
        }
    }

    fn csr(&self) -> Option<Csr> {
        match &self.record.stage {
            Stage::AwaitCert(stage) => Some(stage.csr),
            Stage::AwaitAck(stage) => Some(stage.csr),
            Stage::AwaitCsr(_) | Stage::Done(_) => None,
        }
    }

    /// The child's place in the queue to the cloud, if anything is due.
    pub fn cloud_rank(&self, now: Tick) -> Option<Rank> {
        let (class, due) = match self.cloud_item(now)? {
            CloudItem::Notice(Slot::Ack) => (Class::Notice, self.live.ack.due),
            CloudItem::Notice(Slot::Err) => (Class::Notice, self.live.err.due),
            CloudItem::Csr(_) | CloudItem::Unverified(_) => (Class::Csr, self.live.csr.due),
        };
        let expires = self.record.not_after.unwrap_or(Timestamp(u64::MAX));
        Some(Rank { class, expires, due: due.unwrap_or(now) })
    }

    /// The child's place in the queue to the local broker, if anything is due.
    pub fn local_rank(&self, now: Tick) -> Option<Tick> {
        self.live.to_child.wake().filter(|due| *due <= now)
    }

    /// When something of the child comes due that is not due now.
    pub fn next_tick(&self, now: Now, settings: &Settings) -> Option<Tick> {
        let live = &self.live;
        let repeats = [&live.to_child, &live.csr, &live.ack, &live.err]
            .into_iter()
            .filter_map(|repeat| repeat.wake().filter(|due| *due > now.tick));
        repeats.chain(self.end_of_stage(now, settings)).min()
    }

    fn end_of_stage(&self, now: Now, settings: &Settings) -> Option<Tick> {
        let ttl = self.record.began.reaches(settings.rotation_ttl, now);
        match &self.record.stage {
            Stage::AwaitCsr(_) | Stage::AwaitCert(_) => ttl,
            Stage::AwaitAck(held) => {
                let expires = now.wall.map(|wall| now.tick + (held.not_after - wall));
                ttl.into_iter().chain(expires).min()
            }
            Stage::Done(_) => self.forgotten_at(now),
        }
    }

    /// When a record in which nothing is under way is of no more use.
    fn forgotten_at(&self, now: Now) -> Option<Tick> {
        let Stage::Done(done) = &self.record.stage else { return None };
        if !self.record.outbox.is_empty() {
            return None;
        }
        let age = match (&self.record.heard, &done.outcome) {
            (None, Outcome::Nothing) => NOTHING_KEPT_FOR,
            _ => ROSTER,
        };
        let heard = self.record.heard.map(|heard| heard.at.reaches(age, now));
        heard.into_iter().chain([done.since.reaches(age, now)]).max().flatten()
    }

    /// Whether a rotation is under way.
    pub fn is_under_way(&self) -> bool {
        !matches!(self.record.stage, Stage::Done(_))
    }

    /// Does what the child's time has come for, but for sending.
    pub fn on_time(&mut self, scene: &mut Scene<'_>) -> Fate {
        let now = scene.now;
        self.end_unconfirmed(scene);
        if self.is_under_way() && self.record.began.is_older_than(scene.settings.rotation_ttl, now)
        {
            self.expire(scene);
        }
        self.give_up_expired_certificate(scene);
        match self.forgotten_at(now) {
            Some(at) if at <= now.tick => Fate::Forget,
            _ => Fate::Keep,
        }
    }

    /// The rotation has taken longer than it may.
    fn expire(&mut self, scene: &mut Scene<'_>) {
        let certificate = self.held_certificate();
        let reason = match certificate {
            Some(_) => Reason::Undelivered,
            None => Reason::RotationExpired,
        };
        let is_silent = matches!(self.record.stage, Stage::AwaitCsr(_)) && !self.was_heard();
        if is_silent {
            self.done(scene, Outcome::Nothing);
        } else {
            self.report_end(scene, Complaint::ours(reason, certificate));
            self.done(scene, Outcome::Failed { reason, code: None, certificate });
        }
        self.note(scene, Weight::Alarm, None, reason, None);
    }

    /// A certificate that has expired in the store is of no use to the child: the cloud is asked
    /// for another.
    fn give_up_expired_certificate(&mut self, scene: &mut Scene<'_>) {
        let Stage::AwaitAck(held) = &self.record.stage else { return };
        if scene.now.wall.is_none_or(|wall| wall < held.not_after) {
            return;
        }
        let certificate = held.certificate;
        self.report(scene, Reason::Expired, Some(certificate));
        scene.out.writes.push(Write::DropBody(scene.name.clone(), Body::Certificate));
        self.ask_again(scene);
        self.note(scene, Weight::Alarm, None, Reason::Expired, None);
    }

    /// The effect that sends a notice or the CSR to the cloud, or has the CSR checked before.
    pub fn send_cloud(
        &mut self,
        scene: &mut Scene<'_>,
        item: CloudItem,
        link_is_up: bool,
    ) -> Option<Effect> {
        let copy = scene.mid();
        let now = scene.now.tick;
        let (kind, content) = match item {
            CloudItem::Unverified(csr) => {
                self.live.signature = Signature::Checking;
                return Some(Effect::Verify { child: scene.name.clone(), key: csr.key });
            }
            CloudItem::Notice(slot) => {
                let content = slot.notice(&self.record.outbox)?.content(&scene.settings.core);
                (slot.kind(), content)
            }
            CloudItem::Csr(csr) => (Kind::CsrRes, self.csr_content(scene, csr)),
        };
        let repeat = match item {
            CloudItem::Notice(slot) => self.repeat_of(slot),
            CloudItem::Csr(_) | CloudItem::Unverified(_) => &mut self.live.csr,
        };
        let pause = scene.settings.cloud.pause(repeat.attempts + 1, scene.rng);
        repeat.sent(copy, now, pause);
        if !link_is_up {
            // A nucleus may keep it: one copy is enough until the link is known to be up.
            repeat.due = None;
        }
        let is_confirmation = matches!(self.record.stage, Stage::AwaitAck(_));
        if kind == Kind::CsrRes && is_confirmation && self.live.csr.attempts >= CONFIRM_ATTEMPTS {
            self.live.csr.stop();
            self.live.confirmed = Stamp::now(scene.now);
        }
        let topic = scene.settings.cloud_topics.topic(scene.name, kind);
        let outgoing = Outgoing { copy, topic, qos: Qos::AtLeastOnce, content };
        Some(Effect::Publish(Side::Cloud, outgoing))
    }

    fn csr_content(&self, scene: &Scene<'_>, csr: Csr) -> Content {
        let header = Header {
            rotation: self.record.rotation.clone(),
            core: Some(scene.settings.core.clone()),
            mid: Some(csr.mid),
        };
        let Csr { key, unsolicited, .. } = csr;
        let sig = self.record.csr_sig.clone();
        Content::Csr { child: scene.name.clone(), key, unsolicited, sig, header }
    }

    /// The effect that sends `csr_req` or `crt` to the child, and the id of the copy; `None` when
    /// something stands in the way, and then its time is set anew.
    pub fn send_local(
        &mut self,
        scene: &mut Scene<'_>,
        connection: ConnectionId,
        cloud_is_up: bool,
    ) -> Option<(Mid, Effect)> {
        let outgoing = self.outgoing(scene, cloud_is_up)?;
        if matches!(self.record.stage, Stage::AwaitAck(_)) {
            self.live.given = Some(connection);
            if self.live.echo == Echo::Owed {
                self.live.echo = Echo::Sent(connection);
            }
        }
        Some((outgoing.copy, Effect::Publish(Side::Local, outgoing)))
    }

    /// The same for the core itself, which takes it at once.
    pub fn send_core(&mut self, scene: &mut Scene<'_>, cloud_is_up: bool) -> Option<Effect> {
        let outgoing = self.outgoing(scene, cloud_is_up)?;
        self.live.to_child.taken(scene.now.tick);
        Some(Effect::Core(ForCore::Message(outgoing)))
    }

    /// What goes to the child now, if nothing stands in the way.
    fn outgoing(&mut self, scene: &mut Scene<'_>, cloud_is_up: bool) -> Option<Outgoing> {
        if let Some(until) = self.held_until(scene.now) {
            self.live.to_child.due = Some(until);
            return None;
        }
        if cloud_is_up && self.must_confirm(scene.now) {
            self.live.csr.hasten(scene.now.tick, CSR_APART);
            let pause = scene.settings.certificate.first;
            self.live.to_child.due = Some(scene.now.tick + pause);
            return None;
        }
        let copy = scene.mid();
        let (kind, content, backoff) = match &self.record.stage {
            Stage::AwaitCsr(_) => {
                let header = self.local_header(scene, copy);
                let payload = render::csr_req(&header, self.record.not_after, self.record.nonce);
                (Kind::CsrReq, Content::Ready(payload), scene.settings.request)
            }
            Stage::AwaitAck(held) => {
                let certificate = held.certificate;
                let header = self.local_header(scene, copy);
                let child = scene.name.clone();
                let content = Content::Certificate { child, certificate, header };
                (Kind::Crt, content, scene.settings.certificate)
            }
            Stage::AwaitCert(_) | Stage::Done(_) => {
                self.live.to_child.stop();
                return None;
            }
        };
        let qos = self.take_qos(scene.now.tick);
        let pause = backoff.pause(self.live.to_child.attempts + 1, scene.rng);
        self.live.to_child.sent(copy, scene.now.tick, pause);
        let topic = scene.settings.local_topics.topic(scene.name, kind);
        Some(Outgoing { copy, topic, qos, content })
    }

    fn local_header(&self, scene: &Scene<'_>, mid: Mid) -> Header {
        Header {
            rotation: self.record.rotation.clone(),
            core: Some(scene.settings.core.clone()),
            mid: Some(mid),
        }
    }

    fn take_qos(&mut self, now: Tick) -> Qos {
        match self.live.sure_copy {
            Some(last) if now - last < SURE_COPIES_APART => Qos::AtMostOnce,
            _ => {
                self.live.sure_copy = Some(now);
                Qos::AtLeastOnce
            }
        }
    }

    /// Until when the cloud wants the child left alone; only a trusted clock can tell.
    fn held_until(&self, now: Now) -> Option<Tick> {
        let until = match &self.record.stage {
            Stage::AwaitCsr(stage) => stage.hold_until?,
            Stage::AwaitAck(stage) => stage.hold_until?,
            Stage::AwaitCert(_) | Stage::Done(_) => return None,
        };
        let wall = now.wall.filter(|wall| *wall < until)?;
        Some(now.tick + (until - wall))
    }

    /// Whether the cloud is to stand by the certificate once more before the child gets it.
    fn must_confirm(&self, now: Now) -> bool {
        matches!(self.record.stage, Stage::AwaitAck(_))
            && !self.live.confirmed.is_within(CONFIRMED_FOR, now)
    }

    /// What became of a copy that went to the cloud.
    pub fn cloud_sent(
        &mut self,
        scene: &mut Scene<'_>,
        copy: Mid,
        outcome: Result<(), SendError>,
        link_is_up: bool,
    ) {
        let live = &mut self.live;
        let Some(repeat) = [&mut live.csr, &mut live.ack, &mut live.err]
            .into_iter()
            .find(|repeat| repeat.flying == Some(copy))
        else {
            return;
        };
        match outcome {
            Ok(()) if link_is_up => repeat.taken(scene.now.tick),
            Ok(()) => repeat.flying = None,
            Err(SendError::Offline) => {
                (repeat.flying, repeat.last) = (None, None);
                repeat.due = Some(scene.now.tick);
            }
            Err(SendError::Refused) => {
                repeat.flying = None;
                repeat.due = Some(scene.now.tick + scene.settings.cloud.longest);
                self.note(scene, Weight::Alarm, Some(Side::Cloud), Reason::LinkRefused, None);
            }
        }
    }

    /// What became of a copy that went to the child.
    pub fn local_sent(&mut self, scene: &mut Scene<'_>, copy: Mid, outcome: Result<(), SendError>) {
        if self.live.to_child.flying != Some(copy) {
            return;
        }
        self.live.to_child.taken(scene.now.tick);
        if outcome.is_err() {
            self.live.sure_copy = None;
            self.live.given = None;
            if matches!(self.live.echo, Echo::Sent(..)) {
                self.live.echo = Echo::Owed;
            }
        }
        match outcome {
            Ok(()) => {}
            Err(SendError::Offline) => {
                self.live.to_child.due = Some(scene.now.tick + OFFLINE_APART);
            }
            Err(SendError::Refused) => {
                self.live.to_child.due = Some(scene.now.tick + scene.settings.request.longest);
                self.note(scene, Weight::Alarm, Some(Side::Local), Reason::LinkRefused, None);
            }
        }
    }

    /// The cloud can be reached again: all that it has yet to hear or answer is due, if a copy went
    /// before; the first is planned already.
    pub fn on_cloud_up(&mut self, now: Now) {
        let asks = matches!(self.record.stage, Stage::AwaitCert(_)) || self.must_confirm(now);
        if asks && self.live.csr.attempts > 0 {
            self.live.csr.hasten(now.tick, CSR_APART);
        }
        for slot in Slot::ALL {
            let waits = slot.notice(&self.record.outbox).is_some();
            let repeat = self.repeat_of(slot);
            if waits && repeat.attempts > 0 {
                repeat.hasten(now.tick, CSR_APART);
            }
        }
    }

    /// The local broker has lost our session, so perhaps the children's too: a sure copy is owed.
    pub fn on_session_lost(&mut self, settings: &Settings, now: Tick, rng: &mut fastrand::Rng) {
        let backoff = match &self.record.stage {
            Stage::AwaitCsr(_) => settings.request,
            Stage::AwaitAck(_) => settings.certificate,
            Stage::AwaitCert(_) | Stage::Done(_) => return,
        };
        self.live.sure_copy = None;
        self.live.to_child.hasten(now + backoff.spread(rng), Duration::ZERO);
    }
}

/// A device that is only tried: nobody said that it is behind this core.
#[derive(Debug)]
pub(super) struct Trial {
    pub request: crate::wire::CsrReq,
    pub since: Tick,
    pub to_child: super::child::Repeat,
    pub agenda: Option<Tick>,
    pub local_rank: Option<Tick>,
}

impl Trial {
    /// A device is tried no longer than this.
    pub const LONGEST: Duration = Duration::from_secs(86_400);

    pub fn send(
        &mut self,
        name: &crate::wire::ThingName,
        settings: &Settings,
        now: Tick,
        rng: &mut fastrand::Rng,
    ) -> (Mid, Effect) {
        let copy = new_mid(rng);
        let header = Header {
            rotation: self.request.header.rotation.clone(),
            core: Some(settings.core.clone()),
            mid: Some(copy),
        };
        let qos = if self.to_child.attempts == 0 { Qos::AtLeastOnce } else { Qos::AtMostOnce };
        self.to_child.sent(copy, now, settings.request.pause(self.to_child.attempts + 1, rng));
        let (not_after, nonce) = (self.request.not_after, self.request.nonce);
        let content = Content::Ready(render::csr_req(&header, not_after, nonce));
        let topic = settings.local_topics.topic(name, Kind::CsrReq);
        (copy, Effect::Publish(Side::Local, Outgoing { copy, topic, qos, content }))
    }
}
