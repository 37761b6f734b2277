//! The cloud of a world: it asks, issues, retires, and may be lossy, but what it deletes stays
//! deleted. A device whose certificate in use is deleted is stranded for good.

use std::collections::BTreeMap;

use certrelay::{
    wire::{CertificateId, CrtErr, CsrRes, Header, Kind, Mid, RotationId, ThingName, render},
    x509,
};
use serde_json::{Value, json};

use crate::pki::{self, KeyNo};

const DAY: u64 = 86_400_000;

/// What the cloud does beyond the blog's procedure.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    pub rotation_ids: bool,
    pub names_core: bool,
    pub results: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Active,
    Deleted,
}

#[derive(Debug)]
pub struct Issued {
    pub id: CertificateId,
    key: KeyNo,
    serial: u32,
    pub state: State,
    /// Deleted then, unless a complaint comes before.
    retire: Option<u64>,
    pub acked: bool,
}

#[derive(Debug, Default)]
pub struct Thing {
    pub core: usize,
    pub certificates: Vec<Issued>,
    rotation: Option<RotationId>,
    asked: Option<u64>,
    asks: u32,
    /// The rotation is over: acked, or an error was reported.
    pub over: bool,
    pub errors: Vec<String>,
}

#[derive(Debug)]
pub struct Cloud {
    pub manners: Manners,
    pub things: BTreeMap<ThingName, Thing>,
    rotations: u32,
    pub csrs: u32,
    pub acks: u32,
    pub errors_of_core: Vec<String>,
}

/// A downlink: for which device, of which kind.
pub type Downlink = (ThingName, Kind, Vec<u8>);

impl Cloud {
    pub fn new(manners: Manners) -> Self {
        Self {
            manners,
            things: BTreeMap::new(),
            rotations: 0,
            csrs: 0,
            acks: 0,
            errors_of_core: vec![],
        }
    }

    pub fn register(&mut self, name: &ThingName, no: u32, core: usize) {
        let key = (no, 0);
        let (_, id) = pki::certificate(key, 0);
        let first = Issued { id, key, serial: 0, state: State::Active, retire: None, acked: true };
        let thing = Thing { core, certificates: vec![first], over: true, ..Thing::default() };
        self.things.insert(name.clone(), thing);
    }

    /// Begins a rotation.
    pub fn ask(&mut self, now: u64, name: &ThingName, cores: &[ThingName]) -> Downlink {
        self.rotations += 1;
        let rotation = format!("r-{}", self.rotations).parse().expect("valid");
        let thing = self.things.get_mut(name).expect("registered");
        thing.rotation = self.manners.rotation_ids.then_some(rotation);
        (thing.over, thing.asked, thing.asks) = (false, Some(now), 1);
        self.request(name, cores)
    }

    fn request(&self, name: &ThingName, cores: &[ThingName]) -> Downlink {
        (name.clone(), Kind::CsrReq, render::csr_req(&self.header(name, cores), None, None))
    }

    fn header(&self, name: &ThingName, cores: &[ThingName]) -> Header {
        let thing = &self.things[name];
        Header {
            rotation: thing.rotation.clone(),
            core: self.manners.names_core.then(|| cores[thing.core].clone()),
            mid: None,
        }
    }

    /// Once a day: asks again where nothing came, deletes what is retired.
    pub fn sweep(&mut self, now: u64, cores: &[ThingName]) -> Vec<Downlink> {
        for thing in self.things.values_mut() {
            for certificate in &mut thing.certificates {
                if certificate.retire.is_some_and(|at| at <= now) {
                    certificate.state = State::Deleted;
                }
            }
        }
        let stale: Vec<ThingName> = self
            .things
            .iter()
            .filter(|(_, thing)| !thing.over && thing.asked.is_some_and(|at| now - at < 25 * DAY))
            .map(|(name, _)| name.clone())
            .collect();
        stale.iter().map(|name| self.request(name, cores)).collect()
    }

    /// An uplink arrived.
    pub fn receive(
        &mut self,
        now: u64,
        name: &ThingName,
        kind: Kind,
        payload: &[u8],
        cores: &[ThingName],
    ) -> Vec<Downlink> {
        let header = Header::read(payload);
        let core = header.core.clone().expect("a relayed message says who relayed it");
        if cores.contains(name) {
            assert_eq!(kind, Kind::CrtErr, "nothing but a report of its own under the core's name");
            self.errors_of_core
                .push(CrtErr::parse(payload).expect("readable").code.expect("coded"));
            return self.verdict(name, &core, header.mid, kind, true).into_iter().collect();
        }
        if !self.things.contains_key(name) {
            return self.verdict(name, &core, header.mid, kind, false).into_iter().collect();
        }
        match kind {
            Kind::CsrRes => return self.issue(name, payload, cores),
            Kind::CrtAck => self.complete(now, name, payload),
            Kind::CrtErr => self.report(name, payload),
            other => panic!("{other} came up"),
        }
        self.verdict(name, &core, header.mid, kind, true).into_iter().collect()
    }

    fn verdict(
        &self,
        name: &ThingName,
        core: &ThingName,
        mid: Option<Mid>,
        about: Kind,
        ok: bool,
    ) -> Option<Downlink> {
        let result = json!({
            "core": core.as_str(), "mid": mid?.to_string(), "for": about.as_str(), "ok": ok,
            "final": !ok, "code": "unknown-thing",
        });
        self.manners.results.then(|| (name.clone(), Kind::Result, result.to_string().into_bytes()))
    }

    fn issue(&mut self, name: &ThingName, payload: &[u8], cores: &[ThingName]) -> Vec<Downlink> {
        self.csrs += 1;
        let csr = CsrRes::parse(payload).expect("the gateway sends what can be read");
        x509::accept_csr(&csr.csr, name, x509::CommonNameRule::AbsentOk).expect("acceptable");
        let key = pki::owner(x509::csr_key(&csr.csr).expect("readable")).expect("of this world");
        let header = self.header(name, cores);
        let thing = self.things.get_mut(name).expect("registered");
        let known = thing.certificates.iter().find(|c| c.key == key && c.state != State::Deleted);
        let serial = known
            .map_or_else(|| u32::try_from(thing.certificates.len()).expect("few"), |c| c.serial);
        let (der, id) = pki::certificate(key, serial);
        if known.is_none() {
            let (state, retire, acked) = (State::Active, None, false);
            thing.certificates.push(Issued { id, key, serial, state, retire, acked });
        }
        vec![(name.clone(), Kind::Crt, render::crt(&header, [der.as_slice()]))]
    }

    /// The old certificates are retired: after 7 days, or 14 for a bare ack, and 7 more in which a
    /// person could bring them back.
    fn complete(&mut self, now: u64, name: &ThingName, payload: &[u8]) {
        self.acks += 1;
        let fields: Value = serde_json::from_slice(payload).expect("an object");
        let id: CertificateId =
            fields["certificateId"].as_str().expect("named").parse().expect("an id");
        let grace = if fields["ack"] == "named" { 14 * DAY } else { 21 * DAY };
        let thing = self.things.get_mut(name).expect("registered");
        thing.over = true;
        let at = thing.certificates.iter().position(|c| c.id == id).expect("issued here");
        thing.certificates[at].acked = true;
        for older in &mut thing.certificates[..at] {
            older.retire.get_or_insert(now + grace);
        }
    }

    /// A complaint in the grace brings the old certificates back.
    fn report(&mut self, name: &ThingName, payload: &[u8]) {
        let error = CrtErr::parse(payload).expect("readable");
        let thing = self.things.get_mut(name).expect("registered");
        thing.over = true;
        thing.errors.push(error.code.expect("coded"));
        for certificate in &mut thing.certificates {
            certificate.retire = None;
        }
    }
}
