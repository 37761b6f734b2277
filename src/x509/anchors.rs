//! The certificates that a chain may end in, and the building of chains.
//!
//! The checks of a chain are rustls-webpki's; what counts here is at which time they are made when
//! there is no clock to be trusted.

use std::{sync::Arc, time::Duration};

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::{CertificateFacts, Refusal};
use crate::{reason::Reason, schedule::Timestamp};

/// Why a file of trust anchors can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnchorsError {
    /// It is not PEM.
    #[error("it is no PEM text: {0}")]
    BadPem(String),
    /// It holds no certificate.
    #[error("there is no CERTIFICATE in it")]
    Empty,
    /// One of its certificates can't be read.
    #[error("certificate number {number} in it can't be read: {why}")]
    BadCertificate {
        /// Which, counted from 1.
        number: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// The certificates that a chain may end in (`certificate.trustAnchorsFile`): at least one.
///
/// Cheap to clone. An anchor's own validity is not looked at, as usual for anchors.
#[derive(Debug, Clone)]
pub struct Anchors(Arc<[TrustAnchor<'static>]>);

impl Anchors {
    /// Reads every `CERTIFICATE` of a PEM text; other blocks are passed over.
    pub fn from_pem(text: &[u8]) -> Result<Self, AnchorsError> {
        let pems = pem::parse_many(text).map_err(|e| AnchorsError::BadPem(e.to_string()))?;
        let certificates = pems.into_iter().filter(|pem| pem.tag() == "CERTIFICATE");
        let anchors = (1..)
            .zip(certificates)
            .map(|(number, pem)| anchor(number, pem.contents()))
            .collect::<Result<Vec<_>, _>>()?;
        if anchors.is_empty() { Err(AnchorsError::Empty) } else { Ok(Self(anchors.into())) }
    }

    /// Checks that a chain ends in one of the anchors, its certificates in any order behind the
    /// leaf, and that the leaf may be used by a client.
    ///
    /// The time is `wall`, though not before the leaf's beginning: the caller allows for clocks
    /// that differ. Without it, some time of the leaf's life must do.
    pub(super) fn verify(
        &self,
        chain: &[Vec<u8>],
        leaf: &CertificateFacts,
        wall: Option<Timestamp>,
    ) -> Result<(), Refusal> {
        let (begin, end) = (leaf.not_before.0, leaf.not_after.0);
        let times = match wall {
            Some(wall) => vec![wall.0.max(begin)],
            None => vec![begin, begin + end.saturating_sub(begin) / 2, end],
        };
        if times.into_iter().any(|time| self.verifies(chain, time)) {
            Ok(())
        } else {
            Err(Refusal(Reason::UntrustedChain))
        }
    }

    fn verifies(&self, chain: &[Vec<u8>], millis: u64) -> bool {
        let mut ders = chain.iter().map(|der| CertificateDer::from(der.as_slice()));
        let Some(leaf) = ders.next() else {
            return false;
        };
        let others: Vec<_> = ders.collect();
        let time = UnixTime::since_unix_epoch(Duration::from_millis(millis));
        EndEntityCert::try_from(&leaf).is_ok_and(|leaf| {
            let usage = KeyUsage::client_auth();
            let algorithms = ALL_VERIFICATION_ALGS;
            leaf.verify_for_usage(algorithms, &self.0, &others, time, usage, None, None).is_ok()
        })
    }
}

fn anchor(number: usize, der: &[u8]) -> Result<TrustAnchor<'static>, AnchorsError> {
    let der = CertificateDer::from(der);
    match anchor_from_trusted_cert(&der) {
        Ok(anchor) => Ok(anchor.to_owned()),
        Err(e) => Err(AnchorsError::BadCertificate { number, why: e.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_readable_certificate_gives_no_anchors() {
        let error = |text: &str| Anchors::from_pem(text.as_bytes()).expect_err("no anchors");
        assert_eq!(error(""), AnchorsError::Empty);
        assert_eq!(error("no PEM at all"), AnchorsError::Empty);
        let key = pem::encode(&pem::Pem::new("PRIVATE KEY", b"x".as_slice()));
        assert_eq!(error(&key), AnchorsError::Empty);
        let junk = pem::encode(&pem::Pem::new("CERTIFICATE", b"x".as_slice()));
        assert!(matches!(error(&junk), AnchorsError::BadCertificate { number: 1, .. }));
        let broken = junk.replace("-----END CERTIFICATE-----", "-----END");
        assert!(matches!(error(&broken), AnchorsError::BadPem(_) | AnchorsError::Empty));
    }
}
