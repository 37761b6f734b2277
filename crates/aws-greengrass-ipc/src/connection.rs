//! One connection: the handshake, then one half that always reads and one that writes.
//!
//! Invariants: the socket is read whatever the writer and the users do; frames are written whole, by
//! one half alone, so that nobody who loses patience leaves half a frame behind; when either half
//! ends, both do, and everyone who waits is told.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, mpsc, oneshot},
    task::yield_now,
    time::timeout,
};

use crate::{
    demux::{Answer, Control, Demux, Failure, Subscriber, Ticket, Waiter},
    error::{ConnectError, Step},
    options::Options,
    wire::{Decoder, Kind, Message, Outgoing},
};

/// So much is read at once.
const CHUNK: usize = 16 * 1024;

/// Requests are gathered up to here and written at once.
const BATCH: usize = 16 * 1024;

/// A buffer that one large request has blown up is given back.
const KEPT: usize = 64 * 1024;

/// So many requests may wait to be written; who sends one more waits before it.
const REQUESTS: usize = 64;

/// A connection whose token has been accepted, and which nobody reads yet.
#[derive(Debug)]
pub(crate) struct Accepted {
    stream: UnixStream,
    /// May hold what came behind the answer.
    decoder: Decoder,
}

/// Reaches the nucleus and presents the token.
pub(crate) async fn connect(options: &Options) -> Result<Accepted, ConnectError> {
    let timeouts = &options.timeouts;
    let stream = within(timeouts.connect, Step::Connect, async {
        UnixStream::connect(&options.socket).await.map_err(ConnectError::io(Step::Connect))
    });
    let mut accepted = Accepted { stream: stream.await?, decoder: Decoder::new(options.max_frame) };
    let payload = serde_json::json!({ "authToken": options.token.expose() }).to_string();
    within(timeouts.handshake, Step::Handshake, accepted.shake_hands(payload.as_bytes())).await?;
    Ok(accepted)
}

/// The same as [`timeout`], with its error.
async fn within<T>(
    limit: Duration,
    step: Step,
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    timeout(limit, work).await.unwrap_or(Err(ConnectError::TimedOut(step)))
}

impl Accepted {
    async fn shake_hands(&mut self, payload: &[u8]) -> Result<(), ConnectError> {
        let mut frame = Vec::new();
        Outgoing::Connect { payload }.encode(&mut frame);
        self.stream.write_all(&frame).await.map_err(ConnectError::io(Step::Handshake))?;
        let mut chunk = [0; 1024];
        let mut is_silent = true;
        loop {
            let read = self.stream.read(&mut chunk).await;
            match read.map_err(ConnectError::io(Step::Handshake))? {
                // This is how a lite nucleus rejects a token.
                0 if is_silent => return Err(ConnectError::Rejected),
                0 => return Err(ConnectError::Closed),
                length => self.decoder.push(&chunk[..length]),
            }
            is_silent = false;
            if let Some(frame) = self.decoder.frame()? {
                return judge(Message::read(frame)?);
            }
        }
    }
}

/// Judges the first message of a connection.
fn judge(message: Message<'_>) -> Result<(), ConnectError> {
    match message.kind {
        Kind::ConnectAck { is_accepted: true } => Ok(()),
        Kind::ConnectAck { is_accepted: false } => Err(ConnectError::Rejected),
        Kind::ProtocolError | Kind::InternalError => Err(ConnectError::aborted(message.payload)),
        _ => Err(ConnectError::out_of_place("a message before CONNECT_ACK")),
    }
}

/// A request on its way to the writer.
#[derive(Debug)]
struct Request {
    ticket: Ticket,
    operation: &'static str,
    model: &'static str,
    payload: Vec<u8>,
}

/// The names that an operation has on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Names {
    pub operation: &'static str,
    pub request: &'static str,
    pub response: &'static str,
}

impl Names {
    /// The size of the frame of a request with so many bytes of payload.
    pub fn request_size(self, payload: usize) -> usize {
        Outgoing::request_size(self.operation, self.request, payload)
    }
}

/// The users' end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
}

/// The other end of a [`Link`]: the work of the connection.
#[derive(Debug)]
pub(crate) struct Pump {
    accepted: Accepted,
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
}

#[derive(Debug)]
struct Shared {
    demux: Mutex<Demux>,
    /// There is something to write that is no request.
    control: Notify,
}

/// Makes the two ends.
pub(crate) fn link(accepted: Accepted, generation: u64) -> (Link, Pump) {
    let (requests, inbox) = mpsc::channel(REQUESTS);
    let demux = Mutex::new(Demux::new(generation));
    let shared = Arc::new(Shared { demux, control: Notify::new() });
    let pump = Pump { accepted, shared: Arc::clone(&shared), requests: inbox };
    (Link { shared, requests }, pump)
}

impl Link {
    /// Sends a request and waits for its answer, for ever if need be.
    pub async fn call(&self, names: Names, payload: Vec<u8>) -> Answer {
        let (answer, answered) = oneshot::channel();
        let waiter = Waiter::Call { response: names.response, answer };
        let _open = self.request(names, payload, waiter).await;
        // A sender that is dropped unused is a waiter that was never written.
        answered.await.unwrap_or(Err(Failure::NotWritten))
    }

    /// Sends the request of a subscription. It lives as long as what is returned.
    pub async fn subscribe(&self, names: Names, payload: Vec<u8>, to: Subscriber) -> Open {
        self.request(names, payload, Waiter::Subscription(to)).await
    }

    /// The place among those who wait is left when this is dropped half way.
    async fn request(&self, names: Names, payload: Vec<u8>, waiter: Waiter) -> Open {
        let ticket = self.shared.demux().enter(waiter);
        let open = Open { shared: Arc::clone(&self.shared), ticket };
        let Names { operation, request: model, .. } = names;
        let request = Request { ticket, operation, model, payload };
        // When the pump has ended, the waiter has been told, or is told now.
        let _ = self.requests.send(request).await;
        open
    }
}

/// A place among those who wait; dropping it leaves the place.
#[derive(Debug)]
pub(crate) struct Open {
    shared: Arc<Shared>,
    ticket: Ticket,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.change(|demux| demux.leave(self.ticket));
    }
}

impl Shared {
    fn demux(&self) -> MutexGuard<'_, Demux> {
        // Nothing in there panics half way.
        self.demux.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Demux) -> T) -> T {
        let mut demux = self.demux();
        let result = change(&mut demux);
        if demux.has_control() {
            self.control.notify_one();
        }
        result
    }
}

impl Pump {
    /// Reads and writes until the connection ends, and says why. Everyone who waits is told, also
    /// when this is dropped.
    pub async fn run(self, limit: Duration) -> ConnectError {
        let Self { accepted: Accepted { stream, decoder }, shared, requests } = self;
        let (_end, shared) = (CloseOnDrop(&shared), &shared);
        let (input, output) = stream.into_split();
        tokio::select! {
            why = Reader { input, decoder, limit, shared }.run() => why,
            why = Writer { output, limit, shared, out: Vec::new() }.run(requests) => why,
        }
    }
}

struct CloseOnDrop<'a>(&'a Shared);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.demux().close();
    }
}

struct Reader<'a> {
    input: OwnedReadHalf,
    decoder: Decoder,
    /// For the rest of a frame that has begun.
    limit: Duration,
    shared: &'a Shared,
}

impl Reader<'_> {
    async fn run(mut self) -> ConnectError {
        let mut chunk = vec![0; CHUNK];
        loop {
            if let Err(why) = self.step(&mut chunk).await {
                return why;
            }
        }
    }

    /// Hands over what there is, and reads what comes next.
    async fn step(&mut self, chunk: &mut [u8]) -> Result<(), ConnectError> {
        let Self { input, decoder, limit, shared } = self;
        shared.change(|demux| receive(decoder, demux))?;
        // Those who got something take it now: a burst must not fill their queues while they wait
        // for nothing but their turn.
        yield_now().await;
        let read = async { input.read(chunk).await.map_err(ConnectError::io(Step::Read)) };
        let length = match decoder.is_in_frame() {
            true => within(*limit, Step::Read, read).await?,
            false => read.await?,
        };
        decoder.push(&chunk[..length]);
        if length == 0 { Err(ConnectError::Closed) } else { Ok(()) }
    }
}

/// Hands over every message that is complete.
pub(crate) fn receive(decoder: &mut Decoder, demux: &mut Demux) -> Result<(), ConnectError> {
    while let Some(frame) = decoder.frame()? {
        demux.receive(Message::read(frame)?)?;
    }
    Ok(())
}

struct Writer<'a> {
    output: OwnedWriteHalf,
    limit: Duration,
    shared: &'a Shared,
    out: Vec<u8>,
}

impl Writer<'_> {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) -> ConnectError {
        loop {
            let step = async {
                self.gather(&mut requests).await?;
                self.write().await
            };
            if let Err(why) = step.await {
                return why;
            }
        }
    }

    /// Waits for something to write, and takes what else there is.
    async fn gather(&mut self, requests: &mut mpsc::Receiver<Request>) -> Result<(), ConnectError> {
        self.put_control();
        while self.out.len() < BATCH
            && let Ok(request) = requests.try_recv()
        {
            self.put(&request)?;
        }
        if self.out.is_empty() {
            tokio::select! {
                () = self.shared.control.notified() => (),
                Some(request) = requests.recv() => self.put(&request)?,
            }
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<(), ConnectError> {
        let written = self.output.write_all(&self.out);
        within(self.limit, Step::Write, async {
            written.await.map_err(ConnectError::io(Step::Write))
        })
        .await?;
        self.out.clear();
        self.out.shrink_to(KEPT);
        Ok(())
    }

    fn put_control(&mut self) {
        while let Some(control) = self.shared.demux().control() {
            match &control {
                Control::Terminate(stream) => Outgoing::Terminate { stream: *stream },
                Control::Pong(payload) => Outgoing::Pong { payload },
            }
            .encode(&mut self.out);
        }
    }

    fn put(&mut self, request: &Request) -> Result<(), ConnectError> {
        let Some(stream) = self.shared.demux().open(request.ticket)? else { return Ok(()) };
        let Request { operation, model, payload, .. } = request;
        Outgoing::Request { stream, operation, model, payload }.encode(&mut self.out);
        Ok(())
    }
}
