//! What goes to the cloud, in which order and how fast.

use std::{num::NonZeroU32, time::Duration};

use certrelay::{
    reason::Reason,
    relay::{Event, Settings, Side},
    wire::Kind,
};
use serde_json::json;

use crate::{
    bench::{
        Answer, Bench, CORE, PUMP, bytes, csr_payload, days, hours, minutes, name, secs, settings,
    },
    pki,
};

fn csrs(b: &Bench) -> Vec<String> {
    b.sent(Side::Cloud, Kind::CsrRes).iter().map(|p| p.to.clone()).collect()
}

#[test]
fn a_csr_goes_up_when_it_has_settled_and_only_the_newest() {
    let mut b = Bench::up();
    b.reach_await_csr(PUMP, "r1");
    for key in 1..=4 {
        b.csr(PUMP, key);
        b.advance(secs(3));
    }
    assert!(csrs(&b).is_empty());
    assert_eq!(b.bodies(PUMP).0, Some(pki::digest(4)), "each is committed");
    b.advance(secs(3));
    assert_eq!(csrs(&b).len(), 1);
    let sent = b.last(Side::Cloud, Kind::CsrRes);
    let message = certrelay::wire::CsrRes::parse(&sent.payload).expect("readable");
    assert_eq!(message.csr, pki::csr(PUMP, 4));
    assert_eq!(message.header.core, Some(name(CORE)));
    assert_eq!(message.header.rotation.expect("named").as_str(), "r1");
}

#[test]
fn no_more_than_one_csr_a_minute_of_a_child_goes_up_and_none_is_refused() {
    let mut b = Bench::up();
    b.reach_await_csr(PUMP, "r1");
    for key in 0..60 {
        b.csr(PUMP, 1 + key % 9);
        b.request(PUMP, "r1");
        b.advance(secs(10));
    }
    let sent = b.sent(Side::Cloud, Kind::CsrRes);
    assert!(sent.len() <= 11, "{} in ten minutes", sent.len());
    let apart = sent.windows(2).map(|pair| pair[1].at - pair[0].at).min().expect("some");
    assert!(apart >= minutes(1), "{apart:?}");
    assert_eq!(b.counted(Side::Local, Reason::Flood), 0);
}

#[test]
fn no_more_than_one_csr_a_minute_goes_up_over_a_link_that_flaps() {
    let mut b = Bench::up();
    b.reach_await_cert(PUMP, "r1", 1);
    b.forget();
    for _ in 0..30 {
        b.cloud_down();
        b.cloud_up();
        b.advance(secs(2));
    }
    assert!(csrs(&b).len() <= 2, "{} in a minute", csrs(&b).len());
}

#[test]
fn a_csr_is_repeated_between_a_minute_and_an_hour_until_it_is_answered() {
    let mut b = Bench::up();
    b.reach_await_csr(PUMP, "r1");
    b.csr(PUMP, 1);
    b.advance(days(1));
    let sent = b.sent(Side::Cloud, Kind::CsrRes);
    let pauses: Vec<Duration> = sent.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(pauses[0] >= secs(45) && pauses.iter().all(|p| *p <= hours(1)), "{pauses:?}");
    assert!(sent.len() > 20 && sent.len() < 45);
    let mids: std::collections::BTreeSet<_> = sent.iter().map(|p| p.mid()).collect();
    assert_eq!(mids.len(), 1, "one message, one id");
}

#[test]
fn a_csr_goes_up_as_soon_as_the_link_is_up_again() {
    let mut b = Bench::up();
    b.reach_await_cert(PUMP, "r1", 1);
    b.advance(hours(6));
    b.cloud_down();
    b.forget();
    b.advance(hours(2));
    assert!(csrs(&b).is_empty());
    b.cloud_up();
    assert_eq!(csrs(&b).len(), 1);
}

#[test]
fn the_signature_is_checked_once_and_only_for_what_goes_up() {
    let mut b = Bench::up();
    b.reach_await_csr(PUMP, "r1");
    b.csr(PUMP, 1);
    b.csr(PUMP, 2);
    b.advance(secs(4));
    assert!(b.verifies.is_empty());
    b.advance(hours(5));
    assert_eq!(b.verifies, [(name(PUMP), pki::digest(2))]);
    assert!(csrs(&b).len() > 3);
}

#[test]
fn nothing_goes_up_before_its_signature_is_checked() {
    let mut b = Bench::up();
    b.verify = false;
    b.reach_await_csr(PUMP, "r1");
    b.csr(PUMP, 1);
    b.advance(hours(1));
    assert!(csrs(&b).is_empty());
    assert_eq!(b.verifies.len(), 1);
    b.feed(Event::Verified { child: name(PUMP), key: pki::digest(1), outcome: Ok(()) });
    assert_eq!(csrs(&b).len(), 1);
}

#[test]
fn the_check_of_a_key_that_was_replaced_meanwhile_says_nothing_about_the_new_one() {
    let mut b = Bench::up();
    b.verify = false;
    b.reach_await_csr(PUMP, "r1");
    b.csr(PUMP, 1);
    b.advance(secs(6));
    b.csr(PUMP, 2);
    b.feed(Event::Verified { child: name(PUMP), key: pki::digest(1), outcome: Ok(()) });
    b.advance(hours(1));
    assert!(csrs(&b).is_empty());
    assert_eq!(b.verifies.last(), Some(&(name(PUMP), pki::digest(2))));
}

#[test]
fn a_bad_signature_is_reported_and_the_child_asked_for_another_csr() {
    let mut b = Bench::up();
    b.reach_await_csr(PUMP, "r1");
    b.forget();
    b.local(PUMP, Kind::CsrRes, &csr_payload(&pki::badly_signed_csr(PUMP, 1)));
    b.advance(secs(6));
    b.expect(PUMP, "await-csr");
    assert_eq!(b.errors(), ["bad-signature"]);
    assert!(csrs(&b).is_empty());
    assert_eq!(b.bodies(PUMP), (None, None));
    b.advance(minutes(11));
    assert!(!b.sent(Side::Local, Kind::CsrReq).is_empty());
}

#[test]
fn a_bad_signature_that_nobody_asked_for_ends_there() {
    let mut b = Bench::up();
    b.local(PUMP, Kind::CsrRes, &csr_payload(&pki::badly_signed_csr(PUMP, 1)));
    b.advance(days(2));
    b.expect(PUMP, "done");
    assert!(b.sent(Side::Local, Kind::CsrReq).is_empty());
    assert_eq!(b.errors()[0], "bad-signature");
}

#[test]
fn notices_go_first_then_who_expires_soonest_then_who_waits_longest() {
    let mut b = Bench::with(Settings {
        messages_per_second: NonZeroU32::new(1),
        unconfirmed: 100,
        ..settings()
    });
    b.links_up();
    for (child, not_after) in [("late", 3_000_000_000_u64), ("soon", 1_900_000_000)] {
        let request = json!({ "core": CORE, "rotationId": "r1", "notAfter": not_after });
        b.cloud(child, Kind::CsrReq, &bytes(request));
    }
    b.request("old", "r1");
    b.request("young", "r1");
    let id = b.reach_await_ack("acks", "r1", 1);
    b.cloud_down();
    for (key, child) in [(2, "old"), (3, "young"), (4, "late"), (5, "soon")] {
        b.csr(child, key);
        b.advance(secs(1));
    }
    b.advance(secs(30));
    b.ack("acks", id);
    b.fail("errs", "broken");
    b.forget();
    b.cloud_up();
    b.advance(secs(30));
    let order: Vec<&str> =
        b.published.iter().filter(|p| p.side == Side::Cloud).map(|p| p.to.as_str()).collect();
    let mut first = order[..2].to_vec();
    first.sort_unstable();
    assert_eq!(first, ["acks", "errs"]);
    assert_eq!(order[2..6], ["soon", "late", "old", "young"], "{order:?}");
}

#[test]
fn no_child_takes_anothers_turn_by_sending_much() {
    let mut b = Bench::with(Settings { messages_per_second: NonZeroU32::new(1), ..settings() });
    b.links_up();
    for child in ["busy", PUMP] {
        b.reach_await_csr(child, "r1");
    }
    for n in 0..200 {
        b.csr("busy", n % 9);
        if n == 100 {
            b.csr(PUMP, 20);
        }
        b.advance(Duration::from_millis(200));
    }
    assert!(csrs(&b).iter().any(|to| to == PUMP));
}

#[test]
fn no_more_messages_a_second_go_up_than_the_setting_says() {
    let mut b = Bench::with(Settings { unconfirmed: 1000, ..settings() });
    b.links_up();
    b.cloud_down();
    for n in 0..200 {
        b.fail(&format!("pump-{n}"), "broken");
    }
    b.cloud_up();
    b.advance(secs(60));
    let sent = b.sent(Side::Cloud, Kind::CrtErr);
    assert_eq!(sent.len(), 200);
    for window in sent.windows(41) {
        assert!(window[40].at - window[0].at >= Duration::from_millis(900), "over 20 a second");
    }
}

#[test]
fn no_more_messages_are_unanswered_than_the_setting_says() {
    let mut b = Bench::up();
    b.cloud_answer = Answer::Nothing;
    for n in 0..50 {
        b.fail(&format!("pump-{n}"), "broken");
        b.advance(Duration::from_millis(100));
    }
    assert_eq!(b.errors().len(), 8);
    let copy = b.published[0].copy;
    b.feed(Event::Sent { side: Side::Cloud, mid: copy, outcome: Ok(()) });
    b.advance(secs(1));
    assert_eq!(b.errors().len(), 9);
}

#[test]
fn of_each_message_one_copy_at_most_is_unanswered() {
    let mut b = Bench::up();
    b.cloud_answer = Answer::Nothing;
    b.fail(PUMP, "broken");
    b.advance(days(2));
    assert_eq!(b.errors().len(), 1);
}

#[test]
fn rotations_that_nobody_asked_for_go_up_no_faster_than_sixty_a_minute() {
    let mut b = Bench::up();
    for n in 0..180 {
        b.csr(&format!("pump-{n}"), 1);
    }
    b.advance(secs(65));
    let first = csrs(&b).into_iter().collect::<std::collections::BTreeSet<_>>().len();
    // Those whose turn comes while their CSR settles go together.
    assert!((60..=66).contains(&first), "{first} in the first minute");
    b.advance(minutes(3));
    let all: std::collections::BTreeSet<_> = csrs(&b).into_iter().collect();
    assert_eq!(all.len(), 180, "none is refused");
}

#[test]
fn a_child_that_floods_with_csrs_does_not_hold_up_anothers_rotation() {
    let mut b = Bench::up();
    for n in 0..600 {
        b.csr("busy", n % 30);
        b.advance(Duration::from_millis(100));
    }
    b.csr(PUMP, 40);
    b.advance(minutes(2));
    assert!(csrs(&b).iter().any(|to| to == PUMP), "one child took every turn");
}

#[test]
fn a_rotation_that_the_cloud_asked_for_does_not_wait_for_those_nobody_asked_for() {
    let mut b = Bench::up();
    for n in 0..180 {
        b.csr(&format!("pump-{n}"), 1);
    }
    b.reach_await_csr("asked", "r1");
    b.csr("asked", 2);
    b.advance(secs(7));
    assert!(csrs(&b).iter().any(|to| to == "asked"));
}

#[test]
fn what_the_link_refuses_for_good_is_said_and_not_tried_at_once_again() {
    let mut b = Bench::up();
    b.cloud_answer = Answer::Refused;
    b.fail(PUMP, "broken");
    b.advance(hours(5));
    assert!((2..=8).contains(&b.errors().len()), "{}", b.errors().len());
    assert!(b.counted(Side::Cloud, Reason::LinkRefused) >= 2);
}

#[test]
fn a_csr_that_came_before_the_cloud_asked_counts_as_asked_for() {
    let mut b = Bench::up();
    b.local(PUMP, Kind::CsrRes, &csr_payload(&pki::badly_signed_csr(PUMP, 1)));
    b.request(PUMP, "r1");
    b.advance(secs(7));
    b.expect(PUMP, "await-csr");
}
