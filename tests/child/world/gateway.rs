//! What the gateway says to the child, what it hears from it, and what it then holds against it.

use certrelay::{
    child::{Event, Stage},
    install::{Credentials, Generation},
    proof,
    wire::{
        AckName, CrtAck, CrtErr, CsrRes, Header, KeyDigest, Kind, Nonce, RotationId, Signature,
        render,
    },
    x509::{CommonNameRule, accept_csr, certificate_spki, verify_csr_signature},
};

use super::{World, sign, thing, topics};

impl World {
    pub(super) fn gateway_speaks(&mut self) -> Option<Event> {
        self.line?;
        if let Some(rotation) = self.request_due.take() {
            let header = Header { rotation, ..Header::default() };
            self.send(Kind::CsrReq, render::csr_req(&header, None, self.nonce));
        } else if self.certificate_due && !self.hold_certificate {
            self.deliver_certificate();
        }
        self.queue.pop_front()
    }

    pub(super) fn deliver_certificate(&mut self) {
        self.certificate_due = false;
        let Some((_, rotation, leaf)) = self.issued.last() else {
            return;
        };
        let header = Header { rotation: rotation.clone(), ..Header::default() };
        let payload = render::crt(&header, [leaf.as_slice()]);
        self.send(Kind::Crt, payload);
    }

    pub(super) fn send(&mut self, kind: Kind, payload: Vec<u8>) {
        let topic = topics().topic(&thing(), kind);
        self.queue.push_back(Event::Message { topic, payload, retain: false });
    }

    pub(super) fn issue(&mut self, key: KeyDigest, rotation: Option<RotationId>, csr: &[u8]) {
        let leaf = sign(&self.issuer, csr, 100 + self.issued.len() as u64);
        self.issued.push((key, rotation, leaf));
        self.certificate_due = true;
    }

    pub(super) fn gateway_hears(&mut self, topic: &str, payload: &[u8], session: Generation) {
        let (_, kind) = topics().read(topic).expect("a topic of ours");
        match kind {
            Kind::CsrRes => self.hear_csr(&CsrRes::parse(payload).expect("readable")),
            Kind::CrtAck => self.hear_ack(&CrtAck::parse(payload).expect("readable"), session),
            Kind::CrtErr => self.errors.push(CrtErr::parse(payload).expect("readable")),
            other => panic!("a child sends no {other}"),
        }
    }

    fn hear_csr(&mut self, message: &CsrRes) {
        let key = accept_csr(&message.csr, &thing(), CommonNameRule::Match).expect("acceptable");
        verify_csr_signature(&message.csr).expect("signed");
        let found = self.load();
        assert_eq!(found.pending.csr.as_ref(), Some(&message.csr), "durable before it leaves");
        assert_eq!(found.saved.stage.asked().map(|asked| asked.key), Some(key));
        // The switch may just have been made; the proof was made before.
        let in_use = match &found.saved.stage {
            Stage::Trying(trying) => trying.replaces,
            _ => found.current.generation,
        };
        let proof =
            self.proof(in_use, message.sig.clone(), |nonce| proof::csr_text(&thing(), key, nonce));
        self.csr_proofs.push(proof);
        let rotation = message.header.rotation.clone();
        self.csrs.push((rotation.clone(), key));
        match self.issued.last() {
            Some(last) if last.0 == key => self.certificate_due = true,
            _ => self.issue(key, rotation, &message.csr.clone()),
        }
    }

    fn hear_ack(&mut self, message: &CrtAck, session: Generation) {
        let AckName::Named(id) = message.certificate else {
            panic!("every ack is named");
        };
        let credentials = Credentials::look(self.dir.path());
        let used = credentials.facts(session).expect("the session's pair").id;
        assert_eq!(id, used, "an ack goes on a session of its own certificate");
        assert_eq!(credentials.current(), Some(session), "and after the switch");
        self.acks.push((id, message.header.rotation.clone()));
        let proof =
            self.proof(session, message.sig.clone(), |nonce| proof::ack_text(&thing(), id, nonce));
        self.ack_proofs.push(proof);
    }

    /// About which nonce a proof by a pair's key is; it is about one that a test may have used.
    fn proof(
        &self,
        pair: Generation,
        sig: Option<Signature>,
        text: impl Fn(Nonce) -> Vec<u8>,
    ) -> Option<(Nonce, Signature)> {
        let sig = sig?;
        let pair = Credentials::look(self.dir.path()).pair(pair).expect("a pair");
        let spki = certificate_spki(pair.leaf()).expect("readable");
        let holds = |nonce: &Nonce| proof::verify(&spki, &text(*nonce), &sig).is_ok();
        let nonce = (0..9).map(|n| Nonce([n; 16])).find(holds);
        Some((nonce.expect("the proof holds for a nonce that was sent"), sig))
    }
}
