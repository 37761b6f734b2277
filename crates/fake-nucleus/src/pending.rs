//! Something that will be known later: awaited on any runtime, or waited for on any thread.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

/// An answer that is not there yet. It needs no particular runtime.
///
/// `None` means that there will be none: the nucleus was stopped or restarted first.
#[derive(Debug)]
#[must_use = "nothing waits for the answer unless it is awaited"]
pub struct Pending<T>(oneshot::Receiver<T>);

impl<T> Pending<T> {
    pub(crate) fn new() -> (oneshot::Sender<T>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(receiver))
    }

    /// Blocks this thread until the answer is there, but no longer than `patience`.
    ///
    /// Whoever is to answer must be able to go on meanwhile: a task on a runtime that has this
    /// thread alone can't.
    pub fn wait(self, patience: Duration) -> Option<T> {
        let end = Instant::now() + patience;
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut me = pin!(self);
        loop {
            if let Poll::Ready(answer) = me.as_mut().poll(&mut context) {
                return answer;
            }
            let left = end.checked_duration_since(Instant::now())?;
            thread::park_timeout(left);
        }
    }
}

impl<T> Future for Pending<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.0).poll(context).map(Result::ok)
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
