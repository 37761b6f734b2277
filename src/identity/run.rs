//! Which life of the nucleus this is.

use serde::{Deserialize, Serialize};

/// What tells one life of the nucleus from another. A component may be restarted, or updated, in
/// the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunId {
    /// The kernel's boot id.
    pub boot: String,
    /// The SHA-256 of the token that the nucleus gave this process, in hex; never the token.
    pub token: String,
    /// What tells its socket from the one before, in hex: the nucleus makes it at its start.
    pub socket: String,
}

impl RunId {
    /// Whether the nucleus was started anew since `before`. A token alone proves nothing: a
    /// component that is updated gets a new one too.
    pub fn is_after(&self, before: &Self) -> bool {
        self.boot != before.boot || (self.token != before.token && self.socket != before.socket)
    }
}
