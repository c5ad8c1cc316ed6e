//! vhost-user through a virtio-vhost-user device.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Event, Request, Transport, TransportError};
use crate::driver::{Dialect, DriverError, PeerLoss, VvuDriver};
use crate::pci::{PciFunction, borrow};
use crate::vhost_user::Message;
use crate::virtio_pci::Patience;

mod resource;
mod wait;

use wait::{clear, poll_readable};

/// How often in a row a device is started anew without a message from a front-end in between.
const MAX_RESTARTS: u32 = 3;

/// vhost-user through a virtio-vhost-user device.
///
/// Front-ends come and go; so may the device's trust: when it breaks its own rules it is reset and
/// started anew, and the front-end counts as having left. Dropping the transport shuts the device
/// down.
#[derive(Debug)]
pub struct VvuTransport {
    driver: VvuDriver,
    /// The front-end is gone, for this reason, and nobody was told yet.
    gone: Option<Option<String>>,
    restarts: u32,
}

/// What a wait ended with.
struct Ready {
    wake: bool,
    hangup: bool,
    config: bool,
}

impl VvuTransport {
    /// Takes a function and brings the device to where a front-end may come, for a back-end of
    /// `queue_count` queues. The dialect is chosen by what the device says it is, unless one is
    /// given.
    ///
    /// # Errors
    ///
    /// [`DriverError`], which says in one line what is wrong with the device.
    pub fn new(
        function: Arc<dyn PciFunction>,
        queue_count: u16,
        dialect: Option<Dialect>,
    ) -> Result<Self, DriverError> {
        Self::with_patience(function, queue_count, dialect, Patience::DEFAULT)
    }

    /// As [`VvuTransport::new`], with limits of one's own on how long to wait for the device.
    ///
    /// # Errors
    ///
    /// As for [`VvuTransport::new`].
    pub fn with_patience(
        function: Arc<dyn PciFunction>,
        queue_count: u16,
        dialect: Option<Dialect>,
        patience: Patience,
    ) -> Result<Self, DriverError> {
        let mut driver = VvuDriver::new(function, queue_count, dialect, patience)?;
        driver.start()?;
        Ok(Self {
            driver,
            gone: None,
            restarts: 0,
        })
    }

    /// The dialect that the device is driven in.
    pub fn dialect(&self) -> &Dialect {
        self.driver.dialect()
    }

    fn wait(&mut self, wake: BorrowedFd<'_>) -> Result<Ready, TransportError> {
        let has_message = self.driver.channel().map_err(fatal)?.has_message();
        let timeout = has_message.then_some(Duration::ZERO);
        let driver = &self.driver;
        let mut fds = vec![
            wake,
            borrow(driver.config_event()),
            borrow(driver.rx_event()),
        ];
        fds.extend(driver.function().hangup());
        let ready = poll_readable(&fds, timeout).map_err(fatal)?;
        if ready[2] {
            clear(driver.rx_event());
        }
        Ok(Ready {
            wake: ready[0],
            config: ready[1],
            hangup: ready.get(3).is_some_and(|ready| *ready),
        })
    }

    /// Looks at what a configuration interrupt may be about.
    fn config_changed(&mut self) -> Result<(), TransportError> {
        clear(self.driver.config_event());
        if self.driver.needs_reset().map_err(fatal)? {
            return self.restart("the device asks to be reset".to_owned());
        }
        self.check_frontend().map(drop)
    }

    /// Whether the front-end is still there; if not, the device is made ready for the next.
    fn check_frontend(&mut self) -> Result<bool, TransportError> {
        let lost = self.driver.frontend_lost().map_err(fatal)?;
        if lost {
            self.drop_frontend(None)?;
        }
        Ok(!lost)
    }

    fn drop_frontend(&mut self, reason: Option<String>) -> Result<(), TransportError> {
        match self.driver.next_frontend() {
            Ok(()) => self.gone = Some(reason),
            Err(error) => self.restart(error.to_string())?,
        }
        Ok(())
    }

    /// Starts the device, which failed for `reason`, anew.
    fn restart(&mut self, reason: String) -> Result<(), TransportError> {
        self.restarts += 1;
        if self.restarts > MAX_RESTARTS {
            let text = format!("the device failed {MAX_RESTARTS} times in a row: {reason}");
            return Err(TransportError(text));
        }
        tracing::warn!("starting the device anew: {reason}");
        self.driver.start().map_err(|error| {
            TransportError(format!("cannot start the device anew ({reason}): {error}"))
        })?;
        self.gone = Some(Some(reason));
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Request>, TransportError> {
        let received = self.driver.channel().map_err(fatal)?.receive();
        let bytes = match received {
            Ok(None) => return Ok(None),
            Ok(Some(bytes)) => bytes,
            Err(error) => {
                self.restart(error.to_string())?;
                return Ok(None);
            }
        };
        if bytes.is_empty() && self.dialect().peer_loss == PeerLoss::EmptyMessage {
            self.driver.start().map_err(fatal)?;
            self.gone = Some(None);
            return Ok(None);
        }
        match Message::decode(&bytes) {
            Ok(message) => {
                self.restarts = 0;
                let resource = self.resource(&message);
                Ok(Some(Request { message, resource }))
            }
            Err(error) => {
                self.drop_frontend(Some(error.to_string()))?;
                Ok(None)
            }
        }
    }

    /// Waits until the device may have returned a buffer of ours, the front-end left, or time is up.
    fn wait_for_buffer(&mut self, deadline: Instant) -> Result<(), TransportError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let driver = &self.driver;
        let mut fds = vec![borrow(driver.tx_event()), borrow(driver.config_event())];
        fds.extend(driver.function().hangup());
        let ready = poll_readable(&fds, Some(left)).map_err(fatal)?;
        if ready[0] {
            clear(driver.tx_event());
        }
        if ready.get(2).is_some_and(|ready| *ready) {
            return Err(self.is_gone());
        }
        if ready[1] {
            self.config_changed()?;
        }
        Ok(())
    }

    fn is_gone(&self) -> TransportError {
        TransportError(format!("{} is gone", self.driver.function().name()))
    }
}

impl Transport for VvuTransport {
    fn next(&mut self, wake: BorrowedFd<'_>) -> Result<Event, TransportError> {
        loop {
            if let Some(reason) = self.gone.take() {
                return Ok(Event::Disconnected(reason));
            }
            let ready = self.wait(wake)?;
            if ready.wake {
                return Ok(Event::Woken);
            }
            if ready.hangup {
                return Err(self.is_gone());
            }
            if ready.config {
                self.config_changed()?;
            }
            if self.gone.is_some() {
                continue;
            }
            if let Some(request) = self.receive()? {
                return Ok(Event::Request(request));
            }
        }
    }

    fn reply(&mut self, message: &Message) -> Result<(), TransportError> {
        let bytes = message.encode();
        let deadline = Instant::now() + self.driver.patience().limit;
        // A reply to a front-end that left would reach the next.
        while self.gone.is_none() && self.check_frontend()? {
            let sent = self.driver.channel().map_err(fatal)?.send(&bytes);
            match sent {
                Ok(true) => return Ok(()),
                Ok(false) if Instant::now() < deadline => self.wait_for_buffer(deadline)?,
                Ok(false) => self.restart("the device takes no replies".to_owned())?,
                Err(error) => self.restart(error.to_string())?,
            }
        }
        Ok(())
    }

    fn disconnect(&mut self) -> Result<(), TransportError> {
        self.drop_frontend(None)?;
        self.gone = None;
        Ok(())
    }

    fn protocol_features(&self, offered: u64) -> u64 {
        offered & self.dialect().protocol_features
    }
}

/// An error after which the transport is of no more use.
fn fatal(error: impl std::fmt::Display) -> TransportError {
    TransportError(error.to_string())
}

#[cfg(test)]
mod tests;
