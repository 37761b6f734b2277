//! The process itself: how it starts, ends, and starts again.

use std::{io::Read, path::Path, time::Duration};

use fake_nucleus::{FakeNucleus, Mode, Settings, Token};
use serde_json::json;

use crate::client::{Client, DEADLINE, socket, variable};

fn path(nucleus: &FakeNucleus) -> String {
    variable(nucleus, "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT")
}

#[test]
fn the_classic_one_takes_its_socket_with_it() {
    let mut nucleus = FakeNucleus::start(Settings::new(Mode::Java));
    let mut client = Client::connect(&nucleus);
    nucleus.stop();
    assert!(client.is_closed());
    assert!(!Path::new(&path(&nucleus)).exists());
    assert!(socket(&nucleus).is_err());
    nucleus.restart(Token::Same);
    Client::connect(&nucleus).settle();
}

#[test]
fn the_socket_of_lite_stays_and_whoever_connects_waits() {
    let mut nucleus = FakeNucleus::start(Settings::new(Mode::Lite));
    let mut client = Client::connect(&nucleus);
    nucleus.stop();
    assert!(client.is_closed());
    let mut waiting = socket(&nucleus).expect("a socket that systemd holds");
    waiting.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(waiting.read(&mut [0]).is_err());
    nucleus.restart(Token::Same);
    Client::connect(&nucleus).settle();
}

#[test]
fn a_token_holds_over_a_restart_or_is_replaced() {
    for mode in [Mode::Java, Mode::Lite] {
        let mut nucleus = FakeNucleus::start(Settings::new(mode));
        let old = variable(&nucleus, "SVCUID");
        nucleus.restart(Token::Same);
        assert_eq!(variable(&nucleus, "SVCUID"), old);
        nucleus.restart(Token::New);
        assert_ne!(variable(&nucleus, "SVCUID"), old);
        Client::connect(&nucleus).settle();
        let mut client = Client::silent(&nucleus);
        let answer = client.shake_hands(&old);
        assert_eq!(answer.map(|ack| ack.flags), (mode == Mode::Java).then_some(0));
    }
}

#[test]
fn a_restart_forgets_what_was_pending_and_keeps_the_configuration() {
    let mut nucleus = FakeNucleus::start(Settings::new(Mode::Java));
    let mut client = Client::connect(&nucleus);
    let stream = client.ask("SubscribeToComponentUpdates", &json!({}));
    client.next_on(stream).answer().expect("a yes");
    let pending = nucleus.announce_update("d", true);
    assert!(nucleus.deploy(json!({"a": 1})).wait(DEADLINE).is_some());
    nucleus.restart(Token::Same);
    assert_eq!(pending.wait(DEADLINE), None);
    let mut client = Client::connect(&nucleus);
    let whole = client.call("GetConfiguration", &json!({"keyPath": []})).unwrap();
    assert_eq!(whole["value"], json!({"a": 1}));
}

#[test]
fn nothing_is_left_of_one_that_was_dropped() {
    let nucleus = FakeNucleus::start(Settings::new(Mode::Lite));
    let (path, mut client) = (path(&nucleus), Client::connect(&nucleus));
    drop(nucleus);
    assert!(client.is_closed());
    assert!(!Path::new(&path).exists());
}

#[test]
fn a_pending_answer_can_be_awaited_on_any_runtime() {
    let nucleus = FakeNucleus::start(Settings::new(Mode::Java));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let verdict = runtime.block_on(async { nucleus.deploy(json!({"a": 1})).await });
    assert!(verdict.is_some());
}
