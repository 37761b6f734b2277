//! The core's own certificate, rotated under either nucleus.

use std::{fs, path::Path};

use certrelay::{status::StatusSnapshot, wire::CertificateId, x509};
use serde_json::json;

use crate::{
    core_site::{CoreSite, Plan},
    harness::{CORE, Via},
    peers::{Cloud, Seen, certificate_id},
};

under_each_nucleus!(
    the_core_rotates_and_says_so_over_its_new_certificate,
    a_cloud_that_never_settles_leaves_the_old_pair_where_it_is,
    a_second_request_renames_the_rotation_and_makes_no_second_key,
    the_core_rotates_twice,
);

/// Up to the certificate, which is in use when this returns.
async fn rotated(site: &CoreSite, cloud: &mut Cloud, rotation: &str) -> (Seen, CertificateId) {
    let csr = site.asked(cloud, rotation).await;
    cloud.certify(&csr).await;
    let id = certificate_id(&cloud.issue(&csr));
    let ack = site.acked(cloud).await;
    assert_eq!((ack.text("certificateId"), ack.text("rotationId")), (&*id.to_string(), rotation));
    assert_eq!((site.in_use(), site.configured()), (Some(id), id));
    (ack, id)
}

/// Nothing is under way, and nothing is kept of what was. What the gateway says before it has
/// looked does not count.
fn idle(shown: &StatusSnapshot) -> bool {
    let core = shown.summary.core_certificate.as_ref();
    core.is_some_and(|c| c.stage == "idle" && !c.keeps_old_pair && c.certificate.is_some())
}

async fn the_core_rotates_and_says_so_over_its_new_certificate(via: Via) {
    let site = Plan::new(via).build();
    site.started().await;
    assert_eq!(site.in_use(), Some(site.first()));
    let mut cloud = site.cloud().await;
    let csr = site.asked(&mut cloud, "r-1").await;
    let der = pem::parse(csr.text("CSR")).expect("PEM").into_contents();
    let old = fs::read_to_string(&site.files().certificate).expect("it is there");
    let old = x509::read_certificate(pem::parse(old).expect("PEM").contents()).expect("readable");
    assert_ne!(x509::csr_key(&der).expect("a CSR"), old.key);
    // Nothing was switched yet.
    assert!(!site.files().certificate.is_symlink() && !site.files().key.is_symlink());

    let (ack, id) = rotated(&site, &mut cloud, "r-1").await;
    assert_eq!((site.supervisor.asked(), site.supervisor.starts()), (1, 2));
    site.settled(&mut cloud, &ack).await;
    site.until("the rotation is over", idle).await;
    for link in [&site.files().certificate, &site.files().key] {
        let to = fs::read_link(link).expect("it leads through `current`");
        assert!(to.starts_with(Path::new("certrelay/current")), "{}", to.display());
    }
    let core =
        site.snapshot().and_then(|shown| shown.summary.core_certificate).expect("it is shown");
    assert_eq!(core.certificate, Some(id));
    assert!(core.ended.is_some_and(|ended| ended.failed.is_none()));
    site.no_pair_was_torn();
    site.rotates_a_child(&mut cloud, "dev-a").await;
    assert_eq!(site.supervisor.nucleus().violations(), [""; 0]);
}

async fn a_cloud_that_never_settles_leaves_the_old_pair_where_it_is(via: Via) {
    let site = Plan::new(via).build();
    site.started().await;
    let mut cloud = site.cloud().await;
    let (_, id) = rotated(&site, &mut cloud, "r-1").await;
    for _ in 0..2 {
        assert!(site.has_first_key());
        site.supervisor.cut_the_power();
        site.until("the old pair is kept", |shown| {
            shown.summary.core_certificate.as_ref().is_some_and(|core| core.keeps_old_pair)
        })
        .await;
    }
    assert_eq!((site.configured(), site.supervisor.asked()), (id, 1));
    site.no_pair_was_torn();
}

async fn a_second_request_renames_the_rotation_and_makes_no_second_key(via: Via) {
    let site = Plan::new(via).build();
    site.started().await;
    let mut cloud = site.cloud().await;
    let first = site.asked(&mut cloud, "r-1").await;
    let second = site.asked(&mut cloud, "r-2").await;
    assert_eq!(first.text("CSR"), second.text("CSR"));
    let (ack, _) = rotated(&site, &mut cloud, "r-2").await;
    site.settled(&mut cloud, &ack).await;
    assert_eq!(site.supervisor.asked(), 1);
}

async fn the_core_rotates_twice(via: Via) {
    let site = Plan::new(via).build();
    site.started().await;
    let mut cloud = site.cloud().await;
    let mut seen = vec![site.first()];
    for rotation in ["r-1", "r-2"] {
        let (ack, id) = rotated(&site, &mut cloud, rotation).await;
        assert!(!seen.contains(&id));
        seen.push(id);
        site.settled(&mut cloud, &ack).await;
        site.until("the rotation is over", idle).await;
    }
    assert_eq!(site.supervisor.asked(), 2);
    site.no_pair_was_torn();
}

#[tokio::test]
async fn a_core_that_a_fleet_provisioned_is_found_by_the_nucleus_journal() {
    let site = Plan { is_fleet_provisioned: true, ..Plan::new(Via::Classic) }.build();
    site.started().await;
    let mut cloud = site.cloud().await;
    let (ack, _) = rotated(&site, &mut cloud, "r-1").await;
    site.settled(&mut cloud, &ack).await;
    site.until("the rotation is over", idle).await;
    let core =
        site.snapshot().and_then(|shown| shown.summary.core_certificate).expect("it is shown");
    let source = core.files.expect("they are known").source;
    assert!(source.contains("config.tlog"), "{source}");
}

#[tokio::test]
async fn nobody_on_the_floor_gets_the_core_a_certificate() {
    let site = Plan::new(Via::Classic).build();
    site.started().await;
    let mut cloud = site.cloud().await;
    let intruder = site.on_floor("intruder").await;
    let key = rcgen::KeyPair::generate().expect("a key");
    let csr = json!({"CSR": crate::peers::csr(CORE, &key)}).to_string();
    intruder.publish(&crate::harness::topic(CORE, "csr_res"), csr).await.expect("it is taken");
    let real = site.asked(&mut cloud, "r-1").await;
    let all = cloud.seen.iter().filter(|seen| seen.name == CORE && seen.kind == "csr_res");
    assert!(all.into_iter().all(|seen| seen.text("CSR") == real.text("CSR")));
}
