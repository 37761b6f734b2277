//! What goes on around the process by itself: connections, what the cloud hears, restarts; and how
//! all of it ends well.

use certrelay::{
    identity::{Command, Conditions, Done, Event, Stage},
    reason::Reason,
};

use crate::{
    cloud::Uplink,
    nucleus::{Kind, Restarts},
    relay::Stage as Relayed,
    world::{Act, Clock, DAY, MINUTE, Process, SECOND, World, failed},
};

impl World {
    /// What changes by itself: connections that the cloud ends, and what the process hears of it.
    pub fn watch(&mut self) {
        let is_taken = self.cloud.reachable && self.cloud.takes(self.nucleus.loaded);
        if self.nucleus.connected.is_some() && !is_taken {
            self.nucleus.disconnect();
            let after = self.rng.u64(SECOND..MINUTE);
            self.later(after, Act::Reconnect(self.nucleus.start_no()));
        }
        let conditions = Conditions {
            nucleus: self.nucleus.is_up(),
            link: self.nucleus.link,
            deployment: self.deployment,
            window: self.window && self.clock != Clock::Unknown,
        };
        let process = self.process.as_mut().filter(|process| process.subscribed);
        if let Some(process) = process.filter(|process| process.conditions != conditions) {
            process.conditions = conditions;
            self.hand(Event::Conditions(conditions));
        }
    }

    pub fn reconnect(&mut self, no: u32) {
        let is_away = self.nucleus.stays_away;
        if !self.nucleus.is_up() || self.nucleus.connected.is_some() || is_away {
            return;
        }
        if self.nucleus.kind == Kind::Lite {
            let configured = self.disk.configured().1.facts.id;
            self.nucleus.loaded = configured;
            self.cloud.on_loaded(configured);
        }
        if self.cloud.reachable && self.cloud.takes(self.nucleus.loaded) {
            let connection = self.nucleus.connect();
            let after = self.rng.u64(SECOND..MINUTE);
            self.later(after, Act::LinkUp(connection));
        } else if self.cloud.reachable {
            let after = self.rng.u64(30 * SECOND..5 * MINUTE);
            self.later(after, Act::Reconnect(no));
        }
    }

    /// The network comes or goes.
    pub fn set_reachable(&mut self, reachable: bool) {
        self.cloud.reachable = reachable;
        if reachable {
            let after = self.rng.u64(SECOND..5 * MINUTE);
            self.later(after, Act::Reconnect(self.nucleus.start_no()));
        }
    }

    pub fn send_up(&mut self) {
        self.relay.up_due = Some(self.now + 5 * MINUTE);
        if self.nucleus.connected.is_none() {
            return;
        }
        for uplink in std::mem::take(&mut self.relay.up) {
            match uplink {
                Uplink::Csr(csr, rotation) => {
                    let leaf = self.cloud.hear_csr(&csr);
                    let after = self.rng.u64(SECOND..30 * SECOND);
                    self.later(after, Act::Issued(leaf));
                    if matches!(self.relay.stage, Relayed::AwaitCert(_)) {
                        self.relay.up.push(Uplink::Csr(csr, rotation));
                    }
                }
                Uplink::Ack(certificate) => {
                    self.cloud.hear_ack(certificate);
                    if self.cloud.settles {
                        let after = self.rng.u64(SECOND..MINUTE);
                        self.later(after, Act::Settled(certificate));
                    }
                }
                Uplink::Err { code, certificate, ends } => {
                    if code == "late-certificate" {
                        // Another certificate is wanted than that in use.
                        self.cloud.forget_issued();
                        self.later(MINUTE, Act::Do(Self::ask));
                    }
                    self.cloud.hear_error(code, certificate, ends);
                }
            }
        }
        if self.relay.up.is_empty() {
            self.relay.up_due = None;
        }
    }

    /// Another client of the same name takes the place of the nucleus.
    pub fn push_off(&mut self) {
        self.nucleus.disconnect();
        let after = self.rng.u64(SECOND..MINUTE);
        self.later(after, Act::Reconnect(self.nucleus.start_no()));
    }

    pub fn do_restart(&mut self) -> Done {
        self.witness.restarts.push(self.now);
        match self.nucleus.restarts {
            Restarts::Work => {
                let after = self.rng.u64(SECOND..20 * SECOND);
                self.later(after, Act::RestartNucleus(self.nucleus.boot()));
            }
            Restarts::Late(minutes) => {
                self.later(minutes * MINUTE, Act::RestartNucleus(self.nucleus.boot()));
            }
            Restarts::Fail => return failed(Reason::CannotRestart),
            Restarts::WrongUnit => self.later(2 * SECOND, Act::Do(Self::restart_component)),
            Restarts::DoNothing => {}
        }
        Done::Asked
    }

    /// Messages come back to who sent them.
    pub fn permit_loopback(&mut self) {
        self.nucleus.no_loopback = false;
        if let Some(connection) = self.nucleus.connected {
            self.later(MINUTE, Act::LinkUp(connection));
        }
    }

    /// All that is around it works again.
    pub fn heal(&mut self) {
        self.set_reachable(true);
        (self.cloud.tls_trouble, self.cloud.refuses_all) = (false, false);
        (self.cloud.turns, self.cloud.refuses_new) = (false, false);
        self.permit_loopback();
        (self.window, self.deployment, self.clock) = (true, false, Clock::True);
        self.nucleus.restarts = Restarts::Work;
        (self.disk.fail, self.disk.unreadable) = (0, false);
        self.cut = None;
    }

    /// Whether a rotation has come to its end, everywhere.
    pub fn is_at_rest(&self) -> bool {
        let idle = |process: &Process| {
            let stage = &process.identity.saved().stage;
            // A key may go on waiting for a certificate that the cloud has taken back.
            matches!(stage, Stage::Idle | Stage::AwaitCertificate(_)) && !process.has_job
        };
        self.relay.is_at_rest()
            && self.process.as_ref().is_some_and(idle)
            && self.nucleus.connected.is_some()
    }

    /// All comes to its end in a few days, and the nucleus is connected with the pair on disk.
    pub fn must_settle(&mut self) {
        let has_settled = self.run_until(4 * DAY, Self::is_at_rest);
        let process = self.process.as_ref().map(|process| process.identity.saved());
        let trail = self.witness.last();
        assert!(
            has_settled,
            "not at rest after days: {process:?}\n{:?} link {:?}\n{trail}",
            self.relay.stage, self.nucleus.link
        );
        let configured = self.disk.configured().1.facts.id;
        assert_eq!(self.nucleus.loaded, configured, "the nucleus runs what is configured\n{trail}");
        assert!(self.cloud.takes(configured), "the cloud takes it\n{trail}");
        let ended =
            self.cloud.acked.contains(&configured) || self.cloud.errors.iter().any(|error| error.2);
        assert!(
            ended || self.cloud.csrs == 0 || self.cloud.withdrew,
            "the cloud knows how it ended\n{trail}"
        );
    }

    /// Somebody rolls back by hand, before the cloud has given the old pair up.
    pub fn roll_back_while_it_is_safe(&mut self) {
        let stage = self.process.as_ref().map(|process| process.identity.saved().stage.clone());
        let is_acked = self.disk.current().is_some()
            && self.cloud.acked.contains(&self.disk.configured().1.facts.id);
        if !is_acked && stage.is_some_and(|stage| stage != Stage::Idle) {
            self.command(Command::Rollback);
        }
    }
}
