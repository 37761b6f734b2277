//! What the clocks on the wall show: the system's time zone, as `TZ` or else `/etc/localtime` has it.
//!
//! A driver: it reads the environment and the zone's files, and rereads them every few minutes. Where
//! neither says anything, or names a zone that is not installed, it is UTC, as for every other program.

#![expect(clippy::disallowed_methods, reason = "reading the system's zone is this module's job")]

use jiff::tz::TimeZone;

use crate::{
    identity::{LocalTime, Weekday},
    schedule::Timestamp,
};

/// The local time at an instant.
pub fn local_time(wall: Timestamp) -> LocalTime {
    in_zone(&TimeZone::system(), wall)
}

fn in_zone(zone: &TimeZone, wall: Timestamp) -> LocalTime {
    // What is too late for any calendar is shown as its last day.
    let instant =
        i64::try_from(wall.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let time = zone.to_datetime(instant.unwrap_or(jiff::Timestamp::MAX));
    let weekday = match time.weekday() {
        jiff::civil::Weekday::Monday => Weekday::Mon,
        jiff::civil::Weekday::Tuesday => Weekday::Tue,
        jiff::civil::Weekday::Wednesday => Weekday::Wed,
        jiff::civil::Weekday::Thursday => Weekday::Thu,
        jiff::civil::Weekday::Friday => Weekday::Fri,
        jiff::civil::Weekday::Saturday => Weekday::Sat,
        jiff::civil::Weekday::Sunday => Weekday::Sun,
    };
    let minutes = i32::from(time.hour()) * 60 + i32::from(time.minute());
    let minute_of_day = u16::try_from(minutes).expect("a day has 1440 minutes");
    LocalTime { weekday, minute_of_day }
}

#[cfg(test)]
#[expect(clippy::disallowed_types, reason = "a zone of its own needs a process of its own")]
mod tests {
    use std::process::Command;

    use super::*;

    fn at(text: &str) -> Timestamp {
        let time = humantime::parse_rfc3339(text).expect("a time");
        let since = time.duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        Timestamp::from_unix_seconds(since.as_secs())
    }

    fn shown(zone: &TimeZone, utc: &str) -> (Weekday, u16, u16) {
        let LocalTime { weekday, minute_of_day } = in_zone(zone, at(utc));
        (weekday, minute_of_day / 60, minute_of_day % 60)
    }

    #[test]
    fn the_clock_jumps_with_summer_time_and_the_day_with_the_zone() {
        use Weekday::{Fri, Sat, Sun};
        // Central Europe, written out, so that no zone has to be installed.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
        assert_eq!(shown(&zone, "2026-03-29T00:59:59Z"), (Sun, 1, 59));
        assert_eq!(shown(&zone, "2026-03-29T01:00:00Z"), (Sun, 3, 0));
        assert_eq!(shown(&zone, "2026-10-25T00:30:00Z"), (Sun, 2, 30));
        assert_eq!(shown(&zone, "2026-10-25T01:30:00Z"), (Sun, 2, 30));
        assert_eq!(shown(&zone, "2026-10-24T22:30:00Z"), (Sun, 0, 30));
        assert_eq!(shown(&zone, "2026-10-24T21:59:59Z"), (Sat, 23, 59));
        let zone = TimeZone::posix("IST-5:30").expect("a zone");
        assert_eq!(shown(&zone, "2026-01-02T12:00:00Z"), (Fri, 17, 30));
    }

    #[test]
    fn no_time_is_too_late() {
        let last = jiff::Timestamp::MAX.as_millisecond();
        let last = Timestamp(u64::try_from(last).expect("after 1970"));
        for late in [u64::MAX, i64::MAX.unsigned_abs(), last.0 + 1000] {
            assert_eq!(in_zone(&TimeZone::UTC, Timestamp(late)), in_zone(&TimeZone::UTC, last));
        }
    }

    /// Prints what [`local_time`] says, in a process of its own with its own `TZ`.
    #[test]
    fn the_zone_of_the_process_is_followed() {
        const INNER: &str = "CERTRELAY_SHOW_LOCAL_TIME";
        let instant = at("2026-07-01T23:30:00Z");
        if std::env::var_os(INNER).is_some() {
            println!("it is {:?}", local_time(instant));
            return;
        }
        let this = std::env::current_exe().expect("a path");
        let inner = |zone: &str| {
            let mut command = Command::new(&this);
            command.args(["--exact", "local_time::tests::the_zone_of_the_process_is_followed"]);
            let output =
                command.arg("--nocapture").env(INNER, "1").env("TZ", zone).output().expect("runs");
            String::from_utf8(output.stdout).expect("text")
        };
        for (zone, weekday, minute_of_day) in [
            ("UTC0", Weekday::Wed, 23 * 60 + 30),
            ("CET-1CEST,M3.5.0,M10.5.0/3", Weekday::Thu, 90),
            ("EST5EDT,M3.2.0,M11.1.0", Weekday::Wed, 19 * 60 + 30),
            ("no zone at all", Weekday::Wed, 23 * 60 + 30),
        ] {
            let expected = LocalTime { weekday, minute_of_day };
            let shown = inner(zone);
            assert!(shown.contains(&format!("it is {expected:?}\n")), "{zone}: {shown}");
        }
    }
}
