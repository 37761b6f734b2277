//! A file that stands for the right to touch the others in its folder.
//!
//! One holder at a time, in this process and all others; the system takes it from a process that
//! dies. Nothing is ever read from the file or written to it.

#![expect(clippy::disallowed_types, reason = "a lock is on a file")]

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// The right, until it is dropped.
#[derive(Debug)]
pub struct FileLock(File);

impl FileLock {
    /// Takes it, and makes the file (0600) if need be; `None` while somebody else has it.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for FileLock {
    /// A program that this process is just starting has copies of all descriptors for a moment:
    /// closing ours would leave the lock with it.
    fn drop(&mut self) {
        // It ends with the process at the latest.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_can_be_taken_though_somebody_has_a_copy_of_the_descriptor() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("lock");
        let lock = FileLock::take(&path).expect("the folder takes files").expect("nobody has it");
        let copy = lock.0.try_clone().expect("a descriptor to spare");
        assert!(FileLock::take(&path).expect("readable").is_none(), "it is taken");
        drop(lock);
        assert!(FileLock::take(&path).expect("readable").is_some(), "it was given back");
        drop(copy);
    }
}
