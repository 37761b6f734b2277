//! Why a job could not be done, in the project's words, and what to do about it.

use std::{fmt, io};

use crate::{identity::Failure, install::InstallError, keys::KeyError, reason::Reason, wire};

pub(super) type Result<T> = std::result::Result<T, Failure>;

/// A failure, with what the system or a check said.
pub(super) fn refuse(reason: Reason, what: impl fmt::Display) -> Failure {
    Failure { reason, detail: what.to_string() }
}

/// Its detail is fit for logs and messages, and says what to do.
pub(super) fn with_remedy(failure: Failure) -> Failure {
    let Failure { reason, detail } = failure;
    let detail = wire::escape(&match remedy(reason) {
        Some(remedy) => format!("{detail}: {remedy}"),
        None => detail,
    });
    Failure { reason, detail }
}

impl From<InstallError> for Failure {
    fn from(error: InstallError) -> Self {
        refuse(reason(&error), error)
    }
}

fn reason(error: &InstallError) -> Reason {
    match error {
        InstallError::Io { why, .. } => io_reason(why),
        InstallError::Locked(_) | InstallError::Current(_) => Reason::DiskError,
        InstallError::Key { why: KeyError::Unsupported, .. } => Reason::UnsupportedKey,
        InstallError::NotAFile(_)
        | InstallError::TooLarge(_)
        | InstallError::Key { .. }
        | InstallError::Certificate(_)
        | InstallError::Mismatch(_) => Reason::CredentialUnusable,
    }
}

fn io_reason(why: &io::Error) -> Reason {
    match why.kind() {
        io::ErrorKind::PermissionDenied => Reason::NoPrivilege,
        io::ErrorKind::ReadOnlyFilesystem => Reason::ReadOnly,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Reason::NoSpace,
        io::ErrorKind::NotFound => Reason::CredentialUnusable,
        _ => Reason::DiskError,
    }
}

fn remedy(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::NoPrivilege => "run the component as root, or as the owner of the files",
        Reason::ReadOnly => "have the folder of the certificate on a file system that is writable",
        Reason::NoSpace => "make room there, also in inodes and quotas",
        Reason::MountPoint => "mount its folder, not the file",
        Reason::ForeignLink => "put the file itself there, or configure where the link leads",
        Reason::NotReadable => "let that user pass through the folders above",
        Reason::CredentialUnusable => "put a matching PEM certificate and key there",
        _ => return None,
    })
}
