//! Accesses to BAR 0.

use super::{Change, Layout, Place, Registers};
use crate::msix::Msix;

/// All structures in BAR 0 but the device-specific configuration.
#[derive(Debug)]
pub struct Structures {
    /// Where they are.
    pub layout: Layout,
    /// Common configuration and interrupt status.
    pub registers: Registers,
}

/// What a driver's access means for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It reset the device. The registers are already reset.
    Reset,
    /// It is ready.
    DriverOk,
    /// It added buffers to this queue.
    Notify(u16),
    /// It accesses device-specific configuration at this offset. The device has to do that.
    Config(u64),
}

impl Structures {
    /// Does a read, unless device-specific configuration is read.
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

    /// Does a write, as far as that needs no knowledge of the device.
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
