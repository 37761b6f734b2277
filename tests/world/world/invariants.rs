//! What holds in a world: after every step, and once everything is well again.

use certrelay::relay::Stage;

use super::{Act, DAY, FAIR, Happening, Reverse, World};
use crate::{cloud::State, device::Nature};

impl World {
    /// The invariants that hold after every step.
    pub(super) fn check(&self) {
        for device in &self.devices {
            let thing = &self.cloud.things[&device.name];
            let current = thing.certificates.iter().find(|c| c.id == device.current.certificate);
            let state = current.expect("issued by this cloud").state;
            assert_eq!(state, State::Active, "{} ({:?}) is stranded", device.name, device.nature);
            assert!(
                device.queue.len() <= 40,
                "{} messages wait for {}",
                device.queue.len(),
                device.name
            );
        }
        for gateway in &self.gateways {
            assert!(gateway.relay.rows().count() <= self.devices.len() + 300);
        }
    }

    /// Everything is well from now on.
    pub fn heal(&mut self) {
        self.weather = FAIR;
        self.heap.retain(|Reverse((_, _, what))| !matches!(what, Happening::Act(_)));
        for gateway in 0..self.gateways.len() {
            self.gateways[gateway].cut = None;
            self.act(Act::ClockFound(gateway));
            self.act(Act::Reconfigure(gateway, None));
            self.act(Act::CloudUp(gateway));
            self.act(Act::FloorUp(gateway));
        }
        for device in 0..self.devices.len() {
            self.act(Act::DeviceOn(device));
        }
    }

    /// After peace, one more rotation of every device that can.
    pub fn must_converge(&mut self) {
        self.heal();
        self.run(65 * DAY);
        self.check_nothing_is_under_way();
        let before: Vec<_> = self.devices.iter().map(|device| device.current).collect();
        for device in 0..self.devices.len() {
            self.act(Act::Ask(device));
        }

        self.run(2 * DAY);
        for (device, before) in self.devices.iter().zip(before) {
            let rotated = device.current != before;
            assert_eq!(
                rotated,
                device.nature != Nature::Broken,
                "{} {:?}",
                device.name,
                device.nature
            );
            let acked = self.acked.contains(&(device.name.clone(), device.current.certificate));
            assert!(
                acked || device.nature == Nature::Broken,
                "the cloud does not know of {}",
                device.name
            );
        }
        self.run(40 * DAY);
        self.check_nothing_is_under_way();
    }

    /// What was acknowledged has ended: no stage waits, no notice is left.
    fn check_nothing_is_under_way(&self) {
        for gateway in &self.gateways {
            for (name, record) in gateway.disk.snapshot().records {
                let is_done = matches!(record.stage, Stage::Done(_));
                assert!(is_done, "{name} at {}: {record:?}", gateway.settings.core);
                assert!(
                    record.outbox.is_empty(),
                    "{name} at {}: {record:?}",
                    gateway.settings.core
                );
            }
        }
    }
}
