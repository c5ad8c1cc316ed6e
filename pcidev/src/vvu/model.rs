//! The model of the device, which handles the driver's accesses and the front-end's messages.

use std::io;
use std::time::Duration;

use ipc::Listener;
use tracing::{info, warn};
use vfio_user::IoEventFd;
use virtio::queue::RING_FEATURES;
use virtio_bindings::virtio_config::VIRTIO_F_ACCESS_PLATFORM;
use vvu_abi::{self as abi, Doorbell, config, status};

use super::doorbell::Doorbells;
use super::front_end::FrontEnd;
use super::identity::{self, MEMORY_BAR, NOTIFICATIONS, Options, SIGNAL_BAR};
use super::notification::Notifications;
use super::relay::Resources;
use super::token::Token;
use super::window::Window;
use crate::function::{Device, Function};
use crate::padded::read_padded;
use crate::poller::Poller;
use crate::virtio_pci::{Event, Layout, Registers, RingQueue, Structures};

mod listening;
mod transfer;

/// The maximum size of each of the two virtqueues, in descriptors.
const QUEUE_SIZE: u16 = 256;

/// The feature bits of the device. ACCESS_PLATFORM is always offered, because the device uses the
/// client's DMA addresses, whether an IOMMU translates them or not.
const FEATURES: u64 = 1 << VIRTIO_F_ACCESS_PLATFORM | RING_FEATURES;

/// A virtio-vhost-user device, for [`crate::serve`].
#[derive(Debug)]
pub struct VvuDevice {
    options: Options,
    function: Function,
    structures: Structures,
    rx: RingQueue,
    tx: RingQueue,
    /// The status field of the device configuration.
    status: u32,
    resources: Resources,
    front_end: Option<FrontEnd>,
    listener: Listener,
    /// Whether the listener is watched, so that a front-end can connect.
    listening: bool,
    poller: Poller,
}

impl VvuDevice {
    /// A device that accepts a front-end from `listener` when the device's driver is ready for a
    /// front-end. The device shows the file of `window` as the front-end's memory, and a front-end
    /// has to use this file as its memory.
    ///
    /// # Errors
    ///
    /// When the operating system is out of file descriptors.
    pub fn new(options: Options, window: Window, listener: Listener) -> io::Result<Self> {
        let (queues, vectors) = (abi::queue::COUNT, options.vectors());
        let layout = Layout::new(queues, vectors);
        let poller = Poller::new()?;
        Ok(Self {
            function: identity::function(&options, &layout, &window),
            structures: Structures {
                registers: Registers::new(FEATURES, queues, QUEUE_SIZE, vectors),
                layout,
            },
            rx: RingQueue::new(abi::queue::RX),
            tx: RingQueue::new(abi::queue::TX),
            status: 0,
            resources: Resources {
                window,
                notifications: Notifications::new(options.max_vhost_queues, vectors),
                doorbells: Doorbells::new(options.max_vhost_queues, &poller)?,
            },
            options,
            front_end: None,
            listener,
            listening: false,
            poller,
        })
    }

    fn raise(&mut self, vector: Option<u16>) {
        if let Some(vector) = vector {
            self.function.msix.trigger(vector);
        }
    }

    fn config_changed(&mut self) {
        self.structures.config_changed(&self.function.msix);
    }

    /// Closes the front-end's socket and drops everything that came from the front-end.
    fn close_front_end(&mut self) {
        self.status = 0;
        self.resources.disconnect(&self.poller);
        if let Some(front_end) = self.front_end.take() {
            front_end.close(&self.poller);
        }
        self.update_listening();
    }

    /// Closes the connection to a front-end that left or has to be dropped, and raises the
    /// configuration interrupt.
    fn lose_front_end(&mut self, why: &str) {
        info!("front-end disconnected: {why}");
        self.close_front_end();
        self.config_changed();
    }

    /// Handles the result of ringing a doorbell. If the signal blocked, drops the front-end. The
    /// next front-end is accepted only after a pause, so that a front-end that connects again and
    /// again cannot delay the client much.
    fn rang(&mut self, rung: io::Result<()>) {
        if let Err(error) = rung {
            self.listener.begin_rest();
            self.lose_front_end(&error.to_string());
        }
    }

    /// Handles a mistake of the driver: sets DEVICE_NEEDS_RESET, drops the front-end, and raises
    /// the configuration interrupt.
    fn fail(&mut self, why: &str) {
        warn!("driver needs to reset the device: {why}");
        self.structures.registers.set_needs_reset();
        self.close_front_end();
        self.config_changed();
    }

    /// Writes to the device configuration. The driver can change only the bit BACKEND_UP of the
    /// status field.
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let mut bytes = [0; 4];
        let fits = offset == config::STATUS && !data.is_empty() && data.len() <= bytes.len();
        if !fits {
            return warn!(
                "driver writes {} bytes of configuration at {offset}",
                data.len()
            );
        }
        bytes[..data.len()].copy_from_slice(data);
        let value = u32::from_le_bytes(bytes);
        if value & !(status::BACKEND_UP | status::FRONTEND_UP) != 0 {
            return self.fail(&format!("it writes status {value:#x}"));
        }
        let (before, after) = (self.status & status::BACKEND_UP, value & status::BACKEND_UP);
        if before == 0 && after != 0 {
            self.status |= status::BACKEND_UP;
            self.update_listening();
        } else if before != 0 && after == 0 {
            info!("driver disconnects");
            self.close_front_end();
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut image = [0; config::SIZE as usize];
        let queues = u32::from(self.options.max_vhost_queues);
        image[..4].copy_from_slice(&self.status.to_le_bytes());
        image[4..8].copy_from_slice(&queues.to_le_bytes());
        image[8..].copy_from_slice(&self.options.uuid);
        read_padded(&image, offset, data);
    }

    fn write_structure(&mut self, offset: u64, data: &[u8]) {
        let event = self.structures.write(&mut self.function.msix, offset, data);
        match event {
            Some(Event::Reset) => self.reset(),
            Some(Event::DriverOk) => self.update_listening(),
            Some(Event::Config(offset)) => self.write_config(offset, data),
            Some(Event::Notify(abi::queue::RX)) => self.deliver_waiting(),
            Some(Event::Notify(_)) => self.transmit(),
            None => {}
        }
    }

    fn read_structure(&mut self, offset: u64, data: &mut [u8]) {
        let event = self.structures.read(&self.function.msix, offset, data);
        if let Some(Event::Config(offset)) = event {
            self.read_config(offset, data);
        }
    }
}

impl Device for VvuDevice {
    fn function(&mut self) -> &mut Function {
        &mut self.function
    }

    fn bar_read(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        match bar {
            0 => self.read_structure(offset, data),
            SIGNAL_BAR if offset >= NOTIFICATIONS => {
                self.resources
                    .notifications
                    .read(offset - NOTIFICATIONS, data);
            }
            MEMORY_BAR => self.resources.window.read(offset, data),
            _ => data.fill(0),
        }
    }

    fn bar_write(&mut self, bar: usize, offset: u64, data: &[u8]) {
        match bar {
            0 => self.write_structure(offset, data),
            SIGNAL_BAR if offset >= NOTIFICATIONS => {
                let notifications = &mut self.resources.notifications;
                let raised = notifications.write(offset - NOTIFICATIONS, data);
                self.raise(raised);
            }
            SIGNAL_BAR => {
                let rung = self.resources.doorbells.write(offset, data.len());
                self.rang(rung);
            }
            MEMORY_BAR => self.resources.window.write(offset, data),
            _ => {}
        }
    }

    fn io_event_fds(&self, bar: usize) -> Vec<IoEventFd> {
        match bar {
            SIGNAL_BAR => self.resources.doorbells.io_event_fds(),
            _ => Vec::new(),
        }
    }

    fn replace_io_event_fds(&mut self) {
        if let Err(error) = self.resources.doorbells.replace_events(&self.poller) {
            warn!("the last client can still ring doorbells: {error}");
        }
    }

    /// Does nothing, because the device uses no memory between two requests of the client.
    fn give_memory_up(&mut self, _first: u64, _last: u64) {}

    fn memory_changed(&mut self) {
        self.rx.release_memory();
        self.tx.release_memory();
    }

    fn reset(&mut self) {
        self.structures.registers.reset();
        self.rx.reset();
        self.tx.reset();
        self.close_front_end();
        self.resources.notifications.reset();
    }

    fn poller(&self) -> &Poller {
        &self.poller
    }

    fn process(&mut self, number: u32) -> io::Result<()> {
        match Token::from_number(number) {
            Token::Listener => self.accept()?,
            Token::FrontEnd => self.front_end_ready(),
            Token::Doorbell(queue) => {
                let rung = self.resources.doorbells.ring(Doorbell::Call(queue));
                self.rang(rung);
            }
            Token::Kick(queue) => {
                let raised = self.resources.notifications.kicked(queue);
                self.raise(raised);
            }
        }
        Ok(())
    }

    fn time_left(&self) -> Option<Duration> {
        match &self.front_end {
            Some(front_end) => front_end.time_left(),
            None => self.listening_time_left(),
        }
    }

    fn keep_deadlines(&mut self) {
        self.update_listening();
        self.drop_late_front_end();
    }
}

#[cfg(test)]
mod tests;
