//! Many children at once, while the gateway is killed over and over.

use std::time::Duration;

use crate::{
    crowd::Crowd,
    harness::{Site, Via, memory},
    support::{now, peer::Login},
};

/// For a run of the full size on a busy machine.
const LONG: Duration = Duration::from_secs(300);

/// A gateway lives this long at most before it is killed.
const LIFE: Duration = Duration::from_millis(400);

/// It takes in a share of the CSRs in about this time.
const INTAKE: Duration = Duration::from_millis(40);

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

over_each_link!(every_csr_that_came_while_the_link_was_down_and_the_gateway_was_killed_is_answered,);

/// `CERTRELAY_CHILDREN=10000 CERTRELAY_KILLS=50` is the full size.
async fn every_csr_that_came_while_the_link_was_down_and_the_gateway_was_killed_is_answered(
    via: Via,
) {
    let (children, kills) = (setting("CERTRELAY_CHILDREN", 1000), setting("CERTRELAY_KILLS", 10));
    let mut site = Site::plain(via);
    let crowd = Crowd::new(children);
    site.gateway.started().await;
    let cloud = site.cloud_peer().await;
    let _floor = crowd.serve_floor(site.on_floor("children"), false).await;
    crowd.ask_all(&cloud).await;
    crowd.until_all_asked(&cloud, LONG).await;
    site.network.cut();

    let sender = site.on_floor("senders").connect().await.expect("connects");
    let began = now();
    let mut names = crowd.names();
    let mut most_memory = 0;
    for life in 0..kills {
        let share = children / kills + usize::from(life < children % kills);
        // Every other one dies while it takes them in; the others at any time, some before they
        // have come up.
        let is_sharp = life % 2 == 0;
        if is_sharp {
            site.gateway.serves("local").await;
        }
        for name in names.by_ref().take(share) {
            crowd.send_csr(&sender, name).await;
        }
        let longest = if is_sharp { INTAKE } else { LIFE };
        tokio::time::sleep(longest.mul_f64(fastrand::f64())).await;
        most_memory = most_memory.max(site.gateway.kill());
        site.gateway.start();
    }
    sender.publish("senders/over", "x").await.expect("the broker has taken all");
    site.gateway.serves("local").await;
    assert_eq!(crowd.count(|counts| counts.csrs.len() + counts.answered.len()), 0);

    let back = now();
    let _cloud = crowd.serve_cloud(cloud);
    site.network.restore();
    // And some more while it works off what has piled up.
    let later = kills.div_ceil(5);
    for _ in 0..later {
        let come = crowd.count(|counts| counts.csrs.len());
        let more = come + fastrand::usize(1..=(children / later / 2).max(1));
        let enough = more.min(children);
        crowd.until(LONG, "CSRs come", |counts| counts.csrs.len() >= enough).await;
        most_memory = most_memory.max(site.gateway.kill());
        site.gateway.start();
    }
    // And once in order, in the midst of work.
    site.gateway.serves("cloud").await;
    let (code, took) = site.gateway.terminate().await;
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(3), "{took:?}");
    site.gateway.start();
    crowd.until(LONG, "all are answered", |counts| counts.answered.len() == children).await;
    let answered = back.elapsed();
    crowd.until(LONG, "all have acknowledged", |counts| counts.acked.len() == children).await;
    let all_done = |shown: &certrelay::status::StatusSnapshot| {
        shown.children.len() == children
            && shown.children.iter().all(|row| row.state.as_str() == "done" && row.notices == 0)
    };
    let settler = Login::plain(site.cloud.port(), "settler").connect().await.expect("connects");
    tokio::select! {
        () = site.gateway.until_within(LONG, "all rotations are over", all_done) => {}
        never = crowd.settle_again(&settler) => match never {},
    }
    most_memory = most_memory.max(memory(site.gateway.pid(), "VmHWM:"));

    let counts = crowd.count(Clone::clone);
    let sent: u64 = counts.csrs.values().sum();
    println!(
        "{children} CSRs, {kills} kills with the link down, {} after: {} answered, 0 lost; {} repeats at the cloud; {} copies of \
         certificates; {:.1} s of kills, {:.1} s from the link's return to the last certificate; \
         at most {most_memory} KiB",
        later,
        counts.answered.len(),
        sent - children as u64,
        counts.certificates - children as u64,
        (back - began).as_secs_f64(),
        answered.as_secs_f64(),
    );
}
