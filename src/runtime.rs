//! The one loop.

use std::future::Future;

use crate::config::Config;

/// Why the gateway ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {}

/// Runs the gateway until `shutdown` is ready; then what is under way is durable.
pub async fn run(_config: Config, shutdown: impl Future<Output = ()>) -> Result<(), RuntimeError> {
    shutdown.await;
    Ok(())
}
