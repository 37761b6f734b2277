//! What the relay tells of itself: counters, and a row for each child.

use std::collections::BTreeMap;

use super::{Child, Relay, Side, outbox::Slot, record::Stage};
use crate::{reason::Reason, schedule::Timestamp, wire::ThingName};

/// How often each thing was decided, since the process started. The side is the broker that the
/// cause came from; `None`: the gateway itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<(Option<Side>, Reason), u64>);

impl Counters {
    pub(super) fn count(&mut self, side: Option<Side>, reason: Reason) {
        self.count_many(side, reason, 1);
    }

    pub(super) fn count_many(&mut self, side: Option<Side>, reason: Reason, times: u64) {
        *self.0.entry((side, reason)).or_default() += times;
    }

    /// How often one thing was decided.
    pub fn of(&self, side: Option<Side>, reason: Reason) -> u64 {
        self.0.get(&(side, reason)).copied().unwrap_or_default()
    }

    /// All that were counted at least once.
    pub fn iter(&self) -> impl Iterator<Item = (Option<Side>, Reason, u64)> + '_ {
        self.0.iter().map(|((side, reason), count)| (*side, *reason, *count))
    }
}

/// One child, as `status` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row<'a> {
    /// The child.
    pub child: &'a ThingName,
    /// Where its rotation stands: [`Stage::name`].
    pub state: &'static str,
    /// Since when; `None`: no clock could be trusted.
    pub since: Option<Timestamp>,
    /// How often the message that the state waits on was sent by this process.
    pub attempts: u32,
    /// When the certificate that is held for the child expires, or else the one that it uses, as
    /// far as anyone said.
    pub not_after: Option<Timestamp>,
    /// What was decided last by this process.
    pub reason: Option<Reason>,
    /// The notices that the cloud may not have.
    pub notices: u8,
}

impl Child {
    fn row<'a>(&'a self, name: &'a ThingName) -> Row<'a> {
        let (attempts, held) = match &self.record.stage {
            Stage::AwaitCsr(_) => (self.live.to_child.attempts, None),
            Stage::AwaitCert(_) => (self.live.csr.attempts, None),
            Stage::AwaitAck(stage) => (self.live.to_child.attempts, Some(stage.not_after)),
            Stage::Done(_) => (0, None),
        };
        let outbox = &self.record.outbox;
        let notices = Slot::ALL.into_iter().filter(|slot| slot.notice(outbox).is_some());
        Row {
            child: name,
            state: self.record.stage.name(),
            since: self.record.stage.since().wall(),
            attempts,
            not_after: held.or(self.record.not_after),
            reason: self.live.reason,
            notices: notices.map(|_| 1).sum(),
        }
    }
}

impl Relay {
    /// A row for each child, in the order of their names.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let children = self.children.iter().filter(|(name, _)| **name != self.settings.core);
        children.map(|(name, child)| child.row(name))
    }

    /// The row of the core itself, if there is anything of it.
    pub fn core(&self) -> Option<Row<'_>> {
        let (name, core) = self.children.get_key_value(&self.settings.core)?;
        Some(core.row(name))
    }
}
