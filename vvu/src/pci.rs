//! Access to a PCI function from user space.
//!
//! A [`PciFunction`] is reached through VFIO in the kernel or through a vfio-user server. In tests
//! the function is a mock. A driver works the same way with all three kinds of function.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use ipc::SharedEventFd;
use virtio::memory::MemoryFiles;
use virtio::pci::config_space;

mod address;
mod dma;
mod error;
mod identity;
mod mapping;
#[cfg(any(test, feature = "fuzzing"))]
pub mod mock;
mod registers;
mod sysfs;
mod vfio;
mod vfio_user;

pub use address::{Address, BadAddress};
pub use dma::{DmaMemory, choose_iova};
pub use error::PciError;
pub use identity::Identity;
pub use mapping::{Mapping, Scalar};
pub use registers::Registers;
pub use vfio::VfioFunction;
pub use vfio_user::VfioUserFunction;

/// The prefix of an address that names the socket of a vfio-user server.
pub const VFIO_USER_PREFIX: &str = "vfio-user:";

/// The number of base address registers (BARs) of a function.
pub const BAR_COUNT: u8 = 6;

/// A check of a function's identity. Returns true if the caller can drive the function.
pub type Wanted = fn(&Identity) -> bool;

/// A PCI function that only this process uses.
///
/// Offsets into configuration space and BARs are in bytes, and accesses are little-endian. An
/// access of 1, 2, 4 or 8 bytes reaches the device as a single access if the path to the device
/// allows accesses of that width.
pub trait PciFunction: Debug + Send + Sync {
    /// The name of the function in log and error messages. The name is the function's address.
    fn name(&self) -> String;

    /// Reads configuration space.
    ///
    /// # Errors
    ///
    /// When the PCI function is gone, or when some of the bytes are outside of configuration space.
    fn read_config(&self, offset: u64, data: &mut [u8]) -> io::Result<()>;

    /// Writes configuration space.
    ///
    /// # Errors
    ///
    /// As for [`PciFunction::read_config`].
    fn write_config(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Size of a BAR in bytes, or 0 if the BAR does not exist.
    fn bar_size(&self, bar: u8) -> u64;

    /// Reads from a BAR, by a system call or by a message to a vfio-user server.
    ///
    /// # Errors
    ///
    /// When the PCI function is gone, or when some of the bytes are outside of the BAR.
    fn read_bar(&self, bar: u8, offset: u64, data: &mut [u8]) -> io::Result<()>;

    /// Writes to a BAR, by a system call or by a message to a vfio-user server.
    ///
    /// # Errors
    ///
    /// As for [`PciFunction::read_bar`].
    fn write_bar(&self, bar: u8, offset: u64, data: &[u8]) -> io::Result<()>;

    /// The part of a file that the caller can map to access `len` bytes of a BAR, which begin at
    /// `offset`. `None` if some of the bytes can only be accessed by [`PciFunction::read_bar`] and
    /// [`PciFunction::write_bar`].
    fn bar_file(&self, bar: u8, offset: u64, len: u64) -> Option<BarFile>;

    /// An eventfd that stands for the register at `offset` of a BAR. Signalling the eventfd has the
    /// same effect as writing any value to the register. `None` if the register has no eventfd.
    fn register_eventfd(&self, bar: u8, offset: u64) -> Option<Arc<SharedEventFd>> {
        let _ = (bar, offset);
        None
    }

    /// The I/O virtual addresses at which memory can be mapped for the function.
    fn iova_ranges(&self) -> Vec<RangeInclusive<u64>>;

    /// Lets the function access `memory` at the I/O virtual address `iova`, until
    /// [`PciFunction::unmap_dma`] is called.
    ///
    /// # Errors
    ///
    /// [`PciError::MemlockLimit`], or the error of the operating system or server.
    fn map_dma(&self, iova: u64, memory: &Arc<DmaMemory>) -> Result<(), PciError>;

    /// Unmaps the memory at `iova`.
    ///
    /// # Errors
    ///
    /// The error of the operating system or server.
    fn unmap_dma(&self, iova: u64) -> io::Result<()>;

    /// The number of MSI-X vectors of the function.
    fn vector_count(&self) -> u16;

    /// Makes MSI-X vector i signal the eventfd `eventfds[i]`. All other vectors signal nothing. An
    /// empty list disables MSI-X.
    ///
    /// # Errors
    ///
    /// When there are more eventfds than [`PciFunction::vector_count`], or when the operating
    /// system or server refuses the request.
    fn set_vectors(&self, eventfds: &[BorrowedFd<'_>]) -> io::Result<()>;

    /// Resets the function. Returns false if the function has no reset.
    ///
    /// # Errors
    ///
    /// The error of the operating system or server.
    fn reset(&self) -> io::Result<bool>;

    /// A descriptor that becomes readable when the PCI function is gone for good. `None` if the
    /// function has no such descriptor.
    fn hangup(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A part of a file. Mapping this part gives access to a part of a BAR.
#[derive(Clone, Debug)]
pub struct BarFile {
    /// The file to map.
    pub file: Arc<File>,
    /// The offset in the file at which the part of the BAR begins, in bytes.
    pub offset: u64,
    /// Whether the kernel can pin this memory, so that O_DIRECT I/O can access the memory without a
    /// copy. The kernel cannot pin the BAR of a hardware device.
    pub direct_io: bool,
}

/// Opens a function by its address. The address is a PCI address (`[domain:]bus:device.function`),
/// or `vfio-user:PATH` for the vfio-user server that listens on the Unix socket at PATH. A function
/// at a PCI address is opened only if `wanted` returns true for its identity. The identity of a
/// function behind a server is not checked, so the caller has to check the identity. `files` are
/// the kinds of files in which a server may share its BARs.
///
/// # Errors
///
/// [`PciError`], whose text names the problem and the remedy in one line.
pub fn open(
    address: &str,
    wanted: Wanted,
    files: MemoryFiles,
) -> Result<Arc<dyn PciFunction>, PciError> {
    match address.strip_prefix(VFIO_USER_PREFIX) {
        Some(path) => Ok(Arc::new(VfioUserFunction::connect(path.as_ref(), files)?)),
        None => Ok(Arc::new(VfioFunction::open(&address.parse()?, wanted)?)),
    }
}

/// Whether an address for [`open`] names a vfio-user server.
pub fn is_vfio_user(address: &str) -> bool {
    address.starts_with(VFIO_USER_PREFIX)
}

/// Maps a part of a BAR. The part need not begin at the start of a page. `None` if the part cannot
/// be mapped.
///
/// # Errors
///
/// When the operating system refuses a mapping that should be possible.
pub fn map_bar(
    function: &dyn PciFunction,
    bar: u8,
    offset: u64,
    len: u64,
) -> io::Result<Option<Mapping>> {
    let part = function.bar_file(bar, offset, len);
    part.map(|part| Mapping::new(part.file, part.offset, len))
        .transpose()
}

/// Lets the function respond to accesses to its BARs and act as a bus master. Without this, the
/// function could not use DMA or MSI-X, because only a bus master can access memory.
///
/// # Errors
///
/// As for [`PciFunction::write_config`].
pub fn enable_bus_master(function: &dyn PciFunction) -> io::Result<()> {
    let at = config_space::COMMAND as u64;
    let mut command = [0; 2];
    function.read_config(at, &mut command)?;
    let enabled = u16::from_le_bytes(command)
        | config_space::COMMAND_MEMORY
        | config_space::COMMAND_BUS_MASTER;
    function.write_config(at, &enabled.to_le_bytes())
}
