//! The window in a BAR that shows the front-end's memory.

use std::sync::Arc;

use vhost_user::{Absent, MemoryRegion, MemoryTable};
use virtio::Region;
use virtio::memory::RegionError;
use virtio::pci::Capability;
use vm_memory::GuestAddress;

use super::{DriverError, LayoutRule};
use crate::pci::PciFunction;

/// The window in a BAR that shows the front-end's memory.
#[derive(Debug)]
pub struct Window {
    function: Arc<dyn PciFunction>,
    bar: u8,
    base: u64,
    bar_size: u64,
    rule: LayoutRule,
    /// The offset in the window at which the regions of the next memory table begin, in bytes.
    cursor: u64,
}

/// The reason why the regions of a memory table cannot be mapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WindowError {
    /// A memory region would end beyond the end of the BAR.
    #[error(
        "memory region {index} would end at {end:#x} of BAR {bar}, which has {bar_size:#x} bytes: \
         give the device a larger BAR"
    )]
    TooLarge {
        /// The index of the region in the table.
        index: usize,
        /// The offset in the BAR at which the region would end, in bytes.
        end: u64,
        /// The number of the BAR.
        bar: u8,
        /// The size of the BAR in bytes.
        bar_size: u64,
    },
    /// A part of the BAR cannot be mapped.
    #[error("memory region {index} is in a part of BAR {bar} that cannot be mapped")]
    NotMappable {
        /// The index of the region in the table.
        index: usize,
        /// The number of the BAR.
        bar: u8,
    },
    /// The operating system refuses the mapping.
    #[error(transparent)]
    Map(#[from] RegionError),
}

impl Window {
    /// Makes the window that a capability describes. The window extends to the end of the BAR. The
    /// length in the capability is ignored, because the length field has too few bits for a large
    /// window, and some devices set it to a wrong value.
    ///
    /// # Errors
    ///
    /// [`DriverError::BadWindow`] when the window does not begin inside the BAR.
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

    /// Prepares for the next front-end, whose first table begins at the start of the window.
    pub fn rewind(&mut self) {
        self.cursor = 0;
    }

    /// Computes where in the BAR each region of a table begins, in bytes.
    ///
    /// # Errors
    ///
    /// [`WindowError::TooLarge`] when the table does not fit.
    pub fn place<M>(&mut self, table: &MemoryTable<M>) -> Result<Vec<u64>, WindowError> {
        let table = table.regions();
        let mut cursor = self.cursor;
        let mut places = Vec::with_capacity(table.len());
        for (index, region) in table.iter().enumerate() {
            let skipped = match self.rule {
                LayoutRule::WithOffsets => region.file_offset,
                LayoutRule::Packed | LayoutRule::Growing => 0,
            };
            let start = cursor.saturating_add(skipped).saturating_add(self.base);
            let end = start.saturating_add(region.size);
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

    /// Maps the regions of a table. The rest of the BAR is not mapped, because the first access to
    /// a mapping may make the kernel populate the whole mapping.
    ///
    /// # Errors
    ///
    /// [`WindowError`].
    pub fn map(
        &mut self,
        table: MemoryTable<Absent>,
    ) -> Result<MemoryTable<Arc<Region>>, WindowError> {
        let mut places = self.place(&table)?.into_iter().enumerate();
        // `place` returned an entry for each region, so the default is never used.
        table.try_map(|region| {
            let (index, place) = places.next().unwrap_or_default();
            self.map_region(index, &region, place)
        })
    }

    fn map_region(
        &self,
        index: usize,
        region: &MemoryRegion<Absent>,
        place: u64,
    ) -> Result<MemoryRegion<Arc<Region>>, WindowError> {
        let (start, size) = (GuestAddress(region.guest_addr), region.size);
        let part = self.function.bar_file(self.bar, place, size);
        let bar = self.bar;
        let part = part.ok_or(WindowError::NotMappable { index, bar })?;
        let mapped = Region::map(part.file, part.offset, start, size, part.direct_io)?;
        Ok(region.with(Arc::new(mapped)))
    }
}

#[cfg(test)]
mod tests;
