//! The payloads: JSON objects with optional fields, or a bare PEM body.
//!
//! Certificates and CSRs leave here as DER. An optional field that does not parse counts as absent,
//! with one exception: an ack whose `certificateId` can't be read is not a bare ack.

use pem::Pem;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    ids::{CertificateId, Mid, Nonce, RotationId, Signature, ThingName},
    topic::Kind,
};
use crate::schedule::Timestamp;

/// The largest payload that is read, in bytes.
pub const MAX_PAYLOAD: usize = 16 * 1024;

/// The most certificates in one message: the leaf and three more.
const MAX_CHAIN: usize = 4;

/// The most bytes of foreign text that are kept.
const MAX_TEXT: usize = 256;

/// Why a payload can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// It is empty, as a cleared retained message is.
    #[error("the payload is empty")]
    Empty,
    /// It is larger than [`MAX_PAYLOAD`].
    #[error("the payload has {bytes} bytes")]
    TooLarge {
        /// How large it is.
        bytes: usize,
    },
    /// It is neither a JSON object nor, where one may stand, a PEM body.
    #[error("the payload is no JSON object")]
    NotAnObject,
    /// A field without which the message means nothing is missing.
    #[error("the payload has no {0}")]
    Missing(&'static str),
    /// The PEM text can't be read.
    #[error("the PEM text can't be read")]
    BadPem,
    /// There are more certificates than a chain may have.
    #[error("the payload has {count} certificates")]
    TooManyCertificates {
        /// How many there are.
        count: usize,
    },
}

/// The optional fields that any message may carry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// Which rotation, by the cloud's name for it.
    pub rotation: Option<RotationId>,
    /// Uplink: which core relayed it. Downlink: which core it is for.
    pub core: Option<ThingName>,
    /// Which message.
    pub mid: Option<Mid>,
}

impl Header {
    /// Reads the header of any message. Total: what can't be read is absent.
    pub fn read(payload: &[u8]) -> Self {
        object(payload).map(|fields| Self::of(&fields)).unwrap_or_default()
    }

    fn of(fields: &Map<String, Value>) -> Self {
        Self {
            rotation: parsed(fields, "rotationId"),
            core: parsed(fields, "core"),
            mid: parsed(fields, "mid"),
        }
    }
}

/// `csr_req`: make a new key and send its CSR.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CsrReq {
    /// The common fields.
    pub header: Header,
    /// When the device's current certificate expires.
    pub not_after: Option<Timestamp>,
    /// The device is not to be asked before this.
    pub hold_until: Option<Timestamp>,
    /// What the device's proofs are to be about ([`crate::proof`]).
    pub nonce: Option<Nonce>,
}

impl CsrReq {
    /// Reads a payload; `{}` is enough.
    pub fn parse(payload: &[u8]) -> Result<Self, PayloadError> {
        let fields = object(payload)?;
        Ok(Self {
            header: Header::of(&fields),
            not_after: time(&fields, "notAfter"),
            hold_until: time(&fields, "holdUntil"),
            nonce: parsed(&fields, "nonce"),
        })
    }
}

/// `csr_res`: the CSR of the device's new key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsrRes {
    /// The common fields.
    pub header: Header,
    /// The CSR, DER.
    pub csr: Vec<u8>,
    /// The proof by the key in use ([`crate::proof`]).
    pub sig: Option<Signature>,
}

impl CsrRes {
    /// Reads a payload: `CSR`, `csr`, or a bare PEM body.
    pub fn parse(payload: &[u8]) -> Result<Self, PayloadError> {
        let (header, pems) = pem_message(payload, &["CSR", "csr"])?;
        let csr = pems
            .into_iter()
            .find(|pem| matches!(pem.tag(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST"))
            .ok_or(PayloadError::BadPem)?;
        let sig = parsed(&object(payload).unwrap_or_default(), "sig");
        Ok(Self { header, csr: csr.into_contents(), sig })
    }
}

/// `crt`: the certificate that answers a CSR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateMessage {
    /// The common fields.
    pub header: Header,
    /// The leaf and up to three more, each DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// The certificate is not to be handed over before this.
    pub hold_until: Option<Timestamp>,
    /// What the cloud calls the certificate.
    pub certificate: AckName,
}

impl CertificateMessage {
    /// Reads a payload: `certificatePem`, `certificate`, `crt`, `CRT`, or a bare PEM body.
    pub fn parse(payload: &[u8]) -> Result<Self, PayloadError> {
        const FIELDS: [&str; 4] = ["certificatePem", "certificate", "crt", "CRT"];
        let (header, pems) = pem_message(payload, &FIELDS)?;
        let chain: Vec<Vec<u8>> = pems
            .into_iter()
            .filter(|pem| pem.tag() == "CERTIFICATE")
            .map(Pem::into_contents)
            .collect();
        let fields = object(payload).unwrap_or_default();
        let (hold_until, certificate) = (time(&fields, "holdUntil"), ack_name(&fields));
        match chain.len() {
            0 => Err(PayloadError::BadPem),
            1..=MAX_CHAIN => Ok(Self { header, chain, hold_until, certificate }),
            count => Err(PayloadError::TooManyCertificates { count }),
        }
    }
}

/// Which certificate a message names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckName {
    /// None: an ack says no more than that some certificate works.
    Bare,
    /// This one.
    Named(CertificateId),
    /// One whose id can't be read; so it is none of ours.
    Unreadable,
}

/// How we know which certificate a device has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AckProof {
    /// The device named it.
    Named,
    /// The device named none; it is the one that was sent last.
    Bare,
}

/// `crt_ack`: the certificate is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrtAck {
    /// The common fields.
    pub header: Header,
    /// The certificate that it is about.
    pub certificate: AckName,
    /// The proof by the new key ([`crate::proof`]).
    pub sig: Option<Signature>,
}

impl CrtAck {
    /// Reads a payload; `{}` is a bare ack.
    pub fn parse(payload: &[u8]) -> Result<Self, PayloadError> {
        let fields = object(payload)?;
        Ok(Self {
            header: Header::of(&fields),
            certificate: ack_name(&fields),
            sig: parsed(&fields, "sig"),
        })
    }
}

/// `crt_err`: something went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CrtErr {
    /// The common fields.
    pub header: Header,
    /// What, in the device's words: at most 256 bytes, escaped.
    pub error: String,
    /// A stable kebab-case reason, where the device gives one.
    pub code: Option<String>,
    /// The certificate that it is about, where the device says so.
    pub certificate: Option<CertificateId>,
}

impl CrtErr {
    /// Reads a payload; `{}` is an error without words.
    pub fn parse(payload: &[u8]) -> Result<Self, PayloadError> {
        let fields = object(payload)?;
        let code = text(&fields, "code").filter(|code| is_code(code));
        Ok(Self {
            header: Header::of(&fields),
            error: text(&fields, "error").map(escape).unwrap_or_default(),
            code: code.map(str::to_owned),
            certificate: parsed(&fields, "certificateId"),
        })
    }
}

/// `result`: what became of an uplink message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The common fields; `mid` or `rotationId` says which message.
    pub header: Header,
    /// The kind of the message; an uplink kind.
    pub about: Kind,
    /// Whether the cloud acted on it.
    pub ok: bool,
    /// A stable kebab-case reason.
    pub code: Option<String>,
    /// Whether asking again is of no use.
    pub is_final: bool,
}

impl Verdict {
    /// Reads a payload.
    pub fn parse(payload: &[u8]) -> Result<Self, PayloadError> {
        let fields = object(payload)?;
        let about = text(&fields, "for")
            .and_then(|name| Kind::ALL.into_iter().find(|kind| kind.as_str() == name))
            .filter(|kind| kind.is_uplink())
            .ok_or(PayloadError::Missing("for"))?;
        let flag = |name| fields.get(name).and_then(Value::as_bool);
        Ok(Self {
            header: Header::of(&fields),
            about,
            ok: flag("ok").ok_or(PayloadError::Missing("ok"))?,
            code: text(&fields, "code").filter(|code| is_code(code)).map(str::to_owned),
            is_final: flag("final").unwrap_or(false),
        })
    }
}

/// Foreign text made fit for a log, a terminal or a mail: at most 256 bytes, without control
/// characters, or anything else that `char::escape_debug` escapes but quotes.
pub fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let before = out.len();
        match c {
            '"' | '\'' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
        if out.len() > MAX_TEXT {
            out.truncate(before);
            break;
        }
    }
    out
}

fn ack_name(fields: &Map<String, Value>) -> AckName {
    match fields.get("certificateId") {
        None | Some(Value::Null) => AckName::Bare,
        Some(_) => parsed(fields, "certificateId").map_or(AckName::Unreadable, AckName::Named),
    }
}

fn object(payload: &[u8]) -> Result<Map<String, Value>, PayloadError> {
    check_size(payload)?;
    serde_json::from_slice(payload).map_err(|_| PayloadError::NotAnObject)
}

fn check_size(payload: &[u8]) -> Result<(), PayloadError> {
    match payload.len() {
        0 => Err(PayloadError::Empty),
        1..=MAX_PAYLOAD => Ok(()),
        bytes => Err(PayloadError::TooLarge { bytes }),
    }
}

fn pem_message(
    payload: &[u8],
    fields: &[&'static str],
) -> Result<(Header, Vec<Pem>), PayloadError> {
    check_size(payload)?;
    if payload.trim_ascii_start().starts_with(b"-----BEGIN") {
        return Ok((Header::default(), pems(payload)?));
    }
    let object = object(payload)?;
    let body = fields
        .iter()
        .find_map(|name| text(&object, name))
        .ok_or(PayloadError::Missing(fields[0]))?;
    Ok((Header::of(&object), pems(body.as_bytes())?))
}

fn pems(text: &[u8]) -> Result<Vec<Pem>, PayloadError> {
    pem::parse_many(text).map_err(|_| PayloadError::BadPem)
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name).and_then(Value::as_str)
}

fn parsed<T: std::str::FromStr>(fields: &Map<String, Value>, name: &str) -> Option<T> {
    text(fields, name)?.parse().ok()
}

fn time(fields: &Map<String, Value>, name: &str) -> Option<Timestamp> {
    fields.get(name)?.as_u64().map(Timestamp::from_unix_seconds)
}

fn is_code(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::render;

    fn header() -> Header {
        Header {
            rotation: Some("r-1".parse().expect("valid")),
            core: Some("core-1".parse().expect("valid")),
            mid: Some(Mid([9; 16])),
        }
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let nonce = Some(Nonce([5; 16]));
        let request = CsrReq::parse(&render::csr_req(&header(), None, nonce)).expect("readable");
        assert_eq!(request, CsrReq { header: header(), nonce, ..CsrReq::default() });

        let sig = Signature::new(vec![9; 71]);
        for sig in [None, sig.as_ref()] {
            for render in [render::csr_res, render::unsolicited_csr] {
                let csr = CsrRes::parse(&render(&header(), b"csr", sig)).expect("readable");
                let (header, csr_der) = (header(), b"csr".to_vec());
                assert_eq!(csr, CsrRes { header, csr: csr_der, sig: sig.cloned() });
            }
        }

        let chain = [b"leaf".as_slice(), b"issuer"];
        let crt = CertificateMessage::parse(&render::crt(&header(), chain)).expect("readable");
        assert_eq!(crt.chain, chain);

        let id = CertificateId([3; 32]);
        let ack = render::crt_ack(&header(), Some(id), Some(AckProof::Named), sig.as_ref());
        let ack = CrtAck::parse(&ack).expect("readable");
        assert_eq!(ack, CrtAck { header: header(), certificate: AckName::Named(id), sig });

        let err = render::crt_err(&header(), "weak-key", "too short", Some(id));
        let err = CrtErr::parse(&err).expect("readable");
        assert_eq!((err.code.as_deref(), err.error.as_str()), (Some("weak-key"), "too short"));
    }

    #[test]
    fn the_largest_csr_and_proof_pass_through_nucleus_lite() {
        let name = "n".repeat(128);
        let header = Header {
            rotation: Some(name.parse().expect("valid")),
            core: Some(name.parse().expect("valid")),
            mid: Some(Mid([255; 16])),
        };
        // RSA-4096: a key of 550 bytes, a signature of 512, and the longest name.
        let (csr, sig) = (vec![7; 1_300], Signature::new(vec![7; 512]));
        let bytes = render::unsolicited_csr(&header, &csr, sig.as_ref()).len();
        let topic = 3 * (128 + 1) + 64;
        assert!(bytes + topic < 4_096, "{bytes} bytes and the topic");
    }

    #[test]
    fn every_documented_spelling_of_a_certificate_is_read() {
        let pem = pem::encode(&Pem::new("CERTIFICATE", b"leaf".as_slice()));
        for field in ["certificatePem", "certificate", "crt", "CRT"] {
            let payload = serde_json::json!({ field: pem, "unknown": [1] }).to_string();
            let message = CertificateMessage::parse(payload.as_bytes()).expect("readable");
            assert_eq!(message.chain, [b"leaf"]);
        }
        assert!(CertificateMessage::parse(format!("\n{pem}").as_bytes()).is_ok());
        assert_eq!(
            CertificateMessage::parse(pem.repeat(5).as_bytes()),
            Err(PayloadError::TooManyCertificates { count: 5 })
        );
    }

    #[test]
    fn an_empty_payload_is_no_message() {
        assert_eq!(CsrReq::parse(b""), Err(PayloadError::Empty));
        assert_eq!(CrtAck::parse(b""), Err(PayloadError::Empty));
        assert_eq!(CsrRes::parse(b""), Err(PayloadError::Empty));
    }

    #[test]
    fn an_ack_whose_certificate_can_not_be_read_is_not_a_bare_ack() {
        let name = |payload: &str| CrtAck::parse(payload.as_bytes()).expect("readable").certificate;
        assert_eq!(name("{}"), AckName::Bare);
        assert_eq!(name(r#"{"certificateId":null}"#), AckName::Bare);
        assert_eq!(name(r#"{"certificateId":"abc"}"#), AckName::Unreadable);
        assert_eq!(name(r#"{"certificateId":7}"#), AckName::Unreadable);
    }

    #[test]
    fn a_verdict_is_about_an_uplink_message() {
        let parse = |payload: &str| Verdict::parse(payload.as_bytes());
        assert!(parse(r#"{"for":"csr_res","ok":false,"final":true,"code":"weak-key"}"#).is_ok());
        assert_eq!(parse(r#"{"for":"crt","ok":true}"#), Err(PayloadError::Missing("for")));
        assert_eq!(parse(r#"{"for":"crt_ack"}"#), Err(PayloadError::Missing("ok")));
    }

    #[test]
    fn foreign_text_can_not_move_the_cursor_or_break_a_line() {
        assert_eq!(escape("bad\n\u{1b}[2J\u{202e}key"), r"bad\n\u{1b}[2J\u{202e}key");
        assert_eq!(escape(&"é".repeat(200)).len(), 256);
        assert_eq!(escape(&"\u{7}".repeat(200)).len() % r"\u{7}".len(), 0);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(payload in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = (Header::read(&payload), CsrReq::parse(&payload), CsrRes::parse(&payload));
            let _ = (CertificateMessage::parse(&payload), CrtAck::parse(&payload));
            let _ = (CrtErr::parse(&payload), Verdict::parse(&payload));
        }

        #[test]
        fn escaped_text_is_short_and_printable(text in ".{0,300}") {
            let escaped = escape(&text);
            prop_assert!(escaped.len() <= 256);
            prop_assert!(!escaped.chars().any(char::is_control));
        }
    }
}
