//! The core's own credential in a world of its own: every crash, hostile orders, years in
//! milliseconds.
//!
//! The identity and every CSR and certificate are real; the disk, the nucleus, the relay, the cloud
//! and time are played. After every step the witness checks what must never be.

mod cloud;
mod disk;
mod nucleus;
mod pki;
mod relay;
mod witness;
mod world;

use nucleus::Kind;
use world::{Act, DAY, HOUR, MINUTE, SECOND, World};

const KINDS: [Kind; 2] = [Kind::Classic, Kind::Lite];

#[test]
fn a_certificate_rotates() {
    for kind in KINDS {
        let mut world = World::new(kind, 1);
        world.later(MINUTE, Act::Do(World::ask));
        world.run(HOUR);
        world.must_settle();
        println!("{}", world.witness.last());
        assert_eq!(world.cloud.acked.len(), 1);
        assert_eq!(world.witness.restarts.len(), 1);
    }
}
