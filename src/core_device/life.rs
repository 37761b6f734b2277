//! Which life of the nucleus, and which boot of the machine, this process runs in.
//!
//! Only reads. The token itself is never kept: its digest tells two apart just as well.

#![expect(clippy::disallowed_methods, reason = "the environment and the kernel are asked")]

use std::{env, ffi::OsString, fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};

use super::locate::SOCKET;
use crate::{identity::RunId, install::User};

/// The variable in which a nucleus gives a component its token.
const TOKEN: &str = "SVCUID";

/// The longest boot id that is taken; it is a UUID.
const MAX_BOOT_ID: usize = 64;

/// Which life of the nucleus this is. `None`: no nucleus started this process, or its socket is
/// gone, or the kernel tells no boot id.
pub fn run_id() -> Option<RunId> {
    run_id_from(|name| env::var_os(name))
}

/// Who the nucleus is, by the owner of its socket; `None`: there is none.
pub fn nucleus_user() -> Option<User> {
    let meta = fs::metadata(env::var_os(SOCKET)?).ok()?;
    Some(User { uid: meta.uid(), gid: meta.gid() })
}

/// The kernel's name for this boot.
pub fn boot_id() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let id = id.trim();
    let is_id = |c: char| c.is_ascii_hexdigit() || c == '-';
    (!id.is_empty() && id.len() <= MAX_BOOT_ID && id.chars().all(is_id)).then(|| id.to_owned())
}

/// The time since this boot; nothing where the kernel does not say.
pub fn uptime() -> Duration {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    parse_uptime(&text).unwrap_or_default()
}

fn run_id_from(variable: impl Fn(&str) -> Option<OsString>) -> Option<RunId> {
    let variable = |name| variable(name).filter(|value| !value.is_empty());
    let (socket, token) = (variable(SOCKET)?, variable(TOKEN)?);
    let token = HEXLOWER.encode(digest(&SHA256, token.as_encoded_bytes()).as_ref());
    Some(RunId { boot: boot_id()?, token, socket: socket_id(Path::new(&socket))? })
}

/// What tells a socket from another that stands at the same path later. The inode alone does not:
/// its number may be given out anew.
fn socket_id(path: &Path) -> Option<String> {
    let meta = fs::metadata(path).ok()?;
    let born = format!("{} {} {} {}", meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec());
    Some(HEXLOWER.encode(digest(&SHA256, born.as_bytes()).as_ref()))
}

fn parse_uptime(text: &str) -> Option<Duration> {
    let seconds: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
#[expect(clippy::disallowed_types, reason = "a nucleus makes a socket")]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixListener};

    use super::*;

    fn run(socket: &Path, token: &str) -> RunId {
        run_id_from(|name| Some(if name == SOCKET { socket.into() } else { token.into() }))
            .expect("a nucleus")
    }

    #[test]
    fn a_nucleus_that_starts_anew_is_told_from_the_one_before_also_through_a_link() {
        let dir = tempfile::tempdir().expect("a folder");
        let (socket, link) = (dir.path().join("ipc.socket"), dir.path().join("link"));
        symlink(&socket, &link).expect("a link");
        let _first = UnixListener::bind(&socket).expect("a socket");
        let before = run(&link, "one");
        assert_eq!(run(&socket, "one"), before);
        assert!(!run(&link, "two").is_after(&before));
        fs::remove_file(&socket).expect("removed");
        let _second = UnixListener::bind(&socket).expect("a socket");
        assert!(run(&link, "two").is_after(&before));
    }

    #[test]
    fn the_token_is_not_in_what_is_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let kept = format!("{:?}", run(dir.path(), "SECRETTOKEN"));
        assert!(!kept.contains("SECRETTOKEN"));
    }

    #[test]
    fn without_a_nucleus_there_is_no_life_of_one() {
        assert_eq!(run_id_from(|_| None), None);
        assert_eq!(run_id_from(|_| Some(OsString::new())), None);
        assert_eq!(run_id_from(|_| Some("/nowhere/at/all".into())), None);
    }

    #[test]
    fn the_kernel_tells_the_time_since_boot() {
        assert_eq!(parse_uptime("35.25 7.1\n"), Some(Duration::from_millis(35_250)));
        assert_eq!(parse_uptime("-1 2"), None);
        assert_eq!(parse_uptime("nan"), None);
        assert_eq!(parse_uptime(""), None);
        assert!(uptime() > Duration::ZERO);
    }
}
