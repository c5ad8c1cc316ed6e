//! Virtqueues as they are in memory.

mod part;
mod split;

pub(crate) use split::{DESCRIPTOR_SIZE, Descriptor, SplitRing};
