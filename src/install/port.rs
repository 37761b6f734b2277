//! The few things that credentials need of a file system, so that tests can play one that fails,
//! or whose power is cut.
//!
//! An operation follows no link at the end of a path unless it says so. Nothing is durable before
//! it is synced: a file's content and access by [`Files::sync`], its name by [`Files::sync_dir`] of
//! the folder.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// A file system.
pub trait Files: Clone + fmt::Debug {
    /// A file that is open for writing.
    type Handle;
    /// A lock that is held as long as this lives.
    type Lock: fmt::Debug;

    /// What a path is.
    fn facts(&self, path: &Path) -> io::Result<Facts>;
    /// What a path leads to, links followed.
    fn target_facts(&self, path: &Path) -> io::Result<Facts>;
    /// The content of a file, links followed. No more than `most` bytes are read.
    fn read(&self, path: &Path, most: u64) -> io::Result<Zeroizing<Vec<u8>>>;
    /// Where a link leads.
    fn read_link(&self, path: &Path) -> io::Result<PathBuf>;
    /// The names in a folder. One that is not UTF-8 is none of ours.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes a file that only its owner can use; there must be none of the name.
    fn create(&self, path: &Path) -> io::Result<Self::Handle>;
    /// Opens a file to write over its content from the beginning, links followed.
    fn open(&self, path: &Path) -> io::Result<Self::Handle>;
    /// What an open file is.
    fn handle_facts(&self, file: &Self::Handle) -> io::Result<Facts>;
    /// Writes on where the last write ended.
    fn write(&self, file: &mut Self::Handle, content: &[u8]) -> io::Result<()>;
    /// Gives a file to an owner.
    fn set_owner(&self, file: &Self::Handle, owner: Owner) -> io::Result<()>;
    /// Sets a file's permissions.
    fn set_mode(&self, file: &Self::Handle, mode: u32) -> io::Result<()>;
    /// Makes a file's content and access durable.
    fn sync(&self, file: &Self::Handle) -> io::Result<()>;

    /// Gives a file or link another name, in place of what had that.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes a link.
    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()>;
    /// Removes a file or link.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder with no more than these permissions.
    fn make_dir(&self, dir: &Path, mode: u32) -> io::Result<()>;
    /// Sets a folder's permissions.
    fn set_dir_mode(&self, dir: &Path, mode: u32) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes durable which names a folder holds.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the lock that this file stands for, and makes the file if need be; `None` while
    /// another process has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Self::Lock>>;
    /// Whether something is mounted just there, links followed.
    fn is_mount_point(&self, path: &Path) -> io::Result<bool>;
    /// Whether a user can open all these files, links followed, by asking as that user; an error
    /// when one can't ask.
    fn can_read(&self, user: User, paths: &[&Path]) -> io::Result<bool>;
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Its kind.
    pub kind: Kind,
    /// Which it is: device and inode.
    pub id: (u64, u64),
    /// How many names it has.
    pub names: u64,
    /// Its length, in bytes.
    pub length: u64,
    /// Its owner and permissions.
    pub access: Access,
}

/// A kind of thing that has a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A plain file.
    File,
    /// A folder.
    Dir,
    /// A symbolic link.
    Link,
    /// Anything else.
    Other,
}

/// Who may use a file, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Its owner.
    pub owner: Owner,
    /// Its permissions: `rwxrwxrwx`.
    pub mode: u32,
}

/// The owner of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// A user, as which files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}
