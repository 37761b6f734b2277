//! The optional proof, end to end: a device signs that a CSR and an ack are its own, so that its core
//! can't rotate it by itself. What is signed, and how a signature is checked. Pure.
//!
//! A CSR is vouched for by the key in use, an ack by the new one; both over the `nonce` of the
//! request, so that nothing from an earlier rotation fits. Gateways pass the fields through and
//! judge nothing.

use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use x509_parser::{
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
    },
    prelude::FromDer,
    x509::SubjectPublicKeyInfo,
};

use crate::wire::{CertificateId, KeyDigest, Nonce, Signature, ThingName};

/// Why a proof does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The public key can't be read, or signatures by its kind can't be checked.
    #[error("no signature by this kind of key can be checked")]
    Unsupported,
    /// The signature is not by this key, or not of this text.
    #[error("the signature does not fit")]
    Mismatch,
}

/// What the key in use signs, to vouch for the CSR of a new key.
pub fn csr_text(thing: &ThingName, new: KeyDigest, nonce: Nonce) -> Vec<u8> {
    format!("certrelay csr_res v1\n{thing}\n{new}\n{nonce}").into_bytes()
}

/// What the new key signs, to say that its certificate is in use.
pub fn ack_text(thing: &ThingName, certificate: CertificateId, nonce: Nonce) -> Vec<u8> {
    format!("certrelay crt_ack v1\n{thing}\n{certificate}\n{nonce}").into_bytes()
}

/// Checks a signature of a text by the key of a SubjectPublicKeyInfo (DER).
pub fn verify(spki: &[u8], text: &[u8], signature: &Signature) -> Result<(), ProofError> {
    let (_, spki) = SubjectPublicKeyInfo::from_der(spki).map_err(|_| ProofError::Unsupported)?;
    let algorithm = algorithm(&spki).ok_or(ProofError::Unsupported)?;
    let key = UnparsedPublicKey::new(algorithm, &spki.subject_public_key.data);
    key.verify(text, signature.as_bytes()).map_err(|_| ProofError::Mismatch)
}

fn algorithm(spki: &SubjectPublicKeyInfo<'_>) -> Option<&'static dyn VerificationAlgorithm> {
    let kind = &spki.algorithm.algorithm;
    if *kind == OID_PKCS1_RSAENCRYPTION {
        return Some(&RSA_PKCS1_2048_8192_SHA256);
    }
    if *kind != OID_KEY_TYPE_EC_PUBLIC_KEY {
        return None;
    }
    match spki.algorithm.parameters.as_ref()?.as_oid().ok()? {
        curve if curve == OID_EC_P256 => Some(&ECDSA_P256_SHA256_ASN1),
        curve if curve == OID_NIST_EC_P384 => Some(&ECDSA_P384_SHA384_ASN1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{KeyKind, PrivateKey};

    const NONCE: Nonce = Nonce([7; 16]);

    fn thing() -> ThingName {
        "press-1".parse().expect("a name")
    }

    fn spki(key: &PrivateKey) -> Vec<u8> {
        let csr = key.csr(&thing()).expect("a CSR");
        let csr = x509_parser::certification_request::X509CertificationRequest::from_der(&csr);
        csr.expect("a CSR").1.certification_request_info.subject_pki.raw.to_vec()
    }

    #[test]
    fn a_proof_holds_for_its_own_key_thing_nonce_and_subject_only() {
        for kind in [KeyKind::P256, KeyKind::P384, KeyKind::Rsa2048] {
            let key = PrivateKey::generate(kind).expect("a key");
            let other = PrivateKey::generate(KeyKind::P256).expect("a key");
            let text = csr_text(&thing(), other.digest(), NONCE);
            let signature = key.sign(&text).expect("signs");
            assert_eq!(verify(&spki(&key), &text, &signature), Ok(()), "{kind:?}");
            let mismatch = Err(ProofError::Mismatch);
            assert_eq!(verify(&spki(&other), &text, &signature), mismatch);
            let press_2 = "press-2".parse().expect("a name");
            for text in [
                csr_text(&press_2, other.digest(), NONCE),
                csr_text(&thing(), key.digest(), NONCE),
                csr_text(&thing(), other.digest(), Nonce([8; 16])),
                ack_text(&thing(), CertificateId(other.digest().0), NONCE),
            ] {
                assert_eq!(verify(&spki(&key), &text, &signature), mismatch);
            }
        }
    }

    #[test]
    fn a_key_that_can_not_be_checked_is_said_to_be_one() {
        let signature = Signature::new(vec![1; 64]).expect("short");
        assert_eq!(verify(b"no key", b"text", &signature), Err(ProofError::Unsupported));
    }

    #[test]
    fn a_signature_reads_back_from_the_wire_and_is_bounded() {
        let signature = Signature::new(vec![9; 512]).expect("short");
        assert_eq!(signature.to_string().parse::<Signature>(), Ok(signature));
        assert!("A".repeat(1028).parse::<Signature>().is_err());
        assert!("no base64!".parse::<Signature>().is_err());
        assert!(Signature::new(vec![0; 769]).is_none());
    }
}
