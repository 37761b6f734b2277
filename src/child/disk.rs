//! Does a child's disk jobs, and finds what they left. Everything durable goes through
//! `install.rs`; nothing is decided here.

use crate::{
    install::{Credentials, Generation, InstallError},
    keys::{KeyKind, PrivateKey},
    wire::ThingName,
};

use super::{Done, Found, Job, Pair, Pending, Saved};

/// The note beside the generations in which [`Saved`] stands, as JSON.
const STATE: &str = "child.json";

/// What jobs need to know of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its name, for CSRs.
    pub thing: ThingName,
    /// The kind of its new keys.
    pub key: KeyKind,
}

/// Opens a child's directory for it, repaired; one process at a time.
pub fn open(dir: &std::path::Path) -> Result<Credentials, InstallError> {
    Credentials::open(dir, |credentials| saved(credentials).stage.generation())
}

/// What the directory holds; `None` when no pair is current.
pub fn load(credentials: &Credentials) -> Result<Option<Found>, InstallError> {
    let Some(generation) = credentials.current() else {
        return Ok(None);
    };
    let current = Pair { generation, facts: credentials.facts(generation)? };
    let saved = saved(credentials);
    let pending = saved.stage.generation().map(|generation| pending(credentials, generation));
    let generations = credentials.generations()?;
    Ok(Some(Found { saved, current, pending: pending.unwrap_or_default(), generations }))
}

/// Does a job, durably. Takes seconds for an RSA key.
pub fn perform(credentials: &Credentials, identity: &Identity, job: Job) -> Done {
    attempt(credentials, identity, job).unwrap_or_else(|why| Done::Failed { why })
}

fn attempt(credentials: &Credentials, identity: &Identity, job: Job) -> Result<Done, String> {
    let failed = |e: InstallError| e.to_string();
    match job {
        Job::MakeKey { generation } => make_key(credentials, identity, generation),
        Job::StoreCertificate { generation, key_of, chain } => credentials
            .store_certificate(generation, key_of, &chain, None)
            .map(|facts| Done::CertificateStored { facts })
            .map_err(failed),
        Job::Promote { generation } => {
            credentials.promote(generation).map(|()| Done::Promoted).map_err(failed)
        }
        Job::Sign { generation, text } => sign(credentials, generation, &text),
        Job::Save(saved) => {
            let json = serde_json::to_vec_pretty(&saved).map_err(|e| e.to_string())?;
            credentials.save(STATE, &json).map(|()| Done::Saved).map_err(failed)
        }
        Job::Wipe { generation } => {
            credentials.wipe(generation).map(|()| Done::Wiped).map_err(failed)
        }
    }
}

fn make_key(
    credentials: &Credentials,
    identity: &Identity,
    generation: Generation,
) -> Result<Done, String> {
    let key = PrivateKey::generate(identity.key).map_err(|e| e.to_string())?;
    let csr = key.csr(&identity.thing).map_err(|e| e.to_string())?;
    let pem = key.to_pem();
    credentials.store_key(generation, pem.as_bytes(), &csr, None).map_err(|e| e.to_string())?;
    Ok(Done::KeyMade { key: key.digest(), csr })
}

fn sign(credentials: &Credentials, generation: Generation, text: &[u8]) -> Result<Done, String> {
    let pair = credentials.pair(generation).map_err(|e| e.to_string())?;
    let key = PrivateKey::from_pem(pair.key()).map_err(|e| e.to_string())?;
    Ok(Done::Signed(key.sign(text).ok()))
}

/// What can't be read counts as nothing: then the rotation under way, if any, is begun anew.
fn saved(credentials: &Credentials) -> Saved {
    let content = credentials.load(STATE).ok().flatten();
    content.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default()
}

fn pending(credentials: &Credentials, generation: Generation) -> Pending {
    Pending { csr: credentials.csr(generation).ok(), facts: credentials.facts(generation).ok() }
}
