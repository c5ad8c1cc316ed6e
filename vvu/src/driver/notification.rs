//! The notification registers, which choose the MSI-X vectors for the front-end's kicks.

use std::io;
use std::sync::Arc;

use virtio::pci::NO_VECTOR;
use vvu_abi::{cfg_type, notification};

use super::{DriverError, vector};
use crate::pci::{PciFunction, Registers};
use crate::virtio_pci::{Capabilities, VirtioError};

/// The notification registers of a VVU device.
#[derive(Debug)]
pub struct Notifications {
    registers: Registers,
    queue_count: u16,
}

impl Notifications {
    /// Finds the notification registers, for a back-end of `queue_count` queues.
    ///
    /// # Errors
    ///
    /// [`VirtioError`] when the device lacks the registers or the registers are not inside their
    /// BAR.
    pub fn new(
        function: &Arc<dyn PciFunction>,
        capabilities: &Capabilities,
        queue_count: u16,
    ) -> Result<Self, VirtioError> {
        let cfg_type = cfg_type::NOTIFICATION;
        Ok(Self {
            registers: capabilities.trapped(function, cfg_type, notification::SIZE)?,
            queue_count,
        })
    }

    /// Makes the kicks of each queue raise the queue's own vector. The driver has to call this
    /// function for each front-end, because some devices forget the vectors when a front-end
    /// leaves.
    ///
    /// # Errors
    ///
    /// [`DriverError::NotificationRefused`], or when the PCI function is gone.
    pub fn program(&self) -> Result<(), DriverError> {
        for queue in 0..self.queue_count {
            self.program_one(queue, vector::KICK + queue)?;
        }
        Ok(())
    }

    fn program_one(&self, queue: u16, vector: u16) -> Result<(), DriverError> {
        let refused = DriverError::NotificationRefused { queue, vector };
        self.registers.write(notification::SELECT, queue)?;
        if self.registers.read::<u16>(notification::SELECT)? != queue {
            return Err(refused);
        }
        self.registers.write(notification::VECTOR, vector)?;
        match self.registers.read::<u16>(notification::VECTOR)? {
            programmed if programmed == vector => Ok(()),
            _ => Err(refused),
        }
    }

    /// Tells the device to raise no vectors for kicks.
    ///
    /// # Errors
    ///
    /// When the PCI function is gone.
    pub fn clear(&self) -> io::Result<()> {
        for queue in 0..self.queue_count {
            self.registers.write(notification::SELECT, queue)?;
            self.registers.write(notification::VECTOR, NO_VECTOR)?;
        }
        Ok(())
    }
}
