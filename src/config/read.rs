//! A table of settings that is read key by key and keeps account: what was asked for is known,
//! what is left over is unknown, and every problem is noted rather than returned.
//!
//! `None` from a reader always means that a problem was noted. Knows nothing of single settings.

use std::cell::RefCell;

use serde_json::{Map, Value};

use super::{ConfigError, Problem};
use crate::wire::escape;

/// What is wrong with one value, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) what: String,
    pub(super) remedy: String,
}

impl Bad {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

/// Every problem noted so far.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    fn note(&self, key: String, bad: Bad) {
        self.0.borrow_mut().push(Problem { key, what: bad.what, remedy: bad.remedy });
    }

    /// The value, if there was no problem with any other.
    pub(super) fn judge<T>(self, value: Option<T>) -> Result<T, ConfigError> {
        let problems = self.0.into_inner();
        match value {
            Some(value) if problems.is_empty() => Ok(value),
            _ => Err(ConfigError { problems }),
        }
    }
}

/// A table that is being read.
pub(super) struct Table<'p> {
    path: String,
    left: Map<String, Value>,
    asked: Vec<&'static str>,
    problems: &'p Problems,
}

impl<'p> Table<'p> {
    /// Reads the outermost table.
    pub(super) fn root<T>(
        tree: Value,
        problems: &'p Problems,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        Self::all(String::new(), Some(tree), problems, read)
    }

    /// Reads an inner table; one that is not set is empty.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Table<'p>) -> T,
    ) -> T {
        let value = self.take(key);
        Table::all(self.key(key), value, self.problems, read)
    }

    /// Reads a value that has a default.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&Value) -> Result<T, Bad>,
    ) -> Option<T> {
        Some(self.optional(key, parse)?.unwrap_or(default))
    }

    /// Reads a value that may be absent; the outer `None` is a problem, the inner one absence.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Value) -> Result<T, Bad>,
    ) -> Option<Option<T>> {
        match self.take(key) {
            None => Some(None),
            Some(value) => self.accept(key, parse(&value)).map(Some),
        }
    }

    /// The value of a result; its problem is noted under the key.
    pub(super) fn accept<T>(&self, key: &str, result: Result<T, Bad>) -> Option<T> {
        result.map_err(|bad| self.problems.note(self.key(key), bad)).ok()
    }

    /// A key as it is to be named to people.
    pub(super) fn key(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    fn all<T>(
        path: String,
        value: Option<Value>,
        problems: &'p Problems,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let mut left = match value {
            Some(Value::Object(map)) => map,
            None | Some(Value::Null) => Map::new(),
            Some(_) => {
                let key = if path.is_empty() { "the configuration" } else { &path };
                let bad = Bad::new("it is no table", "put its settings into it, each by its key");
                problems.note(key.to_owned(), bad);
                Map::new()
            }
        };
        // A null is a value that is not set: it is how JSON sources write that.
        left.retain(|_, value| !value.is_null());
        let mut table = Table { path, left, asked: Vec::new(), problems };
        let value = read(&mut table);
        table.refuse_what_is_left();
        value
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        self.left.remove(key)
    }

    fn refuse_what_is_left(self) {
        for key in self.left.keys() {
            let remedy = match nearest(key, &self.asked) {
                Some(known) => format!("did you mean {}?", self.key(known)),
                None => format!("remove it; known here: {}", self.asked.join(", ")),
            };
            self.problems
                .note(self.key(&escape(key)), Bad::new("there is no such setting", remedy));
        }
    }
}

/// The known key that was probably meant: at most a third of it, or two letters, are different.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let plain = |text: &str| text.replace(['-', '_'], "").to_ascii_lowercase();
    if key.len() > 64 {
        return None;
    }
    let distance = |known: &&str| edits(&plain(key), &plain(known));
    let best = known.iter().copied().min_by_key(distance)?;
    (distance(&best) <= (best.len() / 3).max(2)).then_some(best)
}

/// How many letters must be put in, left out or changed to make one word of the other.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn edits_are_counted_as_people_make_them() {
        for (a, b, edits_made) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("abc", "", 3),
            ("hst", "host", 1),
            ("prot", "port", 2),
        ] {
            assert_eq!(edits(a, b), edits_made, "{a} {b}");
            assert_eq!(edits(b, a), edits_made, "{b} {a}");
        }
    }

    #[test]
    fn a_slip_is_led_to_the_key_that_was_meant_and_nonsense_to_none() {
        let known = ["host", "port", "topicPrefix", "messagesPerSecond"];
        assert_eq!(nearest("hosts", &known), Some("host"));
        assert_eq!(nearest("topic_prefix", &known), Some("topicPrefix"));
        assert_eq!(nearest("messagePerSeconds", &known), Some("messagesPerSecond"));
        assert_eq!(nearest("banana", &known), None);
        assert_eq!(nearest(&"host".repeat(1000), &known), None);
    }

    #[test]
    fn every_problem_of_every_table_is_noted_and_none_hides_another() {
        let tree = json!({"a": 1, "odd\n": 2, "inner": {"b": 3, "bb": 4}, "flat": 5, "none": null,
            "gone": null});
        let problems = Problems::default();
        let refuse = |_: &Value| Err::<u8, _>(Bad::new("it is bad", "mend it"));
        Table::root(tree, &problems, |root| {
            assert_eq!(root.or("a", 0, refuse), None);
            root.table("inner", |inner| assert_eq!(inner.or("b", 0, refuse), None));
            root.table("flat", |flat| assert_eq!(flat.or("c", 7, refuse), Some(7)));
            assert_eq!(root.or("none", 9, refuse), Some(9));
        });
        let error = problems.judge(Some(())).unwrap_err();
        let keys: Vec<&str> = error.problems.iter().map(|p| p.key.as_str()).collect();
        assert_eq!(keys, ["a", "inner.b", "inner.bb", "flat", "odd\\n"]);
        assert_eq!(error.problems[2].remedy, "did you mean inner.b?");
    }
}
