//! A device whose own application holds its MQTT session and rotates its certificate on the side,
//! with [`certrelay::child`]. An agent beside it, under the same client id, would kick it off.

use std::{
    collections::VecDeque,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use certrelay::{
    child::{
        Child, Effect, Event, Settings,
        disk::{self, Identity},
    },
    install::{Credentials, PairFiles},
    keys::KeyKind,
    schedule::{Now, Tick, Timestamp},
    wire::ThingName,
};

use crate::support::peer::{Login, Peer};

/// How often it does what it is there for.
const TELEMETRY_EVERY: Duration = Duration::from_millis(500);

/// How it connects with a pair: the certificate's file and the key's.
pub type Connect = Box<dyn Fn(&Path, &Path) -> Login + Send + Sync>;

/// The application.
pub struct Application {
    settings: Settings,
    child: Child,
    credentials: Arc<Credentials>,
    identity: Identity,
    connect: Connect,
    session: Option<(u64, Peer)>,
    started: Instant,
}

impl Application {
    /// Takes the device's first pair from its folder.
    pub fn new(thing: ThingName, dir: &Path, connect: Connect) -> anyhow::Result<Self> {
        let credentials = disk::open(dir)?;
        let first = PairFiles { certificate: dir.join("cert.pem"), key: dir.join("key.pem") };
        credentials.adopt(&first)?;
        let found = disk::load(&credentials)?.context("a pair was just adopted")?;
        let settings = Settings::new(thing.clone(), "management/topic")?;
        Ok(Self {
            child: Child::new(settings.clone(), found, fastrand::u64(..)),
            settings,
            credentials: Arc::new(credentials),
            identity: Identity { thing, key: KeyKind::P256 },
            connect,
            session: None,
            started: Instant::now(),
        })
    }

    /// Works for ever.
    pub async fn run(mut self) {
        self.feed(Event::Wake).await;
        loop {
            let pause = self.child.next_wakeup().map_or(TELEMETRY_EVERY, |due| due - self.tick());
            let pause = pause.min(TELEMETRY_EVERY);
            match self.hear(pause).await {
                Some(event) => self.feed(event).await,
                None => {
                    self.feed(Event::Wake).await;
                    self.work().await;
                }
            }
        }
    }

    /// What the device is there for, on the one session that it has.
    async fn work(&mut self) {
        if let Some((connection, peer)) = &self.session {
            let topic = format!("telemetry/{}", self.identity.thing);
            if let Err(why) = peer.publish(&topic, "21.5").await {
                let connection = *connection;
                self.session = None;
                self.feed(Event::Down { connection, why }).await;
            }
        }
    }

    /// What comes over the session within `pause`.
    async fn hear(&mut self, pause: Duration) -> Option<Event> {
        let Some((connection, peer)) = &mut self.session else {
            tokio::time::sleep(pause).await;
            return None;
        };
        if let Some(message) = peer.receive(pause).await {
            let (topic, payload, retain) = (message.topic, message.payload, message.retain);
            return Some(Event::Message { topic, payload, retain });
        }
        if !peer.is_over() {
            return None;
        }
        let connection = *connection;
        self.session = None;
        Some(Event::Down { connection, why: "the broker has ended the session".to_owned() })
    }

    /// Hands the child an event, and does all that comes of it.
    async fn feed(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let mut effects = Vec::new();
            self.child.handle(self.now(), event, &mut effects);
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
                self.session = None;
                Some(match self.connect(self.credentials.files(generation)).await {
                    Ok(peer) => {
                        self.session = Some((connection, peer));
                        Event::Up { connection }
                    }
                    Err(why) => Event::Down { connection, why },
                })
            }
            Effect::Publish { mid, topic, payload } => {
                let (connection, peer) = self.session.as_ref()?;
                let connection = *connection;
                Some(match peer.publish(&topic, payload).await {
                    Ok(()) => Event::Published { mid },
                    Err(why) => Event::Down { connection, why },
                })
            }
            // An application would write this to its log.
            Effect::Tell(_) => None,
        }
    }

    async fn connect(&self, files: PairFiles) -> Result<Peer, String> {
        let PairFiles { certificate, key } = files;
        let peer = (self.connect)(&certificate, &key).persistent().connect().await?;
        for topic in self.settings.subscriptions() {
            peer.subscribe(&topic).await?;
        }
        Ok(peer)
    }

    fn tick(&self) -> Tick {
        Tick(millis(self.started.elapsed()))
    }

    fn now(&self) -> Now {
        Now { tick: self.tick(), wall: Some(wall_clock()) }
    }
}

/// The wall clock, which the demo trusts.
pub fn wall_clock() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp(since_1970.map_or(0, millis))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
