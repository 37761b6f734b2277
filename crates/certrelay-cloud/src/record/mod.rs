//! The record of one rotation of a thing: what is known, what is being done, and until when.
//!
//! A thing has at most one rotation that is not over: the record after it has the next number, and
//! two that begin at once both try to write that. Every change is one conditional write of the whole
//! record ([`Record::version`]). A state in which calls are under way says so *before* the first of
//! them, and until when nobody else may act ([`State::lease`]); the calls are idempotent, so whoever
//! finds a lease that is over does them again. Pure: the time comes in, records come out.

mod state;

use std::time::Duration;

use certrelay::{
    schedule::Timestamp,
    wire::{CertificateId, KeyDigest, Nonce, RotationId, ThingName},
};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

pub use state::{
    Acked, Blob, Deactivating, Ended, GivenUp, Inactive, Issued, Issuing, Made, Proof, Requested,
    Retired, Retiring, Reversing, State, Then, Withdrawing,
};

/// How long whoever writes an intent has for the calls. Longer than any function may run.
pub const LEASE: Duration = Duration::from_secs(120);

/// The most certificates of one rotation.
pub const MOST_CERTIFICATES: u32 = 3;

/// The most keys that are remembered of earlier rotations.
const MOST_SPENT: usize = 16;

/// The most certificates that an abandoned rotation hands on, and the most ids.
const MOST_SUPERSEDED: usize = 6;
const MOST_LEFTOVER: usize = 32;

/// How long a record is kept once its rotation is over.
const KEPT: Duration = Duration::from_secs(90 * 86_400);

/// Which record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The thing.
    pub thing: ThingName,
    /// Its how manyeth rotation, from 1, as far as records remember.
    pub seq: u32,
}

/// One rotation of a thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which.
    pub key: Key,
    /// How often it was written.
    pub version: u64,
    /// How often it was begun anew, after the device had trouble. To gateways and devices each attempt is
    /// a rotation of its own: one that has ended is not gone on with.
    pub attempt: u32,
    /// The core that speaks for the thing, once it is known. The thing itself, if it does.
    pub core: Option<ThingName>,
    /// The certificate that is to be replaced.
    pub old: Old,
    /// What a proof must be about, so that none of an earlier rotation fits.
    pub nonce: Nonce,
    /// The device is not to be asked before this, where someone wished that.
    pub hold_until: Option<Timestamp>,
    /// How many certificates were made in this rotation.
    pub made: u32,
    /// Certificates that another took the place of, or is to, oldest first; those too that an
    /// earlier rotation left when it was abandoned. The device may use them: only an ack of
    /// another gives them up.
    pub superseded: Vec<Superseded>,
    /// Older ones of the kind, of which no more than the id is remembered.
    pub leftover: Vec<CertificateId>,
    /// Keys of certificates that are gone, oldest first. No CSR may come with them again.
    pub spent: Vec<KeyDigest>,
    /// Errors that the device or its gateway reported, or that we met.
    pub failures: u32,
    /// The last of them.
    pub last_failure: Option<Trouble>,
    /// When it began.
    pub began: Timestamp,
    /// How far it is.
    pub state: State,
}

/// The certificate that is to be replaced, as it was when the rotation began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Old {
    /// Its id.
    pub id: CertificateId,
    /// The digest of its key.
    pub key: KeyDigest,
    /// Its public key: a SubjectPublicKeyInfo, DER.
    pub spki: Blob,
    /// When it expires.
    pub not_after: Timestamp,
    /// Whether it is attached to the thing as the only one that it may be attached to.
    pub is_exclusive: bool,
}

/// A certificate that another took the place of, or is to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superseded {
    /// The certificate.
    pub made: Made,
    /// Whether the device said that it has trouble with it. If so, it is never offered again.
    pub has_failed: bool,
}

/// An error that was reported, or met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The code, or `device-error` if none came.
    pub code: String,
    /// What the device said: cut at 256 bytes and escaped. For this record only: never mailed.
    pub text: String,
    /// When the message reached AWS IoT.
    pub at: Timestamp,
}

impl Record {
    /// The record of a rotation that begins: as [`State::Requested`], asked once.
    pub fn begin(
        thing: ThingName,
        old: Old,
        before: Option<&Self>,
        fresh: [u8; 16],
        now: Timestamp,
    ) -> Self {
        let seq = before.map_or(1, |before| before.key.seq.saturating_add(1));
        Self {
            attempt: 1,
            core: before.and_then(|before| before.core.clone()),
            nonce: Nonce(fresh),
            hold_until: None,
            made: 0,
            superseded: before.map(|before| before.unresolved(old.id)).unwrap_or_default(),
            leftover: before.map(|before| before.forgotten(old.id)).unwrap_or_default(),
            spent: before.map(Self::spent_by).unwrap_or_default(),
            failures: 0,
            last_failure: None,
            began: now,
            state: State::Requested(Requested { asks: 0, due: now }),
            key: Key { thing, seq },
            old,
            version: 1,
        }
    }

    /// The next version, in this state.
    #[must_use]
    pub fn into_state(mut self, state: impl Into<State>) -> Self {
        self.state = state.into();
        self.version += 1;
        self
    }

    /// What devices and gateways know the attempt under way by. No other of the thing's has ever had
    /// this name, whatever was forgotten.
    pub fn rotation(&self) -> RotationId {
        let name = match self.attempt {
            0 | 1 => self.name(),
            more => format!("{}-{more}", self.name()),
        };
        name.parse().expect("digits, dashes and hex digits are a rotation id")
    }

    /// Whether a message with this name is about this record, by any of its attempts.
    pub fn answers_to(&self, rotation: &RotationId) -> bool {
        let rest = rotation.as_str().strip_prefix(&self.name());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    fn name(&self) -> String {
        format!("{}-{}", self.key.seq, HEXLOWER.encode(&self.nonce.0[..8]))
    }

    /// The record, whose device is to make a new attempt.
    #[must_use]
    pub fn anew(mut self) -> Self {
        self.attempt = self.attempt.saturating_add(1);
        self
    }

    /// The thing.
    pub fn thing(&self) -> &ThingName {
        &self.key.thing
    }

    /// Whether nothing is left to be done.
    pub fn is_over(&self) -> bool {
        self.state.due().is_none()
    }

    /// Whether whoever wrote the record may still be at work on it.
    pub fn is_leased(&self, now: Timestamp) -> bool {
        self.state.lease().is_some_and(|lease| now < lease)
    }

    /// When the record is forgotten; only one that is over ever is.
    pub fn forget_at(&self) -> Option<Timestamp> {
        self.state.ended_at().map(|at| at + KEPT)
    }

    /// The certificates that the rotation is about: what an audit need not start again.
    pub fn certificates(&self) -> Vec<CertificateId> {
        let superseded = self.superseded.iter().map(|other| other.made.id);
        let made = self.state.made().map(|made| made.id);
        let leftover = self.leftover.iter().copied();
        [self.old.id].into_iter().chain(leftover).chain(superseded).chain(made).collect()
    }

    /// What is to be given up once this certificate is known to be in use.
    pub fn given_up_for(&self, in_use: CertificateId) -> Vec<CertificateId> {
        self.certificates().into_iter().filter(|id| *id != in_use).collect()
    }

    /// A certificate of this rotation for this key that another took the place of.
    pub fn superseded_by_key(&self, key: KeyDigest) -> Option<&Superseded> {
        self.superseded.iter().find(|other| other.made.key == key)
    }

    /// The record with the current certificate among the superseded ones.
    #[must_use]
    pub fn supersede(mut self, has_failed: bool) -> Self {
        if let Some(made) = self.state.made().cloned() {
            self.superseded.push(Superseded { made, has_failed });
        }
        self
    }

    /// The record without a superseded certificate, which is to be the current one again.
    #[must_use]
    pub fn without_superseded(mut self, id: CertificateId) -> Self {
        self.superseded.retain(|other| other.made.id != id);
        self
    }

    /// The record with one more error.
    #[must_use]
    pub fn failed(mut self, trouble: Trouble) -> Self {
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some(trouble);
        self
    }

    /// Whether a key was used before: by the old certificate, or in an earlier rotation.
    pub fn is_spent(&self, key: KeyDigest) -> bool {
        self.old.key == key || self.spent.contains(&key)
    }

    /// The keys that are spent once this rotation is over.
    fn spent_by(&self) -> Vec<KeyDigest> {
        let all = self.spent.iter().copied().chain([self.old.key]);
        newest(all.collect(), MOST_SPENT)
    }

    /// What a rotation leaves to the next: certificates that may be in use, or not.
    fn unresolved(&self, next: CertificateId) -> Vec<Superseded> {
        newest(self.left_to(next), MOST_SUPERSEDED)
    }

    /// Of what else it leaves, the ids.
    fn forgotten(&self, next: CertificateId) -> Vec<CertificateId> {
        if matches!(self.state, State::Retired(_)) {
            return Vec::new();
        }
        let left = self.left_to(next);
        let surplus = left.len().saturating_sub(MOST_SUPERSEDED);
        let surplus = left[..surplus].iter().map(|other| other.made.id);
        let all = self.leftover.iter().copied().chain([self.old.id]).chain(surplus);
        newest(all.filter(|id| *id != next).collect(), MOST_LEFTOVER)
    }

    /// What one that ended well has none of; what is replaced next is named as that.
    fn left_to(&self, next: CertificateId) -> Vec<Superseded> {
        if matches!(self.state, State::Retired(_)) {
            return Vec::new();
        }
        let others = self.superseded.iter().filter(|other| other.made.id != next);
        others.cloned().collect()
    }
}

/// The last `most` of a list.
fn newest<T>(mut list: Vec<T>, most: usize) -> Vec<T> {
    let surplus = list.len().saturating_sub(most);
    list.drain(..surplus);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old(fill: u8) -> Old {
        Old {
            id: CertificateId([fill; 32]),
            key: KeyDigest([fill; 32]),
            spki: Blob(vec![fill; 91]),
            not_after: Timestamp(1),
            is_exclusive: false,
        }
    }

    fn made(fill: u8) -> Made {
        Made {
            id: CertificateId([fill; 32]),
            key: KeyDigest([fill; 32]),
            pem: String::from("pem"),
            csr_at: Timestamp(1),
            at: Timestamp(2),
        }
    }

    fn begun(before: Option<&Record>, fill: u8) -> Record {
        let thing = "press-1".parse().expect("a name");
        let seq = before.map_or(1, |before| before.key.seq + 1);
        let fresh = [u8::try_from(seq).expect("few"); 16];
        Record::begin(thing, old(fill), before, fresh, Timestamp(5))
    }

    #[test]
    fn a_rotation_that_was_given_up_leaves_its_certificates_to_the_next() {
        let mut first = begun(None, 1);
        first.superseded.push(Superseded { made: made(2), has_failed: false });
        let ended = Ended { code: "unanswered".to_owned(), at: Timestamp(9) };
        let first = first.into_state(State::Abandoned(ended));
        let next = begun(Some(&first), 1);
        assert_eq!((next.key.seq, &next.superseded), (2, &first.superseded));
        assert_eq!(next.spent, [KeyDigest([1; 32])]);
        let other = begun(Some(&first), 3);
        assert_eq!(other.leftover, [CertificateId([1; 32])]);
        assert_ne!(next.rotation(), first.rotation());
    }

    #[test]
    fn a_certificate_that_an_earlier_rotation_left_and_that_is_now_replaced_is_named_once() {
        let mut first = begun(None, 1);
        first.superseded.push(Superseded { made: made(2), has_failed: false });
        first.superseded.push(Superseded { made: made(3), has_failed: false });
        let ended = Ended { code: "unacknowledged".to_owned(), at: Timestamp(9) };
        let mut first = first.into_state(State::Abandoned(ended));
        let [one, two, three] = [1, 2, 3].map(|fill| CertificateId([fill; 32]));
        assert_eq!(begun(Some(&first), 2).certificates(), [two, one, three]);
        let more = (4..=8).map(|fill| Superseded { made: made(fill), has_failed: false });
        first.superseded.splice(0..0, more.rev());
        let mut named = begun(Some(&first), 4).certificates();
        named.sort_unstable();
        named.dedup();
        assert_eq!(named, (1..=8).map(|fill| CertificateId([fill; 32])).collect::<Vec<_>>());
        assert_eq!(begun(Some(&first), 4).certificates().len(), 8);
    }

    #[test]
    fn a_rotation_has_another_name_than_one_that_nobody_remembers() {
        let begin = |fresh| {
            let thing = "press-1".parse().expect("a name");
            Record::begin(thing, old(1), None, [fresh; 16], Timestamp(5))
        };
        assert_ne!(begin(1).rotation(), begin(2).rotation());
        assert_eq!(begin(1).rotation().as_str(), "1-0101010101010101");
    }

    #[test]
    fn each_attempt_has_a_name_of_its_own_and_the_record_answers_to_all_of_them() {
        let first = begun(None, 1);
        let second = first.clone().anew();
        assert_eq!(second.rotation().as_str(), "1-0101010101010101-2");
        assert!(second.answers_to(&first.rotation()) && second.answers_to(&second.rotation()));
        for other in ["1-01010101010101010", "11-0101010101010101", "1-0202020202020202", "1"] {
            assert!(!second.answers_to(&other.parse().expect("a name")), "{other}");
        }
    }

    #[test]
    fn what_is_given_up_is_all_but_what_is_in_use() {
        let mut record = begun(None, 1);
        record.superseded.push(Superseded { made: made(2), has_failed: true });
        let record = record.into_state(Issued { made: made(3), sends: 1, due: Timestamp(8) });
        let given_up = record.given_up_for(CertificateId([3; 32]));
        assert_eq!(given_up, [CertificateId([1; 32]), CertificateId([2; 32])]);
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let record = begun(None, 1).into_state(Issuing {
            key: KeyDigest([4; 32]),
            csr_at: Timestamp(3),
            made: Some(made(4)),
            lease: Timestamp(99),
        });
        let json = serde_json::to_string(&record).expect("a record");
        assert_eq!(serde_json::from_str::<Record>(&json).expect("reads back"), record);
        assert!(record.is_leased(Timestamp(98)) && !record.is_leased(Timestamp(99)));
    }

    #[test]
    fn what_is_remembered_of_earlier_rotations_is_bounded() {
        let abandon = |record: Record| {
            let made = made(u8::try_from(record.key.seq).expect("few") + 100);
            let state = Issued { made, sends: 1, due: Timestamp(8) };
            let ended = Ended { code: String::new(), at: Timestamp(9) };
            record.into_state(state).supersede(false).into_state(State::Abandoned(ended))
        };
        let last = (0..40).fold(begun(None, 0), |record, n| begun(Some(&abandon(record)), n));
        assert_eq!(last.spent.len(), MOST_SPENT);
        assert_eq!((last.superseded.len(), last.leftover.len()), (MOST_SUPERSEDED, MOST_LEFTOVER));
        assert!(last.is_spent(KeyDigest([38; 32])) && !last.is_spent(KeyDigest([3; 32])));
    }
}
