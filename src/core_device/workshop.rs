//! Does the identity's jobs, one at a time, away from the loop: files on a thread of their own,
//! probes and the restart as tasks. Between them it tells people how things stand.
//!
//! Where the credential is, is asked anew at each [`Job::Look`] and [`Job::Preflight`]; in between
//! it is taken to stand still. Knows nothing of why a job is done.

#![expect(clippy::disallowed_methods, reason = "this is a driver: it runs tasks")]

use std::{collections::VecDeque, fmt::Display};

use aws_greengrass_ipc::{Client, Nucleus};
use tokio::{sync::oneshot, task::JoinSet};

use super::{
    files::{CoreFiles, FileJob, KeyPlan, OtherJob},
    life,
    locate::{self, Place},
    probe, restart,
    show::{self, Shown},
};
use crate::{
    config::Core,
    control::Answer,
    identity::{Done, Failure, Job, Pair, ProbeName, Saved},
    install::{Credentials, Disk, PairFiles},
    reason::Reason,
    schedule::Timestamp,
    wire::ThingName,
};

/// What may wait for the job under way.
const WAITING: usize = 4;

/// The folder beside the core's certificate in which the generations are.
const FOLDER: &str = "certrelay";

/// What the jobs are done with: the settings and the nucleus as they are now.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The core.
    pub thing: ThingName,
    /// The settings.
    pub core: Core,
    /// The connection to the nucleus that started this process.
    pub client: Option<Client>,
    /// Which nucleus that is, once it is connected.
    pub kind: Option<Nucleus>,
}

/// The jobs, and what is kept between them.
#[derive(Debug, Default)]
pub struct Workshop {
    /// One at most.
    doing: JoinSet<(Bench, Option<Done>)>,
    waiting: VecDeque<Order>,
    bench: Option<Bench>,
    place: Option<Place>,
}

/// What is to be done.
#[derive(Debug)]
enum Order {
    Job(Job, Box<Tools>),
    Show(Box<Question>, oneshot::Sender<Answer>),
}

/// What somebody wants to be shown.
#[derive(Debug)]
pub struct Question {
    /// What is known of a rotation.
    pub saved: Saved,
    /// The clock, while it is trusted.
    pub wall: Option<Timestamp>,
    /// What it is looked at with.
    pub tools: Tools,
}

/// What one job leaves for the next.
#[derive(Debug, Default)]
struct Bench {
    files: Option<CoreFiles>,
    place: Option<Place>,
}

impl Workshop {
    /// Where the credential is, as far as it was found.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// Starts a job. Its end is the next that [`Self::next`] tells; no other is under way.
    pub fn start(&mut self, job: Job, tools: Tools) {
        self.waiting.push_back(Order::Job(job, Box::new(tools)));
        self.go_on();
    }

    /// Tells somebody how the credential stands, and what a rotation would come to.
    pub fn show(&mut self, question: Question, answer: oneshot::Sender<Answer>) {
        if self.waiting.len() >= WAITING {
            // Who has left wants no answer.
            let _ = answer.send(Answer::refused("the gateway is busy: try again"));
            return;
        }
        self.waiting.push_back(Order::Show(Box::new(question), answer));
        self.go_on();
    }

    /// The end of the job under way. Cancel-safe.
    pub async fn next(&mut self) -> Done {
        loop {
            let done = match self.doing.join_next().await {
                Some(Ok((bench, done))) => {
                    self.place.clone_from(&bench.place);
                    self.bench = Some(bench);
                    done
                }
                Some(Err(ended)) => Some(Done::Failed(bug(&ended))),
                None => std::future::pending().await,
            };
            self.go_on();
            if let Some(done) = done {
                return done;
            }
        }
    }

    fn go_on(&mut self) {
        if !self.doing.is_empty() {
            return;
        }
        let Some(order) = self.waiting.pop_front() else { return };
        let bench = self.bench.take().unwrap_or_default();
        self.doing.spawn(async move {
            match order {
                Order::Job(job, tools) => {
                    let (bench, done) = bench.work(job, *tools).await;
                    (bench, Some(done))
                }
                Order::Show(question, answer) => {
                    let (bench, text) = bench.show(*question).await;
                    // Who has left wants no answer.
                    let _ = answer.send(Answer::done(text));
                    (bench, None)
                }
            }
        });
    }
}

impl Bench {
    async fn work(mut self, job: Job, tools: Tools) -> (Self, Done) {
        if let Err(failure) = self.prepare(&job, &tools).await {
            return (self, Done::Failed(failure));
        }
        let Some(place) = self.place.clone() else {
            return (self, Done::Failed(unlocated()));
        };
        match FileJob::try_from(job) {
            Ok(job) => self.perform(place, job, tools).await,
            Err(OtherJob::Probe(with, name)) => {
                let done = probe_with(&place, with, name, &tools.thing).await;
                (self, done)
            }
            Err(OtherJob::Restart) => {
                let done = restart_with(&tools).await;
                (self, done)
            }
        }
    }

    /// Finds out what the job needs to know.
    async fn prepare(&mut self, job: &Job, tools: &Tools) -> Result<(), Failure> {
        if !matches!(job, Job::Look | Job::Preflight) {
            return Ok(());
        }
        let place = locate_with(tools).await?;
        if matches!(job, Job::Preflight) {
            check(&place, tools).await?;
        }
        self.place = Some(place);
        Ok(())
    }

    async fn perform(mut self, place: Place, job: FileJob, tools: Tools) -> (Self, Done) {
        let Tools { thing, core, .. } = tools;
        let plan = KeyPlan { thing, algorithm: core.key_algorithm, rotation: core.key_rotation };
        let worked = tokio::task::spawn_blocking(move || {
            let mut files = match self.files.take() {
                Some(files) => files.with_plan(plan),
                None => CoreFiles::new(Disk, plan, life::nucleus_user()),
            };
            let done = files.perform(&place.files, job);
            self.files = Some(files);
            (self, done)
        });
        worked.await.unwrap_or_else(|ended| (Self::default(), Done::Failed(bug(&ended))))
    }

    async fn show(self, question: Question) -> (Self, String) {
        let Question { saved, wall, tools } = question;
        let restart = match tools.kind {
            Some(kind) => Ok(restart::command(&tools.core, kind)),
            None => Err(no_nucleus()),
        };
        let window = tools.core.restart_window.as_ref().map(ToString::to_string);
        let place = locate_with(&tools).await;
        let (bench, done) = self.work(Job::Preflight, tools).await;
        let (preflight, found) = match done {
            Done::Ready(found) => (Ok(()), Some(found)),
            Done::Failed(failure) => (Err(failure), None),
            other => (Err(bug(&format!("{other:?}"))), None),
        };
        let credential = match &place {
            Ok(place) => show::credential(&place.files, found.as_deref()),
            Err(failure) => Err(failure.clone()),
        };
        let shown = Shown { place, credential, saved: Some(saved), preflight, restart, window };
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = show::render(&mut text, &shown, wall);
        (bench, text)
    }
}

async fn locate_with(tools: &Tools) -> Result<Place, Failure> {
    locate::locate(&tools.core, tools.client.as_ref(), tools.kind, &locate::roots()).await
}

/// What a rotation needs beside the files: a nucleus to restart, the way to do it, and a cloud to
/// ask.
async fn check(place: &Place, tools: &Tools) -> Result<(), Failure> {
    let (Some(_), Some(kind)) = (life::run_id(), tools.kind) else {
        return Err(no_nucleus());
    };
    place.target()?;
    restart::check(&restart::command(&tools.core, kind)).await
}

async fn restart_with(tools: &Tools) -> Done {
    match tools.kind {
        Some(kind) => restart::run(&restart::command(&tools.core, kind)).await,
        None => Done::Failed(no_nucleus()),
    }
}

async fn probe_with(place: &Place, with: Pair, name: ProbeName, thing: &ThingName) -> Done {
    let target = match place.target() {
        Ok(target) => target,
        Err(failure) => return Done::Failed(failure),
    };
    let client_id = match name {
        ProbeName::Beside => format!("{thing}#certrelay"),
        ProbeName::InPlace => thing.to_string(),
    };
    Done::Probed(probe::probe(&target, &files_of(place, with), &client_id).await)
}

fn files_of(place: &Place, pair: Pair) -> PairFiles {
    match (pair, place.files.certificate.parent()) {
        (Pair::Generation(generation), Some(folder)) => {
            Credentials::look(&folder.join(FOLDER)).files(generation)
        }
        _ => place.files.clone(),
    }
}

fn no_nucleus() -> Failure {
    let detail = "the core's own certificate is rotated only where a nucleus runs this: deploy it \
                  as a component"
        .to_owned();
    Failure { reason: Reason::NoNucleus, detail }
}

fn unlocated() -> Failure {
    let detail = Reason::CredentialUnknown.explain().to_owned();
    Failure { reason: Reason::CredentialUnknown, detail }
}

fn bug(what: &dyn Display) -> Failure {
    let detail = format!("a job ended by itself ({what}): please report this as a bug");
    Failure { reason: Reason::DiskError, detail }
}
