//! How `certrelay core …` talks to the gateway that runs: one command a connection over a socket in
//! the work directory, and one answer.
//!
//! Owns the socket's file and the words on it. Only the gateway's user and root may connect. Who
//! says nothing, too much, or nonsense is let go of; at most four are heard at a time. Decides nothing
//! about a command.
//!
//! ```text
//! → restart-now\n
//! ← {"ok":true,"text":"…"}      and the end of the stream
//! ```

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the socket, its task, its deadlines and the client's thread are this module's own"
)]

use std::{
    fs, io,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, mpsc as blocking},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixSocket, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
    time::{sleep, timeout},
};

/// The socket's name in the work directory.
const SOCKET: &str = "control.sock";

/// Its name until others may find it: not longer, since a socket's path is short.
const DRAFT: &str = ".control.new";

/// The longest path that Linux takes for a socket, in bytes.
const MAX_PATH: usize = 107;

/// So many are heard at a time; the others wait in the kernel's queue.
const AT_ONCE: usize = 4;

/// A line is no longer, in bytes.
const MAX_LINE: usize = 256;

/// The text of an answer is no longer, in bytes.
const MAX_TEXT: usize = 16 * 1024;

/// An answer is no longer on the wire, where a byte of text may take six.
const MAX_ANSWER: u64 = 6 * MAX_TEXT as u64 + 1024;

/// How long others are waited for.
const PATIENCE: Patience =
    Patience { line: Duration::from_secs(5), answer: Duration::from_secs(60) };

/// The client gives up; later than the gateway, which can say more.
const GIVE_UP: Duration = Duration::from_secs(70);

/// What somebody wants of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// To be told how the core's certificate stands.
    Show,
    /// A rotation now.
    Rotate,
    /// The restart that waits for its window, now.
    RestartNow,
    /// The old pair back.
    Rollback,
    /// Plain files instead of links.
    Detach,
}

impl Command {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Show, Self::Rotate, Self::RestartNow, Self::Rollback, Self::Detach];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Show => "show",
            Self::Rotate => "rotate",
            Self::RestartNow => "restart-now",
            Self::Rollback => "rollback",
            Self::Detach => "detach",
        }
    }
}

/// The word is none of [`Command`]'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such command: use the gateway's own program")]
pub struct UnknownCommand;

impl FromStr for Command {
    type Err = UnknownCommand;

    fn from_str(text: &str) -> Result<Self, UnknownCommand> {
        Self::ALL.into_iter().find(|command| command.as_str() == text).ok_or(UnknownCommand)
    }
}

/// What the gateway says to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it is done, or will be.
    pub ok: bool,
    /// For people. What is over 16 KiB is cut off.
    pub text: String,
}

impl Answer {
    /// It is done, or will be.
    pub fn done(text: impl Into<String>) -> Self {
        Self { ok: true, text: text.into() }
    }

    /// It is not, and why.
    pub fn refused(text: impl Into<String>) -> Self {
        Self { ok: false, text: text.into() }
    }
}

/// A command that waits for its answer. Who asked may have gone meanwhile.
#[derive(Debug)]
pub struct Asked {
    /// What is wanted.
    pub command: Command,
    /// Where the answer goes; dropped, it is said that there is none.
    pub answer: oneshot::Sender<Answer>,
}

/// Listens in the work directory, in a task that ends when what is returned is dropped. What stands
/// there is taken for a leftover and replaced: it is for the one gateway that has the directory's store
/// open.
pub fn listen(dir: &Path) -> io::Result<mpsc::Receiver<Asked>> {
    let listener = bind(dir)?;
    let (asked, commands) = mpsc::channel(AT_ONCE);
    tokio::spawn(accept(listener, asked, PATIENCE));
    Ok(commands)
}

/// How long others are waited for.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// For the client: its line to come, its answer to be read.
    line: Duration,
    /// For the gateway's answer.
    answer: Duration,
}

/// Nobody can connect before the mode is set, and nobody finds the socket before it listens.
fn bind(dir: &Path) -> io::Result<UnixListener> {
    let path =
        socket_in(dir).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let draft = dir.join(DRAFT);
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixSocket::new_stream()?;
    socket.bind(&draft)?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o600))?;
    let listener = socket.listen(16)?;
    fs::rename(&draft, &path)?;
    Ok(listener)
}

fn socket_in(dir: &Path) -> Result<PathBuf, ControlError> {
    let socket = dir.join(SOCKET);
    match socket.as_os_str().len() <= MAX_PATH {
        true => Ok(socket),
        false => Err(ControlError::PathTooLong { socket }),
    }
}

async fn accept(listener: UnixListener, asked: mpsc::Sender<Asked>, patience: Patience) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.expect("nobody closes the semaphore");
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = asked.closed() => return,
        };
        match stream {
            Ok((stream, _)) => {
                let asked = asked.clone();
                tokio::spawn(async move {
                    serve(stream, &asked, patience).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to {SOCKET} can't be accepted");
                // Such as when there are too many open files: it would fail again at once.
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Serves one client. Whatever goes wrong with it concerns nobody else.
async fn serve(stream: UnixStream, asked: &mpsc::Sender<Asked>, patience: Patience) {
    let mut stream = BufReader::with_capacity(MAX_LINE, stream);
    let Ok(Ok(Some(line))) = timeout(patience.line, read_line(&mut stream)).await else { return };
    let mut stream = stream.into_inner();
    let answer = match line.parse() {
        Ok(command) => tokio::select! {
            answer = answered(command, asked, patience.answer) => answer,
            () = gone(&mut stream) => return,
        },
        Err(why @ UnknownCommand) => Answer::refused(why.to_string()),
    };
    let bytes = on_the_wire(answer);
    // Who does not read the answer does not want it.
    let _ = timeout(patience.line, stream.write_all(&bytes)).await;
}

/// A line without its end; `None`: there is no whole line of text.
async fn read_line(stream: &mut BufReader<UnixStream>) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    stream.take(MAX_LINE as u64).read_until(b'\n', &mut line).await?;
    let text = String::from_utf8(line).ok();
    Ok(text.and_then(|text| text.strip_suffix('\n').map(str::to_owned)))
}

async fn answered(command: Command, asked: &mpsc::Sender<Asked>, within: Duration) -> Answer {
    let ask = async {
        let (answer, answered) = oneshot::channel();
        asked.send(Asked { command, answer }).await.ok()?;
        answered.await.ok()
    };
    match timeout(within, ask).await {
        Ok(Some(answer)) => answer,
        Ok(None) => Answer::refused("the gateway is ending"),
        Err(_) => Answer::refused("the gateway is busy; what was asked for may still be done"),
    }
}

/// Ends when the client hangs up, or says more than its one line.
async fn gone(stream: &mut UnixStream) {
    // Whatever it is, it ends the conversation.
    let _ = stream.read(&mut [0]).await;
}

fn on_the_wire(mut answer: Answer) -> Vec<u8> {
    if answer.text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|end| answer.text.is_char_boundary(*end));
        answer.text.truncate(end.unwrap_or_default());
    }
    serde_json::to_vec(&answer).expect("a flag and a text are always JSON")
}

/// Why there is no answer. The text is for people and names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error(
        "no gateway runs in {}: start it, or name its workDir with --work-dir", .dir.display()
    )]
    NotRunning {
        /// The work directory.
        dir: PathBuf,
    },
    /// The socket, or its directory, is another user's.
    #[error("{} may not be used: run this as the gateway's user or as root", .socket.display())]
    NoRights {
        /// The socket.
        socket: PathBuf,
    },
    /// The path is longer than a socket's may be.
    #[error(
        "the path {} is longer than {MAX_PATH} bytes, which is all that a socket may have: go into \
         the workDir and name it as \".\", or give the gateway a shorter one", .socket.display()
    )]
    PathTooLong {
        /// The socket.
        socket: PathBuf,
    },
    /// The gateway took the command and does not answer.
    #[error("the gateway gives no answer within {GIVE_UP:?}: look into its log")]
    NoAnswer,
    /// The gateway hung up, as it does when it ends.
    #[error("the gateway hung up without an answer: look into its log")]
    HungUp,
    /// Something else answers.
    #[error("the answer can't be read: use the gateway's own program")]
    Malformed,
    /// The connection failed otherwise.
    #[error("{} does not work: {error}", .socket.display())]
    Failed {
        /// The socket.
        socket: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Asks the gateway that has this work directory, and waits for its answer.
pub fn ask(dir: &Path, command: Command) -> Result<Answer, ControlError> {
    ask_within(dir, command, GIVE_UP)
}

/// On a thread, since a connect may wait for ever, too. It is left behind when it is late.
fn ask_within(dir: &Path, command: Command, within: Duration) -> Result<Answer, ControlError> {
    let socket = socket_in(dir)?;
    let (tell, told) = blocking::channel();
    let path = socket.clone();
    let talk = move || {
        // Nobody may be left to tell.
        let _ = tell.send(exchange(&path, command));
    };
    let started = std::thread::Builder::new().name("control".to_owned()).spawn(talk);
    let answer = match started {
        Ok(_) => told.recv_timeout(within).map_err(|_| ControlError::NoAnswer)?,
        Err(error) => Err(error),
    };
    let answer = answer.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ControlError::NotRunning { dir: dir.to_owned() }
        }
        io::ErrorKind::PermissionDenied => ControlError::NoRights { socket: socket.clone() },
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ControlError::HungUp,
        _ => ControlError::Failed { socket, error },
    })?;
    match answer.as_slice() {
        [] => Err(ControlError::HungUp),
        bytes => serde_json::from_slice(bytes).map_err(|_| ControlError::Malformed),
    }
}

fn exchange(socket: &Path, command: Command) -> io::Result<Vec<u8>> {
    let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
    stream.write_all(format!("{}\n", command.as_str()).as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests;
