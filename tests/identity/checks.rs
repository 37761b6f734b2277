//! What the witness is to see of a world.

use certrelay::{
    identity::{Done, Job, Saved, Say, Stage, Told},
    install::Generation,
};

use crate::world::{Act, World};

impl World {
    pub fn check_job(&mut self, job: &Job) {
        let process = self.process.as_ref().expect("alive");
        self.witness.job(self.now, job);
        if *job == Job::Restart {
            let saved = process.identity.saved();
            assert_eq!(
                self.disk.saved().as_ref(),
                Some(saved),
                "what the next life needs is saved"
            );
            self.witness.restart(self.now, &saved.stage, process.conditions, self.max_restarts);
        }
        if *job == Job::Attach {
            self.witness.install(self.now, &process.identity.saved().stage);
        }
    }

    pub fn check_files(&mut self, job: &Job, before: Option<Generation>, done: &Done) {
        match (job, done) {
            (Job::Attach, Done::Attached { current }) => self.witness.unguard_but(*current),
            (Job::Detach, Done::Detached) => self.witness.unguard_all(),
            (Job::Switch { generation }, Done::Switched { facts }) => {
                let stage = self.disk.saved().map(|saved| saved.stage);
                let is_new = matches!(stage, Some(Stage::Installed(_)));
                let from = before.expect("links");
                self.witness.switch(from, *generation, is_new.then_some(facts.id));
            }
            (Job::Wipe { generation }, Done::Wiped) => self.witness.wipe(self.now, *generation),
            _ => {}
        }
    }

    pub fn check_say(&mut self, say: &Say) {
        let link = self.process.as_ref().expect("alive").conditions.link;
        self.witness.say(self.now, say, self.nucleus.loaded, link);
        if let Say::Acked { certificate, .. } = say {
            let was_given_up = |error: &(_, _, _)| error.1 == Some(*certificate) && error.2;
            let contradicts = self.cloud.errors.iter().any(was_given_up);
            assert!(!contradicts, "the cloud heard that it failed\n{}", self.witness.last());
        }
        if let Say::Failed { certificate: Some(certificate), ends: true, .. } = say {
            let ended = |saved: &Saved| saved.ended.as_ref().and_then(|ended| ended.certificate);
            let identity = &self.process.as_ref().expect("alive").identity;
            let is_known = ended(identity.saved()) == Some(*certificate);
            let is_durable =
                self.disk.saved().and_then(|saved| ended(&saved)) == Some(*certificate);
            assert!(is_durable || !is_known, "said before it is saved\n{}", self.witness.last());
        }
        if let Say::Csr { csr, .. } = say {
            let generation = self.disk.saved().and_then(|saved| saved.stage.generation());
            let pair = generation.and_then(|generation| self.disk.generations.get(&generation));
            let durable = pair.and_then(|pair| pair.csr.as_ref());
            assert_eq!(durable, Some(csr), "a key is durable before its CSR leaves");
        }
    }

    pub fn check_told(&mut self, told: Told) {
        self.witness.told(self.now, &told);
        let name = format!("{told:?}");
        let (due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.once).into_iter().partition(|once| name.starts_with(once.0));
        self.once = rest;
        for (_, after, what) in due {
            self.later(after, Act::Do(what));
        }
    }

    pub fn check_critical(&mut self) {
        let is_critical =
            self.process.as_ref().is_some_and(|process| process.identity.is_critical());
        self.witness.critical(self.now, is_critical);
        assert!(self.disk.generations.len() <= 6, "{:?}", self.disk.generations.keys());
        self.disk.configured();
    }
}
