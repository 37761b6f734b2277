//! A real broker in the place of IoT Core.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use fake_nucleus::{FakeNucleus, Mode, Settings, Timing, TlsFiles, Token, Upstream};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rumqttc::{Client as Mqtt, Event, MqttOptions, Packet, PublishOptions, QoS, SessionMode};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::json;
use tempfile::TempDir;

use crate::client::{Client, DEADLINE, eventually};

const MODES: [Mode; 2] = [Mode::Java, Mode::Lite];

/// A Mosquitto that keeps its sessions over a restart.
struct Broker {
    folder: TempDir,
    port: u16,
    process: Option<Child>,
}

impl Broker {
    fn start() -> Self {
        Self::with("allow_anonymous true\n", |_| ())
    }

    /// One that wants a certificate; its authority issues `core.pem` and `core.key` too.
    fn mtls() -> Self {
        let lines = "cafile FOLDER/ca.pem\ncertfile FOLDER/server.pem\nkeyfile FOLDER/server.key\n\
                     require_certificate true\nuse_identity_as_username true\n";
        Self::with(lines, issue)
    }

    fn with(lines: &str, prepare: impl FnOnce(&Path)) -> Self {
        let port = free_port();
        let mut broker = Self { folder: tempfile::tempdir().unwrap(), port, process: None };
        let folder = broker.folder.path().display();
        prepare(broker.folder.path());
        let lines = format!(
            "listener {port} 127.0.0.1\npersistence true\npersistence_location FOLDER/\n\
             user root\n{lines}"
        )
        .replace("FOLDER", &folder.to_string());
        std::fs::write(broker.configuration(), lines).unwrap();
        broker.run();
        broker
    }

    fn configuration(&self) -> PathBuf {
        self.folder.path().join("mosquitto.conf")
    }

    fn run(&mut self) {
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(self.configuration());
        let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap());
        command.env("PATH", path).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().expect("mosquitto is installed: see the Makefile"));
        eventually(|| TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok());
    }

    /// Stopped in good order, so that it saves what it has.
    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let id = process.id().to_string();
            Command::new("kill").args(["-TERM", &id]).status().unwrap();
            process.wait().unwrap();
        }
    }

    fn upstream(&self) -> Upstream {
        let (host, client_id) = ("127.0.0.1".to_owned(), "core".to_owned());
        let file = |name| self.folder.path().join(name);
        let is_mtls = file("core.pem").exists();
        let tls = is_mtls.then(|| TlsFiles {
            ca: file("ca.pem"),
            certificate: file("core.pem"),
            key: file("core.key"),
        });
        Upstream::Mqtt { host, port: self.port, client_id, tls }
    }

    fn nucleus(&self, mode: Mode) -> FakeNucleus {
        let reconnect = Duration::from_millis(20);
        let timing = Timing { reconnect, unsubscribe: Duration::ZERO, ..Timing::default() };
        FakeNucleus::start(Settings { upstream: self.upstream(), timing, ..Settings::new(mode) })
    }

    /// The cloud's side: publishes, and reports the payloads on a topic.
    fn cloud(&self, filter: &'static str) -> (Mqtt, mpsc::Receiver<String>) {
        let mut options = MqttOptions::new("cloud", ("127.0.0.1", self.port));
        options.set_session_mode(SessionMode::Clean);
        let (client, mut connection) = Mqtt::builder(options).capacity(100).build();
        let (report, payloads) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        client.subscribe(filter, QoS::AtLeastOnce).unwrap();
        std::thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::SubAck(_))) => drop(ready.send(())),
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
                        let _ = report.send(payload);
                    }
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        is_ready.recv_timeout(DEADLINE).expect("a subscription");
        (client, payloads)
    }
}

/// A port that is free now, and another each time. Below the range that the kernel takes for outgoing
/// connections, so that a stopped broker finds it free again.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let offset = std::process::id().wrapping_mul(97);
    let mut ports = std::iter::repeat_with(|| {
        let number = offset.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        u16::try_from(12_000 + number % 20_000).unwrap()
    });
    ports.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).unwrap()
}

/// Makes an authority, and pairs for a server on this machine and for the core.
fn issue(folder: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = authority.self_signed(&key).unwrap();
    let issuer = Issuer::new(authority, key);
    std::fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
    for (name, address) in [("server", "127.0.0.1"), ("core", "core")] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([address.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}

fn publish(cloud: &Mqtt, topic: &str, payload: &str) {
    cloud.publish(topic, payload.to_owned(), PublishOptions::new(QoS::AtLeastOnce)).unwrap();
}

/// Publishes as soon as there is a link.
fn publish_soon(client: &mut Client, topic: &str, payload: &str) {
    eventually(|| client.publish(topic, payload, "0").is_ok());
}

/// Subscribes as soon as there is a link.
fn subscribe_soon(client: &mut Client, filter: &str) -> i32 {
    let request = json!({"topicName": filter, "qos": "1"});
    let mut stream = 0;
    eventually(|| {
        stream = client.ask("SubscribeToIoTCore", &request);
        client.next_on(stream).answer().is_ok()
    });
    stream
}

#[test]
fn messages_go_through_the_broker_both_ways() {
    for mode in MODES {
        let broker = Broker::start();
        let nucleus = broker.nucleus(mode);
        let (cloud, payloads) = broker.cloud("up");
        let mut client = Client::connect(&nucleus);
        let stream = subscribe_soon(&mut client, "down/+");
        // Lite says yes before the broker does: what follows on the same connection comes later.
        client.publish("down/0", "round", "1").expect("a yes");
        assert_eq!(client.message(stream), "round");
        publish(&cloud, "down/1", "from above");
        assert_eq!(client.message(stream), "from above");
        client.publish("up", "from below", "1").expect("a yes");
        assert_eq!(payloads.recv_timeout(DEADLINE).unwrap(), "from below");
    }
}

#[test]
fn without_the_broker_the_core_is_offline() {
    for mode in MODES {
        let mut broker = Broker::start();
        let nucleus = broker.nucleus(mode);
        let mut client = Client::connect(&nucleus);
        let stream = subscribe_soon(&mut client, "t");
        broker.stop();
        eventually(|| client.publish("t", "x", "0").is_err());
        assert_eq!(client.publish("t", "later", "1").is_ok(), mode == Mode::Java);
        broker.run();
        match mode {
            Mode::Java => assert_eq!(client.message(stream), "later"),
            Mode::Lite => {
                publish_soon(&mut client, "t", "again");
                assert_eq!(client.message(stream), "again");
            }
        }
    }
}

#[test]
fn the_link_can_be_taken_away_from_a_broker_that_is_there() {
    for mode in MODES {
        let broker = Broker::start();
        let nucleus = broker.nucleus(mode);
        let (cloud, payloads) = broker.cloud("up");
        let mut client = Client::connect(&nucleus);
        let stream = subscribe_soon(&mut client, "down");
        nucleus.set_online(false);
        assert!(client.publish("up", "x", "0").is_err());
        publish(&cloud, "down", "meanwhile");
        publish(&cloud, "up", "it has it");
        assert_eq!(payloads.recv_timeout(DEADLINE).unwrap(), "it has it");
        nucleus.set_online(true);
        publish_soon(&mut client, "up", "back");
        assert_eq!(payloads.recv_timeout(DEADLINE).unwrap(), "back");
        publish(&cloud, "down", "afterwards");
        // The classic nucleus keeps its session, lite does not.
        let first = if mode == Mode::Java { "meanwhile" } else { "afterwards" };
        assert_eq!(client.message(stream), first);
    }
}

#[test]
fn a_link_that_is_dead_takes_messages_and_what_became_of_them_differs() {
    for mode in MODES {
        let broker = Broker::start();
        let nucleus = broker.nucleus(mode);
        let (cloud, payloads) = broker.cloud("+");
        let mut client = Client::connect(&nucleus);
        let stream = subscribe_soon(&mut client, "down");
        client.publish("up", "alive", "1").expect("a yes");
        assert_eq!(payloads.recv_timeout(DEADLINE).unwrap(), "alive");
        nucleus.freeze_link(true);
        client.publish("up", "frozen up", "1").expect("a yes");
        publish(&cloud, "down", "frozen down");
        assert_eq!(payloads.recv_timeout(DEADLINE).unwrap(), "frozen down");
        nucleus.freeze_link(false);
        publish_soon(&mut client, "up", "thawed up");
        let is_java = mode == Mode::Java;
        let first = payloads.recv_timeout(DEADLINE).unwrap();
        assert_eq!(first, if is_java { "frozen up" } else { "thawed up" });
        publish(&cloud, "down", "thawed down");
        assert_eq!(client.message(stream), if is_java { "frozen down" } else { "thawed down" });
    }
}

#[test]
fn a_new_process_has_no_past_at_the_broker() {
    let broker = Broker::start();
    let mut nucleus = broker.nucleus(Mode::Java);
    let (cloud, payloads) = broker.cloud("up");
    let mut client = Client::connect(&nucleus);
    subscribe_soon(&mut client, "down");
    nucleus.set_online(false);
    nucleus.restart(Token::Same);
    publish(&cloud, "down", "lost");
    publish(&cloud, "up", "it has it");
    assert_eq!(payloads.recv_timeout(DEADLINE).unwrap(), "it has it");
    let mut client = Client::connect(&nucleus);
    let stream = client.ask("SubscribeToIoTCore", &json!({"topicName": "down", "qos": "1"}));
    client.settle();
    nucleus.set_online(true);
    client.next_on(stream).answer().expect("a yes");
    publish(&cloud, "down", "kept");
    assert_eq!(client.message(stream), "kept");
    assert_eq!(nucleus.dropped(), 0);
}

/// What the certificate of these files is called.
fn certificate(broker: &Broker, name: &str) -> Option<[u8; 32]> {
    let path = broker.folder.path().join(format!("{name}.pem"));
    let der = CertificateDer::from_pem_slice(&std::fs::read(path).unwrap()).unwrap();
    ring::digest::digest(&ring::digest::SHA256, &der).as_ref().try_into().ok()
}

/// Gives the core another pair: that of the server, or half of it.
fn replace(broker: &Broker, endings: &[(&str, &str)]) {
    for (from, to) in endings {
        let file = |name: &str| broker.folder.path().join(name);
        std::fs::copy(file(from), file(to)).unwrap();
    }
}

const WHOLE: [(&str, &str); 2] = [("server.pem", "core.pem"), ("server.key", "core.key")];

#[test]
fn lite_reads_its_certificate_at_every_connect() {
    let broker = Broker::mtls();
    let (first, second) = (certificate(&broker, "core"), certificate(&broker, "server"));
    let nucleus = broker.nucleus(Mode::Lite);
    let mut client = Client::connect(&nucleus);
    publish_soon(&mut client, "t", "x");
    assert_eq!((nucleus.upstream_certificate(), nucleus.upstream_connects()), (first, 1));

    replace(&broker, &WHOLE[..1]);
    client.publish("t", "x", "1").expect("it is connected still");
    assert_eq!(nucleus.pair_faults(), [""; 0]);
    nucleus.set_online(false);
    nucleus.set_online(true);
    eventually(|| !nucleus.pair_faults().is_empty());
    assert!(client.publish("t", "x", "1").is_err());
    assert_eq!(nucleus.upstream_connects(), 1);

    replace(&broker, &WHOLE[1..]);
    publish_soon(&mut client, "t", "x");
    assert_eq!((nucleus.upstream_certificate(), nucleus.upstream_connects()), (second, 2));
}

#[test]
fn the_classic_one_reads_its_certificate_when_it_starts() {
    let broker = Broker::mtls();
    let (first, second) = (certificate(&broker, "core"), certificate(&broker, "server"));
    let mut nucleus = broker.nucleus(Mode::Java);
    let mut client = Client::connect(&nucleus);
    publish_soon(&mut client, "t", "x");
    replace(&broker, &WHOLE);
    for _ in 0..2 {
        nucleus.set_online(false);
        assert!(client.publish("t", "x", "0").is_err());
        nucleus.set_online(true);
        publish_soon(&mut client, "t", "x");
        assert_eq!(nucleus.upstream_certificate(), first);
    }
    nucleus.restart(Token::Same);
    let mut client = Client::connect(&nucleus);
    publish_soon(&mut client, "t", "x");
    assert_eq!((nucleus.upstream_certificate(), nucleus.upstream_connects()), (second, 4));
}

#[test]
fn a_torn_pair_at_the_start_keeps_the_classic_one_offline_for_good() {
    let broker = Broker::mtls();
    for torn in [("server.key", "core.key"), ("ca.pem", "core.key")] {
        let good = std::fs::read(broker.folder.path().join("core.key")).unwrap();
        replace(&broker, &[torn]);
        let mut nucleus = broker.nucleus(Mode::Java);
        let mut client = Client::connect(&nucleus);
        assert_eq!(nucleus.pair_faults().len(), 1, "{:?}", nucleus.pair_faults());
        std::fs::write(broker.folder.path().join("core.key"), good).unwrap();
        nucleus.set_online(false);
        nucleus.set_online(true);
        client.settle();
        assert!(client.publish("t", "x", "0").is_err());
        assert_eq!((nucleus.upstream_connects(), nucleus.upstream_certificate()), (0, None));
        nucleus.restart(Token::New);
        publish_soon(&mut Client::connect(&nucleus), "t", "x");
        assert_eq!(nucleus.pair_faults().len(), 1);
    }
}
