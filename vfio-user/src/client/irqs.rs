//! The client's methods for DEVICE_SET_IRQS, the command that sets up and triggers interrupts.

use std::os::fd::BorrowedFd;

use super::{Client, Result};
use crate::wire::{Command, Payload};

/// Length in bytes of the fixed part of the payload of DEVICE_SET_IRQS.
const SIZE: u32 = 20;
/// `VFIO_IRQ_SET_DATA_NONE`.
const DATA_NONE: u32 = 1;
/// `VFIO_IRQ_SET_DATA_EVENTFD`.
const DATA_EVENTFD: u32 = 4;
/// `VFIO_IRQ_SET_ACTION_MASK`.
const ACTION_MASK: u32 = 8;
/// `VFIO_IRQ_SET_ACTION_UNMASK`.
const ACTION_UNMASK: u32 = 16;
/// `VFIO_IRQ_SET_ACTION_TRIGGER`.
const ACTION_TRIGGER: u32 = 32;

impl Client {
    /// Makes the interrupts of kind `index`, from number `start` on, signal the eventfds `fds`. An
    /// interrupt with `None` no longer signals an eventfd.
    ///
    /// # Errors
    ///
    /// [`ClientError`](super::ClientError).
    pub fn set_irqs(
        &mut self,
        index: u32,
        start: u32,
        fds: &[Option<BorrowedFd<'_>>],
    ) -> Result<()> {
        let mut number = start;
        // A message has either a file descriptor for each of its interrupts, or no file descriptor.
        for run in fds.chunk_by(|one, next| one.is_some() == next.is_some()) {
            for part in run.chunks(self.server.max_fds.max(1)) {
                let fds: Vec<_> = part.iter().flatten().copied().collect();
                let flags = DATA_EVENTFD | ACTION_TRIGGER;
                self.set(flags, index, number, part.len() as u32, &fds)?;
                number = number.saturating_add(part.len() as u32);
            }
        }
        Ok(())
    }

    /// Disables all interrupts of kind `index`.
    ///
    /// # Errors
    ///
    /// [`ClientError`](super::ClientError).
    pub fn disable_irqs(&mut self, index: u32) -> Result<()> {
        self.set(DATA_NONE | ACTION_TRIGGER, index, 0, 0, &[])
    }

    /// Triggers `count` interrupts of kind `index` from number `start` on, as if the device had
    /// triggered them.
    ///
    /// # Errors
    ///
    /// [`ClientError`](super::ClientError).
    pub fn trigger_irqs(&mut self, index: u32, start: u32, count: u32) -> Result<()> {
        self.set(DATA_NONE | ACTION_TRIGGER, index, start, count, &[])
    }

    /// Masks `count` interrupts of kind `index` from number `start` on.
    ///
    /// # Errors
    ///
    /// [`ClientError`](super::ClientError).
    pub fn mask_irqs(&mut self, index: u32, start: u32, count: u32) -> Result<()> {
        self.set(DATA_NONE | ACTION_MASK, index, start, count, &[])
    }

    /// Unmasks `count` interrupts of kind `index` from number `start` on.
    ///
    /// # Errors
    ///
    /// [`ClientError`](super::ClientError).
    pub fn unmask_irqs(&mut self, index: u32, start: u32, count: u32) -> Result<()> {
        self.set(DATA_NONE | ACTION_UNMASK, index, start, count, &[])
    }

    fn set(
        &mut self,
        flags: u32,
        index: u32,
        start: u32,
        count: u32,
        fds: &[BorrowedFd<'_>],
    ) -> Result<()> {
        let head = Payload::default().u32(SIZE).u32(flags);
        let request = head.u32(index).u32(start).u32(count);
        self.call(Command::DeviceSetIrqs, request, fds)?;
        Ok(())
    }
}
