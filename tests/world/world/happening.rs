//! What can happen in a world: from outside, and by itself.

use certrelay::{
    relay::Lost,
    wire::{KeyDigest, Kind, ThingName},
};

/// What can happen to a world from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    Ask(usize),
    CloudDown(usize),
    CloudUp(usize),
    /// The subscriptions at the cloud's side are lost, and nobody says so.
    Deaf(usize),
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
    /// The local broker delivers again the first so many messages that it ever delivered, after a
    /// restart of the gateway.
    Replay(usize, usize),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happening {
    Act(Act),
    Sweep,
    Wake(usize),
    AtCloud { from: usize, topic: String, payload: Vec<u8> },
    AtGateway { to: usize, topic: String, payload: Vec<u8> },
    AtFloor { gateway: usize, topic: String, payload: Vec<u8> },
    AtDevice { device: usize, boot: u32, kind: Kind, payload: Vec<u8>, sure: bool },
    Sent { gateway: usize, restarts: u64, cloud: bool, mid: [u8; 16], ok: bool },
    Verified { gateway: usize, restarts: u64, child: ThingName, key: KeyDigest },
    Lost { gateway: usize, restarts: u64, child: ThingName, lost: Lost },
}

impl Happening {
    pub fn brief(&self) -> String {
        match self {
            Self::AtCloud { topic, payload, .. }
            | Self::AtGateway { topic, payload, .. }
            | Self::AtFloor { topic, payload, .. } => {
                let header = certrelay::wire::Header::read(payload);
                let name = format!("{self:?}");
                let name = name.split(' ').next().unwrap_or_default().to_owned();
                format!("{name} {topic} {:?} {:?}", header.rotation, header.core)
            }
            Self::AtDevice { device, kind, .. } => format!("AtDevice {device} {kind}"),
            other => format!("{other:?}"),
        }
    }
}
