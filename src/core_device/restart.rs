//! The command that restarts the nucleus.
//!
//! It runs without a shell, in a process group of its own and with no pipe to us: with the nucleus
//! its components end too, this process among them, and the command has to get through all the same.
//! Who manages to be killed with it is systemd's `--no-block` job, which systemd holds itself. Never
//! decides when, and never tries again by itself.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a driver: it starts the command and waits no longer than it may"
)]

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use aws_greengrass_ipc::Nucleus;
use tokio::{process::Command, time::timeout};

use crate::{
    config::Core,
    identity::{Done, Failure},
    reason::Reason,
    wire::escape,
};

/// How long the command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How long systemd may take to tell of a unit.
const ANSWERS: Duration = Duration::from_secs(10);

/// So much of what a command prints is told, in bytes.
const MAX_OUTPUT: u64 = 512;

const REMEDY: &str = "set core.restartCommand";

/// The command, by the settings or else as systemd knows this nucleus.
pub fn command(core: &Core, kind: Nucleus) -> Vec<String> {
    core.restart_command.clone().unwrap_or_else(|| by_systemd(kind))
}

/// Whether the command is there, and for ours whether systemd knows the nucleus. Runs no restart.
pub async fn check(command: &[String]) -> Result<(), Failure> {
    check_in(command, &path_variable()).await
}

/// Runs the command. [`Done::Asked`] when it ends well within a minute.
pub async fn run(command: &[String]) -> Done {
    match run_in(command, &path_variable(), LIMIT).await {
        Ok(()) => Done::Asked,
        Err(detail) => {
            let detail = format!("{}: {detail}; {REMEDY}", shown(command));
            Done::Failed(Failure { reason: Reason::RestartFailed, detail: escape(&detail) })
        }
    }
}

fn by_systemd(kind: Nucleus) -> Vec<String> {
    ["systemctl", "restart", "--no-block", unit(kind)].map(str::to_owned).to_vec()
}

fn unit(kind: Nucleus) -> &'static str {
    match kind {
        Nucleus::Classic => "greengrass.service",
        Nucleus::Lite => "greengrass-lite.target",
    }
}

async fn check_in(command: &[String], path: &OsStr) -> Result<(), Failure> {
    let cannot = |why: String| Failure {
        reason: Reason::CannotRestart,
        detail: escape(&format!("{}: {why}; {REMEDY}", shown(command))),
    };
    let program = find(command, path).map_err(cannot)?;
    for kind in [Nucleus::Classic, Nucleus::Lite] {
        if command == by_systemd(kind) {
            check_unit(&program, unit(kind)).await.map_err(cannot)?;
        }
    }
    Ok(())
}

async fn check_unit(systemctl: &Path, unit: &str) -> Result<(), String> {
    let mut ask = Command::new(systemctl);
    ask.args(["show", "-p", "LoadState", "--value", unit]).stdin(Stdio::null()).kill_on_drop(true);
    let answer = timeout(ANSWERS, ask.output()).await;
    let answer = answer.map_err(|_| format!("systemd says nothing within {ANSWERS:?}"))?;
    let answer = answer.map_err(|why| why.to_string())?;
    match answer.stdout.trim_ascii() {
        b"loaded" if answer.status.success() => Ok(()),
        b"" => Err(format!("systemd does not tell of {unit}: {}", said(&answer.stderr))),
        state => Err(format!("systemd has no {unit} ({})", said(state))),
    }
}

/// `Err`: what went wrong, in words.
async fn run_in(command: &[String], path: &OsStr, limit: Duration) -> Result<(), String> {
    let program = find(command, path)?;
    let output = scratch();
    let mut child = Command::new(&program)
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(to(output.as_ref()))
        .stderr(to(output.as_ref()))
        .process_group(0)
        .spawn()
        .map_err(|why| why.to_string())?;
    let Ok(ended) = timeout(limit, child.wait()).await else {
        // It fails for one that ended in this very moment.
        let _ = child.start_kill();
        return Err(format!("it did not end within {limit:?}"));
    };
    let status = ended.map_err(|why| why.to_string())?;
    if status.success() { Ok(()) } else { Err(complaint(status, output)) }
}

fn complaint(status: ExitStatus, output: Option<File>) -> String {
    let mut text = Vec::new();
    if let Some(mut file) = output {
        // What can't be read is not told.
        let _ = file.rewind().and_then(|()| file.take(MAX_OUTPUT).read_to_end(&mut text));
    }
    match said(&text) {
        text if text.is_empty() => status.to_string(),
        text => format!("{status}: {text}"),
    }
}

fn said(text: &[u8]) -> String {
    let end = text.len().min(usize::try_from(MAX_OUTPUT).unwrap_or(usize::MAX));
    String::from_utf8_lossy(&text[..end]).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A file without a name for what the command prints. A pipe would break when we are killed, and
/// what writes to a broken pipe dies.
fn scratch() -> Option<File> {
    let name = format!("certrelay-restart-{:016x}", fastrand::u64(..));
    let path = env::temp_dir().join(name);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
    let file = file.ok()?;
    fs::remove_file(&path).ok()?;
    Some(file)
}

fn to(file: Option<&File>) -> Stdio {
    file.and_then(|file| file.try_clone().ok()).map_or_else(Stdio::null, Stdio::from)
}

/// The program's path; found as a shell would.
fn find(command: &[String], path: &OsStr) -> Result<PathBuf, String> {
    let program = command.first().filter(|program| !program.is_empty());
    let program = program.ok_or("the command is empty")?;
    if program.contains('/') {
        let path = PathBuf::from(program);
        return executable(&path).map(|()| path).map_err(|why| why.to_string());
    }
    env::split_paths(path)
        .map(|dir| dir.join(program))
        .find(|path| executable(path).is_ok())
        .ok_or_else(|| "the program is not in PATH, or can't be executed".to_owned())
}

fn executable(path: &Path) -> io::Result<()> {
    let meta = fs::metadata(path)?;
    if meta.is_file() && meta.permissions().mode() & 0o111 != 0 {
        Ok(())
    } else {
        Err(io::Error::other("it can't be executed"))
    }
}

fn path_variable() -> OsString {
    env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into())
}

fn shown(command: &[String]) -> String {
    command.join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tempfile::TempDir;

    use super::*;

    /// A folder with one program. A process of its own writes it: what another thread's child
    /// holds open for writing, for however short, can't be executed.
    fn program(name: &str, script: &str) -> TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        let write = r#"printf '#!/bin/sh\n%s\n' "$2" >"$1" && chmod 755 "$1""#;
        let status = std::process::Command::new("sh")
            .args(["-c", write, "sh"])
            .arg(dir.path().join(name))
            .arg(script)
            .status();
        assert!(status.expect("sh runs").success());
        dir
    }

    fn words(command: &str) -> Vec<String> {
        command.split(' ').map(str::to_owned).collect()
    }

    async fn checked(command: &[String], dir: &TempDir) -> Result<(), Failure> {
        check_in(command, dir.path().as_os_str()).await
    }

    async fn ran(script: &str, limit: Duration) -> Result<(), String> {
        let dir = program("restart", script);
        run_in(&words("restart now"), dir.path().as_os_str(), limit).await
    }

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn each_nucleus_has_a_command_of_its_own_and_the_setting_comes_first() {
        let core = Core::default();
        let classic = "systemctl restart --no-block greengrass.service";
        let lite = "systemctl restart --no-block greengrass-lite.target";
        assert_eq!(command(&core, Nucleus::Classic), words(classic));
        assert_eq!(command(&core, Nucleus::Lite), words(lite));
        let core = Core { restart_command: Some(words("/etc/init.d/gg restart")), ..core };
        assert_eq!(command(&core, Nucleus::Lite), words("/etc/init.d/gg restart"));
    }

    #[tokio::test]
    async fn a_command_that_is_not_there_is_found_out_beforehand() {
        let dir = program("there", "");
        fs::write(dir.path().join("text"), "").expect("written");
        assert_eq!(checked(&words("there x"), &dir).await, Ok(()));
        let text = dir.path().join("text").display().to_string();
        for command in ["gone", "text", "/no/such/program", &text, ""] {
            let failure = checked(&words(command), &dir).await.expect_err(command);
            assert_eq!(failure.reason, Reason::CannotRestart);
            assert!(failure.detail.contains("core.restartCommand"), "{failure}");
        }
        assert!(checked(&[], &dir).await.is_err());
    }

    #[tokio::test]
    async fn systemd_has_to_know_the_unit_of_a_command_of_ours() {
        let lite = by_systemd(Nucleus::Lite);
        let script = r#"[ "$*" = "show -p LoadState --value greengrass-lite.target" ] && echo loaded || echo not-found"#;
        let dir = program("systemctl", script);
        assert_eq!(checked(&lite, &dir).await, Ok(()));
        let failure = checked(&by_systemd(Nucleus::Classic), &dir).await.expect_err("not known");
        assert_eq!(failure.reason, Reason::CannotRestart);
        assert!(failure.detail.contains("greengrass.service (not-found)"), "{failure}");
        // One that was set is taken at its word.
        assert_eq!(checked(&words("systemctl restart other"), &dir).await, Ok(()));
        let dir = program("systemctl", "echo 'no bus' >&2; exit 1");
        let failure = checked(&lite, &dir).await.expect_err("no systemd");
        assert!(failure.detail.contains("no bus"), "{failure}");
    }

    #[tokio::test]
    async fn a_command_gets_its_arguments_as_they_are_and_no_shell() {
        let dir = program("restart", r#"[ "$1" = 'a  $b;"c"' ] && [ $# = 1 ]"#);
        let command = ["restart", "a  $b;\"c\""].map(str::to_owned);
        assert_eq!(run_in(&command, dir.path().as_os_str(), SOON).await, Ok(()));
    }

    #[tokio::test]
    async fn a_command_that_fails_says_why_and_no_more_than_so_much() {
        let why = ran("echo out; echo err >&2; exit 7", SOON).await.expect_err("failed");
        assert!(why.contains('7') && why.contains("out err"), "{why}");
        let why = ran("head -c 100000 /dev/zero | tr '\\0' x; exit 1", SOON).await;
        assert!(why.expect_err("failed").len() < 600);
        let why = ran("exit 0", SOON).await;
        assert_eq!(why, Ok(()));
    }

    #[tokio::test]
    async fn a_failure_is_told_escaped_under_its_own_reason() {
        let dir = program("restart", "printf '\\033[31mred'; exit 1");
        let command = [dir.path().join("restart").display().to_string()];
        let Done::Failed(failure) = run(&command).await else { panic!("it failed") };
        assert_eq!(failure.reason, Reason::RestartFailed);
        assert!(failure.detail.contains("red") && !failure.detail.contains('\u{1b}'), "{failure}");
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_given_up() {
        let start = Instant::now();
        let why = ran("exec sleep 60", Duration::from_millis(100)).await.expect_err("hangs");
        assert!(why.contains("100ms"), "{why}");
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[tokio::test]
    async fn a_command_is_the_leader_of_a_group_of_its_own_and_reads_nothing() {
        // The fifth field of /proc/PID/stat is the group; the second, in brackets, has no blank.
        let script = r#"read -r _ && exit 1; set -- $(cat /proc/$$/stat); [ "$5" = "$$" ]"#;
        assert_eq!(ran(script, SOON).await, Ok(()));
    }
}
