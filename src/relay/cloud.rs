//! The state of the link to the cloud, as far as evidence goes, and how much may be handed to it.
//!
//! A publish that succeeds proves nothing: a nucleus says yes to what is only in its memory. The
//! link is up when something came through it lately: a downlink, or a message of our own. A link that
//! takes probes and returns none may have lost its subscriptions: it is told to connect anew. That
//! the probes return says nothing of the other subscriptions, which a nucleus may have lost alone:
//! they are renewed from time to time, whatever comes through.

use std::{collections::HashMap, num::NonZeroU32, time::Duration};

use super::{
    child::new_mid,
    event::{Content, Effect, Outgoing, Side},
    pace::{Rate, Recent},
    settings::Settings,
};
use crate::{
    links::Qos,
    schedule::{Backoff, Tick},
    wire::{Mid, ThingName, probe_topic},
};

/// A probe that did not come back in this time is lost; sooner where probes are sent often.
const PROBE_RETURNS: Duration = Duration::from_secs(30);

/// No probe is given up before this.
const PROBE_RETURNS_AT_LEAST: Duration = Duration::from_secs(2);

/// So many probes lost in a row, and nothing heard since the first, make a link deaf.
const DEAF: u32 = 2;

/// Pauses between the cures of a link that stays deaf, never under ten minutes with the jitter: where
/// the loopback is forbidden no cure helps.
const CURES: Backoff =
    Backoff { first: Duration::from_secs(800), longest: Duration::from_secs(6 * 3600) };

/// When the subscriptions of a new connection are renewed: the classic nucleus loses those that were
/// asked for before an earlier process's UNSUBACK, which has come by then unless the link is bad.
const FIRST_RENEWAL: Duration = Duration::from_secs(10);

/// How often they are renewed after that.
const RENEWAL: Duration = Duration::from_secs(3600);

/// The first pause between probes of a link of which nothing is known.
const FIRST_PROBE: Duration = Duration::from_secs(5);

/// What is handed to a link of which nothing is known: one message a second, two outstanding.
const SLOW: (NonZeroU32, usize) = (NonZeroU32::MIN, 2);

/// So many signatures are checked at once: what waits for its check is in memory.
const CHECKS: usize = 64;

/// What is known of the link to the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloudState {
    /// Nothing can be sent.
    Down,
    /// Messages can be sent; whether they arrive nobody knows.
    Unknown,
    /// Something came through lately.
    Up,
}

impl CloudState {
    /// The stable word for logs and `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Unknown => "unknown",
            Self::Up => "up",
        }
    }
}

#[derive(Debug)]
pub(super) struct Cloud {
    pub state: CloudState,
    /// The driver has a connection, whatever that is worth.
    connected: bool,
    /// When something last came through.
    heard: Option<Tick>,
    probe: Option<Probe>,
    probes: u32,
    next_probe: Option<Tick>,
    /// Probes that were lost since something came through.
    lost: u32,
    /// How often it was told to connect anew since something came through.
    cures: u32,
    /// It is not told so again before then.
    next_cure: Option<Tick>,
    /// When the subscriptions are renewed next; `None`: there are none.
    next_renewal: Option<Tick>,
    rate: Rate,
    /// How many signatures are being checked.
    pub checking: usize,
    /// The copies that nothing has answered, and whose they are.
    pub out: HashMap<Mid, ThingName>,
    /// The messages that went to the cloud lately; one that comes back from the floor is a loop.
    pub recent: Recent,
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    nonce: Mid,
    sent: Tick,
}

impl Cloud {
    pub fn new() -> Self {
        Self {
            state: CloudState::Down,
            connected: false,
            heard: None,
            probe: None,
            probes: 0,
            next_probe: None,
            lost: 0,
            cures: 0,
            next_cure: None,
            next_renewal: None,
            rate: Rate::default(),
            checking: 0,
            out: HashMap::new(),
            recent: Recent::default(),
        }
    }

    /// The driver is connected.
    pub fn on_connected(&mut self, now: Tick) {
        self.connected = true;
        self.next_renewal = Some(now + FIRST_RENEWAL);
        self.doubt(now);
    }

    /// The driver is not connected.
    pub fn on_disconnected(&mut self) {
        self.connected = false;
        self.state = CloudState::Down;
        (self.probe, self.next_probe, self.next_renewal) = (None, None, None);
    }

    /// The link refused a message as being offline.
    pub fn on_refused(&mut self, now: Tick, settings: &Settings, rng: &mut fastrand::Rng) {
        self.state = CloudState::Down;
        self.probe = None;
        if self.connected {
            self.probes = self.probes.max(1);
            self.next_probe = Some(now + probe_backoff(settings).pause(self.probes, rng));
        }
    }

    /// Something came through. Returns whether the link has come up by it.
    pub fn on_evidence(&mut self, now: Tick, settings: &Settings) -> bool {
        self.heard = Some(now);
        (self.probes, self.lost, self.cures) = (0, 0, 0);
        self.next_probe = Some(now + settings.probe_interval);
        std::mem::replace(&mut self.state, CloudState::Up) != CloudState::Up
    }

    /// Whether a message is the probe that is out; then it is not any more.
    pub fn is_probe(&mut self, payload: &[u8]) -> bool {
        let nonce = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok());
        self.probe.take_if(|probe| nonce == Some(probe.nonce)).is_some()
    }

    fn doubt(&mut self, now: Tick) {
        self.state = CloudState::Unknown;
        (self.probe, self.probes, self.lost) = (None, 0, 0);
        self.next_probe = Some(now);
    }

    /// Does what it is time for.
    pub fn on_time(
        &mut self,
        now: Tick,
        settings: &Settings,
        rng: &mut fastrand::Rng,
    ) -> impl Iterator<Item = Effect> + use<> {
        let renewal = self.renew(now);
        renewal.into_iter().chain(self.examine(now, settings, rng))
    }

    fn renew(&mut self, now: Tick) -> Option<Effect> {
        self.next_renewal.take_if(|due| *due <= now)?;
        self.next_renewal = Some(now + RENEWAL);
        Some(Effect::Renew(Side::Cloud))
    }

    /// Sends a probe if it is time, doubts a link that does not return one, and has a deaf one cured.
    fn examine(
        &mut self,
        now: Tick,
        settings: &Settings,
        rng: &mut fastrand::Rng,
    ) -> Option<Effect> {
        let patience = probe_returns(settings);
        if let Some(lost) = self.probe.take_if(|probe| now - probe.sent >= patience)
            && self.on_lost(now, lost, rng)
        {
            return Some(Effect::Reconnect(Side::Cloud));
        }
        if self.probe.is_some() || self.next_probe.is_none_or(|due| due > now) {
            return None;
        }
        let nonce = new_mid(rng);
        self.probe = Some(Probe { nonce, sent: now });
        self.probes = self.probes.saturating_add(1);
        let pause = probe_backoff(settings).pause(self.probes, rng);
        self.next_probe = Some(now + patience + pause);
        Some(Effect::Publish(
            Side::Cloud,
            Outgoing {
                copy: nonce,
                topic: probe_topic(&settings.core),
                qos: Qos::AtMostOnce,
                content: Content::Ready(nonce.to_string().into_bytes()),
            },
        ))
    }

    /// A probe was taken and did not come back. Returns whether the link is to be cured.
    fn on_lost(&mut self, now: Tick, lost: Probe, rng: &mut fastrand::Rng) -> bool {
        if self.heard.is_some_and(|heard| heard > lost.sent) {
            return false;
        }
        if self.state == CloudState::Up {
            self.state = CloudState::Unknown;
        }
        self.lost = self.lost.saturating_add(1);
        if self.lost < DEAF || self.next_cure.is_some_and(|next| next > now) {
            return false;
        }
        self.lost = 0;
        self.cures = self.cures.saturating_add(1);
        self.next_cure = Some(now + CURES.pause(self.cures, rng));
        true
    }

    /// Draws the time of the next probe anew if it is further away than the settings put it.
    pub fn draw_anew(&mut self, now: Tick, settings: &Settings, rng: &mut fastrand::Rng) {
        let longest = probe_returns(settings) + settings.probe_interval;
        if self.next_probe.is_some_and(|due| due > now + longest) {
            let pauses = Backoff { first: settings.probe_interval, ..probe_backoff(settings) };
            self.next_probe = Some(now + pauses.pause(1, rng));
        }
    }

    fn limits(&self, settings: &Settings) -> (Option<NonZeroU32>, usize) {
        match self.state {
            CloudState::Up => (settings.messages_per_second, settings.unconfirmed),
            CloudState::Unknown | CloudState::Down => {
                (Some(SLOW.0), SLOW.1.min(settings.unconfirmed))
            }
        }
    }

    /// Whether a message may go now.
    pub fn is_free(&self, now: Tick, settings: &Settings) -> bool {
        let (per_second, most) = self.limits(settings);
        self.has_room(most) && per_second.is_none_or(|rate| self.rate.next(rate) <= now)
    }

    /// A message goes.
    pub fn take(&mut self, now: Tick, settings: &Settings) {
        if let Some(rate) = self.limits(settings).0 {
            self.rate.take(rate, now);
        }
    }

    fn has_room(&self, most: usize) -> bool {
        self.state != CloudState::Down && self.out.len() < most && self.checking < CHECKS
    }

    /// When a message that waits may go, if only time stands in the way.
    pub fn next_free(&self, settings: &Settings) -> Option<Tick> {
        let (per_second, most) = self.limits(settings);
        per_second.filter(|_| self.has_room(most)).map(|rate| self.rate.next(rate))
    }

    /// When [`Self::on_time`] has something to do.
    pub fn next_wakeup(&self, settings: &Settings) -> Option<Tick> {
        let probe = match self.probe {
            Some(probe) => Some(probe.sent + probe_returns(settings)),
            None => self.next_probe,
        };
        [probe, self.next_renewal].into_iter().flatten().min()
    }
}

fn probe_returns(settings: &Settings) -> Duration {
    (settings.probe_interval / 4).clamp(PROBE_RETURNS_AT_LEAST, PROBE_RETURNS)
}

fn probe_backoff(settings: &Settings) -> Backoff {
    Backoff { first: FIRST_PROBE.min(settings.probe_interval), longest: settings.probe_interval }
}
