//! The memory that the device may access.

use std::sync::Arc;

use vhost_user::WithCauses;

use super::DriverError;
use crate::pci::{DmaMemory, PciFunction, choose_iova};

/// Memory that is mapped for a function, until it is dropped.
#[derive(Debug)]
pub struct Dma {
    function: Arc<dyn PciFunction>,
    /// The memory.
    pub memory: Arc<DmaMemory>,
    /// Where the function has it.
    pub iova: u64,
}

impl Dma {
    /// Makes memory of at least `len` bytes and maps it, somewhere.
    ///
    /// # Errors
    ///
    /// [`DriverError`] when there is no memory, no address for it, or the mapping is refused.
    pub fn new(function: Arc<dyn PciFunction>, len: usize) -> Result<Self, DriverError> {
        let memory = DmaMemory::new(len)?;
        let iova = choose_iova(&function.iova_ranges(), memory.len() as u64)
            .ok_or(DriverError::NoIova(memory.len()))?;
        function.map_dma(iova, &memory)?;
        Ok(Self {
            function,
            memory,
            iova,
        })
    }
}

impl Drop for Dma {
    fn drop(&mut self) {
        if let Err(error) = self.function.unmap_dma(self.iova) {
            tracing::debug!("unmapping DMA memory: {}", WithCauses(&error));
        }
    }
}
