//! Reads and writes of the structures in BAR 0.

use super::{Change, Layout, Place, Registers};
use crate::msix::Msix;

/// All structures in BAR 0, except the device-specific configuration.
#[derive(Debug)]
pub struct Structures {
    /// The location of the structures in BAR 0.
    pub layout: Layout,
    /// Common configuration and interrupt status.
    pub registers: Registers,
}

/// The effect of a driver's access, which the device has to handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The driver reset the device. The registers are already reset.
    Reset,
    /// The driver has set DRIVER_OK.
    DriverOk,
    /// The driver notified the device of new buffers in this queue.
    Notify(u16),
    /// The driver accesses device-specific configuration at this offset. The device has to carry
    /// out the access.
    Config(u64),
}

impl Structures {
    /// Carries out a read. If the driver reads device-specific configuration, returns an event
    /// instead.
    pub fn read(&mut self, msix: &Msix, offset: u64, data: &mut [u8]) -> Option<Event> {
        match self.layout.locate(offset) {
            Place::Common(offset) => self.registers.read(offset, data),
            Place::Device(offset) => return Some(Event::Config(offset)),
            Place::Table(offset) => msix.read_table(offset, data),
            Place::Pending(offset) => msix.read_pending(offset, data),
            Place::Isr => {
                data.fill(0);
                if let Some(first) = data.first_mut() {
                    *first = self.registers.take_isr();
                }
            }
            Place::Notify(_) | Place::Nowhere => data.fill(0),
        }
        None
    }

    /// Carries out a write. Returns an event if the device has to act on the write.
    pub fn write(&mut self, msix: &mut Msix, offset: u64, data: &[u8]) -> Option<Event> {
        match self.layout.locate(offset) {
            Place::Common(offset) => {
                return self.registers.write(offset, data).map(Event::from);
            }
            Place::Device(offset) => return Some(Event::Config(offset)),
            Place::Notify(queue) => return Some(Event::Notify(queue)),
            Place::Table(offset) => msix.write_table(offset, data),
            Place::Isr | Place::Pending(_) | Place::Nowhere => {}
        }
        None
    }

    /// Tells the driver that the device-specific configuration or the device status changed.
    pub fn config_changed(&mut self, msix: &Msix) {
        msix.trigger(self.registers.config_changed());
    }
}

impl From<Change> for Event {
    fn from(change: Change) -> Self {
        match change {
            Change::Reset => Self::Reset,
            Change::DriverOk => Self::DriverOk,
        }
    }
}
