//! The settings of the core's own certificate (`core`).

use std::{path::PathBuf, time::Duration};

use crate::{identity::RestartWindow, keys::KeyKind};

/// How the core's own certificate is rotated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Core {
    /// Where its certificate and key are (`certificateFile`, `keyFile`); `None`: where the nucleus
    /// says.
    pub files: Option<CoreFiles>,
    /// The CAs of the cloud's broker (`caFile`); `None`: as the nucleus says.
    pub ca: Option<PathBuf>,
    /// The cloud's broker, for probes (`endpoint`): host and port; `None`: as the nucleus says.
    pub endpoint: Option<(String, u16)>,
    /// The kind of new keys (`keyAlgorithm`); `None`: that of the current key.
    pub key_algorithm: Option<KeyKind>,
    /// Whether there are new keys (`keyRotation`).
    pub key_rotation: KeyRotation,
    /// The program that restarts the nucleus, and its arguments (`restartCommand`); `None`: as
    /// systemd knows the nucleus that is there.
    pub restart_command: Option<Vec<String>>,
    /// When the nucleus may be restarted (`restartWindow`); `None`: at any time.
    pub restart_window: Option<RestartWindow>,
    /// A restart waits no longer than this for what is under way (`drainTimeout`).
    pub drain_timeout: Duration,
    /// The nucleus is restarted no more often than this in a day (`maxRestartsPerDay`).
    pub max_restarts_per_day: u32,
}

/// The two files of the core's credential: plain paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Whether a rotation makes a new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyRotation {
    /// It does.
    #[default]
    Rotate,
    /// The key stays; only the certificate is new.
    Reuse,
}

impl Default for Core {
    fn default() -> Self {
        Self {
            files: None,
            ca: None,
            endpoint: None,
            key_algorithm: None,
            key_rotation: KeyRotation::default(),
            restart_command: None,
            restart_window: None,
            drain_timeout: Duration::from_secs(30),
            max_restarts_per_day: 4,
        }
    }
}
