//! The driver of a virtio-vhost-user device. The driver handles messages, notifications, doorbells
//! and the front-end's memory.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use ipc::SharedEventFd;
use vhost_user::WithCauses;
use virtio::pci::{cfg_type as virtio_cfg, status as device_status};
use vvu_abi::{self as abi, cfg_type, config, queue, status};

use crate::pci::{PciFunction, Registers, enable_bus_master};
use crate::virtio_pci::{Patience, VirtioPci};

mod channel;
mod dialect;
mod dma;
mod doorbell;
mod error;
mod identity;
mod notification;
mod window;

pub use channel::ChannelError;
pub use dialect::{Dialect, LayoutRule, PeerLoss, UnknownDialect};
pub use dma::DmaError;
pub use error::DriverError;
pub use identity::open;
pub use window::{Window, WindowError};

use channel::Channel;
use dma::Dma;
use doorbell::Doorbells;
use notification::Notifications;

/// The MSI-X vector of each kind of event.
mod vector {
    /// The vector for configuration changes.
    pub const CONFIG: u16 = 0;
    /// The vector for messages that arrive from the front-end.
    pub const RX: u16 = 1;
    /// The vector for transmit buffers that the device returns.
    pub const TX: u16 = 2;
    /// The vector for the front-end's kicks of vhost queue 0. The vectors of the other queues
    /// follow.
    pub const KICK: u16 = 3;
}

/// The virtio feature bits that the device has to offer. The only bit is VERSION_1.
const REQUIRED: u64 = 1 << 32;
/// The virtio feature bits that the driver accepts if the device offers them. The bits are
/// VERSION_1 and ACCESS_PLATFORM. The driver accepts ACCESS_PLATFORM because the driver uses I/O
/// virtual addresses.
const WANTED: u64 = REQUIRED | 1 << 33;

/// Drives one VVU device. Dropping the driver shuts the device down.
#[derive(Debug)]
pub struct VvuDriver {
    virtio: VirtioPci,
    config: Registers,
    notifications: Notifications,
    doorbells: Doorbells,
    window: Window,
    dialect: Dialect,
    patience: Patience,
    queue_count: u16,
    vectors: Vec<Arc<SharedEventFd>>,
    /// The queues that carry messages. `None` until the device is started.
    channel: Option<Channel>,
    /// Whether the status field has reported a connected front-end since the driver last set
    /// BACKEND_UP.
    frontend_seen: bool,
    dma: Dma,
    function: Arc<dyn PciFunction>,
}

impl VvuDriver {
    /// Makes the driver of a PCI function. `queue_count` is the number of the back-end's queues. If
    /// `dialect` is `None`, the identity of the device selects the dialect.
    ///
    /// # Errors
    ///
    /// [`DriverError`] when the function is not a VVU device, or lacks something that the driver
    /// needs.
    pub fn new(
        function: Arc<dyn PciFunction>,
        queue_count: u16,
        dialect: Option<Dialect>,
        patience: Patience,
    ) -> Result<Self, DriverError> {
        let (capabilities, identity) = identity::identify(function.as_ref())?;
        let dialect = dialect.unwrap_or_else(|| Dialect::of(&identity));
        let needed = u32::from(vector::KICK) + u32::from(queue_count);
        let available = function.vector_count();
        if needed > u32::from(available) {
            return Err(DriverError::TooFewVectors { needed, available });
        }
        let virtio = VirtioPci::new(&function, &capabilities, patience)?;
        let doorbell = capabilities.find(cfg_type::DOORBELL)?.multiplier;
        let registers = capabilities.mapped(&function, cfg_type::DOORBELL, 2)?;
        let memory = identity::shared_memory(&capabilities)?;
        let window = Window::new(function.clone(), memory, dialect.layout)?;
        enable_bus_master(function.as_ref()).map_err(DriverError::Access)?;
        let vectors = (0..needed)
            .map(|_| eventfd())
            .collect::<io::Result<Vec<_>>>();
        Ok(Self {
            config: capabilities.trapped(&function, virtio_cfg::DEVICE, config::SIZE)?,
            notifications: Notifications::new(&function, &capabilities, queue_count)?,
            doorbells: Doorbells::new(registers, doorbell.unwrap_or(0)),
            dma: Dma::new(function.clone(), Channel::memory_size())?,
            vectors: vectors.map_err(DriverError::Access)?,
            virtio,
            window,
            dialect,
            patience,
            queue_count,
            channel: None,
            frontend_seen: false,
            function,
        })
    }

    /// Resets and starts the device. A front-end can connect afterwards.
    ///
    /// # Errors
    ///
    /// [`DriverError`] when the reset or the start fails. After a failed start, the driver sets the
    /// FAILED bit of the device status.
    pub fn start(&mut self) -> Result<(), DriverError> {
        self.channel = None;
        self.virtio.reset()?;
        let result = self.initialise();
        if result.is_err() {
            // If the device is gone, setting the FAILED bit fails too. The caller gets the first
            // error, which is the cause.
            let _ = self.virtio.add_status(device_status::FAILED);
        }
        result
    }

    fn initialise(&mut self) -> Result<(), DriverError> {
        self.virtio.negotiate(WANTED, REQUIRED)?;
        self.check_queues()?;
        let eventfds: Vec<_> = self.vectors.iter().map(|vector| vector.as_fd()).collect();
        let result = self.function.set_vectors(&eventfds);
        result.map_err(DriverError::Vectors)?;
        self.virtio.set_config_vector(vector::CONFIG)?;
        let mut channel = Channel::configure(&self.virtio, &self.dma)?;
        self.notifications.program()?;
        for index in [queue::RX, queue::TX] {
            self.virtio.enable_queue(index)?;
        }
        self.virtio.add_status(device_status::DRIVER_OK)?;
        channel.offer_buffers()?;
        self.channel = Some(channel);
        self.set_backend_up()
    }

    fn check_queues(&mut self) -> Result<(), DriverError> {
        let queues = self.virtio.queue_count()?;
        if queues < queue::COUNT {
            return Err(DriverError::TooFewVirtqueues(queues));
        }
        let available: u32 = self.config.read(config::MAX_VHOST_QUEUES)?;
        let needed = self.queue_count;
        if available < u32::from(needed) {
            return Err(DriverError::TooFewQueues { needed, available });
        }
        self.doorbells.set_queues(available);
        match self
            .doorbells
            .get(abi::Doorbell::Call(needed.saturating_sub(1)))
        {
            Some(_) => Ok(()),
            None => Err(DriverError::TooFewDoorbells { needed }),
        }
    }

    fn set_backend_up(&mut self) -> Result<(), DriverError> {
        self.frontend_seen = false;
        self.window.rewind();
        Ok(self.config.write(config::STATUS, status::BACKEND_UP)?)
    }

    /// Whether the front-end has left. Also true if a front-end may have connected and left since
    /// the last call of this method. Always false for a device with [`PeerLoss::EmptyMessage`],
    /// because the status field of such a device does not show whether a front-end is connected.
    ///
    /// # Errors
    ///
    /// When the PCI function is gone.
    pub fn frontend_lost(&mut self) -> io::Result<bool> {
        if self.dialect.peer_loss != PeerLoss::Status {
            return Ok(false);
        }
        let now: u32 = self.config.read(config::STATUS)?;
        let is_there = now & status::FRONTEND_UP != 0;
        let lost = now & status::BACKEND_UP == 0 || (self.frontend_seen && !is_there);
        self.frontend_seen |= is_there;
        Ok(lost)
    }

    /// Disconnects the front-end if a front-end is connected, and makes the device ready for the
    /// next front-end.
    ///
    /// # Errors
    ///
    /// [`DriverError`]. After an error, the device has to be restarted.
    pub fn next_frontend(&mut self) -> Result<(), DriverError> {
        if self.config.read::<u32>(config::STATUS)? != 0 {
            self.config.write(config::STATUS, 0u32)?;
            let down = || self.config.read::<u32>(config::STATUS);
            let done = self
                .patience
                .wait_for(|| io::Result::Ok((down()? == 0).then_some(())))?;
            done.ok_or(DriverError::DisconnectTimeout(self.patience.limit))?;
        }
        self.channel()?.discard_received()?;
        self.notifications.program()?;
        self.set_backend_up()
    }

    /// Whether the device has failed and needs a reset.
    ///
    /// # Errors
    ///
    /// When the PCI function is gone.
    pub fn needs_reset(&self) -> io::Result<bool> {
        self.virtio.needs_reset()
    }

    /// The channel that carries messages.
    pub(crate) fn channel(&mut self) -> Result<&mut Channel, DriverError> {
        self.channel.as_mut().ok_or(DriverError::NotStarted)
    }

    /// The dialect of the device.
    pub fn dialect(&self) -> &Dialect {
        &self.dialect
    }

    /// The limits on waiting for the device.
    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// The PCI function of the device.
    pub fn function(&self) -> &dyn PciFunction {
        self.function.as_ref()
    }

    /// The eventfd that is signalled when the configuration has changed.
    pub fn config_event(&self) -> &SharedEventFd {
        &self.vectors[usize::from(vector::CONFIG)]
    }

    /// The eventfd that is signalled when messages have arrived from the front-end.
    pub fn rx_event(&self) -> &SharedEventFd {
        &self.vectors[usize::from(vector::RX)]
    }

    /// The eventfd that is signalled when the device has taken messages from the driver.
    pub fn tx_event(&self) -> &SharedEventFd {
        &self.vectors[usize::from(vector::TX)]
    }

    /// The eventfd that is signalled when the front-end kicks vhost queue `queue`. `None` if the
    /// back-end does not have the queue.
    pub fn kick(&self, queue: u16) -> Option<&Arc<SharedEventFd>> {
        let vector = vector::KICK.checked_add(queue)?;
        self.vectors.get(usize::from(vector))
    }

    /// A notifier that rings a doorbell. `None` if the device does not have the doorbell.
    pub fn doorbell(&self, doorbell: abi::Doorbell) -> Option<Arc<dyn virtio::Notifier>> {
        let is_error = matches!(doorbell, abi::Doorbell::Error(_));
        if is_error && !self.dialect.error_doorbells {
            return None;
        }
        self.doorbells.get(doorbell)
    }

    /// The number of vhost queues of the back-end.
    pub fn queue_count(&self) -> u16 {
        self.queue_count
    }

    /// The window that shows the front-end's memory.
    pub fn window(&mut self) -> &mut Window {
        &mut self.window
    }

    fn shut_down(&mut self) -> Result<(), DriverError> {
        if self.channel.take().is_some() {
            self.config.write(config::STATUS, 0u32)?;
            self.virtio.clear_vectors(queue::COUNT)?;
            self.notifications.clear()?;
        }
        self.virtio.reset()?;
        self.function.set_vectors(&[]).map_err(DriverError::Vectors)
    }
}

impl Drop for VvuDriver {
    fn drop(&mut self) {
        if let Err(error) = self.shut_down() {
            tracing::debug!("cannot shut the device down: {}", WithCauses(&error));
        }
    }
}

fn eventfd() -> io::Result<Arc<SharedEventFd>> {
    SharedEventFd::new().map(Arc::new)
}

#[cfg(test)]
pub(crate) mod tests;
