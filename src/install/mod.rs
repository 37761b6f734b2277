//! Credentials on disk: generations, and the one that is current.
//!
//! ```text
//! DIR/gen-1/{cert.pem,key.pem}      a generation: a key, and once there is one its certificate
//! DIR/gen-2/{key.pem,csr.der}
//! DIR/current -> gen-1              the pair in use, switched by one rename
//! DIR/<name>                        notes of whoever uses the directory
//! ```
//!
//! The only module that writes credential files. A file is written beside its place, synced,
//! renamed, and its directory synced: a power cut leaves the old file or the new one. `current`
//! always names a generation whose certificate fits its key. One process at a time may write.
//! Knows nothing of rotations.
//!
//! What can't be read for now is never taken for damaged: only a pair that was read and does not
//! hold up is removed, or given up for another.
//!
//! A superseded key is overwritten and removed. On a disk in the old sense that ends it. On flash
//! and on copy-on-write file systems the old blocks may stay until the device reuses them: only an
//! encrypted disk helps there.

mod atomic;
mod credentials;
mod disk;
mod mounts;
mod port;
#[cfg(test)]
mod tests;

use std::{fmt, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::keys::KeyError;

pub use credentials::{Accesses, Credentials, Hints, Pair};
pub use disk::Disk;
pub use port::{Access, Facts, Files, Kind, Owner, User};

pub(crate) use atomic::{
    at, discard, folder_of, link, overwrite, put, remove_if_there, rename, sync_dir,
};

/// Which generation of credentials; a higher number is younger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl Generation {
    /// The name of its folder, if it is one.
    fn parse(name: &str) -> Option<Self> {
        let number = name.strip_prefix("gen-")?.parse().ok().map(Self)?;
        (number.to_string() == name).then_some(number)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gen-{}", self.0)
    }
}

/// What can go wrong with the credentials on disk.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file or folder could not be read or written.
    #[error("{path}: {why}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// Another process has the directory.
    #[error("{dir} is in use by another process: stop that first", dir = .0.display())]
    Locked(PathBuf),
    /// What should be a file is something else.
    #[error("{path} is no plain file", path = .0.display())]
    NotAFile(PathBuf),
    /// A file is larger than any credential.
    #[error("{path} is larger than 64 KiB", path = .0.display())]
    TooLarge(PathBuf),
    /// A key can't be read.
    #[error("{path}: {why}", path = path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: KeyError,
    },
    /// A certificate can't be read.
    #[error("{path}: there is no readable CERTIFICATE in it", path = .0.display())]
    Certificate(PathBuf),
    /// The generation is the current one, which is never removed.
    #[error("{0} is in use")]
    Current(Generation),
    /// The certificate is not the key's.
    #[error("{at}: the certificate does not fit the key", at = .0.display())]
    Mismatch(PathBuf),
}

type Result<T> = std::result::Result<T, InstallError>;

/// `None`: it was read, or looked for, and there is no such thing. An error: one can't tell for now.
pub(crate) fn known<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(InstallError::Io { path, why }) if !is_absent(&why) => {
            Err(InstallError::Io { path, why })
        }
        Err(_) => Ok(None),
    }
}

fn is_absent(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The files of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairFiles {
    /// The certificate, PEM: the leaf, then what follows it.
    pub certificate: PathBuf,
    /// The key, PEM.
    pub key: PathBuf,
}
