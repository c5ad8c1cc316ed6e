//! Lets front-ends in, one after the other.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ipc::Accepted;
use tracing::{info, warn};
use vvu_abi::status;

use super::VvuDevice;
use crate::poller::Until;
use crate::vvu::front_end::FrontEnd;
use crate::vvu::token::Token;

/// The time after which the device tries again to watch the listener, if watching has failed.
const RETRY: Duration = Duration::from_secs(1);

impl VvuDevice {
    pub(super) fn accept(&mut self) -> io::Result<()> {
        if !self.listening {
            return Ok(());
        }
        let admitted = match self.listener.accept()? {
            Accepted::Peer(stream) => self.admit(stream),
            Accepted::Nobody => Ok(()),
            Accepted::Later(error) => Err(error),
        };
        if let Err(error) = admitted {
            warn!("cannot accept the next front-end yet: {error}");
            self.listener.begin_rest();
        }
        self.update_listening();
        Ok(())
    }

    fn admit(&mut self, stream: UnixStream) -> io::Result<()> {
        self.front_end = Some(FrontEnd::new(stream, &self.poller)?);
        info!("front-end connected");
        self.status |= status::FRONTEND_UP;
        self.config_changed();
        Ok(())
    }

    /// Starts or stops watching the listener. The listener is watched while the driver is ready for
    /// a front-end, no front-end is connected, and the listener is not in a pause. When the
    /// listener is not watched, front-ends wait in the socket's backlog.
    pub(super) fn update_listening(&mut self) {
        let wanted = self.wants_front_end() && self.listener.rest().is_none();
        if wanted == self.listening {
            return;
        }
        if !wanted {
            self.poller.remove(&self.listener);
        } else if let Err(error) = self.watch_listener() {
            return warn!("cannot wait for front-ends: {error}");
        }
        self.listening = wanted;
    }

    fn wants_front_end(&self) -> bool {
        let ready = self.structures.registers.is_running() && self.status & status::BACKEND_UP != 0;
        ready && self.front_end.is_none()
    }

    fn watch_listener(&self) -> io::Result<()> {
        let token = Token::Listener.into();
        self.poller.add(&self.listener, token, Until::Readable)
    }

    /// The time after which the device has to try again to watch the listener. `None` means that
    /// the device already watches the listener, or waits for no front-end.
    pub(super) fn listening_time_left(&self) -> Option<Duration> {
        if self.listening || !self.wants_front_end() {
            return None;
        }
        // If the listener is in no pause now, a pause has just ended, or an attempt to watch the
        // listener failed.
        Some(self.listener.rest().unwrap_or(RETRY))
    }
}
