//! The store's files in the work directory: their names, the lock, the ballast, what is set aside.
//!
//! Owns everything about them but what the database itself holds. All are 0600. Only who holds the
//! [`Place`] touches any of them, so that no second process can set aside a file that the first has
//! just begun. Never removes a database that is sound.
//!
//! The ballast is a file of random bytes that takes up room while there is some. When the disk is
//! full it is removed, for even a deletion has to write before it can free anything. While it is
//! missing, nothing may grow: what it freed is for draining the store. It is taken again before
//! the store next grows.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::StoreError;
use crate::lock::FileLock;

const DATABASE: &str = "certrelay.redb";
const DRAFT: &str = "certrelay.redb.new";
const LOCK: &str = "certrelay.redb.lock";
const BALLAST: &str = "certrelay.redb.ballast";
const CORRUPT: &str = "certrelay.redb.corrupt-";

/// How many damaged files are kept, for whoever wants to look into them; the newest.
const CORRUPT_KEPT: usize = 2;

/// The work directory, held against every other process as long as this lives.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    ballast_bytes: u64,
    ballasted: bool,
    _lock: FileLock,
}

impl Place {
    /// Takes the directory, if nobody else has it.
    pub fn take(dir: &Path, ballast_bytes: u64) -> Result<Self, StoreError> {
        let path = dir.join(LOCK);
        let lock = FileLock::take(&path).map_err(|error| StoreError::from_io(&path, &error))?;
        let lock = lock.ok_or(StoreError::Locked { path })?;
        let ballast = fs::metadata(dir.join(BALLAST));
        // A shorter one is what a kill left of one that was being made.
        let ballasted = ballast.is_ok_and(|found| found.len() == ballast_bytes);
        Ok(Self { dir: dir.to_owned(), ballast_bytes, ballasted, _lock: lock })
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.dir.join(DATABASE)
    }

    /// How much of the disk the database takes up: it is sparse.
    pub fn database_on_disk(&self) -> u64 {
        const BLOCK: u64 = 512;
        fs::metadata(self.database()).map_or(0, |found| found.blocks() * BLOCK)
    }

    /// An empty file in which a database can be made ready.
    pub fn draft(&self) -> Result<PathBuf, StoreError> {
        let path = self.dir.join(DRAFT);
        remove_if_there(&path)
            .and_then(|()| create(&path))
            .map(|_| path.clone())
            .map_err(|error| StoreError::from_io(&path, &error))
    }

    /// Makes the draft the database. It is complete and durable, so a crash leaves it or nothing.
    pub fn publish_draft(&self) -> Result<(), StoreError> {
        fs::rename(self.dir.join(DRAFT), self.database())
            .and_then(|()| self.sync_dir())
            .map_err(|error| StoreError::from_io(&self.database(), &error))
    }

    /// Moves the damaged database out of the way and says where it lies. The oldest of those that
    /// were moved before go.
    pub fn set_aside(&self) -> Result<PathBuf, StoreError> {
        self.try_set_aside().map_err(|error| StoreError::from_io(&self.database(), &error))
    }

    /// Where the last damaged database lies, if there was one.
    pub fn last_set_aside(&self) -> Result<Option<PathBuf>, StoreError> {
        let numbers = self.corrupt_numbers();
        let numbers = numbers.map_err(|error| StoreError::from_io(&self.dir, &error))?;
        Ok(numbers.last().map(|last| self.corrupt(*last)))
    }

    fn try_set_aside(&self) -> io::Result<PathBuf> {
        let numbers = self.corrupt_numbers()?;
        let next = numbers.last().map_or(1, |last| last.saturating_add(1));
        let path = self.corrupt(next);
        fs::rename(self.database(), &path)?;
        let surplus = (numbers.len() + 1).saturating_sub(CORRUPT_KEPT);
        for number in &numbers[..surplus] {
            fs::remove_file(self.corrupt(*number))?;
        }
        self.sync_dir()?;
        Ok(path)
    }

    fn corrupt(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{CORRUPT}{number}"))
    }

    /// In ascending order.
    fn corrupt_numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(CORRUPT));
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Whether the ballast is there.
    pub fn is_ballasted(&self) -> bool {
        self.ballasted
    }

    /// Takes the ballast, if it was given up or never taken.
    pub fn take_ballast(&mut self) -> Result<(), StoreError> {
        if self.ballasted {
            return Ok(());
        }
        let path = self.dir.join(BALLAST);
        if let Err(error) = self.write_ballast(&path) {
            self.give_up_ballast();
            return Err(StoreError::from_io(&path, &error));
        }
        self.ballasted = true;
        Ok(())
    }

    fn write_ballast(&self, path: &Path) -> io::Result<()> {
        // Not zeros: some file systems store those as nothing.
        const CHUNK: usize = 64 * 1024;
        let mut random = [0; CHUNK];
        remove_if_there(path)?;
        let mut file = create(path)?;
        let mut left = self.ballast_bytes;
        while left > 0 {
            fastrand::fill(&mut random);
            let chunk = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            file.write_all(&random[..chunk])?;
            left -= chunk as u64;
        }
        file.sync_all()?;
        self.sync_dir()
    }

    /// Gives the ballast's room to the database.
    pub fn give_up_ballast(&mut self) {
        self.ballasted = false;
        // If it can't be removed there is no room to be made, and the next commit says so.
        let _ = fs::remove_file(self.dir.join(BALLAST));
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
