//! What wakes a sleeping engine.

use std::sync::Arc;
use std::time::Duration;

use ipc::SharedEventFd;

/// How often a ring without a kick eventfd is looked at.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// What wakes a sleeping engine, apart from its own completions.
#[derive(Debug)]
pub(crate) struct Wakers {
    /// The driver added requests; `None`: sleep is short.
    pub kick: Option<Arc<SharedEventFd>>,
    /// The worker has to look at its stop flag.
    pub stop: Arc<SharedEventFd>,
}
