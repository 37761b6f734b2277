//! A TCP proxy that can be cut and frozen: the network between a client and a broker.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

/// A proxy on a port of 127.0.0.1. Ends when dropped.
pub struct Proxy {
    port: u16,
    shared: Arc<Mutex<Shared>>,
}

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// It carries.
    Open,
    /// Every connection ends at once.
    Cut,
    /// Connections stand, and take bytes, and none arrives.
    Frozen,
    /// The proxy is gone.
    Ended,
}

struct Shared {
    mode: Mode,
    open: Vec<TcpStream>,
    accepted: u64,
}

impl Proxy {
    /// Carries connections to a port of 127.0.0.1.
    pub fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let shared = Shared { mode: Mode::Open, open: Vec::new(), accepted: 0 };
        let shared = Arc::new(Mutex::new(shared));
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, upstream, &accepting));
        Self { port, shared }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections were attempted so far, in any mode.
    pub fn accepted(&self) -> u64 {
        lock(&self.shared).accepted
    }

    /// Ends every connection, and every new one at once.
    pub fn cut(&self) {
        self.enter(Mode::Cut, true);
    }

    /// Half-open: connections stand, new ones are taken, bytes are taken and none arrives.
    pub fn freeze(&self) {
        self.enter(Mode::Frozen, false);
    }

    /// Carries again. Connections of the time before end: bytes of theirs are missing.
    pub fn restore(&self) {
        self.enter(Mode::Open, true);
    }

    fn enter(&self, mode: Mode, ends_connections: bool) {
        let mut shared = lock(&self.shared);
        shared.mode = mode;
        if ends_connections {
            for stream in shared.open.drain(..) {
                // It fails for a connection that has ended already.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.enter(Mode::Ended, true);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn accept(listener: &TcpListener, upstream: u16, shared: &Arc<Mutex<Shared>>) {
    for client in listener.incoming() {
        let Ok(client) = client else { return };
        let mut state = lock(shared);
        match state.mode {
            Mode::Ended => return,
            Mode::Cut => state.accepted += 1,
            Mode::Open | Mode::Frozen => {
                state.accepted += 1;
                if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)) {
                    carry(client, server, &mut state, shared);
                }
            }
        }
    }
}

fn carry(client: TcpStream, server: TcpStream, state: &mut Shared, shared: &Arc<Mutex<Shared>>) {
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("an open socket");
        state.open.push(stream.try_clone().expect("a file descriptor"));
    }
    for (from, to) in [
        (client.try_clone().expect("a file descriptor"), server.try_clone().expect("one more")),
        (server, client),
    ] {
        let shared = Arc::clone(shared);
        thread::spawn(move || pump(from, to, &shared));
    }
}

/// Ends both sides when either ends.
fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Mutex<Shared>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(size @ 1..) = from.read(&mut buffer) {
        if lock(shared).mode == Mode::Open && to.write_all(&buffer[..size]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().expect("no thread of the proxy panics")
}
