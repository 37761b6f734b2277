//! A store without room: what is new is refused visibly, what is under way goes on.

use std::time::Duration;

use certrelay::reason::Reason;

use crate::{
    crowd::Crowd,
    harness::{Site, Via, counted},
    support::peer::Login,
};

const LONG: Duration = Duration::from_secs(120);

/// More than fit into the smallest store.
const CHILDREN: usize = 3_000;

over_each_link!(a_store_without_room_refuses_what_is_new_and_works_off_what_it_has,);

async fn a_store_without_room_refuses_what_is_new_and_works_off_what_it_has(via: Via) {
    let mut site = Site::plain(via);
    site.gateway.amend("[store]\nmaxBytes = '4MiB'\n");
    let crowd = Crowd::new(CHILDREN);
    site.gateway.started().await;
    let cloud = site.cloud_peer().await;
    let _floor = crowd.serve_floor(site.on_floor("children"), false).await;
    crowd.ask_all(&cloud).await;
    site.gateway.until("requests are taken", |shown| shown.children.len() > CHILDREN / 4).await;
    site.network.cut();
    let sender = site.on_floor("senders").connect().await.expect("connects");
    for name in crowd.names() {
        crowd.send_csr(&sender, name).await;
    }
    site.gateway
        .until("CSRs are refused", |shown| counted(shown, "local", Reason::StoreFull) > 0)
        .await;

    let _cloud = crowd.serve_cloud(cloud);
    site.network.restore();
    let is_worked_off = |shown: &certrelay::status::StatusSnapshot| {
        let waits = |row: &certrelay::status::Row| {
            matches!(row.state.as_str(), "await-cert" | "await-ack") || row.notices > 0
        };
        shown.summary.store.failing.is_none()
            && !shown.children.iter().any(waits)
            && shown.children.iter().any(|row| row.state.as_str() == "done")
    };
    let settler = Login::plain(site.cloud.port(), "settler").connect().await.expect("connects");
    tokio::select! {
        () = site.gateway.until_within(LONG, "all that was taken is worked off", is_worked_off) => {}
        never = crowd.settle_again(&settler) => match never {},
    }
    let taken = crowd.count(|counts| counts.csrs.len());
    crowd.until(LONG, "each CSR is answered", |counts| counts.answered.len() == taken).await;
    println!("{taken} of {CHILDREN} CSRs found room; all of them were answered");
}
