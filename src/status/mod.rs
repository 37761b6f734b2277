//! The status snapshot: what the running gateway says of itself, in a file that anyone may read
//! who may read the work directory.
//!
//! Owns the snapshot's shape and file. The gateway writes it (rows are streamed, never gathered),
//! `certrelay status` reads it. Replaced by one rename, so a reader sees a whole snapshot; not
//! synced, since it is worth nothing after a power cut. Holds no payload and no secret.

#![expect(clippy::disallowed_methods, reason = "the snapshot's file is this module's own")]
#![expect(clippy::disallowed_types, reason = "the snapshot's file is this module's own")]

mod core;
mod render;
mod time;

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize, Serializer};

pub use core::{CoreComplaint, CoreEnded, CoreFiles, CoreStatus};
pub use render::{Freshness, render, render_core};

use crate::{expiry::Expiry, reason::Reason, schedule::Timestamp, wire::ThingName};

/// The shape of the snapshot; a reader refuses any other.
pub const VERSION: u32 = 3;

/// A snapshot older than this is stale. Who writes it does so well more often, even if nothing
/// has changed.
pub const STALE_AFTER: Duration = Duration::from_secs(60);

/// The snapshot's name in the work directory.
const FILE: &str = "status.json";

/// Its name while it is being written.
const DRAFT: &str = "status.json.new";

/// A whole snapshot, as it is read back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusSnapshot {
    /// All but the children.
    #[serde(flatten)]
    pub summary: Summary,
    /// A row a child that has a record; by name.
    pub children: Vec<Row>,
}

/// What stands in a snapshot once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// [`VERSION`].
    pub version: u32,
    /// When it was written, by the wall clock, trusted or not.
    #[serde(with = "time")]
    pub written_at: Timestamp,
    /// Whether the wall clock was trusted then.
    pub clock_trusted: bool,
    /// Set in the last snapshot of a gateway that ended in order.
    #[serde(default)]
    pub ended: bool,
    /// The gateway's process id.
    pub pid: u32,
    /// The gateway's version.
    pub program: String,
    /// When the gateway started, by the wall clock, trusted or not.
    #[serde(with = "time")]
    pub started_at: Timestamp,
    /// The core device's thing name.
    pub core: ThingName,
    /// The nucleus that the gateway runs under; `None`: it runs without one, or has not found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nucleus: Option<Nucleus>,
    /// The settings that changed and wait for the next start, by their keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restart_needed: Vec<String>,
    /// Why the last new settings were refused, for people, a problem a line; `None`: they were not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration_refused: Option<String>,
    /// What client device auth makes of the certificates that it is shown before their children
    /// are told; `None`: it has not been asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_devices: Option<ClientDevices>,
    /// The core's own certificate; `None`: it is not rotated here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core_certificate: Option<CoreStatus>,
    /// How many things' certificates, the core's among them, expire within 30 days or have expired;
    /// `None`: no clock could be trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_soon: Option<u64>,
    /// The two links.
    pub links: Links,
    /// The store.
    pub store: Store,
    /// What was counted since the start.
    pub counters: Counters,
    /// How many children are in each state; every state stands here.
    pub totals: BTreeMap<RowState, u64>,
}

/// A kind of Greengrass nucleus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nucleus {
    /// The one in Java.
    Classic,
    /// The one in C.
    Lite,
}

/// What client device auth, the component that lets devices in, makes of new certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientDevices {
    /// It is not there.
    Absent,
    /// It took the last one.
    Accepts,
    /// It did not take the last one.
    Refuses,
    /// It may not be asked.
    NotPermitted,
    /// It gave no answer.
    Fails,
}

/// The two links.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// The devices'.
    pub local: LinkStatus,
    /// The cloud's.
    pub cloud: LinkStatus,
}

/// How one link stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// What kind of link it is.
    pub kind: LinkKind,
    /// Whether it is up.
    pub state: LinkState,
    /// Since when; `None`: no clock could be trusted.
    #[serde(with = "time::option", default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why it was last down, for people; `None`: it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What kind of link it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    /// A connection of our own to a broker.
    Mqtt,
    /// Through the nucleus to the cloud.
    Greengrass,
    /// Through the nucleus' local topics.
    Pubsub,
}

/// Whether a link is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// Messages get through.
    Up,
    /// They don't.
    Down,
    /// Nothing says either.
    Unknown,
}

/// How the store stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Store {
    /// Since when and why nothing can be kept; `None`: all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<StoreFailing>,
    /// A damaged store that was set aside: the name of its file in the work directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<String>,
}

/// That nothing can be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreFailing {
    /// Since when; `None`: no clock could be trusted.
    #[serde(with = "time::option", default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why, for people.
    pub why: String,
}

/// How often each reason was met since the start, by the side whose messages met it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// By messages of the local broker.
    pub local: BTreeMap<Reason, u64>,
    /// By messages of the cloud.
    pub cloud: BTreeMap<Reason, u64>,
    /// By neither: the gateway's own doing.
    pub gateway: BTreeMap<Reason, u64>,
}

/// What a child's rotation waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowState {
    /// For the child's CSR.
    AwaitCsr,
    /// For the cloud's certificate.
    AwaitCert,
    /// For the child's acknowledgement.
    AwaitAck,
    /// For nothing.
    Done,
}

impl RowState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::AwaitCsr, Self::AwaitCert, Self::AwaitAck, Self::Done];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AwaitCsr => "await-csr",
            Self::AwaitCert => "await-cert",
            Self::AwaitAck => "await-ack",
            Self::Done => "done",
        }
    }
}

/// One child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Its name.
    pub child: ThingName,
    /// What its rotation waits for.
    pub state: RowState,
    /// Since when; `None`: no clock could be trusted.
    #[serde(with = "time::option", default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// How often what the state asks for was sent since the gateway started.
    pub attempts: u32,
    /// When the child's certificate expires: the new one's as soon as it is here, else that of
    /// the one in use, as far as anyone said.
    #[serde(with = "time::option", default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// How soon that is; `None`: not soon, or no clock could be trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<Expiry>,
    /// The last reason that was met for this child.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// How many notices about it the cloud has yet to hear.
    pub notices: u8,
}

/// Why there is no snapshot to show. The text is for people and names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The gateway never wrote one there.
    #[error(
        "there is no {FILE} in {}: start the gateway (certrelay run), or name its workDir with \
         --work-dir", .dir.display()
    )]
    Missing {
        /// The work directory.
        dir: PathBuf,
    },
    /// It can't be read.
    #[error("{} can't be read: {error}; run as the gateway's user or as root", .file.display())]
    Unreadable {
        /// The snapshot's file.
        file: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It is no snapshot.
    #[error("{} is no snapshot: {error}; remove it, the gateway writes it anew", .file.display())]
    Malformed {
        /// The snapshot's file.
        file: PathBuf,
        /// What was wrong.
        error: serde_json::Error,
    },
    /// It has a shape that this program does not know.
    #[error("{} has version {found}, not {VERSION}: use the gateway's own program", .file.display())]
    OtherVersion {
        /// The snapshot's file.
        file: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// Replaces the snapshot in the work directory. Each row is written as it comes; on an error the
/// snapshot before stays.
pub fn write(
    work_dir: &Path,
    summary: &Summary,
    rows: impl Iterator<Item = Row>,
) -> io::Result<()> {
    let draft = work_dir.join(DRAFT);
    let written = create(&draft)
        .and_then(|file| stream(file, summary, rows))
        .and_then(|()| fs::rename(&draft, work_dir.join(FILE)));
    if written.is_err() {
        // Only tidies up; the error to report is the first.
        let _ = fs::remove_file(&draft);
    }
    written
}

/// Reads the snapshot in the work directory.
pub fn read(work_dir: &Path) -> Result<StatusSnapshot, StatusError> {
    /// What every version has.
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let file = work_dir.join(FILE);
    let bytes = fs::read(&file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StatusError::Missing { dir: work_dir.to_owned() },
        _ => StatusError::Unreadable { file: file.clone(), error },
    })?;
    let malformed = |error| StatusError::Malformed { file: file.clone(), error };
    let Versioned { version } = serde_json::from_slice(&bytes).map_err(malformed)?;
    if version != VERSION {
        return Err(StatusError::OtherVersion { file, found: version });
    }
    serde_json::from_slice(&bytes).map_err(malformed)
}

/// The leftover of a crash goes first, so that what stands there, be it a link, is never written
/// through.
fn create(draft: &Path) -> io::Result<fs::File> {
    match fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(draft)
}

fn stream(file: fs::File, summary: &Summary, rows: impl Iterator<Item = Row>) -> io::Result<()> {
    #[derive(Serialize)]
    struct Document<'s, I: Iterator<Item = Row>> {
        #[serde(flatten)]
        summary: &'s Summary,
        #[serde(serialize_with = "drain")]
        children: Cell<Option<I>>,
    }
    fn drain<S: Serializer, I: Iterator<Item = Row>>(
        rows: &Cell<Option<I>>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        out.collect_seq(rows.take().into_iter().flatten())
    }
    let mut out = io::BufWriter::with_capacity(64 * 1024, file);
    serde_json::to_writer(&mut out, &Document { summary, children: Cell::new(Some(rows)) })?;
    out.write_all(b"\n")?;
    out.flush()
}

#[cfg(test)]
mod tests;
