//! The agent: the child's procedure for a device where nothing else holds an MQTT session under the
//! device's name. It drives [`certrelay::child`] with one MQTT link a connection, and decides
//! nothing itself.

use std::{
    collections::VecDeque,
    future::pending,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, anyhow, bail};
use certrelay::{
    child::{
        Child, Effect, Event, Found, Settings, Stage, Told,
        disk::{self, Identity},
    },
    install::{Credentials, PairFiles},
    keys::KeyKind,
    links::{Delivery, Link, LinkCommand, LinkEvent, Publish, Qos, mqtt, tls::TlsFiles},
    schedule::{ClockGuard, ClockTrust, Now, Tick, Timestamp},
    wire::ThingName,
};
use clap::{Parser, Subcommand};
use tokio::{
    process::Command as Process,
    signal::unix::{Signal, SignalKind, signal},
    time::{sleep, timeout},
};

/// Bad arguments, or files that are missing or no good.
const USAGE: u8 = 2;

/// How long the command of `--exec` may take.
const EXEC_DEADLINE: Duration = Duration::from_secs(300);

/// No clock is right that shows a time before this program was written: 2026-01-01.
const WRITTEN: Timestamp = Timestamp(1_767_225_600_000);

/// Rotates the certificate of the device that it runs on.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Stays connected to the broker and rotates the certificate when asked to.
    Run(Run),
    /// Shows the pair in use, and what is under way.
    Show {
        /// The directory with the credentials.
        #[arg(long)]
        dir: PathBuf,
    },
}

#[derive(clap::Args)]
struct Run {
    /// The local broker, as HOST:PORT. Its certificate must be for HOST.
    #[arg(long)]
    broker: String,
    /// The device's thing name; also its MQTT client id, which nothing else may use.
    #[arg(long)]
    thing: ThingName,
    /// The directory with the credentials. At the first start it holds cert.pem and key.pem (or
    /// gen-1 with both), which are taken as generation 1.
    #[arg(long)]
    dir: PathBuf,
    /// The CAs that the broker's certificate may chain to, PEM.
    #[arg(long)]
    ca: PathBuf,
    /// Run by the shell each time a new certificate is in use; CERTRELAY_DIR names the directory.
    #[arg(long, value_name = "CMD")]
    exec: Option<String>,
    /// The kind of new keys: p256, p384, rsa2048, rsa3072 or rsa4096.
    #[arg(long, default_value = "p256", value_parser = key_kind)]
    key: KeyKind,
    /// The topics' prefix.
    #[arg(long, default_value = "management/topic")]
    prefix: String,
}

fn key_kind(text: &str) -> Result<KeyKind, String> {
    text.parse().map_err(|why: certrelay::keys::UnknownKind| why.to_string())
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let outcome = match Arguments::parse().command {
        Command::Run(options) => run(options),
        Command::Show { dir } => show(&dir),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("certrelay-child: {why:#}");
            ExitCode::from(USAGE)
        }
    }
}

fn show(dir: &Path) -> anyhow::Result<()> {
    let credentials = Credentials::look(dir);
    let found = disk::load(&credentials)?.ok_or_else(|| {
        anyhow!("{} holds no pair in use: has `run` been started?", dir.display())
    })?;
    let facts = found.current.facts;
    println!("in use       {}", found.current.generation);
    println!("certificate  {}", facts.id);
    println!("valid        {} to {}", facts.not_before, facts.not_after);
    println!("under way    {}", under_way(&found.saved.stage));
    if let Some(ack) = &found.saved.notices.ack {
        println!("to be sent   crt_ack for {}", ack.certificate);
    }
    if let Some(err) = &found.saved.notices.err {
        println!("to be sent   crt_err {}", err.code);
    }
    Ok(())
}

fn under_way(stage: &Stage) -> String {
    match stage {
        Stage::Idle => "nothing".to_owned(),
        Stage::Waiting(waiting) => {
            format!("{}: waits for the certificate of the key {}", waiting.generation, waiting.key)
        }
        Stage::Trying(trying) => {
            format!("{}: tries the certificate {}", trying.generation, trying.certificate)
        }
    }
}

fn run(options: Run) -> anyhow::Result<()> {
    let settings = Settings::new(options.thing.clone(), &options.prefix)
        .with_context(|| format!("--prefix {:?}", options.prefix))?;
    let broker = broker(&options.broker)?;
    let (credentials, found) = start(&options.dir)?;
    let link = LinkMaker { broker, ca: options.ca.clone(), settings: settings.clone() };
    let files = credentials.files(found.current.generation);
    link.options(files).check().context("these credentials can't be used")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut agent = Agent::new(options, settings, credentials, found, link)?;
        agent.run().await;
        Ok(())
    })
}

fn broker(text: &str) -> anyhow::Result<(String, u16)> {
    let bad = || format!("--broker {text:?} is not HOST:PORT");
    let (host, port) = text.rsplit_once(':').with_context(bad)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        bail!(bad());
    }
    Ok((host.to_owned(), port.parse().with_context(bad)?))
}

/// Opens the directory, and takes the first pair from it if there is none in use.
fn start(dir: &Path) -> anyhow::Result<(Credentials, Found)> {
    let dir = std::path::absolute(dir)?;
    let credentials = disk::open(&dir)?;
    if credentials.current().is_none() {
        let files = PairFiles { certificate: dir.join("cert.pem"), key: dir.join("key.pem") };
        credentials.adopt(&files).with_context(|| {
            format!("{} has no pair in use: put cert.pem and key.pem there", dir.display())
        })?;
        tracing::info!(
            "took cert.pem and key.pem as gen-1; remove them once nothing else reads them"
        );
    }
    let found = disk::load(&credentials)?;
    Ok((credentials, found.expect("a pair was just made current")))
}

/// Makes a link a connection.
struct LinkMaker {
    broker: (String, u16),
    ca: PathBuf,
    settings: Settings,
}

impl LinkMaker {
    fn options(&self, files: PairFiles) -> mqtt::Options {
        let (host, port) = &self.broker;
        let subscriptions = self.settings.subscriptions();
        mqtt::Options {
            tls: Some(TlsFiles {
                ca: self.ca.clone(),
                certificate: files.certificate,
                key: files.key,
            }),
            subscriptions: subscriptions.map(|topic| (topic, Qos::AtLeastOnce)).to_vec(),
            ..mqtt::Options::new(host, *port, self.settings.thing.as_str())
        }
    }
}

struct Agent {
    child: Child,
    credentials: Arc<Credentials>,
    identity: Identity,
    exec: Option<String>,
    maker: LinkMaker,
    link: Option<(u64, Link)>,
    /// The message that is being handled, if it wants an ack on `link`.
    unacknowledged: Option<Delivery>,
    clock: Clock,
    terminate: Signal,
    interrupt: Signal,
}

/// What the agent waits for.
enum Woken {
    Ended,
    Due,
    Heard(Option<LinkEvent>),
}

impl Agent {
    fn new(
        options: Run,
        settings: Settings,
        credentials: Credentials,
        found: Found,
        maker: LinkMaker,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            clock: Clock::start(found.current.facts.not_before),
            child: Child::new(settings, found, fastrand::u64(..)),
            credentials: Arc::new(credentials),
            identity: Identity { thing: options.thing, key: options.key },
            exec: options.exec,
            maker,
            link: None,
            unacknowledged: None,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn run(&mut self) {
        self.feed(Event::Wake).await;
        loop {
            match self.wait().await {
                Woken::Ended => return tracing::info!("ends"),
                Woken::Due => self.feed(Event::Wake).await,
                Woken::Heard(event) => self.hear(event).await,
            }
        }
    }

    async fn wait(&mut self) -> Woken {
        let now = self.clock.now().tick;
        let due = self.child.next_wakeup().map(|tick| tick - now);
        let sleeping = async {
            match due {
                Some(pause) => sleep(pause).await,
                None => pending().await,
            }
        };
        let hearing = async {
            match &mut self.link {
                Some((_, link)) => link.events.recv().await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => Woken::Ended,
            _ = self.interrupt.recv() => Woken::Ended,
            event = hearing => Woken::Heard(event),
            () = sleeping => Woken::Due,
        }
    }

    async fn hear(&mut self, event: Option<LinkEvent>) {
        let Some(connection) = self.link.as_ref().map(|(connection, _)| *connection) else {
            return;
        };
        match event {
            Some(LinkEvent::Up { .. }) => self.feed(Event::Up { connection }).await,
            Some(LinkEvent::Message(message)) => {
                let (topic, payload, retain) = (message.topic, message.payload, message.retain);
                self.unacknowledged = message.delivery;
                self.feed(Event::Message { topic, payload, retain }).await;
                self.acknowledge().await;
            }
            Some(LinkEvent::Sent { mid, outcome: Ok(()) }) => {
                self.feed(Event::Published { mid }).await;
            }
            // The end of the connection tells the child to send it again, and the gateway repeats
            // what was shed.
            Some(LinkEvent::Sent { .. } | LinkEvent::Shed { .. }) => {}
            Some(LinkEvent::Down { why }) => self.down(connection, why).await,
            None => self.down(connection, "the link ended".to_owned()).await,
        }
    }

    async fn down(&mut self, connection: u64, why: String) {
        self.link = None;
        self.feed(Event::Down { connection, why }).await;
    }

    /// Acknowledges the message that was heard, on the link that it came on. What came of it is
    /// durable, or the child could not do it and the gateway asks again.
    async fn acknowledge(&mut self) {
        if let (Some((_, link)), Some(delivery)) = (&self.link, self.unacknowledged.take()) {
            // A link that is gone needs no ack: the broker delivers again.
            let _ = link.commands.send(LinkCommand::Ack(delivery)).await;
        }
    }

    /// Hands in an event, and does all that comes of it.
    async fn feed(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let mut effects = Vec::new();
            self.child.handle(self.clock.now(), event, &mut effects);
            for effect in effects {
                events.extend(self.perform(effect).await);
            }
        }
    }

    async fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Disk(job) => {
                let (credentials, identity) = (self.credentials.clone(), self.identity.clone());
                let job = move || disk::perform(&credentials, &identity, job);
                let done = tokio::task::spawn_blocking(job).await.expect("disk jobs do not panic");
                Some(Event::Disk(done))
            }
            Effect::Connect { connection, generation } => {
                self.acknowledge().await;
                self.link = None;
                let options = self.maker.options(self.credentials.files(generation));
                match mqtt::spawn(options) {
                    Ok(link) => self.link = Some((connection, link)),
                    Err(why) => return Some(Event::Down { connection, why: why.to_string() }),
                }
                None
            }
            Effect::Publish { mid, topic, payload } => {
                let publish = Publish { mid, topic, payload, qos: Qos::AtLeastOnce };
                if let Some((_, link)) = &self.link {
                    // A link that is gone reports its end, and then it is sent again.
                    let _ = link.commands.send(LinkCommand::Publish(publish)).await;
                }
                None
            }
            Effect::Tell(told) => {
                self.tell(&told);
                None
            }
        }
    }

    fn tell(&self, told: &Told) {
        match told {
            Told::Refused(..) | Told::RolledBack(_) | Told::DiskFailed(_) => {
                tracing::warn!("{told}");
            }
            _ => tracing::info!("{told}"),
        }
        if let (Told::Promoted { .. }, Some(command)) = (told, &self.exec) {
            tokio::spawn(execute(command.clone(), self.credentials.dir().to_owned()));
        }
    }
}

async fn execute(command: String, dir: PathBuf) {
    let mut process = Process::new("/bin/sh");
    process.arg("-c").arg(&command).env("CERTRELAY_DIR", dir).kill_on_drop(true);
    match timeout(EXEC_DEADLINE, process.status()).await {
        Ok(Ok(status)) if status.success() => tracing::info!("--exec is done"),
        Ok(Ok(status)) => tracing::warn!("--exec failed: {status}"),
        Ok(Err(why)) => tracing::warn!("--exec can't be run: {why}"),
        Err(_) => tracing::warn!("--exec took over {EXEC_DEADLINE:?} and was killed"),
    }
}

/// Both clocks. The wall clock is believed if it shows no time before this program was written, and
/// none before the certificate in use was issued.
struct Clock {
    start: Instant,
    guard: ClockGuard,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the agent's driver hands the core the time")]
    fn start(issued: Timestamp) -> Self {
        let mut guard = ClockGuard::new(ClockTrust::Auto, WRITTEN);
        guard.seen(issued);
        Self { start: Instant::now(), guard }
    }

    #[expect(clippy::disallowed_methods, reason = "the agent's driver hands the core the time")]
    fn now(&mut self) -> Now {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis);
        Now {
            tick: Tick(millis(self.start.elapsed())),
            wall: self.guard.judge(Timestamp(wall), None),
        }
    }
}
