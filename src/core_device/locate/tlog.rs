//! The classic nucleus' `config.tlog`: each line one change of its configuration, in JSON.
//!
//! The newest change by its own time counts, and of two at the same time the later line, as in the
//! nucleus. Lines that are torn, foreign or too long are skipped. Holds one line at a time.

use std::io::{self, BufRead};

use serde::Deserialize;
use serde_json::Value;

use super::{CLASSIC, System, text};

/// The longest line that is read, in bytes. The paths' own lines are far shorter.
const MAX_LINE: usize = 64 * 1024;

/// What is looked for, in the order of [`System`]'s fields.
pub(super) const WANTED: [&[&str]; 5] = [
    &["system", "certificateFilePath"],
    &["system", "privateKeyPath"],
    &["system", "rootCaPath"],
    &["services", CLASSIC, "configuration", "iotDataEndpoint"],
    &["services", CLASSIC, "configuration", "mqtt", "port"],
];

/// Reads a log to its end.
pub fn read(mut from: impl BufRead) -> io::Result<System> {
    let mut known = Known::default();
    let mut line = Vec::new();
    while next_line(&mut from, &mut line)? {
        if let Ok(change) = serde_json::from_slice(&line) {
            known.apply(&change);
        }
    }
    Ok(known.into())
}

/// One line.
#[derive(Deserialize)]
struct Change {
    #[serde(rename = "TS")]
    time: i64,
    #[serde(rename = "TP")]
    path: Vec<String>,
    #[serde(rename = "W")]
    what: String,
    #[serde(rename = "V", default)]
    value: Value,
}

/// The values so far, and since when.
#[derive(Default)]
struct Known([Option<(i64, Option<String>)>; WANTED.len()]);

impl Known {
    fn apply(&mut self, change: &Change) {
        for (known, wanted) in self.0.iter_mut().zip(WANTED) {
            let is_newer = known.as_ref().is_none_or(|(since, _)| *since <= change.time);
            if !is_newer {
                continue;
            }
            match change.what.as_str() {
                "changed" if is(&change.path, wanted) => {
                    *known = Some((change.time, text(&change.value)));
                }
                "removed" if is_above(&change.path, wanted) => *known = Some((change.time, None)),
                "timestampUpdated" if is(&change.path, wanted) => {
                    *known = known.take().map(|(_, value)| (change.time, value));
                }
                _ => {}
            }
        }
    }
}

impl From<Known> for System {
    fn from(Known(known): Known) -> Self {
        let [certificate, key, ca, host, port] = known.map(|known| known?.1);
        Self { certificate, key, ca, host, port }
    }
}

fn is(path: &[String], wanted: &[&str]) -> bool {
    path.len() == wanted.len() && is_above(path, wanted)
}

/// Whether the path is the wanted one or leads to it. The nucleus' names have no case.
fn is_above(path: &[String], wanted: &[&str]) -> bool {
    !path.is_empty()
        && path.len() <= wanted.len()
        && path.iter().zip(wanted).all(|(name, wanted)| name.eq_ignore_ascii_case(wanted))
}

/// Reads a line into `line`, or nothing of one that is too long. Says whether there was one.
fn next_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut is_there = false;
    let mut is_too_long = false;
    loop {
        let held = from.fill_buf()?;
        if held.is_empty() {
            return Ok(is_there);
        }
        is_there = true;
        let end = held.iter().position(|byte| *byte == b'\n');
        let part = &held[..end.unwrap_or(held.len())];
        is_too_long |= line.len() + part.len() > MAX_LINE;
        if is_too_long {
            line.clear();
        } else {
            line.extend_from_slice(part);
        }
        let taken = end.map_or(held.len(), |end| end + 1);
        from.consume(taken);
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(time: i64, key: &str, what: &str, value: &str) -> String {
        format!(r#"{{"TS":{time},"TP":["system","{key}"],"W":"{what}","V":"{value}"}}"#) + "\n"
    }

    fn certificate(lines: &[String]) -> Option<String> {
        read(lines.concat().as_bytes()).expect("memory").certificate
    }

    fn cert(time: i64, value: &str) -> String {
        line(time, "certificateFilePath", "changed", value)
    }

    #[test]
    fn the_newest_time_wins_whatever_the_order_of_the_lines() {
        let (old, new) = (cert(1, "/old"), cert(2, "/new"));
        assert_eq!(certificate(&[old.clone(), new.clone()]), Some("/new".to_owned()));
        assert_eq!(certificate(&[new, old]), Some("/new".to_owned()));
    }

    #[test]
    fn of_two_changes_at_one_time_the_later_line_wins() {
        assert_eq!(certificate(&[cert(1, "/a"), cert(1, "/b")]), Some("/b".to_owned()));
    }

    #[test]
    fn an_empty_value_is_none() {
        assert_eq!(certificate(&[cert(1, "/a"), cert(2, "")]), None);
    }

    #[test]
    fn what_is_removed_is_gone_until_it_comes_again_later() {
        let removed = line(2, "certificateFilePath", "removed", "");
        let all = r#"{"TS":2,"TP":["system"],"W":"removed"}"#.to_owned() + "\n";
        assert_eq!(certificate(&[cert(1, "/a"), removed.clone()]), None);
        assert_eq!(certificate(&[cert(1, "/a"), all]), None);
        assert_eq!(
            certificate(&[cert(1, "/a"), removed.clone(), cert(3, "/b")]),
            Some("/b".into())
        );
        assert_eq!(certificate(&[cert(3, "/a"), removed]), Some("/a".into()));
    }

    #[test]
    fn a_value_whose_time_was_renewed_outlives_a_change_before_that() {
        let renewed = line(5, "certificateFilePath", "timestampUpdated", "");
        assert_eq!(certificate(&[cert(1, "/a"), renewed, cert(3, "/b")]), Some("/a".into()));
    }

    #[test]
    fn torn_foreign_and_endless_lines_are_skipped() {
        let torn = cert(9, "/torn");
        let endless = format!("{}\n", cert(9, &"x".repeat(MAX_LINE)).trim_end());
        let lines = [
            "[1,2]\nnull\n\u{0}\n\n{\"TS\":9}\n".to_owned(),
            endless,
            cert(1, "/a"),
            line(9, "certificateFilePath", "interiorAdded", "/b"),
            line(9, "certificateFile", "changed", "/c"),
            torn[..torn.len() - 4].to_owned(),
        ];
        assert_eq!(certificate(&lines), Some("/a".to_owned()));
    }

    #[test]
    fn all_that_is_looked_for_is_found() {
        let nucleus = r#"["services","aws.greengrass.Nucleus","configuration","#;
        let log = [
            cert(1, "/c"),
            line(1, "privateKeyPath", "changed", "/k"),
            line(1, "rootCaPath", "changed", "/r"),
            format!(
                "{{\"TS\":1,\"TP\":{nucleus}\"iotDataEndpoint\"],\"W\":\"changed\",\"V\":\"h\"}}\n"
            ),
            format!("{{\"TS\":1,\"TP\":{nucleus}\"mqtt\",\"port\"],\"W\":\"changed\",\"V\":443}}"),
        ];
        let some = |text: &str| Some(text.to_owned());
        let want = System {
            certificate: some("/c"),
            key: some("/k"),
            ca: some("/r"),
            host: some("h"),
            port: some("443"),
        };
        assert_eq!(read(log.concat().as_bytes()).expect("memory"), want);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&*bytes);
        }

        #[test]
        fn a_log_cut_anywhere_gives_the_old_value_or_the_new(cut in 0usize..200) {
            let log = [cert(1, "/old"), cert(2, "/new")].concat();
            let cut = cut.min(log.len());
            let found = read(&log.as_bytes()[..cut]).expect("memory").certificate;
            prop_assert!(matches!(found.as_deref(), None | Some("/old" | "/new")));
        }
    }
}
