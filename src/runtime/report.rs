//! What people see: log lines, and the status snapshot.

use std::{collections::HashMap, path::Path, time::Duration};

use super::clock::Clock;
use crate::{
    config::{CloudLink, Config, ConfigError, LocalLink},
    expiry::{Expiry, Warning, Watch},
    reason::Reason,
    relay::{CloudState, Note, Relay, Side, Weight},
    schedule::{Tick, Timestamp},
    status::{
        self, ClientDevices, CoreStatus, Counters, LinkKind, LinkState, LinkStatus, Links, Nucleus,
        Row, RowState, Store, StoreFailing, Summary,
    },
    wire::ThingName,
};

/// A snapshot is written no more often than this, and a little less often for each child.
const SNAPSHOTS_APART: Duration = Duration::from_secs(1);

/// A snapshot is written at least so often, so that nobody takes us for dead.
const SNAPSHOTS_AT_LEAST: Duration = Duration::from_secs(30);

/// The most log lines of one reason in a second.
const LINES: u32 = 50;

/// Logs decisions: one line each, but no more of one kind than a person could use.
#[derive(Debug, Default)]
pub(super) struct Journal {
    lines: HashMap<Reason, Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    second: u64,
    written: u32,
    left_out: u64,
}

impl Journal {
    pub(super) fn log(&mut self, note: &Note, now: Tick) {
        let lines = self.lines.entry(note.reason).or_default();
        if lines.second != now.0 / 1000 {
            (lines.second, lines.written) = (now.0 / 1000, 0);
        }
        lines.written += 1;
        if lines.written > LINES {
            lines.left_out += 1;
            return;
        }
        let left_out = Some(std::mem::take(&mut lines.left_out)).filter(|count| *count > 0);
        // A field without a value is left out of the line.
        let child = note.child.as_ref().map(ThingName::as_str);
        let side = note.side.map(|side| side.to_string());
        let (state, reason) = (note.state, note.reason.as_str());
        let detail = note.detail.as_deref();
        match note.weight {
            Weight::Step => tracing::info!(child, state, reason, side, detail, left_out),
            Weight::Refused => tracing::warn!(child, state, reason, side, detail, left_out),
            Weight::Alarm => tracing::error!(child, state, reason, side, detail, left_out),
        }
    }
}

/// What the snapshot says beyond what the relay knows.
#[derive(Debug)]
pub(super) struct Report {
    core: ThingName,
    started_at: Timestamp,
    nucleus: Option<Nucleus>,
    needs_restart: Vec<&'static str>,
    refused: Option<String>,
    client_devices: Option<ClientDevices>,
    local: Standing,
    cloud: Standing,
    store: Store,
    watch: Watch,
    written: Option<Tick>,
    changed: bool,
}

/// How a link stands, since when, and why it was last down.
#[derive(Debug)]
struct Standing {
    kind: LinkKind,
    state: LinkState,
    since: Option<Timestamp>,
    why: Option<String>,
}

impl Standing {
    fn new(kind: LinkKind) -> Self {
        Self { kind, state: LinkState::Down, since: None, why: None }
    }

    fn set(&mut self, state: LinkState, wall: Option<Timestamp>) {
        if self.state != state {
            (self.state, self.since) = (state, wall);
        }
    }

    fn status(&self) -> LinkStatus {
        let Self { kind, state, since, .. } = *self;
        LinkStatus { kind, state, since, why: self.why.clone() }
    }
}

impl Report {
    pub(super) fn new(config: &Config, started_at: Timestamp) -> Self {
        let local = match config.local {
            LocalLink::Mqtt(_) => LinkKind::Mqtt,
            LocalLink::Pubsub => LinkKind::Pubsub,
        };
        let cloud = match config.cloud {
            CloudLink::Mqtt(_) => LinkKind::Mqtt,
            CloudLink::Greengrass => LinkKind::Greengrass,
        };
        Self {
            core: config.relay.core.clone(),
            started_at,
            nucleus: None,
            needs_restart: Vec::new(),
            refused: None,
            client_devices: None,
            local: Standing::new(local),
            cloud: Standing::new(cloud),
            store: Store::default(),
            watch: Watch::default(),
            written: None,
            changed: true,
        }
    }

    /// Something happened that the snapshot may show.
    pub(super) fn touch(&mut self) {
        self.changed = true;
    }

    /// A link went down, or could not connect.
    pub(super) fn down(&mut self, side: Side, why: String) {
        self.changed = true;
        match side {
            Side::Cloud => self.cloud.why = Some(why),
            Side::Local => self.local.why = Some(why),
        }
    }

    /// The store fails.
    pub(super) fn store_fails(&mut self, why: String, wall: Option<Timestamp>) {
        self.changed = true;
        let since = self.store.failing.as_ref().map_or(wall, |failing| failing.since);
        self.store.failing = Some(StoreFailing { since, why });
    }

    /// The store works.
    pub(super) fn store_works(&mut self) {
        self.changed |= self.store.failing.take().is_some();
    }

    /// A damaged store was set aside.
    pub(super) fn set_aside(&mut self, file: &Path) {
        self.store.set_aside = file.file_name().map(|name| name.to_string_lossy().into_owned());
    }

    /// How long until the next snapshot is due.
    pub(super) fn due_in(&self, now: Tick, children: usize) -> Duration {
        let Some(written) = self.written else { return Duration::ZERO };
        let apart = SNAPSHOTS_APART + Duration::from_millis(children as u64);
        let pause = if self.changed { apart } else { SNAPSHOTS_AT_LEAST.max(apart) };
        (written + pause) - now
    }

    /// Writes the snapshot. Returns who is to be warned of.
    pub(super) fn write(
        &mut self,
        dir: &Path,
        clock: &mut Clock,
        relay: Option<&Relay>,
        core: Option<CoreStatus>,
        ended: bool,
    ) -> Vec<Warning> {
        let now = clock.now();
        self.written = Some(now.tick);
        self.changed = false;
        self.observe(relay, now.wall);
        let soon = |until: Option<Timestamp>| Expiry::of(until?, now.wall?);
        let own = core.as_ref().and_then(|core| core.not_after);
        let core = core.map(|core| CoreStatus { expiry: soon(own), ..core });
        let devices = relay.into_iter().flat_map(Relay::rows);
        let known = devices.filter_map(|row| Some((row.child, row.not_after?)));
        let known: Vec<_> = known.chain(own.map(|until| (&self.core, until))).collect();
        let expire_soon = known.iter().filter(|(_, until)| soon(Some(*until)).is_some()).count();
        let warnings = now.wall.map(|wall| self.watch.look(wall, known)).unwrap_or_default();
        let summary = Summary {
            version: status::VERSION,
            written_at: clock.reading(),
            clock_trusted: now.wall.is_some(),
            ended,
            pid: std::process::id(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            core: self.core.clone(),
            nucleus: self.nucleus,
            restart_needed: self.needs_restart.iter().map(|key| (*key).to_owned()).collect(),
            configuration_refused: self.refused.clone(),
            client_devices: self.client_devices,
            core_certificate: core,
            expire_soon: now.wall.map(|_| expire_soon as u64),
            links: Links { local: self.local.status(), cloud: self.cloud.status() },
            store: self.store.clone(),
            counters: counters(relay),
            totals: totals(relay),
        };
        let rows = relay.into_iter().flat_map(Relay::rows).filter_map(row);
        let rows = rows.map(|row| Row { expiry: soon(row.expires), ..row });
        if let Err(error) = status::write(dir, &summary, rows) {
            tracing::warn!(%error, "the status snapshot can't be written");
        }
        warnings
    }

    fn observe(&mut self, relay: Option<&Relay>, wall: Option<Timestamp>) {
        let local = match relay.map(Relay::local_state) {
            Some((true, true)) => LinkState::Up,
            Some((true, false)) => LinkState::Unknown,
            Some((false, _)) | None => LinkState::Down,
        };
        let cloud = match relay.map(Relay::cloud_state) {
            Some(CloudState::Up) => LinkState::Up,
            Some(CloudState::Unknown) => LinkState::Unknown,
            Some(CloudState::Down) | None => LinkState::Down,
        };
        self.local.set(local, wall);
        self.cloud.set(cloud, wall);
    }
}

impl Report {
    /// The gateway runs under this nucleus.
    pub(super) fn nucleus(&mut self, nucleus: Nucleus) {
        self.changed = true;
        self.nucleus = Some(nucleus);
    }

    /// New settings were taken, but for those that wait for a restart.
    pub(super) fn configured(&mut self, needs_restart: Vec<&'static str>) {
        self.changed = true;
        (self.needs_restart, self.refused) = (needs_restart, None);
    }

    /// New settings were refused: those of before are in use.
    pub(super) fn refused(&mut self, why: &ConfigError) {
        self.changed = true;
        self.refused = Some(why.to_string());
    }

    /// Client device auth was asked about a certificate.
    pub(super) fn client_devices(&mut self, says: ClientDevices) {
        self.changed |= self.client_devices.replace(says) != Some(says);
    }
}

fn row(row: crate::relay::Row<'_>) -> Option<Row> {
    Some(Row {
        child: row.child.clone(),
        state: RowState::ALL.into_iter().find(|state| state.as_str() == row.state)?,
        since: row.since,
        attempts: row.attempts,
        expires: row.not_after,
        expiry: None,
        reason: row.reason,
        notices: row.notices,
    })
}

fn totals(relay: Option<&Relay>) -> std::collections::BTreeMap<RowState, u64> {
    let mut totals: std::collections::BTreeMap<RowState, u64> =
        RowState::ALL.into_iter().map(|state| (state, 0)).collect();
    for row in relay.into_iter().flat_map(Relay::rows).filter_map(row) {
        *totals.entry(row.state).or_default() += 1;
    }
    totals
}

fn counters(relay: Option<&Relay>) -> Counters {
    let mut counters = Counters::default();
    for (side, reason, count) in relay.into_iter().flat_map(|relay| relay.counters().iter()) {
        let of = match side {
            Some(Side::Cloud) => &mut counters.cloud,
            Some(Side::Local) => &mut counters.local,
            None => &mut counters.gateway,
        };
        of.insert(reason, count);
    }
    counters
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{config::testing, schedule::ClockTrust};

    /// What a snapshot says after each of the steps.
    fn told(steps: &[&dyn Fn(&mut Report)]) -> Vec<Summary> {
        let dir = tempfile::tempdir().expect("a directory");
        let config = json!({"local": {"link": "pubsub"}});
        let config = Config::from_greengrass(config, &testing::machine()).expect("valid");
        let mut clock = Clock::start(ClockTrust::Never);
        let mut report = Report::new(&config, clock.reading());
        let mut tell = |step: &&dyn Fn(&mut Report)| {
            report.write(dir.path(), &mut clock, None, None, false);
            step(&mut report);
            assert!(report.due_in(clock.tick(), 0) <= SNAPSHOTS_APART, "it is told soon");
            report.write(dir.path(), &mut clock, None, None, false);
            status::read(dir.path()).expect("written").summary
        };
        steps.iter().map(&mut tell).collect()
    }

    #[test]
    fn what_became_of_new_settings_is_told_until_there_are_others() {
        let bad = Config::from_greengrass(json!({"log": 1}), &testing::machine()).expect_err("bad");
        let summaries = told(&[
            &|report| report.configured(vec!["log.format"]),
            &|report| report.refused(&bad),
            &|report| report.configured(vec![]),
        ]);
        let says: Vec<_> = summaries
            .iter()
            .map(|s| (s.restart_needed.len(), s.configuration_refused.clone()))
            .collect();
        assert_eq!(says, [(1, None), (1, Some(bad.to_string())), (0, None)]);
    }

    #[test]
    fn the_nucleus_and_what_is_under_it_are_told() {
        let lite: &dyn Fn(&mut Report) = &|report| report.nucleus(Nucleus::Lite);
        let refuses = &|report: &mut Report| report.client_devices(ClientDevices::Refuses);
        let summaries = told(&[lite, refuses]);
        assert_eq!(summaries[0].nucleus, Some(Nucleus::Lite));
        assert_eq!(summaries[1].client_devices, Some(ClientDevices::Refuses));
        let Links { local, cloud } = &summaries[1].links;
        assert_eq!((local.kind, cloud.kind), (LinkKind::Pubsub, LinkKind::Greengrass));
    }
}
