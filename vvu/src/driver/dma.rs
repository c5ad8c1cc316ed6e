//! The memory that the device may access.

use std::io;
use std::sync::Arc;

use vhost_user::WithCauses;

use crate::pci::{DmaMemory, PciError, PciFunction, choose_iova};

/// Why memory cannot be shared with the device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DmaError {
    /// The IOMMU has no free addresses for the memory.
    #[error("the IOMMU has no room for {0} bytes of I/O virtual addresses")]
    NoIova(usize),
    /// The operating system has no memory.
    #[error("cannot allocate memory for the device")]
    Memory(#[from] io::Error),
    /// The memory cannot be mapped for the device.
    #[error(transparent)]
    Map(#[from] PciError),
}

/// Memory that a function can access. Dropping this value unmaps the memory.
#[derive(Debug)]
pub struct Dma {
    function: Arc<dyn PciFunction>,
    /// The memory that the function can access.
    pub memory: Arc<DmaMemory>,
    /// The I/O virtual address of the memory.
    pub iova: u64,
}

impl Dma {
    /// Allocates memory of at least `len` bytes and maps it at a free address.
    ///
    /// # Errors
    ///
    /// [`DmaError`] when memory or a free address is missing, or when the mapping is refused.
    pub fn new(function: Arc<dyn PciFunction>, len: usize) -> Result<Self, DmaError> {
        let memory = DmaMemory::new(len)?;
        let iova = choose_iova(&function.iova_ranges(), memory.len() as u64)
            .ok_or(DmaError::NoIova(memory.len()))?;
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
            tracing::debug!("cannot unmap DMA memory: {}", WithCauses(&error));
        }
    }
}
