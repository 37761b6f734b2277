//! Stub.
#![allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason
)]
use crate::{
    config::KeyRotation,
    identity::{Done, Job},
    install::PairFiles,
    keys::KeyKind,
    wire::ThingName,
};
#[derive(Debug, Clone)]
pub struct KeyPlan {
    pub thing: ThingName,
    pub algorithm: Option<KeyKind>,
    pub rotation: KeyRotation,
}
#[derive(Debug, Clone, Copy)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}
#[derive(Debug)]
pub struct CoreFiles;
impl CoreFiles {
    pub fn new(_plan: KeyPlan, _user: Option<User>) -> Self {
        Self
    }
    pub fn perform(&mut self, _place: &PairFiles, _job: Job) -> Done {
        Done::Wiped
    }
}
