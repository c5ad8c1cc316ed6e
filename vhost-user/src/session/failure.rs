//! The notifier for the failure of a vring.

use std::io;
use std::sync::Arc;

use ipc::SharedEventFd;
use virtio::Notifier;

/// Tells the session that a vring has failed, and then the front-end, if the front-end has given a
/// notifier for errors.
#[derive(Debug)]
pub struct Failure {
    pub session: Arc<SharedEventFd>,
    pub front_end: Option<Arc<dyn Notifier>>,
}

impl Notifier for Failure {
    fn notify(&self) -> io::Result<()> {
        self.session.signal()?;
        let front_end = self.front_end.as_ref();
        front_end.map_or(Ok(()), |front_end| front_end.notify())
    }
}
