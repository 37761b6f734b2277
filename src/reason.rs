//! The stable reasons: one kebab-case word for everything that is refused, dropped, or ends.
//!
//! The same word stands in the log, in `status`, in the `code` of a `crt_err` and in the docs. A
//! reason once released is never renamed.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal,)+) => {
        /// Why something was refused, dropped, or ended.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub enum Reason {
            $($(#[doc = $doc])+ #[serde(rename = $word)] $name,)+
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The stable word.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// One sentence for people.
            pub fn explain(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

reasons! {
    // Messages that are dropped before they are understood.
    /// A local message stands under the core's own name; only the core may speak for itself.
    ReservedName = "reserved-name",
    /// No glob of `children` matches the device.
    NotServed = "not-served",
    /// The topic is none of ours, or its client id is no thing name.
    BadTopic = "bad-topic",
    /// The kind of message goes in the other direction.
    WrongDirection = "wrong-direction",
    /// The payload is empty.
    EmptyPayload = "empty-payload",
    /// The payload is too large.
    TooLarge = "too-large",
    /// The payload can't be read.
    Unreadable = "unreadable",
    /// A retained message where none may be.
    Retained = "retained",
    /// The downlink is for another core.
    OtherCore = "other-core",
    /// A message of ours came back from the other side: someone bridges the same topics.
    BridgeLoop = "bridge-loop",
    /// The device sends more than is read.
    Flood = "flood",
    /// Messages that need no acknowledgement came faster than they were read.
    Shed = "shed",
    /// Handling the message failed twice by a fault of the gateway.
    Poison = "poison",

    // CSRs.
    /// The CSR can't be read.
    BadCsr = "bad-csr",
    /// The CSR is not signed by its own key.
    BadSignature = "bad-signature",
    /// The key is too short.
    WeakKey = "weak-key",
    /// The key is neither RSA nor on P-256, P-384 or P-521.
    UnsupportedKey = "unsupported-key",
    /// The subject or a subject alternative name is not the client id.
    WrongSubject = "wrong-subject",
    /// The key is that of the certificate already in use.
    KeyNotNew = "key-not-new",
    /// The CSR is for a key that was superseded before.
    StaleKey = "stale-key",

    // Certificates.
    /// The certificate can't be read.
    BadCertificate = "bad-certificate",
    /// The certificate is for no key that is waiting.
    NoWaitingCsr = "no-waiting-csr",
    /// The certificate is for a key that was superseded.
    SupersededKey = "superseded-key",
    /// The certificate is a CA's.
    NotALeaf = "not-a-leaf",
    /// The certificate has expired.
    Expired = "certificate-expired",
    /// The certificate is not valid yet.
    NotYetValid = "not-yet-valid",
    /// The certificate ends before it begins.
    BadValidity = "bad-validity",
    /// The certificate does not chain to the configured trust anchors.
    UntrustedChain = "untrusted-chain",
    /// No rotation waits for a certificate.
    LateCertificate = "late-certificate",
    /// Client device auth did not accept the new certificate; the child is told all the same.
    PrewarmRefused = "prewarm-refused",

    // Acks and errors.
    /// The ack is about an earlier certificate, or nothing says that it is not.
    StaleAck = "stale-ack",
    /// The ack names a certificate that was never here.
    AckUnknown = "ack-unknown",
    /// The error is about an earlier rotation.
    StaleError = "stale-error",
    /// The device reported an error.
    DeviceError = "device-error",

    // Requests.
    /// The request repeats one that is done, or comes too soon after it.
    TooSoon = "too-soon",
    /// The cloud refused for good.
    CloudRefused = "cloud-refused",
    /// The cloud refused for now.
    CloudDeferred = "cloud-deferred",
    /// The result is about nothing that is under way.
    StaleResult = "stale-result",

    // Ends.
    /// The certificate is in use: named by the device.
    AckedNamed = "acked-named",
    /// The certificate is in use: the device named none, but it was the one just sent.
    AckedBare = "acked-bare",
    /// The rotation took longer than it may.
    RotationExpired = "expired",
    /// The device never acknowledged its certificate.
    Undelivered = "undelivered",
    /// A newer key or certificate took its place.
    Superseded = "superseded",
    /// The cloud acted on the notice.
    Settled = "settled",
    /// The notice reached the cloud's broker; the cloud never said what became of it.
    Unsettled = "unsettled",
    /// The notice was sent, and nothing ever said that it arrived.
    Unconfirmed = "unconfirmed",

    // The core's own certificate.
    /// Where the core's certificate and key are is not known.
    CredentialUnknown = "credential-unknown",
    /// The core's certificate or key can't be read, or they are not of one pair.
    CredentialUnusable = "credential-unusable",
    /// The core's private key is in a hardware module, where it can't be rotated yet.
    HardwareKey = "hardware-key",
    /// No nucleus started this process, so there is none to restart with a new certificate.
    NoNucleus = "no-nucleus",
    /// The process lacks a right that it needs beside the core's certificate.
    NoPrivilege = "no-privilege",
    /// The file system of the core's certificate is read-only.
    ReadOnly = "read-only",
    /// A configured file is a mount point itself, and can't be replaced.
    MountPoint = "mount-point",
    /// A configured path is a link that is not ours.
    ForeignLink = "foreign-link",
    /// There is no space beside the core's certificate.
    NoSpace = "no-space",
    /// Writing or reading beside the core's certificate failed.
    DiskError = "disk-error",
    /// The nucleus' user could not read the new pair.
    NotReadable = "not-readable",
    /// The command that restarts the nucleus is not there.
    CannotRestart = "cannot-restart",
    /// The restart of the nucleus was asked for and did not come.
    RestartFailed = "restart-failed",
    /// The nucleus was restarted as often as it may be in a day.
    RestartLimit = "restart-limit",
    /// The cloud refuses the core's new certificate where it takes the old one.
    ProbeRefused = "probe-refused",
    /// The cloud could not be asked about the core's new certificate.
    ProbeUnreachable = "probe-unreachable",
    /// No probe is permitted; the core's new certificate is installed unproven.
    ProbeNotPermitted = "probe-not-permitted",
    /// After the restart the cloud refused the core's new certificate and took the old one.
    RefusedAfterRestart = "refused-after-restart",
    /// Somebody rolled the core's certificate back by hand.
    RolledBackByHand = "rolled-back-by-hand",
    /// The certificate's id is not the SHA-256 of its DER.
    OddCertificateId = "odd-certificate-id",
    /// A certificate expires soon.
    ExpiresSoon = "expires-soon",

    // The gateway itself.
    /// There are too many records; this one could not be kept.
    TooManyRecords = "too-many-records",
    /// There is no room in the store.
    StoreFull = "store-full",
    /// The store was damaged and what it held is lost.
    StoreLost = "store-lost",
    /// The body of a message is missing from the store.
    BodyLost = "body-lost",
    /// A new rotation began.
    Requested = "requested",
    /// A device that nobody said is behind this core is tried.
    Tried = "tried",
    /// A CSR was accepted.
    CsrAccepted = "csr-accepted",
    /// A certificate was accepted.
    CertificateAccepted = "certificate-accepted",
    /// A certificate was accepted although no trust anchors are configured.
    Unanchored = "unanchored",
    /// The message repeats what is known.
    Repeated = "repeated",
    /// The cloud has taken the CSR.
    CloudTook = "cloud-took",
    /// A bare ack came; the certificate goes out once more, to see that the ack is about it.
    EchoAsked = "echo-asked",
    /// The link refuses the message for good.
    LinkRefused = "link-refused",
    /// One error a child, code and hour goes to the cloud; this one did not.
    ErrorSuppressed = "error-suppressed",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_word_of_its_own_that_reads_back() {
        let words: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            let json = serde_json::to_string(reason).expect("serialises");
            assert_eq!(json, format!("{:?}", reason.as_str()));
            assert!(reason.explain().ends_with('.'));
        }
    }
}
