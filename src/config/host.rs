//! What the settings ask of the machine that they are read on: variables and files.
//!
//! The one place of the settings that touches the environment or the file system. Never writes.

#![expect(clippy::disallowed_methods, reason = "looking at files is this module's job")]
#![expect(clippy::disallowed_types, reason = "looking at files is this module's job")]

use std::{fs, io, path::Path};

/// What the settings ask of the machine that they are read on.
pub trait Host {
    /// An environment variable; `None`: not set, or not UTF-8.
    fn variable(&self, name: &str) -> Option<String>;

    /// Whether the file is there and may be read; nothing of it is.
    fn readable(&self, file: &Path) -> io::Result<()>;

    /// Whether the directory is there.
    fn directory(&self, path: &Path) -> io::Result<()>;

    /// What the file holds.
    fn read(&self, file: &Path) -> io::Result<Vec<u8>>;
}

/// This machine.
#[derive(Debug, Clone, Copy)]
pub struct ThisHost;

impl Host for ThisHost {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn readable(&self, file: &Path) -> io::Result<()> {
        match fs::File::open(file)?.metadata()?.is_dir() {
            true => Err(io::ErrorKind::IsADirectory.into()),
            false => Ok(()),
        }
    }

    fn directory(&self, path: &Path) -> io::Result<()> {
        match fs::metadata(path)?.is_dir() {
            true => Ok(()),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        fs::read(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_from_a_directory_and_from_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        fs::write(&file, "x").expect("written");
        let missing = dir.path().join("missing");
        let kind = |result: io::Result<()>| result.map_err(|error| error.kind());

        assert_eq!(kind(ThisHost.readable(&file)), Ok(()));
        assert_eq!(kind(ThisHost.readable(dir.path())), Err(io::ErrorKind::IsADirectory));
        assert_eq!(kind(ThisHost.readable(&missing)), Err(io::ErrorKind::NotFound));
        assert_eq!(kind(ThisHost.directory(dir.path())), Ok(()));
        assert_eq!(kind(ThisHost.directory(&file)), Err(io::ErrorKind::NotADirectory));
        assert_eq!(kind(ThisHost.directory(&missing)), Err(io::ErrorKind::NotFound));
    }
}
