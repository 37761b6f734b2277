//! A nucleus as a test holds it: started, watched, hurt, stopped.

use std::{
    collections::BTreeMap,
    os::unix::net::UnixListener,
    path::PathBuf,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
    task::AbortHandle,
};

use crate::{
    ClientDeviceCall, ClientDevices, Fault, Message, Mode, Pending, Settings, UpdateAnswer,
    Upstream, Verdict, home, mqtt, server,
    state::{Out, Shared},
};

/// How many events of a flood wait for one socket.
const FLOOD: usize = 256;

/// Which token a nucleus has after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// The old one.
    Same,
    /// A new one: the old is refused.
    New,
}

/// A nucleus. Its tasks run on a thread of their own, so that it can be used from any runtime and
/// without one. Dropping it ends it.
///
/// Where a method returns a [`Pending`], whoever is to answer must be able to run meanwhile.
#[derive(Debug)]
pub struct FakeNucleus {
    nucleus: Shared,
    /// Its root, where no other was given.
    folder: TempDir,
    handle: Handle,
    /// Lite: systemd holds the socket, whether the nucleus runs or not.
    socket: Option<UnixListener>,
    server: Option<AbortHandle>,
    tokens: u32,
    has_run: bool,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeNucleus {
    /// Starts a nucleus.
    ///
    /// # Panics
    ///
    /// If the system gives it no thread, or its root takes no socket and no files.
    pub fn start(settings: Settings) -> Self {
        let folder = tempfile::Builder::new().prefix("gg").tempdir();
        let folder = folder.expect("the system has a folder for temporary files");
        let (end, handle, thread) = runtime();
        let upstream = settings.upstream.clone();
        let mut fake = Self {
            nucleus: Shared::new(settings, token(0), handle.clone()),
            folder,
            handle,
            socket: None,
            server: None,
            tokens: 0,
            has_run: false,
            end: Some(end),
            thread: Some(thread),
        };
        fake.link(upstream);
        fake.serve();
        fake
    }

    /// What a component finds in its environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        let socket = self.socket_path();
        let socket = socket.to_string_lossy();
        let state = self.nucleus.lock();
        let version = match state.settings.mode {
            Mode::Java => "2.17.0",
            Mode::Lite => "2.6.0",
        };
        let of_component = [
            ("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", &*socket),
            ("SVCUID", &state.token),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", &state.token),
            ("AWS_IOT_THING_NAME", &state.settings.thing_name),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_DEFAULT_REGION", "eu-west-1"),
            ("GGC_VERSION", version),
        ];
        of_component.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// Ends the process: connections are closed, what was in its memory is gone. The classic
    /// nucleus takes its socket file with it; lite's stays, and takes connections that nobody
    /// answers until there is a nucleus again.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
        self.nucleus.lock().end_life();
        if self.mode() == Mode::Java {
            // There may be none.
            let _ = std::fs::remove_file(self.socket_path());
        }
    }

    /// Ends the process, if it runs, and starts it again, with a new socket.
    ///
    /// # Panics
    ///
    /// If its root takes no socket and no files.
    pub fn restart(&mut self, token_after: Token) {
        self.stop();
        self.socket = None;
        if token_after == Token::New {
            self.tokens += 1;
            self.nucleus.lock().token = token(self.tokens);
        }
        self.serve();
    }

    /// Gives the core a link to the cloud, or takes it away. With [`Upstream::Mqtt`] the broker's
    /// own coming and going counts as well.
    pub fn set_online(&self, is_online: bool) {
        self.nucleus.lock().want_link(is_online);
    }

    /// Kills the link without anyone noticing (`true`), and has it noticed (`false`): then it is
    /// made anew at once.
    ///
    /// While nobody has noticed, the classic nucleus says yes to everything: QoS 1 stays in the
    /// spool, QoS 0 is lost. Lite says yes to ten publishes, and loses them.
    pub fn freeze_link(&self, is_frozen: bool) {
        self.nucleus.lock().freeze(is_frozen);
    }

    /// Lite: its MQTT daemon restarts. Every subscription to IoT Core is dead, its stream stays
    /// open, and publishing works.
    pub fn restart_iotcored(&self) {
        self.nucleus.lock().restart_iotcored();
    }

    /// The cloud does not send what this filter takes any more, no component is told, and all else
    /// goes on. The classic nucleus comes to that when a component is started again while its UNSUBACK
    /// is under way, lite when it can't subscribe to one filter after a new connection.
    pub fn lose_subscription(&self, filter: &str) {
        self.nucleus.lock().lose_subscription(filter);
    }

    /// Java: what waits for the cloud is lost.
    pub fn lose_spool(&self) {
        self.nucleus.lock().lose_spool();
    }

    /// Java: how many messages wait for the cloud.
    pub fn spooled(&self) -> usize {
        self.nucleus.lock().spooled()
    }

    /// Java: deploys the client device auth component, removes it, or changes its mind.
    pub fn set_client_devices(&self, client_devices: ClientDevices) {
        self.nucleus.lock().settings.client_devices = client_devices;
    }

    /// Something goes wrong.
    pub fn fault(&self, fault: Fault) {
        self.nucleus.lock().suffer(fault);
    }

    /// Deploys another configuration for the component. On the classic nucleus the component is
    /// asked first, if it wants to be.
    pub fn deploy(&self, configuration: Value) -> Pending<Verdict> {
        self.nucleus.lock().deploy(configuration)
    }

    /// The SHA-256 of the certificate of the newest connection to the broker, be it over or not.
    pub fn upstream_certificate(&self) -> Option<[u8; 32]> {
        self.nucleus.lock().record.certificate
    }

    /// How many connections to the broker there were.
    pub fn upstream_connects(&self) -> u64 {
        self.nucleus.lock().record.connects
    }

    /// What was wrong with the core's credential when it was loaded. The classic nucleus does that
    /// at its start, and then runs without a link for good; lite does it at every connect.
    pub fn pair_faults(&self) -> Vec<String> {
        self.nucleus.lock().record.pair_faults.clone()
    }

    /// Java: asks the component whether an update may go ahead, and returns its first answer. Who
    /// is put off asks again when that time is over. The update is under way from then on until
    /// [`FakeNucleus::finish_update`].
    pub fn announce_update(
        &self,
        deployment_id: &str,
        is_restarting: bool,
    ) -> Pending<UpdateAnswer> {
        self.nucleus.lock().announce_update(deployment_id, is_restarting)
    }

    /// Java: what the component said to the updates, oldest first, by deployment.
    pub fn update_answers(&self) -> Vec<(String, UpdateAnswer)> {
        self.nucleus.lock().record.update_answers.clone()
    }

    /// Java: tells the component that an update is over.
    pub fn finish_update(&self, deployment_id: &str) {
        self.nucleus.lock().finish_update(deployment_id);
    }

    /// Publishes on a local topic, as another component does: the MQTT bridge.
    pub fn pubsub_publish(&self, topic: &str, payload: &[u8]) {
        self.nucleus.lock().publish_locally(topic, payload);
    }

    /// What the component published on local topics.
    pub fn pubsub_received(&self) -> Vec<Message> {
        self.nucleus.lock().record.local.received()
    }

    /// Takes the oldest message that the component published on a local topic which `filter`
    /// matches, and that was not taken before; or the next to come.
    pub fn pubsub_take(&self, filter: &str) -> Pending<Message> {
        self.nucleus.lock().record.local.take(filter)
    }

    /// The states that the component reported.
    pub fn states(&self) -> Vec<String> {
        self.nucleus.lock().record.states.clone()
    }

    /// The rules of the wire that a client broke.
    pub fn violations(&self) -> Vec<String> {
        self.nucleus.lock().record.violations.clone()
    }

    /// How often each operation (without its namespace) was asked for.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.nucleus.lock().record.calls.clone()
    }

    /// What the client device auth component was asked.
    pub fn client_device_calls(&self) -> Vec<ClientDeviceCall> {
        self.nucleus.lock().record.client_devices.clone()
    }

    /// Java: how many messages came after a SUBACK and before the component was told of it.
    pub fn dropped(&self) -> u64 {
        self.nucleus.lock().record.dropped
    }

    /// Sends so many events of so many bytes on each subscription to IoT Core, as fast as the
    /// socket takes them.
    pub fn flood(&self, count: usize, size: usize) -> Pending<()> {
        let (done, pending) = Pending::new();
        let events = self.nucleus.lock().flood_events(size);
        self.handle.spawn(async move {
            for _ in 0..count {
                for (to, event) in &events {
                    while to.max_capacity() - to.capacity() >= FLOOD {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    // A connection that is gone takes none.
                    let _ = to.try_send(Out::Bytes(event.clone()));
                }
            }
            let _ = done.send(());
        });
        pending
    }

    fn mode(&self) -> Mode {
        self.nucleus.lock().settings.mode
    }

    fn socket_path(&self) -> PathBuf {
        let name = match self.mode() {
            Mode::Java => "ipc.socket",
            Mode::Lite => "gg-ipc.socket",
        };
        self.root().join(name)
    }

    fn root(&self) -> PathBuf {
        let root = self.nucleus.lock().settings.root.clone();
        root.unwrap_or_else(|| self.folder.path().to_owned())
    }

    fn link(&self, upstream: Upstream) {
        let nucleus = self.nucleus.clone();
        match upstream {
            Upstream::Hub(_) => drop(self.handle.spawn(pull(nucleus))),
            Upstream::Mqtt { .. } => drop(self.handle.spawn(mqtt::run(upstream, nucleus))),
        }
    }

    fn serve(&mut self) {
        if self.mode() == Mode::Java {
            let settings = self.nucleus.lock().settings.clone();
            home::write(&self.root(), &settings, !self.has_run).expect("its root takes files");
        }
        self.has_run = true;
        let path = self.socket_path();
        // There may be none.
        let _ = std::fs::remove_file(&path);
        let socket = UnixListener::bind(path).expect("its root takes a socket, its name is short");
        if self.mode() == Mode::Lite {
            self.socket = socket.try_clone().ok();
        }
        let nucleus = self.nucleus.clone();
        self.nucleus.lock().begin_life();
        let server = self.handle.spawn(async move {
            let is_ready = socket.set_nonblocking(true);
            if let Ok(listener) = is_ready.and_then(|()| tokio::net::UnixListener::from_std(socket))
            {
                server::run(listener, nucleus).await;
            }
        });
        self.server = Some(server.abort_handle());
    }
}

impl Drop for FakeNucleus {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

/// Hands over what the hub has for the core.
async fn pull(nucleus: Shared) {
    let wake = nucleus.lock().wake();
    loop {
        wake.notified().await;
        while nucleus.lock().pull() {
            tokio::task::yield_now().await;
        }
    }
}

/// A thread with a runtime that lives until the sender is dropped.
fn runtime() -> (oneshot::Sender<()>, Handle, JoinHandle<()>) {
    let (end, ended) = oneshot::channel::<()>();
    let (report, handle) = mpsc::channel();
    let thread = thread::Builder::new().name("nucleus".to_owned()).spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("the system has a descriptor to spare");
        // The other side waits for it.
        let _ = report.send(runtime.handle().clone());
        // It ends when the sender is dropped.
        let _ = runtime.block_on(ended);
    });
    let thread = thread.expect("the system has a thread to spare");
    (end, handle.recv().expect("the thread sends it first of all"), thread)
}

/// A token of 16 characters, as both nuclei make them.
fn token(number: u32) -> String {
    format!("TOKEN{number:011}")
}
