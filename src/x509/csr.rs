//! CSRs: what they must be to be passed on.
//!
//! Acceptance and the signature are two calls, because a signature costs a hundred times more and
//! only the CSR that is sent on needs it.

use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    extensions::{ParsedExtension, SubjectAlternativeName},
    prelude::FromDer,
};

use super::{
    CommonNameRule, Refusal,
    key::{accept_key, is_p521, key_digest_of_spki},
    subject::{Bearer, accept_subject},
};
use crate::{
    reason::Reason,
    wire::{KeyDigest, ThingName},
};

/// The largest CSR that is read, in bytes of DER. One for RSA-8192 has 2.2 KiB.
pub const MAX_CSR: usize = 8 * 1024;

/// Accepts a CSR for a client, all but its signature, and says which key it is for.
///
/// In this order: `bad-csr` when it can't be read whole or is over [`MAX_CSR`], `weak-key` and
/// `unsupported-key` unless it is RSA of 2048 to 8192 bits or an uncompressed point of P-256, P-384
/// or P-521, `wrong-subject` by the rule.
pub fn accept_csr(
    der: &[u8],
    client: &ThingName,
    rule: CommonNameRule,
) -> Result<KeyDigest, Refusal> {
    let csr = parse(der)?;
    let info = &csr.certification_request_info;
    let alternatives = alternatives(&csr)?;
    accept_key(&info.subject_pki)?;
    accept_subject(Bearer::Csr, &info.subject, &alternatives, client, rule)?;
    Ok(key_digest_of_spki(info.subject_pki.raw))
}

/// The key of a CSR that was accepted before; `bad-csr` when it can't be read.
pub fn csr_key(der: &[u8]) -> Result<KeyDigest, Refusal> {
    Ok(key_digest_of_spki(parse(der)?.certification_request_info.subject_pki.raw))
}

/// Checks that a CSR is signed by its own key; `bad-csr` when it can't be read.
///
/// For a P-521 key nothing is checked, because nothing here can: the cloud checks every CSR again.
/// ECDSA with SHA-512 on another curve counts as `bad-signature` for the same want.
pub fn verify_csr_signature(der: &[u8]) -> Result<(), Refusal> {
    let csr = parse(der)?;
    if is_p521(&csr.certification_request_info.subject_pki) {
        return Ok(());
    }
    csr.verify_signature().map_err(|_| Refusal(Reason::BadSignature))
}

fn parse(der: &[u8]) -> Result<X509CertificationRequest<'_>, Refusal> {
    if der.len() > MAX_CSR {
        return Err(Refusal(Reason::BadCsr));
    }
    match X509CertificationRequest::from_der(der) {
        Ok(([], csr)) => Ok(csr),
        _ => Err(Refusal(Reason::BadCsr)),
    }
}

/// Every alternative name that is asked for, in whichever attribute. One that can't be read makes
/// the CSR bad: a CA might read it.
fn alternatives<'a>(
    csr: &'a X509CertificationRequest<'a>,
) -> Result<Vec<&'a SubjectAlternativeName<'a>>, Refusal> {
    let mut found = Vec::new();
    for attribute in csr.certification_request_info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(request) = attribute.parsed_attribute() else {
            continue;
        };
        for extension in &request.extensions {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => found.push(names),
                ParsedExtension::ParseError { .. } => return Err(Refusal(Reason::BadCsr)),
                _ => {}
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData, SanType, string::Ia5String};

    use super::*;

    fn pump() -> ThingName {
        "pump-7".parse().expect("valid")
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(Ia5String::try_from(name).expect("valid"))
    }

    fn csr_with(key: &KeyPair, names: &[&str], alternatives: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (n, name) in names.iter().enumerate() {
            // rcgen keeps one value a type, so further CNs are spelt by their OID.
            let kind =
                if n == 0 { DnType::CommonName } else { DnType::CustomDnType(vec![2, 5, 4, 3]) };
            params.distinguished_name.push(kind, *name);
        }
        params.subject_alt_names = alternatives;
        params.serialize_request(key).expect("a CSR").der().to_vec()
    }

    fn csr(names: &[&str], alternatives: Vec<SanType>) -> Vec<u8> {
        csr_with(&KeyPair::generate().expect("a key"), names, alternatives)
    }

    fn verdict(der: &[u8], rule: CommonNameRule) -> Result<(), Reason> {
        accept_csr(der, &pump(), rule).map(drop).map_err(|refusal| refusal.0)
    }

    #[test]
    fn the_subject_rule_holds_for_every_name_that_is_present() {
        use CommonNameRule::{AbsentOk, Any, Match};
        let wrong = Err(Reason::WrongSubject);
        let address = || SanType::IpAddress("10.0.0.1".parse().expect("valid"));
        let mail = || SanType::Rfc822Name(Ia5String::try_from("pump-7").expect("valid"));
        let table = [
            (csr(&["pump-7"], vec![]), Ok(()), Ok(())),
            (csr(&["pump-7"], vec![dns("pump-7")]), Ok(()), Ok(())),
            (csr(&[], vec![]), wrong, Ok(())),
            (csr(&[], vec![dns("pump-7")]), wrong, Ok(())),
            (csr(&["pump-8"], vec![]), wrong, wrong),
            (csr(&["PUMP-7"], vec![]), wrong, wrong),
            (csr(&["pump-7 "], vec![]), wrong, wrong),
            (csr(&["AWS IoT Certificate"], vec![]), wrong, wrong),
            (csr(&["pump-7", "pump-8"], vec![]), wrong, wrong),
            (csr(&["pump-7", "pump-7"], vec![]), Ok(()), Ok(())),
            (csr(&["pump-7"], vec![dns("pump-7"), dns("pump-8")]), wrong, wrong),
            (csr(&["pump-7"], vec![address()]), wrong, wrong),
            (csr(&["pump-7"], vec![mail()]), wrong, wrong),
        ];
        for (row, (der, strict, lenient)) in table.iter().enumerate() {
            assert_eq!(verdict(der, Match), *strict, "row {row}");
            assert_eq!(verdict(der, AbsentOk), *lenient, "row {row}");
            assert_eq!(verdict(der, Any), Ok(()), "row {row}");
        }
    }

    #[test]
    fn only_keys_that_aws_iot_takes_are_taken() {
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
        let fixture = |bytes: &[u8]| bytes.to_vec();
        let table = [
            (csr_with(&p384, &["pump-7"], vec![]), Ok(())),
            (csr_with(&ed25519, &["pump-7"], vec![]), Err(Reason::UnsupportedKey)),
            (fixture(include_bytes!("../../tests/fixtures/rsa1024.csr.der")), Err(Reason::WeakKey)),
            (fixture(include_bytes!("../../tests/fixtures/rsa2048.csr.der")), Ok(())),
            (
                fixture(include_bytes!("../../tests/fixtures/secp224r1.csr.der")),
                Err(Reason::UnsupportedKey),
            ),
            (
                fixture(include_bytes!("../../tests/fixtures/secp256k1.csr.der")),
                Err(Reason::UnsupportedKey),
            ),
            (fixture(include_bytes!("../../tests/fixtures/secp521r1.csr.der")), Ok(())),
        ];
        for (row, (der, expected)) in table.iter().enumerate() {
            assert_eq!(verdict(der, CommonNameRule::Match), *expected, "row {row}");
        }
    }

    #[test]
    fn a_csr_that_can_not_be_read_whole_is_bad() {
        let good = csr(&["pump-7"], vec![]);
        let bad = Err(Reason::BadCsr);
        assert_eq!(verdict(&[], CommonNameRule::Any), bad);
        assert_eq!(verdict(&good[..good.len() - 1], CommonNameRule::Any), bad);
        assert_eq!(verdict(&[&good[..], b"\0"].concat(), CommonNameRule::Any), bad);
        assert_eq!(verdict(&good, CommonNameRule::Any), Ok(()));
        let large = csr(&["pump-7"], vec![dns(&"a".repeat(MAX_CSR))]);
        assert_eq!(verdict(&large, CommonNameRule::Any), bad);
        assert_eq!(verify_csr_signature(b"\x30\x00"), Err(Refusal(Reason::BadCsr)));
    }

    #[test]
    fn the_digest_is_that_of_the_public_key_info() {
        let key = KeyPair::generate().expect("a key");
        let digest = accept_csr(&csr_with(&key, &[], vec![]), &pump(), CommonNameRule::AbsentOk);
        assert_eq!(digest, Ok(key_digest_of_spki(&key.subject_public_key_info())));
    }

    #[test]
    fn a_csr_must_be_signed_by_its_own_key() {
        let mut der = csr(&["pump-7"], vec![]);
        assert_eq!(verify_csr_signature(&der), Ok(()));
        let rsa = include_bytes!("../../tests/fixtures/rsa2048.csr.der");
        assert_eq!(verify_csr_signature(rsa), Ok(()));
        let at = der.windows(6).position(|window| window == b"pump-7").expect("the CN");
        der[at + 5] = b'8';
        assert_eq!(verify_csr_signature(&der), Err(Refusal(Reason::BadSignature)));
        let p521 = include_bytes!("../../tests/fixtures/secp521r1.csr.der");
        assert_eq!(verify_csr_signature(p521), Ok(()), "left to the cloud");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_csr_checks_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (verdict(&bytes, CommonNameRule::Match), verify_csr_signature(&bytes));
        }

        #[test]
        fn no_damage_to_a_csr_makes_the_checks_panic_or_keeps_its_signature(
            at: prop::sample::Index, flip in 1u8..,
        ) {
            let mut der = include_bytes!("../../tests/fixtures/rsa2048.csr.der").to_vec();
            let at = at.index(der.len());
            // Not signed: the headers of the whole and of the signature, and the algorithm's name. The
            // parser is lenient with them, which changes nothing.
            let algorithm = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00";
            let signed = der.windows(algorithm.len()).rposition(|bytes| bytes == algorithm);
            let signed = 4..signed.expect("it is there");
            let signature = signed.end + algorithm.len() + 5..der.len();
            prop_assume!(signed.contains(&at) || signature.contains(&at));
            der[at] ^= flip;
            let _ = verdict(&der, CommonNameRule::Match);
            prop_assert!(verify_csr_signature(&der).is_err(), "byte {at}");
        }
    }
}
