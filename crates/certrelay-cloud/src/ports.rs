//! What the functions need of the world: one method a call, and how a call can fail.
//!
//! Two adapters implement [`Cloud`]: AWS, and the cloud in memory that tests and the demo use. Every
//! call of [`Registry`] is idempotent but [`Registry::create`]; what that leaves behind when nobody
//! hears its answer is INACTIVE and attached to nothing.

use std::future::Future;

use certrelay::{
    schedule::Timestamp,
    wire::{CertificateId, ThingName},
};
use serde::{Deserialize, Serialize};

use crate::{
    decide::report::Note,
    record::{Key, Record},
};

macro_rules! calls {
    ($($name:ident: $service:ident,)+) => {
        /// The API calls, by AWS's names for them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "each is the call of that name")]
        pub enum Call {
            $($name,)+
        }

        impl Call {
            /// Every call.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// AWS's name for it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// The service whose call it is.
            pub fn service(self) -> &'static str {
                match self { $(Self::$name => stringify!($service),)+ }
            }
        }
    };
}

calls! {
    DescribeCertificate: iot,
    ListPrincipalThings: iot,
    DescribeThing: iot,
    CreateCertificateFromCsr: iot,
    RegisterCertificateWithoutCA: iot,
    IssueCertificate: acmpca,
    GetCertificate: acmpca,
    ListAttachedPolicies: iot,
    AttachPolicy: iot,
    DetachPolicy: iot,
    AttachThingPrincipal: iot,
    DetachThingPrincipal: iot,
    UpdateCertificate: iot,
    DeleteCertificate: iot,
    ListAuditFindings: iot,
    Publish: iotdata,
    ListClientDevices: greengrass,
    GetItem: dynamodb,
    PutItem: dynamodb,
    UpdateItem: dynamodb,
    DeleteItem: dynamodb,
    Query: dynamodb,
    SendMessage: sqs,
    Notify: sns,
}

/// Why a call came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", call.as_str())]
pub struct CallError {
    /// Which.
    pub call: Call,
    /// Why.
    pub why: Failure,
}

/// Why, as far as it makes a difference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Too many calls; later it may go well.
    #[error("throttled")]
    Throttled,
    /// No answer, or one that says nothing about the question. It may have been done all the same.
    #[error("no answer: {0}")]
    Unavailable(String),
    /// What it is about does not exist.
    #[error("not found")]
    NotFound,
    /// What it is about is in a state that does not permit it, now: still attached, still active.
    #[error("not in this state")]
    Conflict,
    /// The call as such is wrong: it will never go well.
    #[error("refused: {0}")]
    Invalid(String),
    /// A right is missing.
    #[error("denied: {0}")]
    Denied(String),
}

/// Why a record could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// Someone else has written it since it was read.
    #[error("someone else has written the record")]
    Raced,
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// A certificate as AWS IoT has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The certificate, PEM.
    pub pem: String,
    /// Whether it may be used.
    pub status: Status,
}

/// Whether a certificate may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It may.
    Active,
    /// It may not; that can be reversed.
    Inactive,
    /// Any other status: revoked, in transfer. None that we set or undo.
    Other,
}

/// A thing that a certificate is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The thing.
    pub thing: ThingName,
    /// Whether the certificate can be attached to no other.
    pub is_exclusive: bool,
}

/// A certificate just created, INACTIVE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// AWS IoT's id for it.
    pub id: CertificateId,
    /// The certificate, and its issuers where the CA gives them, leaf first.
    pub pem: String,
}

/// Certificates and what hangs on them. Lists are whole: all pages.
pub trait Registry {
    /// DescribeCertificate.
    fn certificate(&self, id: CertificateId)
    -> impl Future<Output = Result<Registered, CallError>>;
    /// ListPrincipalThings.
    fn things_of(
        &self,
        id: CertificateId,
    ) -> impl Future<Output = Result<Vec<Attachment>, CallError>>;
    /// Whether the certificate is attached to the thing; may be some minutes old.
    fn speaks_for(
        &self,
        id: CertificateId,
        thing: &ThingName,
    ) -> impl Future<Output = Result<bool, CallError>>;
    /// Whether the device is associated with the core; may be some minutes old.
    fn is_associated(
        &self,
        core: &ThingName,
        device: &ThingName,
    ) -> impl Future<Output = Result<bool, CallError>>;
    /// The core that the device is behind, where the source of associations can tell: Greengrass
    /// lists the devices of a core, and not the core of a device.
    fn core_of(
        &self,
        device: &ThingName,
    ) -> impl Future<Output = Result<Option<ThingName>, CallError>>;
    /// Has the CSR (PEM) signed and the certificate registered, INACTIVE. With a CA that knows
    /// idempotency the same token gives the same certificate; AWS IoT's own makes a new one.
    fn create(&self, csr: &str, token: &str) -> impl Future<Output = Result<Created, CallError>>;
    /// ListAttachedPolicies.
    fn policies_of(
        &self,
        id: CertificateId,
    ) -> impl Future<Output = Result<Vec<String>, CallError>>;
    /// AttachPolicy.
    fn attach_policy(
        &self,
        id: CertificateId,
        policy: &str,
    ) -> impl Future<Output = Result<(), CallError>>;
    /// DetachPolicy.
    fn detach_policy(
        &self,
        id: CertificateId,
        policy: &str,
    ) -> impl Future<Output = Result<(), CallError>>;
    /// AttachThingPrincipal.
    fn attach_thing(
        &self,
        id: CertificateId,
        to: &Attachment,
    ) -> impl Future<Output = Result<(), CallError>>;
    /// DetachThingPrincipal. AWS does it some seconds later.
    fn detach_thing(
        &self,
        id: CertificateId,
        thing: &ThingName,
    ) -> impl Future<Output = Result<(), CallError>>;
    /// UpdateCertificate. `active` or not.
    fn set_active(
        &self,
        id: CertificateId,
        active: bool,
    ) -> impl Future<Output = Result<(), CallError>>;
    /// DeleteCertificate; [`Failure::Conflict`] while anything hangs on it.
    fn delete(&self, id: CertificateId) -> impl Future<Output = Result<(), CallError>>;
}

/// The findings of an audit.
pub trait Audits {
    /// One page, of 250 at most. `token` is what the page before gave.
    fn findings(
        &self,
        task: &str,
        check: &str,
        token: Option<&str>,
    ) -> impl Future<Output = Result<Page<Finding>, CallError>>;
}

/// A certificate that an audit has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// The certificate.
    pub certificate: CertificateId,
    /// When it expires, where the audit says so.
    pub expires: Option<Timestamp>,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What it holds.
    pub items: Vec<T>,
    /// What asks for the next; `None` after the last.
    pub next: Option<String>,
}

/// The records, the day's budget, and what a person is to be told.
pub trait Records {
    /// The newest record of a thing, as it is now (not as it was a moment ago).
    fn latest(&self, thing: &ThingName) -> impl Future<Output = Result<Option<Record>, CallError>>;
    /// Writes a record, if what stands there is its version but one; version 1 if nothing does.
    fn put(&self, record: &Record) -> impl Future<Output = Result<(), PutError>>;
    /// The records that something is to be done about by now, the longest due first.
    fn due(
        &self,
        now: Timestamp,
        token: Option<&str>,
    ) -> impl Future<Output = Result<Page<Key>, CallError>>;
    /// The certificates that rotations under way are about.
    fn under_way(
        &self,
        token: Option<&str>,
    ) -> impl Future<Output = Result<Page<CertificateId>, CallError>>;
    /// Takes up to `wanted` of what is left of a day's budget; how many were left.
    fn draw(
        &self,
        day: u64,
        wanted: u32,
        budget: u32,
    ) -> impl Future<Output = Result<u32, CallError>>;
    /// Keeps a note for the next digest; the same note twice is one.
    fn keep(&self, note: &Note) -> impl Future<Output = Result<(), CallError>>;
    /// The notes for the next digest, oldest first: one page.
    fn notes(&self, token: Option<&str>) -> impl Future<Output = Result<Page<Note>, CallError>>;
    /// Forgets a note.
    fn forget(&self, note: &Note) -> impl Future<Output = Result<(), CallError>>;
}

/// The queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Queue {
    /// Audits under way.
    Audit,
    /// Certificates to rotate.
    Rotate,
    /// Records that are due.
    Due,
}

/// What is sent: to devices, to queues, to people.
pub trait Outbox {
    /// Publishes to a device, at least once.
    fn publish(&self, topic: &str, payload: &[u8]) -> impl Future<Output = Result<(), CallError>>;
    /// Puts messages into a queue, all or an error.
    fn enqueue(
        &self,
        queue: Queue,
        messages: &[String],
    ) -> impl Future<Output = Result<(), CallError>>;
    /// Tells the support team.
    fn notify(&self, subject: &str, text: &str) -> impl Future<Output = Result<(), CallError>>;
}

/// All of it.
pub trait Cloud: Registry + Audits + Records + Outbox {}

impl<T: Registry + Audits + Records + Outbox> Cloud for T {}
