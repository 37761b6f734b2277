//! The stable words that say why something was refused or came to an end, as `code` of a `result`,
//! in the record, in logs and in the support team's digest.

use std::fmt;

use certrelay::reason::Reason;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal,)+) => {
        /// Why something was refused, or ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            /// What gateways and devices refuse too, by the same word.
            Reason(Reason),
            $($(#[doc = $doc])+ $name,)+
        }

        impl Code {
            /// The codes that only the cloud knows.
            pub const OWN: &[Self] = &[$(Self::$name),+];

            /// The stable word.
            pub fn as_str(self) -> &'static str {
                match self {
                    Self::Reason(reason) => reason.as_str(),
                    $(Self::$name => $word,)+
                }
            }

            /// One sentence for people.
            pub fn explain(self) -> &'static str {
                match self {
                    Self::Reason(reason) => reason.explain(),
                    $(Self::$name => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

codes! {
    /// No rotation of the thing is under way.
    NoRotation = "no-rotation",
    /// The message is about another rotation than the one under way.
    OtherRotation = "other-rotation",
    /// The certificate of the connection is not attached to the thing that its client id names.
    UnknownSpeaker = "unknown-speaker",
    /// The core that relayed the message is not associated with the device.
    NotAssociated = "not-associated",
    /// The ack came over a connection with another certificate than it is about.
    OtherPrincipal = "other-principal",
    /// A proof by the device's key is required, and none came.
    ProofMissing = "proof-missing",
    /// The proof is not by the device's key, or not about this.
    BadProof = "bad-proof",
    /// The rotation has had as many certificates as it may.
    TooManyCertificates = "too-many-certificates",
    /// The old certificate has more policies than the new one may have.
    TooManyPolicies = "too-many-policies",
    /// The certificate is attached to several things.
    SeveralThings = "several-things",
    /// The certificate is attached to no thing.
    NoThing = "no-thing",
    /// The certificate is not ACTIVE.
    NotActive = "not-active",
    /// The certificate is unknown to AWS IoT.
    NoCertificate = "no-certificate",
    /// The CA refused the CSR.
    CaRefused = "ca-refused",
    /// The device never answered.
    Unanswered = "unanswered",
    /// The device never said that it uses the certificate.
    Unacknowledged = "unacknowledged",
    /// The new certificate was not ACTIVE when the old one was to be given up.
    NewNotActive = "new-not-active",
    /// Something hangs on the certificate that is to be deleted.
    NotDeleted = "not-deleted",
    /// Someone has made the old certificate ACTIVE again, so it is kept.
    Kept = "kept",
    /// A certificate of the rotation is being taken back; the message is for after that.
    NotYet = "not-yet",
    /// The trouble came too late: the old certificate is being deleted.
    TooLate = "too-late",
}

impl From<Reason> for Code {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_means_two_things() {
        let own = Code::OWN.iter().map(|code| code.as_str());
        let shared = Reason::ALL.iter().map(|reason| reason.as_str());
        let words: Vec<_> = own.chain(shared).collect();
        let distinct: std::collections::BTreeSet<_> = words.iter().collect();
        assert_eq!(distinct.len(), words.len());
        for code in Code::OWN {
            assert!(code.explain().ends_with('.'), "{code}");
        }
    }
}
