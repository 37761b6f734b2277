//! Does the jobs in the identity's order, from whatever an earlier life left, as the identity does:
//! by nothing but what was saved and found.

use std::path::PathBuf;

use certrelay::{
    config::KeyRotation,
    core_device::files::{CoreFiles, FileJob, KeyPlan},
    identity::{
        AwaitCertificate, AwaitWindow, Candidate, Complaint, Confirming, Done, Failure, Found,
        Installed, Kept, Proof, RollingBack, RunId, Saved, Stage,
    },
    install::{Access, Files, Generation, Owner, PairFiles},
    keys::{KeyKind, PrivateKey},
    reason::Reason,
    wire::CertificateId,
    x509::{CertificateFacts, csr_key, read_certificate},
};
use rcgen::{CertificateParams, CertificateSigningRequestParams, Issuer, KeyPair};

/// The owners and modes of a plain credential: of another user, as nucleus lite has it.
pub const CERTIFICATE: Access = Access { owner: Owner { uid: 900, gid: 901 }, mode: 0o644 };
/// The key's.
pub const KEY: Access = Access { owner: Owner { uid: 900, gid: 901 }, mode: 0o600 };

/// What a story comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// There is another certificate than this, and nothing else.
    Rotated(CertificateId),
    /// A new pair was installed and given up; this one stands.
    RolledBack(CertificateId),
    /// The files are plain, and nothing is left.
    Detached,
}

/// A job failed.
#[derive(Debug)]
pub struct Stopped(pub Failure);

/// The core, in one life of the process.
pub struct Core<F: Files> {
    files: CoreFiles<F>,
    at: PairFiles,
    saved: Saved,
}

/// Signs what it is asked to.
pub fn issue(csr: &[u8]) -> Vec<u8> {
    let issuer = Issuer::new(CertificateParams::default(), KeyPair::generate().expect("a key"));
    let csr = CertificateSigningRequestParams::from_der(&csr.into()).expect("a CSR");
    csr.signed_by(&issuer).expect("a certificate").der().to_vec()
}

/// A certificate and its key, PEM, from elsewhere.
pub fn pair() -> (CertificateFacts, String, String) {
    let key = PrivateKey::generate(KeyKind::P256).expect("a key");
    let leaf = issue(&key.csr(&"core-1".parse().expect("valid")).expect("a CSR"));
    let facts = read_certificate(&leaf).expect("readable");
    (facts, pem::encode(&pem::Pem::new("CERTIFICATE", leaf)), key.to_pem().to_string())
}

/// A plan that makes quick keys.
pub fn plan() -> KeyPlan {
    let thing = "core-1".parse().expect("valid");
    KeyPlan { thing, algorithm: None, rotation: KeyRotation::Rotate }
}

/// The usual places.
pub fn beside() -> PairFiles {
    PairFiles { certificate: "/gg/cert.pem".into(), key: "/gg/key.pem".into() }
}

/// The key is in another folder.
pub fn apart() -> PairFiles {
    PairFiles { certificate: "/gg/cert.pem".into(), key: "/keys/core.key".into() }
}

impl<F: Files> Core<F> {
    /// A new life.
    pub fn new(files: F, at: PairFiles) -> Self {
        Self { files: CoreFiles::new(files, plan(), None), at, saved: Saved::default() }
    }

    /// Does one job.
    pub fn perform(&mut self, job: FileJob) -> Result<Done, Stopped> {
        match self.files.perform(&self.at, job) {
            Done::Failed(failure) => Err(Stopped(failure)),
            done => Ok(done),
        }
    }

    /// Looks, and takes what was saved for what is true.
    pub fn look(&mut self) -> Result<Found, Stopped> {
        match self.perform(FileJob::Look)? {
            Done::Found(found) => {
                self.saved = found.saved.clone().unwrap_or_default();
                Ok(*found)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Goes on until it is so.
    pub fn reach(&mut self, goal: Goal) -> Result<(), Stopped> {
        if goal == Goal::Detached {
            self.look()?;
            assert_eq!(self.perform(FileJob::Detach)?, Done::Detached);
            return Ok(());
        }
        let mut found = self.look()?;
        for _ in 0..40 {
            if self.is_reached(goal, &found) {
                return Ok(());
            }
            self.advance(goal, &found)?;
            found = self.look()?;
        }
        panic!("{goal:?} is not reached: {:?} {found:?}", self.saved)
    }

    fn is_reached(&self, goal: Goal, found: &Found) -> bool {
        let configured = found.configured.facts.id;
        let is_over = self.saved.stage == Stage::Idle && self.saved.kept.is_none();
        let is_there = match goal {
            Goal::Rotated(old) => configured != old,
            Goal::RolledBack(old) => configured == old && self.saved.ended.is_some(),
            Goal::Detached => false,
        };
        is_over && is_there && found.generations.len() == 1
    }

    fn advance(&mut self, goal: Goal, found: &Found) -> Result<(), Stopped> {
        match self.saved.stage.clone() {
            Stage::Idle => self.idle(goal, found),
            Stage::AwaitCertificate(stage) => match &found.csr {
                None => self.stage(Stage::Idle),
                Some(csr) => {
                    assert_eq!(csr_key(csr), Ok(stage.key), "the CSR is the key's");
                    self.certificate(&stage, csr)
                }
            },
            Stage::AwaitWindow(AwaitWindow { candidate, proof }) => {
                let Done::Attached { current } = self.perform(FileJob::Attach)? else { panic!() };
                let before = run();
                let stage = Installed { candidate, proof, previous: current, before };
                self.stage(Stage::Installed(stage))
            }
            Stage::Installed(Installed { candidate, proof, previous, .. }) => {
                self.perform(FileJob::Switch(candidate.generation))?;
                self.stage(Stage::Confirming(Confirming { candidate, proof, previous }))
            }
            Stage::Confirming(stage) => self.confirm(goal, stage),
            Stage::RollingBack(stage) => {
                self.perform(FileJob::Switch(stage.to))?;
                self.saved.ended = Some(certrelay::identity::Ended {
                    certificate: Some(stage.candidate.certificate),
                    rotation: None,
                    failed: Some(stage.why),
                    told: true,
                    at: None,
                });
                self.stage(Stage::Idle)
            }
            Stage::Probing(_) => panic!("never saved here"),
        }
    }

    fn idle(&mut self, goal: Goal, found: &Found) -> Result<(), Stopped> {
        let is_kept = |generation: &Generation| {
            self.saved.kept.as_ref().is_some_and(|kept| kept.generation == *generation)
        };
        let current = found.current;
        let orphan = |of: &&Generation| current != Some(**of) && !is_kept(of);
        let orphan = found.generations.iter().find(orphan).copied();
        let goes_on = match goal {
            Goal::Rotated(old) => found.configured.facts.id == old,
            Goal::RolledBack(_) => self.saved.ended.is_none(),
            Goal::Detached => false,
        };
        if let Some(kept) = self.saved.kept.clone().filter(|_| !goes_on) {
            self.perform(FileJob::Wipe(kept.generation))?;
            self.saved.kept = None;
            return self.stage(Stage::Idle);
        }
        if let Some(orphan) = orphan.filter(|_| current.is_some()) {
            return self.perform(FileJob::Wipe(orphan)).map(|_| ());
        }
        self.begin(found)
    }

    fn begin(&mut self, found: &Found) -> Result<(), Stopped> {
        self.perform(FileJob::Preflight)?;
        let youngest = found.generations.last().map_or(0, |generation| generation.0);
        let generation = Generation(youngest + 1);
        let Done::KeyMade { key, .. } = self.perform(FileJob::MakeKey(generation))? else {
            panic!()
        };
        let waiting = AwaitCertificate { generation, key, made: None, rotation: None };
        self.stage(Stage::AwaitCertificate(waiting))
    }

    fn certificate(&mut self, stage: &AwaitCertificate, csr: &[u8]) -> Result<(), Stopped> {
        let job = FileJob::StoreCertificate(stage.generation, vec![issue(csr)]);
        let Done::CertificateStored { facts } = self.perform(job)? else { panic!() };
        let candidate = Candidate {
            generation: stage.generation,
            key: facts.key,
            certificate: facts.id,
            not_after: facts.not_after,
            rotation: None,
        };
        self.stage(Stage::AwaitWindow(AwaitWindow { candidate, proof: Proof::Probed }))
    }

    fn confirm(&mut self, goal: Goal, stage: Confirming) -> Result<(), Stopped> {
        let Confirming { candidate, previous, .. } = stage;
        if matches!(goal, Goal::RolledBack(_)) {
            let why = Complaint { code: Reason::RefusedAfterRestart, error: String::new() };
            let stage = RollingBack { candidate, to: previous, before: run(), why };
            return self.stage(Stage::RollingBack(stage));
        }
        let until_settled = candidate.certificate;
        self.saved.kept = Some(Kept { generation: previous, until_settled, since: None });
        self.stage(Stage::Idle)
    }

    fn stage(&mut self, stage: Stage) -> Result<(), Stopped> {
        self.saved.stage = stage;
        self.perform(FileJob::Save(Box::new(self.saved.clone()))).map(|_| ())
    }
}

fn run() -> RunId {
    RunId { boot: "b".to_owned(), token: "t".to_owned(), socket: "s".to_owned() }
}

/// The folders of a credential.
pub fn folders(at: &PairFiles) -> Vec<PathBuf> {
    let folder = |path: &PathBuf| path.parent().expect("absolute").to_owned();
    let (one, other) = (folder(&at.certificate), folder(&at.key));
    if one == other { vec![one] } else { vec![one, other] }
}
