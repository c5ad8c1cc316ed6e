//! A PCI function that a vfio-user server emulates.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipc::SharedEventFd;
use vfio_user::{Client, ClientError, DeviceFlags, DmaFlags, IoEventFd, RegionInfo, index};
use virtio::memory::{MemoryFileError, MemoryFiles, survive_losses};

use super::{BAR_COUNT, BarFile, DmaMemory, PciError, PciFunction, VFIO_USER_PREFIX};

/// The maximum time to wait for the server's answer to a message.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The I/O virtual addresses that every server is assumed to accept. The protocol sets no limit,
/// and IOMMUs translate addresses of 48 bits.
const IOVA_RANGE: RangeInclusive<u64> = 0..=0xffff_ffff_ffff;

/// A PCI function that a vfio-user server emulates.
pub struct VfioUserFunction {
    path: PathBuf,
    client: Mutex<Client>,
    /// A duplicate of the client's socket descriptor. A thread can wait for this duplicate without
    /// locking the client.
    socket: OwnedFd,
    bars: Vec<Bar>,
    vector_count: u16,
    can_reset: bool,
    dma: Mutex<HashMap<u64, Arc<DmaMemory>>>,
}

struct Bar {
    region: RegionInfo,
    eventfds: Vec<IoEventFd>,
}

impl VfioUserFunction {
    /// Connects to the server that listens on the Unix socket at `path`. `files` are the kinds of
    /// files in which the server may share its BARs.
    ///
    /// # Errors
    ///
    /// [`PciError`].
    pub fn connect(path: &Path, files: MemoryFiles) -> Result<Self, PciError> {
        // The server may truncate the files of its BARs at any time, and then accesses to a mapping
        // of the files raise SIGBUS.
        survive_losses().map_err(|source| PciError::Io {
            what: "handle the loss of a server's memory",
            source,
        })?;
        let of = |source: ClientError| match source {
            ClientError::Connect { source, .. } => PciError::NoVfioUserServer {
                path: path.to_owned(),
                source,
            },
            source => PciError::VfioUser {
                path: path.to_owned(),
                source,
            },
        };
        let mut client = Client::connect(path, TIMEOUT).map_err(of)?;
        let flags = client.device_info().map_err(of)?.flags;
        if !flags.contains(DeviceFlags::PCI) {
            return Err(PciError::NotPci(path.to_owned()));
        }
        let bars = (0..u32::from(BAR_COUNT)).map(|bar| Bar::read(&mut client, bar));
        let bars: Vec<_> = bars.collect::<Result<_, _>>().map_err(of)?;
        // Check the files before anything else uses them. A file may be in a file system that never
        // answers (FUSE), and any other use of such a file would hang.
        bars.iter()
            .try_for_each(|bar| bar.check_file(files))
            .map_err(|source| PciError::MemoryFile {
                path: path.to_owned(),
                source,
            })?;
        let vectors = client.irq_info(index::MSIX).map_err(of)?.count;
        let socket = client.as_fd().try_clone_to_owned();
        let socket = socket.map_err(|source| PciError::Io {
            what: "duplicate the server's socket",
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            socket,
            client: Mutex::new(client),
            bars,
            vector_count: vectors.try_into().unwrap_or(u16::MAX),
            can_reset: flags.contains(DeviceFlags::RESET),
            dma: Mutex::new(HashMap::new()),
        })
    }

    fn client(&self) -> MutexGuard<'_, Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bar(&self, bar: u8) -> Option<&Bar> {
        self.bars.get(usize::from(bar))
    }
}

impl Bar {
    fn read(client: &mut Client, index: u32) -> Result<Self, ClientError> {
        let region = client.region_info(index)?;
        let eventfds = match client.region_io_fds(index) {
            Ok(eventfds) => eventfds,
            // A server does not have to support the request for the eventfds of a region.
            Err(ClientError::Refused { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { region, eventfds })
    }

    fn check_file(&self, files: MemoryFiles) -> Result<(), MemoryFileError> {
        let file = self.region.file.as_ref();
        file.map_or(Ok(()), |file| files.check(file))
    }

    fn file(&self, offset: u64, len: u64) -> Option<BarFile> {
        let end = offset.checked_add(len)?;
        let areas = &self.region.areas;
        areas.iter().find(|area| {
            let area_end = area.offset.checked_add(area.size);
            area.offset <= offset && area_end.is_some_and(|area_end| end <= area_end)
        })?;
        let file = self.region.file.clone()?;
        let offset = self.region.offset.checked_add(offset)?;
        let needed = offset.checked_add(len)?;
        // Do not map a part of a BAR that is not entirely inside the file. Accesses past the end of
        // the file would raise SIGBUS.
        let long_enough = match file.metadata() {
            Ok(metadata) => !metadata.is_file() || metadata.len() >= needed,
            Err(_) => false,
        };
        long_enough.then_some(BarFile {
            file,
            offset,
            direct_io: true,
        })
    }
}

impl PciFunction for VfioUserFunction {
    fn name(&self) -> String {
        format!("{VFIO_USER_PREFIX}{}", self.path.display())
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let result = self.client().region_read(index::CONFIG, offset, data);
        result.map_err(io::Error::other)
    }

    fn write_config(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let result = self.client().region_write(index::CONFIG, offset, data);
        result.map_err(io::Error::other)
    }

    fn bar_size(&self, bar: u8) -> u64 {
        self.bar(bar).map_or(0, |bar| bar.region.size)
    }

    fn read_bar(&self, bar: u8, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let result = self.client().region_read(u32::from(bar), offset, data);
        result.map_err(io::Error::other)
    }

    fn write_bar(&self, bar: u8, offset: u64, data: &[u8]) -> io::Result<()> {
        let result = self.client().region_write(u32::from(bar), offset, data);
        result.map_err(io::Error::other)
    }

    fn bar_file(&self, bar: u8, offset: u64, len: u64) -> Option<BarFile> {
        self.bar(bar)?.file(offset, len)
    }

    fn register_eventfd(&self, bar: u8, offset: u64) -> Option<Arc<SharedEventFd>> {
        let stands_for = |entry: &&IoEventFd| {
            let any_width = entry.size == 0 || entry.size == 2;
            entry.offset == offset && any_width && entry.datamatch.is_none()
        };
        let entry = self.bar(bar)?.eventfds.iter().find(stands_for)?;
        Some(entry.eventfd.clone())
    }

    fn iova_ranges(&self) -> Vec<RangeInclusive<u64>> {
        vec![IOVA_RANGE]
    }

    fn map_dma(&self, iova: u64, memory: &Arc<DmaMemory>) -> Result<(), PciError> {
        let size = memory.len() as u64;
        let access = DmaFlags::READ | DmaFlags::WRITE;
        let file = memory.file().as_fd();
        let result = self.client().dma_map(iova, size, file, 0, access);
        result.map_err(|error| PciError::Io {
            what: "map memory for DMA",
            source: io::Error::other(error),
        })?;
        self.dma_maps().insert(iova, memory.clone());
        Ok(())
    }

    fn unmap_dma(&self, iova: u64) -> io::Result<()> {
        let memory = self.dma_maps().remove(&iova);
        let size = memory.ok_or(io::ErrorKind::NotFound)?.len() as u64;
        let result = self.client().dma_unmap(iova, size);
        result.map_err(io::Error::other)
    }

    fn vector_count(&self) -> u16 {
        self.vector_count
    }

    fn set_vectors(&self, eventfds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let result = match eventfds {
            [] => self.client().disable_irqs(index::MSIX),
            eventfds => {
                let fds: Vec<_> = eventfds.iter().copied().map(Some).collect();
                self.client().set_irqs(index::MSIX, 0, &fds)
            }
        };
        result.map_err(io::Error::other)
    }

    fn reset(&self) -> io::Result<bool> {
        if self.can_reset {
            self.client().reset().map_err(io::Error::other)?;
        }
        Ok(self.can_reset)
    }

    fn hangup(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }
}

impl VfioUserFunction {
    fn dma_maps(&self) -> MutexGuard<'_, HashMap<u64, Arc<DmaMemory>>> {
        self.dma.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for VfioUserFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VfioUserFunction({})", self.path.display())
    }
}

#[cfg(test)]
mod tests;
