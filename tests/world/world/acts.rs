//! What can happen to a world from outside, and what it does.

use certrelay::relay::{Event, Side};

use super::{Happening, World};
use crate::{
    device::mischief,
    gateway::{other_settings, settings},
};

/// What can happen to a world from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    Ask(usize),
    CloudDown(usize),
    CloudUp(usize),
    /// The subscriptions at the cloud's side are lost, and nobody says so.
    Deaf(usize),
    /// One of them is, and the others are not.
    LosesOne(usize, &'static str),
    FloorDown(usize),
    FloorUp(usize),
    /// The local broker restarts and keeps nothing.
    FloorForgets(usize),
    Crash(usize),
    /// The gateway is cut after so many more points.
    CutAfter(usize, u64),
    DeviceOff(usize),
    DeviceOn(usize),
    /// Off and on at once, losing what it was about to read.
    DeviceBlinks(usize),
    ClockLost(usize),
    ClockFound(usize),
    Mischief(usize),
    /// The gateway gets other settings, drawn from a seed; or its own again.
    Reconfigure(usize, Option<u64>),
    /// The local broker delivers again the first so many messages that it ever delivered, after a
    /// restart of the gateway.
    Replay(usize, usize),
}

impl World {
    pub fn act(&mut self, act: Act) {
        match act {
            Act::Ask(device) => {
                let name = self.devices[device].name.clone();
                let downlink = self.cloud.ask(self.now, &name, &self.cores);
                self.send_down(vec![downlink]);
            }
            Act::CloudDown(gateway) => {
                self.gateways[gateway].cloud_up = false;
                self.feed(gateway, vec![Event::Down { side: Side::Cloud }]);
            }
            Act::CloudUp(gateway) => self.cloud_up(gateway),
            Act::Deaf(gateway) => self.gateways[gateway].deaf = true,
            Act::LosesOne(gateway, kind) => self.gateways[gateway].lost = Some(kind),
            Act::FloorDown(gateway) => {
                self.gateways[gateway].floor = None;
                self.feed(gateway, vec![Event::Down { side: Side::Local }]);
            }
            Act::FloorUp(gateway) => self.floor_up(gateway, true),
            Act::FloorForgets(gateway) => {
                for device in self.at_home(gateway) {
                    self.devices[device].queue.clear();
                }
                self.gateways[gateway].floor = None;
                self.feed(gateway, vec![Event::Down { side: Side::Local }]);
                self.floor_up(gateway, false);
            }
            Act::Crash(gateway) => self.crash(gateway),
            Act::CutAfter(gateway, points) => self.gateways[gateway].cut = Some(points),
            Act::DeviceOff(device) => self.device_off(device),
            Act::DeviceOn(device) => self.device_on(device),
            Act::DeviceBlinks(device) => {
                self.device_off(device);
                self.device_on(device);
            }
            Act::ClockLost(gateway) => self.gateways[gateway].trusted = false,
            Act::ClockFound(gateway) => self.gateways[gateway].trusted = true,
            Act::Mischief(gateway) => {
                let victim = self.rng.usize(..self.devices.len());
                let victim = self.devices[victim].name.clone();
                let core = self.cores[gateway].clone();
                let (topic, payload) = mischief(&mut self.rng, &core, &victim);
                self.plan(0, Happening::AtFloor { gateway, topic, payload });
            }
            Act::Reconfigure(gateway, seed) => {
                let core = &self.cores[gateway];
                let settings = match seed {
                    Some(seed) => other_settings(core, &mut fastrand::Rng::with_seed(seed)),
                    None => settings(core),
                };
                let result = self.gateways[gateway].reconfigure(self.now, settings);
                self.take_up(gateway, result);
            }
            Act::Replay(gateway, count) => {
                let earlier: Vec<_> = self.acknowledged.iter().take(count).cloned().collect();
                self.gateways[gateway].replay(earlier);
                self.crash(gateway);
            }
        }
    }

    fn cloud_up(&mut self, gateway: usize) {
        if self.gateways[gateway].cloud_up {
            return;
        }
        self.gateways[gateway].cloud_up = true;
        let connection = certrelay::links::ConnectionId(0);
        let session_present = self.gateways[gateway].cloud_session.is_some();
        let kept = self.gateways[gateway].cloud_session.as_mut().map(std::mem::take);
        self.feed(gateway, vec![Event::Up { side: Side::Cloud, connection, session_present }]);
        for (topic, payload) in kept.into_iter().flatten() {
            self.at_gateway(gateway, topic, payload);
        }
    }

    fn floor_up(&mut self, gateway: usize, session_present: bool) {
        if self.gateways[gateway].floor.is_none() {
            let events = self.gateways[gateway].connect_floor(session_present);
            self.feed(gateway, events);
        }
    }

    /// The gateway loses its power, and both links come back with it.
    pub fn crash(&mut self, gateway: usize) {
        let was_up = self.gateways[gateway].cloud_up;
        self.gateways[gateway].restart(self.now);
        self.floor_up(gateway, true);
        if was_up {
            self.cloud_up(gateway);
        }
    }

    fn device_off(&mut self, device: usize) {
        self.devices[device].online = false;
        self.boots[device] += 1;
        if self.devices[device].clean_session {
            self.devices[device].queue.clear();
        }
    }

    fn device_on(&mut self, device: usize) {
        if self.devices[device].online {
            return;
        }
        self.devices[device].online = true;
        let said = self.devices[device].boot();
        self.say(device, said);
        let queue = std::mem::take(&mut self.devices[device].queue);
        for (kind, payload) in queue {
            self.deliver(device, kind, payload, true);
        }
    }
}
