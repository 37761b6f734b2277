//! The children of a world: one that follows the contract, one that knows only AWS's blog post, and
//! one whose new certificates never work.

use std::collections::{BTreeSet, VecDeque};

use certrelay::{
    wire::{
        CertificateId, CertificateMessage, CsrReq, Header, Kind, Mid, PayloadError, ThingName,
        render,
    },
    x509,
};

use crate::pki::{self, KeyNo};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// Follows the device contract.
    Contract,
    /// Makes a new key on any `csr_req`, installs blindly, acks `{}`, acks again at each start.
    Blog,
    /// Follows the contract, but no new certificate ever works.
    Broken,
}

/// A pair that works: a key and its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    pub key: KeyNo,
    pub certificate: CertificateId,
}

#[derive(Debug)]
pub struct Device {
    pub no: u32,
    pub name: ThingName,
    pub nature: Nature,
    /// Its broker session ends when it goes off.
    pub clean_session: bool,
    pub online: bool,
    pub current: Pair,
    /// The newest key; a CSR for it was sent then.
    pending: Option<(KeyNo, u64)>,
    keys: u32,
    /// What the broker keeps for it.
    pub queue: VecDeque<(Kind, Vec<u8>)>,
    /// The certificates that it ever used when it sent an ack: the truth behind every ack.
    pub acked_about: BTreeSet<CertificateId>,
    /// It reported an error.
    pub complained: u32,
}

/// What a device publishes.
pub type Said = (Kind, Vec<u8>);

const CSR_KEPT: u64 = 24 * 3_600_000;

impl Device {
    pub fn new(no: u32, nature: Nature, clean_session: bool) -> Self {
        let key = (no, 0);
        let (_, certificate) = pki::certificate(key, 0);
        Self {
            no,
            name: pki::device_name(no).parse().expect("a valid name"),
            nature,
            clean_session,
            online: true,
            current: Pair { key, certificate },
            pending: None,
            keys: 1,
            queue: VecDeque::new(),
            acked_about: BTreeSet::new(),
            complained: 0,
        }
    }

    /// It has started and is connected.
    pub fn boot(&mut self) -> Vec<Said> {
        match self.nature {
            Nature::Blog => vec![self.ack(&Header::default())],
            Nature::Contract | Nature::Broken => vec![],
        }
    }

    pub fn receive(&mut self, now: u64, kind: Kind, payload: &[u8]) -> Vec<Said> {
        match kind {
            Kind::CsrReq if CsrReq::parse(payload) == Err(PayloadError::Empty) => vec![],
            Kind::CsrReq => vec![self.on_request(now, payload)],
            Kind::Crt => vec![self.on_certificate(payload)],
            other => panic!("{} got a {other}", self.name),
        }
    }

    fn on_request(&mut self, now: u64, payload: &[u8]) -> Said {
        let kept = self.pending.filter(|(_, since)| {
            self.nature != Nature::Blog && now.saturating_sub(*since) < CSR_KEPT
        });
        let (key, _) = kept.unwrap_or_else(|| self.new_key(now));
        self.pending =
            Some(self.pending.filter(|(pending, _)| *pending == key).unwrap_or((key, now)));
        let header = match self.nature {
            Nature::Blog => Header::default(),
            _ => Header { rotation: Header::read(payload).rotation, ..Header::default() },
        };
        (Kind::CsrRes, render::csr_res(&header, &pki::csr(key), None))
    }

    fn new_key(&mut self, now: u64) -> (KeyNo, u64) {
        let key = (self.no, self.keys);
        self.keys += 1;
        self.pending = Some((key, now));
        (key, now)
    }

    fn on_certificate(&mut self, payload: &[u8]) -> Said {
        let message =
            CertificateMessage::parse(payload).expect("the gateway writes what can be read");
        let facts = x509::read_certificate(&message.chain[0]).expect("a certificate");
        let key = pki::owner(facts.key).expect("a key of this world");
        assert_eq!(key.0, self.no, "{} got the certificate of {key:?}", self.name);
        let newest = self.pending.map_or(self.current.key, |(key, _)| key);
        let again = facts.id == self.current.certificate && self.nature != Nature::Blog;
        if !again && (key != newest || self.nature == Nature::Broken) {
            self.complained += 1;
            let header = Header { rotation: message.header.rotation, ..Header::default() };
            let certificate = (self.nature != Nature::Blog).then_some(facts.id);
            return (Kind::CrtErr, render::crt_err(&header, "install-failed", "no", certificate));
        }
        self.current = Pair { key, certificate: facts.id };
        if !again {
            self.pending = self.pending.filter(|_| self.nature == Nature::Blog);
        }
        self.ack(&message.header)
    }

    fn ack(&mut self, header: &Header) -> Said {
        self.acked_about.insert(self.current.certificate);
        let header = Header { rotation: header.rotation.clone(), ..Header::default() };
        (
            Kind::CrtAck,
            match self.nature {
                Nature::Blog => b"{}".to_vec(),
                _ => render::crt_ack(&header, Some(self.current.certificate), None, None),
            },
        )
    }
}

/// What a hostile local client publishes, if the broker lets it: a topic and a payload.
pub fn mischief(
    rng: &mut fastrand::Rng,
    core: &ThingName,
    victim: &ThingName,
) -> (String, Vec<u8>) {
    let stranger: ThingName = format!("stranger-{}", rng.u8(..)).parse().expect("valid");
    let csr = pki::csr((900 + u32::from(rng.u8(..4)), 0));
    let certificate = CertificateId(std::array::from_fn(|_| rng.u8(..)));
    let header =
        Header { core: Some(core.clone()), mid: Some(Mid([rng.u8(..); 16])), rotation: None };
    let name = match rng.u8(..3) {
        0 => core,
        1 => &stranger,
        _ => victim,
    };
    let payload = match rng.u8(..9) {
        0 => vec![],
        1 => b"{".to_vec(),
        2 => vec![0xff; rng.usize(..40_000)],
        3 => render::csr_res(&header, &csr, None),
        4 => render::csr_res(&header, b"not a csr", None),
        5 => render::crt_ack(&header, Some(certificate), None, None),
        6 => b"{\"error\":\"\x1b[2J\"}".to_vec(),
        7 => b"[]".to_vec(),
        _ => render::csr_res(&header, &csr[..csr.len() / 2], None),
    };
    // Who may speak for a device is the broker's to enforce: a bare ack under a victim's name is
    // the one thing that a gateway can't tell from the victim's.
    let kind = match Kind::ALL[rng.usize(..Kind::ALL.len())] {
        Kind::CrtAck if name == victim => Kind::CsrRes,
        kind => kind,
    };
    (format!("management/topic/{name}/{kind}"), payload)
}
