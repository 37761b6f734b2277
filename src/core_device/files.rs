//! Does the identity's jobs that are about files: the core's credential, and the generations
//! beside it.
//!
//! ```text
//! FOLDER/cert.pem -> certrelay/current/cert.pem     the configured paths, once attached
//! FOLDER/key.pem  -> certrelay/current/key.pem      (absolute where the key is in another folder)
//! FOLDER/certrelay/{gen-N/…,current -> gen-N}       see `install`
//! FOLDER/certrelay/state.json                       what the identity saved
//! ```
//!
//! At every instant the configured paths lead to a matching pair, if they did before. A job that
//! succeeded is durable; one that failed may be done again. New files have the owner, group and
//! permissions of the configured ones of that moment. Folders of ours may be passed by anybody and
//! listed by nobody else, because the nucleus may be another user. Nothing is ever written into the
//! component's work directory: the Java nucleus gives that to a user of all components.

use std::io;

use super::{
    place::{Place, Slot, Standing},
    preflight,
    refusal::{Result, refuse, with_remedy},
};
use crate::{
    config::KeyRotation,
    identity::{self, Configured, Done, Found, Job, ProbeName, Saved, Stage},
    install::{
        Accesses, Credentials, Disk, Files, Generation, Hints, InstallError, Kind, Owner, Pair,
        PairFiles, User, at, discard, known, link, overwrite, put, rename, sync_dir,
    },
    keys::{KeyKind, PrivateKey},
    reason::Reason,
    wire::ThingName,
    x509::certificate_subject,
};

/// The note in which [`Saved`] stands, as JSON.
const STATE: &str = "state.json";

/// Others may pass through, to files whose names they know.
const FOLDER_MODE: u32 = 0o711;

/// A job that is about files; see [`Job`].
#[derive(Debug, Clone, PartialEq)]
pub enum FileJob {
    /// [`Job::Look`].
    Look,
    /// [`Job::Preflight`].
    Preflight,
    /// [`Job::MakeKey`].
    MakeKey(Generation),
    /// [`Job::StoreCertificate`].
    StoreCertificate(Generation, Vec<Vec<u8>>),
    /// [`Job::Save`].
    Save(Box<Saved>),
    /// [`Job::Attach`].
    Attach,
    /// [`Job::Switch`].
    Switch(Generation),
    /// [`Job::Wipe`].
    Wipe(Generation),
    /// [`Job::Detach`].
    Detach,
}

/// A job that is not about files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OtherJob {
    /// [`Job::Probe`].
    Probe(identity::Pair, ProbeName),
    /// [`Job::Restart`].
    Restart,
}

impl TryFrom<Job> for FileJob {
    type Error = OtherJob;

    fn try_from(job: Job) -> std::result::Result<Self, OtherJob> {
        Ok(match job {
            Job::Look => Self::Look,
            Job::Preflight => Self::Preflight,
            Job::MakeKey { generation } => Self::MakeKey(generation),
            Job::StoreCertificate { generation, chain } => {
                Self::StoreCertificate(generation, chain)
            }
            Job::Save(saved) => Self::Save(saved),
            Job::Attach => Self::Attach,
            Job::Switch { generation } => Self::Switch(generation),
            Job::Wipe { generation } => Self::Wipe(generation),
            Job::Detach => Self::Detach,
            Job::Probe { with, name } => return Err(OtherJob::Probe(with, name)),
            Job::Restart => return Err(OtherJob::Restart),
        })
    }
}

/// Which keys are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPlan {
    /// The core's name, for a CSR whose subject would be empty.
    pub thing: ThingName,
    /// Their kind; `None`: that of the current key.
    pub algorithm: Option<KeyKind>,
    /// Whether there are new ones at all.
    pub rotation: KeyRotation,
}

/// The files of the core's credential. Once there is a folder of ours, it is held against other
/// processes as long as this lives.
#[derive(Debug)]
pub struct CoreFiles<F: Files = Disk> {
    files: F,
    plan: KeyPlan,
    user: Option<User>,
    opened: Option<Credentials<F>>,
}

impl<F: Files> CoreFiles<F> {
    /// Touches nothing yet. `user` is the nucleus'; `None`: it counts as the one to whom the
    /// configured key belongs.
    pub fn new(files: F, plan: KeyPlan, user: Option<User>) -> Self {
        Self { files, plan, user, opened: None }
    }

    /// The same, but it plans otherwise.
    #[must_use]
    pub fn with_plan(self, plan: KeyPlan) -> Self {
        Self { plan, ..self }
    }

    /// Does a job for the credential under these paths. Takes seconds for an RSA key.
    pub fn perform(&mut self, at: &PairFiles, job: FileJob) -> Done {
        self.attempt(at, job).unwrap_or_else(|failure| Done::Failed(with_remedy(failure)))
    }

    fn attempt(&mut self, at: &PairFiles, job: FileJob) -> Result<Done> {
        let place = Place::of(at)?;
        match job {
            FileJob::Look => self.look(&place).map(|found| Done::Found(Box::new(found))),
            FileJob::Preflight => self.preflight(&place).map(|found| Done::Ready(Box::new(found))),
            FileJob::MakeKey(generation) => self.make_key(&place, generation),
            FileJob::StoreCertificate(generation, chain) => {
                self.store_certificate(&place, generation, &chain)
            }
            FileJob::Save(saved) => self.save(&place, &saved).map(|()| Done::Saved),
            FileJob::Attach => self.attach(&place).map(|current| Done::Attached { current }),
            FileJob::Switch(generation) => self.switch(&place, generation),
            FileJob::Wipe(generation) => {
                self.open(&place)?.wipe(generation)?;
                Ok(Done::Wiped)
            }
            FileJob::Detach => self.detach(&place).map(|()| Done::Detached),
        }
    }

    fn look(&mut self, place: &Place) -> Result<Found> {
        let repaired = self.repair(place)?;
        let configured = Configured { facts: Pair::read(&self.files, place.at)?.facts() };
        let Some(credentials) = self.opened.as_ref().filter(|_| repaired) else {
            let generations = Vec::new();
            let (saved, current, csr, candidate) = (None, None, None, None);
            return Ok(Found { configured, saved, current, generations, csr, candidate });
        };
        let saved = load(credentials)?;
        let under_way = saved.as_ref().and_then(|saved| saved.stage.generation());
        let are_links = place.standings(&self.files)?.iter().all(|it| *it == Standing::Ours);
        Ok(Found {
            configured,
            current: if are_links { credentials.in_use()? } else { None },
            generations: credentials.generations()?,
            csr: known(under_way.map(|of| credentials.csr(of)).transpose())?.flatten(),
            candidate: known(under_way.map(|of| credentials.facts(of)).transpose())?.flatten(),
            saved,
        })
    }

    fn preflight(&mut self, place: &Place) -> Result<Found> {
        let found = self.look(place)?;
        for slot in place.slots() {
            slot.standing(&self.files, place)?.accept(slot)?;
            preflight::not_mounted(&self.files, slot)?;
        }
        self.key_kind(place)?;
        preflight::try_folders(&self.files, place)?;
        Ok(found)
    }

    fn make_key(&mut self, place: &Place, generation: Generation) -> Result<Done> {
        let kind = self.key_kind(place)?;
        let pair = Pair::read(&self.files, place.at)?;
        let key = match self.plan.rotation {
            KeyRotation::Rotate => PrivateKey::generate(kind),
            KeyRotation::Reuse => PrivateKey::from_pem(pair.key()),
        };
        let key = key.map_err(|error| refuse(Reason::UnsupportedKey, error))?;
        let csr = self.csr(&key, &pair)?;
        let access = Accesses::read(&self.files, place.at)?.key;
        self.open(place)?.store_key(generation, key.to_pem().as_bytes(), &csr, Some(access))?;
        Ok(Done::KeyMade { key: key.digest(), csr })
    }

    /// With the subject of the current certificate, as it stands.
    fn csr(&self, key: &PrivateKey, pair: &Pair) -> Result<Vec<u8>> {
        let subject = certificate_subject(pair.leaf())
            .map_err(|refusal| refuse(Reason::CredentialUnusable, refusal))?;
        let is_empty = subject.len() <= 2;
        let csr = if is_empty { key.csr(&self.plan.thing) } else { key.csr_for(&subject) };
        csr.map_err(|error| refuse(Reason::UnsupportedKey, error))
    }

    /// The kind of the key to make, or to take again.
    fn key_kind(&self, place: &Place) -> Result<KeyKind> {
        let current = PrivateKey::from_pem(Pair::read(&self.files, place.at)?.key());
        let current = current.ok().and_then(|key| key.kind());
        let kind = match self.plan.rotation {
            KeyRotation::Rotate => self.plan.algorithm.or(current),
            KeyRotation::Reuse => current,
        };
        kind.ok_or_else(|| {
            let path = place.at.key.display();
            let what =
                "a key of its kind can't be made here: set core.keyAlgorithm, and no \"reuse\"";
            refuse(Reason::UnsupportedKey, format!("{path}: {what}"))
        })
    }

    fn store_certificate(
        &mut self,
        place: &Place,
        generation: Generation,
        chain: &[Vec<u8>],
    ) -> Result<Done> {
        let access = Accesses::read(&self.files, place.at)?.certificate;
        let credentials = self.open(place)?;
        let facts = credentials.store_certificate(generation, generation, chain, Some(access))?;
        Ok(Done::CertificateStored { facts })
    }

    fn save(&mut self, place: &Place, saved: &Saved) -> Result<()> {
        let json = serde_json::to_vec_pretty(saved)
            .map_err(|error| refuse(Reason::DiskError, format!("{STATE}: {error}")))?;
        Ok(self.open(place)?.save(STATE, &json)?)
    }

    fn attach(&mut self, place: &Place) -> Result<Generation> {
        let standings = place.standings(&self.files)?;
        for (slot, standing) in place.slots().into_iter().zip(&standings) {
            standing.accept(slot)?;
        }
        // Whatever the paths lead to by now is the truth, whoever put it there.
        let pair = Pair::read(&self.files, place.at)?;
        let accesses = Accesses::read(&self.files, place.at)?;
        if standings.contains(&Standing::File) {
            let generation = self.take_in(place, &pair, accesses)?;
            let credentials = self.open(place)?;
            let files = credentials.files(generation);
            // The paths lead to the same content before, between, and after each of these.
            credentials.promote(generation)?;
            self.check_readable(place, &files)?;
        }
        for (slot, standing) in place.slots().into_iter().zip(standings) {
            match standing {
                Standing::File => self.replace_by_link(place, slot)?,
                // It may be a life before that made it.
                _ => sync_dir(&self.files, slot.folder())?,
            }
        }
        let current = self.open(place)?.in_use()?;
        current.ok_or_else(|| place.not_attached())
    }

    /// The generation that holds this pair, which is made if need be.
    fn take_in(&mut self, place: &Place, pair: &Pair, of: Accesses) -> Result<Generation> {
        let credentials = self.open(place)?;
        let pending = load(credentials)?.and_then(|saved| saved.stage.generation());
        let current = credentials.in_use()?;
        let mut next = pending.map_or(0, |generation| generation.0);
        for generation in credentials.generations()? {
            let is_free = pending != Some(generation) || current == Some(generation);
            if is_free
                && known(credentials.pair(generation))?.is_some_and(|it| it == *pair)
                && credentials.accesses(generation)? == of
            {
                return Ok(generation);
            }
            next = next.max(generation.0);
        }
        let next = next.checked_add(1).map(Generation);
        let next = next.ok_or_else(|| refuse(Reason::DiskError, "no number is left"))?;
        credentials.take_in(next, pair, Some(of)).inspect_err(|_| {
            // It holds a copy of the key; what stays is wiped by the next repair.
            let _ = credentials.wipe(next);
        })?;
        Ok(next)
    }

    /// The file's content is in the current generation already. A key is overwritten through the
    /// open file; who is killed just then leaves it to the disk, without a name.
    fn replace_by_link(&self, place: &Place, slot: &Slot) -> Result<()> {
        let is_key = slot.path() == place.at.key;
        let mut original = if is_key { self.open_original(slot)? } else { None };
        let temporary = slot.temporary();
        link(&self.files, slot.target(), &temporary, slot.path())?;
        rename(&self.files, &temporary, slot.path())?;
        let wiped = original.as_mut().map(|file| overwrite(&self.files, slot.path(), file));
        Ok(wiped.transpose().map(|_| ())?)
    }

    /// `None` when the file has another name, under which somebody may use it.
    fn open_original(&self, slot: &Slot) -> Result<Option<F::Handle>> {
        let path = slot.path();
        let named = self.files.facts(path).map_err(at(path))?;
        if named.kind != Kind::File || named.names != 1 {
            return Ok(None);
        }
        let file = self.files.open(path).map_err(at(path))?;
        // It may have become a link just now, to anything.
        let opened = self.files.handle_facts(&file).map_err(at(path))?;
        Ok((opened.id == named.id).then_some(file))
    }

    fn switch(&mut self, place: &Place, generation: Generation) -> Result<Done> {
        if place.standings(&self.files)? != [Standing::Ours, Standing::Ours] {
            return Err(place.not_attached());
        }
        let credentials = self.open(place)?;
        let facts = credentials.facts(generation)?;
        let files = credentials.files(generation);
        self.check_readable(place, &files)?;
        self.open(place)?.promote(generation)?;
        Ok(Done::Switched { facts })
    }

    /// Asks as the nucleus' user. Where that can't be asked, or denies even what is configured now,
    /// nothing is known.
    fn check_readable(&self, place: &Place, pair: &PairFiles) -> Result<()> {
        let Owner { uid, gid } = Accesses::read(&self.files, place.at)?.key.owner;
        let user = self.user.unwrap_or(User { uid, gid });
        let can = |pair: &PairFiles| self.files.can_read(user, &[&pair.certificate, &pair.key]);
        if can(pair).unwrap_or(true) || !can(place.at).unwrap_or(false) {
            return Ok(());
        }
        let (uid, path) = (user.uid, pair.key.display());
        Err(refuse(Reason::NotReadable, format!("{path} and its certificate: not for user {uid}")))
    }

    fn detach(&mut self, place: &Place) -> Result<()> {
        if !self.repair(place)? {
            return Ok(());
        }
        let pair = Pair::read(&self.files, place.at)?;
        let accesses = Accesses::read(&self.files, place.at)?;
        let contents = [(pair.certificate(), accesses.certificate), (pair.key(), accesses.key)];
        for (slot, (content, access)) in place.slots().into_iter().zip(contents) {
            if slot.standing(&self.files, place)? == Standing::Ours {
                put(&self.files, &slot.temporary(), slot.path(), content, Some(access))?;
                rename(&self.files, &slot.temporary(), slot.path())?;
            }
            sync_dir(&self.files, slot.folder())?;
        }
        self.opened.take().map_or(Ok(()), |credentials| Ok(credentials.remove(STATE)?))
    }

    /// The folder of ours, which is made if need be.
    fn open(&mut self, place: &Place) -> Result<&Credentials<F>> {
        if self.opened.as_ref().is_none_or(|opened| opened.dir() != place.dir()) {
            self.opened = None;
            let files = self.files.clone();
            self.opened = Some(Credentials::open_on(files, place.dir(), FOLDER_MODE, hints)?);
        }
        // It was set just now.
        self.opened.as_ref().ok_or_else(|| place.not_attached())
    }

    /// Opens and repairs the folder of ours, if there is one.
    fn repair(&mut self, place: &Place) -> Result<bool> {
        match self.files.facts(place.dir()) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => {
                self.opened = None;
                return Ok(false);
            }
            Ok(found) if found.kind == Kind::Dir => {}
            Ok(_) => return Err(place.not_a_folder()),
            Err(why) => return Err(at(place.dir())(why).into()),
        }
        if self.opened.as_ref().is_some_and(|opened| opened.dir() == place.dir()) {
            let credentials = self.open(place)?;
            credentials.repair(hints(credentials)?)?;
        } else {
            self.open(place)?;
        }
        for slot in place.slots() {
            discard(&self.files, &slot.temporary(), slot.path())?;
            preflight::sweep(&self.files, slot)?;
        }
        Ok(true)
    }
}

/// What is no state counts as none; what can't be read for now is an error.
fn load<F: Files>(
    credentials: &Credentials<F>,
) -> std::result::Result<Option<Saved>, InstallError> {
    let content = credentials.load(STATE)?;
    Ok(content.and_then(|content| serde_json::from_slice(&content).ok()))
}

fn hints<F: Files>(credentials: &Credentials<F>) -> std::result::Result<Hints, InstallError> {
    let stage = load(credentials)?.unwrap_or_default().stage;
    let fallback = match &stage {
        Stage::Installed(stage) => Some(stage.previous),
        Stage::Confirming(stage) => Some(stage.previous),
        Stage::RollingBack(stage) => Some(stage.to),
        _ => None,
    };
    Ok(Hints { pending: stage.generation(), fallback })
}
