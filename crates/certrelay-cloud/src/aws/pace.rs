//! How fast an instance may call: so many calls a second of each API, evenly. Quotas are an
//! account's, so the rate is the quota's share divided by how many instances the template permits.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync,
    time::{Interval, MissedTickBehavior, interval},
};

use crate::ports::Call;

/// The turns of each API.
pub(super) struct Pace {
    every: Duration,
    turns: Mutex<HashMap<Call, Arc<sync::Mutex<Interval>>>>,
}

impl Pace {
    pub(super) fn new(every: Duration) -> Self {
        Self { every, turns: Mutex::default() }
    }

    /// Waits for the call's turn.
    pub(super) async fn turn(&self, call: Call) {
        let turns = self.turns_of(call);
        turns.lock().await.tick().await;
    }

    fn turns_of(&self, call: Call) -> Arc<sync::Mutex<Interval>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = turns.entry(call).or_insert_with(|| {
            let mut turns = interval(self.every);
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            Arc::new(sync::Mutex::new(turns))
        });
        Arc::clone(turns)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_api_has_its_own_rate_and_saves_up_no_turns() {
        let pace = Pace::new(Duration::from_millis(200));
        let began = Instant::now();
        for _ in 0..6 {
            pace.turn(Call::UpdateCertificate).await;
            pace.turn(Call::AttachPolicy).await;
        }
        assert_eq!(began.elapsed().as_millis(), 1000);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let later = Instant::now();
        for _ in 0..6 {
            pace.turn(Call::UpdateCertificate).await;
        }
        assert!(later.elapsed().as_millis() >= 1000);
    }
}
