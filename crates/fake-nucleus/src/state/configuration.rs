//! The component's configuration: read, watched, changed by a deployment or by the component itself.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::{
    Answer, Failure, Reply, State, StreamKey,
    requests::{Arguments, text, texts},
};
use crate::{Mode, Pending, Settings};

/// What became of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The component was asked and accepted it: it holds.
    Accepted,
    /// Nobody was to be asked, or nothing has changed: it holds.
    Unasked,
    /// The component rejected it: nothing was changed.
    Rejected {
        /// Why.
        message: String,
    },
    /// The component did not answer in time: nothing was changed.
    TimedOut,
}

#[derive(Debug)]
pub(super) struct Configuration {
    value: Value,
    watchers: Vec<Watcher>,
    /// Java: the stream that judges configurations.
    validator: Option<StreamKey>,
    /// Java: who judges, on any stream: ending any of them ends the judging.
    validators: Vec<StreamKey>,
    judged: BTreeMap<String, Judged>,
    deployments: u64,
}

#[derive(Debug)]
struct Watcher {
    key: StreamKey,
    path: Vec<String>,
}

#[derive(Debug)]
struct Judged {
    configuration: Value,
    verdict: oneshot::Sender<Verdict>,
}

impl Configuration {
    pub fn new(settings: &Settings) -> Self {
        Self {
            value: deployed(settings.mode, settings.configuration.clone()),
            watchers: Vec::new(),
            validator: None,
            validators: Vec::new(),
            judged: BTreeMap::new(),
            deployments: 0,
        }
    }

    pub fn close(&mut self, key: StreamKey) {
        self.watchers.retain(|watcher| watcher.key != key);
        if self.validators.contains(&key) {
            self.validators.retain(|other| *other != key);
            self.validator = None;
        }
    }

    pub fn end_life(&mut self) {
        self.watchers.clear();
        self.validators.clear();
        self.validator = None;
        self.judged.clear();
    }
}

/// What components ask.
impl State {
    pub(super) fn get_configuration(&self, arguments: &Arguments) -> Answer {
        let of_nucleus = self.settings.nucleus_configuration();
        let (component, path, value) = match text(arguments, "componentName") {
            Some(name) if name == self.settings.nucleus_component() => {
                (name.to_owned(), self.path(arguments)?, &of_nucleus)
            }
            _ => {
                let (component, path) = self.place(arguments)?;
                (component, path, &self.configuration.value)
            }
        };
        let found = find(value, &path).ok_or_else(|| self.not_found())?;
        let value = match (found, path.last()) {
            (Value::Object(_), _) => found.clone(),
            (leaf, Some(name)) => json!({name: leaf}),
            (_, None) => return Err(Failure::invalid("Key is not valid.")),
        };
        Ok(Reply::Done(json!({"componentName": component, "value": value})))
    }

    pub(super) fn watch_configuration(&mut self, key: StreamKey, arguments: &Arguments) -> Answer {
        let (_, path) = self.place(arguments)?;
        find(&self.configuration.value, &path).ok_or_else(|| self.not_found())?;
        self.configuration.watchers.push(Watcher { key, path });
        Ok(Reply::Open(json!({})))
    }

    pub(super) fn update_configuration(&mut self, arguments: &Arguments) -> Answer {
        let path = texts(arguments, "keyPath").ok_or_else(|| self.unreadable())?;
        let Some(change) = arguments.get("valueToMerge") else {
            return Err(Failure::invalid("ValueToMerge is required"));
        };
        let mut changed = self.configuration.value.clone();
        let change = path.iter().rev().fold(change.clone(), |inner, key| json!({key: inner}));
        if change.get("accessControl").is_some() {
            let message = "Config update is not allowed for following fields [accessControl]";
            return Err(Failure::invalid(message));
        }
        merge(&mut changed, change);
        self.commit(changed);
        Ok(Reply::Done(json!({})))
    }

    pub(super) fn validate_configurations(&mut self, key: StreamKey) -> Answer {
        self.configuration.validator.get_or_insert(key);
        self.configuration.validators.push(key);
        Ok(Reply::Open(json!({})))
    }

    pub(super) fn take_validity_report(&mut self, arguments: &Arguments) -> Answer {
        let report = arguments.get("configurationValidityReport").and_then(Value::as_object);
        let report = report.ok_or_else(|| self.unreadable())?;
        let Some(deployment) = text(report, "deploymentId") else {
            return Err(Failure::invalid(
                "Cannot accept configuration validity report, the deployment ID provided was null",
            ));
        };
        let Some(judged) = self.configuration.judged.remove(deployment) else {
            return Err(Failure::invalid("Validation request either timed out or was never made"));
        };
        let verdict = match text(report, "status") {
            Some("REJECTED") => {
                let message = text(report, "message").unwrap_or_default().to_owned();
                Verdict::Rejected { message }
            }
            _ => Verdict::Accepted,
        };
        if verdict == Verdict::Accepted {
            self.commit(judged.configuration);
        }
        // Whoever deployed may not care.
        let _ = judged.verdict.send(verdict);
        Ok(Reply::Done(json!({})))
    }

    /// Which component's configuration is meant, and which part of it.
    fn place(&self, arguments: &Arguments) -> Result<(String, Vec<String>), Failure> {
        let path = self.path(arguments)?;
        let component = text(arguments, "componentName").unwrap_or(&self.settings.component);
        if component != self.settings.component {
            return Err(self.not_found());
        }
        Ok((component.to_owned(), path))
    }

    fn path(&self, arguments: &Arguments) -> Result<Vec<String>, Failure> {
        texts(arguments, "keyPath").ok_or_else(|| self.unreadable())
    }

    fn not_found(&self) -> Failure {
        let message = match self.mode() {
            Mode::Java => "Key not found",
            Mode::Lite => "Key not found.",
        };
        Failure::coded("ResourceNotFoundError", message)
    }
}

/// What a deployment does.
impl State {
    pub fn deploy(&mut self, configuration: Value) -> Pending<Verdict> {
        let (sender, pending) = Pending::new();
        let configuration = deployed(self.mode(), configuration);
        let is_new = configuration != self.configuration.value;
        match self.configuration.validator.filter(|_| is_new) {
            Some(validator) => self.ask_for_verdict(validator, configuration, sender),
            None => {
                self.commit(configuration);
                // Its other end is in this function still.
                let _ = sender.send(Verdict::Unasked);
            }
        }
        pending
    }

    fn ask_for_verdict(
        &mut self,
        validator: StreamKey,
        configuration: Value,
        verdict: oneshot::Sender<Verdict>,
    ) {
        self.configuration.deployments += 1;
        let deployment = format!("deployment-{}", self.configuration.deployments);
        let event = json!({"validateConfigurationUpdateEvent": {
            "configuration": configuration, "deploymentId": deployment,
        }});
        let judged = Judged { configuration, verdict };
        self.configuration.judged.insert(deployment.clone(), judged);
        self.event(validator, "ValidateConfigurationUpdateEvents", &event);
        self.after(self.settings.timing.validation, move |state| {
            if let Some(late) = state.configuration.judged.remove(&deployment) {
                let _ = late.verdict.send(Verdict::TimedOut);
            }
        });
    }

    /// The configuration changes; who watches is told of each leaf that did.
    fn commit(&mut self, new: Value) {
        let old = std::mem::replace(&mut self.configuration.value, new);
        let mut changed = Vec::new();
        differences(&old, &self.configuration.value, &mut Vec::new(), &mut changed);
        for path in changed {
            let watching = self.configuration.watchers.iter();
            let watching = watching.filter(|w| path.starts_with(&w.path)).map(|w| w.key);
            let event = json!({"configurationUpdateEvent": {
                "componentName": self.settings.component, "keyPath": path,
            }});
            for key in watching.collect::<Vec<_>>() {
                self.event(key, "ConfigurationUpdateEvents", &event);
            }
        }
    }
}

/// What a nucleus makes of the configuration of a deployment: lite reads YAML, and takes every
/// scalar in it for a string.
fn deployed(mode: Mode, configuration: Value) -> Value {
    match (mode, configuration) {
        (Mode::Java, configuration) => configuration,
        (Mode::Lite, Value::Object(members)) => {
            Value::Object(members.into_iter().map(|(k, v)| (k, deployed(mode, v))).collect())
        }
        (Mode::Lite, Value::Array(items)) => {
            Value::Array(items.into_iter().map(|item| deployed(mode, item)).collect())
        }
        (Mode::Lite, Value::String(text)) => Value::String(text),
        (Mode::Lite, scalar) => Value::String(scalar.to_string()),
    }
}

fn find<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.as_object()?.get(key))
}

fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change,
    }
}

/// The paths of the leaves that differ.
fn differences(old: &Value, new: &Value, at: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    let none = Map::new();
    let (old_members, new_members) = match (old, new) {
        (Value::Object(old), Value::Object(new)) => (old, new),
        (Value::Object(old), _) if new.is_null() => (old, &none),
        (_, Value::Object(new)) if old.is_null() => (&none, new),
        _ if old != new => return found.push(at.clone()),
        _ => return,
    };
    let keys: std::collections::BTreeSet<_> =
        old_members.keys().chain(new_members.keys()).collect();
    for key in keys {
        at.push(key.clone());
        let member = |of: &Map<String, Value>| of.get(key).cloned().unwrap_or_default();
        differences(&member(old_members), &member(new_members), at, found);
        at.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_by_the_paths_of_its_leaves() {
        let old = json!({"a": {"b": 1, "c": 2}, "gone": {"x": 1}, "same": [1]});
        let new = json!({"a": {"b": 1, "c": 3}, "new": {"y": {"z": 1}}, "same": [1]});
        let mut found = Vec::new();
        differences(&old, &new, &mut Vec::new(), &mut found);
        assert_eq!(found, [vec!["a", "c"], vec!["gone", "x"], vec!["new", "y", "z"]]);
    }

    #[test]
    fn lite_turns_every_scalar_into_a_string() {
        let made = deployed(Mode::Lite, json!({"n": 42, "b": true, "l": [1.5, "t"], "z": null}));
        assert_eq!(made, json!({"n": "42", "b": "true", "l": ["1.5", "t"], "z": "null"}));
    }
}
