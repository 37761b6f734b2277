//! The demo: a whole factory on this machine. `make demo` builds and runs it.
//!
//! Two Mosquittos (the cloud's and the floor's, both with mTLS and access rules), a cloud with a CA
//! of its own, a stand-in for the classic nucleus (`--lite`: for nucleus lite), the real gateway as
//! its component, 24 real agents, and an application that embeds the child library. All 25
//! certificates are rotated, while the link to the cloud is cut in mid-rotation, the gateway is
//! killed with SIGKILL, the nucleus fails in its own way, and two of the devices are off at first.
//! Ends with exit code 0 only when every device is seen to work with its new certificate.

#![expect(clippy::disallowed_methods, reason = "the demo has clocks, files and tasks of its own")]
#![expect(clippy::disallowed_types, reason = "and processes and sockets")]

mod application;
mod cloud;
mod plant;
mod process;
mod report;
mod screen;
mod story;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::{path::Path, process::ExitCode};

use fake_nucleus::Mode;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

/// What a shell says of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// What it says of a command line that is wrong.
const MISUSED: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mode = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Mode::Java,
        ["--lite"] => Mode::Lite,
        _ => {
            eprintln!("usage: factory [--lite]");
            return ExitCode::from(MISUSED);
        }
    };
    match run(mode) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("factory: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mode: Mode) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut dir = Folder(tempfile::Builder::new().prefix("certrelay-factory-").tempdir()?);
    dir.0.disable_cleanup(true);
    let _inside = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let played = runtime.block_on(async {
        tokio::select! {
            report = play(dir.0.path(), mode) => Some(report),
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
        }
    });
    let Some(report) = played else {
        dir.0.disable_cleanup(false);
        return Ok(ExitCode::from(INTERRUPTED));
    };
    let report = report.inspect_err(|_| eprintln!("{}", dir.logs()))?;
    print!("{}", report.render());
    if report.is_good() {
        dir.0.disable_cleanup(false);
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", dir.logs());
    Ok(ExitCode::FAILURE)
}

async fn play(dir: &Path, mode: Mode) -> anyhow::Result<report::Report> {
    let (plant, cloud) = plant::Plant::build(dir, application::wall_clock())?;
    story::play(&plant, cloud, mode).await
}

/// Where everything of the demo is; it stays when something goes wrong.
struct Folder(TempDir);

impl Folder {
    fn logs(&self) -> String {
        let dir = self.0.path().display();
        format!(
            "the logs: {dir}/gateway.log, {dir}/devices/*.log, {dir}/cloud/mosquitto.log, \
             {dir}/floor/mosquitto.log"
        )
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}
