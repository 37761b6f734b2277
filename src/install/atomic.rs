//! Files that are there whole or not at all, and gone for good.

use std::{io, path::Path};

use zeroize::Zeroizing;

use super::{
    InstallError, Result, known,
    port::{Access, Files, Kind},
};

/// What is being written, or switched to, has this in front of its name.
pub(super) const TEMPORARY: &str = ".new-";

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 64 * 1024;

pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    |why| InstallError::Io { path, why }
}

/// The content of a file, which is no larger than any credential; links are followed.
pub(crate) fn read<F: Files>(files: &F, path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    if files.target_facts(path).map_err(at(path))?.kind != Kind::File {
        return Err(InstallError::NotAFile(path.to_owned()));
    }
    let content = files.read(path, MAX_FILE + 1).map_err(at(path))?;
    if u64::try_from(content.len()).is_ok_and(|length| length <= MAX_FILE) {
        return Ok(content);
    }
    Err(InstallError::TooLarge(path.to_owned()))
}

/// Writes a file so that a power cut leaves the old one or the new one.
pub(super) fn write<F: Files>(
    files: &F,
    dir: &Path,
    name: &str,
    content: &[u8],
    access: Option<Access>,
) -> Result<()> {
    let (temporary, path) = (dir.join(format!("{TEMPORARY}{name}")), dir.join(name));
    put(files, &temporary, &path, content, access)?;
    rename(files, &temporary, &path)
}

/// Writes a file that is to take another's place. Durable but for its name. Nobody but we can use
/// it before its access is set.
pub(crate) fn put<F: Files>(
    files: &F,
    temporary: &Path,
    path: &Path,
    content: &[u8],
    access: Option<Access>,
) -> Result<()> {
    discard(files, temporary, path)?;
    let written = fill(files, temporary, content, access);
    written.map_err(at(temporary)).inspect_err(|_| {
        // It takes space that may be what is missing; what stays is removed by the next repair.
        let _ = discard(files, temporary, path);
    })
}

fn fill<F: Files>(
    files: &F,
    path: &Path,
    content: &[u8],
    access: Option<Access>,
) -> io::Result<()> {
    let mut file = files.create(path)?;
    files.write(&mut file, content)?;
    if let Some(access) = access {
        files.set_owner(&file, access.owner)?;
        files.set_mode(&file, access.mode)?;
    }
    files.sync(&file)
}

/// Makes a link that is to take the place of what is at `path`.
pub(crate) fn link<F: Files>(
    files: &F,
    target: &Path,
    temporary: &Path,
    path: &Path,
) -> Result<()> {
    discard(files, temporary, path)?;
    files.symlink(target, temporary).map_err(at(temporary))
}

/// Puts what is ready in its place, durably.
pub(crate) fn rename<F: Files>(files: &F, from: &Path, to: &Path) -> Result<()> {
    files.rename(from, to).map_err(at(to))?;
    sync_dir(files, folder_of(to))
}

pub(crate) fn sync_dir<F: Files>(files: &F, dir: &Path) -> Result<()> {
    files.sync_dir(dir).map_err(at(dir))
}

/// The folder that a path is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes a folder, and those above it, durably; one that is there is opened up as far as needed.
pub(super) fn make_dir<F: Files>(files: &F, dir: &Path, mode: u32) -> Result<()> {
    let found = match files.target_facts(dir) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => None,
        found => Some(found.map_err(at(dir))?),
    };
    if found.is_none() {
        if dir != folder_of(dir) {
            make_dir(files, folder_of(dir), mode)?;
        }
        files.make_dir(dir, mode).map_err(at(dir))?;
    }
    // The umask may have taken something away.
    if found.is_none_or(|found| found.access.mode & mode != mode) {
        files.set_dir_mode(dir, mode).map_err(at(dir))?;
    }
    if found.is_none() { sync_dir(files, folder_of(dir)) } else { Ok(()) }
}

/// Overwrites a file with zeros and removes it; a link is only removed.
pub(super) fn wipe_file<F: Files>(files: &F, path: &Path) -> Result<()> {
    let found = files.facts(path).map_err(at(path))?;
    if found.kind == Kind::File {
        let mut file = files.open(path).map_err(at(path))?;
        overwrite(files, path, &mut file)?;
    }
    files.remove(path).map_err(at(path))
}

/// Overwrites an open file, whatever its length, with zeros.
pub(crate) fn overwrite<F: Files>(files: &F, path: &Path, file: &mut F::Handle) -> Result<()> {
    let length = files.handle_facts(file).map_err(at(path))?.length;
    let zeros = vec![0; usize::try_from(length.min(MAX_FILE)).unwrap_or(0)];
    files.write(file, &zeros).and_then(|()| files.sync(file)).map_err(at(path))
}

/// As [`wipe_file`]; nothing happens if there is none.
pub(crate) fn remove_if_there<F: Files>(files: &F, path: &Path) -> Result<()> {
    match wipe_file(files, path) {
        Err(InstallError::Io { why, .. }) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes what was to take the place of `path`, if it is there. Where a power cut left both names
/// to one file, it must not be overwritten.
pub(crate) fn discard<F: Files>(files: &F, temporary: &Path, path: &Path) -> Result<()> {
    let id = |path: &Path| known(files.facts(path).map_err(at(path)).map(|found| found.id));
    match id(temporary)? {
        Some(both) if id(path)? == Some(both) => files.remove(temporary).map_err(at(temporary)),
        Some(_) => wipe_file(files, temporary),
        None => Ok(()),
    }
}

/// Removes all that was to take the place of something in a folder.
pub(super) fn remove_temporary<F: Files>(files: &F, dir: &Path) -> Result<()> {
    for name in files.list(dir).map_err(at(dir))? {
        if let Some(place) = name.strip_prefix(TEMPORARY) {
            discard(files, &dir.join(&name), &dir.join(place))?;
        }
    }
    Ok(())
}
