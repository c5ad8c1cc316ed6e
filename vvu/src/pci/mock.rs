//! A mock VVU device for tests. The mock supports every dialect and can break the rules.
//!
//! The mock has no thread of its own. A register access takes effect at once, and the test causes
//! all other events.

use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd};

use ipc::SharedEventFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio::test_utils::anonymous_file;

use super::{BarFile, DmaMemory, PciError, PciFunction};

mod device;
mod profile;
mod registers;
mod ring;

pub use device::{Lies, State};
pub use profile::{BarOffset, Profile};

/// A mock VVU function for tests.
#[derive(Debug)]
pub struct MockFunction {
    profile: Profile,
    config: Mutex<[u8; 256]>,
    /// The file that holds the bytes of the BAR with the front-end's memory.
    window: Arc<File>,
    /// The file that holds the bytes of the doorbells, used if the doorbells are mapped.
    doorbells: Arc<File>,
    state: Mutex<State>,
    gone: SharedEventFd,
}

impl MockFunction {
    /// Makes a mock device with this profile.
    pub fn new(profile: Profile) -> Arc<Self> {
        Arc::new(Self {
            config: Mutex::new(profile.config_space()),
            window: anonymous_file(profile.bars[usize::from(profile.window_bar)]),
            doorbells: anonymous_file(0x2000),
            state: Mutex::new(State::new(profile.clone())),
            profile,
            gone: SharedEventFd::new().expect("a descriptor"),
        })
    }

    /// Makes the hangup descriptor readable, as if the function had been unplugged.
    pub fn unplug(&self) {
        self.gone.signal().expect("room for a signal");
    }

    /// The state of the device.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self) -> MutexGuard<'_, [u8; 256]> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file that holds the bytes of the BAR with the front-end's memory.
    pub fn window(&self) -> &File {
        &self.window
    }

    /// The file that holds the bytes of the doorbells, used if the doorbells are mapped.
    pub fn doorbells(&self) -> &File {
        &self.doorbells
    }
}

impl PciFunction for MockFunction {
    fn name(&self) -> String {
        "mock".to_owned()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let config = self.config();
        data.copy_from_slice(&config[offset as usize..][..data.len()]);
        Ok(())
    }

    fn write_config(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut config = self.config();
        config[offset as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn bar_size(&self, bar: u8) -> u64 {
        let sizes = &self.profile.bars;
        sizes.get(usize::from(bar)).copied().unwrap_or(0)
    }

    fn read_bar(&self, bar: u8, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.state().read(bar, offset, data)
    }

    fn write_bar(&self, bar: u8, offset: u64, data: &[u8]) -> io::Result<()> {
        self.state().write(bar, offset, data)
    }

    fn bar_file(&self, bar: u8, offset: u64, len: u64) -> Option<BarFile> {
        let end = offset.checked_add(len)?;
        let BarOffset(doorbell_bar, start) = self.profile.doorbell;
        let in_doorbells = bar == doorbell_bar && start <= offset && end <= start + 0x2000;
        let file = if in_doorbells {
            self.profile.doorbells_mapped.then_some(&self.doorbells)?
        } else if bar == self.profile.window_bar && end <= self.bar_size(bar) {
            &self.window
        } else {
            return None;
        };
        Some(BarFile {
            file: file.clone(),
            offset,
            direct_io: false,
        })
    }

    fn iova_ranges(&self) -> Vec<RangeInclusive<u64>> {
        vec![0..=0xffff_ffff]
    }

    fn map_dma(&self, iova: u64, memory: &Arc<DmaMemory>) -> Result<(), PciError> {
        self.state().dma = Some((iova, memory.clone()));
        Ok(())
    }

    fn unmap_dma(&self, iova: u64) -> io::Result<()> {
        let mut state = self.state();
        state.log(format!("unmap {iova:#x}"));
        state.dma = None;
        Ok(())
    }

    fn vector_count(&self) -> u16 {
        self.profile.vectors
    }

    fn set_vectors(&self, eventfds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut state = self.state();
        state.log(format!("msix {}", eventfds.len()));
        state.vectors = eventfds
            .iter()
            .map(|eventfd| {
                SharedEventFd::from_fd(eventfd.try_clone_to_owned()?).map_err(io::Error::other)
            })
            .collect::<io::Result<_>>()?;
        Ok(())
    }

    fn reset(&self) -> io::Result<bool> {
        Ok(false)
    }

    fn hangup(&self) -> Option<BorrowedFd<'_>> {
        Some(self.gone.as_fd())
    }
}
