//! Turns the descriptors of a front-end's messages into the objects that a session uses.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ipc::SharedEventFd;
use virtio::memory::MemoryFiles;
use virtio::{Notifier, Region};
use vm_memory::GuestAddress;

use crate::memory::{MemoryRegion, MemoryTable};
use crate::resources::{Attach, AttachError, Attached, Signal};

/// Turns descriptors into objects.
pub struct Descriptors {
    /// The kinds of files that may be the front-end's memory.
    pub files: MemoryFiles,
}

impl Attach for Descriptors {
    type Descriptor = OwnedFd;
    type Into = Attached;

    fn memory(
        &mut self,
        table: MemoryTable<OwnedFd>,
    ) -> Result<MemoryTable<Arc<Region>>, AttachError> {
        table.try_map(|region| {
            // Check the file before anything else uses the descriptor. The file may be in a file
            // system that never answers (FUSE), and any other use would hang.
            self.files.check(&region.memory)?;
            map_region(region)
        })
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
