//! The gateway's command line: what it takes, where its output goes, and what its exit code says.
//!
//! Without `--config` the settings come from the nucleus that started the process. Exit codes: 0 it
//! went well, 1 it failed, 2 the configuration or the command line is wrong. What
//! was asked for, and the log of `run`, goes to standard output: a nucleus records standard error
//! as warnings. Errors go to standard error.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use aws_greengrass_ipc::{Client, EnvError};
use certrelay::{
    config::{Config, ConfigError, Log, LogFormat, Problem, ThisHost},
    control, nucleus,
    runtime::{self, Surroundings},
    schedule::Timestamp,
    status::{self, Freshness},
};
use clap::{Parser, Subcommand};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tracing::Level;
use tracing_subscriber::{Layer, Registry, filter::Targets, fmt, prelude::*, reload};

/// What `run` has to end after a signal, with room to the 3 s that are promised.
const GRACE: Duration = Duration::from_millis(2500);

/// Relays AWS IoT certificate rotation between the cloud and the devices behind this gateway.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the gateway until SIGTERM or SIGINT.
    Run {
        /// The settings: a TOML file, instead of the component's configuration.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Checks the settings and every file that they name, and ends.
        #[arg(long)]
        check: bool,
    },
    /// Shows how the gateway and every child stand.
    Status {
        /// Prints the snapshot as JSON.
        #[arg(long)]
        json: bool,
        /// The gateway's workDir.
        #[arg(long, value_name = "DIR", default_value = ".")]
        work_dir: PathBuf,
    },
    /// Has to do with the core device's own certificate; asks the gateway that runs.
    Core {
        #[command(subcommand)]
        command: CoreCommand,
        /// The gateway's workDir.
        #[arg(long, value_name = "DIR", default_value = ".", global = true)]
        work_dir: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum CoreCommand {
    /// Shows which certificate is in use, how its rotation stands, and what comes next.
    Show,
    /// Begins a rotation now: makes a key, and sends its CSR to the cloud unasked.
    ///
    /// Nothing changes for the nucleus until the cloud has sent a certificate for it.
    Rotate,
    /// Installs the new pair that waits for its window, and restarts the nucleus, now.
    ///
    /// The window need not be open, nor the clock be trusted. What else a restart waits for stays: the
    /// link is up, no deployment is under way, and there were not too many restarts in a day. The
    /// nucleus' other components, and this gateway, restart with it.
    RestartNow,
    /// Gives up the new pair: installs the pair before, and restarts the nucleus.
    ///
    /// It works as long as the pair before is kept: until the cloud has settled the rotation, or for a
    /// week. The cloud hears of it (rolled-back-by-hand). Before the new pair is installed, it is given
    /// up without a restart.
    Rollback,
    /// Makes plain files of the links under the configured paths, with the pair in use.
    ///
    /// For before the component is removed: nothing of it is needed any more to use the pair. Every other pair is
    /// overwritten and removed, also the one before, so not while a rotation is under way. The nucleus is
    /// not restarted. The next rotation makes links again.
    Detach,
}

impl CoreCommand {
    fn asks_for(self) -> control::Command {
        match self {
            Self::Show => control::Command::Show,
            Self::Rotate => control::Command::Rotate,
            Self::RestartNow => control::Command::RestartNow,
            Self::Rollback => control::Command::Rollback,
            Self::Detach => control::Command::Detach,
        }
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(usage) => return report_usage(&usage),
    };
    let done = match arguments.command {
        Command::Run { config, check } => run(config.as_deref(), check),
        Command::Status { json, work_dir } => show_status(&work_dir, json),
        Command::Core { command, work_dir } => core(&work_dir, command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("certrelay: {error:#}");
            ExitCode::from(if error.is::<ConfigError>() { 2 } else { 1 })
        }
    }
}

/// Help and version are no errors; clap knows which code and stream each has.
fn report_usage(usage: &clap::Error) -> ExitCode {
    // There is nobody left to tell when even this can't be written.
    let _ = usage.print();
    ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2))
}

fn run(file: Option<&Path>, check: bool) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the event loop can't be started")?
        .block_on(run_until_told(file, check))
}

/// Runs the gateway. What hangs after a signal is left behind: nothing that was acknowledged is
/// lost with it, and who waits for us would kill us anyhow.
async fn run_until_told(file: Option<&Path>, check: bool) -> anyhow::Result<()> {
    let (tell, told) = watch::channel(false);
    let signals = Signals::new().context("signals can't be received")?;
    let overdue = async {
        let name = signals.next().await;
        tracing::info!(signal = name, "ending");
        tell.send_replace(true);
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        ended = start(file, check, told) => ended,
        () = overdue => anyhow::bail!("it did not end within {GRACE:?} after the signal"),
    }
}

async fn start(
    file: Option<&Path>,
    check: bool,
    told: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let found = tokio::select! {
        found = settings(file) => found?,
        () = heard(told.clone()) => return Ok(()),
    };
    let (config, nucleus) = found;
    if check {
        config.check_files(&ThisHost)?;
        return say("configuration ok\n");
    }
    let set_level = Box::new(start_log(config.log));
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, core = %config.relay.core, "starting");
    let surroundings = Surroundings { nucleus, follow_settings: file.is_none(), set_level };
    Ok(runtime::run(config, surroundings, heard(told)).await?)
}

/// The settings, and the nucleus if one has started this process.
async fn settings(file: Option<&Path>) -> anyhow::Result<(Config, Option<Client>)> {
    let Some(file) = file else {
        let client = nucleus::connect().map_err(|error| no_settings(&error))?;
        // How it is to log is not known yet.
        let early = lines(Log { level: Level::INFO, format: LogFormat::Text });
        let early = tracing_subscriber::registry().with(early.with_filter(levels(Level::INFO)));
        let _early = tracing::subscriber::set_default(early);
        let tree = nucleus::settings(&client).await?;
        return Ok((Config::from_greengrass(tree, &ThisHost)?, Some(client)));
    };
    let config = Config::load(file, &ThisHost)?;
    let client = match nucleus::connect() {
        Ok(client) => Some(client),
        Err(error) if config.needs_nucleus() => return Err(no_nucleus(&error).into()),
        Err(_) => None,
    };
    Ok((config, client))
}

fn no_settings(error: &EnvError) -> ConfigError {
    let problem = Problem {
        key: "--config".into(),
        what: format!("no file of settings is named, and no nucleus gives them: {error}"),
        remedy: "run certrelay run --config FILE, or deploy it as a Greengrass component".into(),
    };
    ConfigError { problems: vec![problem] }
}

fn no_nucleus(error: &EnvError) -> ConfigError {
    let problem = Problem {
        key: "cloud.link".into(),
        what: format!("the link goes through a nucleus, and none has started this: {error}"),
        remedy: "set cloud.link = \"mqtt\", or deploy certrelay as a Greengrass component".into(),
    };
    ConfigError { problems: vec![problem] }
}

async fn heard(mut told: watch::Receiver<bool>) {
    // An error means that nobody is left to tell: that is the end, too.
    let _ = told.wait_for(|told| *told).await;
}

/// The two signals that end the gateway.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Starts the log. What is returned sets its level.
fn start_log(log: Log) -> impl Fn(Level) {
    let (filter, handle) = reload::Layer::new(levels(log.level));
    tracing_subscriber::registry().with(lines(log).with_filter(filter)).init();
    move |level| {
        // It fails only when the log is gone.
        let _ = handle.reload(levels(level));
    }
}

/// Libraries log warnings at most: what they would say below that may hold bodies of messages.
fn levels(level: Level) -> Targets {
    Targets::new().with_target("certrelay", level).with_default(level.min(Level::WARN))
}

fn lines(log: Log) -> Box<dyn Layer<Registry> + Send + Sync> {
    let lines = fmt::layer().with_writer(io::stdout);
    match log.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_ansi(wants_colour()).boxed(),
    }
}

fn wants_colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

fn show_status(work_dir: &Path, json: bool) -> anyhow::Result<()> {
    let snapshot = status::read(work_dir)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp::from_unix_seconds(now.as_secs());
    let freshness = Freshness::of(&snapshot.summary, now, alive(snapshot.summary.pid));
    let mut text = String::new();
    if json {
        if let Some(warning) = freshness.warning() {
            eprintln!("certrelay: {warning}");
        }
        text = serde_json::to_string_pretty(&snapshot)? + "\n";
    } else {
        status::render(&mut text, &snapshot, now, freshness)?;
    }
    say(&text)
}

/// Asks the gateway that runs. What it refuses is a failure.
fn core(work_dir: &Path, command: CoreCommand) -> anyhow::Result<()> {
    let answer = control::ask(work_dir, command.asks_for())?;
    let text = answer.text.trim_end();
    match answer.ok {
        true => say(&format!("{text}\n")),
        false => anyhow::bail!("{text}"),
    }
}

/// Whether the process runs; `None`: this system does not say.
fn alive(pid: u32) -> Option<bool> {
    let processes = Path::new("/proc");
    processes.join("self").exists().then(|| processes.join(pid.to_string()).exists())
}

/// A reader that has seen enough (`| head`) is no failure.
fn say(text: &str) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("standard output can't be written")
        }
        _ => Ok(()),
    }
}
