//! CSRs, written by hand: a subject is copied byte by byte, whatever its names and string types,
//! which no builder of CSRs would do. Pure.

use rustls::{SignatureScheme, sign::SigningKey};
use x509_parser::{
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384},
    prelude::FromDer,
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

use super::{KeyError, KeyKind};
use crate::wire::ThingName;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const BIT_STRING: u8 = 0x03;
const UTF8_STRING: u8 = 0x0c;

/// The CN's OID.
const COMMON_NAME: &[u8] = b"\x06\x03\x55\x04\x03";
/// Version 1.
const VERSION: &[u8] = b"\x02\x01\x00";
/// No attributes.
const NO_ATTRIBUTES: &[u8] = b"\xa0\x00";

const RSA_SHA256: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00";
const ECDSA_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
const ECDSA_SHA384: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03";

/// The kind of a key, if it is one that can be made here.
pub(super) fn kind_of_spki(spki: &[u8]) -> Option<KeyKind> {
    let (_, spki) = SubjectPublicKeyInfo::from_der(spki).ok()?;
    match spki.parsed().ok()? {
        PublicKey::RSA(key) => match key.key_size() {
            2048 => Some(KeyKind::Rsa2048),
            3072 => Some(KeyKind::Rsa3072),
            4096 => Some(KeyKind::Rsa4096),
            _ => None,
        },
        _ if spki.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY => None,
        _ => match spki.algorithm.parameters.as_ref()?.as_oid().ok()? {
            curve if curve == OID_EC_P256 => Some(KeyKind::P256),
            curve if curve == OID_NIST_EC_P384 => Some(KeyKind::P384),
            _ => None,
        },
    }
}

/// The name `CN = <a thing's>`.
pub(super) fn common_name(name: &ThingName) -> Vec<u8> {
    let value = der(UTF8_STRING, &[name.as_str().as_bytes()]);
    let attribute = der(SEQUENCE, &[COMMON_NAME, &value]);
    der(SEQUENCE, &[&der(SET, &[&attribute])])
}

/// Signs a CSR.
pub(super) fn sign(
    key: &dyn SigningKey,
    kind: Option<KeyKind>,
    subject: &[u8],
    spki: &[u8],
) -> Result<Vec<u8>, KeyError> {
    let (scheme, algorithm) = match kind.ok_or(KeyError::Unsupported)? {
        KeyKind::P256 => (SignatureScheme::ECDSA_NISTP256_SHA256, ECDSA_SHA256),
        KeyKind::P384 => (SignatureScheme::ECDSA_NISTP384_SHA384, ECDSA_SHA384),
        KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => {
            (SignatureScheme::RSA_PKCS1_SHA256, RSA_SHA256)
        }
    };
    let request = der(SEQUENCE, &[VERSION, subject, spki, NO_ATTRIBUTES]);
    let signer = key.choose_scheme(&[scheme]).ok_or(KeyError::Unsupported)?;
    let signature = signer.sign(&request).map_err(|e| KeyError::Csr(e.to_string()))?;
    Ok(der(SEQUENCE, &[&request, algorithm, &der(BIT_STRING, &[&[0], &signature])]))
}

/// A DER value.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = body.len().to_be_bytes();
    let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let head = match (length, u8::try_from(length.len())) {
        ([], _) => vec![0],
        ([short @ ..=0x7f], _) => vec![*short],
        (long, bytes) => {
            // A length has eight bytes at most.
            [&[0x80 | bytes.unwrap_or(8)], long].concat()
        }
    };
    [vec![tag], head, body].concat()
}
