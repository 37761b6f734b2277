//! Which public keys are good enough, and the digest that names one.
//!
//! The rule is AWS IoT's for `CreateCertificateFromCsr`: RSA from 2048 bits, or P-256, P-384 and
//! P-521. Never touches a private key.

use x509_parser::{
    der_parser::oid::Oid,
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521,
        OID_PKCS1_RSAENCRYPTION,
    },
    public_key::{PublicKey, RSAPublicKey},
    x509::SubjectPublicKeyInfo,
};

use super::Refusal;
use crate::{reason::Reason, wire::KeyDigest};

/// RSA moduli that are taken, in bits. The upper end is the most that our verifier reads.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Names a key: the SHA-256 of the DER of its SubjectPublicKeyInfo. Total: any bytes have one.
pub fn key_digest_of_spki(spki: &[u8]) -> KeyDigest {
    KeyDigest(sha256(spki))
}

/// The SHA-256 of some bytes.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Accepts a key by its kind and length.
pub(super) fn accept_key(spki: &SubjectPublicKeyInfo<'_>) -> Result<(), Refusal> {
    let unsupported = Refusal(Reason::UnsupportedKey);
    let kind = &spki.algorithm.algorithm;
    if *kind == OID_PKCS1_RSAENCRYPTION {
        match spki.parsed() {
            Ok(PublicKey::RSA(key)) => accept_rsa(&key),
            _ => Err(unsupported),
        }
    } else if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = spki.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
        let point = curve.and_then(|curve| point_length(&curve)).ok_or(unsupported)?;
        is_point(&spki.subject_public_key.data, point).then_some(()).ok_or(unsupported)
    } else {
        Err(unsupported)
    }
}

/// A short key is weak, and so is one whose modulus or exponent is even or whose exponent is 1:
/// anyone can sign for such a key.
fn accept_rsa(key: &RSAPublicKey<'_>) -> Result<(), Refusal> {
    let bits = bits(key.modulus);
    if bits > *RSA_BITS.end() {
        return Err(Refusal(Reason::UnsupportedKey));
    }
    let sound = is_odd(key.modulus) && is_odd(key.exponent) && self::bits(key.exponent) > 1;
    if sound && RSA_BITS.contains(&bits) { Ok(()) } else { Err(Refusal(Reason::WeakKey)) }
}

/// The length of a big-endian number without its leading zeros.
fn bits(number: &[u8]) -> usize {
    match number.iter().position(|byte| *byte != 0) {
        None => 0,
        Some(zeros) => (number.len() - zeros) * 8 - number[zeros].leading_zeros() as usize,
    }
}

fn is_odd(number: &[u8]) -> bool {
    number.last().is_some_and(|byte| byte & 1 == 1)
}

/// Whether the key is on P-521, for which ring verifies nothing.
pub(super) fn is_p521(spki: &SubjectPublicKeyInfo<'_>) -> bool {
    let curve = spki.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
    spki.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_NIST_EC_P521)
}

/// How many bytes a coordinate has on a curve that is taken.
fn point_length(curve: &Oid<'_>) -> Option<usize> {
    [(OID_EC_P256, 32), (OID_NIST_EC_P384, 48), (OID_NIST_EC_P521, 66)]
        .into_iter()
        .find_map(|(oid, bytes)| (oid == *curve).then_some(bytes))
}

/// Only uncompressed points, which is what TLS allows.
fn is_point(data: &[u8], coordinate: usize) -> bool {
    data.len() == 1 + 2 * coordinate && data[0] == 4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<(), Reason> {
        accept_rsa(&RSAPublicKey { modulus, exponent }).map_err(|refusal| refusal.0)
    }

    #[test]
    fn an_rsa_key_is_as_long_as_its_modulus_without_leading_zeros() {
        let modulus = |bytes: usize| [vec![0x80], vec![0xff; bytes - 1]].concat();
        assert_eq!(rsa(&modulus(256), &[1, 0, 1]), Ok(()));
        assert_eq!(rsa(&modulus(1024), &[1, 0, 1]), Ok(()));
        assert_eq!(rsa(&modulus(255), &[1, 0, 1]), Err(Reason::WeakKey));
        assert_eq!(rsa(&modulus(1025), &[1, 0, 1]), Err(Reason::UnsupportedKey));
        let padded = [vec![0; 128], modulus(128)].concat();
        assert_eq!(rsa(&padded, &[1, 0, 1]), Err(Reason::WeakKey));
        assert_eq!(rsa(&[vec![0x7f], vec![0xff; 255]].concat(), &[3]), Err(Reason::WeakKey));
        assert_eq!(rsa(&[], &[]), Err(Reason::WeakKey));
    }

    #[test]
    fn an_rsa_key_that_anyone_can_sign_for_is_weak() {
        let modulus = [vec![0x80], vec![0xff; 255]].concat();
        for exponent in [[0u8].as_slice(), &[1], &[0, 1], &[2], &[]] {
            assert_eq!(rsa(&modulus, exponent), Err(Reason::WeakKey), "{exponent:?}");
        }
        assert_eq!(rsa(&[0x80; 256], &[3]), Err(Reason::WeakKey));
    }
}
