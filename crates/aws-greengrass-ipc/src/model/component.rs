//! The life of the component, and updates that want it to stop.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Nothing, Operation, StreamingOperation, names};
use crate::connection::Names;

/// What a component reports of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ComponentState {
    /// It has started. Of use to a component whose recipe has a `startup` step.
    Running,
    /// It has failed.
    Errored,
}

#[derive(Debug, Serialize)]
pub(crate) struct UpdateState {
    pub state: ComponentState,
}

impl Operation for UpdateState {
    const NAMES: Names = names!("UpdateState");
    const IS_ON_LITE: bool = true;
    type Response = Nothing;
}

#[derive(Debug, Serialize)]
pub(crate) struct SubscribeToComponentUpdates {}

impl StreamingOperation for SubscribeToComponentUpdates {
    const NAMES: Names = names!("SubscribeToComponentUpdates");
    const EVENT: &'static str = "aws.greengrass#ComponentUpdatePolicyEvents";
    const IS_ON_LITE: bool = false;
    const LINGERS: bool = false;
    type Event = ComponentUpdate;
}

/// A deployment that updates components.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "ComponentUpdatePolicyEvents")]
pub enum ComponentUpdate {
    /// It is about to, and waits for a [`DeferComponentUpdate`].
    Pre {
        /// The deployment.
        deployment_id: String,
        /// Whether the nucleus will restart.
        is_nucleus_restarting: bool,
    },
    /// It has.
    Post {
        /// The deployment.
        deployment_id: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ComponentUpdatePolicyEvents {
    pre_update_event: Option<PreUpdateEvent>,
    post_update_event: Option<PostUpdateEvent>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PreUpdateEvent {
    deployment_id: String,
    #[serde(default)]
    is_ggc_restarting: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostUpdateEvent {
    deployment_id: String,
}

impl TryFrom<ComponentUpdatePolicyEvents> for ComponentUpdate {
    type Error = &'static str;

    fn try_from(events: ComponentUpdatePolicyEvents) -> Result<Self, Self::Error> {
        match (events.pre_update_event, events.post_update_event) {
            (Some(PreUpdateEvent { deployment_id, is_ggc_restarting }), None) => {
                Ok(Self::Pre { deployment_id, is_nucleus_restarting: is_ggc_restarting })
            }
            (None, Some(PostUpdateEvent { deployment_id })) => Ok(Self::Post { deployment_id }),
            _ => Err("it is neither a preUpdateEvent nor a postUpdateEvent"),
        }
    }
}

/// The answer to a [`ComponentUpdate::Pre`]. None at all holds the deployment up for as long as its
/// policy allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeferComponentUpdate {
    /// The deployment.
    pub deployment_id: String,
    /// Why it has to wait.
    pub message: Option<String>,
    /// To be asked again after so long; nothing: go ahead.
    pub recheck_after: Duration,
}

impl Serialize for DeferComponentUpdate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let recheck_after_ms = u64::try_from(self.recheck_after.as_millis()).unwrap_or(u64::MAX);
        let message = self.message.as_deref();
        Body { deployment_id: &self.deployment_id, message, recheck_after_ms }.serialize(serializer)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    deployment_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    /// Never left away: a nucleus takes that for no answer.
    recheck_after_ms: u64,
}

impl Operation for DeferComponentUpdate {
    const NAMES: Names = names!("DeferComponentUpdate");
    const IS_ON_LITE: bool = false;
    type Response = Nothing;
}
