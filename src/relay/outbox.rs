//! What the cloud has yet to hear of a child: `crt_ack` and `crt_err`, and how far they came.
//!
//! A notice climbs from here to the cloud's broker (our own message came back) to settled (the
//! cloud said what became of it). It is repeated until it is at the broker, kept and sent again
//! after a day and a week until it is settled, and ends visibly whatever happens.

use std::time::Duration;

use super::{
    child::{Child, Repeat, Scene},
    event::{Content, Effect, ForCore, Side, Weight},
    record::{Notice, Outbox, Reached, Says},
};
use crate::{
    reason::Reason,
    schedule::{Now, Stamp, Tick},
    wire::{AckProof, CertificateId, Header, Kind, Mid, RotationId, Signature, Verdict, render},
};

/// One error a child and code goes upstream in so long.
const ERRORS_APART: Duration = Duration::from_secs(3600);

/// So many errors a child, whatever their code, go upstream in that time.
const ERRORS: usize = 8;

/// A notice at the broker is sent again after so long since it came there.
const AGAIN: [Duration; 2] = [Duration::from_secs(86_400), Duration::from_secs(7 * 86_400)];

/// A notice that the broker took so often, over so long, and that never came back, ends.
const UNCONFIRMED: (u32, Duration) = (3, Duration::from_secs(86_400));

/// An error that the cloud is to hear of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Complaint<'a> {
    pub code: &'a str,
    /// Escaped, at most 256 bytes.
    pub words: &'a str,
    pub certificate: Option<CertificateId>,
    /// The rotation that it is about; `None`: the record's.
    pub rotation: Option<&'a RotationId>,
}

impl Complaint<'_> {
    /// A refusal of ours.
    pub fn ours(reason: Reason, certificate: Option<CertificateId>) -> Self {
        Self { code: reason.as_str(), words: reason.explain(), certificate, rotation: None }
    }
}

/// One of the two notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// `crt_ack`.
    Ack,
    /// `crt_err`.
    Err,
}

impl Slot {
    pub const ALL: [Self; 2] = [Self::Ack, Self::Err];

    pub fn kind(self) -> Kind {
        match self {
            Self::Ack => Kind::CrtAck,
            Self::Err => Kind::CrtErr,
        }
    }

    pub fn notice(self, outbox: &Outbox) -> Option<&Notice> {
        match self {
            Self::Ack => outbox.ack.as_deref(),
            Self::Err => outbox.err.as_deref(),
        }
    }

    fn notice_mut(self, outbox: &mut Outbox) -> &mut Option<Box<Notice>> {
        match self {
            Self::Ack => &mut outbox.ack,
            Self::Err => &mut outbox.err,
        }
    }
}

impl Child {
    /// How often and when the notice in a slot is sent.
    pub fn repeat_of(&mut self, slot: Slot) -> &mut Repeat {
        match slot {
            Slot::Ack => &mut self.live.ack,
            Slot::Err => &mut self.live.err,
        }
    }

    /// The cloud is to hear that the certificate is in use.
    pub fn say_acked(
        &mut self,
        scene: &mut Scene<'_>,
        certificate: CertificateId,
        proof: AckProof,
        sig: Option<Signature>,
    ) {
        self.say(scene, Slot::Ack, Says::Acked { certificate, proof, sig });
    }

    /// The cloud is to hear of a refusal of ours.
    pub fn report(
        &mut self,
        scene: &mut Scene<'_>,
        reason: Reason,
        certificate: Option<CertificateId>,
    ) {
        self.report_words(scene, Complaint::ours(reason, certificate));
    }

    /// The cloud is to hear of an error, unless one child has caused too many.
    pub fn report_words(&mut self, scene: &mut Scene<'_>, error: Complaint<'_>) {
        if self.errors_until(scene.now.tick, error.code).is_some() {
            return scene.counters.count(None, Reason::ErrorSuppressed);
        }
        self.say_failed(scene, error, scene.now.tick);
    }

    /// The cloud is to hear of an error that ends a rotation: if the child has caused too many,
    /// then later.
    pub fn report_end(&mut self, scene: &mut Scene<'_>, error: Complaint<'_>) {
        let due = self.errors_until(scene.now.tick, error.code).unwrap_or(scene.now.tick);
        self.say_failed(scene, error, due);
    }

    /// Until when errors of this code, or all of the child's, are held back, if they are.
    fn errors_until(&mut self, now: Tick, code: &str) -> Option<Tick> {
        let errors = &mut self.live.errors;
        errors.retain(|(_, at)| *at + ERRORS_APART > now);
        let same = errors.iter().filter(|(known, _)| known == code).map(|(_, at)| *at).max();
        let oldest = errors.first().filter(|_| errors.len() >= ERRORS).map(|(_, at)| *at);
        same.max(oldest).map(|at| at + ERRORS_APART)
    }

    /// The cloud is to hear of an error, whatever it has heard.
    pub fn say_failed(&mut self, scene: &mut Scene<'_>, error: Complaint<'_>, due: Tick) {
        let errors = &mut self.live.errors;
        errors.push((error.code.to_owned(), due));
        if errors.len() > ERRORS {
            errors.remove(0);
        }
        let (code, words) = (error.code.to_owned(), error.words.to_owned());
        let says = Says::Failed { code, error: words, certificate: error.certificate };
        self.say(scene, Slot::Err, says);
        if let (Some(rotation), Some(notice)) = (error.rotation, &mut self.record.outbox.err) {
            notice.rotation = Some(rotation.clone());
        }
        self.live.err.restart(due);
    }

    fn say(&mut self, scene: &mut Scene<'_>, slot: Slot, says: Says) {
        let notice = Notice {
            mid: scene.mid(),
            rotation: self.record.rotation.clone(),
            says,
            reached: Reached::Here { since: Stamp::now(scene.now) },
        };
        if slot.notice_mut(&mut self.record.outbox).replace(Box::new(notice)).is_some() {
            scene.counters.count(None, Reason::Superseded);
        }
        self.changed = true;
        self.repeat_of(slot).restart(scene.now.tick);
    }

    /// Our own message came back from the cloud's broker.
    pub fn on_receipt(&mut self, scene: &mut Scene<'_>, mid: Mid) {
        for slot in Slot::ALL {
            let asked = self.repeat_of(slot).attempts > 0;
            let Some(notice) = slot.notice_mut(&mut self.record.outbox) else { continue };
            if notice.mid != mid {
                continue;
            }
            match &mut notice.reached {
                Reached::Broker { again, .. } if asked => *again = again.saturating_add(1),
                Reached::Broker { .. } => continue,
                here => *here = Reached::Broker { since: Stamp::now(scene.now), again: 0 },
            }
            self.changed = true;
            self.plan_again(scene, slot);
        }
    }

    /// Plans when a notice that is at the broker is sent once more; the last time was the last.
    fn plan_again(&mut self, scene: &mut Scene<'_>, slot: Slot) {
        let Some(notice) = slot.notice(&self.record.outbox) else { return };
        let Reached::Broker { since, again } = notice.reached else { return };
        match AGAIN.get(usize::from(again)) {
            Some(age) => match since.reaches(*age, scene.now) {
                Some(due) => self.repeat_of(slot).restart(due),
                None => self.repeat_of(slot).restart(scene.now.tick + *age),
            },
            None => self.end_notice(scene, slot, Weight::Refused, Reason::Unsettled),
        }
    }

    /// `result` for a notice.
    pub fn on_notice_verdict(&mut self, scene: &mut Scene<'_>, about: Kind, verdict: &Verdict) {
        let slot = if about == Kind::CrtAck { Slot::Ack } else { Slot::Err };
        if verdict.ok {
            if let Some(Says::Acked { certificate, .. }) =
                slot.notice(&self.record.outbox).map(|notice| &notice.says)
                && scene.is_core()
            {
                scene.out.then.push(Effect::Core(ForCore::Settled(*certificate)));
            }
            self.end_notice(scene, slot, Weight::Step, Reason::Settled);
        } else if verdict.is_final {
            self.end_notice(scene, slot, Weight::Alarm, Reason::CloudRefused);
        } else {
            self.refuse_with(scene, Side::Cloud, Reason::CloudDeferred, verdict.code.clone());
        }
    }

    /// Ends a notice that was taken often enough and never came back.
    pub fn end_unconfirmed(&mut self, scene: &mut Scene<'_>) {
        for slot in Slot::ALL {
            if slot.notice(&self.record.outbox).is_some()
                && self.repeat_of(slot).is_unconfirmed(scene.now.tick)
            {
                self.end_notice(scene, slot, Weight::Alarm, Reason::Unconfirmed);
            }
        }
    }

    fn end_notice(&mut self, scene: &mut Scene<'_>, slot: Slot, weight: Weight, reason: Reason) {
        *slot.notice_mut(&mut self.record.outbox) = None;
        self.repeat_of(slot).stop();
        self.changed = true;
        self.note(scene, weight, Some(Side::Cloud), reason, None);
    }

    /// An ack that may be on its way is not sent again.
    pub fn take_back_ack(&mut self) {
        self.changed |= self.record.outbox.ack.take().is_some();
        self.live.ack.stop();
    }

    /// Plans the notices of a child that comes from the store.
    pub fn restore_notices(&mut self, now: Now, spread: Tick) {
        for slot in Slot::ALL {
            let Some(notice) = slot.notice(&self.record.outbox) else { continue };
            let due = match notice.reached {
                Reached::Here { .. } => spread,
                Reached::Broker { since, again } => AGAIN
                    .get(usize::from(again))
                    .and_then(|age| since.reaches(*age, now))
                    .map_or(spread, |due| due.max(spread)),
            };
            *self.repeat_of(slot) = Repeat::begin(due);
        }
    }
}

impl Repeat {
    fn is_unconfirmed(&self, now: Tick) -> bool {
        let (copies, over) = UNCONFIRMED;
        self.taken >= copies && self.first_taken.is_some_and(|first| now - first >= over)
    }
}

impl Notice {
    /// The payload, as the core `core` sends it.
    pub(super) fn content(&self, core: &crate::wire::ThingName) -> Content {
        let header = Header {
            rotation: self.rotation.clone(),
            core: Some(core.clone()),
            mid: Some(self.mid),
        };
        Content::Ready(match &self.says {
            Says::Acked { certificate, proof, sig } => {
                render::crt_ack(&header, Some(*certificate), Some(*proof), sig.as_ref())
            }
            Says::Failed { code, error, certificate } => {
                render::crt_err(&header, code, error, *certificate)
            }
        })
    }
}
