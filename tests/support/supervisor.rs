//! A small systemd: it runs a nucleus stand-in and the gateway's program as the component of it,
//! starts what ends by itself again, and restarts both when a command asks for it.
//!
//! The command is a script that leaves a line and returns at once, as `systemctl --no-block` does.
//! The component dies in the restart, by SIGTERM, or by SIGKILL where that takes too long.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use fake_nucleus::{FakeNucleus, Token};

use super::now;

/// How often it looks at what it is to do.
const POLL: Duration = Duration::from_millis(10);

/// How long a component may take to end.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long it waits before it starts again what has ended by itself.
const PAUSE: Duration = Duration::from_millis(500);

/// What the restart command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// What it should.
    Obeys,
    /// It says yes, and nothing happens.
    Ignores,
    /// It exits with 1, and nothing happens.
    Fails,
    /// It does it after a while.
    Late(Duration),
    /// It restarts the component alone.
    WrongUnit,
}

/// The program of the component.
#[derive(Debug, Clone)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// What it writes is appended to this file.
    pub log: PathBuf,
}

/// The restart command, before there is anything to restart: what it runs has it in its settings.
#[derive(Debug, Clone)]
pub struct RestartCommand {
    script: PathBuf,
    asked: PathBuf,
    fails: PathBuf,
}

/// A nucleus and its component. Both end when it is dropped.
pub struct Supervisor {
    shared: Arc<Mutex<Units>>,
    command: RestartCommand,
    thread: Option<JoinHandle<()>>,
}

struct Units {
    nucleus: FakeNucleus,
    program: Program,
    manner: Manner,
    component: Component,
    /// When a late restart is due.
    due: Option<Instant>,
    asked: usize,
    starts: u32,
    exits: Vec<String>,
    is_over: bool,
}

enum Component {
    /// It was stopped by hand, or not started yet.
    Stopped,
    Running(Child),
    /// It ended by itself.
    Ended(Instant),
}

impl RestartCommand {
    /// Writes the script into `dir`.
    pub fn new(dir: &Path) -> Self {
        let (script, asked) = (dir.join("restart.sh"), dir.join("restarts-asked"));
        let fails = dir.join("restarts-fail");
        let lines = format!(
            "if [ -e '{}' ]; then echo 'Unit not found.' >&2; exit 1; fi\necho asked >> '{}'\n",
            fails.display(),
            asked.display(),
        );
        super::write(&script, lines);
        Self { script, asked, fails }
    }

    /// The program and its arguments.
    pub fn words(&self) -> Vec<String> {
        vec!["/bin/sh".to_owned(), self.script.to_string_lossy().into_owned()]
    }

    /// How often it was run and did not fail.
    fn count(&self) -> usize {
        fs::read_to_string(&self.asked).map_or(0, |text| text.lines().count())
    }
}

impl Supervisor {
    /// Takes a nucleus that runs over. The component is not started.
    pub fn new(nucleus: FakeNucleus, program: Program, command: RestartCommand) -> Self {
        let units = Units {
            nucleus,
            program,
            manner: Manner::Obeys,
            component: Component::Stopped,
            due: None,
            asked: 0,
            starts: 0,
            exits: Vec::new(),
            is_over: false,
        };
        let shared = Arc::new(Mutex::new(units));
        let (working, asked) = (Arc::clone(&shared), command.clone());
        let thread = thread::spawn(move || {
            loop {
                let mut units = lock(&working);
                if units.is_over {
                    return;
                }
                units.look(&asked);
                drop(units);
                thread::sleep(POLL);
            }
        });
        Self { shared, command, thread: Some(thread) }
    }

    /// The nucleus. Nothing is restarted while it is held.
    pub fn nucleus(&self) -> impl std::ops::DerefMut<Target = FakeNucleus> + '_ {
        Nucleus(lock(&self.shared))
    }

    /// Changes what the restart command does.
    pub fn set_manner(&self, manner: Manner) {
        let mut units = lock(&self.shared);
        match manner {
            Manner::Fails => super::write(&self.command.fails, ""),
            // It may not be there.
            _ => drop(fs::remove_file(&self.command.fails)),
        }
        units.manner = manner;
    }

    /// Starts the component, if it does not run.
    pub fn start(&self) {
        let mut units = lock(&self.shared);
        if !matches!(units.component, Component::Running(_)) {
            units.start();
        }
    }

    /// Ends the component with SIGKILL; it stays dead.
    pub fn kill(&self) {
        lock(&self.shared).kill();
    }

    /// Ends the component with SIGKILL; it is started again, as after any failure.
    pub fn crash(&self) {
        let mut units = lock(&self.shared);
        units.kill();
        units.component = Component::Ended(now());
    }

    /// Ends both and starts both, as by hand; a component that was stopped stays so.
    pub fn restart(&self) {
        lock(&self.shared).restart();
    }

    /// Ends the nucleus as a power cut does, and the component with it; starts both.
    pub fn cut_the_power(&self) {
        let mut units = lock(&self.shared);
        units.kill();
        units.nucleus.restart(Token::New);
        units.start();
    }

    /// How often the restart command was run and did not fail.
    pub fn asked(&self) -> usize {
        self.command.count()
    }

    /// How often the component was started.
    pub fn starts(&self) -> u32 {
        lock(&self.shared).starts
    }

    /// How the component ended when it did so by itself.
    pub fn exits(&self) -> Vec<String> {
        lock(&self.shared).exits.clone()
    }

    /// The process id of the component, while it runs.
    pub fn pid(&self) -> Option<u32> {
        match &lock(&self.shared).component {
            Component::Running(child) => Some(child.id()),
            _ => None,
        }
    }

    /// What the component has written, all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(&lock(&self.shared).program.log).unwrap_or_default()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the component ---\n{}", self.log());
        }
        let mut units = lock(&self.shared);
        units.is_over = true;
        units.kill();
        drop(units);
        if let Some(thread) = self.thread.take() {
            // What it panicked with stands on standard error.
            let _ = thread.join();
        }
    }
}

/// The nucleus of units that are locked.
struct Nucleus<'a>(MutexGuard<'a, Units>);

impl std::ops::Deref for Nucleus<'_> {
    type Target = FakeNucleus;

    fn deref(&self) -> &FakeNucleus {
        &self.0.nucleus
    }
}

impl std::ops::DerefMut for Nucleus<'_> {
    fn deref_mut(&mut self) -> &mut FakeNucleus {
        &mut self.0.nucleus
    }
}

impl Units {
    /// Does what is due.
    fn look(&mut self, command: &RestartCommand) {
        let asked = command.count();
        if asked > self.asked {
            self.asked = asked;
            self.obey();
        }
        if self.due.is_some_and(|due| due <= now()) {
            self.due = None;
            self.restart();
        }
        let ended = match &mut self.component {
            Component::Running(child) => child.try_wait().expect("its status"),
            Component::Ended(at) if at.elapsed() >= PAUSE => return self.start(),
            Component::Ended(_) | Component::Stopped => None,
        };
        if let Some(status) = ended {
            self.exits.push(status.to_string());
            self.component = Component::Ended(now());
        }
    }

    fn obey(&mut self) {
        match self.manner {
            Manner::Obeys => self.restart(),
            Manner::Ignores | Manner::Fails => {}
            Manner::Late(pause) => self.due = Some(now() + pause),
            Manner::WrongUnit => {
                self.terminate();
                self.start();
            }
        }
    }

    fn restart(&mut self) {
        let was_stopped = matches!(self.component, Component::Stopped);
        self.terminate();
        self.nucleus.restart(Token::New);
        if !was_stopped {
            self.start();
        }
    }

    fn start(&mut self) {
        let log = OpenOptions::new().create(true).append(true).open(&self.program.log);
        let log: File = log.expect("the component's log");
        let child = Command::new(&self.program.path)
            .args(&self.program.arguments)
            .envs(self.nucleus.environment())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the component's log"))
            .stderr(log)
            .spawn();
        let child = child.unwrap_or_else(|why| panic!("{}: {why}", self.program.path.display()));
        self.component = Component::Running(child);
        self.starts += 1;
    }

    fn terminate(&mut self) {
        if let Component::Running(child) = &mut self.component {
            let id = child.id().to_string();
            // It fails for a process that has ended already.
            let _ = Command::new("kill").args(["-TERM", &id]).stderr(Stdio::null()).status();
            let asked = now();
            while matches!(child.try_wait(), Ok(None)) && asked.elapsed() < PATIENCE {
                thread::sleep(POLL);
            }
        }
        self.kill();
    }

    fn kill(&mut self) {
        let component = std::mem::replace(&mut self.component, Component::Stopped);
        if let Component::Running(mut child) = component {
            // It fails for a process that has ended already.
            let _ = child.kill();
            let status = child.wait().expect("it dies");
            if status.signal().is_none() && !status.success() {
                self.exits.push(status.to_string());
            }
        }
    }
}

fn lock(units: &Mutex<Units>) -> MutexGuard<'_, Units> {
    units.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
