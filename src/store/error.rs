//! What can go wrong with the store, in words for who operates it, and what to do about it.
//!
//! Owns the one place where redb's and the system's errors become ours. Never names what was
//! stored.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

/// Why the store can't be used. Each message names the file, the reason and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The commit would take the store over its cap. Nothing was written; what removes more than
    /// it puts is still taken.
    #[error(
        "{}: would grow to {bytes} bytes, past store.maxBytes = {max_bytes}; new rotations are \
         refused until others end: raise store.maxBytes if there is room",
        path.display()
    )]
    Full {
        /// The database.
        path: PathBuf,
        /// How large it would be.
        bytes: u64,
        /// How large it may be.
        max_bytes: u64,
    },
    /// The disk, or the owner's quota on it, is full. What removes more than it puts is still
    /// taken once the store was opened anew: the ballast made room for it.
    #[error(
        "{}: the disk is full ({what}); nothing new is kept until space on it is freed",
        path.display()
    )]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
        /// The system's words.
        what: String,
    },
    /// The system failed to read or write.
    #[error(
        "{}: {what}; check that the work directory exists and can be written, and the disk's \
         health in the system log",
        path.display()
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// The kind of failure.
        kind: ErrorKind,
        /// The system's words.
        what: String,
    },
    /// The file is not as it was written. Opening anew sets it aside if that is still so.
    #[error(
        "{}: the file is damaged ({what}); it is set aside and a new one begun, lost requests \
         come again with the next audit: check the disk's health",
        path.display()
    )]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// Another process has it open. The file is sound.
    #[error(
        "{}: another process has the store open; stop it, or give this one its own workDir",
        path.display()
    )]
    Locked {
        /// The file that is locked.
        path: PathBuf,
    },
    /// A newer version wrote it. It was left as it is.
    #[error(
        "{}: written by a newer version (schema {found}, this one knows {known}); install that \
         version again, or move the file away to begin anew",
        path.display()
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest that is understood.
        known: u32,
    },
    /// The handle was spent by an earlier error, or nothing was opened yet.
    #[error("the store is closed after an earlier error; it has to be opened anew")]
    Closed,
    /// The store's thread is gone: a fault of the program.
    #[error("the store's thread has ended; restart the component and report the log before this")]
    ThreadGone,
}

/// What is to be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Drop the handle and open anew, with back-off: it may pass, or be mended by the opening.
    Reopen,
    /// It will not pass by itself: report it and end, for someone has to act.
    Operator,
}

impl StoreError {
    /// What is to be done.
    pub fn fate(&self) -> Fate {
        match self {
            Self::NewerSchema { .. } | Self::ThreadGone => Fate::Operator,
            Self::Io { kind, .. } if is_lasting(*kind) => Fate::Operator,
            Self::Full { .. }
            | Self::DiskFull { .. }
            | Self::Io { .. }
            | Self::Corrupt { .. }
            | Self::Locked { .. }
            | Self::Closed => Fate::Reopen,
        }
    }

    /// Whether room is all that is missing: a commit that shrinks the store would be taken.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::DiskFull { .. })
    }

    pub(super) fn from_io(path: &Path, error: &io::Error) -> Self {
        let (path, kind, what) = (path.to_owned(), error.kind(), error.to_string());
        match kind {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::DiskFull { path, what },
            // redb's word for a file that is none of its own, and a read past the file's end.
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => Self::Corrupt { path, what },
            _ => Self::Io { path, kind, what },
        }
    }

    pub(super) fn from_redb(path: &Path, error: redb::Error) -> Self {
        use redb::Error::{DatabaseAlreadyOpen, Io, LockProtocolMismatch, PreviousIo};
        match error {
            Io(error) => Self::from_io(path, &error),
            PreviousIo => Self::from_io(path, &io::Error::other(error.to_string())),
            DatabaseAlreadyOpen | LockProtocolMismatch => Self::Locked { path: path.to_owned() },
            // What is left is a file that can't be what we wrote: we use the types and the file
            // format of one version of redb only.
            _ => Self::Corrupt { path: path.to_owned(), what: error.to_string() },
        }
    }
}

fn is_lasting(kind: ErrorKind) -> bool {
    use ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    matches!(kind, NotADirectory | NotFound | PermissionDenied | ReadOnlyFilesystem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_code(code: i32) -> StoreError {
        StoreError::from_io(Path::new("certrelay.redb"), &io::Error::from_raw_os_error(code))
    }

    #[test]
    fn every_failure_of_the_system_has_its_fate() {
        let [eio, eacces, efbig, enospc, erofs, edquot] = [5, 13, 27, 28, 30, 122];
        assert!(from_code(enospc).is_full() && from_code(edquot).is_full());
        assert!(!from_code(eio).is_full());
        for passing in [eio, efbig, enospc, edquot] {
            assert_eq!(from_code(passing).fate(), Fate::Reopen, "{}", from_code(passing));
        }
        for lasting in [eacces, erofs] {
            assert_eq!(from_code(lasting).fate(), Fate::Operator, "{}", from_code(lasting));
        }
    }

    #[test]
    fn a_lock_is_not_corruption_and_a_foreign_file_is_no_passing_failure() {
        let path = Path::new("certrelay.redb");
        let locked = StoreError::from_redb(path, redb::Error::DatabaseAlreadyOpen);
        assert_eq!(locked, StoreError::Locked { path: path.to_owned() });
        let foreign = io::Error::from(ErrorKind::InvalidData);
        let foreign = StoreError::from_redb(path, redb::Error::Io(foreign));
        assert!(matches!(foreign, StoreError::Corrupt { .. }));
    }
}
