//! What the probe tells apart, against a real Mosquitto and against servers that behave oddly.

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use certrelay::{
    core_device::probe::{Target, probe},
    identity::Probed,
    install::PairFiles,
};
use rcgen::date_time_ymd;
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, Stream, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use support::{
    eventually,
    mosquitto::Setup,
    pki::{Authority, Pair, named},
};
use tempfile::TempDir;

const NAME: &str = "core#certrelay";
const PATIENCE: Duration = Duration::from_secs(10);

/// A cloud's CA, and a folder for the files of who connects.
struct World {
    authority: Authority,
    dir: TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        Self { authority: Authority::new("cloud"), dir }
    }

    fn target(&self, port: u16) -> Target {
        Target { host: "localhost".to_owned(), port, ca: self.authority.write(self.dir.path()) }
    }

    async fn probe(&self, port: u16, pair: &Pair) -> Probed {
        let (certificate, key) = pair.write(self.dir.path(), "probe");
        probe(&self.target(port), &PairFiles { certificate, key }, NAME).await
    }

    async fn probe_good(&self, port: u16) -> Probed {
        self.probe(port, &self.authority.client("core")).await
    }
}

fn refused(probed: &Probed) -> &str {
    match probed {
        Probed::Refused { why } => why,
        other => panic!("{other:?} is no refusal"),
    }
}

fn unreachable(probed: &Probed) -> &str {
    match probed {
        Probed::Unreachable { why } => why,
        other => panic!("{other:?} is a verdict about the pair"),
    }
}

const VERSIONS: [(&str, &SupportedProtocolVersion); 2] = [("tlsv1.2", &TLS12), ("tlsv1.3", &TLS13)];

#[tokio::test]
async fn a_good_pair_is_accepted_and_the_broker_is_left_in_order() {
    let world = World::new();
    let broker = Setup::mtls(&world.authority).start();
    assert_eq!(world.probe_good(broker.port()).await, Probed::Accepted);
    eventually(PATIENCE, "the broker sees the DISCONNECT", || {
        broker.log().contains(&format!("Received DISCONNECT from {NAME}"))
    });
}

#[tokio::test]
async fn a_certificate_of_an_unknown_ca_is_refused_in_either_version_of_tls() {
    let world = World::new();
    for (version, _) in VERSIONS {
        let broker = Setup::mtls(&world.authority).line(&format!("tls_version {version}")).start();
        let probed = world.probe(broker.port(), &Authority::new("other").client("core")).await;
        assert!(refused(&probed).contains("UnknownCA"), "{version}: {probed:?}");
        assert_eq!(world.probe_good(broker.port()).await, Probed::Accepted);
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused_in_either_version_of_tls() {
    let world = World::new();
    let mut params = named("core");
    params.not_after = date_time_ymd(2001, 1, 1);
    let pair = world.authority.issue(&params);
    for (version, _) in VERSIONS {
        let broker = Setup::mtls(&world.authority).line(&format!("tls_version {version}")).start();
        let probed = world.probe(broker.port(), &pair).await;
        assert!(refused(&probed).contains("CertificateExpired"), "{version}: {probed:?}");
    }
}

#[tokio::test]
async fn a_client_id_that_is_not_permitted_is_a_refusal() {
    let world = World::new();
    let broker = Setup::mtls(&world.authority).line("clientid_prefixes other").start();
    refused(&world.probe_good(broker.port()).await);
}

#[tokio::test]
async fn the_servers_own_faults_are_no_refusal() {
    let world = World::new();
    let broker = Setup::mtls_between(&world.authority, &Authority::new("other")).start();
    let probed = world.probe_good(broker.port()).await;
    assert!(unreachable(&probed).contains("UnknownIssuer"), "{probed:?}");

    let mut params = named("localhost");
    params.subject_alt_names = support::pki::local_names();
    params.not_after = date_time_ymd(2001, 1, 1);
    let server = world.authority.issue(&params);
    let port = serve(&world.authority, &server, &TLS13, Answer::Connack(0));
    let probed = world.probe_good(port).await;
    let why = unreachable(&probed);
    assert!(why.contains("expired") && why.contains("clock"), "{why}");
}

#[tokio::test]
async fn a_server_that_is_not_there_or_is_no_tls_server_is_unreachable() {
    let world = World::new();
    unreachable(&world.probe_good(support::free_port()).await);
    let nowhere = Target { host: "no-such-host.invalid".to_owned(), ..world.target(8883) };
    let (certificate, key) = world.authority.client("core").write(world.dir.path(), "probe");
    unreachable(&probe(&nowhere, &PairFiles { certificate, key }, NAME).await);
    for answer in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let port = listen(move |mut stream| {
            let mut hello = [0; 1024];
            let _ = stream.read(&mut hello);
            let _ = stream.write_all(answer);
        });
        unreachable(&world.probe_good(port).await);
    }
}

#[tokio::test]
async fn what_the_server_answers_to_connect_is_told_apart_in_either_version_of_tls() {
    let world = World::new();
    for (name, version) in VERSIONS {
        let server = world.authority.server();
        let start = |answer| serve(&world.authority, &server, version, answer);
        let accepted = world.probe_good(start(Answer::Connack(0))).await;
        assert_eq!(accepted, Probed::Accepted, "{name}");
        for code in [2, 4, 5] {
            refused(&world.probe_good(start(Answer::Connack(code))).await);
        }
        for code in [1, 3, 77] {
            unreachable(&world.probe_good(start(Answer::Connack(code))).await);
        }
        let probed = world.probe_good(start(Answer::HangUp)).await;
        assert!(refused(&probed).contains("hangs up before the CONNACK"), "{name}: {probed:?}");
        unreachable(&world.probe_good(start(Answer::Babble)).await);
    }
}

#[tokio::test]
async fn a_server_that_asks_for_no_certificate_proves_nothing() {
    let world = World::new();
    let port = serve_anyone(&world.authority.server());
    let probed = world.probe_good(port).await;
    assert!(unreachable(&probed).contains("asks for no certificate"), "{probed:?}");
}

#[tokio::test]
async fn a_pair_that_cannot_be_loaded_is_refused_and_a_ca_that_cannot_is_not() {
    let world = World::new();
    let target = world.target(1);
    let (certificate, _) = world.authority.client("core").write(world.dir.path(), "one");
    let (_, key) = world.authority.client("core").write(world.dir.path(), "two");
    let pair = PairFiles { certificate, key };
    let probed = probe(&target, &pair, NAME).await;
    assert!(refused(&probed).contains("the pair can't be loaded"), "{probed:?}");
    fs::remove_file(&pair.key).expect("removed");
    refused(&probe(&target, &pair, NAME).await);
    let target = Target { ca: world.dir.path().join("gone.pem"), ..target };
    let probed = probe(&target, &pair, NAME).await;
    assert!(unreachable(&probed).contains("gone.pem"), "{probed:?}");
}

/// What a server says to CONNECT.
#[derive(Clone, Copy)]
enum Answer {
    Connack(u8),
    HangUp,
    Babble,
}

/// A server that wants a certificate of `authority` and gives one answer.
fn serve(
    authority: &Authority,
    server: &Pair,
    version: &'static SupportedProtocolVersion,
    answer: Answer,
) -> u16 {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(authority.certificate().as_bytes()).expect("PEM");
    roots.add(ca).expect("a CA");
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("ring has it")
        .with_client_cert_verifier(verifier.build().expect("a verifier"));
    run(config.with_single_cert(chain(server), key(server)).expect("a pair"), answer)
}

fn serve_anyone(server: &Pair) -> u16 {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_no_client_auth();
    let config = config.with_single_cert(chain(server), key(server)).expect("a pair");
    run(config, Answer::Connack(0))
}

fn chain(pair: &Pair) -> Vec<CertificateDer<'static>> {
    vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("PEM")]
}

fn key(pair: &Pair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM")
}

fn run(config: ServerConfig, answer: Answer) -> u16 {
    let config = Arc::new(config);
    listen(move |mut socket| {
        let mut connection = ServerConnection::new(config).expect("a good configuration");
        let mut stream = Stream::new(&mut connection, &mut socket);
        let mut connect = [0; 256];
        // A client that does not like the server leaves before.
        if stream.read(&mut connect).is_ok_and(|length| length > 0) {
            let answer: &[u8] = match answer {
                Answer::Connack(code) => &[0x20, 2, 0, code],
                Answer::HangUp => &[],
                Answer::Babble => b"220 ready",
            };
            let _ = stream.write_all(answer).and_then(|()| stream.flush());
        }
    })
}

/// Takes one connection.
fn listen(serve: impl FnOnce(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        if let Ok((stream, _)) = listener.accept() {
            serve(stream);
        }
    });
    port
}
