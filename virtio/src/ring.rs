//! The layout of virtqueues in the driver's memory.

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};

mod descriptor;
mod packed;
mod part;
mod place;
mod split;

pub(crate) use descriptor::{Descriptor, Layout, Table};
pub(crate) use packed::{Event, PackedRing, is_available};
pub(crate) use split::SplitRing;

/// Descriptor flag: the chain continues with another descriptor.
pub(crate) const NEXT: u16 = VRING_DESC_F_NEXT as u16;
/// Descriptor flag: the device may write this buffer, but not read it. In a used descriptor, the
/// flag means that the device has written to the buffer.
pub(crate) const WRITE: u16 = VRING_DESC_F_WRITE as u16;
/// Descriptor flag: the buffer is an indirect table of descriptors.
pub(crate) const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;
