//! The cloud in memory: every port, with a CA that truly signs, asynchronous detaching, paging, and
//! the faults that tests ask for. For tests, simulations and the demo; no network, no clock.
//!
//! Each call passes two points: before its effect and after it. A [`Plan`] says what happens at one
//! of them, by its number: the caller is killed there, the call is refused, or its answer is lost. A
//! world whose callers take turns gives way at each point, so that a test can run two at once in any
//! order.

mod ca;
mod calls;
mod world;

use std::{
    future::{Future, poll_fn},
    sync::{Arc, Mutex, MutexGuard},
    task::Poll,
};

pub use ca::{Authority, Ca};
pub use world::{Certificate, World};

use crate::ports::{Call, CallError, Failure};

/// The cloud in memory. Clones are the same cloud.
#[derive(Clone)]
pub struct Memory {
    world: Arc<Mutex<World>>,
}

/// What goes wrong, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// The caller never comes back from this point.
    Kill(usize),
    /// The call of this point is throttled: it has no effect.
    Throttle(usize),
    /// The answer of the call of this point is lost: it has its effect, and the caller an error.
    LoseAnswer(usize),
}

impl Memory {
    /// A cloud without things.
    pub fn new(world: World) -> Self {
        Self { world: Arc::new(Mutex::new(world)) }
    }

    /// What it holds, to look at and to change.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("nobody panics while holding the world")
    }

    /// One call: its effect between its two points.
    async fn call<T>(
        &self,
        call: Call,
        effect: impl FnOnce(&mut World) -> Result<T, Failure>,
    ) -> Result<T, CallError> {
        let fail = |why| CallError { call, why };
        let before = self.world().pass(call);
        self.meet(before).await.map_err(fail)?;
        let result = effect(&mut self.world());
        let after = self.world().pass_back();
        self.meet(after).await.map_err(fail)?;
        result.map_err(fail)
    }

    /// What happens at a point.
    async fn meet(&self, point: usize) -> Result<(), Failure> {
        let (plan, takes_turns) = {
            let world = self.world();
            (world.plan, world.takes_turns)
        };
        if takes_turns {
            give_way().await;
        }
        match plan {
            Some(Plan::Kill(at)) if at == point => {
                self.world().has_killed = true;
                std::future::pending().await
            }
            Some(Plan::Throttle(at)) if at == point && is_before(point) => Err(Failure::Throttled),
            Some(Plan::LoseAnswer(at)) if at == point && !is_before(point) => {
                Err(Failure::Unavailable("the answer was lost".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

fn is_before(point: usize) -> bool {
    point.is_multiple_of(2)
}

/// Lets another caller go first, once.
fn give_way() -> impl Future<Output = ()> {
    let mut has_given_way = false;
    poll_fn(move |_| match std::mem::replace(&mut has_given_way, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
}
