//! The driver's memory: mapped regions, and the translation of the driver's addresses.

use std::sync::Arc;

use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{
    Error as MemoryError, GuestMemorySliceIterator, Result as MemoryResult,
};
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestRegionCollection, GuestRegionCollectionError,
    Permissions, VolatileSlice,
};

use crate::segment::Segment;

mod error;
mod files;
mod loss;
mod mapped;
mod pages;
mod region;
mod slices;
mod translation;
mod uses;
mod watch;

pub use error::RegionError;
pub use files::{MemoryFileError, MemoryFiles};
pub use loss::survive_losses;
pub use mapped::MappedRange;
pub use pages::Access;
pub use region::Region;
use slices::{Piece, Slices};
pub use translation::{MAX_MAPPINGS, MapError, Mapping, Translation};
use uses::Uses;
pub(crate) use watch::Watch;

/// All memory that a driver shares with its device. Accesses use the driver's addresses.
///
/// The driver's addresses are either the regions' own addresses, or a [`Translation`] maps them to
/// the regions' addresses. The translation may change at any moment. A peer may write to the memory
/// at any moment, so all accesses go through volatile slices, atomics, or the kernel. The regions
/// stay mapped as long as the `GuestMemory` lives, even if the translation changes.
///
/// # Example
///
/// ```
/// use std::fs::File;
/// use std::sync::Arc;
///
/// use virtio::{GuestMemory, Region};
/// use vm_memory::{Bytes, GuestAddress};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let path = std::env::temp_dir().join(format!("virtio-memory-{}", std::process::id()));
/// // A file that driver and device share, such as a front-end's memfd.
/// let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
/// # std::fs::remove_file(&path)?;
/// file.set_len(0x3000)?;
/// let file = Arc::new(file);
/// // Two parts of the file, with a gap in between, are the memory of the driver.
/// let low = Region::map(file.clone(), 0, GuestAddress(0), 0x1000, true)?;
/// let high = Region::map(file, 0x1000, GuestAddress(0x10_0000), 0x2000, true)?;
/// let memory = GuestMemory::from_regions(vec![low, high])?;
///
/// memory.write_obj(7u32.to_le(), GuestAddress(0x10_0004))?;
/// assert_eq!(memory.read_obj::<u32>(GuestAddress(0x10_0004))?, 7u32.to_le());
/// assert!(memory.read_obj::<u32>(GuestAddress(0x1000)).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct GuestMemory {
    regions: GuestRegionCollection<Region>,
    translated: Option<Translated>,
}

/// A page of a driver's memory was missing when this process accessed the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the driver's memory is lost: its file was truncated, or there was no space or huge page for it"
)]
pub struct MemoryLost;

#[derive(Debug)]
struct Translated {
    translation: Arc<Translation>,
    uses: Uses,
}

impl GuestMemory {
    /// Memory that consists of these regions. The regions have to be sorted by their addresses.
    ///
    /// # Errors
    ///
    /// When the list of regions is empty or not sorted, or when regions overlap.
    pub fn from_regions(regions: Vec<Region>) -> Result<Self, GuestRegionCollectionError> {
        Self::from_arc_regions(regions.into_iter().map(Arc::new).collect())
    }

    /// Like [`GuestMemory::from_regions`], for regions that may have other owners, too.
    ///
    /// # Errors
    ///
    /// When the list of regions is empty or not sorted, or when regions overlap.
    pub fn from_arc_regions(regions: Vec<Arc<Region>>) -> Result<Self, GuestRegionCollectionError> {
        Ok(Self {
            regions: GuestRegionCollection::from_arc_regions(regions)?,
            translated: None,
        })
    }

    /// A `GuestMemory` with the same regions, in which `translation` maps the driver's addresses to
    /// the regions' own addresses.
    ///
    /// [`GuestMemory::is_in_use`] of the result does not report buffers that are in use through
    /// other `GuestMemory` values with the same translation.
    pub fn translated(&self, translation: Arc<Translation>) -> Self {
        Self {
            regions: self.regions.clone(),
            translated: Some(Translated {
                translation,
                uses: Uses::default(),
            }),
        }
    }

    /// Whether the kernel can pin all of the memory, so that O_DIRECT I/O needs no intermediate
    /// copy.
    pub fn direct_io(&self) -> bool {
        self.regions.iter().all(Region::direct_io)
    }

    /// Whether a page of the memory was missing when this process accessed the page. From then on,
    /// nothing that is read from this memory can be trusted. As long as no memory of this process
    /// is lost, this check costs only one load.
    #[inline]
    pub fn is_lost(&self) -> bool {
        loss::any() && self.regions.iter().any(Region::is_lost)
    }

    /// Checks that the memory is not [lost](GuestMemory::is_lost).
    ///
    /// # Errors
    ///
    /// When the memory is lost.
    #[inline]
    pub fn check(&self) -> Result<(), MemoryLost> {
        if self.is_lost() {
            return Err(MemoryLost);
        }
        Ok(())
    }

    /// Number of regions.
    pub fn num_regions(&self) -> usize {
        self.regions.num_regions()
    }

    /// Whether the addresses `first..=last` overlap the buffers of a chain in flight: a chain that
    /// was taken from a queue in this memory, and not given back yet. Always false without a
    /// translation. The documentation of [`Translation`] says when to call this method.
    pub fn is_in_use(&self, first: u64, last: u64) -> bool {
        let translated = self.translated.as_ref();
        translated.is_some_and(|translated| translated.uses.overlap(first, last))
    }

    /// If the memory has a [`Translation`], records the buffers of a chain that was taken from a
    /// queue, and replaces the driver's addresses by the regions' own addresses. Otherwise does
    /// nothing.
    pub(crate) fn hold(&self, head: u16, lists: [&mut Vec<Segment>; 2]) {
        if let Some(translated) = &self.translated {
            translated.uses.hold(head, lists, &translated.translation);
        }
    }

    /// Removes the record of the buffers of a chain that is given back.
    pub(crate) fn release(&self, head: u16) {
        if let Some(translated) = &self.translated {
            translated.uses.release(head);
        }
    }

    /// The regions. An access through them uses the regions' own addresses, not the driver's.
    pub(crate) fn regions(&self) -> &GuestRegionCollection<Region> {
        &self.regions
    }

    /// Begins to watch whether the addresses `first..=last` stay mapped. The caller has to begin
    /// the watch before it looks the addresses up. `None` without a translation, because the memory
    /// at an address then never changes.
    pub(crate) fn watch(&self, first: u64, last: u64) -> Option<Arc<Watch>> {
        let translated = self.translated.as_ref()?;
        Some(translated.translation.watch(first, last))
    }

    /// The first slice of the range of `count` bytes from `addr` on. The slice has the bytes from
    /// `addr` on that are contiguous in this process. `None` if `addr` is not in memory, or the
    /// memory does not allow the access.
    pub(crate) fn first_slice(
        &self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> Option<VolatileSlice<'_, BS<'_, ()>>> {
        let mut piece = Piece { addr, len: count };
        if let Some(Translated { translation, .. }) = &self.translated {
            let found = translation.with(|mappings| mappings.pieces(addr, count).next());
            let (first, allowed) = found?.ok()?;
            piece = allowed.allow(access).then_some(first)?;
        }
        self.regions.get_slices(piece.addr, piece.len).next()?.ok()
    }

    /// The slices of memory that together make up the range of `count` bytes from `addr` on.
    pub(crate) fn slices(
        &self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> MemoryResult<Slices<'_>> {
        let Some(Translated { translation, .. }) = &self.translated else {
            let whole = Piece { addr, len: count };
            return Ok(Slices::new(&self.regions, Some(whole), Vec::new()));
        };
        let (first, rest) = translation.with(|mappings| {
            let mut pieces = mappings.pieces(addr, count).map(|found| match found? {
                (piece, allowed) if allowed.allow(access) => Ok(piece),
                _ => Err(MemoryError::InvalidGuestAddress(addr)),
            });
            let first = pieces.next().transpose()?;
            Ok::<_, MemoryError>((first, pieces.collect::<Result<_, _>>()?))
        })?;
        Ok(Slices::new(&self.regions, first, rest))
    }
}

impl vm_memory::GuestMemory for GuestMemory {
    type PhysicalMemory = GuestRegionCollection<Region>;
    type Bitmap = ();

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        match self.slices(addr, count, access) {
            Ok(mut slices) => slices.all(|slice| slice.is_ok()),
            Err(_) => false,
        }
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> MemoryResult<impl GuestMemorySliceIterator<'a, BS<'a, Self::Bitmap>>> {
        self.slices(addr, count, access)
    }
}

#[cfg(test)]
mod tests;
