//! Whose time has come, and who may send: the agenda and the two queues.
//!
//! A child stands in the agenda at the time when something of it comes due, and in a queue while
//! something of it is due and the link does not take it. So work waits without being looked at.

use std::collections::BTreeSet;

use super::{
    Effect, Note, Outcome, Relay, Weight, Write,
    due::{Fate, Trial},
    local::WINDOW,
};
use crate::{
    links::ConnectionId,
    reason::Reason,
    schedule::{Now, Tick},
    wire::{CsrReq, ThingName},
};

impl Relay {
    /// Does all that is due: timers, probe and barrier, then messages as far as the links take them.
    pub(super) fn advance(&mut self, now: Now, out: &mut Outcome) {
        while let Some(name) = self.pop_due(now.tick) {
            self.on_child_time(now, &name, out);
        }
        let link = self.cloud.on_time(now.tick, &self.settings, &mut self.rng);
        let barrier = self.local.on_time(now.tick, &self.settings.core, &mut self.rng);
        out.then.extend(link.chain(barrier));
        self.pump_core(now, out);
        // The floor first: a certificate that is to be confirmed makes work for the cloud.
        self.pump_floor(now, out);
        self.pump_cloud(now, out);
    }

    fn pop_due(&mut self, now: Tick) -> Option<ThingName> {
        let (_, name) = self.agenda.first().filter(|(due, _)| *due <= now)?;
        let name = name.clone();
        self.agenda.pop_first();
        match (self.children.get_mut(&name), self.trials.get_mut(&name)) {
            (Some(child), _) => child.live.agenda = None,
            (None, Some(trial)) => trial.agenda = None,
            (None, None) => {}
        }
        Some(name)
    }

    fn on_child_time(&mut self, now: Now, name: &ThingName, out: &mut Outcome) {
        if let Some(trial) = self.trials.get(name) {
            match now.tick - trial.since >= Trial::LONGEST {
                true => self.end_trial(name),
                false => self.reschedule(name, now),
            }
            return;
        }
        let fate = self.with_child(now, name, out, |child, scene| child.on_time(scene));
        if fate == Some(Fate::Forget) {
            self.unschedule(name);
            self.children.remove(name);
            out.writes.push(Write::Forget(name.clone()));
        }
    }

    fn pump_cloud(&mut self, now: Now, out: &mut Outcome) {
        let link_is_up = self.cloud.state == super::CloudState::Up;
        while !self.to_cloud.is_empty() && self.cloud.is_free(now.tick, &self.settings) {
            let Some((_, name)) = self.to_cloud.first().cloned() else { return };
            let effect = self.with_child(now, &name, out, |child, scene| {
                let item = child.cloud_item(now.tick)?;
                child.send_cloud(scene, item, link_is_up)
            });
            if let Some(effect) = effect.flatten() {
                self.on_going_up(now, name, &effect);
                out.then.push(effect);
            }
        }
    }

    fn on_going_up(&mut self, now: Now, name: ThingName, effect: &Effect) {
        match effect {
            Effect::Publish(_, outgoing) => {
                self.cloud.take(now.tick, &self.settings);
                self.cloud.recent.extend(outgoing.content.mid());
                self.cloud.out.insert(outgoing.copy, name);
            }
            Effect::Verify { .. } => self.cloud.checking += 1,
            Effect::Ack(..)
            | Effect::Core(_)
            | Effect::Reconnect(_)
            | Effect::Renew(_)
            | Effect::Note(_) => {}
        }
    }

    /// The core itself needs no link to hear what is for it.
    fn pump_core(&mut self, now: Now, out: &mut Outcome) {
        if !std::mem::take(&mut self.core_is_due) {
            return;
        }
        let core = self.settings.core.clone();
        let cloud_is_up = self.cloud.state == super::CloudState::Up;
        let effect =
            self.with_child(now, &core, out, |core, scene| core.send_core(scene, cloud_is_up));
        out.then.extend(effect.flatten());
    }

    fn pump_floor(&mut self, now: Now, out: &mut Outcome) {
        while !self.to_floor.is_empty() {
            let Some(connection) = self.local.free() else { return };
            let Some((_, name)) = self.to_floor.first().cloned() else { return };
            if let Some((copy, effect)) = self.send_to_floor(now, &name, connection, out) {
                self.local.recent.extend([copy]);
                self.local.out.insert(copy, name);
                out.then.push(effect);
            }
            debug_assert!(self.local.out.len() <= WINDOW);
        }
    }

    fn send_to_floor(
        &mut self,
        now: Now,
        name: &ThingName,
        connection: ConnectionId,
        out: &mut Outcome,
    ) -> Option<(crate::wire::Mid, Effect)> {
        if let Some(trial) = self.trials.get_mut(name) {
            let sent = trial.send(name, &self.settings, now.tick, &mut self.rng);
            self.reschedule(name, now);
            return Some(sent);
        }
        let cloud_is_up = self.cloud.state == super::CloudState::Up;
        self.with_child(now, name, out, |child, scene| {
            child.send_local(scene, connection, cloud_is_up)
        })
        .flatten()
    }

    /// Plans anew when a child's, or trial's, time comes and what of it is due.
    pub(super) fn reschedule(&mut self, name: &ThingName, now: Now) {
        if let Some(child) = self.children.get_mut(name) {
            let agenda = child.next_tick(now, &self.settings);
            let (cloud, mut local) = (child.cloud_rank(now.tick), child.local_rank(now.tick));
            if *name == self.settings.core {
                self.core_is_due = local.take().is_some();
            }
            let live = &mut child.live;
            replan(&mut self.agenda, &mut live.agenda, agenda, name);
            replan(&mut self.to_cloud, &mut live.cloud_rank, cloud, name);
            replan(&mut self.to_floor, &mut live.local_rank, local, name);
        } else if let Some(trial) = self.trials.get_mut(name) {
            let end = trial.since + Trial::LONGEST;
            let wake = trial.to_child.wake();
            let agenda = wake.filter(|due| *due > now.tick).map_or(end, |due| due.min(end));
            let local = wake.filter(|due| *due <= now.tick);
            replan(&mut self.agenda, &mut trial.agenda, Some(agenda), name);
            replan(&mut self.to_floor, &mut trial.local_rank, local, name);
        }
    }

    fn unschedule(&mut self, name: &ThingName) {
        if let Some(child) = self.children.get_mut(name) {
            let live = &mut child.live;
            replan(&mut self.agenda, &mut live.agenda, None, name);
            replan(&mut self.to_cloud, &mut live.cloud_rank, None, name);
            replan(&mut self.to_floor, &mut live.local_rank, None, name);
        } else if let Some(trial) = self.trials.get_mut(name) {
            replan(&mut self.agenda, &mut trial.agenda, None, name);
            replan(&mut self.to_floor, &mut trial.local_rank, None, name);
        }
    }

    /// Tries a device that nobody said is behind this core.
    pub(super) fn try_device(
        &mut self,
        now: Now,
        name: &ThingName,
        request: CsrReq,
        out: &mut Outcome,
    ) {
        let known = self.trials.get_mut(name);
        let is_known = known.is_some();
        if let Some(trial) = known.filter(|t| t.request.header.rotation == request.header.rotation)
        {
            trial.request.nonce = request.nonce.or(trial.request.nonce);
            return self.counters.count(Some(super::Side::Cloud), Reason::Repeated);
        }
        if !is_known && self.trials.len() >= super::MOST_TRIALS {
            return self.counters.count(None, Reason::TooManyRecords);
        }
        self.unschedule(name);
        let hold = request.hold_until.zip(now.wall).map(|(until, wall)| until - wall);
        let to_child = super::child::Repeat::begin(now.tick + hold.unwrap_or_default());
        let trial = Trial { request, since: now.tick, to_child, agenda: None, local_rank: None };
        self.trials.insert(name.clone(), trial);
        self.reschedule(name, now);
        self.counters.count(Some(super::Side::Cloud), Reason::Tried);
        out.then.push(Effect::Note(Note {
            weight: Weight::Step,
            side: Some(super::Side::Cloud),
            child: Some(name.clone()),
            state: "tried",
            reason: Reason::Tried,
            detail: None,
        }));
    }

    /// Ends a trial.
    pub(super) fn end_trial(&mut self, name: &ThingName) {
        self.unschedule(name);
        self.trials.remove(name);
    }
}

/// Moves a name from one place in a queue to another.
fn replan<R: Copy + Ord>(
    queue: &mut BTreeSet<(R, ThingName)>,
    place: &mut Option<R>,
    to: Option<R>,
    name: &ThingName,
) {
    if *place == to {
        return;
    }
    if let Some(rank) = std::mem::replace(place, to) {
        queue.remove(&(rank, name.clone()));
    }
    queue.extend(to.map(|rank| (rank, name.clone())));
}
