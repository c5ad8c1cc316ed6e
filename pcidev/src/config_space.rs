//! The configuration space of a function with a type 0 header (PCI 3.0, section 6).

use virtio::pci::config_space as reg;

use crate::padded::read_padded;

/// Length of configuration space in bytes.
pub const SIZE: usize = 256;

/// Offset of the first capability, directly after the header.
const FIRST_CAPABILITY: usize = 0x40;

/// The bits of the command register that software may set.
const COMMAND_WRITABLE: u16 = reg::COMMAND_MEMORY | reg::COMMAND_BUS_MASTER | COMMAND_INTX_DISABLE;
/// The bit of the command register that disables INTx.
const COMMAND_INTX_DISABLE: u16 = 0x400;

/// The bits of the MSI-X message control register that software may set. The bits enable MSI-X and
/// mask all vectors.
const MSIX_CONTROL_WRITABLE: u16 = 0xc000;

/// The bit of a BAR register that marks a BAR with a 64-bit address. The next BAR register has the
/// upper half of the address.
const BAR_64: u32 = 0x4;
/// The bit of a BAR register that marks a prefetchable BAR. Reads of such a BAR have no side
/// effects.
const BAR_PREFETCHABLE: u32 = 0x8;

/// Id of the capability "advanced features" (PCI ECN "Advanced Capabilities for Conventional PCI").
/// With this capability, a function of conventional PCI shows that software can reset the function
/// alone.
const CAP_ADVANCED_FEATURES: u8 = 0x13;
/// The supported features, as bits in the capability "advanced features": a transactions-pending
/// bit and function-level reset.
const ADVANCED_FEATURES: u8 = 0x3;
/// Offset of the control register in the capability "advanced features". Bit 0 of the register
/// starts a function-level reset.
const RESET_CONTROL: usize = 4;

/// The ids by which software identifies a function.
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

/// The kind of a BAR: whether it holds registers or memory, and the addresses to which software may
/// map it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// Registers, mapped to any address below 4 GiB.
    Memory32,
    /// Registers, mapped to any address.
    Memory64,
    /// Memory, mapped to any address. Reads have no side effects.
    Prefetchable64,
}

/// The location of the MSI-X table and of the pending bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixLocation {
    /// Number of vectors, 1 to 2048.
    pub vectors: u16,
    /// Number of the BAR that holds the MSI-X table and the pending bits.
    pub bar: u8,
    /// Offset of the MSI-X table in the BAR, a multiple of 8.
    pub table: u32,
    /// Offset of the pending bits in the BAR, a multiple of 8.
    pub pending: u32,
}

/// A configuration space.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    /// The bits that software may write.
    writable: [u8; SIZE],
    /// The values of all bytes after a reset.
    initial: [u8; SIZE],
    /// Offset of the byte that links the last capability to its successor.
    /// [`ConfigSpace::add_capability`] writes the offset of the new capability to this byte.
    link: usize,
    next_capability: usize,
    /// Offset of the register by which software resets the function. `None` means that the function
    /// has no such register.
    reset_control: Option<usize>,
}

impl ConfigSpace {
    /// The configuration space of a function without BARs and capabilities.
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
    /// When there is no BAR with this number, or the size is not a power of two of at least 16.
    /// Both are mistakes in the code that emulates the function.
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

    /// Gives the function the INTx interrupt INTA.
    pub fn add_intx(&mut self) {
        self.set(reg::INTERRUPT_PIN, &[1]);
        // The register before the interrupt pin register is the interrupt line register. Software
        // may store the number of the interrupt controller's input in it.
        self.allow(reg::INTERRUPT_PIN - 1, &[0xff]);
    }

    /// Whether software has disabled INTx.
    pub fn disables_intx(&self) -> bool {
        let [_, high] = COMMAND_INTX_DISABLE.to_le_bytes();
        self.bytes[reg::COMMAND + 1] & high != 0
    }

    /// Appends a capability and returns the capability's offset. The second byte of the capability
    /// becomes the link to the next capability.
    ///
    /// # Panics
    ///
    /// When there is no room for the capability, which is a mistake in the code that emulates the
    /// function.
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
    /// When there is no room for the capability; see [`ConfigSpace::add_capability`].
    pub fn add_msix(&mut self, location: &MsixLocation) {
        let mut bytes = vec![reg::CAP_MSIX, 0];
        bytes.extend((location.vectors - 1).to_le_bytes());
        bytes.extend((location.table | u32::from(location.bar)).to_le_bytes());
        bytes.extend((location.pending | u32::from(location.bar)).to_le_bytes());
        let at = self.add_capability(&bytes);
        self.allow(at + 2, &MSIX_CONTROL_WRITABLE.to_le_bytes());
    }

    /// Appends the capability "advanced features", by which software resets only this function. A
    /// kernel uses the capability to reset the function when a process that drives the function
    /// ends or crashes.
    ///
    /// # Panics
    ///
    /// When there is no room for the capability; see [`ConfigSpace::add_capability`].
    pub fn add_function_level_reset(&mut self) {
        let at = self.add_capability(&[CAP_ADVANCED_FEATURES, 0, 6, ADVANCED_FEATURES, 0, 0]);
        self.reset_control = Some(at + RESET_CONTROL);
    }

    /// Whether a write of `data` at `offset` resets the function.
    pub fn is_reset(&self, offset: u64, data: &[u8]) -> bool {
        let place = self.reset_control.map(|at| at as u64);
        let index = place.and_then(|at| at.checked_sub(offset));
        let byte = index.and_then(|index| data.get(usize::try_from(index).ok()?));
        byte.is_some_and(|byte| byte & 1 != 0)
    }

    /// Lets software write the bits of `mask` from `offset` on.
    ///
    /// # Panics
    ///
    /// When the mask ends outside configuration space.
    pub fn allow(&mut self, offset: usize, mask: &[u8]) {
        self.writable[offset..offset + mask.len()].copy_from_slice(mask);
    }

    /// Sets the current values of bytes, and their values after a reset. Also sets bytes that
    /// software must not write.
    fn set(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.initial[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Reads bytes from `offset` on. Reads past the end return 0.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        read_padded(&self.bytes, offset, data);
    }

    /// Writes the bits that software may write. All other bits keep their values.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let bytes = self.bytes.iter_mut().zip(&self.writable);
        for ((byte, mask), new) in bytes.skip(offset as usize).zip(data) {
            *byte = *byte & !mask | new & mask;
        }
    }

    /// Sets all bytes back to their initial values.
    pub fn reset(&mut self) {
        self.bytes = self.initial;
    }
}

#[cfg(test)]
mod tests;
