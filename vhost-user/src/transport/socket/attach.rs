//! Turns the descriptors of a front-end's messages into the objects that a session uses.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use ipc::SharedEventFd;
use virtio::{Notifier, Region};
use vm_memory::GuestAddress;

use super::Inspect;
use crate::memory::{MemoryRegion, MemoryTable};
use crate::resources::{Attach, AttachError, Attached, Signal};

/// Turns the descriptors of one front-end into objects.
pub struct Descriptors<'a> {
    /// The socket of the front-end.
    pub front_end: BorrowedFd<'a>,
    /// Inspects the front-end's memory before it is mapped. `None` means that the memory is not
    /// inspected.
    pub inspector: Option<&'a mut (dyn Inspect + 'static)>,
}

impl Attach for Descriptors<'_> {
    type Descriptor = OwnedFd;
    type Into = Attached;

    fn memory(
        &mut self,
        table: MemoryTable<OwnedFd>,
    ) -> Result<MemoryTable<Arc<Region>>, AttachError> {
        if let Some(inspector) = &mut self.inspector {
            let regions = table.regions().iter();
            let user_addrs: Vec<_> = regions.map(|region| region.user_addr).collect();
            let inspected = inspector.inspect(self.front_end, &user_addrs);
            inspected.map_err(AttachError::Inspection)?;
        }
        table.try_map(map_region)
    }

    fn kick(&mut self, _index: u8, fd: OwnedFd) -> Result<Arc<SharedEventFd>, AttachError> {
        Ok(Arc::new(SharedEventFd::from_fd(fd)?))
    }

    fn notifier(
        &mut self,
        _index: u8,
        _signal: Signal,
        fd: OwnedFd,
    ) -> Result<Option<Arc<dyn Notifier>>, AttachError> {
        Ok(Some(Arc::new(SharedEventFd::from_fd(fd)?)))
    }

    fn file(&mut self, fd: OwnedFd) -> Result<OwnedFd, AttachError> {
        Ok(fd)
    }
}

fn map_region(region: MemoryRegion<OwnedFd>) -> Result<MemoryRegion<Arc<Region>>, AttachError> {
    let bare = region.with(());
    let file = Arc::new(File::from(region.memory));
    let start = GuestAddress(bare.guest_addr);
    let mapped = Region::map(file, bare.file_offset, start, bare.size, true)?;
    Ok(bare.with(Arc::new(mapped)))
}
