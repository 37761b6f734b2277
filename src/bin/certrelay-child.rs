//! The child agent.

fn main() {}
