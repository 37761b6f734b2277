//! An async client for the inter-process communication of AWS IoT Greengrass nuclei.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
