//! A throw-away CA: certificates for servers, for clients by name, and from CSRs.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};

/// The names and addresses that a server certificate is for.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A CA with a P-256 key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key, in PKCS#8.
    pub key: String,
}

/// What a client needs for mTLS, as files.
#[derive(Debug, Clone)]
pub struct Files {
    /// Whom it trusts.
    pub ca: PathBuf,
    /// Its certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// A new CA; `name` is its common name.
    pub fn new(name: &str) -> Self {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a P-256 key");
        let certificate = params.self_signed(&key).expect("a CA certificate").pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// The CA's own certificate, in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A new pair for a server on this machine.
    pub fn server(&self) -> Pair {
        let mut params = named("localhost");
        params.subject_alt_names = local_names();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(&params)
    }

    /// A new pair for a client with this common name.
    pub fn client(&self, common_name: &str) -> Pair {
        let mut params = named(common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(&params)
    }

    /// A new pair with a P-256 key for any parameters.
    pub fn issue(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().expect("a P-256 key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Pair { certificate, key: key.serialize_pem() }
    }

    /// The certificate for a CSR, in PEM, with the CSR's subject.
    pub fn sign_csr(&self, csr: &str) -> String {
        self.sign_csr_with(csr, |_| ())
    }

    /// As [`Authority::sign_csr`], after `amend` has changed what the certificate is to say.
    pub fn sign_csr_with(&self, csr: &str, amend: impl FnOnce(&mut CertificateParams)) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(csr).expect("a CSR");
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        amend(&mut request.params);
        self.sign(&request)
    }

    /// The certificate for a CSR as it stands, whatever it asks for; in PEM.
    pub fn sign(&self, request: &CertificateSigningRequestParams) -> String {
        request.signed_by(&self.issuer).expect("a certificate").pem()
    }

    /// Writes the CA, and a new client pair with this common name, into `dir`.
    pub fn client_files(&self, dir: &Path, common_name: &str) -> Files {
        let (certificate, key) = self.client(common_name).write(dir, common_name);
        Files { ca: self.write(dir), certificate, key }
    }

    /// Writes the CA's certificate as `ca.pem` into `dir`.
    pub fn write(&self, dir: &Path) -> PathBuf {
        let path = dir.join("ca.pem");
        super::write(&path, &self.certificate);
        path
    }
}

impl Pair {
    /// Writes `<stem>.cert.pem` and `<stem>.key.pem` into `dir`.
    pub fn write(&self, dir: &Path, stem: &str) -> (PathBuf, PathBuf) {
        let certificate = dir.join(format!("{stem}.cert.pem"));
        let key = dir.join(format!("{stem}.key.pem"));
        super::write(&certificate, &self.certificate);
        super::write(&key, &self.key);
        (certificate, key)
    }
}

/// Parameters with nothing but a common name; valid from 1975 to 4096.
pub fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

/// The alternative names of a server on this machine.
pub fn local_names() -> Vec<SanType> {
    LOCAL_NAMES.map(subject_alt_name).to_vec()
}

fn subject_alt_name(name: &str) -> SanType {
    match name.parse() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(name.try_into().expect("a DNS name")),
    }
}
