//! Certificates: their facts, what they must be to be handed over, and how a chain is kept.

use std::time::Duration;

use x509_parser::{
    certificate::X509Certificate, error::X509Error, extensions::SubjectAlternativeName,
    prelude::FromDer, time::ASN1Time,
};

use super::{
    Anchors, CommonNameRule, Refusal,
    key::{key_digest_of_spki, sha256},
    subject::{Bearer, accept_subject},
};
use crate::{
    reason::Reason,
    schedule::Timestamp,
    wire::{CertificateId, KeyDigest, ThingName},
};

/// How far our clock may be behind that of the issuer.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// What we know of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Its id: the SHA-256 of its DER.
    pub id: CertificateId,
    /// Its key.
    pub key: KeyDigest,
    /// It is valid from then on. A time before 1970 counts as 1970.
    pub not_before: Timestamp,
    /// It is valid until then. A time before 1970 counts as 1970.
    pub not_after: Timestamp,
}

/// Reads a certificate's facts; `bad-certificate` when it can't be read whole. Judges nothing.
pub fn read_certificate(der: &[u8]) -> Result<CertificateFacts, Refusal> {
    parse(der).map(|certificate| facts(der, &certificate))
}

/// A certificate's subject as it stands: a DER Name. `bad-certificate` when it can't be read whole.
pub fn certificate_subject(der: &[u8]) -> Result<Vec<u8>, Refusal> {
    parse(der).map(|certificate| certificate.subject().as_raw().to_vec())
}

/// A certificate's public key as it stands: a SubjectPublicKeyInfo, DER. `bad-certificate` when the
/// certificate can't be read whole.
pub fn certificate_spki(der: &[u8]) -> Result<Vec<u8>, Refusal> {
    parse(der).map(|certificate| certificate.public_key().raw.to_vec())
}

/// The id of a certificate, whatever its DER holds.
pub fn certificate_id(der: &[u8]) -> CertificateId {
    CertificateId(sha256(der))
}

/// Accepts a chain, leaf first, for a client. Whether the leaf fits a key is the caller's to check.
///
/// In this order: `bad-certificate`; `not-a-leaf` for a CA, or a certificate that may sign others;
/// `wrong-subject` by the rule; `bad-validity` when it ends before it begins; with a trusted clock
/// `expired` and `not-yet-valid`, the latter with 5 minutes' grace; with anchors `untrusted-chain`.
///
/// Certificates that AWS IoT itself signs may bear the CN "AWS IoT Certificate" whatever the CSR
/// said. It names nobody, and can not be a thing name, so it counts as no CN: `absent-ok` takes
/// it, `match` does not.
pub fn accept_certificate(
    chain: &[Vec<u8>],
    client: &ThingName,
    rule: CommonNameRule,
    wall: Option<Timestamp>,
    anchors: Option<&Anchors>,
) -> Result<CertificateFacts, Refusal> {
    let der = chain.first().ok_or(Refusal(Reason::BadCertificate))?;
    let leaf = parse(der)?;
    let facts = facts(der, &leaf);
    accept_leaf(&leaf)?;
    let names = alternatives(&leaf)?;
    accept_subject(Bearer::Certificate, leaf.subject(), names.as_slice(), client, rule)?;
    accept_validity(&facts, wall)?;
    anchors.map_or(Ok(()), |anchors| anchors.verify(chain, &facts, wall))?;
    Ok(facts)
}

/// Joins a chain into one body: the DER of each certificate, one after the other.
pub fn join_chain(chain: &[Vec<u8>]) -> Vec<u8> {
    chain.concat()
}

/// Splits a body of [`join_chain`]. Bytes that begin no DER value are one last part, which no one
/// can read; so joining always gives the body back.
pub fn split_chain(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (part, after) = rest.split_at(der_length(rest).unwrap_or(rest.len()));
        parts.push(part.to_vec());
        rest = after;
    }
    parts
}

/// The length of the DER value that the bytes begin with, header and all; `None` when they don't
/// hold one with a one-byte tag, or it is larger than 64 KiB.
fn der_length(bytes: &[u8]) -> Option<usize> {
    let (header, body) = match *bytes {
        [_, length @ 0..=0x7f, ..] => (2, usize::from(length)),
        [_, 0x81, length, ..] => (3, usize::from(length)),
        [_, 0x82, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
        _ => return None,
    };
    Some(header + body).filter(|length| *length <= bytes.len())
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Refusal> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Refusal(Reason::BadCertificate)),
    }
}

fn facts(der: &[u8], certificate: &X509Certificate<'_>) -> CertificateFacts {
    CertificateFacts {
        id: CertificateId(sha256(der)),
        key: key_digest_of_spki(certificate.public_key().raw),
        not_before: timestamp(certificate.validity().not_before),
        not_after: timestamp(certificate.validity().not_after),
    }
}

fn timestamp(time: ASN1Time) -> Timestamp {
    Timestamp::from_unix_seconds(u64::try_from(time.timestamp()).unwrap_or(0))
}

fn accept_leaf(leaf: &X509Certificate<'_>) -> Result<(), Refusal> {
    let ca = leaf.basic_constraints().map_err(unreadable)?.is_some_and(|basic| basic.value.ca);
    let usage = leaf.key_usage().map_err(unreadable)?;
    if ca || usage.is_some_and(|usage| usage.value.key_cert_sign()) {
        return Err(Refusal(Reason::NotALeaf));
    }
    Ok(())
}

fn alternatives<'a>(
    leaf: &'a X509Certificate<'a>,
) -> Result<Option<&'a SubjectAlternativeName<'a>>, Refusal> {
    let extension = leaf.subject_alternative_name().map_err(unreadable)?;
    Ok(extension.map(|extension| extension.value))
}

fn unreadable(_: X509Error) -> Refusal {
    Refusal(Reason::BadCertificate)
}

fn accept_validity(facts: &CertificateFacts, wall: Option<Timestamp>) -> Result<(), Refusal> {
    let reason = match wall {
        _ if facts.not_before >= facts.not_after => Reason::BadValidity,
        Some(wall) if wall > facts.not_after => Reason::Expired,
        Some(wall) if wall + SKEW < facts.not_before => Reason::NotYetValid,
        _ => return Ok(()),
    };
    Err(Refusal(reason))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{
        BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
        ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
        date_time_ymd, string::Ia5String,
    };

    use super::*;

    const DAY: u64 = 86_400_000;
    /// 2026-01-01.
    const BEGIN: u64 = 1_767_225_600_000;
    /// 2027-01-01.
    const END: u64 = BEGIN + 365 * DAY;

    fn pump() -> ThingName {
        "pump-7".parse().expect("valid")
    }

    fn leaf_params(name: Option<&str>) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2027, 1, 1);
        params
    }

    fn changed(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
        let mut params = leaf_params(Some("pump-7"));
        change(&mut params);
        params
    }

    struct Ca {
        certificate: Certificate,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Ca {
        fn new(name: &str, parent: Option<&Self>) -> Self {
            let mut params = changed(|params| {
                params.distinguished_name = DistinguishedName::new();
                params.distinguished_name.push(DnType::CommonName, name);
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            });
            params.not_before = date_time_ymd(2025, 1, 1);
            params.not_after = date_time_ymd(2026, 6, 1);
            let key = KeyPair::generate().expect("a key");
            let certificate = match parent {
                Some(parent) => params.signed_by(&key, &parent.issuer),
                None => params.self_signed(&key),
            };
            let certificate = certificate.expect("a certificate");
            Self { certificate, issuer: Issuer::new(params, key) }
        }

        fn issue(&self, params: &CertificateParams) -> Vec<u8> {
            let key = KeyPair::generate().expect("a key");
            params.signed_by(&key, &self.issuer).expect("a certificate").der().to_vec()
        }

        fn der(&self) -> Vec<u8> {
            self.certificate.der().to_vec()
        }

        fn anchors(&self) -> Anchors {
            Anchors::from_pem(self.certificate.pem().as_bytes()).expect("anchors")
        }
    }

    fn leaf(params: &CertificateParams) -> Vec<u8> {
        Ca::new("a CA", None).issue(params)
    }

    fn verdict(
        chain: &[Vec<u8>],
        rule: CommonNameRule,
        wall: Option<u64>,
        anchors: Option<&Anchors>,
    ) -> Result<(), Reason> {
        accept_certificate(chain, &pump(), rule, wall.map(Timestamp), anchors)
            .map(drop)
            .map_err(|refusal| refusal.0)
    }

    #[test]
    fn a_certificate_that_may_sign_others_is_no_leaf() {
        let ca = changed(|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
        let signer = changed(|p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign]);
        let plain = changed(|p| p.is_ca = IsCa::ExplicitNoCa);
        let client = changed(|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
        let table = [
            (ca, Err(Reason::NotALeaf)),
            (signer, Err(Reason::NotALeaf)),
            (plain, Ok(())),
            (client, Ok(())),
        ];
        for (params, expected) in table {
            assert_eq!(verdict(&[leaf(&params)], CommonNameRule::Match, None, None), expected);
        }
    }

    #[test]
    fn the_name_that_aws_iot_gives_is_nobodys() {
        use CommonNameRule::{AbsentOk, Any, Match};
        let wrong = Err(Reason::WrongSubject);
        let dns = |name: &str| SanType::DnsName(Ia5String::try_from(name).expect("valid"));
        let aws = |san: Vec<SanType>| {
            let mut params = leaf_params(Some("AWS IoT Certificate"));
            params.subject_alt_names = san;
            leaf(&params)
        };
        let table = [
            (leaf(&leaf_params(Some("pump-7"))), Ok(()), Ok(())),
            (leaf(&leaf_params(Some("pump-8"))), wrong, wrong),
            (leaf(&leaf_params(None)), wrong, Ok(())),
            (aws(vec![]), wrong, Ok(())),
            (aws(vec![dns("pump-7")]), wrong, Ok(())),
            (aws(vec![dns("pump-8")]), wrong, wrong),
        ];
        for (row, (der, strict, lenient)) in table.into_iter().enumerate() {
            let chain = [der];
            assert_eq!(verdict(&chain, Match, None, None), strict, "row {row}");
            assert_eq!(verdict(&chain, AbsentOk, None, None), lenient, "row {row}");
            assert_eq!(verdict(&chain, Any, None, None), Ok(()), "row {row}");
        }
    }

    #[test]
    fn the_time_counts_only_while_the_clock_is_trusted() {
        let chain = [leaf(&leaf_params(Some("pump-7")))];
        let at = |wall| verdict(&chain, CommonNameRule::Match, wall, None);
        assert_eq!(at(None), Ok(()));
        assert_eq!(at(Some(END)), Ok(()));
        assert_eq!(at(Some(END + 1)), Err(Reason::Expired));
        assert_eq!(at(Some(BEGIN - 5 * 60_000)), Ok(()));
        assert_eq!(at(Some(BEGIN - 5 * 60_000 - 1)), Err(Reason::NotYetValid));
        let backwards = changed(|p| p.not_after = date_time_ymd(2025, 1, 1));
        let backwards = [leaf(&backwards)];
        for wall in [None, Some(BEGIN)] {
            let verdict = verdict(&backwards, CommonNameRule::Match, wall, None);
            assert_eq!(verdict, Err(Reason::BadValidity));
        }
    }

    #[test]
    fn a_chain_must_end_in_an_anchor_with_every_link_in_the_message() {
        let root = Ca::new("root", None);
        let middle = Ca::new("middle", Some(&root));
        let stranger = Ca::new("root", None);
        let leaf = middle.issue(&leaf_params(Some("pump-7")));
        let untrusted = Err(Reason::UntrustedChain);
        let at = |chain: &[Vec<u8>], anchors: &Ca, wall| {
            verdict(chain, CommonNameRule::Match, wall, Some(&anchors.anchors()))
        };
        let whole = [leaf.clone(), middle.der()];
        assert_eq!(at(&whole, &root, Some(BEGIN)), Ok(()));
        assert_eq!(at(&whole, &root, None), Ok(()));
        assert_eq!(at(&whole, &root, Some(BEGIN - 60_000)), Ok(()));
        assert_eq!(at(&[leaf.clone(), stranger.der(), middle.der()], &root, Some(BEGIN)), Ok(()));
        assert_eq!(at(std::slice::from_ref(&leaf), &middle, Some(BEGIN)), Ok(()));
        assert_eq!(at(std::slice::from_ref(&leaf), &root, Some(BEGIN)), untrusted);
        assert_eq!(at(&whole, &stranger, Some(BEGIN)), untrusted);
        // The middle certificate ends on 2026-06-01, before the leaf.
        assert_eq!(at(&whole, &root, Some(END)), untrusted);
        let server = changed(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
        assert_eq!(at(&[root.issue(&server)], &root, None), untrusted);
    }

    #[test]
    fn the_first_violation_is_the_answer() {
        let root = Ca::new("root", None);
        let stranger = root.anchors();
        let ca = Ca::new("other", None);
        let mut params = leaf_params(Some("pump-8"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(2025, 1, 1);
        let answer = |params: &CertificateParams| {
            let chain = [ca.issue(params)];
            verdict(&chain, CommonNameRule::Match, Some(END + DAY), Some(&stranger))
        };
        assert_eq!(answer(&params), Err(Reason::NotALeaf));
        params.is_ca = IsCa::NoCa;
        assert_eq!(answer(&params), Err(Reason::WrongSubject));
        params.distinguished_name.push(DnType::CommonName, "pump-7");
        assert_eq!(answer(&params), Err(Reason::BadValidity));
        params.not_after = date_time_ymd(2027, 1, 1);
        assert_eq!(answer(&params), Err(Reason::Expired));
        params.not_after = date_time_ymd(2028, 1, 1);
        assert_eq!(answer(&params), Err(Reason::UntrustedChain));
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let good = leaf(&leaf_params(Some("pump-7")));
        let bad = Err(Reason::BadCertificate);
        let junk = vec![
            vec![],
            vec![vec![]],
            vec![b"junk".to_vec()],
            vec![good[..good.len() - 1].to_vec()],
            vec![[&good[..], b"\0"].concat()],
        ];
        for chain in junk {
            assert_eq!(verdict(&chain, CommonNameRule::Any, None, None), bad);
        }
    }

    #[test]
    fn the_facts_are_those_of_the_certificate() {
        let key = KeyPair::generate().expect("a key");
        let ca = Ca::new("a CA", None);
        let mut params = leaf_params(None);
        let der = params.signed_by(&key, &ca.issuer).expect("a certificate").der().to_vec();
        let facts = read_certificate(&der).expect("readable");
        assert_eq!(facts.id, CertificateId(sha256(&der)));
        assert_eq!(facts.key, key_digest_of_spki(&key.subject_public_key_info()));
        assert_eq!((facts.not_before, facts.not_after), (Timestamp(BEGIN), Timestamp(END)));
        params.not_before = date_time_ymd(1960, 1, 1);
        let old = params.signed_by(&key, &ca.issuer).expect("a certificate").der().to_vec();
        assert_eq!(read_certificate(&old).expect("readable").not_before, Timestamp(0));
    }

    #[test]
    fn a_chain_is_kept_as_one_body_and_read_back() {
        let ca = Ca::new("a CA", None);
        let chain = vec![ca.issue(&leaf_params(Some("pump-7"))), ca.der(), ca.der()];
        assert_eq!(split_chain(&join_chain(&chain)), chain);
        assert_eq!(split_chain(b""), Vec::<Vec<u8>>::new());
        let cut = join_chain(&chain[..1])[..40].to_vec();
        assert_eq!(split_chain(&cut), [cut]);
    }

    proptest! {
        #[test]
        fn splitting_loses_no_byte(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(join_chain(&split_chain(&bytes)), bytes.clone());
            prop_assert!(split_chain(&bytes).iter().all(|part| !part.is_empty()));
        }

        #[test]
        fn no_bytes_make_the_certificate_checks_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = verdict(&split_chain(&bytes), CommonNameRule::Match, Some(BEGIN), None);
        }
    }

    #[test]
    fn no_damaged_byte_makes_the_checks_panic_or_passes_the_anchors() {
        let root = Ca::new("root", None);
        let good = root.issue(&leaf_params(Some("pump-7")));
        for at in 0..good.len() {
            let mut der = good.clone();
            der[at] ^= 1 << (at % 8);
            let anchors = root.anchors();
            let verdict = verdict(&[der], CommonNameRule::Match, Some(BEGIN), Some(&anchors));
            assert!(verdict.is_err(), "byte {at}");
        }
    }
}
