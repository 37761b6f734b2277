//! When the nucleus may be restarted (`core.restartWindow`), such as `Sun 02:00-04:00`: weekly, by
//! local time.
//!
//! Spans, parted by `;`, each of some days and the times from and to. A span that ends no later than
//! it begins runs past midnight; the days named are those on which it begins. Pure: the local time is
//! handed in.

use std::{fmt, str::FromStr};

use crate::wire::escape;

const MINUTES_A_DAY: u16 = 24 * 60;

/// Spans of the week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartWindow {
    text: String,
    spans: Vec<Span>,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weekday {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

/// What a clock on the wall shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    /// The day.
    pub weekday: Weekday,
    /// Whole minutes since midnight, as the clock counts them: below 1440.
    pub minute_of_day: u16,
}

/// The text is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// A span is empty.
    #[error("a span is empty")]
    Empty,
    /// A span names no days before its times.
    #[error("\"{0}\" names no days before the times")]
    NoDays(String),
    /// A word is no day.
    #[error("\"{0}\" is no day: Mon, Tue, Wed, Thu, Fri, Sat, Sun or daily")]
    UnknownDay(String),
    /// There is no time from and to.
    #[error("\"{0}\" is no time from and to, such as 02:00-04:00")]
    NoTimes(String),
    /// A word is no time of day.
    #[error("\"{0}\" is no time from 00:00 to 23:59 (24:00 as an end)")]
    UnknownTime(String),
    /// A span ends when it begins.
    #[error("\"{0}\" ends when it begins: a whole day is 00:00-24:00")]
    NoLength(String),
}

impl RestartWindow {
    /// Whether the nucleus may be restarted at this time.
    pub fn is_open(&self, local: LocalTime) -> bool {
        self.spans.iter().any(|span| span.contains(local))
    }
}

impl Weekday {
    /// All seven.
    pub const ALL: [Self; 7] =
        [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    /// Its three letters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mon => "Mon",
            Self::Tue => "Tue",
            Self::Wed => "Wed",
            Self::Thu => "Thu",
            Self::Fri => "Fri",
            Self::Sat => "Sat",
            Self::Sun => "Sun",
        }
    }

    fn before(self) -> Self {
        Self::ALL[(self as usize + 6) % 7]
    }

    fn after(self) -> Self {
        Self::ALL[(self as usize + 1) % 7]
    }
}

impl FromStr for RestartWindow {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let text = text.trim();
        let spans = text.split(';').map(|span| span.trim().parse()).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), spans })
    }
}

impl fmt::Display for RestartWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// One span, on each of its days.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    days: Days,
    /// The first minute.
    from: u16,
    /// The minute after the last; not later than `from`: on the next day.
    to: u16,
}

impl Span {
    fn contains(&self, LocalTime { weekday, minute_of_day: minute }: LocalTime) -> bool {
        if self.from < self.to {
            return self.days.has(weekday) && (self.from..self.to).contains(&minute);
        }
        (self.days.has(weekday) && self.from <= minute)
            || (self.days.has(weekday.before()) && minute < self.to)
    }
}

impl FromStr for Span {
    type Err = WindowError;

    /// Spaces are allowed between the days: the times are the last word.
    fn from_str(text: &str) -> Result<Self, WindowError> {
        if text.is_empty() {
            return Err(WindowError::Empty);
        }
        let Some((days, times)) = text.rsplit_once(char::is_whitespace) else {
            return Err(WindowError::NoDays(escape(text)));
        };
        let (from, to) = times_of(times)?;
        let days = days.parse()?;
        if from == to {
            return Err(WindowError::NoLength(escape(times)));
        }
        Ok(Self { days, from, to })
    }
}

/// A bit a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Days(u8);

impl Days {
    const DAILY: Self = Self(0b0111_1111);

    fn has(self, day: Weekday) -> bool {
        self.0 & Self::default().with(day).0 != 0
    }

    fn with(self, day: Weekday) -> Self {
        Self(self.0 | 1 << (day as u8))
    }

    /// From the first to the last, over the end of the week if need be.
    fn with_range(mut self, first: Weekday, last: Weekday) -> Self {
        let mut day = first;
        while day != last {
            self = self.with(day);
            day = day.after();
        }
        self.with(last)
    }
}

impl FromStr for Days {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        if text.trim().eq_ignore_ascii_case("daily") {
            return Ok(Self::DAILY);
        }
        text.split(',').try_fold(Self::default(), |days, item| match item.split_once('-') {
            None => Ok(days.with(day(item)?)),
            Some((first, last)) => Ok(days.with_range(day(first)?, day(last)?)),
        })
    }
}

fn day(word: &str) -> Result<Weekday, WindowError> {
    let word = word.trim();
    let is_meant = |day: &Weekday| day.as_str().eq_ignore_ascii_case(word);
    let found = Weekday::ALL.into_iter().find(is_meant);
    found.ok_or_else(|| WindowError::UnknownDay(escape(word)))
}

fn times_of(text: &str) -> Result<(u16, u16), WindowError> {
    let unknown = |word| WindowError::UnknownTime(escape(word));
    let (from, to) = text.split_once('-').ok_or_else(|| WindowError::NoTimes(escape(text)))?;
    let first = minute(from).filter(|minute| *minute < MINUTES_A_DAY);
    Ok((first.ok_or_else(|| unknown(from))?, minute(to).ok_or_else(|| unknown(to))?))
}

/// `HH:MM`, up to 24:00.
fn minute(text: &str) -> Option<u16> {
    let two_digits = |text: &str| {
        let fits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        fits.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hour, minute) = text.split_once(':')?;
    let (hour, minute) = (two_digits(hour)?, two_digits(minute)?);
    let total = hour * 60 + minute;
    (minute < 60 && total <= MINUTES_A_DAY).then_some(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTES_A_WEEK: usize = 7 * MINUTES_A_DAY as usize;

    fn window(text: &str) -> RestartWindow {
        text.parse().unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    fn at(weekday: Weekday, hour: u16, minute: u16) -> LocalTime {
        LocalTime { weekday, minute_of_day: hour * 60 + minute }
    }

    fn is_open(text: &str, weekday: Weekday, hour: u16, minute: u16) -> bool {
        window(text).is_open(at(weekday, hour, minute))
    }

    #[test]
    fn a_window_is_open_from_its_first_minute_to_before_its_last() {
        use Weekday::{Mon, Sat, Sun};
        for text in ["Sun 02:00-04:00", "sun   02:00-04:00", " SUN 02:00-04:00 "] {
            assert!(!is_open(text, Sun, 1, 59), "{text}");
            assert!(is_open(text, Sun, 2, 0) && is_open(text, Sun, 3, 59), "{text}");
            assert!(!is_open(text, Sun, 4, 0), "{text}");
            assert!(!is_open(text, Sat, 3, 0) && !is_open(text, Mon, 3, 0), "{text}");
        }
    }

    #[test]
    fn a_window_past_midnight_belongs_to_the_day_on_which_it_begins() {
        use Weekday::{Fri, Mon, Sat, Sun};
        let text = "Mon-Fri 22:00-04:00";
        assert!(!is_open(text, Mon, 3, 0), "it begins in the evening");
        assert!(is_open(text, Mon, 22, 0) && is_open(text, Fri, 23, 59));
        assert!(is_open(text, Sat, 3, 59) && !is_open(text, Sat, 4, 0));
        assert!(!is_open(text, Sat, 22, 0));
        assert!(is_open("Sun 23:00-01:00", Mon, 0, 59), "over the end of the week");
        assert!(!is_open("Sun 23:00-01:00", Sun, 0, 59));
    }

    #[test]
    fn days_are_named_singly_in_lists_in_ranges_or_all_at_once() {
        use Weekday::{Fri, Mon, Sat, Sun, Thu, Tue, Wed};
        for (days, meant) in [
            ("Sat,Sun", &[Sat, Sun][..]),
            ("Sat, Sun", &[Sat, Sun]),
            ("Mon-Wed,Fri", &[Mon, Tue, Wed, Fri]),
            ("Fri-Mon", &[Mon, Fri, Sat, Sun]),
            ("Thu-Thu", &[Thu]),
            ("daily", &Weekday::ALL),
            ("Mon-Sun", &Weekday::ALL),
        ] {
            let text = format!("{days} 00:00-24:00");
            for day in Weekday::ALL {
                assert_eq!(is_open(&text, day, 0, 0), meant.contains(&day), "{text} {day:?}");
                assert_eq!(is_open(&text, day, 23, 59), meant.contains(&day), "{text} {day:?}");
            }
        }
    }

    #[test]
    fn spans_add_up() {
        let text = "Sun 02:00-04:00; Wed 12:00-13:00";
        assert!(is_open(text, Weekday::Sun, 3, 0) && is_open(text, Weekday::Wed, 12, 30));
        assert!(!is_open(text, Weekday::Wed, 3, 0));
    }

    #[test]
    fn what_is_no_window_is_refused_by_the_word_that_is_wrong() {
        for (text, says) in [
            ("", "a span is empty"),
            ("Sun 02:00-04:00;", "a span is empty"),
            ("02:00-04:00", "\"02:00-04:00\" names no days"),
            ("Sun", "\"Sun\" names no days"),
            ("Sunday 02:00-04:00", "\"Sunday\" is no day: Mon, Tue"),
            ("Sat,,Sun 02:00-04:00", "\"\" is no day"),
            ("Mon-Tue-Wed 02:00-04:00", "\"Tue-Wed\" is no day"),
            ("daily,Mon 02:00-04:00", "\"daily\" is no day"),
            ("Sun 02:00", "\"02:00\" is no time from and to"),
            ("Sun 02:00 - 04:00", "\"04:00\" is no time from and to"),
            ("Sun 2:00-04:00", "\"2:00\" is no time from"),
            ("Sun 02:00-04:60", "\"04:60\" is no time from"),
            ("Sun 24:00-04:00", "\"24:00\" is no time from"),
            ("Sun 22:00-24:01", "\"24:01\" is no time from"),
            ("Sun +2:00-04:00", "\"+2:00\" is no time from"),
            ("Sun 02:00-02:00", "\"02:00-02:00\" ends when it begins"),
            ("S\u{1b}n 02:00-04:00", r#""S\u{1b}n" is no day"#),
        ] {
            let error = text.parse::<RestartWindow>().expect_err(text).to_string();
            assert!(error.starts_with(says), "{text}: {error}");
        }
    }

    /// A span as it is meant: days, first minute, and how long it lasts.
    fn meant() -> impl Strategy<Value = (Vec<usize>, u16, u16)> {
        (proptest::collection::vec(0..7_usize, 1..4), 0..MINUTES_A_DAY, 1..MINUTES_A_DAY)
    }

    fn written((days, from, length): &(Vec<usize>, u16, u16)) -> String {
        let time = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        let days: Vec<_> = days.iter().map(|day| Weekday::ALL[*day].as_str()).collect();
        let to = from + length;
        let to = if to > MINUTES_A_DAY { to - MINUTES_A_DAY } else { to };
        format!("{} {}-{}", days.join(","), time(*from), time(to))
    }

    proptest! {
        #[test]
        fn every_minute_of_the_week_is_open_as_counted_out(
            spans in proptest::collection::vec(meant(), 1..4)
        ) {
            let mut open = vec![false; MINUTES_A_WEEK];
            for (days, from, length) in &spans {
                for day in days {
                    let first = day * usize::from(MINUTES_A_DAY) + usize::from(*from);
                    (first..first + usize::from(*length))
                        .for_each(|minute| open[minute % MINUTES_A_WEEK] = true);
                }
            }
            let text = spans.iter().map(written).collect::<Vec<_>>().join(";");
            let window = window(&text);
            prop_assert_eq!(window.to_string(), text);
            for (minute, open) in (0_u16..).zip(open) {
                let weekday = Weekday::ALL[usize::from(minute / MINUTES_A_DAY)];
                let local = LocalTime { weekday, minute_of_day: minute % MINUTES_A_DAY };
                prop_assert_eq!(window.is_open(local), open, "{:?}", local);
            }
        }

        #[test]
        fn no_text_breaks_it_and_what_is_taken_reads_back(text in "[a-zA-Z0-9 ,;:é-]{0,40}") {
            if let Ok(window) = text.parse::<RestartWindow>() {
                prop_assert_eq!(window.to_string().parse(), Ok(window));
            }
        }
    }
}
