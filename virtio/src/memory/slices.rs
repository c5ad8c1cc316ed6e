//! The slices of a range of the driver's addresses. The range may consist of several pieces that
//! are not adjacent in memory.

use std::iter::FusedIterator;
use std::vec;

use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{GuestMemoryBackendSliceIterator, GuestMemorySliceIterator, Result};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestRegionCollection, VolatileSlice};

use super::Region;

type Regions = GuestRegionCollection<Region>;

/// A piece of a range of the driver's addresses. The bytes of a piece are contiguous in the
/// regions' own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub addr: GuestAddress,
    pub len: usize,
}

/// An iterator over a list of pieces. It returns the slices of the first piece, then the slices of
/// the second piece, and so on. It ends after the first error.
pub(crate) struct Slices<'a> {
    regions: &'a Regions,
    /// The remaining slices of the current piece. `None` at the end and after an error.
    piece: Option<GuestMemoryBackendSliceIterator<'a, Regions>>,
    rest: vec::IntoIter<Piece>,
}

impl<'a> Slices<'a> {
    /// An iterator over the slices of `first`, and then over the slices of each piece in `rest`.
    /// Without `first`, the iterator is empty.
    pub(super) fn new(regions: &'a Regions, first: Option<Piece>, rest: Vec<Piece>) -> Self {
        Self {
            regions,
            piece: first.map(|piece| regions.get_slices(piece.addr, piece.len)),
            rest: rest.into_iter(),
        }
    }
}

impl<'a> Iterator for Slices<'a> {
    type Item = Result<VolatileSlice<'a, BS<'a, ()>>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.piece.as_mut()?.next() {
                Some(Ok(slice)) => return Some(Ok(slice)),
                Some(Err(error)) => {
                    self.piece = None;
                    return Some(Err(error));
                }
                None => {}
            }
            let next = self.rest.next();
            self.piece = next.map(|piece| self.regions.get_slices(piece.addr, piece.len));
        }
    }
}

impl FusedIterator for Slices<'_> {}

impl<'a> GuestMemorySliceIterator<'a, BS<'a, ()>> for Slices<'a> {}
