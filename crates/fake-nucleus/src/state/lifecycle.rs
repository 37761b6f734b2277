//! The component's state, and the updates that it may put off.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{
    Answer, Failure, Reply, State, StreamKey, note,
    requests::{Arguments, text},
};
use crate::{Mode, Pending};

/// What the component said to an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateAnswer {
    /// Nobody asked to be told of updates.
    Unasked,
    /// It may go ahead.
    GoAhead,
    /// It is to be asked again.
    Deferred {
        /// After this long; `None` is not heeded by the nucleus, which waits out its patience.
        recheck_after: Option<Duration>,
        /// Why.
        message: Option<String>,
    },
    /// It said nothing in time, which holds up every deployment for that long.
    Unanswered,
}

#[derive(Debug, Default)]
pub(super) struct Lifecycle {
    listeners: Vec<StreamKey>,
    /// The updates that are not over.
    updates: BTreeMap<String, Update>,
    asked: u64,
}

#[derive(Debug)]
struct Update {
    restarts: bool,
    /// The last question, by its number.
    question: u64,
    is_open: bool,
    /// Who waits for the first answer.
    first: Option<oneshot::Sender<UpdateAnswer>>,
}

impl Lifecycle {
    pub fn close(&mut self, key: StreamKey) {
        self.listeners.retain(|listener| *listener != key);
    }
}

impl State {
    pub(super) fn update_state(&mut self, arguments: &Arguments) -> Answer {
        match (text(arguments, "state"), self.mode()) {
            (Some(state @ ("RUNNING" | "ERRORED")), _) => {
                note(&mut self.record.states, state.to_owned());
                Ok(Reply::Done(json!({})))
            }
            (_, Mode::Java) => Err(Failure::Internal),
            (None, Mode::Lite) => Err(Failure::service("Received invalid parameters.")),
            (_, Mode::Lite) => Err(Failure::service("Failed to update the lifecycle state.")),
        }
    }

    pub(super) fn watch_updates(&mut self, key: StreamKey) -> Answer {
        self.lifecycle.listeners.push(key);
        Ok(Reply::Open(json!({})))
    }

    pub(super) fn defer_update(&mut self, arguments: &Arguments) -> Answer {
        if self.lifecycle.listeners.is_empty() {
            return Err(Failure::invalid("Component is not subscribed to component update events"));
        }
        let Some(deployment) = text(arguments, "deploymentId") else {
            return Err(Failure::invalid(
                "Cannot defer the update, the deployment ID provided was null",
            ));
        };
        let update = self.lifecycle.updates.get(deployment);
        let open = update.filter(|update| update.is_open);
        let Some(question) = open.map(|update| update.question) else {
            return Err(Failure::service(
                "Time limit to respond to PreComponentUpdateEvent exceeded",
            ));
        };
        let deployment = deployment.to_owned();
        let answer = match arguments.get("recheckAfterMs").and_then(Value::as_u64) {
            Some(0) => UpdateAnswer::GoAhead,
            pause => UpdateAnswer::Deferred {
                recheck_after: pause.map(Duration::from_millis),
                message: text(arguments, "message").map(str::to_owned),
            },
        };
        // Without a time it is not heeded.
        let UpdateAnswer::Deferred { recheck_after: None, .. } = answer else {
            self.is_answered(&deployment, question, answer);
            return Ok(Reply::Done(json!({})));
        };
        self.tell_first(&deployment, answer);
        Ok(Reply::Done(json!({})))
    }

    /// Tells the component of an update to come, and again whenever it has put that off.
    pub fn announce_update(&mut self, deployment: &str, restarts: bool) -> Pending<UpdateAnswer> {
        let (sender, pending) = Pending::new();
        let first = Some(sender);
        let update = Update { restarts, question: 0, is_open: false, first };
        self.lifecycle.updates.insert(deployment.to_owned(), update);
        self.ask_for_update(deployment);
        pending
    }

    /// Tells the component that an update is over.
    pub fn finish_update(&mut self, deployment: &str) {
        self.lifecycle.updates.remove(deployment);
        self.tell_of_update(&json!({"postUpdateEvent": {"deploymentId": deployment}}));
    }

    fn ask_for_update(&mut self, deployment: &str) {
        self.lifecycle.asked += 1;
        let number = self.lifecycle.asked;
        let Some(update) = self.lifecycle.updates.get_mut(deployment) else { return };
        (update.question, update.is_open) = (number, true);
        let restarts = update.restarts;
        if self.lifecycle.listeners.is_empty() {
            return self.is_answered(deployment, number, UpdateAnswer::Unasked);
        }
        self.tell_of_update(&json!({"preUpdateEvent": {
            "deploymentId": deployment, "isGgcRestarting": restarts,
        }}));
        let deployment = deployment.to_owned();
        self.after(self.settings.timing.update, move |state| {
            state.is_answered(&deployment, number, UpdateAnswer::Unanswered);
        });
    }

    /// A question is answered, unless it was before.
    fn is_answered(&mut self, deployment: &str, question: u64, answer: UpdateAnswer) {
        let update = self.lifecycle.updates.get_mut(deployment);
        let open = update.filter(|update| update.is_open && update.question == question);
        let Some(update) = open else { return };
        update.is_open = false;
        if let UpdateAnswer::Deferred { recheck_after: Some(pause), .. } = answer {
            let deployment = deployment.to_owned();
            self.after(pause, move |state| {
                // It may be over by then, or asked about again.
                let update = state.lifecycle.updates.get(&deployment);
                if update.is_some_and(|update| update.question == question) {
                    state.ask_for_update(&deployment);
                }
            });
        }
        note(&mut self.record.update_answers, (deployment.to_owned(), answer.clone()));
        self.tell_first(deployment, answer);
    }

    fn tell_first(&mut self, deployment: &str, answer: UpdateAnswer) {
        let update = self.lifecycle.updates.get_mut(deployment);
        if let Some(first) = update.and_then(|update| update.first.take()) {
            // Whoever announced it may not care.
            let _ = first.send(answer);
        }
    }

    fn tell_of_update(&mut self, event: &Value) {
        for key in self.lifecycle.listeners.clone() {
            self.event(key, "ComponentUpdatePolicyEvents", event);
        }
    }
}
