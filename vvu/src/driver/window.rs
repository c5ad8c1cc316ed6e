//! The front-end's memory, as a window in a BAR.

use std::sync::Arc;

use vhost::vhost_user::message::VhostUserMemoryRegion;
use virtio::Region;
use virtio::memory::RegionError;
use virtio::pci::Capability;
use vm_memory::GuestAddress;

use super::{DriverError, LayoutRule};
use crate::pci::PciFunction;
use crate::transport::MemoryRegion;

/// The window through which the front-end's memory is seen.
#[derive(Debug)]
pub struct Window {
    function: Arc<dyn PciFunction>,
    bar: u8,
    base: u64,
    bar_size: u64,
    rule: LayoutRule,
    /// Where the next table begins, in bytes from the base.
    cursor: u64,
}

/// Why a memory table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// A region's addresses wrap around, or there are none.
    #[error("memory region {0} is empty or wraps around")]
    BadRange(usize),
    /// Two regions have addresses in common.
    #[error("memory regions {0} and {1} overlap")]
    Overlap(usize, usize),
    /// A region would end behind the BAR.
    #[error(
        "memory region {index} would end at {end:#x} of BAR {bar}, which has {bar_size:#x} bytes: \
         give the device a larger one"
    )]
    TooLarge {
        /// Which region of the table.
        index: usize,
        /// Where in the BAR it would end, in bytes.
        end: u64,
        /// The BAR.
        bar: u8,
        /// The BAR's size in bytes.
        bar_size: u64,
    },
    /// A part of the BAR cannot be mapped.
    #[error("memory region {index} is in a part of BAR {bar} that cannot be mapped")]
    NotMappable {
        /// Which region of the table.
        index: usize,
        /// The BAR.
        bar: u8,
    },
    /// The operating system refuses the mapping.
    #[error(transparent)]
    Map(#[from] RegionError),
}

impl Window {
    /// The window that a capability describes. Its length is what the BAR has from there on; that
    /// in the capability has too few bits and is wrong with some devices.
    ///
    /// # Errors
    ///
    /// [`DriverError::BadWindow`] when it is not inside the BAR.
    pub fn new(
        function: Arc<dyn PciFunction>,
        capability: &Capability,
        rule: LayoutRule,
    ) -> Result<Self, DriverError> {
        let bar = capability.bar;
        let base = u64::from(capability.offset);
        let bar_size = function.bar_size(bar);
        if base >= bar_size {
            let size = bar_size;
            return Err(DriverError::BadWindow { bar, size });
        }
        Ok(Self {
            function,
            bar,
            base,
            bar_size,
            rule,
            cursor: 0,
        })
    }

    /// Says that there is another front-end, whose tables begin at the start of the window.
    pub fn rewind(&mut self) {
        self.cursor = 0;
    }

    /// Says where in the BAR each region of a table begins, in bytes.
    ///
    /// # Errors
    ///
    /// [`WindowError`] when the table makes no sense or does not fit.
    pub fn place(&mut self, table: &[VhostUserMemoryRegion]) -> Result<Vec<u64>, WindowError> {
        check_ranges(table)?;
        let mut cursor = self.cursor;
        let mut places = Vec::with_capacity(table.len());
        for (index, region) in table.iter().enumerate() {
            let skipped = match self.rule {
                LayoutRule::WithOffsets => region.mmap_offset,
                LayoutRule::Packed | LayoutRule::Growing => 0,
            };
            let start = cursor.saturating_add(skipped).saturating_add(self.base);
            let end = start.saturating_add(region.memory_size);
            if end > self.bar_size {
                return Err(WindowError::TooLarge {
                    index,
                    end,
                    bar: self.bar,
                    bar_size: self.bar_size,
                });
            }
            places.push(start);
            cursor = end - self.base;
        }
        if self.rule == LayoutRule::Growing {
            self.cursor = cursor;
        }
        Ok(places)
    }

    /// Maps the regions of a table, and nothing else of the BAR: the kernel may populate a mapping
    /// of a BAR whole at its first touch.
    ///
    /// # Errors
    ///
    /// [`WindowError`].
    pub fn map(
        &mut self,
        table: &[VhostUserMemoryRegion],
    ) -> Result<Vec<MemoryRegion>, WindowError> {
        let places = self.place(table)?;
        let regions = table.iter().zip(places).enumerate();
        regions
            .map(|(index, (region, place))| self.map_region(index, region, place))
            .collect()
    }

    fn map_region(
        &self,
        index: usize,
        region: &VhostUserMemoryRegion,
        place: u64,
    ) -> Result<MemoryRegion, WindowError> {
        let size = region.memory_size;
        let part = self.function.bar_file(self.bar, place, size);
        let part = part.ok_or(WindowError::NotMappable {
            index,
            bar: self.bar,
        })?;
        let start = GuestAddress(region.guest_phys_addr);
        let mapped = Region::map(part.file, part.offset, start, size, part.direct_io)?;
        Ok(MemoryRegion {
            region: Arc::new(mapped),
            user_addr: region.user_addr,
        })
    }
}

/// Checks that each region is a range of addresses, and that no two overlap, both for the guest and
/// for the front-end.
fn check_ranges(table: &[VhostUserMemoryRegion]) -> Result<(), WindowError> {
    for (index, region) in table.iter().enumerate() {
        let size = region.memory_size;
        let fits = |start: u64| start.checked_add(size).is_some();
        if size == 0 || !fits(region.guest_phys_addr) || !fits(region.user_addr) {
            return Err(WindowError::BadRange(index));
        }
        let overlaps = |other: &VhostUserMemoryRegion| {
            let apart = |one: u64, two: u64| one + size <= two || two + other.memory_size <= one;
            !apart(region.guest_phys_addr, other.guest_phys_addr)
                || !apart(region.user_addr, other.user_addr)
        };
        if let Some(other) = table[..index].iter().position(overlaps) {
            return Err(WindowError::Overlap(other, index));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
