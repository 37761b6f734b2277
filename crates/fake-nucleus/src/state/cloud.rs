//! The link to the cloud: whether there is one, what is under way on it, what comes down.
//!
//! A frozen link is one that is dead and not yet found to be: what is sent on it vanishes, what
//! comes for it waits at the other end. Thawing it is finding out: it breaks, and is made anew.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};

use super::{State, note};
use crate::{
    Hub, Message, Mode, Qos, Settings, Upstream,
    credentials::{self, Loaded},
};

/// Commands that may wait for the broker's driver.
pub(crate) const COMMANDS: usize = 65_536;

/// What is sent to the cloud, each under a number for its acknowledgement.
#[derive(Debug)]
pub(crate) enum Command {
    Publish { id: u64, message: Message },
    Subscribe { id: u64, filter: String, qos: Qos },
    Unsubscribe { id: u64, filter: String },
}

/// What the broker's driver is to do; a new number means to connect anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wanted {
    pub is_wanted: bool,
    pub is_frozen: bool,
    pub number: u64,
    /// Which life: the first connect in one has no past.
    pub life: u64,
}

/// What a connect to a broker is made with.
#[derive(Debug, Clone)]
pub(crate) enum Pair {
    /// The broker wants none.
    None,
    /// This.
    Good(Loaded),
    /// The files are no good: there can be no connection.
    Bad,
}

#[derive(Debug)]
pub(super) struct Cloud {
    pub is_online: bool,
    pub is_frozen: bool,
    /// It was online at some time in this life.
    pub was_online: bool,
    /// There is to be a link …
    is_wanted: bool,
    /// … while the nucleus runs.
    is_running: bool,
    next_id: u64,
    /// Java: what the files held when the process started.
    pair: Pair,
    broker: Option<mpsc::Sender<Command>>,
    driver: watch::Sender<Wanted>,
    pub wake: Arc<Notify>,
}

impl Cloud {
    pub fn new(settings: &Settings) -> Self {
        Self {
            is_online: false,
            is_frozen: false,
            was_online: false,
            is_wanted: settings.online,
            is_running: false,
            next_id: 0,
            pair: Pair::None,
            broker: None,
            driver: watch::Sender::default(),
            wake: Arc::default(),
        }
    }

    /// A number for an acknowledgement.
    pub fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

impl State {
    /// A broker's driver is there.
    pub fn attach(&mut self) -> (mpsc::Receiver<Command>, watch::Receiver<Wanted>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        self.cloud.broker = Some(commands);
        (receiver, self.cloud.driver.subscribe())
    }

    /// Whether there is to be a link.
    pub fn want_link(&mut self, is_wanted: bool) {
        self.cloud.is_wanted = is_wanted;
        self.settle_link();
    }

    /// The process starts or ends.
    pub(super) fn run_link(&mut self, is_running: bool) {
        let cloud = &mut self.cloud;
        (cloud.is_running, cloud.was_online, cloud.is_frozen) = (is_running, false, false);
        self.settle_link();
    }

    /// The process starts, and the classic nucleus loads its credential, once.
    pub(super) fn load_pair(&mut self) {
        if self.mode() == Mode::Java {
            self.cloud.pair = self.read_pair();
        }
    }

    /// What to connect with now.
    pub fn pair(&mut self) -> Pair {
        match self.mode() {
            Mode::Java => self.cloud.pair.clone(),
            Mode::Lite => self.read_pair(),
        }
    }

    fn read_pair(&mut self) -> Pair {
        let Some(files) = self.settings.tls() else { return Pair::None };
        match credentials::load(files, self.mode()) {
            Ok(loaded) => Pair::Good(loaded),
            Err(why) => {
                note(&mut self.record.pair_faults, why);
                Pair::Bad
            }
        }
    }

    fn settle_link(&mut self) {
        let is_due = self.cloud.is_wanted && self.cloud.is_running;
        // A link that is taken away is noticed.
        self.cloud.is_frozen &= is_due;
        // The driver may be told of the next link before it has heard that this one is over.
        self.tell_driver(!is_due);
        if is_due {
            self.make_link();
        } else {
            self.lose_link();
        }
    }

    /// The link dies unnoticed, or is found to be dead and is made anew.
    pub fn freeze(&mut self, is_frozen: bool) {
        let has_thawed = self.cloud.is_frozen && !is_frozen;
        self.cloud.is_frozen = is_frozen;
        self.tell_driver(has_thawed);
        if has_thawed {
            self.lose_link();
            self.make_link();
        }
    }

    /// The driver has connected to the broker, with this certificate.
    pub fn broker_is_there(&mut self, session_present: bool, certificate: Option<[u8; 32]>) {
        if self.cloud.is_wanted && self.cloud.is_running {
            self.record.connects += 1;
            self.record.certificate = certificate;
            self.go_online(session_present);
        }
    }

    /// The driver has lost the broker.
    pub fn broker_is_gone(&mut self) {
        self.lose_link();
    }

    /// The cloud has acknowledged what was sent under a number, or refused it.
    pub fn acknowledged(&mut self, id: u64, is_granted: bool) {
        if !self.cloud.is_frozen {
            self.on_acknowledged(id, is_granted);
        }
    }

    /// Takes a few messages from the hub. Says whether there may be more.
    pub fn pull(&mut self) -> bool {
        for _ in 0..64 {
            if !self.cloud.is_online || self.cloud.is_frozen {
                return false;
            }
            let Some(hub) = self.hub() else { return false };
            let Some(message) = hub.next(&self.settings.thing_name) else { return false };
            self.on_downlink(&message);
        }
        true
    }

    /// Sends a command; on a frozen link it vanishes.
    pub(super) fn send_up(&mut self, command: Command) {
        if self.cloud.is_frozen {
            return;
        }
        match (self.hub(), &self.cloud.broker) {
            (Some(hub), _) => self.tell_hub(&hub, command),
            // A full queue is a link that loses things.
            (None, Some(broker)) => drop(broker.try_send(command)),
            (None, None) => {}
        }
    }

    /// The link breaks.
    pub(super) fn lose_link(&mut self) {
        if !self.cloud.is_online {
            return;
        }
        self.cloud.is_online = false;
        if let Some(hub) = self.hub() {
            hub.disconnect(&self.settings.thing_name);
        }
        self.on_offline();
    }

    /// Breaks the link and makes it anew: nobody outside asked for it.
    pub(super) fn renew_link(&mut self) {
        self.tell_driver(true);
        self.lose_link();
        self.make_link();
    }

    /// A broker's driver connects by itself; the hub is there at once.
    fn make_link(&mut self) {
        let is_due = self.cloud.is_wanted && self.cloud.is_running && !self.cloud.is_online;
        let Some(hub) = self.hub().filter(|_| is_due) else { return };
        let (me, wake) = (&self.settings.thing_name, &self.cloud.wake);
        let session_present = match (self.mode(), self.cloud.was_online) {
            (Mode::Java, true) => hub.connect(me, false, wake),
            (Mode::Java, false) => {
                hub.connect_afresh(me, wake);
                false
            }
            (Mode::Lite, _) => hub.connect(me, true, wake),
        };
        self.go_online(session_present);
        self.cloud.wake.notify_one();
    }

    fn go_online(&mut self, session_present: bool) {
        let is_first = !self.cloud.was_online;
        (self.cloud.is_online, self.cloud.was_online) = (true, true);
        self.on_online(is_first, session_present);
    }

    fn tell_driver(&mut self, is_renewed: bool) {
        let is_wanted = self.cloud.is_wanted && self.cloud.is_running;
        let (is_frozen, life) = (self.cloud.is_frozen, self.life);
        self.cloud.driver.send_modify(|wanted| {
            let number = wanted.number + u64::from(is_renewed);
            *wanted = Wanted { is_wanted, is_frozen, number, life };
        });
    }

    fn hub(&self) -> Option<Hub> {
        match &self.settings.upstream {
            Upstream::Hub(hub) => Some(hub.clone()),
            Upstream::Mqtt { .. } => None,
        }
    }

    fn tell_hub(&mut self, hub: &Hub, command: Command) {
        let me = self.settings.thing_name.clone();
        let timing = self.settings.timing;
        let (id, delay) = match command {
            Command::Publish { id, message } if self.mode() == Mode::Lite => {
                // One connection: it comes back no sooner than its acknowledgement.
                let hub = hub.clone();
                return self.after(timing.round_trip, move |state| {
                    state.acknowledged(id, true);
                    hub.accept(message);
                });
            }
            Command::Publish { id, message } => {
                hub.accept(message);
                (id, timing.round_trip)
            }
            Command::Subscribe { id, filter, qos } => {
                hub.subscribe(&me, &filter, qos);
                (id, timing.round_trip)
            }
            Command::Unsubscribe { id, filter } => {
                hub.unsubscribe(&me, &filter);
                (id, timing.unsubscribe)
            }
        };
        self.after(delay, move |state| state.acknowledged(id, true));
    }
}
