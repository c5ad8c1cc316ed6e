//! A PCI function that two threads use.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use ipc::SharedEventFd;
use vvu::pci::{BarFile, DmaMemory, PciError, PciFunction};

/// A function behind a vfio-user server, without the descriptor that tells that the server is gone.
///
/// A driver takes any message that it does not wait for as the end of the server. Here another
/// thread waits for messages of its own.
#[derive(Debug)]
pub struct Unwatched(pub Arc<dyn PciFunction>);

impl PciFunction for Unwatched {
    fn name(&self) -> String {
        self.0.name()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.0.read_config(offset, data)
    }

    fn write_config(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_config(offset, data)
    }

    fn bar_size(&self, bar: u8) -> u64 {
        self.0.bar_size(bar)
    }

    fn read_bar(&self, bar: u8, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.0.read_bar(bar, offset, data)
    }

    fn write_bar(&self, bar: u8, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_bar(bar, offset, data)
    }

    fn bar_file(&self, bar: u8, offset: u64, len: u64) -> Option<BarFile> {
        self.0.bar_file(bar, offset, len)
    }

    fn register_eventfd(&self, bar: u8, offset: u64) -> Option<Arc<SharedEventFd>> {
        self.0.register_eventfd(bar, offset)
    }

    fn iova_ranges(&self) -> Vec<RangeInclusive<u64>> {
        self.0.iova_ranges()
    }

    fn map_dma(&self, iova: u64, memory: &Arc<DmaMemory>) -> Result<(), PciError> {
        self.0.map_dma(iova, memory)
    }

    fn unmap_dma(&self, iova: u64) -> io::Result<()> {
        self.0.unmap_dma(iova)
    }

    fn vector_count(&self) -> u16 {
        self.0.vector_count()
    }

    fn set_vectors(&self, eventfds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.0.set_vectors(eventfds)
    }

    fn reset(&self) -> io::Result<bool> {
        self.0.reset()
    }
}
