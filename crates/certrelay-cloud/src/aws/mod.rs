//! The ports over AWS's own SDK: one client a service, made once an instance.
//!
//! Calls of AWS IoT's control plane are paced, each API by itself ([`pace`]), and retried by the SDK
//! with its adaptive back-off; what still fails goes back to the queue. One operation takes at most
//! ten seconds, and an invocation less than [`crate::record::LEASE`]: the template's timeouts see to
//! that.

#![expect(clippy::disallowed_methods, reason = "AWS is a driver: it has the clock of its caches")]

mod cache;
mod config;
mod errors;
mod iot;
mod issuer;
mod outbox;
mod pace;
mod records;

use std::{sync::Mutex, time::Duration};

use aws_config::{
    BehaviorVersion, ConfigLoader, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_smithy_http_client::{Builder, tls};
use certrelay::wire::{CertificateId, ThingName};

use cache::Cache;
pub use config::{Associations, Config, ConfigError, Issuer};
use pace::Pace;

/// How long one operation may take, retries and all.
const OPERATION: Duration = Duration::from_secs(10);

/// How long one attempt of it may take.
const ATTEMPT: Duration = Duration::from_secs(3);

/// How often an operation is tried.
const ATTEMPTS: u32 = 4;

/// AWS.
pub struct Aws {
    config: Config,
    iot: aws_sdk_iot::Client,
    data: aws_sdk_iotdataplane::Client,
    greengrass: aws_sdk_greengrassv2::Client,
    dynamo: aws_sdk_dynamodb::Client,
    sqs: aws_sdk_sqs::Client,
    sns: aws_sdk_sns::Client,
    pca: aws_sdk_acmpca::Client,
    pace: Pace,
    /// The things of a certificate.
    things: Mutex<Cache<CertificateId, Vec<ThingName>>>,
    /// The devices of a core.
    devices: Mutex<Cache<ThingName, Vec<ThingName>>>,
}

impl Aws {
    /// Connects nowhere yet; credentials and region are the environment's.
    pub async fn new(config: Config) -> Self {
        Self::over(config, &sdk().load().await)
    }

    /// The same with the SDK's settings as they are given.
    pub fn over(config: Config, sdk: &SdkConfig) -> Self {
        Self {
            iot: aws_sdk_iot::Client::new(sdk),
            data: aws_sdk_iotdataplane::Client::new(sdk),
            greengrass: aws_sdk_greengrassv2::Client::new(sdk),
            dynamo: aws_sdk_dynamodb::Client::new(sdk),
            sqs: aws_sdk_sqs::Client::new(sdk),
            sns: aws_sdk_sns::Client::new(sdk),
            pca: aws_sdk_acmpca::Client::new(sdk),
            pace: Pace::new(config.pace),
            things: Mutex::default(),
            devices: Mutex::default(),
            config,
        }
    }

    /// A certificate's ARN.
    fn arn(&self, id: CertificateId) -> String {
        let Config { partition, region, account, .. } = &self.config;
        format!("arn:{partition}:iot:{region}:{account}:cert/{id}")
    }
}

/// The SDK's settings, to be loaded. `AWS_ENDPOINT_URL`, and that of each service, are heeded.
pub fn sdk() -> ConfigLoader {
    let ring = tls::rustls_provider::CryptoMode::Ring;
    let http = Builder::new().tls_provider(tls::Provider::Rustls(ring)).build_https();
    let timeouts =
        TimeoutConfig::builder().operation_timeout(OPERATION).operation_attempt_timeout(ATTEMPT);
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .retry_config(RetryConfig::adaptive().with_max_attempts(ATTEMPTS))
        .timeout_config(timeouts.build())
}
