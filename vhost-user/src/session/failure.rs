//! The notifier for the failure of a vring.

use std::io;
use std::sync::Arc;

use ipc::SharedEventFd;
use virtio::Notifier;

/// Reports the failure of a vring to the session. If the front-end has sent a notifier for errors,
/// the failure is then also reported to the front-end.
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
