//! A stand-in for the AWS IoT Greengrass nuclei, for tests and demos only.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
