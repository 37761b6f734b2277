//! One connection to the cloud's broker, to see whether it takes a pair; then the pair is let go.
//!
//! MQTT 3.1.1 over mTLS: CONNECT with a clean session, and DISCONNECT as soon as the CONNACK is
//! there. What is told apart (DESIGN §7.3) is whether the cloud *refused the pair*, which only a
//! server can do that has seen it, or could not be asked. Silence and whatever is wrong with the
//! server are no refusal. Publishes nothing, subscribes to nothing, and never tries again by itself.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a driver: it connects, and waits no longer than it may"
)]

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustls::{
    AlertDescription, ClientConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    pki_types::ServerName,
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    identity::Probed,
    install::PairFiles,
    links::tls::{TlsError, TlsFiles},
    wire::escape,
};

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(20);

/// How long the goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// The keep-alive that CONNECT announces, in seconds; the connection lasts no time.
const KEEP_ALIVE: u16 = 60;

/// AWS IoT speaks MQTT on this port too, to who names the protocol in the handshake.
const HTTPS: u16 = 443;
const ALPN: &[u8] = b"x-amzn-mqtt-ca";

/// Whom to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The broker's name or address; its certificate must be for it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The CAs that its certificate may chain to, PEM.
    pub ca: PathBuf,
}

/// Connects once with the pair as it is on disk now. Takes no longer than 20 s.
pub async fn probe(target: &Target, pair: &PairFiles, client_id: &str) -> Probed {
    within(LIMIT, target, pair, client_id).await
}

async fn within(limit: Duration, target: &Target, pair: &PairFiles, client_id: &str) -> Probed {
    match timeout(limit, connect(target, pair, client_id)).await {
        Ok(Ok(stream)) => {
            leave(stream).await;
            Probed::Accepted
        }
        Ok(Err(verdict)) => verdict.named(target),
        Err(_) => {
            Verdict::unreachable(format!("it does not answer within {limit:?}")).named(target)
        }
    }
}

/// Why there is no connection.
enum Verdict {
    Refused(String),
    Unreachable(String),
}

impl Verdict {
    fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }

    fn unreachable(why: impl Into<String>) -> Self {
        Self::Unreachable(why.into())
    }

    fn named(self, Target { host, port, .. }: &Target) -> Probed {
        let name = |why| escape(&format!("{host}:{port}: {why}"));
        match self {
            Self::Refused(why) => Probed::Refused { why: name(why) },
            Self::Unreachable(why) => Probed::Unreachable { why: name(why) },
        }
    }
}

type Stream = TlsStream<TcpStream>;

/// Until the CONNACK that takes us.
async fn connect(target: &Target, pair: &PairFiles, client_id: &str) -> Result<Stream, Verdict> {
    let asked = Arc::new(Asked::default());
    let config = config(target, pair, &asked)?;
    let name = ServerName::try_from(target.host.clone())
        .map_err(|_| Verdict::unreachable("it is no name that a certificate can be for"))?;
    let socket = TcpStream::connect((target.host.as_str(), target.port))
        .await
        .map_err(|why| Verdict::unreachable(why.to_string()))?;
    let stream = TlsConnector::from(config).connect(name, socket).await;
    let mut stream = stream.map_err(|why| judge(&why, asked.is_set(), "in the TLS handshake"))?;
    if !asked.is_set() {
        return Err(Verdict::unreachable("it asks for no certificate, so it is not AWS IoT"));
    }
    introduce(&mut stream, client_id).await?;
    Ok(stream)
}

fn config(
    target: &Target,
    pair: &PairFiles,
    asked: &Arc<Asked>,
) -> Result<Arc<ClientConfig>, Verdict> {
    let PairFiles { certificate, key } = pair.clone();
    let files = TlsFiles { ca: target.ca.clone(), certificate, key };
    let loaded = files.load().map_err(|why| match &why {
        TlsError::Unreadable { path, .. } | TlsError::BadCertificate { path, .. }
            if *path == target.ca =>
        {
            Verdict::unreachable(format!("its CA can't be loaded: {why}"))
        }
        _ => Verdict::refused(format!("the pair can't be loaded: {why}")),
    })?;
    let mut config = ClientConfig::clone(&loaded);
    let pair = config.client_auth_cert_resolver;
    config.client_auth_cert_resolver = Arc::new(Watched { pair, asked: Arc::clone(asked) });
    config.resumption = Resumption::disabled();
    if target.port == HTTPS {
        config.alpn_protocols = vec![ALPN.to_vec()];
    }
    Ok(Arc::new(config))
}

/// Whether the server asked for our certificate. Before it did it can't have refused it.
#[derive(Debug, Default)]
struct Asked(AtomicBool);

impl Asked {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The pair, and a note whenever it is asked for.
#[derive(Debug)]
struct Watched {
    pair: Arc<dyn ResolvesClientCert>,
    asked: Arc<Asked>,
}

impl ResolvesClientCert for Watched {
    fn resolve(&self, hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.0.store(true, Ordering::Relaxed);
        self.pair.resolve(hints, schemes)
    }

    fn has_certs(&self) -> bool {
        self.pair.has_certs()
    }
}

async fn introduce(stream: &mut Stream, client_id: &str) -> Result<(), Verdict> {
    let hello = connect_packet(client_id);
    let hello = hello.ok_or_else(|| Verdict::unreachable("the client id is too long"))?;
    let sent = async {
        stream.write_all(&hello).await?;
        stream.flush().await
    };
    let sent = sent.await;
    // With TLS 1.3 the refusal of a certificate comes only now, and may wait behind a broken write.
    let mut connack = [0; 4];
    let read = stream.read_exact(&mut connack).await.map(drop).and(sent);
    read.map_err(|why| judge(&why, true, "before the CONNACK"))?;
    judge_connack(connack)
}

/// CONNECT of MQTT 3.1.1 with a clean session; `None`: the name is longer than any.
fn connect_packet(client_id: &str) -> Option<Vec<u8>> {
    let length = u16::try_from(client_id.len()).ok()?;
    let mut body = b"\x00\x04MQTT\x04\x02".to_vec();
    body.extend_from_slice(&KEEP_ALIVE.to_be_bytes());
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(client_id.as_bytes());
    let [low, high] = [u8::try_from(body.len() % 128).ok()?, u8::try_from(body.len() / 128).ok()?];
    let header = match high {
        0 => vec![0x10, low],
        1..128 => vec![0x10, low | 0x80, high],
        _ => return None,
    };
    Some([header, body].concat())
}

fn judge_connack(packet: [u8; 4]) -> Result<(), Verdict> {
    let [0x20, 2, _, code] = packet else {
        return Err(Verdict::unreachable("it does not speak MQTT 3.1.1"));
    };
    match code {
        0 => Ok(()),
        1 => Err(Verdict::unreachable("it does not speak MQTT 3.1.1")),
        2 => Err(Verdict::refused("it refuses the client id")),
        3 => Err(Verdict::unreachable("it says that it is not available")),
        4 | 5 => Err(Verdict::refused("it does not authorise this certificate and client id")),
        code => Err(Verdict::unreachable(format!("it answers CONNECT with the unknown {code}"))),
    }
}

/// What a broken connection says. `asked`: the server had asked for our certificate by then.
fn judge(why: &io::Error, asked: bool, when: &str) -> Verdict {
    let tls = why.get_ref().and_then(|why| why.downcast_ref());
    match (tls, why.kind()) {
        (Some(rustls::Error::AlertReceived(alert)), _) if asked && is_about_us(*alert) => {
            Verdict::refused(format!("it refuses the certificate ({alert:?})"))
        }
        (Some(rustls::Error::InvalidCertificate(why)), _) => Verdict::unreachable(format!(
            "its certificate is not good ({why}); look at this device's clock and core.caFile"
        )),
        (Some(why), _) => Verdict::unreachable(why.to_string()),
        (None, kind) if asked && is_hang_up(kind) => {
            Verdict::refused(format!("it hangs up {when}"))
        }
        (None, _) => Verdict::unreachable(why.to_string()),
    }
}

fn is_about_us(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::HandshakeFailure
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
            | Alert::InsufficientSecurity
            | Alert::CertificateRequired
    )
}

fn is_hang_up(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(kind, UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

/// DISCONNECT, so that the broker forgets us at once. It has taken the pair whether it hears it.
async fn leave(mut stream: Stream) {
    let goodbye = async {
        stream.write_all(&[0xe0, 0]).await?;
        stream.shutdown().await
    };
    let _ = timeout(GOODBYE, goodbye).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connect_is_as_the_standard_has_it() {
        let short = connect_packet("a").expect("short");
        assert_eq!(short, b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a");
        let long = connect_packet(&"x".repeat(140)).expect("short");
        assert_eq!(long[..4], [0x10, 0x98, 0x01, 0]);
        assert_eq!(long.len(), 3 + 12 + 140);
        assert_eq!(connect_packet(&"x".repeat(20_000)), None);
        assert_eq!(connect_packet(&"x".repeat(70_000)), None);
    }

    #[test]
    fn only_a_connack_that_is_about_us_is_a_refusal() {
        let refused = |code| matches!(judge_connack([0x20, 2, 0, code]), Err(Verdict::Refused(_)));
        let codes: Vec<u8> = (0..=255).filter(|code| refused(*code)).collect();
        assert_eq!(codes, [2, 4, 5]);
        assert!(judge_connack([0x20, 2, 1, 0]).is_ok());
        assert!(matches!(judge_connack(*b"HTTP"), Err(Verdict::Unreachable(_))));
    }

    #[test]
    fn nothing_is_a_refusal_before_the_server_has_asked_for_the_certificate() {
        let alert = |alert| io::Error::other(rustls::Error::AlertReceived(alert));
        let is_refused =
            |why: &io::Error, asked| matches!(judge(why, asked, ""), Verdict::Refused(_));
        for about_us in [
            alert(AlertDescription::UnknownCA),
            alert(AlertDescription::HandshakeFailure),
            io::ErrorKind::ConnectionReset.into(),
            io::ErrorKind::UnexpectedEof.into(),
        ] {
            assert!(is_refused(&about_us, true), "{about_us}");
            assert!(!is_refused(&about_us, false), "{about_us}");
        }
        for about_others in [
            alert(AlertDescription::InternalError),
            alert(AlertDescription::ProtocolVersion),
            io::ErrorKind::NetworkUnreachable.into(),
            io::ErrorKind::TimedOut.into(),
        ] {
            assert!(!is_refused(&about_others, true), "{about_others}");
        }
    }

    #[tokio::test]
    async fn a_server_that_stays_silent_is_unreachable() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: String| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let key = rcgen::generate_simple_self_signed(["core".to_owned()]).expect("a pair");
        let certificate = write("cert.pem", key.cert.pem());
        let pair = PairFiles {
            certificate: certificate.clone(),
            key: write("key.pem", key.signing_key.serialize_pem()),
        };
        let target = Target { host: "127.0.0.1".to_owned(), port, ca: certificate };
        let probed = within(Duration::from_millis(50), &target, &pair, "core").await;
        assert!(matches!(probed, Probed::Unreachable { why } if why.contains("50ms")));
    }
}
