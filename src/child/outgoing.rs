//! What the child sends: the CSR and the notices, each again on the next connection until the broker
//! has it. No CSR leaves before its key is durable, and nothing before it is signed where it is to be.

use super::{Child, Effect, Told, line::Line, proving::signature};
use crate::wire::{Header, Kind, Mid, RotationId, render};

/// Messages that the broker has not acknowledged on this connection.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub(super) csr: Option<Mid>,
    pub(super) ack: Option<Mid>,
    pub(super) err: Option<Mid>,
}

impl Child {
    /// Sends what is to be sent, one message of a kind at a time.
    pub(super) fn publish(&mut self, effects: &mut Vec<Effect>) {
        let Line::Up { generation, .. } = self.line else {
            return;
        };
        if self.csr_due && self.is_durable() && self.out.csr.is_none() {
            self.publish_csr(effects);
        }
        if self.out.ack.is_none() && generation == self.current.generation {
            self.publish_ack(effects);
        }
        if self.out.err.is_none() {
            self.publish_err(effects);
        }
    }

    fn publish_csr(&mut self, effects: &mut Vec<Effect>) {
        let (Some(asked), Some(waiting)) = (&self.asked, self.saved.stage.asked()) else {
            return;
        };
        let Some(sig) = signature(&waiting.proof) else { return };
        let (csr, key, rotation) = (asked.csr.clone(), waiting.key, waiting.rotation.clone());
        let header = self.header(rotation);
        self.csr_due = false;
        self.out.csr = header.mid;
        let payload = render::csr_res(&header, &csr, sig.as_ref());
        self.send(Kind::CsrRes, &header, payload, effects);
        effects.push(Effect::Tell(Told::CsrSent(key)));
    }

    fn publish_ack(&mut self, effects: &mut Vec<Effect>) {
        let Some(ack) = self.saved.notices.ack.as_ref().or(self.passing.ack.as_ref()).cloned()
        else {
            return;
        };
        let Some(sig) = signature(&ack.proof) else { return };
        let header = self.header(ack.rotation);
        self.out.ack = header.mid;
        let payload = render::crt_ack(&header, Some(ack.certificate), None, sig.as_ref());
        self.send(Kind::CrtAck, &header, payload, effects);
    }

    fn publish_err(&mut self, effects: &mut Vec<Effect>) {
        let Some(err) = self.saved.notices.err.as_ref().or(self.passing.err.as_ref()).cloned()
        else {
            return;
        };
        let header = self.header(err.rotation);
        self.out.err = header.mid;
        let payload = render::crt_err(&header, &err.code, &err.error, err.certificate);
        self.send(Kind::CrtErr, &header, payload, effects);
    }

    fn header(&mut self, rotation: Option<RotationId>) -> Header {
        Header { rotation, core: None, mid: Some(Mid(self.rng.u128(..).to_be_bytes())) }
    }

    fn send(&mut self, kind: Kind, header: &Header, payload: Vec<u8>, effects: &mut Vec<Effect>) {
        let mid = header.mid.expect("every header made here has a message id");
        let topic = self.settings.topics.topic(&self.settings.thing, kind);
        effects.push(Effect::Publish { mid, topic, payload });
    }

    /// The broker has a message.
    pub(super) fn on_published(&mut self, mid: Mid, effects: &mut Vec<Effect>) {
        let mid = Some(mid);
        if self.out.csr == mid {
            self.out.csr = None;
        } else if self.out.ack == mid {
            self.out.ack = None;
            let passing = self.passing.ack.take();
            if let Some(ack) = self.saved.notices.ack.take().or(passing) {
                effects.push(Effect::Tell(Told::Acked(ack.certificate)));
            }
        } else if self.out.err == mid {
            self.out.err = None;
            if self.saved.notices.err.take().is_none() {
                self.passing.err = None;
            }
        }
    }

    /// What was on its way when a connection ended is to be sent again.
    pub(super) fn forget_outgoing(&mut self) {
        let out = std::mem::take(&mut self.out);
        self.csr_due |= out.csr.is_some() && self.asked.is_some();
    }
}
