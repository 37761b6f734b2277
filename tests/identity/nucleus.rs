//! The nucleus: when it loads the configured pair, what tells its lives apart, and its link.

use certrelay::{identity::RunId, relay::CloudState, wire::CertificateId};

/// Which nucleus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Loads the pair at its start alone.
    Classic,
    /// Loads it at each connect.
    Lite,
}

/// What comes of the command that restarts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restarts {
    /// It comes in seconds.
    Work,
    /// It comes after so many minutes.
    Late(u64),
    /// The command fails.
    Fail,
    /// It restarts this component alone.
    WrongUnit,
    /// It ends well, and nothing happens.
    DoNothing,
}

/// The nucleus.
#[derive(Debug)]
pub struct Nucleus {
    pub kind: Kind,
    pub restarts: Restarts,
    boot: u32,
    booted: u64,
    starts: u32,
    tokens: u32,
    is_up: bool,
    /// What it uses.
    pub loaded: CertificateId,
    /// It is connected, for the how-manieth time.
    pub connected: Option<u32>,
    connects: u32,
    /// What can be known of its link here.
    pub link: CloudState,
    /// It does not connect, though it could.
    pub stays_away: bool,
    /// No message comes back to who sent it.
    pub no_loopback: bool,
}

impl Nucleus {
    /// A nucleus that has just started.
    pub fn new(kind: Kind, loaded: CertificateId) -> Self {
        Self {
            kind,
            restarts: Restarts::Work,
            boot: 0,
            booted: 0,
            starts: 1,
            tokens: 1,
            is_up: true,
            loaded,
            connected: None,
            connects: 0,
            link: CloudState::Down,
            stays_away: false,
            no_loopback: false,
        }
    }

    /// Which boot of the device this is.
    pub fn boot(&self) -> u32 {
        self.boot
    }

    /// Which start of it this is.
    pub fn start_no(&self) -> u32 {
        self.starts
    }

    /// It runs.
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// Its life, as a component sees it.
    pub fn run(&self) -> RunId {
        RunId {
            boot: format!("boot-{}", self.boot),
            token: format!("token-{}", self.tokens),
            socket: format!("socket-{}", self.starts),
        }
    }

    /// The device has no power.
    pub fn is_off(&self, now: u64) -> bool {
        now < self.booted
    }

    /// The time since the boot, in milliseconds.
    pub fn uptime(&self, now: u64) -> u64 {
        now - self.booted
    }

    /// It stops, and all components with it.
    pub fn stop(&mut self) {
        self.starts += 1;
        self.is_up = false;
        self.disconnect();
    }

    /// The device loses its power.
    pub fn cut(&mut self, now: u64) {
        self.stop();
        self.boot += 1;
        self.booted = now;
    }

    /// It starts, with the pair that is there.
    pub fn start(&mut self, configured: CertificateId) {
        self.is_up = true;
        self.tokens += 1;
        self.loaded = configured;
    }

    /// A component that is updated gets a new token in the same life.
    pub fn new_token(&mut self) {
        self.tokens += 1;
    }

    /// It connects.
    pub fn connect(&mut self) -> u32 {
        self.connects += 1;
        self.connected = Some(self.connects);
        self.link = CloudState::Unknown;
        self.connects
    }

    /// Its connection is gone.
    pub fn disconnect(&mut self) {
        self.connected = None;
        self.link = CloudState::Down;
    }
}
