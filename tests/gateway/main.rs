//! The real gateway program between two real Mosquittos: what it promises end to end.
//!
//! The cloud and the children are scripted MQTT peers, so that each test says exactly what they do
//! and when. Nothing waits for time to pass: every wait is for something, with a deadline.

#[path = "../support/mod.rs"]
mod support;

mod crowd;
mod figures;
mod full;
mod harness;
mod hostile;
mod many;
mod outages;
mod peers;
mod rotation;
