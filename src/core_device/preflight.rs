//! Whether the credential could be switched: found out before there is a key, by doing it all with
//! things of no worth, and removing them again.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    place::{Place, Slot},
    refusal::{Result, refuse},
};
use crate::{
    install::{Access, Files, at, folder_of, link, put, remove_if_there, rename, sync_dir},
    reason::Reason,
};

/// The folder that is made for it, in that of each configured file.
const PROBE: &str = ".certrelay-probe";

/// A pair, its copy, its CSR and the state fit in this, many times over.
const ROOM: usize = 64 * 1024;

/// A mount point can't be replaced. A link never is one.
pub(super) fn not_mounted<F: Files>(files: &F, slot: &Slot) -> Result<()> {
    let path = slot.path();
    if !files.is_mount_point(path).map_err(at(path))? {
        return Ok(());
    }
    Err(refuse(Reason::MountPoint, format!("{} is a mount point", path.display())))
}

/// Tries all that a rotation does, in each folder that it does it in.
pub(super) fn try_folders<F: Files>(files: &F, place: &Place<'_>) -> Result<()> {
    let [certificate, key] = place.slots();
    try_folder(files, certificate)?;
    if key.folder() == certificate.folder() { Ok(()) } else { try_folder(files, key) }
}

fn try_folder<F: Files>(files: &F, slot: &Slot) -> Result<()> {
    let access = files.target_facts(slot.path()).map_err(at(slot.path()))?.access;
    sweep(files, slot)?;
    let tried = try_in(files, &probe_of(slot), access);
    let swept = sweep(files, slot);
    tried.and(swept)
}

fn try_in<F: Files>(files: &F, probe: &Path, access: Access) -> Result<()> {
    files.make_dir(probe, 0o700).map_err(at(probe))?;
    let [file, renamed, soft] = ["file", "renamed", "link"].map(|name| probe.join(name));
    put(files, &file, &renamed, &[0; ROOM], Some(access))?;
    rename(files, &file, &renamed)?;
    link(files, Path::new("renamed"), &soft, &renamed)?;
    rename(files, &soft, &renamed)?;
    sync_dir(files, folder_of(probe)).map_err(Into::into)
}

/// Removes what a preflight made, also one that was cut short.
pub(super) fn sweep<F: Files>(files: &F, slot: &Slot) -> Result<()> {
    let probe = probe_of(slot);
    let names = match files.list(&probe) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names.map_err(at(&probe))?,
    };
    for name in names {
        remove_if_there(files, &probe.join(name))?;
    }
    Ok(files.remove_dir(&probe).map_err(at(&probe))?)
}

fn probe_of(slot: &Slot) -> PathBuf {
    slot.folder().join(PROBE)
}
