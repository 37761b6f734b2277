//! The adapter of AWS.
