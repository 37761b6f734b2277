//! AWS's own client, in Python, takes the stand-in for a nucleus. Without this the rest proves
//! nothing: a stand-in and a client of one mind could be wrong together.

use std::process::Command;

use serde_json::json;

/// Python with the SDK in it; `make` sets it.
const PYTHON: &str = "AWSIOTSDK_PYTHON";

#[test]
#[ignore = "needs the official SDK: make test installs it and runs this"]
fn the_official_client_takes_the_classic_one_for_a_nucleus() {
    check("java");
}

#[test]
#[ignore = "needs the official SDK: make test installs it and runs this"]
fn the_official_client_takes_the_lite_one_for_a_nucleus() {
    check("lite");
}

fn check(mode: &str) {
    let python = std::env::var(PYTHON).unwrap_or_else(|_| {
        panic!("{PYTHON} must name a Python with awsiotsdk: run `make test`, which installs it")
    });
    let folder = tempfile::tempdir().unwrap();
    let configuration = folder.path().join("configuration.json");
    let value = json!({"deep": {"number": 42, "text": "t"}});
    std::fs::write(&configuration, value.to_string()).unwrap();
    let output = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nucleus/official.py"))
        .args([env!("CARGO_BIN_EXE_fake-nucleus"), mode])
        .arg(&configuration)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    print!("{}", text(&output.stdout));
}
