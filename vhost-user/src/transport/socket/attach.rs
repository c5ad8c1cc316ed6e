//! What the descriptors of a front-end's messages stand for.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use virtio::{Notifier, Region};
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

use super::Inspect;
use crate::memory::{MemoryRegion, MemoryTable};
use crate::resources::{Attach, AttachError, Attached, Signal};

/// The descriptors of one front-end.
pub struct Descriptors<'a> {
    /// Its socket.
    pub front_end: BorrowedFd<'a>,
    /// Who is asked about its memory.
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

    fn kick(&mut self, _index: u8, fd: OwnedFd) -> Result<Arc<EventFd>, AttachError> {
        Ok(Arc::new(eventfd(fd)))
    }

    fn notifier(
        &mut self,
        _index: u8,
        _signal: Signal,
        fd: OwnedFd,
    ) -> Result<Option<Arc<dyn Notifier>>, AttachError> {
        Ok(Some(Arc::new(FrontEndEventFd(eventfd(fd)))))
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

fn eventfd(fd: OwnedFd) -> EventFd {
    // SAFETY: the descriptor is owned here and given away whole. Should it not be an eventfd,
    // reading and writing it fails or does nothing of use to its sender.
    unsafe { EventFd::from_raw_fd(fd.into_raw_fd()) }
}

/// An eventfd of the front-end, which decides by itself whether writing to it may block.
#[derive(Debug)]
struct FrontEndEventFd(EventFd);

impl Notifier for FrontEndEventFd {
    fn notify(&self) -> io::Result<()> {
        // SAFETY: the eventfd is open as long as the borrow lasts.
        let fd = unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) };
        let mut writable = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
        match poll(&mut writable, Some(&Timespec::default())) {
            // The counter is at its limit: a wake-up is pending already, and a write would block.
            Ok(0) => Ok(()),
            _ => self.0.notify(),
        }
    }
}
