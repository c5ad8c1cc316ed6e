//! The driver's memory: mapped regions, and what the driver's addresses mean in them.

use std::sync::Arc;

use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{GuestMemorySliceIterator, Result as MemoryResult};
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestRegionCollection, GuestRegionCollectionError,
    Permissions,
};

use crate::Chain;

mod region;
mod slices;
mod translation;
mod uses;

pub use region::{Access, Region, RegionError};
use slices::{Piece, Slices};
pub use translation::{MAX_MAPPINGS, MapError, Mapping, Translation};
use uses::Uses;

/// All memory a driver shares with its device, by the addresses that the driver uses.
///
/// These are the regions' own addresses, or become such by a [`Translation`] that may change at any
/// moment. It is shared with a peer that may write to it at any moment, so it is only ever accessed
/// through volatile slices, atomics, or the kernel. What a slice refers to stays mapped as long as
/// this lives, whatever becomes of the translation.
#[derive(Debug, Default)]
pub struct GuestMemory {
    regions: GuestRegionCollection<Region>,
    translated: Option<Translated>,
}

#[derive(Debug)]
struct Translated {
    translation: Arc<Translation>,
    uses: Uses,
}

impl GuestMemory {
    /// Memory that consists of these regions, sorted by their addresses.
    ///
    /// # Errors
    ///
    /// When there are none, or they overlap or are not sorted.
    pub fn from_regions(regions: Vec<Region>) -> Result<Self, GuestRegionCollectionError> {
        Self::from_arc_regions(regions.into_iter().map(Arc::new).collect())
    }

    /// As [`GuestMemory::from_regions`].
    ///
    /// # Errors
    ///
    /// When there are none, or they overlap or are not sorted.
    pub fn from_arc_regions(regions: Vec<Arc<Region>>) -> Result<Self, GuestRegionCollectionError> {
        Ok(Self {
            regions: GuestRegionCollection::from_arc_regions(regions)?,
            translated: None,
        })
    }

    /// The same regions, by addresses that `translation` makes the regions' own. Knows of its own
    /// uses only; see [`GuestMemory::is_in_use`].
    pub fn translated(&self, translation: Arc<Translation>) -> Self {
        Self {
            regions: self.regions.clone(),
            translated: Some(Translated {
                translation,
                uses: Uses::default(),
            }),
        }
    }

    /// True when the kernel can pin all of it, so that O_DIRECT I/O can go straight to it.
    pub fn direct_io(&self) -> bool {
        self.regions.iter().all(Region::direct_io)
    }

    /// How many regions there are.
    pub fn num_regions(&self) -> usize {
        self.regions.num_regions()
    }

    /// Whether the buffers of a chain that was taken from a queue in this memory, and not given
    /// back yet, overlap the addresses `first..=last`. Only known where addresses are translated.
    ///
    /// To be asked after a change of the translation: chains taken later see that change.
    pub fn is_in_use(&self, first: u64, last: u64) -> bool {
        let translated = self.translated.as_ref();
        translated.is_some_and(|translated| translated.uses.overlap(first, last))
    }

    /// Records the buffers of a chain that was taken from a queue.
    pub(crate) fn hold(&self, chain: &Chain) {
        if let Some(translated) = &self.translated {
            translated.uses.hold(chain);
        }
    }

    /// Forgets the buffers of a chain that is given back.
    pub(crate) fn release(&self, head: u16) {
        if let Some(translated) = &self.translated {
            translated.uses.release(head);
        }
    }

    /// Where bytes are, whether or not they may be accessed in some way: for the kernel, which
    /// reports a failure where they may not.
    pub(crate) fn locate(&self, addr: GuestAddress, count: usize) -> MemoryResult<Slices<'_>> {
        self.slices(addr, count, Permissions::No)
    }

    /// Where bytes are in this process, if that is one place for as long as the memory is there.
    pub(crate) fn place(&self, addr: GuestAddress, count: usize) -> Option<*mut u8> {
        if self.translated.is_some() {
            return None;
        }
        let slice = self.regions.get_slice(addr, count).ok()?;
        Some(slice.ptr_guard_mut().as_ptr())
    }

    fn slices(
        &self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> MemoryResult<Slices<'_>> {
        let Some(translated) = &self.translated else {
            let whole = Piece { addr, len: count };
            return Ok(Slices::new(&self.regions, whole, Vec::new()));
        };
        let (first, rest) = translated.translation.translate(addr, count, access)?;
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
