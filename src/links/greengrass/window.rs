//! What may be under way to a nucleus at once.
//!
//! A nucleus says yes to what it has only written (lite) or spooled (classic), and has little room,
//! which other components share: lite for ten messages that the cloud's broker has not acknowledged,
//! or 15 kB; classic for 2.5 MiB. So a message holds its place here until it is seen to come back. Where
//! none comes back, because a policy forbids it, each holds its place for a moment only.

use std::{collections::VecDeque, time::Duration};

use aws_greengrass_ipc::Nucleus;
use tokio::time::Instant;

use crate::{links::Publish, wire::Mid};

/// How much may be under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    messages: usize,
    /// Topics and payloads, in bytes.
    bytes: usize,
}

/// Lite's limits less what other components of the device may need.
const LITE: Limits = Limits { messages: 8, bytes: 12_000 };

/// A part of the classic nucleus' spool.
const CLASSIC: Limits = Limits { messages: usize::MAX, bytes: 1 << 20 };

/// How long a message counts as under way after the nucleus has said yes: where messages come back,
/// and where none was seen to.
const LINGERS: Duration = Duration::from_secs(10);
const LINGERS_UNHEARD: Duration = Duration::from_secs(1);

/// The messages that are under way.
#[derive(Debug)]
pub(super) struct Window {
    limits: Limits,
    /// One has come back.
    is_heard: bool,
    held: VecDeque<Held>,
}

#[derive(Debug)]
struct Held {
    mid: Mid,
    topic: String,
    payload: Vec<u8>,
    /// `None`: the nucleus has not answered.
    until: Option<Instant>,
}

impl Window {
    /// A window of so many messages, or what the nucleus has room for.
    pub fn new(nucleus: Nucleus, unconfirmed: usize) -> Self {
        let limits = limits(nucleus, unconfirmed);
        Self { limits, is_heard: false, held: VecDeque::new() }
    }

    /// From now on a window of so many messages.
    pub fn resize(&mut self, nucleus: Nucleus, unconfirmed: usize) {
        self.limits = limits(nucleus, unconfirmed);
    }

    /// Whether one more may go now. The first always may.
    pub fn has_room(&self, publish: &Publish) -> bool {
        let bytes: usize = self.held.iter().map(|held| held.topic.len() + held.payload.len()).sum();
        let fits = bytes + publish.topic.len() + publish.payload.len() <= self.limits.bytes;
        self.held.is_empty() || (self.held.len() < self.limits.messages && fits)
    }

    /// It goes.
    pub fn hold(&mut self, publish: &Publish) {
        let Publish { mid, topic, payload, .. } = publish.clone();
        self.held.push_back(Held { mid, topic, payload, until: None });
    }

    /// The nucleus has said yes.
    pub fn taken(&mut self, mid: Mid, now: Instant) {
        let until = now + if self.is_heard { LINGERS } else { LINGERS_UNHEARD };
        let held = self.held.iter_mut().find(|held| held.mid == mid);
        if let Some(held) = held {
            held.until = Some(until);
        }
        self.let_go(now);
    }

    /// It was refused: nothing of it is under way.
    pub fn refused(&mut self, mid: Mid) {
        self.held.retain(|held| held.mid != mid);
    }

    /// A message came; if it is one of these, it has arrived.
    pub fn came_back(&mut self, topic: &str, payload: &[u8]) {
        let at = self.held.iter().position(|held| held.topic == topic && held.payload == payload);
        if let Some(at) = at {
            self.is_heard = true;
            self.held.remove(at);
        }
    }

    /// Forgets what has been under way for long enough.
    pub fn let_go(&mut self, now: Instant) {
        self.held.retain(|held| held.until.is_none_or(|until| until > now));
    }

    /// When [`Self::let_go`] makes room, if it does.
    pub fn next(&self) -> Option<Instant> {
        self.held.iter().filter_map(|held| held.until).min()
    }
}

fn limits(nucleus: Nucleus, unconfirmed: usize) -> Limits {
    let limits = match nucleus {
        Nucleus::Classic => CLASSIC,
        Nucleus::Lite => LITE,
    };
    Limits { messages: limits.messages.min(unconfirmed), ..limits }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::Qos;

    fn publish(number: u8, bytes: usize) -> Publish {
        let topic = "a".to_owned();
        Publish {
            mid: Mid([number; 16]),
            topic,
            payload: vec![number; bytes],
            qos: Qos::AtLeastOnce,
        }
    }

    fn fill(window: &mut Window, bytes: usize) -> u8 {
        (0..=u8::MAX)
            .find(|number| {
                let publish = publish(*number, bytes);
                let is_full = !window.has_room(&publish);
                if !is_full {
                    window.hold(&publish);
                }
                is_full
            })
            .expect("it is bounded")
    }

    #[test]
    fn a_nucleus_gets_no_more_than_is_wanted_and_lite_less_than_it_has_room_for() {
        assert_eq!(fill(&mut Window::new(Nucleus::Lite, 100), 100), 8);
        assert_eq!(fill(&mut Window::new(Nucleus::Lite, 5), 100), 5);
        assert_eq!(fill(&mut Window::new(Nucleus::Lite, 100), 4000), 2);
        assert_eq!(fill(&mut Window::new(Nucleus::Lite, 100), 100_000), 1);
        assert_eq!(fill(&mut Window::new(Nucleus::Classic, 100), 4000), 100);
        let mut grows = Window::new(Nucleus::Lite, 2);
        assert_eq!(fill(&mut grows, 100), 2);
        grows.resize(Nucleus::Lite, 100);
        assert_eq!(fill(&mut grows, 100), 6);
    }

    #[test]
    fn a_message_holds_its_place_until_it_comes_back_or_for_long() {
        for nucleus in [Nucleus::Classic, Nucleus::Lite] {
            let mut window = Window::new(nucleus, 8);
            let now = Instant::now();
            fill(&mut window, 100);
            window.came_back("a", &[0; 100]);
            window.came_back("b", &[1; 100]);
            assert_eq!(fill(&mut window, 100), 1);
            window.taken(Mid([5; 16]), now);
            assert_eq!(window.next(), Some(now + LINGERS));
            window.let_go(now + LINGERS_UNHEARD);
            assert_eq!(fill(&mut window, 100), 0);
            window.let_go(now + LINGERS);
            assert_eq!(fill(&mut window, 100), 1);
            window.refused(Mid([6; 16]));
            assert_eq!(fill(&mut window, 100), 1);
        }
    }

    #[test]
    fn where_nothing_comes_back_nobody_waits_long_for_it() {
        let mut window = Window::new(Nucleus::Classic, 8);
        let now = Instant::now();
        fill(&mut window, 100);
        window.taken(Mid([7; 16]), now);
        window.let_go(now + LINGERS_UNHEARD);
        assert_eq!(fill(&mut window, 100), 1);
    }
}
