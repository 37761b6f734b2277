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
    announced: BTreeMap<String, oneshot::Sender<UpdateAnswer>>,
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
        let Some(asked) = self.lifecycle.announced.remove(deployment) else {
            return Err(Failure::service(
                "Time limit to respond to PreComponentUpdateEvent exceeded",
            ));
        };
        let answer = match arguments.get("recheckAfterMs").and_then(Value::as_u64) {
            Some(0) => UpdateAnswer::GoAhead,
            pause => UpdateAnswer::Deferred {
                recheck_after: pause.map(Duration::from_millis),
                message: text(arguments, "message").map(str::to_owned),
            },
        };
        // Whoever announced it may not care.
        let _ = asked.send(answer);
        Ok(Reply::Done(json!({})))
    }

    /// Tells the component of an update to come; one question, one answer.
    pub fn announce_update(&mut self, deployment: &str, restarts: bool) -> Pending<UpdateAnswer> {
        let (sender, pending) = Pending::new();
        if self.lifecycle.listeners.is_empty() {
            // Its other end is in this function still.
            let _ = sender.send(UpdateAnswer::Unasked);
            return pending;
        }
        self.lifecycle.announced.insert(deployment.to_owned(), sender);
        self.tell_of_update(&json!({"preUpdateEvent": {
            "deploymentId": deployment, "isGgcRestarting": restarts,
        }}));
        let deployment = deployment.to_owned();
        self.after(self.settings.timing.update, move |state| {
            if let Some(silent) = state.lifecycle.announced.remove(&deployment) {
                let _ = silent.send(UpdateAnswer::Unanswered);
            }
        });
        pending
    }

    /// Tells the component that an update is over.
    pub fn finish_update(&mut self, deployment: &str) {
        self.tell_of_update(&json!({"postUpdateEvent": {"deploymentId": deployment}}));
    }

    fn tell_of_update(&mut self, event: &Value) {
        for key in self.lifecycle.listeners.clone() {
            self.event(key, "ComponentUpdatePolicyEvents", event);
        }
    }
}
