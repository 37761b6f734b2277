//! A moto server of the test's own, with what the template would have made.

use std::{
    collections::BTreeMap,
    io::Write,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use aws_config::Region;
use aws_credential_types::Credentials;
use certrelay::{
    keys::{KeyKind, PrivateKey},
    schedule::Timestamp,
    wire::CertificateId,
};
use certrelay_cloud::{
    aws::{Aws, Config, sdk},
    decide::issue::csr_pem,
    memory::{Authority, Ca},
};
use serde::Deserialize;

/// Starts moto's server with one thread. With its usual many, of two conditional writes of DynamoDB at
/// once both may succeed: between the check and the write it holds no lock.
const SERVER: &str = "
import sys, moto.server as server
run = server.run_simple
server.run_simple = lambda *args, **named: run(*args, **{**named, 'threaded': False})
server.main(['-H', '127.0.0.1', '-p', sys.argv[1]])
";

/// How long it may take to start: Python has much to import.
const START: Duration = Duration::from_secs(60);

pub struct Moto {
    server: Child,
    url: String,
    made: Made,
    ids: Mutex<BTreeMap<String, CertificateId>>,
    sdk: aws_config::SdkConfig,
}

#[derive(Deserialize)]
struct Made {
    queues: BTreeMap<String, String>,
    topic: String,
    ca: String,
    ids: BTreeMap<String, CertificateId>,
}

impl Moto {
    pub fn start() -> Self {
        let python = python();
        let port =
            TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its").port();
        let url = format!("http://127.0.0.1:{port}");
        let server = Command::new(&python)
            .args(["-c", SERVER, &port.to_string()])
            .env("MOTO_RECORDER_FILEPATH", recording())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Python");
        let deadline = Instant::now() + START;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "moto does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        let made = set_up(&python, &url);
        let runtime = tokio::runtime::Handle::current();
        let loader = sdk()
            .endpoint_url(&url)
            .region(Region::new("eu-west-1"))
            .credentials_provider(Credentials::for_tests());
        let sdk = tokio::task::block_in_place(|| runtime.block_on(loader.load()));
        let moto = Self { server, url, ids: Mutex::new(made.ids.clone()), made, sdk };
        moto.http("POST", "/moto-api/recorder/start-recording");
        moto
    }

    /// What the program's environment would say.
    fn variable(&self, name: &str) -> Option<String> {
        let queue = |name| self.made.queues.get(name).cloned();
        Some(match name {
            "AWS_REGION" => "eu-west-1".to_owned(),
            "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => "test".to_owned(),
            "AWS_ENDPOINT_URL" => self.url.clone(),
            "CERTRELAY_ACCOUNT" => "123456789012".to_owned(),
            "CERTRELAY_TABLE" => "records".to_owned(),
            "CERTRELAY_QUEUE_AUDIT" => queue("audit")?,
            "CERTRELAY_QUEUE_ROTATE" => queue("rotate")?,
            "CERTRELAY_QUEUE_DUE" => queue("due")?,
            "CERTRELAY_SUPPORT_TOPIC" => self.made.topic.clone(),
            "CERTRELAY_ASSOCIATION" => "table:cores".to_owned(),
            "CERTRELAY_ISSUER" => self.made.ca.clone(),
            "CERTRELAY_PCA_SIGNING_ALGORITHM" => "SHA256WITHRSA".to_owned(),
            "CERTRELAY_TPS" => "1000".to_owned(),
            _ => return None,
        })
    }

    pub fn aws(&self) -> Aws {
        let config = Config::read(|name| self.variable(name)).expect("it is whole");
        Aws::over(config, &self.sdk)
    }

    /// AWS at another address, which has AWS IoT and Greengrass alone; associations are Greengrass'.
    pub async fn aws_at(&self, url: &str) -> Aws {
        let config = Config::read(|name| match name {
            "CERTRELAY_ASSOCIATION" | "CERTRELAY_ISSUER" => None,
            name => self.variable(name),
        });
        let loader = sdk()
            .endpoint_url(url)
            .region(Region::new("eu-west-1"))
            .credentials_provider(Credentials::for_tests());
        Aws::over(config.expect("it is whole"), &loader.load().await)
    }

    /// Has boto3 compare moto with the fake at this address.
    pub fn check(&self, fake: &str, given: &serde_json::Value) {
        let file = written("check", given);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/aws/boto3_check.py");
        let arguments = [script, &self.url, fake, &file];
        let output = Command::new(python()).args(arguments).output().expect("Python");
        let _ = std::fs::remove_file(&file);
        println!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The certificate of a thing.
    pub fn id(&self, thing: &str) -> CertificateId {
        self.ids.lock().expect("whole")[thing]
    }

    pub fn set_id(&self, thing: &str, id: CertificateId) {
        self.ids.lock().expect("whole").insert(thing.to_owned(), id);
    }

    /// Takes a message out of a queue.
    pub async fn receive(&self, queue: &str) -> Option<String> {
        let client = aws_sdk_sqs::Client::new(&self.sdk);
        let url = &self.made.queues[queue];
        let answer = client.receive_message().queue_url(url).send().await.expect("an answer");
        let message = answer.messages?.into_iter().next()?;
        let handle = message.receipt_handle.expect("a handle");
        let deleted = client.delete_message().queue_url(url).receipt_handle(handle).send().await;
        deleted.expect("deleted");
        message.body
    }

    /// The topics that were published to, in order, as moto's recorder has seen it.
    pub fn published(&self) -> Vec<String> {
        let recording = self.http("GET", "/moto-api/recorder/download-recording");
        let lines = recording.lines().filter_map(|line| serde_json::from_str(line).ok());
        let urls = lines.filter_map(|line: serde_json::Value| {
            line["url"].as_str().map(|url| url.replace("%2F", "/"))
        });
        let topics = urls.filter_map(|url| {
            let (_, topic) = url.split_once("/topics/")?;
            Some(topic.split('?').next()?.to_owned())
        });
        topics.collect()
    }

    /// What the template would set for the program.
    pub fn environment(&self) -> impl Iterator<Item = (&'static str, String)> {
        const VARIABLES: [&str; 15] = [
            "AWS_REGION",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_ENDPOINT_URL",
            "CERTRELAY_ACCOUNT",
            "CERTRELAY_TABLE",
            "CERTRELAY_QUEUE_AUDIT",
            "CERTRELAY_QUEUE_ROTATE",
            "CERTRELAY_QUEUE_DUE",
            "CERTRELAY_SUPPORT_TOPIC",
            "CERTRELAY_ASSOCIATION",
            "CERTRELAY_ISSUER",
            "CERTRELAY_PCA_SIGNING_ALGORITHM",
            "CERTRELAY_TPS",
            "CERTRELAY_PARTITION",
        ];
        VARIABLES.iter().filter_map(|name| Some((*name, self.variable(name)?)))
    }

    /// Runs the program for one message; what it says.
    pub fn run(&self, function: &str, message: &str) -> String {
        let mut program = Command::new(env!("CARGO_BIN_EXE_certrelay-cloud"))
            .args(["run", function])
            .envs(self.environment())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program");
        let mut stdin = program.stdin.take().expect("piped");
        stdin.write_all(message.as_bytes()).expect("read");
        drop(stdin);
        let output = program.wait_with_output().expect("it ends");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    fn http(&self, method: &str, path: &str) -> String {
        let address = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).expect("moto");
        let request =
            format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        std::io::read_to_string(stream).expect("an answer")
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = std::fs::remove_file(recording());
    }
}

/// Where moto records what it is asked.
fn recording() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("certrelay-moto-{}.recording", std::process::id()))
}

fn python() -> String {
    std::env::var("MOTO_PYTHON").expect("MOTO_PYTHON is set: use make test-aws")
}

/// Something for a script, in a file of its own.
fn written(name: &str, value: &serde_json::Value) -> String {
    let file = format!("certrelay-{name}-{}.json", std::process::id());
    let file = std::env::temp_dir().join(file);
    std::fs::write(&file, value.to_string()).expect("written");
    file.to_str().expect("a plain path").to_owned()
}

fn set_up(python: &str, url: &str) -> Made {
    let mut authority = Authority::new("devices").expect("a CA");
    let now = Timestamp::from_unix_seconds(1_790_000_000);
    let mut certificates = BTreeMap::new();
    for name in ["press-1", "core-1"] {
        let key = PrivateKey::generate(KeyKind::P256).expect("a key");
        let csr = csr_pem(&key.csr(&name.parse().expect("a name")).expect("a CSR"));
        let year = Duration::from_secs(365 * 86_400);
        certificates.insert(name, authority.sign(&csr, now, year).expect("signed"));
    }
    let file = written("moto", &serde_json::json!(certificates));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/aws/setup.py");
    let output = Command::new(python).arg(script).arg(url).arg(&file).output().expect("Python");
    let _ = std::fs::remove_file(&file);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("what it made")
}
