//! The doorbells, which are registers. A write to a doorbell notifies the front-end.

use std::io;
use std::sync::Arc;

use virtio::Notifier;
use vvu_abi::Doorbell;

use crate::pci::Registers;

/// The device's doorbells.
#[derive(Debug)]
pub struct Doorbells {
    registers: Registers,
    multiplier: u32,
    queues: u16,
}

impl Doorbells {
    /// Makes doorbells that are `multiplier` bytes apart. [`Doorbells::get`] returns `None` until
    /// [`Doorbells::set_queues`] has been called.
    pub fn new(registers: Registers, multiplier: u32) -> Self {
        Self {
            registers,
            multiplier,
            queues: 0,
        }
    }

    /// Sets the number of vhost queues of the device. The index of a doorbell depends on this
    /// number.
    pub fn set_queues(&mut self, queues: u32) {
        self.queues = queues.try_into().unwrap_or(u16::MAX);
    }

    /// A notifier that rings this doorbell. `None` if the device does not have the doorbell.
    pub fn get(&self, doorbell: Doorbell) -> Option<Arc<dyn Notifier>> {
        let (Doorbell::Call(queue) | Doorbell::Error(queue)) = doorbell else {
            return None;
        };
        if queue >= self.queues {
            return None;
        }
        let index = u64::from(doorbell.index(self.queues));
        let offset = index * u64::from(self.multiplier);
        let bar_offset = self.registers.offset() + offset;
        if offset + 2 > self.registers.len() || !bar_offset.is_multiple_of(2) {
            return None;
        }
        let function = self.registers.function();
        let eventfd = function.register_eventfd(self.registers.bar(), bar_offset);
        Some(match eventfd {
            Some(eventfd) => eventfd,
            None => Arc::new(RegisterDoorbell {
                registers: self.registers.clone(),
                offset,
                queue,
            }),
        })
    }
}

/// A doorbell that is rung by a 16-bit write of the queue's index. All known VVU devices have a
/// fast path for writes of this width.
#[derive(Debug)]
struct RegisterDoorbell {
    registers: Registers,
    offset: u64,
    queue: u16,
}

impl Notifier for RegisterDoorbell {
    fn notify(&self) -> io::Result<()> {
        self.registers.write(self.offset, self.queue)
    }
}
