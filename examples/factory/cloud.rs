//! A cloud that plays its side of the procedure (README, "Protocol") with a CA of its own.
//!
//! It finds the certificates that expire soon, asks for CSRs, checks them as a cloud would, issues
//! one certificate a key, retires the old one once the new one is acknowledged by its id, and says
//! what became of every message. What it says may be lost under way, so it says it again. The core is
//! one of the devices; its ack counts only over a connection that was made with the new certificate.
//! [`Cloud`] decides and has no network; [`serve`] gives it one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use anyhow::bail;
use certrelay::{
    reason::Reason,
    schedule::Timestamp,
    wire::{
        AckName, CertificateId, CrtAck, CrtErr, CsrRes, Header, KeyDigest, Kind, ThingName, Topics,
        render,
    },
    x509::{self, CommonNameRule},
};
use rcgen::{CertificateParams, SerialNumber};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::{
    peer::Peer,
    pki::{Authority, Pair, named},
};

/// How often the cloud says again what may have been lost.
const AGAIN: Duration = Duration::from_secs(2);

const DAY: Duration = Duration::from_secs(86_400);

/// How old the certificates are that the devices begin with.
const FIRST_AGE: Duration = Duration::from_secs(353 * 86_400);

/// A certificate that expires sooner than this is to be rotated.
const EXPIRES_SOON: Duration = Duration::from_secs(30 * 86_400);

/// What the devices have when the demo begins expires then.
const FIRST_EXPIRY: Duration = Duration::from_secs(12 * 86_400);

/// A new certificate is valid from a little before: not every clock is right.
const CLOCKS_APART: Duration = Duration::from_secs(60);

/// How long a new certificate is valid.
const VALIDITY: Duration = Duration::from_secs(365 * 86_400);

/// The code for an ack that came over a connection with another certificate than it names.
const OTHER_PRINCIPAL: &str = "other-principal";

/// A message to the cloud's broker: topic and payload.
pub type Message = (String, Vec<u8>);

/// What the cloud knows.
pub struct Cloud {
    authority: Authority,
    core: ThingName,
    topics: Topics,
    now: Timestamp,
    devices: BTreeMap<ThingName, Device>,
    /// Every key that a certificate was ever issued for, and whose it is.
    keys: BTreeMap<KeyDigest, ThingName>,
    /// Certificates that are no longer to be used.
    retired: BTreeSet<CertificateId>,
    serials: u64,
}

/// One device.
pub struct Device {
    /// The certificate that it began with …
    pub first: CertificateId,
    /// … and its serial number.
    pub first_serial: u64,
    /// The certificate in use, as far as the cloud knows.
    pub in_use: CertificateId,
    expires: Timestamp,
    /// The certificates issued for its CSRs, leaf as DER; one a key.
    issued: BTreeMap<KeyDigest, (CertificateId, Vec<u8>)>,
    /// Whether it was asked for a CSR.
    pub asked: bool,
    /// How many CSRs of it arrived.
    pub csrs: u32,
    /// How many acks of it arrived.
    pub acks: u32,
    /// What became of it.
    pub outcome: Option<Outcome>,
    /// What the cloud last said to it, or of it.
    said: Option<Message>,
}

/// How a rotation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The device uses the new certificate; the word says how the ack was known to be about it.
    Rotated(String),
    /// The cloud refused, or the device or the gateway reported an error: the code.
    Refused(String),
}

/// How many devices have come how far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    pub asked: usize,
    pub csrs: usize,
    pub issued: usize,
    pub rotated: usize,
    pub refused: usize,
}

impl Cloud {
    pub fn new(authority: Authority, core: ThingName, now: Timestamp) -> Self {
        Self {
            topics: Topics::parse("management/topic", &core).expect("the usual prefix is valid"),
            authority,
            core,
            now,
            devices: BTreeMap::new(),
            keys: BTreeMap::new(),
            retired: BTreeSet::new(),
            serials: 0x1000,
        }
    }

    /// Registers a device: its first pair, which expires soon.
    pub fn enrol(&mut self, name: &ThingName) -> Pair {
        self.serials += 1;
        let mut params = named(name.as_str());
        let expires = self.now + FIRST_EXPIRY;
        validity(&mut params, before(self.now, FIRST_AGE), expires);
        params.serial_number = Some(self.serials.into());
        let pair = self.authority.issue(&params);
        let facts = x509::read_certificate(&der(&pair.certificate)).expect("issued here");
        self.keys.insert(facts.key, name.clone());
        let device = Device {
            first: facts.id,
            first_serial: self.serials,
            in_use: facts.id,
            expires,
            issued: BTreeMap::new(),
            asked: false,
            csrs: 0,
            acks: 0,
            outcome: None,
            said: None,
        };
        self.devices.insert(name.clone(), device);
        pair
    }

    /// Asks every child for a CSR whose certificate expires soon.
    pub fn audit(&mut self) -> Vec<Message> {
        self.ask(|name, core| name != core)
    }

    /// Asks the core for a CSR, if its certificate expires soon.
    pub fn audit_core(&mut self) -> Vec<Message> {
        self.ask(|name, core| name == core)
    }

    fn ask(&mut self, whom: fn(&ThingName, &ThingName) -> bool) -> Vec<Message> {
        let soon = self.now + EXPIRES_SOON;
        let (core, topics) = (&self.core, &self.topics);
        let due = self.devices.iter_mut();
        let due = due.filter(|(name, device)| device.expires < soon && whom(name, core));
        due.map(|(name, device)| {
            device.asked = true;
            let header =
                Header { rotation: Some(rotation(device)), core: Some(core.clone()), mid: None };
            let payload = render::csr_req(&header, Some(device.expires), None);
            let request = (topics.topic(name, Kind::CsrReq), payload);
            device.said.insert(request).clone()
        })
        .collect()
    }

    /// What was last said to each device, once more. A nucleus keeps nothing for a gateway that is
    /// away or can't hear, and the last word on an ack nobody answers.
    pub fn say_again(&self) -> Vec<Message> {
        self.devices.values().filter_map(|device| device.said.clone()).collect()
    }

    /// A message arrived; what it is answered with. `principal` is the certificate of the core's
    /// connection: everything comes over that.
    pub fn receive(
        &mut self,
        topic: &str,
        payload: &[u8],
        principal: Option<CertificateId>,
    ) -> Vec<Message> {
        let Some((name, kind)) = self.topics.read(topic) else { return Vec::new() };
        let answer = match kind {
            Kind::CsrRes => self.on_csr(&name, payload),
            Kind::CrtAck => self.on_ack(&name, payload, principal).map(|()| None),
            Kind::CrtErr => self.on_error(&name, payload).map(|()| None),
            Kind::CsrReq | Kind::Crt | Kind::Result => return Vec::new(),
        };
        let answer = match answer {
            Ok(Some(certificate)) => certificate,
            Ok(None) => self.result(&name, kind, payload, None),
            Err(code) => self.result(&name, kind, payload, Some(&code)),
        };
        if let Some(device) = self.devices.get_mut(&name) {
            device.said = Some(answer.clone());
        }
        vec![answer]
    }

    /// How far the children have come.
    pub fn count(&self) -> Count {
        let number =
            |of: fn(&Device) -> bool| self.children().filter(|(_, device)| of(device)).count();
        Count {
            asked: number(|d| d.asked),
            csrs: number(|d| d.csrs > 0),
            issued: number(|d| !d.issued.is_empty()),
            rotated: number(|d| matches!(d.outcome, Some(Outcome::Rotated(_)))),
            refused: number(|d| matches!(d.outcome, Some(Outcome::Refused(_)))),
        }
    }

    /// The children, by name.
    pub fn children(&self) -> impl Iterator<Item = (&ThingName, &Device)> {
        self.devices.iter().filter(|(name, _)| **name != self.core)
    }

    /// The core, once it is enrolled.
    pub fn core(&self) -> Option<&Device> {
        self.devices.get(&self.core)
    }

    /// Whether a certificate is no longer to be used.
    pub fn has_retired(&self, certificate: CertificateId) -> bool {
        self.retired.contains(&certificate)
    }

    /// The certificate for a CSR; the same one however often the CSR comes.
    fn on_csr(&mut self, name: &ThingName, payload: &[u8]) -> Result<Option<Message>, String> {
        let device = self.devices.get_mut(name).ok_or("unknown-thing")?;
        device.csrs += 1;
        let message = CsrRes::parse(payload).map_err(|_| code(Reason::Unreadable));
        let verdict = message.and_then(|m| self.judge(name, &m).map(|key| (m, key)));
        let (message, key) = match verdict {
            Ok(good) => good,
            Err(code) => {
                let refused = Outcome::Refused(code.clone());
                self.device(name).outcome.get_or_insert(refused);
                return Err(code);
            }
        };
        if !self.devices[name].issued.contains_key(&key) {
            self.issue(name, &message.csr, key);
        }
        let header =
            Header { rotation: message.header.rotation, core: Some(self.core.clone()), mid: None };
        let (_, leaf) = &self.devices[name].issued[&key];
        let payload = render::crt(&header, [leaf.as_slice()]);
        Ok(Some((self.topics.topic(name, Kind::Crt), payload)))
    }

    /// Whether a CSR is one that this device may send; the key, or why not.
    fn judge(&self, name: &ThingName, message: &CsrRes) -> Result<KeyDigest, String> {
        if message.header.core.as_ref() != Some(&self.core) {
            return Err(code(Reason::OtherCore));
        }
        let key = x509::accept_csr(&message.csr, name, CommonNameRule::Match)
            .map_err(|refusal| code(refusal.0))?;
        x509::verify_csr_signature(&message.csr).map_err(|refusal| code(refusal.0))?;
        let is_known = self.keys.contains_key(&key);
        if is_known && !self.devices[name].issued.contains_key(&key) {
            return Err(code(Reason::KeyNotNew));
        }
        Ok(key)
    }

    fn issue(&mut self, name: &ThingName, csr: &[u8], key: KeyDigest) {
        self.serials += 1;
        let (now, serial) = (self.now, SerialNumber::from(self.serials));
        let csr = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", csr));
        let certificate = self.authority.sign_csr_with(&csr, |params| {
            validity(params, before(now, CLOCKS_APART), now + VALIDITY);
            params.serial_number = Some(serial);
        });
        let leaf = der(&certificate);
        self.keys.insert(key, name.clone());
        self.device(name).issued.insert(key, (x509::certificate_id(&leaf), leaf));
    }

    /// The device uses a certificate: every other one of it is retired.
    fn on_ack(
        &mut self,
        name: &ThingName,
        payload: &[u8],
        principal: Option<CertificateId>,
    ) -> Result<(), String> {
        let ack = CrtAck::parse(payload).map_err(|_| code(Reason::Unreadable))?;
        let device = self.devices.get_mut(name).ok_or("unknown-thing")?;
        device.acks += 1;
        let AckName::Named(id) = ack.certificate else {
            return Err(code(Reason::AckUnknown));
        };
        if !device.issued.values().any(|(issued, _)| *issued == id) {
            return Err(code(Reason::AckUnknown));
        }
        if *name == self.core && principal != Some(id) {
            // It says that it uses the certificate, and does not.
            device.outcome = Some(Outcome::Refused(OTHER_PRINCIPAL.to_owned()));
            return Err(OTHER_PRINCIPAL.to_owned());
        }
        let others = device.issued.values().map(|(other, _)| *other).chain([device.in_use]);
        self.retired.extend(others.filter(|other| *other != id));
        device.in_use = id;
        device.expires = self.now + VALIDITY;
        let how = serde_json::from_slice::<Value>(payload).ok();
        let how = how.and_then(|fields| Some(fields.get("ack")?.as_str()?.to_owned()));
        device.outcome.get_or_insert(Outcome::Rotated(how.unwrap_or_default()));
        Ok(())
    }

    fn on_error(&mut self, name: &ThingName, payload: &[u8]) -> Result<(), String> {
        let error = CrtErr::parse(payload).map_err(|_| code(Reason::Unreadable))?;
        let device = self.devices.get_mut(name).ok_or("unknown-thing")?;
        device.outcome = Some(Outcome::Refused(error.code.unwrap_or(error.error)));
        Ok(())
    }

    fn device(&mut self, name: &ThingName) -> &mut Device {
        self.devices.get_mut(name).expect("only known devices are judged")
    }

    /// Says what became of an uplink message; a refusal is final.
    fn result(&self, name: &ThingName, of: Kind, payload: &[u8], code: Option<&str>) -> Message {
        let header = Header::read(payload);
        let result = json!({
            "core": self.core,
            "mid": header.mid,
            "rotationId": header.rotation,
            "for": of.as_str(),
            "ok": code.is_none(),
            "final": code.is_some(),
            "code": code,
        });
        (self.topics.topic(name, Kind::Result), result.to_string().into_bytes())
    }
}

/// The cloud, for whoever looks at it while it works.
pub type Shared = Arc<Mutex<Cloud>>;

/// The cloud's state. Nobody panics while holding it.
pub fn lock(cloud: &Shared) -> MutexGuard<'_, Cloud> {
    cloud.lock().expect("nobody panics while holding the cloud")
}

/// Subscribes to the uplinks and answers them, sends what it is given, and says again what may have
/// been lost, until `outgoing` ends. `principal` says with which certificate the core is connected.
pub async fn serve(
    mut peer: Peer,
    cloud: Shared,
    mut outgoing: mpsc::Receiver<Message>,
    principal: impl Fn() -> Option<CertificateId>,
) -> anyhow::Result<()> {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_uplink()) {
        let filter = lock(&cloud).topics.filter(kind);
        peer.subscribe(&filter).await.map_err(anyhow::Error::msg)?;
    }
    let mut again = tokio::time::interval(AGAIN);
    loop {
        let to_send = tokio::select! {
            _ = again.tick() => lock(&cloud).say_again(),
            message = outgoing.recv() => match message {
                Some(message) => vec![message],
                None => return Ok(()),
            },
            received = peer.receive(DAY) => match received {
                Some(message) => {
                    let principal = principal();
                    lock(&cloud).receive(&message.topic, &message.payload, principal)
                }
                None => bail!("the cloud has lost its broker"),
            },
        };
        for (topic, payload) in to_send {
            peer.publish(&topic, payload).await.map_err(anyhow::Error::msg)?;
        }
    }
}

fn rotation(device: &Device) -> certrelay::wire::RotationId {
    let id = format!("rotation-{:x}", device.first_serial);
    id.parse().expect("letters, digits and a dash")
}

fn code(reason: Reason) -> String {
    reason.as_str().to_owned()
}

fn validity(params: &mut CertificateParams, from: Timestamp, until: Timestamp) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(from.unix_seconds());
    params.not_after = epoch + Duration::from_secs(until.unix_seconds());
}

fn before(time: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_unix_seconds(time.unix_seconds() - by.as_secs())
}

fn der(pem_text: &str) -> Vec<u8> {
    pem::parse(pem_text).expect("written here").into_contents()
}

#[cfg(test)]
mod tests;
