//! What people may see of the identity.

use std::fmt;

use super::{Ended, Failure, Identity, Proof, Stage, machine::Here};
use crate::{
    install::Generation,
    schedule::{Now, Timestamp},
    wire::CertificateId,
};

/// The word for a stage that nothing is known of.
const UNKNOWN: &str = "unknown";

/// What a restart of the nucleus waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// A deployment to end.
    Deployment,
    /// A connection to the nucleus.
    Nucleus,
    /// The link to the cloud.
    Link,
    /// The window.
    Window,
    /// A day with fewer restarts.
    RestartLimit,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deployment => "the deployment under way",
            Self::Nucleus => "a connection to the nucleus",
            Self::Link => "the link to the cloud",
            Self::Window => "core.restartWindow, or `certrelay core restart-now`",
            Self::RestartLimit => "a day with fewer restarts (core.maxRestartsPerDay)",
        })
    }
}

/// What there is to see.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The stage's word; `unknown` until the credential could be looked at.
    pub stage: &'static str,
    /// The certificate under the configured paths, and until when it is valid.
    pub certificate: Option<(CertificateId, Timestamp)>,
    /// The generation that the configured paths lead to; `None`: they are plain files.
    pub generation: Option<Generation>,
    /// The new certificate, if one is on its way.
    pub new: Option<(CertificateId, Timestamp)>,
    /// Whether that goes on unproven.
    pub unproven: bool,
    /// The pair before, if it is kept.
    pub kept: Option<Generation>,
    /// How the last rotation ended.
    pub ended: Option<Ended>,
    /// Why the credential can't be looked at, or switched.
    pub blocked: Option<Failure>,
    /// The restarts that were asked for within a day.
    pub restarts: usize,
    /// What a restart waits for.
    pub waits_for: Option<Hold>,
}

impl Identity {
    /// What there is to see.
    pub fn view(&self, now: Now) -> View {
        let stage = &self.saved.stage;
        let waits =
            matches!(stage, Stage::AwaitWindow(_) | Stage::Installed(_) | Stage::RollingBack(_));
        let spare = self.spare();
        let here = self.here.as_ref();
        View {
            stage: here.map_or(UNKNOWN, |_| stage.name()),
            certificate: here.map(|Here { configured, .. }| (configured.id, configured.not_after)),
            generation: here.and_then(|here| here.current),
            new: stage.candidate().map(|candidate| (candidate.certificate, candidate.not_after)),
            unproven: proof(stage) == Some(Proof::NotPermitted),
            kept: self.saved.kept.as_ref().map(|kept| kept.generation),
            ended: self.saved.ended.clone(),
            blocked: self.blocked.clone().or_else(|| {
                let tries = matches!(stage, Stage::Probing(_) | Stage::Confirming(_));
                self.blind().filter(|_| tries)
            }),
            restarts: self.now(now).map_or(0, |now| self.saved.restarts.within_a_day(&now)),
            waits_for: waits.then(|| self.hold(now, spare)).flatten(),
        }
    }
}

fn proof(stage: &Stage) -> Option<Proof> {
    match stage {
        Stage::AwaitWindow(stage) => Some(stage.proof),
        Stage::Installed(stage) => Some(stage.proof),
        Stage::Confirming(stage) => Some(stage.proof),
        Stage::Idle | Stage::AwaitCertificate(_) | Stage::Probing(_) | Stage::RollingBack(_) => {
            None
        }
    }
}
