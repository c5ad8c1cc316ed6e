//! Configuration space of a function with a type 0 header (PCI 3.0, section 6).

use virtio::pci::config_space as reg;

use crate::padded::read_padded;

/// Length of configuration space in bytes.
pub const SIZE: usize = 256;

/// Where the first capability goes: right behind the header.
const FIRST_CAPABILITY: usize = 0x40;

/// The bits of the command register that software may set: memory, bus master, INTx disable.
const COMMAND_WRITABLE: u16 = reg::COMMAND_MEMORY | reg::COMMAND_BUS_MASTER | COMMAND_INTX_DISABLE;
/// The last of them.
const COMMAND_INTX_DISABLE: u16 = 0x400;

/// The bits of MSI-X message control that software may set: enable, function mask.
const MSIX_CONTROL_WRITABLE: u16 = 0xc000;

/// BAR register: the BAR has 64 bits and takes the next register, too.
const BAR_64: u32 = 0x4;
/// BAR register: reads have no side effects.
const BAR_PREFETCHABLE: u32 = 0x8;

/// Capability id of the conventional PCI advanced features, in which a function says that it can
/// be reset alone (PCI ECN "Advanced Capabilities for Conventional PCI").
const CAP_ADVANCED_FEATURES: u8 = 0x13;
/// Advanced features: transactions-pending bit and function-level reset.
const ADVANCED_FEATURES: u8 = 0x3;
/// Offset of the register whose bit 0 starts a function-level reset.
const RESET_CONTROL: usize = 4;

/// What software recognises a function by.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Revision id.
    pub revision: u8,
    /// Class, subclass and programming interface, in the three low bytes.
    pub class: u32,
    /// Subsystem vendor id.
    pub subsystem_vendor: u16,
    /// Subsystem id.
    pub subsystem: u16,
}

/// What kind of memory a BAR is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// Registers, below 4 GiB.
    Memory32,
    /// Registers, anywhere.
    Memory64,
    /// Memory, anywhere.
    Prefetchable64,
}

/// Where the MSI-X table and its pending bits are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixLocation {
    /// Number of vectors, 1 to 2048.
    pub vectors: u16,
    /// The BAR that holds both.
    pub bar: u8,
    /// Offset of the table in the BAR, a multiple of 8.
    pub table: u32,
    /// Offset of the pending bits in the BAR, a multiple of 8.
    pub pending: u32,
}

/// Configuration space, with a mask of the bits that software may write.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    initial: [u8; SIZE],
    /// Where the link to the next capability goes.
    link: usize,
    next_capability: usize,
    /// Where software starts a function-level reset.
    reset_control: Option<usize>,
}

impl ConfigSpace {
    /// A function without BARs and capabilities.
    pub fn new(identity: &Identity) -> Self {
        let mut space = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            initial: [0; SIZE],
            link: reg::CAPABILITIES,
            next_capability: FIRST_CAPABILITY,
            reset_control: None,
        };
        space.set(reg::VENDOR_ID, &identity.vendor.to_le_bytes());
        space.set(reg::DEVICE_ID, &identity.device.to_le_bytes());
        space.set(reg::REVISION, &[identity.revision]);
        space.set(reg::CLASS, &identity.class.to_le_bytes()[..3]);
        space.set(
            reg::SUBSYSTEM_VENDOR_ID,
            &identity.subsystem_vendor.to_le_bytes(),
        );
        space.set(reg::SUBSYSTEM_ID, &identity.subsystem.to_le_bytes());
        space.allow(reg::COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        space
    }

    /// Adds a BAR.
    ///
    /// # Panics
    ///
    /// When there is no such BAR or its size is no power of two, which is a mistake in the code
    /// that emulates the function.
    pub fn add_bar(&mut self, index: usize, kind: BarKind, size: u64) {
        assert!(size.is_power_of_two() && size >= 16, "size of BAR {index}");
        let at = reg::BARS + 4 * index;
        let mask = (!(size - 1)).to_le_bytes();
        let (flags, width) = match kind {
            BarKind::Memory32 => (0, 4),
            BarKind::Memory64 => (BAR_64, 8),
            BarKind::Prefetchable64 => (BAR_64 | BAR_PREFETCHABLE, 8),
        };
        assert!(at + width <= reg::BARS + 24, "BAR {index} does not exist");
        self.set(at, &flags.to_le_bytes());
        self.allow(at, &mask[..width]);
    }

    /// Says that the function has an INTx interrupt: INTA.
    pub fn add_intx(&mut self) {
        self.set(reg::INTERRUPT_PIN, &[1]);
        // Where it is connected to is a note of software to itself.
        self.allow(reg::INTERRUPT_PIN - 1, &[0xff]);
    }

    /// Whether software holds the INTx interrupt back.
    pub fn disables_intx(&self) -> bool {
        let [_, high] = COMMAND_INTX_DISABLE.to_le_bytes();
        self.bytes[reg::COMMAND + 1] & high != 0
    }

    /// Appends a capability, whose second byte becomes the link to the next one. Gives its offset.
    ///
    /// # Panics
    ///
    /// When there is no room for it, which is a mistake in the code that emulates the function.
    pub fn add_capability(&mut self, bytes: &[u8]) -> usize {
        let at = self.next_capability;
        assert!(
            bytes.len() > 2 && at + bytes.len() <= SIZE,
            "capability at {at:#x}"
        );
        self.set(at, bytes);
        self.set(at + 1, &[0]);
        self.set(self.link, &[at as u8]);
        self.set(reg::STATUS, &reg::STATUS_CAPABILITIES.to_le_bytes());
        self.link = at + 1;
        self.next_capability = (at + bytes.len()).next_multiple_of(4);
        at
    }

    /// Appends the MSI-X capability.
    ///
    /// # Panics
    ///
    /// As [`ConfigSpace::add_capability`].
    pub fn add_msix(&mut self, location: &MsixLocation) {
        let mut bytes = vec![reg::CAP_MSIX, 0];
        bytes.extend((location.vectors - 1).to_le_bytes());
        bytes.extend((location.table | u32::from(location.bar)).to_le_bytes());
        bytes.extend((location.pending | u32::from(location.bar)).to_le_bytes());
        let at = self.add_capability(&bytes);
        self.allow(at + 2, &MSIX_CONTROL_WRITABLE.to_le_bytes());
    }

    /// Appends the capability by which software resets the function alone, as a kernel does when a
    /// driver in a process ends in whatever way.
    ///
    /// # Panics
    ///
    /// As [`ConfigSpace::add_capability`].
    pub fn add_function_level_reset(&mut self) {
        let at = self.add_capability(&[CAP_ADVANCED_FEATURES, 0, 6, ADVANCED_FEATURES, 0, 0]);
        self.reset_control = Some(at + RESET_CONTROL);
    }

    /// Whether this write starts a function-level reset.
    pub fn is_reset(&self, offset: u64, data: &[u8]) -> bool {
        let place = self.reset_control.map(|at| at as u64);
        let index = place.and_then(|at| at.checked_sub(offset));
        let byte = index.and_then(|index| data.get(usize::try_from(index).ok()?));
        byte.is_some_and(|byte| byte & 1 != 0)
    }

    /// Lets software write these bits from `offset` on.
    ///
    /// # Panics
    ///
    /// When they are outside configuration space.
    pub fn allow(&mut self, offset: usize, mask: &[u8]) {
        self.writable[offset..offset + mask.len()].copy_from_slice(mask);
    }

    /// Sets bytes whatever software may write; a reset brings them back.
    fn set(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.initial[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Reads. Reads past the end return 0.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        read_padded(&self.bytes, offset, data);
    }

    /// Writes what software may write; the rest is ignored.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let bytes = self.bytes.iter_mut().zip(&self.writable);
        for ((byte, mask), new) in bytes.skip(offset as usize).zip(data) {
            *byte = *byte & !mask | new & mask;
        }
    }

    /// Undoes all that software wrote.
    pub fn reset(&mut self) {
        self.bytes = self.initial;
    }
}

#[cfg(test)]
mod tests;
