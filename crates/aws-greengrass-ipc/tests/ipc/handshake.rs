//! Reaching a nucleus, and being let in or not.

use std::{io::ErrorKind, time::Duration};

use aws_greengrass_ipc::{Client, ConnectError, Nucleus, State, Step};

use crate::peer::{JSON, Peer, error, frame, until, until_connected};

/// Waits for a failure; how many rejections there were by then.
async fn rejections(client: &Client, expected: &ConnectError) -> u32 {
    let is = |state: &State| matches!(state, State::Connecting { why, .. } if why.as_ref() == Some(expected));
    match until(&mut client.state(), is).await {
        State::Connecting { rejections, .. } => rejections,
        State::Connected { .. } => unreachable!("it is not connected"),
    }
}

#[tokio::test]
async fn each_nucleus_is_recognised_by_how_it_takes_a_question_of_the_other() {
    let (_peer, _client, _conn) = Peer::client(Nucleus::Classic).await;
    let (_peer, _client, _conn) = Peer::client(Nucleus::Lite).await;
    for (nucleus, code) in [
        (Nucleus::Lite, "ServiceError"),
        (Nucleus::Lite, "UnauthorizedError"),
        (Nucleus::Classic, "UnauthorizedError"),
    ] {
        let peer = Peer::new();
        let client = Client::spawn(peer.options());
        let mut conn = peer.accept().await;
        conn.accept_token().await;
        let question = conn.request("GetSystemConfig").await;
        conn.send(&error(nucleus, question.stream, code, "")).await;
        assert_eq!(until_connected(&client, 1).await, nucleus);
    }
}

#[tokio::test]
async fn a_rejected_token_is_counted_in_a_row_and_an_accepted_one_starts_anew() {
    let peer = Peer::new();
    let client = Client::spawn(peer.options());
    assert_eq!(*client.state().borrow(), State::Connecting { rejections: 0, why: None });

    let mut classic = peer.accept().await;
    classic.read().await;
    classic.send(&frame([5, 0, 0], &[], "")).await;
    assert_eq!(rejections(&client, &ConnectError::Rejected).await, 1);

    let mut lite = peer.accept().await;
    lite.read().await;
    drop(lite);
    let is_second = |state: &State| matches!(state, State::Connecting { rejections: 2, .. });
    until(&mut client.state(), is_second).await;

    let mut broken = peer.accept().await;
    broken.read().await;
    broken.send(&frame([6, 0, 0], &[JSON], r#"{"message":"go\naway"}"#)).await;
    let aborted = ConnectError::Aborted("go\\naway".to_owned());
    assert_eq!(rejections(&client, &aborted).await, 2, "other failures don't count");

    let mut accepted = peer.accept().await;
    accepted.accept_token().await;
    accepted.request("GetSystemConfig").await;
    drop(accepted);
    assert_eq!(rejections(&client, &ConnectError::Closed).await, 0);
    let _conn = peer.greet(Nucleus::Lite).await;
    until_connected(&client, 1).await;
}

#[tokio::test]
async fn without_a_socket_the_client_tries_until_there_is_one() {
    let peer = Peer::new();
    let mut options = peer.options();
    let socket = options.socket.with_file_name("later");
    options.socket.clone_from(&socket);
    let client = Client::spawn(options);
    let absent = ConnectError::Io { step: Step::Connect, kind: ErrorKind::NotFound };
    assert_eq!(rejections(&client, &absent).await, 0);
    std::fs::rename(socket.with_file_name("socket"), socket).expect("the socket moves");
    let _conn = peer.greet(Nucleus::Classic).await;
    until_connected(&client, 1).await;
}

#[tokio::test]
async fn a_nucleus_that_says_nothing_is_given_up_at_each_step() {
    let peer = Peer::new();
    let mut options = peer.options();
    options.timeouts.handshake = Duration::from_millis(50);
    let client = Client::spawn(options);
    let _silent = peer.accept().await;
    rejections(&client, &ConnectError::TimedOut(Step::Handshake)).await;
    let mut silent = peer.accept().await;
    silent.accept_token().await;
    rejections(&client, &ConnectError::TimedOut(Step::Recognition)).await;
}

#[tokio::test]
async fn what_is_no_handshake_is_an_error_of_the_protocol() {
    for bytes in [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        frame([2, 0, 0], &[], ""),
        frame([0, 0, 1], &[JSON], "{}"),
        frame([9, 0, 0], &[], ""),
    ] {
        let peer = Peer::new();
        let client = Client::spawn(peer.options());
        let mut conn = peer.accept().await;
        conn.read().await;
        conn.send(&bytes).await;
        let is_protocol = |state: &State| {
            matches!(state, State::Connecting { why: Some(ConnectError::Protocol(_)), .. })
        };
        until(&mut client.state(), is_protocol).await;
        assert!(conn.next().await.is_none(), "the client hangs up");
    }
}

#[tokio::test]
async fn what_comes_right_behind_the_acceptance_is_not_lost() {
    let peer = Peer::new();
    let _client = Client::spawn(peer.options());
    let mut conn = peer.accept().await;
    conn.read().await;
    let (ack, ping) = (frame([5, 1, 0], &[("svcuid", "x")], ""), frame([2, 0, 0], &[], "ping"));
    // In pieces, too: a frame may come in any.
    conn.send(&ack[..20]).await;
    conn.send(&[&ack[20..], &ping[..]].concat()).await;
    let mut first = conn.read().await;
    if first.kind == 0 {
        first = conn.read().await;
    }
    assert_eq!((first.kind, &first.payload[..]), (3, &b"ping"[..]));
}
