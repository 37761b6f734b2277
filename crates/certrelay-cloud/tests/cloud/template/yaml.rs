//! YAML as CloudFormation reads it: maps, lists, scalars that are all strings here, and `!Name` for
//! the function of that name.
//!
//! Panics on what the template has no business with: anchors, aliases, more than one document.

use saphyr_parser::{Event, Parser, ScanError, Span, Tag};
use serde_json::{Map, Value, json};

type Next<'a> = Result<(Event<'a>, Span), ScanError>;

/// Reads a document.
pub fn read(text: &str) -> Value {
    let mut events = Parser::new_from_str(text).map(plain).skip(2);
    let root = value(events.next().expect("a value"), &mut events);
    assert_eq!(events.collect::<Vec<_>>(), [Event::DocumentEnd, Event::StreamEnd]);
    root
}

fn plain(next: Next<'_>) -> Event<'_> {
    next.expect("well-formed YAML").0
}

fn value<'a>(event: Event<'a>, rest: &mut impl Iterator<Item = Event<'a>>) -> Value {
    match event {
        Event::Scalar(text, _, 0, tag) => call(tag.as_deref(), text.into_owned().into()),
        Event::SequenceStart(0, tag) => call(tag.as_deref(), list(rest)),
        Event::MappingStart(0, None) => map(rest),
        other => panic!("no place for {other:?}"),
    }
}

/// The long form of a function.
fn call(tag: Option<&Tag>, argument: Value) -> Value {
    match tag.map(|tag| (tag.handle.as_str(), tag.suffix.as_str())) {
        None => argument,
        Some(("!", "Ref")) => json!({ "Ref": argument }),
        Some(("!", name)) => json!({ format!("Fn::{name}"): argument }),
        Some(other) => panic!("no place for {other:?}"),
    }
}

fn list<'a>(rest: &mut impl Iterator<Item = Event<'a>>) -> Value {
    let mut items = Vec::new();
    loop {
        match rest.next().expect("the end of the list") {
            Event::SequenceEnd => return Value::Array(items),
            event => items.push(value(event, rest)),
        }
    }
}

fn map<'a>(rest: &mut impl Iterator<Item = Event<'a>>) -> Value {
    let mut pairs = Map::new();
    loop {
        let key = match rest.next().expect("the end of the map") {
            Event::MappingEnd => return Value::Object(pairs),
            Event::Scalar(key, ..) => key.into_owned(),
            other => panic!("{other:?} as a key"),
        };
        let found = value(rest.next().expect("a value"), rest);
        assert_eq!(pairs.insert(key.clone(), found), None, "{key} twice");
    }
}
