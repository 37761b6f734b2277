//! One child on a real disk; its broker, its gateway and time are played.

mod gateway;

use std::{collections::VecDeque, fs, path::Path, time::Duration};

use certrelay::{
    child::{
        Child, Effect, Event, Found, Job, Pair, Saved, Settings, Told,
        disk::{self, Identity},
    },
    install::{Credentials, Generation, PairFiles},
    keys::{KeyKind, PrivateKey},
    schedule::{Now, Tick, Timestamp},
    wire::{
        CertificateId, CrtErr, Header, KeyDigest, Kind, Nonce, RotationId, Signature, ThingName,
        Topics, render,
    },
    x509::{CommonNameRule, accept_csr, read_certificate},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
};
use tempfile::TempDir;

/// How a process ends at an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tear {
    /// Just before it.
    Before,
    /// In the midst of it: a disk job is half done.
    Torn,
}

/// More events than any life has.
const MANY: usize = 60_000;

/// One child and all that is around it.
pub struct World {
    dir: TempDir,
    life: Option<(Child, Credentials)>,
    now: Now,
    queue: VecDeque<Event>,
    issuer: Issuer<'static, KeyPair>,
    issued: Vec<(KeyDigest, Option<RotationId>, Vec<u8>)>,
    certificate_due: bool,
    request_due: Option<Option<RotationId>>,
    line: Option<(u64, Generation)>,
    cut: Option<(usize, Tear)>,
    cuts: usize,
    seed: u64,
    initial: CertificateId,
    /// The network works.
    pub reachable: bool,
    /// The broker refuses every pair but the first.
    pub refuse_new: bool,
    /// The gateway keeps the certificates that it gets.
    pub hold_certificate: bool,
    /// No PUBACK arrives.
    pub lose_pubacks: bool,
    /// So many disk jobs fail.
    pub fail_disk: usize,
    /// What is to be saved can't be.
    pub fail_saves: bool,
    /// No connect gets an answer.
    pub silent: bool,
    /// The wall clock is trusted.
    pub clock_trusted: bool,
    /// What proofs are to be about, in each request.
    pub nonce: Option<Nonce>,
    /// The kind of key in use makes no proofs.
    pub no_proofs: bool,
    /// The proofs of the CSRs that came: about which nonce. They held.
    pub csr_proofs: Vec<Option<(Nonce, Signature)>>,
    /// The proofs of the acks that came.
    pub ack_proofs: Vec<Option<(Nonce, Signature)>>,
    /// What the child said for the log.
    pub told: Vec<Told>,
    /// The CSRs that came: rotation and key.
    pub csrs: Vec<(Option<RotationId>, KeyDigest)>,
    /// The acks that came: certificate and rotation.
    pub acks: Vec<(CertificateId, Option<RotationId>)>,
    /// The errors that came.
    pub errors: Vec<CrtErr>,
    /// Connects that were tried.
    pub connects: usize,
}

fn thing() -> ThingName {
    "pump-7".parse().expect("valid")
}

fn identity() -> Identity {
    Identity { thing: thing(), key: KeyKind::P256 }
}

fn topics() -> Topics {
    Topics::parse("management/topic", &thing()).expect("valid")
}

fn issuer() -> Issuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Issuer::new(params, KeyPair::generate().expect("a key"))
}

fn sign(issuer: &Issuer<'static, KeyPair>, csr: &[u8], serial: u64) -> Vec<u8> {
    let mut csr = CertificateSigningRequestParams::from_der(&csr.into()).expect("a CSR");
    csr.params.serial_number = Some(serial.into());
    csr.signed_by(issuer).expect("a certificate").der().to_vec()
}

impl World {
    /// A child with a pair that it was made with, just started.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let issuer = issuer();
        let key = PrivateKey::generate(KeyKind::P256).expect("a key");
        let leaf = sign(&issuer, &key.csr(&thing()).expect("a CSR"), 1);
        let initial = read_certificate(&leaf).expect("readable").id;
        let credentials = disk::open(dir.path()).expect("opens");
        let elsewhere = tempfile::tempdir().expect("a folder");
        let files = PairFiles {
            certificate: elsewhere.path().join("cert.pem"),
            key: elsewhere.path().join("key.pem"),
        };
        put(&files.certificate, pem::encode(&pem::Pem::new("CERTIFICATE", leaf)).as_bytes());
        put(&files.key, key.to_pem().as_bytes());
        credentials.adopt(&files).expect("adopted");
        drop(credentials);
        let mut world = Self {
            dir,
            life: None,
            now: Now { tick: Tick(0), wall: Some(Timestamp(1_800_000_000_000)) },
            queue: VecDeque::new(),
            issuer,
            issued: Vec::new(),
            certificate_due: false,
            request_due: None,
            line: None,
            cut: None,
            cuts: 0,
            seed: 0,
            initial,
            reachable: true,
            refuse_new: false,
            hold_certificate: false,
            lose_pubacks: false,
            fail_disk: 0,
            fail_saves: false,
            silent: false,
            clock_trusted: true,
            nonce: None,
            no_proofs: false,
            csr_proofs: Vec::new(),
            ack_proofs: Vec::new(),
            told: Vec::new(),
            csrs: Vec::new(),
            acks: Vec::new(),
            errors: Vec::new(),
            connects: 0,
        };
        world.restart();
        world
    }

    /// Ends the process, keeps the disk, starts it again.
    pub fn restart(&mut self) {
        self.life = None;
        self.line = None;
        self.queue.clear();
        let credentials = disk::open(self.dir.path()).expect("opens");
        let found = disk::load(&credentials).expect("readable").expect("a current pair");
        let settings = Settings::new(thing(), "management/topic").expect("valid");
        self.seed += 1;
        self.life = Some((Child::new(settings, found, self.seed), credentials));
        self.queue.push_back(Event::Wake);
    }

    /// What the disk holds.
    pub fn load(&self) -> Found {
        let credentials = Credentials::look(self.dir.path());
        disk::load(&credentials).expect("readable").expect("a current pair")
    }

    /// The pair in use, by the disk.
    pub fn current(&self) -> Pair {
        self.load().current
    }

    /// The certificate that was issued last.
    pub fn issued_last(&self) -> CertificateId {
        read_certificate(&self.issued.last().expect("one was issued").2).expect("readable").id
    }

    /// How many different keys the gateway saw.
    pub fn keys_made(&self) -> usize {
        let mut keys: Vec<_> = self.csrs.iter().map(|csr| csr.1).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.len()
    }

    /// The process ends at the effect that is so many from now.
    pub fn cut_at(&mut self, effects: usize, tear: Tear) {
        self.cut = Some((effects, tear));
        self.cuts = 0;
    }

    /// Whether the cut came.
    pub fn was_cut(&self) -> bool {
        self.cuts > 0
    }

    /// The cloud wants a rotation.
    pub fn ask(&mut self, rotation: Option<&str>) {
        self.request_due = Some(rotation.map(|text| text.parse().expect("valid")));
    }

    /// The gateway sends its certificate once more.
    pub fn send_issued_again(&mut self) {
        if !self.issued.is_empty() {
            self.certificate_due = true;
        }
    }

    /// The cloud issues another certificate for the same key.
    pub fn reissue(&mut self) {
        let Some((key, rotation)) = self.issued.last().map(|i| (i.0, i.1.clone())) else {
            return;
        };
        let found = self.load();
        let csr = match found.pending.csr {
            Some(csr) => csr,
            None => match fs::read(self.dir.path().join("current/csr.der")) {
                Ok(csr) => csr,
                Err(_) => return,
            },
        };
        if accept_csr(&csr, &thing(), CommonNameRule::Match) == Ok(key) {
            self.issue(key, rotation, &csr);
        }
    }

    /// A certificate for another's key comes.
    pub fn send_stranger(&mut self) {
        let key = PrivateKey::generate(KeyKind::P256).expect("a key");
        let leaf = sign(&self.issuer, &key.csr(&thing()).expect("a CSR"), 99);
        self.send(Kind::Crt, render::crt(&Header::default(), [leaf.as_slice()]));
    }

    /// Something comes that means nothing.
    pub fn send_junk(&mut self, payload: Vec<u8>) {
        self.send(Kind::Crt, payload.clone());
        self.send(Kind::CsrReq, payload);
    }

    /// Hands in an event.
    pub fn hand(&mut self, event: Event) {
        self.queue.push_back(event);
    }

    /// The network comes or goes.
    pub fn set_reachable(&mut self, reachable: bool) {
        self.reachable = reachable;
        if !reachable {
            self.drop_connection();
        }
    }

    /// The connection breaks.
    pub fn drop_connection(&mut self) {
        if let Some((connection, _)) = self.line.take() {
            self.queue.push_back(Event::Down { connection, why: "broken".to_owned() });
        }
    }

    /// The certificate that was held arrives, and then nothing more.
    pub fn deliver_held_then_cut_network(&mut self) {
        self.deliver_certificate();
        self.set_reachable(false);
    }

    /// All faults end.
    pub fn heal(&mut self) {
        self.reachable = true;
        self.refuse_new = false;
        self.hold_certificate = false;
        self.lose_pubacks = false;
        self.fail_disk = 0;
        self.clock_trusted = true;
        self.cut = None;
    }

    /// What the child takes for true.
    pub fn believed(&self) -> &Saved {
        self.child().saved()
    }

    /// The answer to a connect, by its number, comes after all.
    pub fn answer_connect(&mut self, number: usize) {
        self.hand(Event::Up { connection: number as u64 });
    }

    /// Another certificate for the key under way comes, whether or not anyone asked.
    pub fn send_another(&mut self) {
        self.reissue();
        self.deliver_certificate();
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now.tick + time;
        for _ in 0..MANY {
            if self.turn() {
                continue;
            }
            let next = self.child().next_wakeup().unwrap_or(end);
            let next = next.max(Tick(self.now.tick.0 + 1));
            if next > end {
                self.advance(end);
                return;
            }
            self.advance(next);
            self.queue.push_back(Event::Wake);
        }
        panic!("it never comes to rest: {:?}", self.told.last_chunk::<8>());
    }

    /// Lets time pass until the gateway has its answer and the broker everything; an hour at most.
    pub fn settle(&mut self) {
        for _ in 0..60 {
            self.run_for(Duration::from_secs(60));
            let idle = self.request_due.is_none() && !self.certificate_due;
            let saved = &self.load().saved;
            let told = saved.notices == Default::default() || self.lose_pubacks;
            if idle && told && saved.stage.generation().is_none() && !self.issued.is_empty() {
                return;
            }
            // The gateway repeats itself.
            let waiting = self.issued.last().map(|issued| issued.0);
            if self.issued.is_empty() {
                self.request_due.get_or_insert(None);
            } else if saved.stage.asked().map(|asked| asked.key) == waiting {
                self.certificate_due = true;
            } else if saved.stage.generation().is_some() {
                self.request_due.get_or_insert(None);
            }
        }
        panic!("not within an hour: {:?}", self.load().saved);
    }

    /// Lets a minute pass, or less: until the cut.
    pub fn run_to_cut(&mut self) {
        let end = self.now.tick + Duration::from_secs(60);
        while !self.was_cut() {
            if self.turn() {
                continue;
            }
            let next = self.child().next_wakeup().unwrap_or(end);
            let next = next.max(Tick(self.now.tick.0 + 1));
            if next > end {
                return;
            }
            self.advance(next);
            self.queue.push_back(Event::Wake);
        }
    }

    fn child(&self) -> &Child {
        &self.life.as_ref().expect("alive").0
    }

    fn advance(&mut self, to: Tick) {
        let passed = to - self.now.tick;
        let wall = self.now.wall.expect("kept even while it is not trusted");
        self.now = Now { tick: to, wall: Some(wall + passed) };
    }

    /// One event; whether there was one.
    fn turn(&mut self) -> bool {
        let Some(event) = self.queue.pop_front().or_else(|| self.gateway_speaks()) else {
            return false;
        };
        let mut effects = Vec::new();
        let now = if self.clock_trusted { self.now } else { Now { wall: None, ..self.now } };
        let child = &mut self.life.as_mut().expect("alive").0;
        child.handle(now, event, &mut effects);
        for effect in effects {
            match self.cut.as_mut() {
                Some((0, tear)) => {
                    let tear = *tear;
                    self.end(&effect, tear);
                    return true;
                }
                Some((left, _)) => *left -= 1,
                None => {}
            }
            self.perform(effect);
        }
        self.check();
        true
    }

    fn end(&mut self, effect: &Effect, tear: Tear) {
        self.cut = None;
        self.cuts += 1;
        if let (Tear::Torn, Effect::Disk(job)) = (tear, effect) {
            self.half_do(job);
        }
        self.restart();
        self.check();
    }

    /// Leaves what a job leaves that is cut in the midst.
    fn half_do(&mut self, job: &Job) {
        let dir = self.dir.path().to_owned();
        match job {
            Job::MakeKey { generation } => {
                let (_, credentials) = self.life.as_ref().expect("alive");
                disk::perform(credentials, &identity(), job.clone());
                let _ = fs::remove_file(dir.join(generation.to_string()).join("csr.der"));
            }
            Job::StoreCertificate { generation, .. } => {
                let folder = dir.join(generation.to_string());
                let _ = fs::create_dir(&folder);
                put(&folder.join(".new-cert.pem"), b"-----BEGIN CERTIFICATE-----\nMII");
            }
            Job::Promote { generation } => {
                let link = dir.join(".new-current");
                std::os::unix::fs::symlink(generation.to_string(), link).expect("a link");
            }
            // It leaves nothing.
            Job::Sign { .. } => {}
            Job::Save(_) => put(&dir.join(".new-child.json"), b"{\"stage\":"),
            Job::Wipe { generation } => {
                let key = dir.join(generation.to_string()).join("key.pem");
                if key.exists() {
                    put(&key, &[0; 100]);
                }
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Disk(Job::Save(_)) if self.fail_saves => {
                let why = "read-only file system".to_owned();
                self.queue.push_front(Event::Disk(certrelay::child::Done::Failed { why }));
            }
            Effect::Disk(_) if self.fail_disk > 0 => {
                self.fail_disk -= 1;
                let why = "no space left on device".to_owned();
                self.queue.push_front(Event::Disk(certrelay::child::Done::Failed { why }));
            }
            Effect::Disk(Job::Sign { .. }) if self.no_proofs => {
                self.queue.push_front(Event::Disk(certrelay::child::Done::Signed(None)));
            }
            Effect::Disk(job) => {
                let (_, credentials) = self.life.as_ref().expect("alive");
                let done = disk::perform(credentials, &identity(), job);
                self.queue.push_front(Event::Disk(done));
            }
            Effect::Connect { connection, generation } => self.connect(connection, generation),
            Effect::Publish { mid, topic, payload } => {
                let Some((_, generation)) = self.line else {
                    return;
                };
                self.gateway_hears(&topic, &payload, generation);
                if !self.lose_pubacks {
                    self.queue.push_back(Event::Published { mid });
                }
            }
            Effect::Tell(told) => self.told.push(told),
        }
    }

    fn connect(&mut self, connection: u64, generation: Generation) {
        self.connects += 1;
        self.line = None;
        let credentials = Credentials::look(self.dir.path());
        let facts = credentials.facts(generation).expect("only whole pairs are connected with");
        let refused = self.refuse_new && facts.id != self.initial && {
            // What was in use before the broker changed its mind stays welcome.
            credentials.current() != Some(generation)
        };
        if self.silent {
            return;
        }
        if self.reachable && !refused {
            self.line = Some((connection, generation));
            self.queue.push_back(Event::Up { connection });
        } else {
            self.queue.push_back(Event::Down { connection, why: "refused".to_owned() });
        }
    }

    /// After every step: the pair in use fits.
    fn check(&self) {
        let credentials = Credentials::look(self.dir.path());
        let current = credentials.current().expect("a pair that fits is current");
        assert!(credentials.facts(current).is_ok());
        assert!(credentials.generations().expect("a list").len() <= 5);
    }
}

#[expect(clippy::disallowed_methods, reason = "a test plays the half-written file")]
fn put(path: &Path, content: &[u8]) {
    fs::write(path, content).expect("written");
}
