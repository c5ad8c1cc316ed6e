//! Carries vhost-user messages through a virtio-vhost-user device.

mod error;
mod resource;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::{Interest, SharedEventFd, poll};
use vhost_user::table::features_without_descriptors;
use vhost_user::{
    DropReason, Event, Head, Incoming, Message, ProtocolFeatures, Reply, Request, Transport,
    TransportError, WithCauses,
};

use crate::driver::{Dialect, DriverError, PeerLoss, VvuDriver};
use crate::pci::PciFunction;
use crate::virtio_pci::Patience;
pub use error::{Fault, VvuError};
use resource::Signals;

/// The maximum number of restarts between two messages from front-ends. If a device needs more
/// restarts, the transport fails.
const MAX_RESTARTS: u32 = 3;

/// Carries vhost-user messages through a virtio-vhost-user device.
///
/// Front-ends can connect and leave one after the other. A device that breaks the rules is reset
/// and restarted, and the transport reports its front-end as dropped. Dropping the transport shuts
/// the device down.
#[derive(Debug)]
pub struct VvuTransport {
    driver: VvuDriver,
    /// The reason why the front-end is gone, until the next event reports it.
    gone: Option<Gone>,
    restarts: u32,
}

/// The reason why the front-end is gone.
#[derive(Debug)]
enum Gone {
    Left,
    Dropped(Fault),
}

/// The events that ended a wait.
struct Ready {
    wake: bool,
    hangup: bool,
    config: bool,
}

impl VvuTransport {
    /// Starts the device of a function for a back-end of `queue_count` queues, so that a front-end
    /// can connect. If `dialect` is `None`, the identity of the device selects the dialect.
    ///
    /// # Errors
    ///
    /// [`DriverError`], whose text describes the fault of the device in one line.
    pub fn new(
        function: Arc<dyn PciFunction>,
        queue_count: u16,
        dialect: Option<Dialect>,
    ) -> Result<Self, DriverError> {
        Self::with_patience(function, queue_count, dialect, Patience::DEFAULT)
    }

    /// Does the same as [`VvuTransport::new`], but with the given limits on waiting for the device.
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

    /// The dialect of the device.
    pub fn dialect(&self) -> &Dialect {
        self.driver.dialect()
    }

    fn wait(&mut self, wakes: [BorrowedFd<'_>; 2]) -> Result<Ready, VvuError> {
        let has_message = self.driver.channel()?.has_message();
        let timeout = has_message.then_some(Duration::ZERO);
        let driver = &self.driver;
        let [one, two] = wakes.map(Interest::Readable);
        let [one, two, config, rx, hangup] = poll(
            [
                one,
                two,
                Interest::readable(driver.config_event()),
                Interest::readable(driver.rx_event()),
                hangup_of(driver.function()),
            ],
            timeout,
        )
        .map_err(VvuError::Wait)?;
        if rx {
            clear(driver.rx_event());
        }
        Ok(Ready {
            wake: one || two,
            config,
            hangup,
        })
    }

    /// Handles a configuration interrupt. The device may need a reset, or the front-end may have
    /// left.
    fn config_changed(&mut self) -> Result<(), VvuError> {
        clear(self.driver.config_event());
        if self.driver.needs_reset()? {
            return self.restart(Fault::NeedsReset);
        }
        self.check_frontend().map(drop)
    }

    /// Returns whether the front-end is still connected. If the front-end has left, makes the
    /// device ready for the next front-end.
    fn check_frontend(&mut self) -> Result<bool, VvuError> {
        let lost = self.driver.frontend_lost()?;
        if lost {
            self.drop_frontend(Gone::Left)?;
        }
        Ok(!lost)
    }

    fn drop_frontend(&mut self, gone: Gone) -> Result<(), VvuError> {
        match self.driver.next_frontend() {
            Ok(()) => self.gone = Some(gone),
            Err(error) => self.restart(Fault::Driver(error))?,
        }
        Ok(())
    }

    /// Restarts a device that has failed.
    fn restart(&mut self, fault: Fault) -> Result<(), VvuError> {
        self.restarts += 1;
        if self.restarts > MAX_RESTARTS {
            let restarts = MAX_RESTARTS;
            return Err(VvuError::AlwaysBroken { restarts, fault });
        }
        tracing::warn!("restarting the device: {}", WithCauses(&fault));
        if let Err(source) = self.driver.start() {
            let source = Box::new(source);
            return Err(VvuError::Restart { fault, source });
        }
        self.gone = Some(Gone::Dropped(fault));
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Incoming>, VvuError> {
        let received = self.driver.channel()?.receive();
        let bytes = match received {
            Ok(None) => return Ok(None),
            Ok(Some(bytes)) => bytes,
            Err(error) => {
                self.restart(Fault::Channel(error))?;
                return Ok(None);
            }
        };
        if bytes.is_empty() && self.dialect().peer_loss == PeerLoss::EmptyMessage {
            self.driver.start()?;
            self.gone = Some(Gone::Left);
            return Ok(None);
        }
        match Message::decode(&bytes) {
            Ok(message) => {
                self.restarts = 0;
                let mut signals = Signals(&mut self.driver);
                Ok(Some(Incoming {
                    head: message.head,
                    request: Request::attach_absent(&message, &mut signals),
                }))
            }
            Err(error) => {
                self.drop_frontend(Gone::Dropped(Fault::Message(error)))?;
                Ok(None)
            }
        }
    }

    /// Waits until the device may have returned a transmit buffer, until the front-end may have
    /// left, or until the deadline.
    fn wait_for_buffer(&mut self, deadline: Instant) -> Result<(), VvuError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let driver = &self.driver;
        let [tx, config, hangup] = poll(
            [
                Interest::readable(driver.tx_event()),
                Interest::readable(driver.config_event()),
                hangup_of(driver.function()),
            ],
            Some(left),
        )
        .map_err(VvuError::Wait)?;
        if tx {
            clear(driver.tx_event());
        }
        if hangup {
            return Err(self.is_gone());
        }
        if config {
            self.config_changed()?;
        }
        Ok(())
    }

    fn is_gone(&self) -> VvuError {
        VvuError::Gone(self.driver.function().name())
    }

    fn next_event(&mut self, wakes: [BorrowedFd<'_>; 2]) -> Result<Event, VvuError> {
        loop {
            match self.gone.take() {
                Some(Gone::Left) => return Ok(Event::Left),
                Some(Gone::Dropped(fault)) => {
                    return Ok(Event::Dropped(DropReason::Transport(fault.into())));
                }
                None => {}
            }
            let ready = self.wait(wakes)?;
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
            if let Some(incoming) = self.receive()? {
                return Ok(Event::Request(incoming));
            }
        }
    }

    fn send(&mut self, message: &Message) -> Result<(), VvuError> {
        let bytes = message.encode();
        let deadline = Instant::now() + self.driver.patience().limit;
        // A reply to a front-end that has left would reach the next front-end, so the loop checks
        // the front-end before each attempt.
        while self.gone.is_none() && self.check_frontend()? {
            let sent = self.driver.channel()?.send(&bytes);
            match sent {
                Ok(true) => return Ok(()),
                Ok(false) if Instant::now() < deadline => self.wait_for_buffer(deadline)?,
                Ok(false) => self.restart(Fault::TakesNoReplies)?,
                Err(error) => self.restart(Fault::Channel(error))?,
            }
        }
        Ok(())
    }
}

impl Transport for VvuTransport {
    fn next(&mut self, wakes: [BorrowedFd<'_>; 2]) -> Result<Event, TransportError> {
        Ok(self.next_event(wakes)?)
    }

    fn reply(&mut self, to: Head, reply: Reply) -> Result<(), TransportError> {
        Ok(self.send(&to.reply(&reply.payload))?)
    }

    fn disconnect(&mut self) -> Result<(), TransportError> {
        self.drop_frontend(Gone::Left)?;
        self.gone = None;
        Ok(())
    }

    fn protocol_features(&self, offered: ProtocolFeatures) -> ProtocolFeatures {
        offered & features_without_descriptors()
    }
}

fn hangup_of(function: &dyn PciFunction) -> Interest<'_> {
    function
        .hangup()
        .map_or(Interest::Nothing, Interest::Readable)
}

/// Makes an eventfd unreadable until it is signalled again.
fn clear(eventfd: &SharedEventFd) {
    // An error of `take` only means that the eventfd is not readable.
    let _ = eventfd.take();
}

#[cfg(test)]
mod tests;
