//! A real Mosquitto on a free port of 127.0.0.1, with a folder of its own.

use std::{
    fs::{self, File, OpenOptions},
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use super::{eventually, free_port, pki::Authority};

/// How long it may take to start, to stop, or to save.
const DEADLINE: Duration = Duration::from_secs(10);

/// The hardened floor broker that we ship: its configuration …
const FLOOR_CONFIG: &str = include_str!("../../examples/mosquitto/mosquitto.conf");

/// … and its access rules.
const FLOOR_RULES: &str = include_str!("../../examples/mosquitto/acl");

/// What a broker is to be like.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    lines: Vec<String>,
    files: Vec<(String, String)>,
    persistence: bool,
}

/// A running broker. Killed when dropped.
pub struct Mosquitto {
    dir: PathBuf,
    /// Its folder goes with it, unless it is someone else's.
    _temporary: Option<TempDir>,
    port: u16,
    persistence: bool,
    process: Option<Child>,
}

impl Setup {
    /// Plain TCP, anyone may connect; nothing survives the process; no limit of its own.
    pub fn plain() -> Self {
        Self::default().line("allow_anonymous true")
    }

    /// TLS; a client needs a certificate of `authority`, and its common name is its user name.
    pub fn mtls(authority: &Authority) -> Self {
        Self::mtls_between(authority, authority)
    }

    /// As [`Setup::mtls`], where the broker's own certificate is of another authority.
    pub fn mtls_between(clients: &Authority, servers: &Authority) -> Self {
        let server = servers.server();
        Self::default()
            .file("ca.pem", clients.certificate())
            .file("server.cert.pem", &server.certificate)
            .file("server.key.pem", &server.key)
            .line("cafile {dir}/ca.pem")
            .line("certfile {dir}/server.cert.pem")
            .line("keyfile {dir}/server.key.pem")
            .line("require_certificate true")
            .line("use_identity_as_username true")
            .line("allow_anonymous false")
    }

    /// The floor broker of `examples/mosquitto`, the very files but for folders and port. Clients
    /// show a certificate of `clients`; its own is of `servers`.
    pub fn floor(clients: &Authority, servers: &Authority) -> Self {
        let server = servers.server();
        let config = replaced(FLOOR_CONFIG, "listener 8883", "listener {port} 127.0.0.1");
        let config = replaced(&config, "/etc/mosquitto/certs", "{dir}");
        let config = replaced(&config, "/etc/mosquitto", "{dir}");
        let config = replaced(&config, "/var/lib/mosquitto", "{dir}");
        Self::verbatim(&config)
            .file("ca.pem", clients.certificate())
            .file("server.cert.pem", &server.certificate)
            .file("server.key.pem", &server.key)
            .file("acl", FLOOR_RULES)
    }

    /// A configuration as it stands: in it `{dir}` is the broker's folder, `{port}` its port.
    pub fn verbatim(config: &str) -> Self {
        let mut setup = Self::default().line(config);
        setup.persistence = config.contains("persistence true");
        setup
    }

    /// Sessions and queues survive a restart; [`Mosquitto::save`] writes them at once.
    pub fn persistent(mut self) -> Self {
        self.persistence = true;
        self.line("persistence true").line("persistence_location {dir}/")
    }

    /// One more line (or several) of configuration.
    pub fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// One more file in the broker's folder.
    pub fn file(mut self, name: &str, content: &str) -> Self {
        self.files.push((name.to_owned(), content.to_owned()));
        self
    }

    /// One more line (or several) for the file of access rules that is there.
    pub fn rule(mut self, rule: &str) -> Self {
        let acl = self.files.iter_mut().find(|(name, _)| name == "acl");
        let (_, rules) = acl.expect("the broker has a file of access rules");
        rules.push_str(rule);
        rules.push('\n');
        self
    }

    /// Access rules, in the format of `acl_file`.
    pub fn acl(self, rules: &str) -> Self {
        self.file("acl", rules).line("acl_file {dir}/acl")
    }

    /// Starts it, and waits until it takes connections.
    pub fn start(self) -> Mosquitto {
        self.start_on(free_port())
    }

    /// As [`Setup::start`], on this port.
    pub fn start_on(self, port: u16) -> Mosquitto {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let dir = temporary.path().to_owned();
        self.launch(dir, Some(temporary), port)
    }

    /// As [`Setup::start`], with its files and log in `dir`, which stays.
    pub fn start_in(self, dir: &Path) -> Mosquitto {
        self.launch(dir.to_owned(), None, free_port())
    }

    fn launch(self, dir: PathBuf, temporary: Option<TempDir>, port: u16) -> Mosquitto {
        for (name, content) in &self.files {
            super::write(&dir.join(name), content);
        }
        super::write(&dir.join("mosquitto.conf"), self.config(&dir, port));
        let persistence = self.persistence;
        let mut broker = Mosquitto { dir, _temporary: temporary, port, persistence, process: None };
        broker.start();
        broker
    }

    fn config(&self, dir: &Path, port: u16) -> String {
        let mut lines = vec!["user root".to_owned(), "log_type all".to_owned()];
        if !self.lines.iter().any(|line| line.contains("{port}")) {
            lines.push("listener {port} 127.0.0.1".to_owned());
        }
        lines.extend(self.lines.iter().cloned());
        let text = lines.join("\n") + "\n";
        text.replace("{dir}", &dir.display().to_string()).replace("{port}", &port.to_string())
    }
}

impl Mosquitto {
    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts it again on the same port with what it had saved; waits until it takes connections.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "mosquitto runs already");
        let log = OpenOptions::new().append(true).create(true).open(self.log_path());
        let log: File = log.expect("the broker's log");
        let child = Command::new(program())
            .arg("-c")
            .arg(self.dir.join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the broker's log"))
            .stderr(log)
            .spawn()
            .expect("mosquitto starts");
        self.process = Some(child);
        eventually(DEADLINE, "mosquitto takes connections", || self.is_ready());
    }

    /// Ends it with SIGTERM, upon which it saves, and waits for it.
    pub fn stop(&mut self) {
        self.signal("TERM");
        let mut child = self.process.take().expect("mosquitto runs");
        eventually(DEADLINE, "mosquitto stops", || matches!(child.try_wait(), Ok(Some(_))));
    }

    /// Ends it with SIGKILL: what it had not saved is lost.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().and_then(|()| child.wait()).expect("mosquitto dies");
        }
    }

    /// Saves sessions and queues now, and waits for it.
    pub fn save(&self) {
        assert!(self.persistence, "the broker has no persistence");
        let before = self.saved();
        self.signal("USR1");
        eventually(DEADLINE, "mosquitto saves", || self.saved() != before);
    }

    /// What it has written so far; all its starts, one after the other.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("mosquitto.log")
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("mosquitto runs");
        let command = format!("kill -{signal} {}", process.id());
        let status = Command::new("sh").args(["-c", &command]).status().expect("sh runs");
        assert!(status.success(), "{command}: {status}");
    }

    /// Which version of the file of saved sessions stands: it is replaced by a rename.
    fn saved(&self) -> Option<(u64, i64, i64)> {
        let meta = fs::metadata(self.dir.join("mosquitto.db")).ok()?;
        Some((meta.ino(), meta.mtime(), meta.mtime_nsec()))
    }

    fn is_ready(&mut self) -> bool {
        let child = self.process.as_mut().expect("mosquitto was started");
        if let Some(status) = child.try_wait().expect("its status") {
            panic!("mosquitto ended with {status}:\n{}", self.log());
        }
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- mosquitto on port {} ---\n{}", self.port, self.log());
        }
    }
}

fn replaced(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "the example has no {old:?} any more");
    text.replace(old, new)
}

/// Where the broker's program is; Debian keeps it where a user's PATH does not look.
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|dir| dir.join("mosquitto"))
        .find(|program| program.is_file())
        .expect(
            "mosquitto is not installed: `apt-get install mosquitto`, or `make test`, which does it",
        )
}
