//! The proofs: what the child signs where a request asks for it.

use certrelay::wire::{Nonce, Signature};

use crate::{
    MINUTE,
    world::{Tear, World},
};

const ONE: Nonce = Nonce([1; 16]);
const TWO: Nonce = Nonce([2; 16]);

fn nonces(proofs: &[Option<(Nonce, Signature)>]) -> Vec<Option<Nonce>> {
    proofs.iter().map(|proof| proof.as_ref().map(|(nonce, _)| *nonce)).collect()
}

#[test]
fn the_key_in_use_vouches_for_the_csr_and_the_new_key_for_the_ack() {
    let mut world = World::new();
    for (rotation, nonce) in [("r-1", Some(ONE)), ("r-2", None), ("r-3", Some(TWO))] {
        world.nonce = nonce;
        world.ask(Some(rotation));
        world.settle();
        assert_eq!(nonces(&world.csr_proofs).last(), Some(&nonce));
        assert_eq!(nonces(&world.ack_proofs).last(), Some(&nonce));
    }
    assert_eq!((world.csr_proofs.len(), world.ack_proofs.len()), (3, 3));
}

#[test]
fn wherever_the_process_ends_each_csr_and_each_ack_carries_its_proof() {
    let mut cuts = 0;
    for tear in [Tear::Before, Tear::Torn] {
        for cut in 0.. {
            let mut world = World::new();
            world.nonce = Some(ONE);
            world.cut_at(cut, tear);
            world.ask(Some("r-1"));
            world.settle();
            assert_eq!(world.current().facts.id, world.issued_last(), "cut {cut} {tear:?}");
            let all = [nonces(&world.csr_proofs), nonces(&world.ack_proofs)].concat();
            assert!(all.iter().all(|nonce| *nonce == Some(ONE)), "cut {cut} {tear:?}: {all:?}");
            if !world.was_cut() {
                break;
            }
            cuts += 1;
        }
    }
    println!("{cuts} cuts");
    assert!(cuts >= 24, "only {cuts} cuts");
}

#[test]
fn a_repeat_carries_the_same_proof_over_a_restart_too() {
    let mut world = World::new();
    world.nonce = Some(ONE);
    world.hold_certificate = true;
    world.lose_pubacks = true;
    world.ask(Some("r-1"));
    world.run_for(MINUTE);
    world.drop_connection();
    world.run_for(MINUTE);
    world.restart();
    world.run_for(MINUTE);
    world.hold_certificate = false;
    world.send_issued_again();
    world.run_for(MINUTE);
    world.restart();
    world.run_for(MINUTE);
    for proofs in [&world.csr_proofs, &world.ack_proofs] {
        assert!(proofs.len() >= 2, "{proofs:?}");
        assert!(proofs.iter().all(|proof| proof.is_some() && *proof == proofs[0]), "{proofs:?}");
    }
}

#[test]
fn a_request_with_another_nonce_is_answered_about_that_one_with_the_same_key() {
    let mut world = World::new();
    world.nonce = Some(ONE);
    world.hold_certificate = true;
    world.ask(Some("r-1"));
    world.run_for(MINUTE);
    world.nonce = Some(TWO);
    world.ask(Some("r-2"));
    world.run_for(MINUTE);
    assert_eq!(nonces(&world.csr_proofs), [Some(ONE), Some(TWO)]);
    assert_eq!(world.keys_made(), 1);
    world.hold_certificate = false;
    world.settle();
    assert_eq!(nonces(&world.ack_proofs), [Some(TWO)]);
}

#[test]
fn a_request_of_another_rotation_that_wants_no_proof_gets_none() {
    let mut world = World::new();
    world.nonce = Some(ONE);
    world.hold_certificate = true;
    world.ask(Some("r-1"));
    world.run_for(MINUTE);
    world.nonce = None;
    world.ask(Some("r-1"));
    world.run_for(MINUTE);
    world.ask(Some("r-2"));
    world.run_for(MINUTE);
    assert_eq!(nonces(&world.csr_proofs), [Some(ONE), Some(ONE), None]);
}

#[test]
fn an_ack_that_is_asked_for_again_is_about_the_newest_nonce() {
    let mut world = World::new();
    world.nonce = Some(ONE);
    world.ask(Some("r-1"));
    world.settle();
    world.send_issued_again();
    world.run_for(MINUTE);
    world.nonce = Some(TWO);
    world.ask(Some("r-1"));
    world.run_for(MINUTE);
    world.restart();
    world.send_issued_again();
    world.run_for(MINUTE);
    assert_eq!(nonces(&world.ack_proofs), [Some(ONE), Some(ONE), Some(TWO), Some(TWO)]);
    assert_eq!(world.keys_made(), 1);
}

#[test]
fn an_ack_that_the_broker_has_yet_to_take_is_about_the_newest_nonce() {
    let mut world = World::new();
    world.nonce = Some(ONE);
    world.lose_pubacks = true;
    world.ask(Some("r-1"));
    world.run_for(10 * MINUTE);
    world.nonce = Some(TWO);
    world.ask(Some("r-1"));
    world.run_for(MINUTE);
    world.restart();
    world.run_for(MINUTE);
    assert_eq!(nonces(&world.ack_proofs), [Some(ONE), Some(TWO), Some(TWO)]);
}

#[test]
fn another_certificate_of_the_same_rotation_is_acknowledged_with_a_proof() {
    let mut world = World::new();
    world.nonce = Some(ONE);
    world.ask(Some("r-1"));
    world.settle();
    world.reissue();
    world.settle();
    assert_eq!(world.acks.last().map(|ack| ack.0), Some(world.issued_last()));
    assert_eq!(nonces(&world.ack_proofs), [Some(ONE), Some(ONE)]);
}

#[test]
fn a_kind_of_key_that_makes_no_proofs_rotates_without() {
    let mut world = World::new();
    world.nonce = Some(ONE);
    world.no_proofs = true;
    world.ask(Some("r-1"));
    world.settle();
    assert_eq!(nonces(&world.csr_proofs), [None]);
    assert_eq!(nonces(&world.ack_proofs), [None]);
}
