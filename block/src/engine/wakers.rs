//! Events that wake a sleeping engine.

use std::sync::Arc;
use std::time::Duration;

use ipc::SharedEventFd;

/// The longest sleep of an engine without a kick eventfd.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Events that wake a sleeping engine, apart from its own results.
#[derive(Debug)]
pub(crate) struct Wakers {
    /// The driver added requests. `None` makes the engine sleep for a short time only.
    pub kick: Option<Arc<SharedEventFd>>,
    /// The worker has to check its stop flag.
    pub stop: Arc<SharedEventFd>,
}
