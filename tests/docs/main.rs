//! The documents, and the Greengrass package, say what the code says.

mod build;
mod deploy;
mod recipe;
mod yaml;

use std::collections::BTreeSet;

use certrelay::{
    proof,
    reason::Reason,
    wire::{CsrReq, Signature},
};

const REASONS: &str = include_str!("../../docs/reasons.md");
const README: &str = include_str!("../../README.md");
const CONTRACT: &str = include_str!("../../docs/device-contract.md");
const MANIFEST: &str = include_str!("../../Cargo.toml");

/// The first cells of the rows of a table, from the line after `heading` to the next empty line.
fn first_cells(text: &str, heading: &str) -> BTreeSet<String> {
    let (_, table) = text.split_once(heading).unwrap_or_else(|| panic!("no {heading:?}"));
    table
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| Some(line.split('|').nth(1)?.trim().trim_matches('`').to_owned()))
        .collect()
}

#[test]
fn every_reason_is_explained_as_the_code_explains_it() {
    let rows = Reason::ALL.iter().map(|reason| format!("| `{reason}` | {} |\n", reason.explain()));
    let table: String =
        ["| word | what it means |\n|---|---|\n".to_owned()].into_iter().chain(rows).collect();
    assert!(
        REASONS.ends_with(&format!("\n\n{table}")),
        "docs/reasons.md is not in step with src/reason.rs; its table has to be:\n\n{table}"
    );
}

#[test]
fn the_readme_says_of_every_dependency_what_it_is_for() {
    let manifest: toml::Table = MANIFEST.parse().expect("a manifest");
    let named: BTreeSet<String> = ["dependencies", "dev-dependencies"]
        .into_iter()
        .flat_map(|kind| manifest[kind].as_table().expect("a table").keys().cloned())
        .collect();
    let mut explained = first_cells(README, "| crate | what for, and why this one |\n|---|---|\n");
    explained.remove("");
    assert_eq!(explained, named);
}

#[test]
fn the_worked_example_of_a_proof_holds() {
    let blocks: Vec<&str> = CONTRACT.split("```text\n").skip(1).collect();
    let block = |n: usize| blocks[n].split_once("\n```").expect("an end").0;
    let key = pem::parse(block(0)).expect("a public key");
    let (_, sig) = block(2).split_once("\"sig\": \"").expect("a signature");
    let sig: Signature = sig.trim_end_matches("\"}").parse().expect("base64");
    let text = block(1).as_bytes();
    assert_eq!(proof::verify(key.contents(), text, &sig), Ok(()));

    let (_, request) = CONTRACT.split_once("and `{\"nonce\"").expect("a request");
    let (request, _) = request.split_once('`').expect("an end");
    let request = CsrReq::parse(format!("{{\"nonce\"{request}").as_bytes()).expect("readable");
    let new = block(1).lines().nth(2).expect("a digest").parse().expect("a digest");
    let thing = "pump-7".parse().expect("a name");
    assert_eq!(text, proof::csr_text(&thing, new, request.nonce.expect("a nonce")));
}
