//! The rules: plain functions over plain data. No call is made here, and no clock read.

pub mod audit;
pub mod code;
pub mod complete;
pub mod due;
pub mod issue;
pub mod report;
pub mod request;
pub mod speaker;
pub mod uplink;
