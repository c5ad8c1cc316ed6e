//! Doorbells: writes that tell the front-end something.

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
    /// Doorbells that are `multiplier` bytes apart; none of them counts until it is known how many
    /// queues there are.
    pub fn new(registers: Registers, multiplier: u32) -> Self {
        Self {
            registers,
            multiplier,
            queues: 0,
        }
    }

    /// Says how many vhost queues the device has, by which doorbells are numbered.
    pub fn set_queues(&mut self, queues: u32) {
        self.queues = queues.try_into().unwrap_or(u16::MAX);
    }

    /// What rings this doorbell; `None`: there is no such one.
    pub fn get(&self, doorbell: Doorbell) -> Option<Arc<dyn Notifier>> {
        let (Doorbell::Call(queue) | Doorbell::Error(queue)) = doorbell else {
            return None;
        };
        if queue >= self.queues {
            return None;
        }
        let index = u64::from(doorbell.index(self.queues));
        let offset = index * u64::from(self.multiplier);
        let place = self.registers.offset() + offset;
        if offset + 2 > self.registers.len() || !place.is_multiple_of(2) {
            return None;
        }
        let function = self.registers.function();
        let eventfd = function.register_eventfd(self.registers.bar(), place);
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

/// A doorbell that is rung by a 16-bit write of the queue's index: the width that every device
/// takes on its fast path.
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
