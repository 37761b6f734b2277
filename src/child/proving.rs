//! The proofs that the child gives where a request asks for them: what is to be signed, and when
//! what was signed is outdated. Both proofs are by the key in use: the CSR's leaves before the
//! switch to the new pair, the ack's after it.

use super::{
    Child,
    saved::{AckNotice, Proof, Trying},
};
use crate::{
    proof,
    wire::{CertificateId, KeyDigest, Nonce, RotationId, Signature, ThingName},
};

/// A proof that is to be signed.
pub(super) fn unsigned(nonce: Nonce) -> Proof {
    Proof { nonce, sig: None }
}

/// The signature that goes out with a message, if one does; `None` while it is to be made.
pub(super) fn signature(proof: &Option<Proof>) -> Option<Option<Signature>> {
    match proof {
        None => Some(None),
        Some(proof) => proof.sig.clone().map(Some),
    }
}

/// What a proof is about.
#[derive(Debug, Clone, Copy)]
enum Subject {
    Csr(KeyDigest),
    Ack(CertificateId),
}

impl Subject {
    fn text(self, thing: &ThingName, nonce: Nonce) -> Vec<u8> {
        match self {
            Self::Csr(key) => proof::csr_text(thing, key, nonce),
            Self::Ack(certificate) => proof::ack_text(thing, certificate, nonce),
        }
    }
}

impl Child {
    /// What is to be signed next.
    pub(super) fn next_to_sign(&mut self) -> Option<Vec<u8>> {
        let thing = self.settings.thing.clone();
        self.proofs().find_map(|(subject, proof)| {
            let proof = proof.as_ref().filter(|proof| proof.sig.is_none())?;
            Some(subject.text(&thing, proof.nonce))
        })
    }

    /// A text is signed. Without a signature the message goes as it would have gone without a nonce:
    /// what becomes of it is the cloud's to decide.
    pub(super) fn on_signed(&mut self, text: &[u8], sig: Option<&Signature>) {
        let thing = self.settings.thing.clone();
        for (subject, proof) in self.proofs() {
            let waiting = proof.as_ref().filter(|proof| proof.sig.is_none());
            let nonce = waiting.map(|proof| proof.nonce);
            if let Some(nonce) = nonce.filter(|nonce| subject.text(&thing, *nonce) == text) {
                *proof = sig.map(|sig| Proof { nonce, sig: Some(sig.clone()) });
            }
        }
    }

    fn proofs(&mut self) -> impl Iterator<Item = (Subject, &mut Option<Proof>)> {
        let csr = self.saved.stage.asked_mut();
        let csr = csr.map(|asked| (Subject::Csr(asked.key), &mut asked.proof));
        let acks = [&mut self.saved.notices.ack, &mut self.passing.ack].into_iter().flatten();
        let acks = acks.map(|ack| (Subject::Ack(ack.certificate), &mut ack.proof));
        csr.into_iter().chain(acks)
    }

    /// What the proof of a new pair's ack is to be about. One that has the key in use may belong to
    /// the rotation before.
    pub(super) fn nonce_of(&self, trying: &Trying) -> Option<Nonce> {
        match &trying.asked {
            Some(asked) => asked.proof.as_ref().map(|proof| proof.nonce),
            None => self.nonce_of_finished(trying.rotation.as_ref()),
        }
    }

    fn nonce_of_finished(&self, rotation: Option<&RotationId>) -> Option<Nonce> {
        let last = self.saved.finished.as_ref()?;
        last.nonce.filter(|_| last.rotation.as_ref() == rotation)
    }

    /// The newest request for the CSR under way: its proof is to be about this. A request that names
    /// no other rotation and carries no nonce changes nothing.
    pub(super) fn ask_proof(&mut self, rotation: Option<&RotationId>, nonce: Option<Nonce>) {
        let Some(asked) = self.saved.stage.asked_mut() else { return };
        let is_other = rotation.is_some() && rotation != asked.rotation.as_ref();
        let before = asked.proof.as_ref().map(|proof| proof.nonce);
        if (nonce.is_some() || is_other) && nonce != before {
            asked.proof = nonce.map(unsigned);
        }
    }

    /// Says once more which certificate is in use; with a nonce, about that.
    pub(super) fn acknowledge_again(&mut self, rotation: Option<RotationId>, nonce: Option<Nonce>) {
        let certificate = self.current.facts.id;
        if let Some(last) = &mut self.saved.finished
            && nonce.is_some()
        {
            last.nonce = nonce;
        }
        let last = self.saved.finished.as_ref().and_then(|last| last.rotation.clone());
        let rotation = rotation.or(last);
        let nonce = nonce.or_else(|| self.nonce_of_finished(rotation.as_ref()));
        if nonce.is_some() {
            self.outdate_acks(nonce);
        }
        self.passing.ack = Some(AckNotice { certificate, rotation, proof: nonce.map(unsigned) });
    }

    /// An ack that waits or is on its way with a proof about something else is sent with a new one.
    fn outdate_acks(&mut self, nonce: Option<Nonce>) {
        for ack in [&mut self.saved.notices.ack, &mut self.passing.ack].into_iter().flatten() {
            if ack.proof.as_ref().map(|proof| proof.nonce) != nonce {
                ack.proof = nonce.map(unsigned);
                self.out.ack = None;
            }
        }
    }
}
