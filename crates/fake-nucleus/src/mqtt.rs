//! The link to a broker that stands for IoT Core.

use crate::{Upstream, state::Shared};

/// Connects for as long as it is polled.
pub(crate) async fn run(_upstream: Upstream, nucleus: Shared) {
    let (_commands, _wanted) = nucleus.lock().attach();
    std::future::pending().await
}
