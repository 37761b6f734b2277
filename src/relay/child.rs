//! One child: its record, and what only this process needs to know of it.
//!
//! Owns the helpers that every transition uses: how a stage ends, what is remembered, what is
//! noted. What each event does stands in `from_cloud` and `from_child`; when something is sent, in
//! `due`; what the cloud hears, in `outbox`.

use std::time::Duration;

use super::{
    event::{Effect, ForCore, Note, Outcome as Out, Side, Weight},
    pace::{Rate, Turns},
    record::{
        AwaitAck, AwaitCert, AwaitCsr, Body, Csr, Done, Occurred, Outbox, Outcome, REMEMBERED,
        Record, Stage, Write,
    },
    settings::Settings,
    status::Counters,
};
use crate::{
    links::ConnectionId,
    reason::Reason,
    schedule::{Now, Stamp, Tick},
    wire::{CertificateId, CsrRes, KeyDigest, Mid, ThingName},
};

/// A child that was heard is on the roster, that is, keeps its record, for so long.
pub(super) const ROSTER: Duration = Duration::from_secs(90 * 86_400);

/// A child's CSR goes to the cloud no more often than this.
pub(super) const CSR_APART: Duration = Duration::from_secs(60);

/// A copy that was not planned goes to a child no sooner than this after the last.
pub(super) const COPIES_APART: Duration = Duration::from_secs(10);

/// How exactly the store knows when a child was heard last: not every message is worth a write.
const HEARD_TO: Duration = Duration::from_secs(86_400);

/// Rotations that no request is behind begin no faster than this, all children together.
const UNSOLICITED_APART: Duration = Duration::from_secs(1);

/// What a transition may look at and write to, besides its child.
pub(super) struct Scene<'a> {
    pub now: Now,
    pub name: &'a ThingName,
    pub settings: &'a Settings,
    pub rng: &'a mut fastrand::Rng,
    pub counters: &'a mut Counters,
    pub unsolicited: &'a mut Turns,
    pub out: &'a mut Out,
}

impl Scene<'_> {
    pub fn mid(&mut self) -> Mid {
        new_mid(self.rng)
    }

    /// Whether it is about the core itself, not a child.
    pub fn is_core(&self) -> bool {
        *self.name == self.settings.core
    }
}

pub(super) fn new_mid(rng: &mut fastrand::Rng) -> Mid {
    Mid(rng.u128(..).to_be_bytes())
}

/// One child.
#[derive(Debug)]
pub(super) struct Child {
    pub record: Record,
    /// The record differs from the stored one.
    pub changed: bool,
    pub live: Live,
}

/// What only this process needs to know of a child.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// `csr_req` or `crt` to the child, by the stage.
    pub to_child: Repeat,
    /// When the last copy went to the child that its broker keeps for it; `None`: one is owed.
    pub sure_copy: Option<Tick>,
    /// `csr_res` to the cloud.
    pub csr: Repeat,
    /// The ack in the outbox.
    pub ack: Repeat,
    /// The error in the outbox.
    pub err: Repeat,
    /// What is known of the CSR's signature.
    pub signature: Signature,
    /// When the cloud last said that the held certificate is the one.
    pub confirmed: Stamp,
    /// On which connection the held certificate was sent to the child last.
    pub given: Option<ConnectionId>,
    /// How far a bare ack has come to count.
    pub echo: Echo,
    /// Messages of the child that were read lately.
    pub reads: Rate,
    /// When an unsolicited CSR that waits may go.
    pub turn: Option<Tick>,
    /// The errors that went upstream within the hour.
    pub errors: Vec<(String, Tick)>,
    /// What was last decided.
    pub reason: Option<Reason>,
    /// Its entry in the relay's agenda.
    pub agenda: Option<Tick>,
    /// Its entry in the queue to the cloud.
    pub cloud_rank: Option<super::due::Rank>,
    /// Its entry in the queue to the local broker.
    pub local_rank: Option<Tick>,
}

/// A message that is sent again until something comes back.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Repeat {
    /// How often it was sent.
    pub attempts: u32,
    /// When it is to be sent; `None`: it is not.
    pub due: Option<Tick>,
    /// When the last copy went out; stays when the message changes.
    pub last: Option<Tick>,
    /// The copy that is on its way.
    pub flying: Option<Mid>,
    /// How many copies the broker took, and when it took the first.
    pub taken: u32,
    pub first_taken: Option<Tick>,
}

impl Repeat {
    /// A message to be sent at `due`.
    pub fn begin(due: Tick) -> Self {
        Self { due: Some(due), ..Self::default() }
    }

    /// Another message, to be sent at `due`.
    pub fn restart(&mut self, due: Tick) {
        *self = Self { due: Some(due), last: self.last, ..Self::default() };
    }

    /// No message any more.
    pub fn stop(&mut self) {
        *self = Self { last: self.last, ..Self::default() };
    }

    /// To be sent now, or as soon as the last copy is `apart` ago; or as planned, if that is sooner.
    pub fn hasten(&mut self, now: Tick, apart: Duration) {
        let free = self.last.map_or(now, |last| now.max(last + apart));
        self.due = Some(self.due.map_or(free, |planned| planned.min(free)));
    }

    /// A copy goes out; the next is due after `pause`.
    pub fn sent(&mut self, copy: Mid, now: Tick, pause: Duration) {
        self.attempts = self.attempts.saturating_add(1);
        self.last = Some(now);
        self.flying = Some(copy);
        self.due = Some(now + pause);
    }

    /// The broker took the copy.
    pub fn taken(&mut self, now: Tick) {
        self.flying = None;
        self.taken = self.taken.saturating_add(1);
        self.first_taken.get_or_insert(now);
    }

    /// When it is to be sent, unless a copy is on its way.
    pub fn wake(&self) -> Option<Tick> {
        self.due.filter(|_| self.flying.is_none())
    }

    /// Whether it is to be sent now.
    pub fn is_due(&self, now: Tick) -> bool {
        self.wake().is_some_and(|due| due <= now)
    }
}

/// What is known of the signature of the CSR in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Signature {
    /// Nothing.
    #[default]
    Unchecked,
    /// It is being checked.
    Checking,
    /// It is good.
    Good,
}

/// How far a bare ack has come to count.
///
/// A bare ack may be one that the device sends at each start, about its old certificate, while the
/// new one was never received. So the first is answered with one more copy of the certificate,
/// which the device is there to get; the next bare ack counts. Silence never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Echo {
    /// No bare ack yet.
    #[default]
    Silent,
    /// One came; the copy that answers it is to be sent.
    Owed,
    /// The copy was sent on that connection.
    Sent(ConnectionId),
}

impl Child {
    /// A child of which nothing is known yet.
    pub fn new(now: Now) -> Self {
        let stage = Stage::Done(Done { since: Stamp::now(now), outcome: Outcome::Nothing });
        Self {
            record: Record {
                stage,
                began: Stamp::now(now),
                rotation: None,
                nonce: None,
                csr_sig: None,
                not_after: None,
                requested: None,
                heard: None,
                current_key: None,
                superseded_keys: Vec::new(),
                superseded_certificates: Vec::new(),
                outbox: Outbox::default(),
            },
            changed: false,
            live: Live::default(),
        }
    }

    /// A child as the store knows it. What is due is drawn over the first pause.
    pub fn restored(
        mut record: Record,
        now: Now,
        settings: &Settings,
        rng: &mut fastrand::Rng,
    ) -> Self {
        record.each_stamp(|stamp| stamp.restore(now));
        let mut child = Self { record, changed: false, live: Live::default() };
        let live = &mut child.live;
        // The copy that went out before the restart counts as one that the broker keeps.
        live.sure_copy = Some(now.tick);
        match &child.record.stage {
            Stage::AwaitCsr(_) => {
                live.to_child = Repeat::begin(now.tick + settings.request.spread(rng));
            }
            Stage::AwaitCert(_) => live.csr = Repeat::begin(now.tick + settings.cloud.spread(rng)),
            Stage::AwaitAck(stage) => {
                live.confirmed = stage.since;
                live.to_child = Repeat::begin(now.tick + settings.certificate.spread(rng));
            }
            Stage::Done(_) => {}
        }
        let spread = now.tick + settings.cloud.spread(rng);
        child.restore_notices(now, spread);
        child
    }

    /// Notes that the child was heard, to the day.
    pub fn heard(&mut self, now: Now) {
        let recently = |heard: Occurred| !heard.at.is_older_than(HEARD_TO, now);
        if !self.record.heard.is_some_and(recently) {
            self.record.heard = Some(Occurred { at: Stamp::now(now) });
            self.changed = true;
        }
    }

    /// Whether the device was ever heard here.
    pub fn was_heard(&self) -> bool {
        self.record.heard.is_some()
    }

    /// Logs and counts a decision that was as it should be.
    pub fn step(&mut self, scene: &mut Scene<'_>, side: Side, reason: Reason) {
        self.note(scene, Weight::Step, Some(side), reason, None);
    }

    /// Logs and counts a refusal.
    pub fn refuse(&mut self, scene: &mut Scene<'_>, side: Side, reason: Reason) {
        self.refuse_with(scene, side, reason, None);
    }

    /// Logs and counts a refusal, with foreign words for it.
    pub fn refuse_with(
        &mut self,
        scene: &mut Scene<'_>,
        side: Side,
        reason: Reason,
        words: Option<String>,
    ) {
        self.note(scene, Weight::Refused, Some(side), reason, words);
    }

    /// Logs and counts a decision.
    pub fn note(
        &mut self,
        scene: &mut Scene<'_>,
        weight: Weight,
        side: Option<Side>,
        reason: Reason,
        detail: Option<String>,
    ) {
        self.live.reason = Some(reason);
        scene.counters.count(side, reason);
        scene.out.then.push(Effect::Note(Note {
            weight,
            side,
            child: Some(scene.name.clone()),
            state: self.record.stage.name(),
            reason,
            detail,
        }));
    }

    /// Goes to a stage; what was to be sent for the old one is not sent any more.
    pub fn go(&mut self, stage: Stage) {
        if let Stage::Done(Done { outcome: Outcome::Acked { certificate, .. }, .. }) =
            self.record.stage
        {
            self.supersede_certificate(certificate);
        }
        self.record.stage = stage;
        self.changed = true;
        self.live.to_child.stop();
        self.live.csr.stop();
        self.live.sure_copy = None;
        self.live.given = None;
        self.live.echo = Echo::Silent;
    }

    /// Asks the child for a CSR, at `due`. What an unfinished rotation held is given up.
    pub fn await_csr(&mut self, scene: &mut Scene<'_>, stage: AwaitCsr, due: Tick) {
        self.drop_bodies(scene);
        self.go(Stage::AwaitCsr(stage));
        self.live.to_child.restart(due);
    }

    /// Takes a CSR into the store. A key or certificate that it takes the place of is remembered.
    pub fn await_cert(
        &mut self,
        scene: &mut Scene<'_>,
        key: KeyDigest,
        message: CsrRes,
        unsolicited: bool,
    ) {
        self.drop_bodies(scene);
        self.record.csr_sig = message.sig;
        self.record.superseded_keys.retain(|known| *known != key);
        let csr = Csr { key, mid: scene.mid(), unsolicited };
        scene.out.writes.push(Write::Body(scene.name.clone(), Body::Csr, message.csr));
        self.go(Stage::AwaitCert(AwaitCert { since: Stamp::now(scene.now), csr }));
        self.live.signature = Signature::Unchecked;
        let mut due = scene.now.tick + scene.settings.settle;
        if let Some(last) = self.live.csr.last {
            due = due.max(last + CSR_APART);
        }
        if unsolicited {
            // One that replaces another that waits keeps its turn.
            let turn = self.live.turn.filter(|turn| *turn > scene.now.tick);
            let turn =
                turn.unwrap_or_else(|| scene.unsolicited.take(UNSOLICITED_APART, scene.now.tick));
            self.live.turn = Some(turn);
            due = due.max(turn);
        }
        self.live.csr.restart(due);
    }

    /// Takes a certificate into the store.
    pub fn await_ack(&mut self, scene: &mut Scene<'_>, stage: AwaitAck, body: Vec<u8>) {
        if let Stage::AwaitAck(held) = &self.record.stage {
            let superseded = held.certificate;
            self.supersede_certificate(superseded);
        }
        self.record.superseded_certificates.retain(|known| *known != stage.certificate);
        scene.out.writes.push(Write::Body(scene.name.clone(), Body::Certificate, body));
        self.go(Stage::AwaitAck(stage));
        self.live.confirmed = Stamp::now(scene.now);
        self.live.to_child.restart(scene.now.tick);
    }

    /// Ends the rotation.
    pub fn done(&mut self, scene: &mut Scene<'_>, outcome: Outcome) {
        match (&self.record.stage, &outcome) {
            (Stage::AwaitAck(held), Outcome::Acked { .. }) => {
                if let Some(before) = self.record.current_key.replace(held.csr.key) {
                    remember(&mut self.record.superseded_keys, before);
                }
                self.record.csr_sig = None;
                scene.out.writes.push(Write::DropBody(scene.name.clone(), Body::Csr));
                scene.out.writes.push(Write::DropBody(scene.name.clone(), Body::Certificate));
            }
            _ => self.drop_bodies(scene),
        }
        self.go(Stage::Done(Done { since: Stamp::now(scene.now), outcome }));
    }

    /// Gives up the CSR and the certificate, if there are any, and remembers that they were here.
    fn drop_bodies(&mut self, scene: &mut Scene<'_>) {
        let (key, certificate) = match &self.record.stage {
            Stage::AwaitCert(stage) => (Some(stage.csr.key), None),
            Stage::AwaitAck(stage) => (Some(stage.csr.key), Some(stage.certificate)),
            Stage::AwaitCsr(_) | Stage::Done(_) => (None, None),
        };
        if let Some(key) = key {
            self.record.csr_sig = None;
            remember(&mut self.record.superseded_keys, key);
            scene.out.writes.push(Write::DropBody(scene.name.clone(), Body::Csr));
        }
        if let Some(certificate) = certificate {
            self.supersede_certificate(certificate);
            if scene.is_core() {
                scene.out.then.push(Effect::Core(ForCore::Withdrawn(certificate)));
            }
            scene.out.writes.push(Write::DropBody(scene.name.clone(), Body::Certificate));
        }
    }

    pub fn supersede_certificate(&mut self, certificate: CertificateId) {
        remember(&mut self.record.superseded_certificates, certificate);
    }
}

/// Remembers the newest few.
fn remember<T: PartialEq>(list: &mut Vec<T>, item: T) {
    list.retain(|known| *known != item);
    list.push(item);
    if list.len() > REMEMBERED {
        list.remove(0);
    }
}
