//! How often the nucleus was restarted within a day, counted without trusting the wall clock.
//!
//! Within one boot the time since that boot counts. A restart of an earlier boot is over a day ago
//! only if this boot is a day old, or if trusted clocks say so.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::schedule::Timestamp;

const DAY: Duration = Duration::from_secs(86_400);

/// No more are remembered.
const MOST: usize = 32;

/// An instant, by the clock of this boot and by the wall clock where it is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instant<'a> {
    /// The kernel's boot id.
    pub boot: &'a str,
    /// The time since that boot.
    pub uptime: Duration,
    /// The wall clock, while it is trusted.
    pub wall: Option<Timestamp>,
}

/// The restarts that were asked for lately, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Restarts(Vec<Restart>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Restart {
    boot: String,
    /// Seconds since that boot.
    uptime: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wall: Option<Timestamp>,
}

impl Restarts {
    /// Notes that a restart is asked for now.
    pub fn note(&mut self, now: &Instant<'_>) {
        self.0.retain(|restart| restart.is_recent(now));
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        let (boot, uptime, wall) = (now.boot.to_owned(), now.uptime.as_secs(), now.wall);
        self.0.push(Restart { boot, uptime, wall });
    }

    /// How long ago the last one of this boot was.
    pub fn since_last(&self, now: &Instant<'_>) -> Option<Duration> {
        let of_this_boot = self.0.iter().rfind(|restart| restart.boot == now.boot)?;
        Some(now.uptime.saturating_sub(Duration::from_secs(of_this_boot.uptime)))
    }

    /// In how long there will have been fewer than `below` within a day; `None`: never.
    pub fn fewer_in(&self, now: &Instant<'_>, below: usize) -> Option<Duration> {
        let mut left: Vec<Duration> =
            self.0.iter().filter(|restart| restart.is_recent(now)).map(|r| r.left(now)).collect();
        left.sort_unstable();
        let too_many = (left.len() + 1).checked_sub(below).filter(|_| below > 0)?;
        too_many.checked_sub(1).map_or(Some(Duration::ZERO), |last| left.get(last).copied())
    }

    /// How many there were within a day, by all that is known.
    pub fn within_a_day(&self, now: &Instant<'_>) -> usize {
        self.0.iter().filter(|restart| restart.is_recent(now)).count()
    }
}

impl Restart {
    /// How long it still counts, rounded up.
    fn left(&self, now: &Instant<'_>) -> Duration {
        let age = Duration::from_secs(self.uptime);
        let by_uptime = match self.boot == now.boot {
            true => DAY.saturating_sub(now.uptime.saturating_sub(age)),
            false => DAY.saturating_sub(now.uptime),
        };
        let walls = self.wall.zip(now.wall).filter(|_| self.boot != now.boot);
        let by_wall = walls.map(|(then, wall)| DAY.saturating_sub(wall - then));
        by_wall.map_or(by_uptime, |left| left.min(by_uptime)) + Duration::from_secs(1)
    }

    fn is_recent(&self, now: &Instant<'_>) -> bool {
        if self.boot == now.boot {
            return now.uptime.saturating_sub(Duration::from_secs(self.uptime)) < DAY;
        }
        let is_old_by_wall = self.wall.zip(now.wall).is_some_and(|(then, wall)| wall - then >= DAY);
        now.uptime < DAY && !is_old_by_wall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot: &str, hours: u64, wall: Option<u64>) -> Instant<'_> {
        let uptime = Duration::from_secs(hours * 3600);
        Instant { boot, uptime, wall: wall.map(|hours| Timestamp(hours * 3_600_000)) }
    }

    #[test]
    fn restarts_of_this_boot_count_for_a_day_whatever_the_wall_clock_says() {
        let mut restarts = Restarts::default();
        restarts.note(&at("a", 1, Some(10)));
        assert_eq!(restarts.within_a_day(&at("a", 24, Some(10_000))), 1);
        assert_eq!(restarts.within_a_day(&at("a", 25, Some(10))), 0);
    }

    #[test]
    fn restarts_of_an_earlier_boot_count_until_a_trusted_clock_or_a_day_of_this_boot_says_no() {
        let mut restarts = Restarts::default();
        restarts.note(&at("a", 1, Some(10)));
        assert_eq!(restarts.within_a_day(&at("b", 0, None)), 1);
        assert_eq!(restarts.within_a_day(&at("b", 23, Some(33))), 1);
        assert_eq!(restarts.within_a_day(&at("b", 0, Some(34))), 0);
        assert_eq!(restarts.within_a_day(&at("b", 24, None)), 0);
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let mut restarts = Restarts::default();
        (0..100).for_each(|_| restarts.note(&at("a", 1, None)));
        assert_eq!(restarts.within_a_day(&at("a", 1, None)), MOST);
    }
}
