//! A test in a process of its own.
//!
//! A program that is being started has copies of all its parent's descriptors for a moment: the room
//! of a removed file is not free until then, and its disk is busy. What a test needs to be sure of
//! such things must not share a process with tests that start programs.

use std::{
    env,
    process::{Command, Stdio},
};

/// Set in the process that runs one test alone.
const ALONE: &str = "CERTRELAY_TEST_ALONE";

/// Whether this process runs this test alone. If not, one that does has, and it passed.
pub fn is_alone(test: &str) -> bool {
    if env::var_os(ALONE).is_some() {
        return true;
    }
    let mut alone = Command::new(env::current_exe().expect("this program"));
    alone.args(["--exact", test, "--nocapture"]).env(ALONE, "1").stderr(Stdio::inherit());
    let output = alone.output().expect("runs");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success() && said.contains("1 passed"), "{test}: {}", output.status);
    false
}
