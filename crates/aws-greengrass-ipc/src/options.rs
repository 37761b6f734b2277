//! Where the nucleus is, who asks, and the limits to keep to.

use std::{env, ffi::OsString, fmt, path::PathBuf, time::Duration};

/// The variable in which a nucleus tells a component the path of its socket.
const SOCKET: &str = "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT";

/// The variable in which a nucleus gives a component its token.
const TOKEN: &str = "SVCUID";

/// How a [`Client`](crate::Client) connects and what it may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The path of the nucleus' socket.
    pub socket: PathBuf,
    /// The proof of which component this is.
    pub token: AuthToken,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// The largest frame that is accepted from the nucleus; a larger one ends the connection.
    pub max_frame: usize,
    /// What may wait in a subscription until it is read.
    pub queue: QueueLimits,
    /// The pauses between attempts to connect.
    pub backoff: Backoff,
}

impl Options {
    /// The defaults, for this socket and token.
    pub fn new(socket: impl Into<PathBuf>, token: AuthToken) -> Self {
        Self {
            socket: socket.into(),
            token,
            timeouts: Timeouts::default(),
            max_frame: 1024 * 1024,
            queue: QueueLimits::default(),
            backoff: Backoff::default(),
        }
    }

    /// The defaults, for the socket and token that a nucleus gives its components in
    /// `AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT` and `SVCUID`.
    pub fn from_env() -> Result<Self, EnvError> {
        Self::from_variables(|name| env::var_os(name))
    }

    fn from_variables(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, EnvError> {
        let variable = |name| get(name).filter(|value| !value.is_empty());
        let socket = variable(SOCKET).ok_or(EnvError::Missing(SOCKET))?;
        let token = variable(TOKEN).ok_or(EnvError::Missing(TOKEN))?;
        let token = token.into_string().map_err(|_| EnvError::NotText(TOKEN))?;
        Ok(Self::new(socket, AuthToken::from(token)))
    }
}

/// The environment of the process is not that of a Greengrass component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A variable is not set, or empty.
    #[error("the environment variable {0} is not set; a Greengrass nucleus sets it")]
    Missing(&'static str),
    /// A variable is not valid UTF-8.
    #[error("the environment variable {0} is not valid UTF-8")]
    NotText(&'static str),
}

/// The token that the nucleus gave the component. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthToken(String);

impl AuthToken {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for AuthToken {
    fn from(token: String) -> Self {
        Self(token)
    }
}

impl fmt::Debug for AuthToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthToken(..)")
    }
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the socket to accept a connection.
    pub connect: Duration,
    /// For the nucleus to accept the token, and again to say which nucleus it is.
    pub handshake: Duration,
    /// For the nucleus to take what is written, and to go on with a frame that it has begun. After
    /// that the connection is given up.
    pub write: Duration,
    /// For the answer to a call, with the time that it waits to be written.
    pub response: Duration,
    /// For the answer to a subscription. A classic nucleus that was never online withholds it.
    pub subscribe: Duration,
    /// For a classic nucleus to unsubscribe from an MQTT filter whose stream has ended, also with its
    /// connection. So long the filter is not asked for again: it would be granted and stay silent.
    pub unsubscribe: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            write: Duration::from_secs(10),
            response: Duration::from_secs(30),
            subscribe: Duration::from_secs(600),
            unsubscribe: Duration::from_secs(5),
        }
    }
}

/// What may wait in one subscription until it is read; what comes on top is shed.
///
/// On a runtime of one thread, who does nothing but wait for events gets every burst. With several
/// threads a burst can be faster than the thread that is to read it: allow for more events there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// So many events.
    pub events: usize,
    /// So many bytes, as they came from the nucleus.
    pub bytes: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { events: 256, bytes: 2 * 1024 * 1024 }
    }
}

/// Pauses that double with each attempt, each drawn between nothing and its length ("full jitter").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest that the first pause may be.
    pub first: Duration,
    /// The longest that any pause may be.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(200), longest: Duration::from_secs(10) }
    }
}

impl Backoff {
    /// A pause after so many attempts that failed, counted from 0.
    pub(crate) fn pause(self, attempts: u32) -> Duration {
        let most = u32::checked_pow(2, attempts).and_then(|times| self.first.checked_mul(times));
        most.map_or(self.longest, |most| most.min(self.longest)).mul_f64(fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_of_a_component_gives_options_and_any_other_says_what_lacks() {
        let component = |name: &str| match name {
            SOCKET => Some("/run/gg.socket".into()),
            TOKEN => Some("secret".into()),
            _ => None,
        };
        let options = Options::from_variables(component).expect("a component's environment");
        assert_eq!(options, Options::new("/run/gg.socket", "secret".to_owned().into()));
        let missing = Options::from_variables(|name| component(name).filter(|_| name != TOKEN));
        assert_eq!(missing, Err(EnvError::Missing(TOKEN)));
        assert_eq!(Options::from_variables(|_| Some("".into())), Err(EnvError::Missing(SOCKET)));
    }

    #[test]
    fn a_token_is_never_shown() {
        let options = Options::new("/run/gg.socket", AuthToken::from("secret".to_owned()));
        assert!(!format!("{options:#?}").contains("secret"));
    }

    #[test]
    fn pauses_grow_up_to_the_longest_and_are_spread() {
        let backoff = Backoff::default();
        let pauses = |attempts| (0..200).map(move |_| backoff.pause(attempts));
        assert!(pauses(0).all(|pause| pause <= backoff.first));
        assert!(pauses(3).all(|pause| pause <= backoff.first * 8));
        assert!(pauses(3).any(|pause| pause > backoff.first));
        for attempts in [10, 31, 32, u32::MAX] {
            assert!(pauses(attempts).all(|pause| pause <= backoff.longest));
            assert!(pauses(attempts).any(|pause| pause > backoff.longest / 2));
            assert!(pauses(attempts).any(|pause| pause < backoff.longest / 2));
        }
    }
}
