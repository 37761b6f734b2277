//! The order of the sources, on files and stand-ins for both nuclei.

use std::{fs, time::Duration};

use aws_greengrass_ipc::{AuthToken, Options, State};
use fake_nucleus::{FakeNucleus, Mode, Settings, Upstream};
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::config::CoreFiles;

fn root(tlog: Option<&str>, effective: Option<&str>) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("config");
    fs::create_dir(&config).expect("a folder");
    for (name, text) in [("config.tlog", tlog), ("effectiveConfig.yaml", effective)] {
        if let Some(text) = text {
            fs::write(config.join(name), text).expect("written");
        }
    }
    dir
}

fn tlog(certificate: &str, key: &str) -> String {
    let line = |key: &str, value: &str| {
        format!("{{\"TS\":1,\"TP\":[\"system\",\"{key}\"],\"W\":\"changed\",\"V\":\"{value}\"}}\n")
    };
    line("certificateFilePath", certificate) + &line("privateKeyPath", key)
}

const EFFECTIVE: &str = "system:\n  certificateFilePath: /y/c\n  privateKeyPath: /y/k\n  rootCaPath: /y/ca\nservices:\n  aws.greengrass.Nucleus:\n    configuration:\n      iotDataEndpoint: host.y\n";

async fn found(core: &Core, dir: &TempDir) -> Result<Place, Failure> {
    locate(core, None, None, &[dir.path().to_owned()]).await
}

fn pair(certificate: &str, key: &str) -> PairFiles {
    PairFiles { certificate: certificate.into(), key: key.into() }
}

async fn client(nucleus: &FakeNucleus) -> Client {
    let environment: std::collections::BTreeMap<_, _> = nucleus.environment().into_iter().collect();
    let token = AuthToken::from(environment["SVCUID"].clone());
    let client = Client::spawn(Options::new(&environment[SOCKET], token));
    let mut state = client.state();
    let connected = state.wait_for(|state| matches!(state, State::Connected { .. }));
    timeout(Duration::from_secs(10), connected).await.expect("in time").expect("it runs");
    client
}

#[tokio::test]
async fn the_settings_come_first_and_the_rest_is_looked_for_all_the_same() {
    let dir = root(None, Some(EFFECTIVE));
    let files = CoreFiles { certificate: "/s/c".into(), key: "/s/k".into() };
    let core = Core { files: Some(files), ..Core::default() };
    let place = found(&core, &dir).await.expect("found");
    assert_eq!((place.files, place.source), (pair("/s/c", "/s/k"), Source::Setting));
    assert_eq!((place.ca, place.endpoint), (Some("/y/ca".into()), Some(("host.y".into(), 8883))));
}

#[tokio::test]
async fn the_tlog_comes_before_the_effective_configuration() {
    let dir = root(Some(&tlog("/t/c", "/t/k")), Some(EFFECTIVE));
    let place = found(&Core::default(), &dir).await.expect("found");
    assert_eq!(place.files, pair("/t/c", "/t/k"));
    assert_eq!(place.source, Source::ConfigTlog(dir.path().join("config/config.tlog")));
    assert_eq!(place.ca, Some("/y/ca".into()));
}

#[tokio::test]
async fn empty_values_leave_the_next_source_its_say_and_both_files_come_from_one() {
    let dir = root(Some(&tlog("/t/c", "")), Some(EFFECTIVE));
    let place = found(&Core::default(), &dir).await.expect("found");
    assert_eq!(place.files, pair("/y/c", "/y/k"));
}

#[tokio::test]
async fn a_core_of_a_fleet_with_empty_paths_everywhere_is_told_which_settings_help() {
    let dir = root(Some(&tlog("", "")), Some("system: {certificateFilePath: ''}"));
    let failure = found(&Core::default(), &dir).await.expect_err("nothing");
    assert_eq!(failure.reason, Reason::CredentialUnknown);
    assert!(failure.detail.contains("core.certificateFile"), "{failure}");
}

#[tokio::test]
async fn a_key_in_hardware_is_refused_as_such() {
    let dir = root(Some(&tlog("/t/c", "pkcs11:object=k;type=private")), Some(EFFECTIVE));
    let failure = found(&Core::default(), &dir).await.expect_err("hardware");
    assert_eq!(failure.reason, Reason::HardwareKey);
}

#[test]
fn a_file_that_may_not_be_read_is_named_unless_another_source_knows() {
    let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
    let path = Path::new("/g/config/config.tlog");
    let mut search = Search::new(&Core::default());
    search.hear(Source::ConfigTlog(path.into()), path, Err(denied())).expect("goes on");
    let failure = search.end().expect_err("nothing");
    assert_eq!(failure.reason, Reason::NoPrivilege);
    assert!(failure.detail.contains("/g/config/config.tlog"), "{failure}");

    let mut search = Search::new(&Core::default());
    search.hear(Source::ConfigTlog(path.into()), path, Err(denied())).expect("goes on");
    search.take(&Source::GetSystemConfig, &effective::read(EFFECTIVE)).expect("taken");
    assert!(search.end().is_ok());
}

/// A cloud that is only named.
fn upstream(host: &str, port: u16) -> Upstream {
    let (host, client_id) = (host.to_owned(), "core".to_owned());
    Upstream::Mqtt { host, port, client_id, tls: None }
}

#[tokio::test]
async fn nucleus_lite_is_asked_for_its_paths_and_its_endpoint() {
    let settings = Settings {
        upstream: upstream("host.lite", 8883),
        online: false,
        system: [
            ("certificateFilePath", "/l/c"),
            ("privateKeyPath", "/l/k"),
            ("rootCaPath", "/l/ca"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
        ..Settings::new(Mode::Lite)
    };
    let nucleus = FakeNucleus::start(settings);
    let client = client(&nucleus).await;
    let place = locate(&Core::default(), Some(&client), Some(Nucleus::Lite), &[]).await;
    let want = Place {
        files: pair("/l/c", "/l/k"),
        ca: Some("/l/ca".into()),
        endpoint: Some(("host.lite".to_owned(), 8883)),
        source: Source::GetSystemConfig,
    };
    assert_eq!(place, Ok(want));
}

#[tokio::test]
async fn the_classic_nucleus_is_asked_for_its_endpoint_and_port_and_has_its_files_read() {
    let settings = Settings {
        upstream: upstream("host.classic", 443),
        online: false,
        ..Settings::new(Mode::Java)
    };
    let nucleus = FakeNucleus::start(settings);
    let client = client(&nucleus).await;
    let dir = root(Some(&tlog("/t/c", "/t/k")), Some(EFFECTIVE));
    let roots = [dir.path().to_owned()];
    let place = locate(&Core::default(), Some(&client), Some(Nucleus::Classic), &roots).await;
    let place = place.expect("found");
    assert_eq!(place.files, pair("/t/c", "/t/k"));
    assert_eq!(place.endpoint, Some(("host.classic".to_owned(), 443)));
}

#[tokio::test]
async fn a_nucleus_that_does_not_answer_is_named_among_what_was_tried() {
    let nucleus = FakeNucleus::start(Settings::new(Mode::Lite));
    let client = client(&nucleus).await;
    let failure = locate(&Core::default(), Some(&client), Some(Nucleus::Lite), &[]).await;
    let failure = failure.expect_err("nothing");
    assert_eq!(failure.reason, Reason::CredentialUnknown);
    assert!(failure.detail.contains("certificateFilePath"), "{failure}");
}
