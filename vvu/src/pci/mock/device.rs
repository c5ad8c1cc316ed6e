//! The behaviour of a mock device.

use std::collections::VecDeque;
use std::sync::Arc;

use ipc::SharedEventFd;
use virtio::pci::{NO_VECTOR, status};

use super::Profile;
use super::ring::{Ring, TooSmall};
use crate::pci::DmaMemory;
use vvu_abi::{self as abi, queue};

/// The mistakes of a mock device, chosen by the test.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lies {
    /// The number of reads of the device status that return 0x80 instead of 0 after a reset.
    pub slow_reset: u32,
    /// The number of reads of the configuration's status field that return 1 instead of 0 after the
    /// driver has cleared the status field.
    pub slow_disconnect: u32,
    /// Whether the device refuses all features.
    pub refuse_features: bool,
    /// The MSI-X vector that the device refuses, if any.
    pub refuse_vector: Option<u16>,
    /// Whether the device ignores writes to the MSI-X vectors of notifications.
    pub refuse_notifications: bool,
    /// Whether the device ignores writes to the sizes of queues.
    pub fixed_queue_size: bool,
    /// Whether the device leaves the driver's messages in the transmit queue.
    pub hold_tx: bool,
    /// Whether the device asks for a reset each time the driver sets DRIVER_OK.
    pub always_broken: bool,
}

/// The state of a mock device.
#[derive(Debug)]
pub struct State {
    /// The properties that the device reports.
    pub profile: Profile,
    /// The mistakes that the device makes.
    pub lies: Lies,
    /// The eventfds of the MSI-X vectors.
    pub vectors: Vec<SharedEventFd>,
    /// The memory that is mapped for the device, and the memory's I/O virtual address.
    pub dma: Option<(u64, Arc<DmaMemory>)>,
    /// The virtio device status.
    pub status: u8,
    /// The features that the driver accepted.
    pub driver_features: u64,
    /// The status field in the device configuration.
    pub config_status: u32,
    /// Whether a front-end is connected.
    pub peer: bool,
    /// The MSI-X vector of each vhost queue's kicks.
    pub notifications: Vec<u16>,
    /// Messages from the driver that arrived while a front-end was connected.
    pub sent: Vec<Vec<u8>>,
    /// Messages from the driver that arrived while no front-end was connected.
    pub stray: Vec<Vec<u8>>,
    /// The driver's writes to doorbells. Each entry has the offset in bytes from the first
    /// doorbell, and the written bytes.
    pub rung: Vec<(u64, Vec<u8>)>,
    /// Register writes and other actions of the driver in order, as text.
    pub writes: Vec<String>,
    pub(super) device_select: u32,
    pub(super) driver_select: u32,
    pub(super) config_vector: u16,
    pub(super) queue_select: u16,
    pub(super) rings: [Ring; 2],
    pub(super) notification_select: u16,
    backlog: VecDeque<Vec<u8>>,
}

impl State {
    pub(super) fn new(profile: Profile) -> Self {
        let mut state = Self {
            lies: Lies::default(),
            vectors: Vec::new(),
            dma: None,
            status: 0,
            driver_features: 0,
            config_status: 0,
            peer: false,
            notifications: Vec::new(),
            sent: Vec::new(),
            stray: Vec::new(),
            rung: Vec::new(),
            writes: Vec::new(),
            device_select: 0,
            driver_select: 0,
            config_vector: NO_VECTOR,
            queue_select: 0,
            rings: [Ring::default(), Ring::default()],
            notification_select: 0,
            backlog: VecDeque::new(),
            profile,
        };
        state.clear();
        state
    }

    /// Records an action of the driver as text.
    pub fn log(&mut self, what: String) {
        self.writes.push(what);
    }

    fn clear(&mut self) {
        self.status = 0;
        self.driver_features = 0;
        self.config_vector = NO_VECTOR;
        self.config_status = 0;
        self.rings = [0, 1].map(|index| Ring::new(&self.profile, index));
        self.notifications = vec![NO_VECTOR; self.profile.max_vhost_queues as usize];
    }

    /// Does a virtio reset. The reset also disconnects the front-end, as on a real device.
    pub(super) fn reset(&mut self) {
        self.clear();
        self.peer = false;
        self.backlog.clear();
    }

    pub(super) fn interrupt(&self, vector: u16) {
        if let Some(eventfd) = self.vectors.get(usize::from(vector)) {
            eventfd.signal().expect("room for a signal");
        }
    }

    /// Makes the device fail and ask for a reset.
    pub fn break_down(&mut self) {
        self.status |= status::NEEDS_RESET;
        self.interrupt(self.config_vector);
    }

    /// Makes a front-end connect.
    pub fn connect(&mut self) {
        self.peer = true;
        self.tell_of_peer();
    }

    fn tell_of_peer(&mut self) {
        let up = self.config_status & abi::status::BACKEND_UP != 0;
        if self.profile.status_tells && self.peer && up {
            self.config_status |= abi::status::FRONTEND_UP;
            self.interrupt(self.config_vector);
        }
        self.pump();
    }

    /// Makes the front-end leave.
    pub fn leave(&mut self) {
        self.peer = false;
        self.backlog.clear();
        if self.profile.status_tells {
            self.config_status = 0;
            self.notifications.fill(NO_VECTOR);
            self.interrupt(self.config_vector);
        } else {
            self.put(&[]);
        }
    }

    /// Handles a write of the driver to the status field of the configuration.
    pub(super) fn set_config_status(&mut self, value: u32) {
        if value & !3 != 0 {
            return self.break_down();
        }
        let before = std::mem::replace(&mut self.config_status, value & abi::status::BACKEND_UP);
        if before & !value & abi::status::BACKEND_UP != 0 && self.profile.status_tells {
            self.peer = false;
            self.backlog.clear();
            self.notifications.fill(NO_VECTOR);
        }
        self.tell_of_peer();
    }

    /// Makes the front-end send a message. The message is delivered as soon as a receive buffer is
    /// available.
    pub fn deliver(&mut self, message: &[u8]) {
        self.backlog.push_back(message.to_vec());
        self.pump();
    }

    /// Makes the front-end kick a vhost queue.
    pub fn kick(&self, queue: usize) {
        self.interrupt(self.notifications[queue]);
    }

    /// Delivers the front-end's waiting messages while receive buffers are available.
    pub fn pump(&mut self) {
        let up = self.config_status & abi::status::BACKEND_UP != 0;
        while up && self.peer && self.runs() {
            let Some(message) = self.backlog.pop_front() else {
                return;
            };
            if !self.put(&message) {
                return self.backlog.push_front(message);
            }
        }
    }

    fn runs(&self) -> bool {
        self.status & status::DRIVER_OK != 0 && self.status & status::NEEDS_RESET == 0
    }

    /// Puts bytes into a receive buffer. Returns false if no receive buffer is available.
    pub fn put(&mut self, message: &[u8]) -> bool {
        let (dma, ring) = self.ring(queue::RX);
        match ring.put(&dma, message) {
            Ok(false) => return false,
            Ok(true) => self.interrupt(self.rings[0].vector),
            Err(TooSmall) => self.break_down(),
        }
        true
    }

    /// Takes all messages of the driver from the transmit queue.
    pub fn take_tx(&mut self) {
        loop {
            let (dma, ring) = self.ring(queue::TX);
            let Some(message) = ring.take(&dma) else {
                return;
            };
            self.interrupt(self.rings[1].vector);
            if !is_whole(&message) {
                return self.break_down();
            }
            let pile = if self.peer {
                &mut self.sent
            } else {
                &mut self.stray
            };
            pile.push(message);
        }
    }

    /// Writes an entry with `id` and `len` to the used ring of queue `index`, adds `steps` to the
    /// ring's index, and raises the queue's interrupt.
    pub fn lie_in_ring(&mut self, index: u16, id: u32, len: u32, steps: u16) {
        let (dma, ring) = self.ring(index);
        ring.push_used(&dma, id, len, steps);
        self.interrupt(self.rings[usize::from(index)].vector);
    }

    /// Whether the driver has enabled queue `index`.
    pub fn is_enabled(&self, index: u16) -> bool {
        let ring = self.rings.get(usize::from(index));
        self.dma.is_some() && ring.is_some_and(|ring| ring.enabled)
    }

    /// The number of unused buffers that the driver offers in a queue.
    pub fn buffers(&mut self, index: u16) -> u16 {
        let (dma, ring) = self.ring(index);
        ring.available(&dma)
    }

    /// Makes the device use the most recently offered receive buffer first.
    pub fn reverse_rx(&mut self) {
        self.rings[0].newest_first = true;
    }

    fn ring(&mut self, index: u16) -> (super::ring::Dma, &mut Ring) {
        let (iova, memory) = self.dma.clone().expect("memory is mapped");
        let dma = super::ring::Dma { iova, memory };
        (dma, &mut self.rings[usize::from(index)])
    }

    pub(super) fn notified(&mut self, index: u16) {
        if !self.runs() || !self.rings[usize::from(index)].enabled {
            self.log(format!("early notify {index}"));
        }
        match index {
            queue::RX => self.pump(),
            _ if !self.lies.hold_tx => self.take_tx(),
            _ => {}
        }
    }
}

/// Whether the length of a message matches the size in its header.
fn is_whole(message: &[u8]) -> bool {
    let size = message.get(8..12).and_then(|bytes| bytes.try_into().ok());
    size.is_some_and(|size| message.len() == 12 + u32::from_le_bytes(size) as usize)
}
