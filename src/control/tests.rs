use std::{
    io::{Read, Write},
    os::unix::net,
};

use tokio::task::spawn_blocking;

use super::*;

/// What a test waits for takes no longer than this.
const DEADLINE: Duration = Duration::from_secs(20);

/// Short, so that a test need not wait long for it to be at an end.
const SHORT: Patience =
    Patience { line: Duration::from_millis(200), answer: Duration::from_millis(200) };

/// Long, so that nothing of it is at an end in a test.
const LONG: Patience = Patience { line: DEADLINE, answer: DEADLINE };

fn in_a_runtime<T>(test: impl AsyncFnOnce(&Path) -> T) -> T {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let within = async { timeout(DEADLINE, test(dir.path())).await.expect("in time") };
    runtime.expect("a runtime").block_on(within)
}

/// As [`listen`].
fn listen_with(dir: &Path, patience: Patience) -> mpsc::Receiver<Asked> {
    let (asked, commands) = mpsc::channel(AT_ONCE);
    tokio::spawn(accept(bind(dir).expect("listens"), asked, patience));
    commands
}

async fn asked_from_elsewhere(dir: &Path, command: Command) -> Result<Answer, ControlError> {
    let dir = dir.to_owned();
    spawn_blocking(move || ask(&dir, command)).await.expect("no panic")
}

/// Answers every command by its word.
fn echo(mut commands: mpsc::Receiver<Asked>) {
    tokio::spawn(async move {
        while let Some(Asked { command, answer }) = commands.recv().await {
            let ok = command != Command::Detach;
            // A client may have gone.
            let _ = answer.send(Answer { ok, text: command.as_str().to_owned() });
        }
    });
}

async fn is_heard(dir: &Path) {
    let answer = asked_from_elsewhere(dir, Command::Show).await;
    assert_eq!(answer.expect("an answer"), Answer::done("show"));
}

/// What comes back for these bytes.
async fn reply_to(dir: &Path, bytes: &'static [u8]) -> String {
    let socket = dir.join(SOCKET);
    let talk = move || {
        let mut stream = net::UnixStream::connect(socket).expect("connects");
        // The other side may have heard enough before it has heard all.
        let _ = stream.write_all(bytes);
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        String::from_utf8(reply).expect("text")
    };
    spawn_blocking(talk).await.expect("no panic")
}

#[test]
fn every_command_reaches_the_gateway_and_its_answer_comes_back() {
    in_a_runtime(async |dir| {
        echo(listen(dir).expect("listens"));
        for command in Command::ALL {
            let answer = asked_from_elsewhere(dir, command).await.expect("an answer");
            let ok = command != Command::Detach;
            assert_eq!(answer, Answer { ok, text: command.as_str().to_owned() });
        }
    });
}

#[test]
fn only_the_owner_may_use_the_socket_and_a_leftover_is_replaced() {
    in_a_runtime(async |dir| {
        for name in [SOCKET, DRAFT] {
            drop(net::UnixListener::bind(dir.join(name)).expect("binds"));
        }
        echo(listen(dir).expect("listens"));
        is_heard(dir).await;
        let mode = fs::metadata(dir.join(SOCKET)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!dir.join(DRAFT).exists());
    });
}

#[test]
fn where_no_gateway_runs_that_is_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let gone = dir.path().join("gone");
    for dir in [dir.path(), &gone] {
        assert!(matches!(ask(dir, Command::Show), Err(ControlError::NotRunning { .. })));
    }
    drop(net::UnixListener::bind(dir.path().join(SOCKET)).expect("binds"));
    let error = ask(dir.path(), Command::Show).expect_err("a leftover");
    assert!(matches!(error, ControlError::NotRunning { .. }), "{error}");
}

#[test]
fn a_path_that_is_too_long_is_said_to_be_on_both_sides() {
    in_a_runtime(async |dir| {
        let deep = dir.join("d".repeat(MAX_PATH));
        fs::create_dir(&deep).expect("made");
        let error = listen(&deep).expect_err("too long");
        assert!(error.to_string().contains("is longer than 107 bytes"), "{error}");
        let error = ask(&deep, Command::Show).expect_err("too long");
        assert!(matches!(error, ControlError::PathTooLong { .. }), "{error}");
    });
}

#[test]
fn the_longest_path_that_is_not_too_long_works() {
    in_a_runtime(async |dir| {
        let rest = MAX_PATH - SOCKET.len() - 2 - dir.as_os_str().len();
        let deep = dir.join("d".repeat(rest));
        fs::create_dir(&deep).expect("made");
        echo(listen(&deep).expect("listens"));
        is_heard(&deep).await;
    });
}

#[test]
fn nonsense_is_let_go_of_and_others_are_heard() {
    in_a_runtime(async |dir| {
        echo(listen_with(dir, SHORT));
        let unknown = "{\"ok\":false,\"text\":\"there is no such command: use the gateway's own \
                       program\"}";
        for (bytes, reply) in [
            (&b"fly\n"[..], unknown),
            (b"\n", unknown),
            (b"show \n", unknown),
            (b"show\r\n", unknown),
            (b"\xff\xfe\n", ""),
            (b"show", ""),
            (&[b'x'; MAX_LINE], ""),
            (&[b'\n'; 4096], unknown),
            (&[0; 100_000], ""),
        ] {
            let got = reply_to(dir, bytes).await;
            assert!(got == reply || bytes.len() > MAX_LINE, "{bytes:?}: {got}");
        }
        is_heard(dir).await;
    });
}

#[test]
fn clients_that_say_nothing_do_not_keep_others_out_for_long() {
    in_a_runtime(async |dir| {
        echo(listen_with(dir, SHORT));
        let connect = || net::UnixStream::connect(dir.join(SOCKET)).expect("connects");
        let silent: Vec<_> = (0..3 * AT_ONCE).map(|_| connect()).collect();
        is_heard(dir).await;
        drop(silent);
    });
}

#[test]
fn clients_that_hang_up_leave_their_places_to_others() {
    in_a_runtime(async |dir| {
        let mut commands = listen_with(dir, LONG);
        let mut waiting = Vec::new();
        for _ in 0..3 * AT_ONCE {
            let mut stream = net::UnixStream::connect(dir.join(SOCKET)).expect("connects");
            stream.write_all(b"rotate\n").expect("written");
            waiting.push(commands.recv().await.expect("heard"));
        }
        echo(commands);
        is_heard(dir).await;
    });
}

#[test]
fn no_more_than_four_are_heard_at_once_and_the_next_when_one_is_done() {
    in_a_runtime(async |dir| {
        let mut commands = listen_with(dir, LONG);
        let mut clients = Vec::new();
        for _ in 0..AT_ONCE + 1 {
            let mut stream = net::UnixStream::connect(dir.join(SOCKET)).expect("connects");
            stream.write_all(b"show\n").expect("written");
            clients.push(stream);
        }
        let mut waiting = Vec::new();
        for _ in 0..AT_ONCE {
            waiting.push(commands.recv().await.expect("heard"));
        }
        let early = timeout(Duration::from_millis(100), commands.recv()).await;
        assert!(early.is_err(), "a fifth is heard");
        let first = waiting.remove(0);
        first.answer.send(Answer::done("")).expect("still there");
        commands.recv().await.expect("heard, at last");
    });
}

#[test]
fn a_gateway_that_gives_no_answer_is_reported() {
    in_a_runtime(async |dir| {
        let mut commands = listen_with(dir, SHORT);
        let asked = asked_from_elsewhere(dir, Command::Rotate);
        let (answer, kept) = tokio::join!(asked, commands.recv());
        let answer = answer.expect("an answer");
        assert!(!answer.ok && answer.text.starts_with("the gateway is busy"), "{answer:?}");

        let ending = async { drop(commands.recv().await) };
        let (answer, ()) = tokio::join!(asked_from_elsewhere(dir, Command::Rotate), ending);
        assert_eq!(answer.expect("an answer"), Answer::refused("the gateway is ending"));
        drop(kept);
    });
}

#[test]
fn when_the_receiver_is_dropped_nobody_listens() {
    in_a_runtime(async |dir| {
        let commands = listen(dir).expect("listens");
        let waits = asked_from_elsewhere(dir, Command::Show);
        let (answer, ()) = tokio::join!(waits, async { drop(commands) });
        assert!(!answer.is_ok_and(|answer| answer.ok));
        while !matches!(
            asked_from_elsewhere(dir, Command::Show).await,
            Err(ControlError::NotRunning { .. })
        ) {}
    });
}

#[test]
fn a_long_answer_is_cut_off_between_two_characters() {
    in_a_runtime(async |dir| {
        let mut commands = listen(dir).expect("listens");
        let long = "x".to_owned() + &"é\u{1}".repeat(MAX_TEXT);
        let answering = async {
            let asked = commands.recv().await.expect("heard");
            asked.answer.send(Answer::done(long.clone())).expect("still there");
        };
        let (answer, ()) = tokio::join!(asked_from_elsewhere(dir, Command::Show), answering);
        let text = answer.expect("an answer").text;
        assert!((MAX_TEXT - 3..=MAX_TEXT).contains(&text.len()), "{}", text.len());
        assert!(long.starts_with(&text));
    });
}

/// What a client makes of something that answers with these bytes.
fn answered_with(bytes: &'static [u8]) -> Result<Answer, ControlError> {
    let dir = tempfile::tempdir().expect("a directory");
    let listener = net::UnixListener::bind(dir.path().join(SOCKET)).expect("binds");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut line = [0; 5];
        stream.read_exact(&mut line).expect("a line");
        // The client may have heard enough.
        let _ = stream.write_all(bytes);
    });
    let answer = ask(dir.path(), Command::Show);
    server.join().expect("no panic");
    answer
}

#[test]
fn what_is_no_answer_is_told_apart() {
    let answer = answered_with(b"{\"ok\":true,\"text\":\"t\"}");
    assert_eq!(answer.expect("an answer"), Answer::done("t"));
    assert!(matches!(answered_with(b""), Err(ControlError::HungUp)));
    for junk in [&b"{\"ok\":true,\"te"[..], b"junk", b"\xff", &[b' '; 200_000]] {
        assert!(matches!(answered_with(junk), Err(ControlError::Malformed)));
    }
}

#[test]
fn a_gateway_that_hangs_does_not_hang_the_client() {
    let dir = tempfile::tempdir().expect("a directory");
    let _listener = net::UnixListener::bind(dir.path().join(SOCKET)).expect("binds");
    let answer = ask_within(dir.path(), Command::Show, Duration::from_millis(100));
    assert!(matches!(answer, Err(ControlError::NoAnswer)));
}

#[test]
fn every_command_has_a_word_of_its_own_that_reads_back() {
    for command in Command::ALL {
        assert_eq!(command.as_str().parse(), Ok(command));
    }
    assert_eq!("Show".parse::<Command>(), Err(UnknownCommand));
}
