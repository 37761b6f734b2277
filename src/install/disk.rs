//! The real file system.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is where credential files are written"
)]

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use zeroize::Zeroizing;

use super::{
    mounts,
    port::{Access, Facts, Files, Kind, Owner, User},
};
use crate::lock::FileLock;

/// The real file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Files for Disk {
    type Handle = File;
    type Lock = FileLock;

    fn facts(&self, path: &Path) -> io::Result<Facts> {
        fs::symlink_metadata(path).map(|found| facts(&found))
    }

    fn target_facts(&self, path: &Path) -> io::Result<Facts> {
        fs::metadata(path).map(|found| facts(&found))
    }

    fn read(&self, path: &Path, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
        // All the room at once: what a growing vector leaves behind would not be wiped.
        let room = usize::try_from(most).map_err(io::Error::other)?;
        let mut content = Zeroizing::new(Vec::with_capacity(room));
        File::open(path)?.take(most).read_to_end(&mut content)?;
        Ok(content)
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        fs::read_link(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(io::Result::transpose).collect()
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        let open = || OpenOptions::new().write(true).open(path);
        open().or_else(|error| match error.kind() {
            // Its owner may write to it all the same.
            io::ErrorKind::PermissionDenied => {
                fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|_| error)?;
                open()
            }
            _ => Err(error),
        })
    }

    fn handle_facts(&self, file: &File) -> io::Result<Facts> {
        file.metadata().map(|found| facts(&found))
    }

    fn write(&self, file: &mut File, content: &[u8]) -> io::Result<()> {
        file.write_all(content)
    }

    fn set_owner(&self, file: &File, owner: Owner) -> io::Result<()> {
        fchown(file, Some(owner.uid), Some(owner.gid))
    }

    fn set_mode(&self, file: &File, mode: u32) -> io::Result<()> {
        file.set_permissions(Permissions::from_mode(mode))
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        symlink(target, link)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn make_dir(&self, dir: &Path, mode: u32) -> io::Result<()> {
        DirBuilder::new().mode(mode).create(dir)
    }

    fn set_dir_mode(&self, dir: &Path, mode: u32) -> io::Result<()> {
        fs::set_permissions(dir, Permissions::from_mode(mode))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<FileLock>> {
        FileLock::take(path)
    }

    fn is_mount_point(&self, path: &Path) -> io::Result<bool> {
        let path = fs::canonicalize(path)?;
        // Without it nobody can tell; what is mounted then fails when it is replaced.
        let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
        Ok(mounts::points(&table).any(|point| point == path))
    }

    fn can_read(&self, user: User, paths: &[&Path]) -> io::Result<bool> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "for f; do : <\"$f\" || exit 1; done", "sh"]).args(paths);
        shell.uid(user.uid).gid(user.gid).current_dir("/").env_clear();
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        shell.status().map(|status| status.success())
    }
}

fn facts(found: &Metadata) -> Facts {
    let kind = match found.file_type() {
        kind if kind.is_file() => Kind::File,
        kind if kind.is_dir() => Kind::Dir,
        kind if kind.is_symlink() => Kind::Link,
        _ => Kind::Other,
    };
    let owner = Owner { uid: found.uid(), gid: found.gid() };
    let access = Access { owner, mode: found.mode() & 0o777 };
    Facts {
        kind,
        id: (found.dev(), found.ino()),
        names: found.nlink(),
        length: found.len(),
        access,
    }
}
