//! Where the core's credential stands, and what is ours there. Changes nothing.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use super::refusal::{Result, refuse};
use crate::{
    identity::Failure,
    install::{Credentials, Files, InstallError, Kind, PairFiles, at, folder_of},
    reason::Reason,
};

/// The folder of ours, beside the certificate.
const FOLDER: &str = "certrelay";

/// What is to take a configured path's place has this in front of its name.
const TEMPORARY: &str = ".certrelay-new-";

/// The configured paths, and what goes with them.
pub(super) struct Place<'a> {
    pub(super) at: &'a PairFiles,
    dir: PathBuf,
    slots: [Slot; 2],
}

/// One of the configured paths.
pub(super) struct Slot {
    path: PathBuf,
    /// Where it leads as a link of ours, as such a link is written.
    target: PathBuf,
}

/// What stands under a configured path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// A plain file.
    File,
    /// A link of ours.
    Ours,
    /// Another link, and where it leads.
    Foreign(PathBuf),
}

impl<'a> Place<'a> {
    pub(super) fn of(at: &'a PairFiles) -> Result<Self> {
        for path in [&at.certificate, &at.key] {
            if !path.is_absolute() || path.file_name().is_none() {
                let what = format!("{}: this is no absolute path of a file", path.display());
                return Err(refuse(Reason::CredentialUnusable, what));
            }
        }
        if at.certificate == at.key {
            let what = format!("{}: one file for both can't be kept", at.key.display());
            return Err(refuse(Reason::CredentialUnusable, what));
        }
        let folder = folder_of(&at.certificate);
        let dir = folder.join(FOLDER);
        let current = Credentials::<crate::install::Disk>::current_files(&dir);
        let slot = |path: &Path, target: PathBuf| {
            let inside = target.strip_prefix(folder).ok().filter(|_| folder_of(path) == folder);
            let target = inside.map_or_else(|| target.clone(), Path::to_owned);
            Slot { path: path.to_owned(), target }
        };
        let slots = [slot(&at.certificate, current.certificate), slot(&at.key, current.key)];
        Ok(Self { at, dir, slots })
    }

    /// The folder of ours, whether it is there or not.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The certificate's and the key's.
    pub(super) fn slots(&self) -> [&Slot; 2] {
        self.slots.each_ref()
    }

    pub(super) fn standings<F: Files>(&self, files: &F) -> Result<[Standing; 2]> {
        let [certificate, key] = self.slots();
        Ok([certificate.standing(files, self)?, key.standing(files, self)?])
    }

    pub(super) fn not_attached(&self) -> Failure {
        let PairFiles { certificate, key } = self.at;
        let what = "are not links to a pair in";
        let (certificate, key, dir) = (certificate.display(), key.display(), self.dir.display());
        refuse(Reason::DiskError, format!("{certificate} and {key} {what} {dir}"))
    }

    pub(super) fn not_a_folder(&self) -> Failure {
        let what = format!("{}: this is in the way: it is no folder", self.dir.display());
        refuse(Reason::DiskError, what)
    }
}

impl Slot {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn folder(&self) -> &Path {
        folder_of(&self.path)
    }

    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// Where that which is to take its place is made ready.
    pub(super) fn temporary(&self) -> PathBuf {
        let mut name = OsString::from(TEMPORARY);
        name.push(self.path.file_name().unwrap_or_default());
        self.folder().join(name)
    }

    pub(super) fn standing<F: Files>(&self, files: &F, place: &Place<'_>) -> Result<Standing> {
        match files.facts(&self.path).map_err(at(&self.path))?.kind {
            Kind::File => Ok(Standing::File),
            Kind::Link => {
                let target = files.read_link(&self.path).map_err(at(&self.path))?;
                let ours = self.is_ours(files, place, &target)?;
                Ok(if ours { Standing::Ours } else { Standing::Foreign(target) })
            }
            _ => Err(InstallError::NotAFile(self.path.clone()).into()),
        }
    }

    /// The folder may be spelt otherwise than it was when the link was made.
    fn is_ours<F: Files>(&self, files: &F, place: &Place<'_>, target: &Path) -> Result<bool> {
        if target == self.target {
            return Ok(true);
        }
        let inside = self.folder().join(&self.target);
        let inside = inside.strip_prefix(&place.dir).unwrap_or(&self.target);
        let target = self.folder().join(target);
        let Some(dir) = target.ancestors().nth(2).filter(|dir| dir.join(inside) == target) else {
            return Ok(false);
        };
        let id = |dir: &Path| match files.target_facts(dir) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(|facts| Some(facts.id)).map_err(at(dir)),
        };
        let (one, other) = (id(dir)?, id(&place.dir)?);
        Ok(one.is_some() && one == other)
    }
}

impl Standing {
    /// A foreign link stays as it is.
    pub(super) fn accept(&self, slot: &Slot) -> Result<()> {
        let Self::Foreign(target) = self else { return Ok(()) };
        let what = format!("{} is a link to {}", slot.path.display(), target.display());
        Err(refuse(Reason::ForeignLink, what))
    }
}
