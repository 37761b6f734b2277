//! What we write: one spelling of each message.

use pem::Pem;
use serde::Serialize;

use super::{
    ids::{CertificateId, Mid, Nonce, Signature},
    payload::{AckProof, Header},
};
use crate::schedule::Timestamp;

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Out<'a> {
    #[serde(rename = "CSR", skip_serializing_if = "Option::is_none")]
    csr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_pem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_id: Option<CertificateId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack: Option<AckProof>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unsolicited: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<Nonce>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<&'a Signature>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    core: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mid: Option<Mid>,
}

impl<'a> Out<'a> {
    fn new(header: &'a Header) -> Self {
        Self {
            rotation_id: header.rotation.as_ref().map(|id| id.as_str()),
            core: header.core.as_ref().map(|name| name.as_str()),
            mid: header.mid,
            ..Self::default()
        }
    }

    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and hex ids always serialise")
    }
}

/// `csr_req`.
pub fn csr_req(header: &Header, not_after: Option<Timestamp>, nonce: Option<Nonce>) -> Vec<u8> {
    Out { not_after: not_after.map(Timestamp::unix_seconds), nonce, ..Out::new(header) }.bytes()
}

/// `csr_res`, from the CSR's DER.
pub fn csr_res(header: &Header, csr: &[u8], sig: Option<&Signature>) -> Vec<u8> {
    Out { csr: Some(pem_text("CERTIFICATE REQUEST", [csr])), sig, ..Out::new(header) }.bytes()
}

/// `csr_res` that no request is behind, from the CSR's DER.
pub fn unsolicited_csr(header: &Header, csr: &[u8], sig: Option<&Signature>) -> Vec<u8> {
    let csr = Some(pem_text("CERTIFICATE REQUEST", [csr]));
    Out { csr, sig, unsolicited: true, ..Out::new(header) }.bytes()
}

/// `crt`, from the DER of the leaf and what follows it.
pub fn crt<'c>(header: &Header, chain: impl IntoIterator<Item = &'c [u8]>) -> Vec<u8> {
    Out { certificate_pem: Some(pem_text("CERTIFICATE", chain)), ..Out::new(header) }.bytes()
}

/// A certificate alone, from its DER.
pub fn certificate_pem(certificate: &[u8]) -> String {
    pem_text("CERTIFICATE", [certificate])
}

/// `crt_ack`. A device on its own broker connection sends no `ack`; a relay does.
pub fn crt_ack(
    header: &Header,
    certificate: Option<CertificateId>,
    proof: Option<AckProof>,
    sig: Option<&Signature>,
) -> Vec<u8> {
    Out { certificate_id: certificate, ack: proof, sig, ..Out::new(header) }.bytes()
}

/// `crt_err`.
pub fn crt_err(
    header: &Header,
    code: &str,
    error: &str,
    certificate: Option<CertificateId>,
) -> Vec<u8> {
    Out { error: Some(error), code: Some(code), certificate_id: certificate, ..Out::new(header) }
        .bytes()
}

fn pem_text<'c>(tag: &str, bodies: impl IntoIterator<Item = &'c [u8]>) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    bodies.into_iter().map(|der| pem::encode_config(&Pem::new(tag, der), config)).collect()
}
