//! What is wrong is refused with its reason, and another child rotates on at the same time.

use certrelay::reason::Reason;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::json;

use crate::{
    harness::{CORE, Site, Via, counted, row, topic},
    peers::{Cloud, Seen, csr},
    support::{
        peer::{Login, Peer},
        pki::{Authority, named},
    },
};

/// A message that no one should send.
struct Hostile {
    /// The child that it is about.
    name: &'static str,
    kind: &'static str,
    payload: Vec<u8>,
    /// Counted for this side, with this reason.
    counted: (&'static str, Reason),
    /// The cloud hears of it with this code, too.
    reported: Option<&'static str>,
}

fn pem_of_csr(der: &[u8]) -> String {
    pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der))
}

fn csr_res(pem: &str) -> Vec<u8> {
    json!({ "CSR": pem }).to_string().into()
}

/// A CSR that says another key than the one that signed it.
fn badly_signed(name: &str) -> String {
    let key = KeyPair::generate().expect("a key");
    let mut der = named(name).serialize_request(&key).expect("a CSR").der().to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    pem_of_csr(&der)
}

fn from_the_floor() -> Vec<Hostile> {
    let key = KeyPair::generate().expect("a key");
    let weak = include_bytes!("../fixtures/rsa1024.csr.der");
    let row = |name, kind, payload, reason, reported| Hostile {
        name,
        kind,
        payload,
        counted: ("local", reason),
        reported,
    };
    vec![
        row("bad-garbage", "csr_res", b"\x00\xff{]".to_vec(), Reason::Unreadable, None),
        row("bad-pem", "csr_res", csr_res("-----BEGIN"), Reason::Unreadable, None),
        row("bad-der", "csr_res", csr_res(&pem_of_csr(b"junk")), Reason::BadCsr, None),
        row("bad-empty", "csr_res", vec![], Reason::EmptyPayload, None),
        row("bad-large", "csr_res", vec![b'x'; 300_000], Reason::TooLarge, None),
        row(
            "bad-signature",
            "csr_res",
            csr_res(&badly_signed("bad-signature")),
            Reason::BadSignature,
            Some("bad-signature"),
        ),
        // The name stands in the fixture's subject.
        row("pump-7", "csr_res", csr_res(&pem_of_csr(weak)), Reason::WeakKey, Some("weak-key")),
        row(
            "bad-subject",
            "csr_res",
            csr_res(&csr("dev-a", &key)),
            Reason::WrongSubject,
            Some("wrong-subject"),
        ),
        row(CORE, "csr_res", csr_res(&csr(CORE, &key)), Reason::ReservedName, None),
        row("bad.name", "csr_res", vec![b'x'], Reason::BadTopic, None),
        row(
            "bad-ack",
            "crt_ack",
            json!({"certificateId": "ab".repeat(32)}).to_string().into(),
            Reason::AckUnknown,
            Some("ack-unknown"),
        ),
    ]
}

fn crt(certificate: &str) -> Vec<u8> {
    json!({"certificatePem": certificate, "core": CORE}).to_string().into()
}

/// All for a child whose CSR waits.
fn from_the_cloud(authority: &Authority, name: &'static str, waiting: &str) -> Vec<Hostile> {
    let foreign = authority.client(name).certificate;
    let request = |change: &dyn Fn(&mut CertificateParams)| {
        let mut csr = rcgen::CertificateSigningRequestParams::from_pem(waiting).expect("a CSR");
        change(&mut csr.params);
        crt(&authority.sign(&csr))
    };
    let expired = request(&|params| params.not_after = date_time_ymd(2001, 1, 1));
    let ca = request(&|params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let subject = request(&|params| params.distinguished_name = named("dev-b").distinguished_name);
    let row = |kind, payload, reason, reported| Hostile {
        name,
        kind,
        payload,
        counted: ("cloud", reason),
        reported,
    };
    vec![
        row("crt", crt(&foreign), Reason::NoWaitingCsr, Some("no-waiting-csr")),
        row("crt", expired, Reason::Expired, Some("certificate-expired")),
        row("crt", ca, Reason::NotALeaf, Some("not-a-leaf")),
        row("crt", subject, Reason::WrongSubject, Some("wrong-subject")),
        row("crt", b"garbage".to_vec(), Reason::Unreadable, None),
        row("crt", vec![], Reason::EmptyPayload, None),
        row("crt", vec![b'x'; 300_000], Reason::TooLarge, None),
        row("crt_ack", b"{}".to_vec(), Reason::WrongDirection, None),
    ]
}

/// Sends it while a child that has done nothing wrong rotates.
async fn attack(site: &mut Site, by: &Peer, cloud: &mut Cloud, hostile: Hostile, number: usize) {
    let (side, reason) = hostile.counted;
    let before = site.gateway.snapshot().map_or(0, |shown| counted(&shown, side, reason));
    let honest = format!("honest-{side}-{number}");
    let sent = async {
        let topic = topic(hostile.name, hostile.kind);
        by.publish(&topic, hostile.payload).await.expect("the broker takes it");
    };
    tokio::join!(sent, site.rotate(cloud, &honest));
    site.gateway.until_counted(side, reason, before + 1).await;
    site.gateway.until_done(&honest).await;
    if let Some(code) = hostile.reported {
        let report = cloud.new_uplink(hostile.name, "crt_err").await;
        assert_eq!((report.text("code"), report.text("core")), (code, CORE), "{reason}");
    }
}

over_each_link!(
    what_is_wrong_on_the_floor_is_refused_with_its_reason,
    what_is_wrong_at_the_cloud_is_refused_with_its_reason_and_the_right_certificate_still_counts,
    a_child_that_floods_is_counted_and_takes_nobody_elses_turn,
);

async fn what_is_wrong_on_the_floor_is_refused_with_its_reason(via: Via) {
    let mut site = Site::plain(via);
    site.gateway.started().await;
    let mut cloud = site.cloud().await;
    let attacker = site.on_floor("attacker").connect().await.expect("connects");
    let hostiles = from_the_floor();
    let reported: Vec<_> = hostiles.iter().filter_map(|h| h.reported.map(|_| h.name)).collect();
    for (number, hostile) in hostiles.into_iter().enumerate() {
        attack(&mut site, &attacker, &mut cloud, hostile, number).await;
    }
    // Nothing else of all that was told to the cloud.
    cloud.catch_up().await;
    let told = |seen: &&Seen| !seen.name.starts_with("honest-");
    for seen in cloud.seen.iter().filter(told) {
        assert_eq!(seen.kind, "crt_err", "{seen:?}");
        assert!(reported.contains(&&*seen.name), "{seen:?}");
    }
}

async fn what_is_wrong_at_the_cloud_is_refused_with_its_reason_and_the_right_certificate_still_counts(
    via: Via,
) {
    let mut site = Site::plain(via);
    site.gateway.started().await;
    let mut cloud = site.cloud().await;
    let attacker = Login::plain(site.cloud.port(), "attacker").connect().await.expect("connects");
    let mut device = site.device("dev-a").await;
    cloud.request("dev-a", &json!({"rotationId": "r-1", "core": CORE})).await;
    let asked = site.downlink(&cloud, &mut device, "csr_req").await;
    device.send_csr(&asked).await;
    let csr = cloud.uplink("dev-a", "csr_res").await;
    let waiting = csr.text("CSR").to_owned();
    let hostiles = from_the_cloud(cloud.authority(), "dev-a", &waiting);
    // What is over 5,000 bytes never gets through lite.
    let arrives = |hostile: &Hostile| via != Via::Lite || hostile.payload.len() < 4_096;
    for (number, hostile) in hostiles.into_iter().filter(arrives).enumerate() {
        attack(&mut site, &attacker, &mut cloud, hostile, number).await;
    }
    let shown = site.gateway.snapshot().expect("a snapshot");
    assert_eq!(row(&shown, "dev-a").map(|row| row.state.as_str()), Some("await-cert"));

    cloud.certify(&csr).await;
    let crt = site.downlink(&cloud, &mut device, "crt").await;
    assert_eq!(crt.text("certificatePem"), cloud.issue(&csr));
    device.ack(&crt).await;
    let ack = cloud.uplink("dev-a", "crt_ack").await;
    cloud.settle(&ack).await;
    site.gateway
        .until("it is done", |shown| {
            row(shown, "dev-a").is_some_and(|row| row.state.as_str() == "done")
        })
        .await;
}

async fn a_child_that_floods_is_counted_and_takes_nobody_elses_turn(via: Via) {
    const FLOOD: usize = 2_000;
    let mut site = Site::plain(via);
    site.gateway.started().await;
    let mut cloud = site.cloud().await;
    let attacker = site.on_floor("attacker").connect().await.expect("connects");
    let keys: Vec<_> = (0..20).map(|_| KeyPair::generate().expect("a key")).collect();
    let payloads: Vec<_> = keys.iter().map(|key| csr_res(&csr("flood", key))).collect();
    let flood = async {
        for payload in payloads.iter().cycle().take(FLOOD) {
            attacker.queue(&topic("flood", "csr_res"), payload.clone()).await.expect("taken");
        }
        attacker.publish("flood/over", "x").await.expect("the broker has taken all");
    };
    tokio::join!(flood, site.rotate(&mut cloud, "dev-a"));
    site.gateway.until_done("dev-a").await;
    // All came, few were read, and it costs the cloud one CSR or two a minute.
    site.gateway
        .until("all of the flood is counted", |shown| {
            let read = counted(shown, "local", Reason::CsrAccepted) - 1
                + counted(shown, "local", Reason::Repeated)
                + counted(shown, "local", Reason::StaleKey);
            read + counted(shown, "local", Reason::Flood) >= FLOOD as u64
        })
        .await;
    let shown = site.gateway.snapshot().expect("a snapshot");
    assert!(counted(&shown, "local", Reason::Flood) > FLOOD as u64 / 2, "{:#?}", shown.summary);
    cloud.catch_up().await;
    let keys: std::collections::BTreeSet<_> = cloud
        .seen
        .iter()
        .filter(|seen| seen.name == "flood")
        .map(|seen| seen.text("CSR").to_owned())
        .collect();
    assert!(keys.len() <= 2, "{} keys reached the cloud", keys.len());
    site.rotate(&mut cloud, "dev-b").await;
}
