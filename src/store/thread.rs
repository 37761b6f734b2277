//! The store on a thread of its own, so that a commit never holds up the event loop.
//!
//! Owns the open store. One command at a time, one answer to each, in order. After an error the
//! store is closed before the error is answered; the owner opens it anew when it thinks fit. Never
//! retries.

use std::{
    io,
    path::PathBuf,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::mpsc;

use super::{OpenStore, Store, StoreError};
use crate::{
    relay::{Body, Snapshot, Write},
    wire::ThingName,
};

/// What the store is to do at once: one commit, then the reads.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Job {
    /// The writes.
    pub writes: Vec<Write>,
    /// The bodies that are wanted; they are read after the commit.
    pub reads: Vec<(ThingName, Body)>,
}

/// What was found when the store was opened.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// What it held.
    pub snapshot: Snapshot,
    /// Where the file before lies now, if it was damaged.
    pub set_aside: Option<PathBuf>,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To [`StoreThread::open`].
    Opened(Result<Start, StoreError>),
    /// To [`StoreThread::run`]: all writes are durable; the bodies, in the order in which they were
    /// wanted. Also the answer of last resort, when the thread itself is gone.
    Done(Result<Vec<Option<Vec<u8>>>, StoreError>),
}

/// A command was given while another was not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store has not answered the command before")]
pub struct Busy;

/// The store was not closed in time. It closes when what it waits for ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store is still busy after {0:?}; what was acknowledged is durable")]
pub struct StillClosing(pub Duration);

enum Command {
    Open,
    Run(Job),
}

/// A store on a thread of its own. Dropped, it closes the store by itself when it is idle.
#[derive(Debug)]
pub struct StoreThread {
    commands: SyncSender<Command>,
    answers: mpsc::Receiver<Answer>,
    in_flight: bool,
    thread: JoinHandle<()>,
}

impl StoreThread {
    /// Starts the thread. Nothing is opened yet.
    pub fn spawn<O: OpenStore + 'static>(opener: O) -> io::Result<Self> {
        let (commands, inbox) = sync_channel(1);
        let (outbox, answers) = mpsc::channel(1);
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || serve(opener, &inbox, &outbox))?;
        Ok(Self { commands, answers, in_flight: false, thread })
    }

    /// Begins to open the store and load what it holds. One that is open is closed first.
    pub fn open(&mut self) -> Result<(), Busy> {
        self.send(Command::Open)
    }

    /// Begins a job.
    pub fn run(&mut self, job: Job) -> Result<(), Busy> {
        self.send(Command::Run(job))
    }

    /// Whether a command is not answered yet.
    pub fn is_busy(&self) -> bool {
        self.in_flight
    }

    /// The answer to the command before. Waits for ever when there was none, so that it can stand
    /// in a `select!`; nothing is lost when it is dropped half way.
    pub async fn answer(&mut self) -> Answer {
        if !self.in_flight {
            return std::future::pending().await;
        }
        let answer = self.answers.recv().await;
        self.in_flight = false;
        answer.unwrap_or(Answer::Done(Err(StoreError::ThreadGone)))
    }

    /// Finishes what is under way, closes the store and ends the thread.
    pub async fn close(mut self, within: Duration) -> Result<(), StillClosing> {
        drop(self.commands);
        // The thread drops its end of the answers as its last act.
        let ended = async { while self.answers.recv().await.is_some() {} };
        tokio::time::timeout(within, ended).await.map_err(|_| StillClosing(within))?;
        // A panic of it has been answered with `ThreadGone`.
        let _ = self.thread.join();
        Ok(())
    }

    fn send(&mut self, command: Command) -> Result<(), Busy> {
        if self.in_flight {
            return Err(Busy);
        }
        // A full channel can't be: what was sent before is answered. A closed one is answered by
        // `ThreadGone`.
        let _ = self.commands.try_send(command);
        self.in_flight = true;
        Ok(())
    }
}

fn serve<O: OpenStore>(mut opener: O, inbox: &Receiver<Command>, outbox: &mpsc::Sender<Answer>) {
    let mut store = None;
    while let Ok(command) = inbox.recv() {
        let answer = match command {
            Command::Open => {
                drop(store.take());
                Answer::Opened(start(&mut opener, &mut store))
            }
            Command::Run(job) => Answer::Done(run(&mut store, &job)),
        };
        // An owner that has gone wants no answer.
        let _ = outbox.blocking_send(answer);
    }
}

fn start<O: OpenStore>(opener: &mut O, open: &mut Option<O::Store>) -> Result<Start, StoreError> {
    let mut opened = opener.open()?;
    let snapshot = opened.store.load()?;
    *open = Some(opened.store);
    Ok(Start { snapshot, set_aside: opened.set_aside })
}

fn run<S: Store>(open: &mut Option<S>, job: &Job) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
    let mut store = open.take().ok_or(StoreError::Closed)?;
    store.commit(&job.writes)?;
    let bodies = job.reads.iter().map(|(thing, body)| store.body(thing, *body));
    let bodies = bodies.collect::<Result<_, _>>()?;
    *open = Some(store);
    Ok(bodies)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Sender;

    use super::*;
    use crate::{
        schedule::Timestamp,
        store::{Fault, MemoryDisk, MemoryStore, Opened},
    };

    const SOON: Duration = Duration::from_secs(5);

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
    }

    async fn open(thread: &mut StoreThread) -> Result<Start, StoreError> {
        thread.open().expect("is idle");
        match thread.answer().await {
            Answer::Opened(outcome) => outcome,
            Answer::Done(outcome) => panic!("{outcome:?}"),
        }
    }

    async fn run(
        thread: &mut StoreThread,
        writes: &[Write],
        reads: &[(ThingName, Body)],
    ) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        thread.run(Job { writes: writes.to_vec(), reads: reads.to_vec() }).expect("is idle");
        match thread.answer().await {
            Answer::Done(outcome) => outcome,
            Answer::Opened(outcome) => panic!("{outcome:?}"),
        }
    }

    #[test]
    fn a_job_reads_what_it_wrote_and_another_has_to_wait_for_its_answer() {
        let name: ThingName = "a".parse().expect("a thing name");
        let (csr, certificate) = ((name.clone(), Body::Csr), (name.clone(), Body::Certificate));
        runtime().block_on(async {
            let mut thread = StoreThread::spawn(MemoryDisk::new()).expect("starts");
            assert_eq!(run(&mut thread, &[], &[]).await, Err(StoreError::Closed));
            assert_eq!(open(&mut thread).await.expect("opens").snapshot, Snapshot::default());
            let write = Write::Body(name, Body::Csr, vec![7]);
            let bodies = run(&mut thread, &[write], &[certificate, csr]).await;
            assert_eq!(bodies, Ok(vec![None, Some(vec![7])]));
            thread.run(Job::default()).expect("is idle");
            assert!(thread.is_busy());
            assert_eq!(thread.run(Job::default()), Err(Busy));
            assert_eq!(thread.answer().await, Answer::Done(Ok(vec![])));
            thread.close(SOON).await.expect("closes");
        });
    }

    #[test]
    fn a_store_that_failed_is_closed_until_it_is_opened_anew() {
        runtime().block_on(async {
            let disk = MemoryDisk::new();
            let mut thread = StoreThread::spawn(disk.clone()).expect("starts");
            open(&mut thread).await.expect("opens");
            disk.fail_commit(1, Fault::After);
            let seen = [Write::Seen(Timestamp(5))];
            assert!(matches!(run(&mut thread, &seen, &[]).await, Err(StoreError::Io { .. })));
            assert_eq!(run(&mut thread, &seen, &[]).await, Err(StoreError::Closed));
            disk.fail_opens(1);
            assert!(open(&mut thread).await.is_err());
            let start = open(&mut thread).await.expect("opens");
            assert_eq!(start.snapshot.seen, Some(Timestamp(5)));
            disk.corrupt();
            assert!(open(&mut thread).await.expect("opens").set_aside.is_some());
        });
    }

    /// Opens only when it is told to, so that a test can hold the thread.
    struct Gate(Receiver<()>, MemoryDisk);

    impl OpenStore for Gate {
        type Store = MemoryStore;

        fn open(&mut self) -> Result<Opened<MemoryStore>, StoreError> {
            self.0.recv().expect("the test holds the other end");
            self.1.open()
        }
    }

    fn gated() -> (Sender<()>, StoreThread) {
        let (go, gate) = std::sync::mpsc::channel();
        (go, StoreThread::spawn(Gate(gate, MemoryDisk::new())).expect("starts"))
    }

    #[test]
    fn a_store_that_hangs_holds_up_neither_the_loop_nor_the_end() {
        runtime().block_on(async {
            let (go, mut thread) = gated();
            thread.open().expect("is idle");
            let turn = Duration::from_millis(5);
            for _ in 0..3 {
                // The loop turns: the answer is dropped half way and nothing is lost by it.
                assert!(tokio::time::timeout(turn, thread.answer()).await.is_err());
            }
            go.send(()).expect("the thread waits");
            assert!(matches!(thread.answer().await, Answer::Opened(Ok(_))));
            thread.open().expect("is idle");
            assert_eq!(thread.close(turn).await, Err(StillClosing(turn)));
            go.send(()).expect("the thread waits");
        });
    }

    #[test]
    fn a_thread_that_died_answers_for_good() {
        runtime().block_on(async {
            let (go, mut thread) = gated();
            drop(go);
            for _ in 0..2 {
                thread.open().expect("is idle");
                assert_eq!(thread.answer().await, Answer::Done(Err(StoreError::ThreadGone)));
            }
            thread.close(SOON).await.expect("closes");
        });
    }
}
