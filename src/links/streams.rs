//! The subscriptions that make a link over the nucleus' IPC, looked at as one.
//!
//! The client keeps each of them over connections. Here stands which of them must be granted before
//! the link is up, and how they stand together. Never subscribes again by itself: when that is
//! right depends on the nucleus.

use std::{
    future::poll_fn,
    task::{Context, Poll, Waker},
};

use aws_greengrass_ipc::{CallError, ErrorCode, Inactive, Subscription, Update};

use crate::wire::escape;

/// A topic or filter, and whether the link is of use without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub filter: String,
    pub needed: bool,
}

impl Wanted {
    pub fn needed(filter: String) -> Self {
        Self { filter, needed: true }
    }

    pub fn welcome(filter: String) -> Self {
        Self { filter, needed: false }
    }
}

/// How the subscriptions stand together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Some have not been answered.
    Waiting,
    /// All that are needed are granted, and the others are answered.
    Granted,
    /// One that is needed is refused, and will be asked for again.
    Refused { why: String },
}

/// What one of them said.
#[derive(Debug)]
pub(super) enum News<E> {
    Message(E),
    /// It was granted: the [`Verdict`] may be another.
    Granted,
    /// It was refused, or ended: the [`Verdict`] may be another.
    Standing,
}

/// The subscriptions of one link.
#[derive(Debug)]
pub(super) struct Streams<E> {
    streams: Vec<Stream<E>>,
    /// Which is asked first, so that none starves another.
    first: usize,
    /// What was reported of the messages that were shed.
    shed: u64,
}

#[derive(Debug)]
struct Stream<E> {
    wanted: Wanted,
    subscription: Subscription<E>,
    standing: Standing,
}

#[derive(Debug)]
enum Standing {
    Waiting,
    Granted,
    /// `may_help`: it is no policy that forbids it.
    Refused {
        why: String,
        may_help: bool,
    },
}

impl<E> Streams<E> {
    /// Subscribes to all.
    pub fn new(wanted: &[Wanted], subscribe: impl Fn(&str) -> Subscription<E>) -> Self {
        let streams = wanted.iter().map(|wanted| Stream {
            wanted: wanted.clone(),
            subscription: subscribe(&wanted.filter),
            standing: Standing::Waiting,
        });
        Self { streams: streams.collect(), first: 0, shed: 0 }
    }

    /// The next that any of them says. Cancel-safe.
    pub async fn next(&mut self) -> News<E> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The messages that have come and were not read; how the subscriptions stand is passed over.
    pub fn unread(&mut self) -> Vec<E> {
        let mut messages = Vec::new();
        while let Poll::Ready(news) = self.poll_next(&mut Context::from_waker(Waker::noop())) {
            if let News::Message(message) = news {
                messages.push(message);
            }
        }
        messages
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<News<E>> {
        let count = self.streams.len();
        self.first = (self.first + 1) % count.max(1);
        for at in (self.first..count).chain(0..self.first) {
            if let Poll::Ready(update) = self.streams[at].subscription.poll_next(cx) {
                return Poll::Ready(self.streams[at].take(update));
            }
        }
        Poll::Pending
    }

    /// How they stand together.
    pub fn verdict(&self) -> Verdict {
        let refused = self.streams.iter().filter(|stream| stream.wanted.needed);
        let refused = refused.filter_map(Stream::refusal).next();
        if let Some(why) = refused {
            return Verdict::Refused { why };
        }
        let waits = |stream: &Stream<E>| matches!(stream.standing, Standing::Waiting);
        if self.streams.iter().any(waits) { Verdict::Waiting } else { Verdict::Granted }
    }

    /// Subscribes anew to those that were refused, instead of waiting for their next try. Not to
    /// those that a policy forbids.
    pub fn ask_again(&mut self, subscribe: impl Fn(&str) -> Subscription<E>) {
        for stream in &mut self.streams {
            if matches!(stream.standing, Standing::Refused { may_help: true, .. }) {
                self.shed -= self.shed.min(stream.subscription.shed());
                stream.subscription = subscribe(&stream.wanted.filter);
                stream.standing = Standing::Waiting;
            }
        }
    }

    /// Gives up those that were refused; says why, for each.
    pub fn give_up_refused(&mut self) -> Vec<String> {
        let refusals = self.streams.iter().filter_map(Stream::refusal).collect();
        self.streams.retain(|stream| stream.refusal().is_none());
        refusals
    }

    /// How many messages were shed since this was last asked.
    pub fn take_shed(&mut self) -> u64 {
        let total: u64 = self.streams.iter().map(|stream| stream.subscription.shed()).sum();
        total.saturating_sub(std::mem::replace(&mut self.shed, total))
    }
}

impl<E> Stream<E> {
    fn take(&mut self, update: Update<E>) -> News<E> {
        match update {
            Update::Event(event) => return News::Message(event),
            Update::Active { .. } => {
                self.standing = Standing::Granted;
                return News::Granted;
            }
            Update::Inactive(Inactive::Refused(error)) => {
                let is_forbidden = matches!(&error, CallError::Service(error)
                    if error.code == ErrorCode::Unauthorized);
                self.standing =
                    Standing::Refused { why: error.to_string(), may_help: !is_forbidden };
            }
            Update::Inactive(Inactive::Ended(_) | Inactive::ConnectionLost) => {
                self.standing = Standing::Waiting;
            }
        }
        News::Standing
    }

    fn refusal(&self) -> Option<String> {
        let Standing::Refused { why, .. } = &self.standing else { return None };
        Some(format!("no subscription to {}: {}", self.wanted.filter, escape(why)))
    }
}
