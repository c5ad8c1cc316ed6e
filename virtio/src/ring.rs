//! Virtqueues as they are in memory.

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};

mod packed;
mod part;
mod split;

pub(crate) use packed::{Event, PackedDescriptor, PackedRing};
pub(crate) use split::{Descriptor, SplitRing};

/// Bytes of a descriptor.
pub(crate) const DESCRIPTOR_SIZE: u64 = 16;

/// Descriptor flag: the chain goes on.
pub(crate) const NEXT: u16 = VRING_DESC_F_NEXT as u16;
/// Descriptor flag: the device may write, and only write, this buffer; or has written to it.
pub(crate) const WRITE: u16 = VRING_DESC_F_WRITE as u16;
/// Descriptor flag: the buffer is a table of descriptors.
pub(crate) const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;
