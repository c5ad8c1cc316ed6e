//! Common configuration and interrupt status (virtio 1.2, sections 2.1, 4.1.4.3 and 4.1.4.5).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tracing::debug;
use virtio::VringLayout;
use virtio::pci::{NO_VECTOR, common, isr, status};
use virtio::queue::PACKED;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vm_memory::GuestAddress;

use crate::padded::read_padded;

mod state;

use state::{Queue, State};

/// The effect of a driver's write on the device, which the caller has to handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The driver reset the device. The registers are already reset.
    Reset,
    /// The driver has set DRIVER_OK.
    DriverOk,
}

/// The common configuration and the interrupt status of a device.
#[derive(Debug)]
pub struct Registers {
    offered: u64,
    vectors: u16,
    max_queue_size: u16,
    state: State,
    /// The interrupt status. The threads of queues also set bits of the status.
    isr: Arc<AtomicU8>,
    /// The configuration generation. A reset does not set it back to 0. Otherwise a driver could
    /// read the same generation before and after a change of the configuration, and miss the
    /// change.
    generation: u8,
}

impl Registers {
    /// The registers of a device that offers the feature bits `offered` and VERSION_1. The device
    /// has `queues` queues, each with at most `max_queue_size` descriptors (a power of two), and
    /// `vectors` MSI-X vectors.
    pub fn new(offered: u64, queues: u16, max_queue_size: u16, vectors: u16) -> Self {
        Self {
            offered: offered | 1 << VIRTIO_F_VERSION_1,
            vectors,
            max_queue_size,
            state: State::new(queues, max_queue_size),
            isr: Arc::default(),
            generation: 0,
        }
    }

    /// Resets all registers that the driver can write, and the interrupt status.
    pub fn reset(&mut self) {
        self.state = State::new(self.state.queues.len() as u16, self.max_queue_size);
        self.isr.store(0, Ordering::Relaxed);
    }

    /// The feature bits that the driver accepted.
    pub fn features(&self) -> u64 {
        self.state.driver_features
    }

    /// Whether the driver is ready and the device needs no reset.
    pub fn is_running(&self) -> bool {
        let mask = status::DRIVER_OK | status::NEEDS_RESET;
        self.state.status & mask == status::DRIVER_OK
    }

    /// Sets DEVICE_NEEDS_RESET. The caller then has to raise the interrupt for configuration
    /// changes.
    pub fn set_needs_reset(&mut self) {
        self.state.status |= status::NEEDS_RESET;
    }

    /// Records that the device-specific configuration or the device status changed. Returns the
    /// vector to raise, or [`NO_VECTOR`] if the driver has set no vector.
    pub fn config_changed(&mut self) -> u16 {
        self.generation = self.generation.wrapping_add(1);
        self.isr.fetch_or(isr::CONFIG, Ordering::SeqCst);
        self.state.config_vector
    }

    /// Records that the device has used buffers of a queue. Returns the vector to raise, or
    /// [`NO_VECTOR`] if the driver has set no vector.
    pub fn queue_used(&mut self, queue: u16) -> u16 {
        self.isr.fetch_or(isr::QUEUE, Ordering::SeqCst);
        self.queue_vector(queue)
    }

    /// The vector to raise for used buffers of a queue, or [`NO_VECTOR`] if the driver has set no
    /// vector.
    pub fn queue_vector(&self, queue: u16) -> u16 {
        let queue = self.state.queues.get(usize::from(queue));
        queue.map_or(NO_VECTOR, |queue| queue.vector)
    }

    /// The interrupt status. Threads that serve a queue set the bit [`isr::QUEUE`].
    pub fn isr(&self) -> &Arc<AtomicU8> {
        &self.isr
    }

    /// Reads and clears the interrupt status.
    pub fn take_isr(&mut self) -> u8 {
        self.isr.swap(0, Ordering::SeqCst)
    }

    /// The layout of the rings of a queue. `None` means that the driver does not use the queue.
    pub fn queue(&self, index: u16) -> Option<VringLayout> {
        let queue = self.state.queues.get(usize::from(index))?;
        let usable = self.is_running() && queue.enabled;
        usable.then_some(VringLayout {
            packed: self.is_packed(),
            size: queue.size,
            desc: GuestAddress(queue.desc),
            avail: GuestAddress(queue.driver),
            used: GuestAddress(queue.device),
        })
    }

    fn is_packed(&self) -> bool {
        self.state.driver_features & PACKED != 0
    }

    /// Reads common configuration. Reads past the end return 0.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        read_padded(&self.image(), offset, data);
    }

    /// Writes one register. Ignores a write that does not match a register, or that is not allowed
    /// in the present state of the device.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Option<Change> {
        let mut bytes = [0; 8];
        bytes.get_mut(..data.len())?.copy_from_slice(data);
        let value = u64::from_le_bytes(bytes);
        match (offset, data.len()) {
            (common::DEVICE_FEATURE_SELECT, 4) => self.state.device_feature_select = value as u32,
            (common::DRIVER_FEATURE_SELECT, 4) => self.state.driver_feature_select = value as u32,
            (common::DRIVER_FEATURE, 4) => self.write_features(value as u32),
            (common::CONFIG_MSIX_VECTOR, 2) => {
                self.state.config_vector = self.existing(value as u16);
            }
            (common::DEVICE_STATUS, 1) => return self.write_status(value as u8),
            (common::QUEUE_SELECT, 2) => self.state.queue_select = value as u16,
            (common::QUEUE_MSIX_VECTOR, 2) => {
                let vector = self.existing(value as u16);
                self.with_queue(|queue| queue.vector = vector);
            }
            (common::QUEUE_ENABLE, 2) => self.enable_queue(value),
            (common::QUEUE_SIZE.., _) => self.write_queue(offset, data.len(), value),
            _ => debug!(
                "common configuration: no register of {} bytes at {offset:#x}",
                data.len()
            ),
        }
        None
    }

    fn write_features(&mut self, value: u32) {
        if self.state.status & status::FEATURES_OK != 0 {
            return;
        }
        let shift = match self.state.driver_feature_select {
            0 => 0,
            1 => 32,
            _ => return,
        };
        let kept = self.state.driver_features & !(0xffff_ffff << shift);
        self.state.driver_features = kept | u64::from(value) << shift;
    }

    /// Returns `vector`, or [`NO_VECTOR`] if the device does not have this vector.
    fn existing(&self, vector: u16) -> u16 {
        if vector < self.vectors {
            vector
        } else {
            NO_VECTOR
        }
    }

    /// Writes the device status. The driver can only set bits. A write of 0 resets the device and
    /// clears all bits.
    fn write_status(&mut self, value: u8) -> Option<Change> {
        if value == 0 {
            self.reset();
            return Some(Change::Reset);
        }
        let before = self.state.status;
        let mut new = value & !before & !status::NEEDS_RESET;
        if new & status::FEATURES_OK != 0 && !self.acceptable() {
            debug!(
                "driver accepts features {:#x}: refused",
                self.state.driver_features
            );
            new &= !status::FEATURES_OK;
        }
        if (before | new) & status::FEATURES_OK == 0 {
            new &= !status::DRIVER_OK;
        }
        self.state.status |= new;
        (new & status::DRIVER_OK != 0).then_some(Change::DriverOk)
    }

    fn acceptable(&self) -> bool {
        let features = self.state.driver_features;
        features & !self.offered == 0 && features & 1 << VIRTIO_F_VERSION_1 != 0
    }

    fn with_queue(&mut self, change: impl FnOnce(&mut Queue)) {
        let selected = self
            .state
            .queues
            .get_mut(usize::from(self.state.queue_select));
        if let Some(queue) = selected.filter(|queue| !queue.enabled) {
            change(queue);
        }
    }

    fn enable_queue(&mut self, value: u64) {
        if value == 1 && self.state.status & status::FEATURES_OK != 0 {
            self.with_queue(|queue| queue.enabled = true);
        }
    }

    fn write_queue(&mut self, offset: u64, len: usize, value: u64) {
        let (max, packed) = (self.max_queue_size, self.is_packed());
        self.with_queue(|queue| match (offset, len) {
            (common::QUEUE_SIZE, 2) => {
                let size = value as u16;
                let possible = size.is_power_of_two() || size > 0 && packed;
                if possible && size <= max {
                    queue.size = size;
                }
            }
            (common::QUEUE_DESC.., _) => queue.write_address(offset, len, value),
            _ => {}
        });
    }

    /// The values of all registers.
    fn image(&self) -> [u8; common::SIZE as usize] {
        let state = &self.state;
        let mut image = [0; common::SIZE as usize];
        let mut put = |at: u64, bytes: &[u8]| {
            image[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        };
        let half = |value: u64, select: u32| match select {
            0 => (value as u32).to_le_bytes(),
            1 => ((value >> 32) as u32).to_le_bytes(),
            _ => [0; 4],
        };
        put(
            common::DEVICE_FEATURE_SELECT,
            &state.device_feature_select.to_le_bytes(),
        );
        put(
            common::DEVICE_FEATURE,
            &half(self.offered, state.device_feature_select),
        );
        put(
            common::DRIVER_FEATURE_SELECT,
            &state.driver_feature_select.to_le_bytes(),
        );
        put(
            common::DRIVER_FEATURE,
            &half(state.driver_features, state.driver_feature_select),
        );
        put(
            common::CONFIG_MSIX_VECTOR,
            &state.config_vector.to_le_bytes(),
        );
        put(
            common::NUM_QUEUES,
            &(state.queues.len() as u16).to_le_bytes(),
        );
        put(common::DEVICE_STATUS, &[state.status]);
        put(common::CONFIG_GENERATION, &[self.generation]);
        put(common::QUEUE_SELECT, &state.queue_select.to_le_bytes());
        let Some(queue) = state.queues.get(usize::from(state.queue_select)) else {
            put(common::QUEUE_MSIX_VECTOR, &NO_VECTOR.to_le_bytes());
            return image;
        };
        put(common::QUEUE_SIZE, &queue.size.to_le_bytes());
        put(common::QUEUE_MSIX_VECTOR, &queue.vector.to_le_bytes());
        put(
            common::QUEUE_ENABLE,
            &u16::from(queue.enabled).to_le_bytes(),
        );
        put(common::QUEUE_NOTIFY_OFF, &state.queue_select.to_le_bytes());
        put(common::QUEUE_DESC, &queue.desc.to_le_bytes());
        put(common::QUEUE_DRIVER, &queue.driver.to_le_bytes());
        put(common::QUEUE_DEVICE, &queue.device.to_le_bytes());
        image
    }
}

#[cfg(test)]
mod tests;
