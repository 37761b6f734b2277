//! `build.sh`, with a Rust toolchain that takes no time.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    recipe::{NAME, RECIPE, recipe},
    yaml,
};

const SCRIPT: &str = include_str!("../../build.sh");

/// A checkout with a toolchain for one host.
struct Checkout {
    dir: TempDir,
}

impl Checkout {
    /// `targets` are the targets that the toolchain has beside its host's.
    fn new(host: &str, targets: &[&str]) -> Self {
        let checkout = Self { dir: tempfile::tempdir().expect("a directory") };
        checkout.file("build.sh", SCRIPT);
        checkout.file("recipe.yaml", RECIPE);
        let libs = checkout.path("libs");
        for target in targets {
            fs::create_dir_all(libs.join(target)).expect("a directory");
        }
        checkout.tool(
            "rustc",
            &format!("[ $1 = -vV ] && echo 'host: {host}' || echo '{}'/\"$4\"", libs.display()),
        );
        // cargo build --release --locked --bin certrelay --target TARGET
        checkout.tool(
            "cargo",
            "mkdir -p target/$7/release && echo \"for $7\" >target/$7/release/certrelay",
        );
        checkout
    }

    fn with_musl_gcc(self) -> Self {
        self.tool("musl-gcc", "");
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    fn tool(&self, name: &str, line: &str) {
        fs::create_dir_all(self.path("bin")).expect("a directory");
        let name = format!("bin/{name}");
        self.file(&name, &format!("#!/bin/sh\n{line}\n"));
        fs::set_permissions(self.path(&name), fs::Permissions::from_mode(0o755)).expect("a mode");
    }

    /// Only these tools, and those that every Linux has: what is installed here does not count.
    fn build(&self) -> Output {
        for tool in ["awk", "cp", "dirname", "grep", "install", "mkdir", "rm", "sed"] {
            let found = ["/usr/bin", "/bin"].map(|dir| Path::new(dir).join(tool));
            let found = found.iter().find(|path| path.exists());
            self.tool(tool, &format!("exec {} \"$@\"", found.expect("a tool").display()));
        }
        let mut command = Command::new("/bin/bash");
        command.arg(self.path("build.sh")).env_clear().env("PATH", self.path("bin"));
        command.output().expect("bash runs")
    }

    fn built(&self) -> Value {
        let done = self.build();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let text = fs::read_to_string(self.path("greengrass-build/recipes/recipe.yaml"));
        yaml::read(&text.expect("a recipe"))
    }

    fn program(&self, name: &str) -> PathBuf {
        let version = recipe()["ComponentVersion"].take();
        let version = version.as_str().expect("a version");
        self.path(&format!("greengrass-build/artifacts/{NAME}/{version}/{name}"))
    }
}

fn uris(recipe: &Value) -> Vec<&str> {
    let manifests = recipe["Manifests"].as_array().expect("manifests").iter();
    let artifacts = manifests.flat_map(|found| found["Artifacts"].as_array().expect("a list"));
    artifacts.map(|artifact| artifact["Uri"].as_str().expect("a text")).collect()
}

#[test]
fn a_build_yields_the_manifest_of_its_architecture_and_the_program_that_this_names() {
    for (index, arch) in ["x86_64", "aarch64"].into_iter().enumerate() {
        let checkout = Checkout::new(&format!("{arch}-unknown-linux-gnu"), &[]);
        let built = checkout.built();
        let mut expected = recipe();
        expected["Manifests"] = Value::Array(vec![expected["Manifests"][index].take()]);
        assert_eq!(built, expected);
        let name = uris(&built)[0].rsplit('/').next().expect("a name");
        let mode = fs::metadata(checkout.program(name)).expect("a program").permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "a local deployment keeps the mode");
    }
}

#[test]
fn a_build_leaves_the_recipe_under_the_name_that_lite_wants_too() {
    let checkout = Checkout::new("x86_64-unknown-linux-gnu", &[]);
    checkout.built();
    let read = |name: &str| {
        let path = checkout.path("greengrass-build/recipes").join(name);
        fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
    };
    let version = recipe()["ComponentVersion"].take();
    let named = format!("{NAME}-{}.yaml", version.as_str().expect("a version"));
    assert_eq!(read(&named), read("recipe.yaml"));
}

#[test]
fn a_build_is_static_where_the_machine_has_all_that_it_takes_and_says_so_where_not() {
    const MUSL: &[&str] = &["x86_64-unknown-linux-musl"];
    let new = |targets| Checkout::new("x86_64-unknown-linux-gnu", targets);
    for (checkout, target) in [
        (new(MUSL).with_musl_gcc(), "x86_64-unknown-linux-musl"),
        (new(&[]).with_musl_gcc(), "x86_64-unknown-linux-gnu"),
        (new(MUSL), "x86_64-unknown-linux-gnu"),
    ] {
        let said = checkout.build().stderr;
        let program = fs::read_to_string(checkout.program("certrelay-x86_64"));
        assert_eq!(program.expect("a program"), format!("for {target}\n"));
        let said = String::from_utf8(said).expect("text");
        assert_eq!(said.contains("rustup target add"), target.ends_with("gnu"), "{said}");
    }
}

#[test]
fn what_an_earlier_build_left_does_not_get_into_a_deployment() {
    let checkout = Checkout::new("x86_64-unknown-linux-gnu", &[]);
    checkout.built();
    checkout.file("greengrass-build/recipes/old.yaml", "");
    checkout.built();
    assert!(!checkout.path("greengrass-build/recipes/old.yaml").exists());
}

#[test]
fn a_build_that_made_no_program_fails() {
    let checkout = Checkout::new("x86_64-unknown-linux-gnu", &[]);
    checkout.tool("cargo", "");
    assert!(!checkout.build().status.success());
}

#[test]
fn a_build_on_a_machine_without_a_manifest_fails_and_says_why() {
    for host in ["riscv64gc-unknown-linux-gnu", "aarch64-apple-darwin"] {
        let done = Checkout::new(host, &[]).build();
        let said = String::from_utf8(done.stderr).expect("text");
        assert!(!done.status.success() && said.contains(host), "{said}");
    }
}
