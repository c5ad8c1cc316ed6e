//! The driver's side of a modern virtio device on PCI (virtio 1.2, section 4.1).
//!
//! The driver does not trust the device. The driver checks offsets against the sizes of BARs, reads
//! values back after writing them, and checks entries of used rings before using them.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use virtio::pci::{NO_VECTOR, common, status};

use crate::pci::{PciFunction, Registers};

mod capabilities;
mod error;
mod queue;

pub use capabilities::Capabilities;
pub use error::VirtioError;
pub use queue::{DriverQueue, QueueLayout, Used, UsedError};

/// The limits on waiting for a device to answer.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The maximum time to wait for an answer.
    pub limit: Duration,
    /// The pause between two checks for an answer.
    pub step: Duration,
}

impl Patience {
    /// Limits that are long enough for a working device.
    pub const DEFAULT: Self = Self {
        limit: Duration::from_secs(3),
        step: Duration::from_millis(1),
    };

    /// Calls `check` at least once, until `check` returns a value or the time limit has passed.
    /// Returns `None` if `check` has not returned a value.
    ///
    /// # Errors
    ///
    /// The first error of `check`.
    pub fn wait_for<T, E>(
        self,
        mut check: impl FnMut() -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        let start = Instant::now();
        loop {
            let found = check()?;
            if found.is_some() || start.elapsed() >= self.limit {
                return Ok(found);
            }
            std::thread::sleep(self.step);
        }
    }
}

/// The common registers and the queue notification registers of a device.
#[derive(Debug)]
pub struct VirtioPci {
    common: Registers,
    notify: Registers,
    notify_multiplier: u32,
    patience: Patience,
}

impl VirtioPci {
    /// Finds the registers of a device.
    ///
    /// # Errors
    ///
    /// [`VirtioError`] when the device lacks the registers or the registers are not inside their
    /// BARs.
    pub fn new(
        function: &Arc<dyn PciFunction>,
        capabilities: &Capabilities,
        patience: Patience,
    ) -> Result<Self, VirtioError> {
        let notify = capabilities.find(virtio::pci::cfg_type::NOTIFY)?;
        Ok(Self {
            common: capabilities.trapped(function, virtio::pci::cfg_type::COMMON, common::SIZE)?,
            notify: capabilities.mapped(function, virtio::pci::cfg_type::NOTIFY, 2)?,
            notify_multiplier: notify.multiplier.unwrap_or(0),
            patience,
        })
    }

    /// Reads the device status register.
    ///
    /// # Errors
    ///
    /// When the PCI function is gone.
    pub fn status(&self) -> io::Result<u8> {
        self.common.read(common::DEVICE_STATUS)
    }

    /// Whether the device has to be reset. Also true if all bits of the status register read as
    /// one, which may happen after the device has been unplugged.
    ///
    /// # Errors
    ///
    /// When the PCI function is gone.
    pub fn needs_reset(&self) -> io::Result<bool> {
        Ok(self.status()? & status::NEEDS_RESET != 0)
    }

    /// Sets bits of the device status.
    ///
    /// # Errors
    ///
    /// When the PCI function is gone.
    pub fn add_status(&self, bits: u8) -> io::Result<()> {
        let before = self.status()?;
        self.common.write(common::DEVICE_STATUS, before | bits)
    }

    /// Resets the device if its status is not 0. A device with status 0 has already been reset, and
    /// a second reset would make some devices forget a front-end that connected before the driver
    /// started.
    ///
    /// # Errors
    ///
    /// [`VirtioError::ResetTimeout`] when the device does not finish the reset.
    pub fn reset(&self) -> Result<(), VirtioError> {
        if self.status()? == 0 {
            return Ok(());
        }
        self.common.write(common::DEVICE_STATUS, 0u8)?;
        let done = self
            .patience
            .wait_for(|| io::Result::Ok((self.status()? == 0).then_some(())))?;
        done.ok_or(VirtioError::ResetTimeout(self.patience.limit))
    }

    /// Sets the ACKNOWLEDGE and DRIVER bits of the device status, and accepts the features of
    /// `wanted` that the device offers. Returns the accepted features.
    ///
    /// # Errors
    ///
    /// [`VirtioError`] when the device does not offer all of `required`, or refuses features.
    pub fn negotiate(&self, wanted: u64, required: u64) -> Result<u64, VirtioError> {
        self.add_status(status::ACKNOWLEDGE)?;
        self.add_status(status::DRIVER)?;
        let offered = self.device_features()?;
        let missing = required & !offered;
        if missing != 0 {
            return Err(VirtioError::MissingFeatures(missing));
        }
        let accepted = offered & wanted;
        for (half, bits) in [(0u32, accepted as u32), (1, (accepted >> 32) as u32)] {
            self.common.write(common::DRIVER_FEATURE_SELECT, half)?;
            self.common.write(common::DRIVER_FEATURE, bits)?;
        }
        self.add_status(status::FEATURES_OK)?;
        if self.status()? & status::FEATURES_OK == 0 {
            return Err(VirtioError::FeaturesRefused(accepted));
        }
        Ok(accepted)
    }

    fn device_features(&self) -> io::Result<u64> {
        let mut halves = [0u32; 2];
        for (half, bits) in halves.iter_mut().enumerate() {
            self.common
                .write(common::DEVICE_FEATURE_SELECT, half as u32)?;
            *bits = self.common.read(common::DEVICE_FEATURE)?;
        }
        Ok(u64::from(halves[0]) | u64::from(halves[1]) << 32)
    }

    /// The number of queues of the device.
    ///
    /// # Errors
    ///
    /// When the PCI function is gone.
    pub fn queue_count(&self) -> io::Result<u16> {
        self.common.read(common::NUM_QUEUES)
    }

    /// Sets the MSI-X vector that the device raises for configuration changes.
    ///
    /// # Errors
    ///
    /// [`VirtioError::VectorRefused`].
    pub fn set_config_vector(&self, vector: u16) -> Result<(), VirtioError> {
        self.write_vector(common::CONFIG_MSIX_VECTOR, vector)
    }

    fn write_vector(&self, register: u64, vector: u16) -> Result<(), VirtioError> {
        self.common.write(register, vector)?;
        if self.common.read::<u16>(register)? != vector {
            return Err(VirtioError::VectorRefused(vector));
        }
        Ok(())
    }

    /// Sets the size of queue `index` to `wanted` (a power of two), or to the device's maximum size
    /// if the maximum is smaller. Returns the size.
    ///
    /// # Errors
    ///
    /// [`VirtioError::BadQueueSize`] when the device lacks the queue or has an invalid size for it.
    pub fn choose_queue_size(&self, index: u16, wanted: u16) -> Result<u16, VirtioError> {
        self.common.write(common::QUEUE_SELECT, index)?;
        let offered: u16 = self.common.read(common::QUEUE_SIZE)?;
        let size = offered.min(wanted);
        if !offered.is_power_of_two() {
            return Err(VirtioError::BadQueueSize(index, offered));
        }
        self.common.write(common::QUEUE_SIZE, size)?;
        match self.common.read::<u16>(common::QUEUE_SIZE)? {
            taken if taken == size => Ok(size),
            other => Err(VirtioError::BadQueueSize(index, other)),
        }
    }

    /// Tells the device the addresses and the MSI-X vector of queue `index`. Returns the
    /// notification register of the queue. The device does not use the queue before
    /// [`VirtioPci::enable_queue`].
    ///
    /// # Errors
    ///
    /// [`VirtioError`] when the device refuses a value or returns an invalid value.
    pub fn configure_queue(
        &self,
        index: u16,
        layout: &QueueLayout,
        vector: u16,
    ) -> Result<QueueNotify, VirtioError> {
        self.common.write(common::QUEUE_SELECT, index)?;
        for (register, address) in [
            (common::QUEUE_DESC, layout.desc),
            (common::QUEUE_DRIVER, layout.avail),
            (common::QUEUE_DEVICE, layout.used),
        ] {
            self.common.write(register, address as u32)?;
            self.common.write(register + 4, (address >> 32) as u32)?;
        }
        self.write_vector(common::QUEUE_MSIX_VECTOR, vector)?;
        let notify_off: u16 = self.common.read(common::QUEUE_NOTIFY_OFF)?;
        let offset = u64::from(notify_off) * u64::from(self.notify_multiplier);
        if offset + 2 > self.notify.len() || !offset.is_multiple_of(2) {
            return Err(VirtioError::BadNotifyOffset(index, notify_off));
        }
        let registers = self.notify.clone();
        Ok(QueueNotify {
            registers,
            offset,
            index,
        })
    }

    /// Lets the device use queue `index`, which has to be configured.
    ///
    /// # Errors
    ///
    /// When the PCI function is gone.
    pub fn enable_queue(&self, index: u16) -> io::Result<()> {
        self.common.write(common::QUEUE_SELECT, index)?;
        self.common.write(common::QUEUE_ENABLE, 1u16)
    }

    /// Tells the device to raise no vectors for configuration changes and for the first `queues`
    /// queues.
    ///
    /// # Errors
    ///
    /// When the PCI function is gone.
    pub fn clear_vectors(&self, queues: u16) -> io::Result<()> {
        self.common.write(common::CONFIG_MSIX_VECTOR, NO_VECTOR)?;
        for index in 0..queues {
            self.common.write(common::QUEUE_SELECT, index)?;
            self.common.write(common::QUEUE_MSIX_VECTOR, NO_VECTOR)?;
        }
        Ok(())
    }
}

/// The notification register of a queue.
#[derive(Debug)]
pub struct QueueNotify {
    registers: Registers,
    offset: u64,
    index: u16,
}

impl QueueNotify {
    /// Tells the device that the queue has new buffers.
    ///
    /// # Errors
    ///
    /// When the PCI function is gone.
    pub fn notify(&self) -> io::Result<()> {
        self.registers.write(self.offset, self.index)
    }
}
