//! Which certificates expire soon, and who was warned of that.
//!
//! A certificate is warned of when it crosses 30, 14, 7, 3 and 1 days, and when it has expired: once
//! each, at whatever stage it is first seen. Pure. It is asked with a trusted clock only; without one
//! nobody asks. Keeps nothing of a certificate that has longer than that.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{schedule::Timestamp, wire::ThingName};

const DAY: Duration = Duration::from_secs(86_400);

/// A certificate is forgotten only this far out, so that a clock that is set back a little brings no
/// warning twice.
const FORGOTTEN: Duration = DAY.saturating_mul(31);

/// How soon a certificate expires; a later one is more urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expiry {
    /// Within 30 days.
    #[serde(rename = "30-days")]
    ThirtyDays,
    /// Within 14 days.
    #[serde(rename = "14-days")]
    FourteenDays,
    /// Within 7 days.
    #[serde(rename = "7-days")]
    SevenDays,
    /// Within 3 days.
    #[serde(rename = "3-days")]
    ThreeDays,
    /// Within a day.
    #[serde(rename = "1-day")]
    OneDay,
    /// It has.
    Expired,
}

impl Expiry {
    /// How soon a certificate expires; `None`: not within 30 days. In its last second a certificate is
    /// still valid.
    pub fn of(not_after: Timestamp, now: Timestamp) -> Option<Self> {
        if now > not_after {
            return Some(Self::Expired);
        }
        let left = not_after - now;
        let levels = [
            (1, Self::OneDay),
            (3, Self::ThreeDays),
            (7, Self::SevenDays),
            (14, Self::FourteenDays),
            (30, Self::ThirtyDays),
        ];
        levels.into_iter().find(|(days, _)| left <= DAY * *days).map(|(_, level)| level)
    }
}

impl fmt::Display for Expiry {
    /// For people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ThirtyDays => "within 30 days",
            Self::FourteenDays => "within 14 days",
            Self::SevenDays => "within 7 days",
            Self::ThreeDays => "within 3 days",
            Self::OneDay => "within a day",
            Self::Expired => "EXPIRED",
        })
    }
}

/// That a certificate expires soon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Whose.
    pub thing: ThingName,
    /// When.
    pub not_after: Timestamp,
    /// How soon that is.
    pub level: Expiry,
}

/// What was warned of.
#[derive(Debug, Default)]
pub struct Watch(BTreeMap<ThingName, Warned>);

#[derive(Debug)]
struct Warned {
    not_after: Timestamp,
    /// The most urgent so far.
    level: Option<Expiry>,
}

impl Watch {
    /// Looks at all things that there are, each once, with the time of a trusted clock. What is not
    /// among them is forgotten.
    pub fn look<'a>(
        &mut self,
        now: Timestamp,
        things: impl IntoIterator<Item = (&'a ThingName, Timestamp)>,
    ) -> Vec<Warning> {
        let mut before = std::mem::take(&mut self.0);
        let near = things.into_iter().filter(|(_, not_after)| *not_after - now <= FORGOTTEN);
        near.filter_map(|(thing, not_after)| {
            let entry = before.remove_entry(thing);
            let known = entry.filter(|(_, warned)| warned.not_after == not_after);
            let (name, warned) =
                known.map_or_else(|| (thing.clone(), None), |(name, warned)| (name, warned.level));
            let level = Expiry::of(not_after, now).max(warned);
            self.0.insert(name, Warned { not_after, level });
            let level = level.filter(|_| level > warned)?;
            Some(Warning { thing: thing.clone(), not_after, level })
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn days(days: u64) -> Timestamp {
        Timestamp::default() + DAY * u32::try_from(days).expect("few")
    }

    fn thing(number: usize) -> ThingName {
        format!("pump-{number}").parse().expect("valid")
    }

    #[test]
    fn the_last_second_of_each_limit_is_within_it() {
        let not_after = days(100);
        let second = Duration::from_secs(1);
        for (left, level, above) in [
            (30, Expiry::ThirtyDays, None),
            (14, Expiry::FourteenDays, Some(Expiry::ThirtyDays)),
            (7, Expiry::SevenDays, Some(Expiry::FourteenDays)),
            (3, Expiry::ThreeDays, Some(Expiry::SevenDays)),
            (1, Expiry::OneDay, Some(Expiry::ThreeDays)),
        ] {
            let now = days(100 - left);
            assert_eq!(Expiry::of(not_after, now), Some(level));
            assert_eq!(Expiry::of(not_after + second, now), above);
        }
        assert_eq!(Expiry::of(not_after, not_after), Some(Expiry::OneDay));
        assert_eq!(Expiry::of(not_after, not_after + second), Some(Expiry::Expired));
        assert_eq!(Expiry::of(Timestamp(u64::MAX), Timestamp(0)), None);
    }

    #[test]
    fn a_certificate_first_seen_late_is_warned_of_once() {
        let mut watch = Watch::default();
        let pump = thing(1);
        let warning =
            Warning { thing: pump.clone(), not_after: days(100), level: Expiry::ThreeDays };
        assert_eq!(watch.look(days(98), [(&pump, days(100))]), [warning]);
        assert_eq!(watch.look(days(98), [(&pump, days(100))]), []);
    }

    #[test]
    fn a_new_certificate_is_warned_of_anew() {
        let mut watch = Watch::default();
        let pump = thing(1);
        assert_eq!(watch.look(days(80), [(&pump, days(100))]).len(), 1);
        assert_eq!(watch.look(days(80), [(&pump, days(101))]).len(), 1);
        assert_eq!(watch.look(days(80), [(&pump, days(200))]), []);
        assert!(watch.0.is_empty());
        assert_eq!(watch.look(days(170), [(&pump, days(200))]).len(), 1);
    }

    #[test]
    fn what_is_far_off_or_gone_is_not_kept() {
        let mut watch = Watch::default();
        let things: Vec<_> = (0..1000).map(thing).collect();
        let near = |not_after| things.iter().map(move |thing| (thing, not_after));
        assert_eq!(watch.look(days(0), near(days(32))), []);
        assert!(watch.0.is_empty());
        assert_eq!(watch.look(days(2), near(days(32))).len(), 1000);
        assert_eq!(watch.look(days(2), near(days(32)).take(3)), []);
        assert_eq!(watch.0.len(), 3);
    }

    #[test]
    fn a_clock_that_is_set_back_a_little_brings_no_warning_twice() {
        let mut watch = Watch::default();
        let pump = thing(1);
        let mut look = |now| watch.look(now, [(&pump, days(100))]).len();
        let before = Timestamp(days(70).0 - 1000);
        assert_eq!([look(before), look(days(70)), look(before), look(days(70))], [0, 1, 0, 0]);
        assert_eq!([look(days(86)), look(days(85)), look(days(86))], [1, 0, 0]);
    }

    proptest! {
        /// Time goes on, and now and then a thing gets another certificate, is gone or is there again.
        #[test]
        fn each_limit_is_warned_of_once_a_certificate_and_none_that_was_passed_is_missing(
            steps in proptest::collection::vec((0..4_usize, 0..60_u64, 0..20_u64), 1..80)
        ) {
            let names: Vec<_> = (0..4).map(thing).collect();
            let mut watch = Watch::default();
            let mut certificates = [days(40), days(50), days(60), days(10)];
            let mut told: std::collections::BTreeSet<(usize, Timestamp, Expiry)> = Default::default();
            let mut now = days(0);
            for (changed, lasts, hours) in steps {
                now = now + Duration::from_secs(3600 * hours);
                if lasts > 50 {
                    certificates[changed] = now + DAY * u32::try_from(lasts).expect("few");
                }
                let shown = names.iter().zip(certificates);
                for Warning { thing, not_after, level } in watch.look(now, shown) {
                    let index = names.iter().position(|name| *name == thing).expect("known");
                    prop_assert_eq!(certificates[index], not_after);
                    prop_assert_eq!(Expiry::of(not_after, now), Some(level));
                    prop_assert!(told.insert((index, not_after, level)), "told twice");
                }
                for (index, not_after) in certificates.into_iter().enumerate() {
                    if let Some(level) = Expiry::of(not_after, now) {
                        prop_assert!(told.contains(&(index, not_after, level)), "not told");
                    }
                }
                let near = certificates.iter().filter(|end| **end - now <= FORGOTTEN).count();
                prop_assert_eq!(watch.0.len(), near);
            }
        }
    }
}
