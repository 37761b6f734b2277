//! The proofs, end to end: the real agent signs, the gateway passes on, and the cloud can check.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use certrelay::{
    proof,
    wire::{Nonce, Signature, ThingName},
    x509,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::{
    harness::{CORE, DEADLINE, Site, Via},
    peers::{Cloud, Seen, certificate_id},
    support::within,
};

const NONCE: Nonce = Nonce([0xA7; 16]);

over_each_link!(a_device_proves_to_the_cloud_that_csr_and_ack_are_its_own);

/// The agent on a device; killed when dropped.
struct Agent {
    process: Child,
    _dir: TempDir,
}

impl Agent {
    /// The agent, and the certificate that it begins with.
    fn start(site: &Site, name: &str) -> (Self, String) {
        let dir = tempfile::tempdir().expect("a folder");
        let files = site.files_on_floor(name);
        let read = |path| std::fs::read_to_string(path).expect("just written");
        let certificate = read(&files.certificate);
        crate::support::write(&dir.path().join("cert.pem"), &certificate);
        crate::support::write(&dir.path().join("key.pem"), read(&files.key));
        let process = Command::new(env!("CARGO_BIN_EXE_certrelay-child"))
            .args(["run", "--thing", name, "--broker", &format!("localhost:{}", site.floor.port())])
            .arg("--dir")
            .arg(dir.path())
            .arg("--ca")
            .arg(files.ca)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        (Self { process: process.expect("the agent starts"), _dir: dir }, certificate)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.process.kill().and_then(|()| self.process.wait()).expect("it dies");
    }
}

async fn a_device_proves_to_the_cloud_that_csr_and_ack_are_its_own(via: Via) {
    let mut site = Site::mtls(via);
    site.gateway.started().await;
    let mut cloud = site.cloud().await;
    let (_agent, old) = Agent::start(&site, "dev-a");

    let request = json!({"rotationId": "r-1", "core": CORE, "nonce": NONCE});
    cloud.request("dev-a", &request).await;
    let csr = answer(&mut cloud, "csr_req", "csr_res").await;
    let der = pem::parse(csr.text("CSR")).expect("PEM").into_contents();
    let new = x509::csr_key(&der).expect("a CSR");
    assert_eq!(verify(&old, &proof::csr_text(&thing(), new, NONCE), &csr), Ok(()));

    let certificate = cloud.issue(&csr);
    cloud.certify(&csr).await;
    let ack = answer(&mut cloud, "crt", "crt_ack").await;
    let id = certificate_id(&certificate);
    assert_eq!(ack.text("certificateId"), id.to_string());
    let text = proof::ack_text(&thing(), id, NONCE);
    assert_eq!(verify(&certificate, &text, &ack), Ok(()));
    assert!(verify(&old, &text, &ack).is_err(), "it is the new key's");
}

/// What comes up of what was said; it is said again as long as nothing comes, as it may be lost.
async fn answer(cloud: &mut Cloud, said: &str, kind: &str) -> Seen {
    let said_again = async {
        loop {
            match timeout(Duration::from_secs(3), cloud.uplink("dev-a", kind)).await {
                Ok(seen) => return seen,
                Err(_) => cloud.say_again("dev-a", said).await,
            }
        }
    };
    within(DEADLINE, &format!("a {kind} of dev-a"), said_again).await
}

fn thing() -> ThingName {
    "dev-a".parse().expect("a name")
}

fn verify(pem: &str, text: &[u8], seen: &Seen) -> Result<(), proof::ProofError> {
    let certificate = pem::parse(pem).expect("PEM");
    let spki = x509::certificate_spki(certificate.contents()).expect("readable");
    let sig: Signature = seen.text("sig").parse().expect("a signature");
    proof::verify(&spki, text, &sig)
}
