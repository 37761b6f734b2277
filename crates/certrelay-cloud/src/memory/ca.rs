//! A CA that signs what CSRs ask for, as AWS IoT's does: the key and the subject are the CSR's.

use std::time::Duration;

use certrelay::schedule::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
};

/// A new certificate is valid from a little before: not every clock is right.
const CLOCKS_APART: Duration = Duration::from_secs(60);

/// Whoever signs.
pub trait Ca: Send {
    /// The certificate for a CSR (PEM), valid for so long; PEM. The error says what is wrong with the
    /// CSR: it can't be read, or is not signed by its own key.
    fn sign(&mut self, csr: &str, now: Timestamp, validity: Duration) -> Result<String, String>;
}

/// A CA with a P-256 key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    serial: u64,
}

impl Authority {
    /// A new CA; `name` is its common name.
    ///
    /// # Errors
    ///
    /// When the system has no random numbers.
    pub fn new(name: &str) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate, serial: 0x1000 })
    }

    /// The CA's own certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }
}

impl Ca for Authority {
    fn sign(&mut self, csr: &str, now: Timestamp, validity: Duration) -> Result<String, String> {
        let mut request =
            CertificateSigningRequestParams::from_pem(csr).map_err(|error| error.to_string())?;
        self.serial += 1;
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let begin = Duration::from_secs(now.unix_seconds()).saturating_sub(CLOCKS_APART);
        request.params.not_before = epoch + begin;
        request.params.not_after = epoch + begin + validity;
        request.params.serial_number = Some(SerialNumber::from(self.serial));
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let signed = request.signed_by(&self.issuer);
        signed.map(|certificate| certificate.pem()).map_err(|error| error.to_string())
    }
}
