//! The buffers of chains in flight, and the look-up of the buffers' addresses, for memory behind a
//! translation.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::translation::{Mappings, Translation};
use crate::segment::{Inaccessible, MAX_PIECES, Segment, clear};

/// The buffers of all chains in flight: the chains that were taken from a queue and not given back
/// yet. The index is the chain's head.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<Vec<Use>>);

/// The buffers of all chains in flight with the same head. A correct driver has at most one chain
/// with this head in flight.
#[derive(Debug, Default)]
struct Use {
    chains: u32,
    /// The buffers of all chains with this head. The addresses are the driver's.
    segments: Vec<Segment>,
}

impl Uses {
    /// Records the buffers of a chain, and then looks up the buffers' addresses. Holds the lock
    /// during both steps. The documentation of [`Translation`] explains why.
    pub fn hold(&self, head: u16, mut lists: [&mut Vec<Segment>; 2], translation: &Translation) {
        let mut uses = self.lock();
        let index = usize::from(head);
        if uses.len() <= index {
            uses.resize_with(index + 1, Use::default);
        }
        let held = &mut uses[index];
        held.chains += 1;
        let first = held.segments.len();
        let lens = lists.each_ref().map(|list| list.len());
        for list in &mut lists {
            held.segments.append(list);
        }
        let mut added = &held.segments[first..];
        // Each segment may have one piece, even if other segments have too many pieces. So the
        // device can still write the status of a request whose data has too many pieces.
        let mut spare = MAX_PIECES.saturating_sub(added.len());
        translation.with(|mappings| {
            for (list, len) in lists.into_iter().zip(lens) {
                let segments;
                (segments, added) = added.split_at(len);
                locate(mappings, segments, list, &mut spare);
            }
        });
    }

    /// Removes the record of the buffers of the chain with this head.
    pub fn release(&self, head: u16) {
        let mut uses = self.lock();
        let Some(held) = uses.get_mut(usize::from(head)) else {
            return;
        };
        held.chains = held.chains.saturating_sub(1);
        if held.chains == 0 {
            clear(&mut held.segments);
        }
    }

    /// Whether any recorded buffer has one of the addresses `first..=last`.
    pub fn overlap(&self, first: u64, last: u64) -> bool {
        let uses = self.lock();
        let mut segments = uses.iter().flat_map(|held| &held.segments);
        segments.any(|segment| {
            let end = segment.addr.0.saturating_add(u64::from(segment.len) - 1);
            segment.addr.0 <= last && first <= end
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Use>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Appends to `out` the pieces of memory that hold the driver's `segments`. Appends at least one
/// piece for each segment, and at most `spare` further pieces in total. Subtracts the number of
/// further pieces from `spare`.
fn locate(mappings: &Mappings, segments: &[Segment], out: &mut Vec<Segment>, spare: &mut usize) {
    for segment in segments {
        let first = out.len();
        for found in mappings.pieces(segment.addr, segment.len as usize) {
            let problem = match found {
                Ok((piece, access)) if out.len() - first <= *spare => {
                    out.push(Segment {
                        addr: piece.addr,
                        // The length fits, because it is at most the segment's length.
                        len: piece.len as u32,
                        access: Ok(access),
                    });
                    continue;
                }
                Ok(_) => Inaccessible::TooManyPieces,
                Err(_) => Inaccessible::OutsideMemory,
            };
            out.truncate(first);
            out.push(Segment {
                access: Err(problem),
                ..*segment
            });
            break;
        }
        *spare -= out.len() - first - 1;
    }
}
