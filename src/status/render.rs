//! A snapshot as text for a terminal.
//!
//! Pure: the time and whether the gateway's process is alive are handed in. Whatever came from
//! outside is escaped, so that nothing in a snapshot can move a cursor.

use std::{
    collections::BTreeSet,
    fmt::{self, Write},
    time::Duration,
};

use super::{
    ClientDevices, CoreEnded, CoreFiles, CoreStatus, Counters, LinkKind, LinkState, LinkStatus,
    Nucleus, Row, RowState, STALE_AFTER, StatusSnapshot, Store, Summary,
};
use crate::{expiry::Expiry, install::Generation, schedule::Timestamp, wire::escape};

/// Whether a snapshot still says how things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It does.
    Fresh,
    /// The gateway ended in order after it.
    Ended,
    /// The process that wrote it is not alive here.
    ProcessGone,
    /// It was written this long ago.
    Stale(Duration),
}

impl Freshness {
    /// Judges a snapshot. `alive`: whether its process runs on this machine; `None`: unknown.
    pub fn of(summary: &Summary, now: Timestamp, alive: Option<bool>) -> Self {
        let age = now - summary.written_at;
        match alive {
            _ if summary.ended => Self::Ended,
            Some(false) => Self::ProcessGone,
            _ if age > STALE_AFTER => Self::Stale(age),
            _ => Self::Fresh,
        }
    }

    /// A warning for people; `None`: nothing is wrong.
    pub fn warning(self) -> Option<String> {
        const OLD: &str = "what follows is how things stood then";
        match self {
            Self::Fresh => None,
            Self::Ended => Some(format!("the gateway was stopped; {OLD}")),
            Self::ProcessGone => Some(format!(
                "the gateway does not run here any more: look into its log and start it; {OLD}"
            )),
            Self::Stale(age) => Some(format!(
                "the snapshot is {} old: the gateway does not run, or can't write its workDir; {OLD}",
                ago(age)
            )),
        }
    }
}

/// Writes the snapshot for a terminal.
pub fn render(
    out: &mut impl Write,
    snapshot: &StatusSnapshot,
    now: Timestamp,
    freshness: Freshness,
) -> fmt::Result {
    if let Some(warning) = freshness.warning() {
        writeln!(out, "WARNING: {warning}\n")?;
    }
    header(out, &snapshot.summary, now)?;
    if let Some(core) = &snapshot.summary.core_certificate {
        writeln!(out)?;
        render_core(out, core, now)?;
    }
    counters(out, &snapshot.summary)?;
    children(out, &snapshot.children, now)
}

fn header(out: &mut impl Write, summary: &Summary, now: Timestamp) -> fmt::Result {
    let clock = if summary.clock_trusted { "" } else { ", the clock was not trusted" };
    let written = ago(now - summary.written_at);
    let up = ago(summary.written_at - summary.started_at);
    let program = printable(&summary.program);
    writeln!(out, "gateway   {}, certrelay {program}, process {}", summary.core, summary.pid)?;
    writeln!(out, "started   {} ({up} before the snapshot)", summary.started_at)?;
    writeln!(out, "snapshot  {} ({written} ago{clock})", summary.written_at)?;
    nucleus(out, summary)?;
    settings(out, summary)?;
    writeln!(out, "local     {}", link(&summary.links.local, now))?;
    if summary.links.local.kind == LinkKind::Pubsub {
        writeln!(out, "          WARNING: {PUBSUB}")?;
    }
    writeln!(out, "cloud     {}", link(&summary.links.cloud, now))?;
    writeln!(out, "store     {}", store(&summary.store, now))?;
    let total: u64 = summary.totals.values().sum();
    let by_state: Vec<String> = RowState::ALL
        .iter()
        .map(|state| format!("{} {}", summary.totals.get(state).unwrap_or(&0), state.as_str()))
        .collect();
    writeln!(out, "children  {total}: {}", by_state.join(", "))?;
    match summary.expire_soon {
        None | Some(0) => Ok(()),
        Some(count) => writeln!(out, "expiry    WARNING: {count} expired, or within 30 days"),
    }
}

/// Writes how the core's own certificate stands.
pub fn render_core(out: &mut impl Write, core: &CoreStatus, now: Timestamp) -> fmt::Result {
    let stage = printable(&core.stage);
    write!(out, "core      {stage}{}", since(core.since, now))?;
    match &core.waits_for {
        None => writeln!(out)?,
        Some(what) => writeln!(out, ", waits for {}", printable(what))?,
    }
    if let Some(blocked) = &core.blocked {
        writeln!(out, "blocked   {}: {}", blocked.code, printable(&blocked.detail))?;
    }
    credential(out, core)?;
    if let Some(ended) = &core.ended {
        writeln!(out, "last      {}", last(ended, now))?;
    }
    if core.restarts_within_a_day > 0 {
        writeln!(out, "restarts  {} within a day", core.restarts_within_a_day)?;
    }
    core.flags.iter().try_for_each(|flag| writeln!(out, "flag      {flag}: {}", flag.explain()))
}

/// The pair in use.
fn credential(out: &mut impl Write, core: &CoreStatus) -> fmt::Result {
    if let Some(id) = &core.certificate {
        writeln!(out, "in use    {id}")?;
    }
    if let Some(until) = core.not_after {
        writeln!(out, "until     {}", expires(until, core.expiry))?;
    }
    if let Some(CoreFiles { certificate, key, source }) = &core.files {
        let shown = |path: &std::path::Path| printable(&path.to_string_lossy());
        writeln!(out, "cert      {}", shown(certificate))?;
        writeln!(out, "key       {}", shown(key))?;
        writeln!(out, "found by  {}", printable(source))?;
    }
    let kept = if core.keeps_old_pair { ", the pair before is kept" } else { "" };
    match core.generation {
        Some(Generation(number)) => writeln!(out, "pair      generation {number}{kept}"),
        None => writeln!(out, "pair      plain files{kept}"),
    }
}

fn last(ended: &CoreEnded, now: Timestamp) -> String {
    let when = ended.at.map_or_else(String::new, |at| format!(", {} ago", ago(now - at)));
    match &ended.failed {
        None => format!("ok{when}"),
        Some(why) => format!("FAILED{when}: {}: {}", why.code, printable(&why.detail)),
    }
}

fn expires(until: Timestamp, soon: Option<Expiry>) -> String {
    soon.map_or_else(|| until.to_string(), |soon| format!("{until} ({soon})"))
}

const PUBSUB: &str = "any component with a pubsub policy can speak for any child";

fn nucleus(out: &mut impl Write, summary: &Summary) -> fmt::Result {
    match summary.nucleus {
        None => {}
        Some(Nucleus::Classic) => writeln!(out, "nucleus   classic")?,
        Some(Nucleus::Lite) => writeln!(out, "nucleus   lite")?,
    }
    let says = match summary.client_devices {
        None => return Ok(()),
        Some(ClientDevices::Absent) => "absent",
        Some(ClientDevices::Accepts) => "accepts new certificates",
        Some(ClientDevices::Refuses) => {
            "REFUSES new certificates: is each child associated with this core?"
        }
        Some(ClientDevices::NotPermitted) => {
            "NOT PERMITTED: allow aws.greengrass.clientdevices.Auth in accessControl"
        }
        Some(ClientDevices::Fails) => "FAILS: look into its log",
    };
    writeln!(out, "auth      client device auth: {says}")
}

/// What stands in the way of the settings that somebody wanted.
fn settings(out: &mut impl Write, summary: &Summary) -> fmt::Result {
    if !summary.restart_needed.is_empty() {
        let keys: Vec<String> = summary.restart_needed.iter().map(|key| printable(key)).collect();
        writeln!(out, "settings  a restart is needed for {}", keys.join(", "))?;
    }
    let Some(why) = &summary.configuration_refused else { return Ok(()) };
    writeln!(out, "settings  REFUSED, those of before are in use:")?;
    let mut lines = why.lines().map(|line| printable(line.trim()));
    lines.try_for_each(|line| writeln!(out, "            {line}"))
}

fn link(link: &LinkStatus, now: Timestamp) -> String {
    let kind = match link.kind {
        LinkKind::Mqtt => "mqtt",
        LinkKind::Greengrass => "greengrass",
        LinkKind::Pubsub => "pubsub",
    };
    let state = match link.state {
        LinkState::Up => "up",
        LinkState::Down => "down",
        LinkState::Unknown => "unknown",
    };
    let state = format!("{kind}, {state}");
    let since = since(link.since, now);
    match (&link.why, link.state) {
        (None, _) => format!("{state}{since}"),
        (Some(why), LinkState::Up) => format!("{state}{since}; was down: {}", printable(why)),
        (Some(why), _) => format!("{state}{since}: {}", printable(why)),
    }
}

fn store(store: &Store, now: Timestamp) -> String {
    let mut text = match &store.failing {
        None => "ok".to_owned(),
        Some(failing) => {
            format!("FAILING{}: {}", since(failing.since, now), printable(&failing.why))
        }
    };
    if let Some(file) = &store.set_aside {
        text.push_str("; a damaged store was set aside as ");
        text.push_str(&printable(file));
    }
    text
}

fn counters(out: &mut impl Write, summary: &Summary) -> fmt::Result {
    let Counters { local, cloud, gateway } = &summary.counters;
    let reasons: BTreeSet<_> = local.keys().chain(cloud.keys()).chain(gateway.keys()).collect();
    if reasons.is_empty() {
        return Ok(());
    }
    let rows = reasons.iter().map(|reason| {
        let [local, cloud, gateway] = [local, cloud, gateway]
            .map(|side| side.get(reason).copied().unwrap_or_default().to_string());
        [reason.to_string(), local, cloud, gateway]
    });
    writeln!(out)?;
    table(out, ["reason", "local", "cloud", "gateway"], rows)
}

fn children(out: &mut impl Write, children: &[Row], now: Timestamp) -> fmt::Result {
    if children.is_empty() {
        return Ok(());
    }
    let rows = children.iter().map(|row| {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            row.child.to_string(),
            row.state.as_str().to_owned(),
            or_dash(row.since.map(|since| ago(now - since))),
            row.attempts.to_string(),
            or_dash(row.expires.map(|until| expires(until, row.expiry))),
            or_dash(row.reason.map(|reason| reason.to_string())),
            row.notices.to_string(),
        ]
    });
    writeln!(out)?;
    table(out, ["child", "state", "for", "tries", "certificate until", "reason", "notices"], rows)
}

/// Columns of equal width, two spaces apart; the last one is not padded.
fn table<const N: usize>(
    out: &mut impl Write,
    head: [&str; N],
    rows: impl Iterator<Item = [String; N]> + Clone,
) -> fmt::Result {
    let mut widths = head.map(str::len);
    for row in rows.clone() {
        for (width, cell) in widths.iter_mut().zip(&row) {
            *width = (*width).max(cell.len());
        }
    }
    line(out, &head, widths)?;
    for row in rows {
        line(out, &row, widths)?;
    }
    Ok(())
}

fn line<const N: usize>(
    out: &mut impl Write,
    cells: &[impl AsRef<str>; N],
    widths: [usize; N],
) -> fmt::Result {
    for (i, (cell, width)) in cells.iter().zip(widths).enumerate() {
        match i + 1 == N {
            true => writeln!(out, "{}", cell.as_ref())?,
            false => write!(out, "{:width$}  ", cell.as_ref())?,
        }
    }
    Ok(())
}

fn since(since: Option<Timestamp>, now: Timestamp) -> String {
    since.map_or_else(String::new, |since| format!(" for {}", ago(now - since)))
}

/// A duration to its two largest units, which is as much as anyone reads.
fn ago(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// Text that is printable already (links escape their reasons) is not escaped twice.
fn printable(text: &str) -> String {
    const LONGEST: usize = 256;
    match text.len() <= LONGEST && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        true => text.to_owned(),
        false => escape(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_shows_its_two_largest_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m 0s"),
            (3599, "59m 59s"),
            (3600, "1h 0m"),
            (86_399, "23h 59m"),
            (86_400, "1d 0h"),
            (90_061, "1d 1h"),
        ] {
            assert_eq!(ago(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn nothing_in_a_snapshot_can_move_the_cursor() {
        assert_eq!(printable("refused: \\n bad"), "refused: \\n bad");
        assert_eq!(printable("a\u{1b}[2Jb\n"), r"a\u{1b}[2Jb\n");
        assert_eq!(printable("\u{202e}x"), r"\u{202e}x");
        assert_eq!(printable(&"x".repeat(300)).len(), 256);
    }
}
