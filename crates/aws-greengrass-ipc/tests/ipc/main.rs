//! The client against a peer that follows a script, and the rules of the wire to the letter.

mod calls;
mod cancel;
mod faults;
mod handshake;
mod peer;
mod subscriptions;
