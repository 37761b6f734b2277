//! Single values: text, numbers, durations, sizes, choices. Each parser takes a generic value and
//! says what is wrong with it and what would be right.
//!
//! Numbers are also taken from strings and whole floats, since nuclei hand them over so. What is
//! quoted of a value is short and printable.

use std::{ops::RangeInclusive, time::Duration};

use bytesize::ByteSize;
use serde_json::Value;

use super::read::Bad;
use crate::{schedule::Backoff, wire::escape};

/// No setting is longer, in bytes.
const MAX_TEXT: usize = 4096;

/// Text that is not empty.
pub(super) fn text(value: &Value) -> Result<String, Bad> {
    match value {
        Value::String(text) if text.is_empty() => {
            Err(Bad::new("it is empty", "give a value, or remove the line"))
        }
        Value::String(text) if text.contains("-----BEGIN") => {
            Err(Bad::new("it is PEM", "give the path of the file instead, and replace this key"))
        }
        Value::String(text) if text.len() > MAX_TEXT => {
            Err(Bad::new(format!("it is longer than {MAX_TEXT} bytes"), "shorten it"))
        }
        Value::String(text) => Ok(text.clone()),
        other => Err(Bad::new(format!("it is {}", kind(other)), "put text in double quotes")),
    }
}

/// A list of texts that is not empty, such as `example`.
pub(super) fn texts(example: &str) -> impl FnOnce(&Value) -> Result<Vec<String>, Bad> {
    move |value| {
        let remedy = format!("give a list such as {example}");
        match value {
            Value::Array(items) if items.is_empty() => Err(Bad::new("it is empty", remedy)),
            Value::Array(items) => items.iter().map(text).collect(),
            other => Err(Bad::new(format!("it is {}", kind(other)), remedy)),
        }
    }
}

/// A whole number within a range.
pub(super) fn number(range: RangeInclusive<u64>) -> impl FnOnce(&Value) -> Result<u64, Bad> {
    move |value| {
        let remedy = format!("give a whole number from {} to {}", range.start(), range.end());
        match whole(value) {
            Some(number) if range.contains(&number) => Ok(number),
            Some(_) => Err(Bad::new(format!("{} is out of range", quote(value)), remedy)),
            None => Err(Bad::new(format!("{} is no whole number", quote(value)), remedy)),
        }
    }
}

/// A duration such as `20h`, within a range.
pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl FnOnce(&Value) -> Result<Duration, Bad> {
    move |value| one_duration(value, &range)
}

/// The first and the longest pause, such as `["1m", "1h"]`.
pub(super) fn pauses(
    range: RangeInclusive<Duration>,
) -> impl FnOnce(&Value) -> Result<Backoff, Bad> {
    move |value| {
        const REMEDY: &str = "give the first and the longest pause, such as [\"1m\", \"1h\"]";
        let Some([first, longest]) = value.as_array().map(Vec::as_slice) else {
            return Err(Bad::new("it is no pair of durations", REMEDY));
        };
        let (first, longest) = (one_duration(first, &range)?, one_duration(longest, &range)?);
        if first > longest {
            return Err(Bad::new("the first pause is longer than the longest", REMEDY));
        }
        Ok(Backoff { first, longest })
    }
}

/// A size such as `64MiB`, within a range, in bytes.
pub(super) fn size(range: RangeInclusive<u64>) -> impl FnOnce(&Value) -> Result<u64, Bad> {
    move |value| {
        let (least, most) = (ByteSize(*range.start()), ByteSize(*range.end()));
        let remedy = format!("give a size from {least} to {most}, such as \"64MiB\"");
        let bytes = whole(value).or_else(|| Some(value.as_str()?.parse::<ByteSize>().ok()?.0));
        match bytes {
            Some(bytes) if range.contains(&bytes) => Ok(bytes),
            Some(_) => Err(Bad::new(format!("{} is out of range", quote(value)), remedy)),
            None => Err(Bad::new(format!("{} is no size", quote(value)), remedy)),
        }
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(words: &[(&str, T)]) -> impl FnOnce(&Value) -> Result<T, Bad> {
    move |value| match words.iter().find(|(word, _)| value.as_str() == Some(*word)) {
        Some((_, choice)) => Ok(*choice),
        None => {
            let words: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            let what = format!("{} is not known", quote(value));
            Err(Bad::new(what, format!("give {}", words.join(" or "))))
        }
    }
}

/// A value as it may be shown to people: short and printable.
pub(super) fn quote(value: &Value) -> String {
    const SHOWN: usize = 60;
    match value {
        Value::String(text) if text.chars().count() <= SHOWN => format!("\"{}\"", escape(text)),
        Value::String(text) => {
            format!("\"{}…\"", escape(&text.chars().take(SHOWN).collect::<String>()))
        }
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        other => kind(other).to_owned(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| whole_float(number.as_f64()?)),
        Value::String(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| whole_float(text.parse().ok()?))
        }
        _ => None,
    }
}

fn whole_float(number: f64) -> Option<u64> {
    /// Above 2^53 a float skips whole numbers.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the number is whole and within 0..2^53"
    )]
    (number.fract() == 0.0 && (0.0..EXACT).contains(&number)).then_some(number as u64)
}

fn one_duration(value: &Value, range: &RangeInclusive<Duration>) -> Result<Duration, Bad> {
    let (least, most) = (limit(*range.start()), limit(*range.end()));
    let remedy = format!("give a duration from {least} to {most} with its unit, such as \"90s\"");
    match value.as_str().and_then(|text| humantime::parse_duration(text).ok()) {
        Some(duration) if range.contains(&duration) => Ok(duration),
        Some(_) => Err(Bad::new(format!("{} is out of range", quote(value)), remedy)),
        None => Err(Bad::new(format!("{} is no duration", quote(value)), remedy)),
    }
}

/// A limit in its largest whole unit: a year of days is no "11months 30days" to anyone.
fn limit(duration: Duration) -> String {
    const UNITS: [(u128, &str); 4] =
        [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let millis = duration.as_millis();
    match UNITS.into_iter().find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_number_is_taken_from_whatever_a_nucleus_makes_of_it() {
        for value in
            [json!(20), json!(20.0), json!("20"), json!(" 20 "), json!("20.0"), json!("2e1")]
        {
            assert_eq!(number(1..=20)(&value), Ok(20), "{value}");
        }
        for value in [json!(0), json!(21), json!("21"), json!(21.0), json!(u64::MAX)] {
            assert!(
                number(1..=20)(&value).unwrap_err().what.ends_with("is out of range"),
                "{value}"
            );
        }
        for value in [
            json!(2.5),
            json!(-1),
            json!("-1"),
            json!("x"),
            json!(""),
            json!(true),
            json!([20]),
            json!("inf"),
            json!("NaN"),
            json!(1e300),
            json!({}),
        ] {
            let what = number(0..=u64::MAX)(&value).unwrap_err().what;
            assert!(what.ends_with("is no whole number"), "{value}: {what}");
        }
    }

    #[test]
    fn a_duration_needs_its_unit_and_keeps_to_its_range() {
        let parse = |value| duration(SECOND..=SECOND * 3600)(&value);
        assert_eq!(parse(json!("90s")), Ok(SECOND * 90));
        assert_eq!(parse(json!("1m 30s")), Ok(SECOND * 90));
        for value in [json!("90"), json!(90), json!(""), json!("s"), json!("-1s"), json!(["1s"])] {
            assert!(parse(value.clone()).unwrap_err().what.ends_with("is no duration"), "{value}");
        }
        for value in [json!("999ms"), json!("0s"), json!("61m"), json!("9999999y")] {
            let bad = parse(value.clone()).unwrap_err();
            assert!(bad.what.ends_with("is out of range"), "{value}: {bad:?}");
            assert!(bad.remedy.contains("from 1s to 1h"), "{bad:?}");
        }
    }

    #[test]
    fn a_limit_is_shown_in_its_largest_whole_unit() {
        for (millis, text) in [
            (0, "0ms"),
            (100, "100ms"),
            (90_000, "90s"),
            (3_600_000, "1h"),
            (31_536_000_000, "365d"),
        ] {
            assert_eq!(limit(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn pauses_are_two_and_do_not_shrink() {
        let parse = |value| pauses(SECOND..=SECOND * 3600)(&value);
        let minute = Backoff { first: SECOND, longest: SECOND * 60 };
        assert_eq!(parse(json!(["1s", "1m"])), Ok(minute));
        assert!(parse(json!(["1s", "1s"])).is_ok());
        for value in [
            json!(["1m", "1s"]),
            json!("1m"),
            json!(["1m"]),
            json!(["1s", "1m", "1h"]),
            json!(["1s", "2h"]),
            json!([1, 60]),
        ] {
            assert!(parse(value.clone()).is_err(), "{value}");
        }
    }

    #[test]
    fn a_size_is_bytes_or_has_its_unit() {
        let parse = |value| size(1024..=64 << 20)(&value);
        for value in [json!("64MiB"), json!("64 MiB"), json!(64 << 20), json!("67108864")] {
            assert_eq!(parse(value.clone()), Ok(64 << 20), "{value}");
        }
        assert_eq!(parse(json!("1kB")).unwrap_err().what, "\"1kB\" is out of range");
        for value in [json!("64 apples"), json!("-1MiB"), json!(true), json!(["64MiB"])] {
            assert!(parse(value.clone()).unwrap_err().what.ends_with("is no size"), "{value}");
        }
    }

    #[test]
    fn a_choice_is_one_of_its_words_to_the_letter() {
        let parse = |value| choice(&[("auto", 1), ("never", 2)])(&value);
        assert_eq!(parse(json!("never")), Ok(2));
        let bad = parse(json!("Never")).unwrap_err();
        assert_eq!(bad, Bad::new("\"Never\" is not known", "give \"auto\" or \"never\""));
        assert!(parse(json!(1)).is_err());
    }

    #[test]
    fn a_pasted_key_is_refused_and_never_shown() {
        let bad = text(&json!("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw")).unwrap_err();
        assert!(!format!("{bad:?}").contains("MC4C"));
        assert!(text(&json!("")).is_err() && text(&json!(5)).is_err());
        assert!(text(&json!("x".repeat(MAX_TEXT + 1))).is_err());
        assert_eq!(quote(&json!("a\u{1b}\nb")), r#""a\u{1b}\nb""#);
        assert_eq!(quote(&json!("x".repeat(5000))).chars().count(), 63);
    }
}
