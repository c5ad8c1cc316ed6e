//! Events that wake a sleeping engine.

use std::sync::Arc;
use std::time::Duration;

use ipc::SharedEventFd;

/// Maximum length of a sleep of an engine without a kick eventfd.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Events that wake a sleeping engine, in addition to the results of its operations.
#[derive(Debug)]
pub(crate) struct Wakers {
    /// The kick eventfd, which is written when the driver has added requests. If it is `None`, each
    /// sleep of the engine is short.
    pub kick: Option<Arc<SharedEventFd>>,
    /// The stop eventfd. When it is written, the worker has to check its stop flag.
    pub stop: Arc<SharedEventFd>,
}
