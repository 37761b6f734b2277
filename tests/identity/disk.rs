//! The files of the credential, as far as the jobs promise them: each job takes effect as a whole,
//! or leaves what a process leaves that ends in the midst of it.

use std::collections::BTreeMap;

use certrelay::{
    identity::{Configured, Done, Failure, Found, Job, Pair, Saved},
    install::Generation,
    reason::Reason,
};

use crate::pki::{self, KeyNo, Leaf};

/// A key, and what goes with it.
#[derive(Debug, Clone)]
pub struct Kept {
    pub key: KeyNo,
    pub csr: Option<Vec<u8>>,
    pub leaf: Option<Leaf>,
}

/// What is on disk.
#[derive(Debug)]
pub struct Disk {
    /// The configured files, while they are plain.
    plain: (KeyNo, Leaf),
    /// The configured paths are links.
    links: bool,
    current: Option<Generation>,
    pub generations: BTreeMap<Generation, Kept>,
    pub saved: Option<String>,
    /// Keys that were made.
    pub keys: KeyNo,
    /// The key stays.
    pub reuse: bool,
    /// So many jobs fail.
    pub fail: u32,
    /// The nucleus' user can't read what is new.
    pub unreadable: bool,
}

fn failed(reason: Reason) -> Done {
    Done::Failed(Failure { reason, detail: "as it was told".to_owned() })
}

impl Disk {
    /// Two plain files.
    pub fn new() -> Self {
        Self {
            plain: (0, pki::leaf(0, 0)),
            links: false,
            current: None,
            generations: BTreeMap::new(),
            saved: None,
            keys: 0,
            reuse: false,
            fail: 0,
            unreadable: false,
        }
    }

    /// The pair under the configured paths, which fits.
    pub fn configured(&self) -> (KeyNo, Leaf) {
        let Some(current) = self.current.filter(|_| self.links) else { return self.plain.clone() };
        let pair = self.generations.get(&current).expect("the current generation is there");
        let leaf = pair.leaf.clone().expect("the current generation has a certificate");
        assert_eq!(pki::csr(pair.key).1, leaf.facts.key, "the current pair fits");
        (pair.key, leaf)
    }

    /// The generation that the configured paths lead to.
    pub fn current(&self) -> Option<Generation> {
        self.current.filter(|_| self.links)
    }

    /// A pair's certificate.
    pub fn leaf(&self, pair: Pair) -> Option<Leaf> {
        match pair {
            Pair::Configured => Some(self.configured().1),
            Pair::Generation(generation) => self.generations.get(&generation)?.leaf.clone(),
        }
    }

    /// What was saved.
    pub fn saved(&self) -> Option<Saved> {
        self.saved.as_ref().map(|json| serde_json::from_str(json).expect("what was saved is read"))
    }

    fn found(&self) -> Box<Found> {
        let saved = self.saved();
        let under_way = saved.as_ref().and_then(|saved| saved.stage.generation());
        let under_way = under_way.and_then(|generation| self.generations.get(&generation));
        Box::new(Found {
            configured: Configured { facts: self.configured().1.facts },
            current: self.current(),
            generations: self.generations.keys().copied().collect(),
            csr: under_way.and_then(|pair| pair.csr.clone()),
            candidate: under_way.and_then(|pair| pair.leaf.as_ref()).map(|leaf| leaf.facts),
            saved,
        })
    }

    /// Does a job that is about files.
    pub fn perform(&mut self, job: &Job) -> Done {
        if self.fail > 0 && !matches!(job, Job::Look) {
            self.fail -= 1;
            return failed(Reason::NoSpace);
        }
        match job {
            Job::Look => Done::Found(self.found()),
            Job::Preflight => Done::Ready(self.found()),
            Job::MakeKey { generation } => self.make_key(*generation),
            Job::StoreCertificate { generation, chain } => self.store(*generation, &chain[0]),
            Job::Save(saved) => {
                self.saved = Some(serde_json::to_string(saved).expect("serialises"));
                assert_eq!(self.saved().as_ref(), Some(&**saved), "what is saved is read back");
                Done::Saved
            }
            Job::Attach => {
                let current = self.attach_files();
                (self.links, self.current) = (true, Some(current));
                Done::Attached { current }
            }
            Job::Switch { generation } => self.switch(*generation),
            Job::Wipe { generation } => {
                assert_ne!(self.current(), Some(*generation), "the pair in use is never wiped");
                self.generations.remove(generation);
                Done::Wiped
            }
            Job::Detach => {
                self.unlink();
                (self.current, self.saved) = (None, None);
                self.generations.clear();
                Done::Detached
            }
            Job::Probe { .. } | Job::Restart => unreachable!("not about files"),
        }
    }

    /// Leaves what a process leaves that ends in the midst of a job.
    pub fn tear(&mut self, job: &Job) {
        match job {
            Job::MakeKey { generation } => {
                self.make_key(*generation);
                self.generations.entry(*generation).and_modify(|pair| pair.csr = None);
            }
            Job::Attach => drop(self.attach_files()),
            Job::Wipe { generation } => {
                assert_ne!(self.current(), Some(*generation), "the pair in use is never wiped");
                self.generations.entry(*generation).and_modify(|pair| pair.leaf = None);
            }
            Job::Detach => self.unlink(),
            _ => {}
        }
    }

    fn make_key(&mut self, generation: Generation) -> Done {
        let youngest = self.generations.keys().max().copied().unwrap_or(Generation(0));
        assert!(generation > youngest, "a new key takes no other's place");
        if !self.reuse {
            self.keys += 1;
        }
        let key = if self.reuse { self.configured().0 } else { self.keys };
        let (csr, digest) = pki::csr(key);
        self.generations.insert(generation, Kept { key, csr: Some(csr.clone()), leaf: None });
        Done::KeyMade { key: digest, csr }
    }

    fn store(&mut self, generation: Generation, der: &[u8]) -> Done {
        assert_ne!(self.current(), Some(generation), "the pair in use is never written to");
        let Some(pair) = self.generations.get_mut(&generation) else {
            return failed(Reason::BodyLost);
        };
        let facts = certrelay::x509::read_certificate(der).expect("readable");
        if pki::csr(pair.key).1 != facts.key {
            return failed(Reason::NoWaitingCsr);
        }
        pair.leaf = Some(Leaf { der: der.to_vec(), facts });
        Done::CertificateStored { facts }
    }

    fn attach_files(&mut self) -> Generation {
        if let Some(current) = self.current() {
            return current;
        }
        let youngest = self.generations.keys().max().copied().unwrap_or(Generation(0));
        let generation = Generation(youngest.0 + 1);
        let (key, leaf) = self.plain.clone();
        self.generations.insert(generation, Kept { key, csr: None, leaf: Some(leaf) });
        generation
    }

    fn unlink(&mut self) {
        self.plain = self.configured();
        self.links = false;
    }

    fn switch(&mut self, generation: Generation) -> Done {
        assert!(self.links, "only links are switched");
        let leaf = self.generations.get(&generation).and_then(|pair| pair.leaf.clone());
        let Some(leaf) = leaf else { return failed(Reason::CredentialUnusable) };
        let is_new = self.generations.keys().max() == Some(&generation);
        if self.unreadable && is_new {
            return failed(Reason::NotReadable);
        }
        self.current = Some(generation);
        Done::Switched { facts: leaf.facts }
    }

    /// Somebody puts other files under the configured paths.
    pub fn replace_by_hand(&mut self, key: KeyNo, leaf: Leaf) {
        self.plain = (key, leaf);
        self.links = false;
    }
}
