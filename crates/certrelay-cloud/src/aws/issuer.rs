//! Who signs: AWS IoT itself, or AWS Private CA, whose certificates are registered then.

use std::{num::NonZeroU32, time::Duration};

use aws_sdk_acmpca::{
    error::SdkError,
    operation::get_certificate::GetCertificateError,
    primitives::Blob,
    types::{SigningAlgorithm, Validity, ValidityPeriodType},
};
use aws_sdk_iot::{
    operation::register_certificate_without_ca::RegisterCertificateWithoutCAError,
    types::CertificateStatus,
};
use certrelay::{wire::CertificateId, x509};
use tokio::time::sleep;

use super::{Aws, Issuer, errors, iot::unreadable};
use crate::ports::{Call, CallError, Created, Failure};

/// How often it is looked whether the private CA has signed, and how long.
const LOOK: Duration = Duration::from_millis(500);
const LOOKS: u32 = 20;

impl Aws {
    pub(super) async fn issue(&self, csr: &str, token: &str) -> Result<Created, CallError> {
        match &self.config.issuer {
            Issuer::AwsIot => self.by_aws_iot(csr).await,
            Issuer::PrivateCa { arn, days, algorithm } => {
                let issued = self.ask_private_ca(arn, *days, algorithm, csr, token).await?;
                let pem = self.private_certificate(arn, &issued).await?;
                let id = self.register(&pem).await?;
                Ok(Created { id, pem })
            }
        }
    }

    async fn by_aws_iot(&self, csr: &str) -> Result<Created, CallError> {
        let call = Call::CreateCertificateFromCsr;
        self.pace.turn(call).await;
        let request = self.iot.create_certificate_from_csr();
        let request = request.certificate_signing_request(csr).set_as_active(false);
        let answer = request.send().await.map_err(errors::of(call))?;
        let id = answer.certificate_id().and_then(|id| id.parse().ok());
        let (id, pem) = id.zip(answer.certificate_pem).ok_or_else(|| unreadable(call))?;
        Ok(Created { id, pem })
    }

    /// The ARN of the certificate that is being signed.
    async fn ask_private_ca(
        &self,
        ca: &str,
        days: NonZeroU32,
        algorithm: &str,
        csr: &str,
        token: &str,
    ) -> Result<String, CallError> {
        let call = Call::IssueCertificate;
        let fail = |error: &dyn std::error::Error| CallError {
            call,
            why: Failure::Invalid(error.to_string()),
        };
        let validity = Validity::builder().r#type(ValidityPeriodType::Days);
        let validity = validity.value(i64::from(days.get())).build();
        let validity = validity.map_err(|error| fail(&error))?;
        let request = self.pca.issue_certificate().certificate_authority_arn(ca);
        let request = request.csr(Blob::new(csr)).idempotency_token(token).validity(validity);
        let request = request.signing_algorithm(SigningAlgorithm::from(algorithm));
        let request = request.template_arn(end_entity(ca));
        let answer = request.send().await.map_err(errors::of(call))?;
        answer.certificate_arn.ok_or_else(|| unreadable(call))
    }

    /// The certificate and its chain, once the CA has signed.
    async fn private_certificate(&self, ca: &str, issued: &str) -> Result<String, CallError> {
        let call = Call::GetCertificate;
        for _ in 0..LOOKS {
            let request = self.pca.get_certificate().certificate_authority_arn(ca);
            match request.certificate_arn(issued).send().await {
                Ok(answer) => {
                    let leaf = answer.certificate.ok_or_else(|| unreadable(call))?;
                    let chain = answer.certificate_chain.unwrap_or_default();
                    return Ok(format!("{}\n{}", leaf.trim_end(), chain.trim_start()));
                }
                Err(error) if is_under_way(&error) => sleep(LOOK).await,
                Err(error) => return Err(errors::of(call)(error)),
            }
        }
        let why = Failure::Unavailable("the private CA has not signed in time".to_owned());
        Err(CallError { call, why })
    }

    /// Registers a certificate, INACTIVE. One that is registered keeps its id, which is asked for.
    async fn register(&self, pem: &str) -> Result<CertificateId, CallError> {
        let call = Call::RegisterCertificateWithoutCA;
        self.pace.turn(call).await;
        let leaf = pem::parse(pem).map_err(|_| unreadable(call))?;
        let request =
            self.iot.register_certificate_without_ca().certificate_pem(pem::encode(&leaf));
        let answer = request.status(CertificateStatus::Inactive).send().await;
        let id = match answer {
            Ok(answer) => answer.certificate_id,
            Err(error) => match already(&error) {
                Some(id) => id,
                None => return Err(errors::of(call)(error)),
            },
        };
        let id = id.and_then(|id| id.parse().ok());
        Ok(id.unwrap_or_else(|| x509::certificate_id(leaf.contents())))
    }
}

/// What the CA signs by: a certificate of a device, never one of a CA, whatever the CSR asks for. The
/// function's role permits no other.
fn end_entity(ca: &str) -> String {
    let partition = ca.split(':').nth(1).unwrap_or("aws");
    format!("arn:{partition}:acm-pca:::template/EndEntityCertificate/V1")
}

fn is_under_way<R>(error: &SdkError<GetCertificateError, R>) -> bool {
    error.as_service_error().is_some_and(GetCertificateError::is_request_in_progress_exception)
}

fn already<R>(error: &SdkError<RegisterCertificateWithoutCAError, R>) -> Option<Option<String>> {
    match error.as_service_error()? {
        RegisterCertificateWithoutCAError::ResourceAlreadyExistsException(known) => {
            Some(known.resource_id().map(str::to_owned))
        }
        _ => None,
    }
}
