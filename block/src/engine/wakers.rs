//! Events that wake a sleeping engine.

use std::sync::Arc;

use ipc::SharedEventFd;

/// Events that wake a sleeping engine, in addition to the results of its operations.
#[derive(Debug)]
pub(crate) struct Wakers {
    /// The kick eventfd, which is written when the driver has added requests. `None` if the driver
    /// does not kick.
    pub kick: Option<Arc<SharedEventFd>>,
    /// The stop eventfd. When it is written, the worker has to check its stop flag.
    pub stop: Arc<SharedEventFd>,
}
