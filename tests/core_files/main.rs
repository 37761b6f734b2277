//! The core's credential on disk: rotated, rolled back and detached, on a file system whose power
//! is cut, on one that fails, by a process that is killed, and on real disks that are full,
//! read-only, or somebody else's. Whatever happens, a nucleus finds a matching pair under the
//! configured paths, and the rest can be done afterwards.

#[path = "../support/alone.rs"]
mod alone;
mod cases;
mod drive;
mod faults;
mod kill;
mod model;
mod places;
mod power;
