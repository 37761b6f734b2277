//! Provisional.
#![allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason
)]
use std::path::{Path, PathBuf};

use crate::{
    config::KeyRotation,
    identity::{Configured, Done, Failure, Found, Job, Saved, Stage},
    install::{
        Accesses, Credentials, Disk, Files, Generation, Hints, InstallError, Kind, Pair, PairFiles,
        User, folder_of, link, read, rename, sync_dir,
    },
    keys::{KeyKind, PrivateKey},
    reason::Reason,
    wire::ThingName,
    x509,
};

#[derive(Debug, Clone)]
pub struct KeyPlan {
    pub thing: ThingName,
    pub algorithm: Option<KeyKind>,
    pub rotation: KeyRotation,
}

#[derive(Debug)]
pub struct CoreFiles {
    plan: KeyPlan,
    open: Option<Credentials<Disk>>,
}

const STATE: &str = "state.json";
type R<T> = Result<T, Failure>;

fn disk(e: InstallError) -> Failure {
    Failure { reason: Reason::DiskError, detail: e.to_string() }
}
fn unusable(e: InstallError) -> Failure {
    Failure { reason: Reason::CredentialUnusable, detail: e.to_string() }
}

impl CoreFiles {
    pub fn new(plan: KeyPlan, _user: Option<User>) -> Self {
        Self { plan, open: None }
    }
    pub fn perform(&mut self, place: &PairFiles, job: Job) -> Done {
        self.attempt(place, job).unwrap_or_else(Done::Failed)
    }
    fn dir(place: &PairFiles) -> PathBuf {
        folder_of(&place.certificate).join("certrelay")
    }
    fn open(&mut self, place: &PairFiles) -> R<&Credentials<Disk>> {
        if self.open.is_none() {
            let c = Credentials::open_on(Disk, &Self::dir(place), 0o711, |c| {
                let saved = saved(c);
                let stage = saved.as_ref().map(|s| s.stage.clone()).unwrap_or_default();
                let fallback = match &stage {
                    Stage::Installed(s) => Some(s.previous),
                    Stage::Confirming(s) => Some(s.previous),
                    Stage::RollingBack(s) => Some(s.to),
                    _ => None,
                };
                Hints { pending: stage.generation(), fallback }
            })
            .map_err(disk)?;
            self.open = Some(c);
        }
        self.open.as_ref().ok_or_else(|| Failure { reason: Reason::DiskError, detail: "".into() })
    }
    fn attempt(&mut self, place: &PairFiles, job: Job) -> R<Done> {
        match job {
            Job::Look => {
                let pair = Pair::read(&Disk, place).map_err(unusable)?;
                if Disk.facts(&Self::dir(place)).is_err() {
                    return Ok(Done::Found(Box::new(Found {
                        configured: Configured { facts: pair.facts() },
                        saved: None,
                        current: None,
                        generations: vec![],
                        csr: None,
                        candidate: None,
                    })));
                }
                self.found(place).map(|f| Done::Found(Box::new(f)))
            }
            Job::Preflight => {
                Pair::read(&Disk, place).map_err(unusable)?;
                self.found(place).map(|f| Done::Ready(Box::new(f)))
            }
            Job::MakeKey { generation } => {
                let pair = Pair::read(&Disk, place).map_err(unusable)?;
                let current = PrivateKey::from_pem(pair.key()).map_err(|e| Failure {
                    reason: Reason::CredentialUnusable,
                    detail: e.to_string(),
                })?;
                let plan = self.plan.clone();
                let key = match plan.rotation {
                    KeyRotation::Reuse => current,
                    KeyRotation::Rotate => {
                        PrivateKey::generate(plan.algorithm.or(current.kind()).unwrap_or_default())
                            .map_err(|e| Failure {
                                reason: Reason::UnsupportedKey,
                                detail: e.to_string(),
                            })?
                    }
                };
                let subject = x509::certificate_subject(pair.leaf())
                    .map_err(|r| Failure { reason: r.0, detail: String::new() })?;
                let csr = key
                    .csr_for(&subject)
                    .map_err(|e| Failure { reason: Reason::DiskError, detail: e.to_string() })?;
                let access = accesses(place)?.key;
                let pem = key.to_pem();
                self.open(place)?
                    .store_key(generation, pem.as_bytes(), &csr, Some(access))
                    .map_err(disk)?;
                Ok(Done::KeyMade { key: key.digest(), csr })
            }
            Job::StoreCertificate { generation, chain } => {
                let access = accesses(place)?.certificate;
                let facts = self
                    .open(place)?
                    .store_certificate(generation, generation, &chain, Some(access))
                    .map_err(disk)?;
                Ok(Done::CertificateStored { facts })
            }
            Job::Save(saved) => {
                let json = serde_json::to_vec_pretty(&saved)
                    .map_err(|e| Failure { reason: Reason::DiskError, detail: e.to_string() })?;
                self.open(place)?.save(STATE, &json).map_err(disk)?;
                Ok(Done::Saved)
            }
            Job::Attach => {
                let accesses = accesses(place)?;
                let ours = is_ours(place, &place.certificate) && is_ours(place, &place.key);
                let c = self.open(place)?;
                if ours {
                    if let Some(current) = c.current() {
                        return Ok(Done::Attached { current });
                    }
                }
                let pair = Pair::read(&Disk, place).map_err(unusable)?;
                let next = Generation(c.generations().map_err(disk)?.last().map_or(1, |g| g.0 + 1));
                c.take_in(next, &pair, Some(accesses)).map_err(disk)?;
                c.promote(next).map_err(disk)?;
                for (path, name) in [(&place.certificate, "cert.pem"), (&place.key, "key.pem")] {
                    let target = if folder_of(path) == folder_of(&place.certificate) {
                        PathBuf::from("certrelay/current").join(name)
                    } else {
                        Self::dir(place).join("current").join(name)
                    };
                    let temporary = folder_of(path).join(format!(".new-{name}"));
                    link(&Disk, &target, &temporary).map_err(disk)?;
                    rename(&Disk, &temporary, path).map_err(disk)?;
                }
                Ok(Done::Attached { current: next })
            }
            Job::Switch { generation } => {
                let c = self.open(place)?;
                c.promote(generation).map_err(disk)?;
                Ok(Done::Switched { facts: c.facts(generation).map_err(disk)? })
            }
            Job::Wipe { generation } => {
                self.open(place)?.wipe(generation).map_err(disk)?;
                Ok(Done::Wiped)
            }
            Job::Detach | Job::Probe { .. } | Job::Restart => {
                Err(Failure { reason: Reason::DiskError, detail: "provisional".into() })
            }
        }
    }
    fn found(&mut self, place: &PairFiles) -> R<Found> {
        let facts = Pair::read(&Disk, place).map_err(unusable)?.facts();
        let ours = is_ours(place, &place.certificate) && is_ours(place, &place.key);
        let c = self.open(place)?;
        let saved = saved(c);
        let pending = saved.as_ref().and_then(|s| s.stage.generation());
        Ok(Found {
            configured: Configured { facts },
            current: c.current().filter(|_| ours),
            generations: c.generations().map_err(disk)?,
            csr: pending.and_then(|g| c.csr(g).ok()),
            candidate: pending.and_then(|g| c.facts(g).ok()),
            saved,
        })
    }
}
fn saved(c: &Credentials<Disk>) -> Option<Saved> {
    serde_json::from_slice(&c.load(STATE).ok()??).ok()
}
fn is_ours(_place: &PairFiles, path: &Path) -> bool {
    Disk.read_link(path).is_ok_and(|t| t.to_string_lossy().contains("certrelay/current/"))
}
fn accesses(place: &PairFiles) -> R<Accesses> {
    let of = |p: &Path| {
        Disk.target_facts(p)
            .map(|f| f.access)
            .map_err(|why| disk(InstallError::Io { path: p.to_owned(), why }))
    };
    Ok(Accesses { certificate: of(&place.certificate)?, key: of(&place.key)? })
}
