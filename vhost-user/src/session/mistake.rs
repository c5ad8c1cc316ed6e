//! The mistakes that a front-end can make.

use std::io;

use virtio::{ConfigError, StartError, StopError};
use vm_memory::GuestRegionCollectionError;

use crate::features::ProtocolFeatures;
use crate::memory::MemoryError;
use crate::request::RequestError;

/// The maximum size of the configuration space, in bytes. Accesses beyond this size are refused.
pub const MAX_CONFIG_SIZE: u32 = 256;

/// The reason why a request was refused.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("the request is unknown")]
    Unknown,
    #[error("the request belongs to a feature that is not offered")]
    NotOffered,
    #[error("the request needs protocol feature {}, which was not agreed on", names(.0))]
    NotNegotiated(ProtocolFeatures),
    #[error("features {0:#x} were not offered")]
    Features(u64),
    #[error("protocol features {0:#x} were not offered")]
    ProtocolFeatures(u64),
    #[error("there is no queue {0}")]
    Queue(u32),
    #[error("queue size {size} is not a power of two from 1 to {max}")]
    QueueSize { size: u32, max: u16 },
    #[error("available index {0} does not fit 16 bits")]
    Base(u32),
    #[error("a vring is enabled with 1 and disabled with 0, not {0}")]
    Enable(u32),
    #[error("address {0:#x} is in no memory region")]
    Address(u64),
    #[error(
        "{size} bytes at offset {offset} are not inside the configuration space of at most \
         {MAX_CONFIG_SIZE} bytes"
    )]
    ConfigRange { offset: u32, size: u32 },
    /// The front-end added the offset that the configuration space has in virtio-mmio. Some
    /// versions of Cloud Hypervisor make this mistake.
    #[error(
        "offset 0x100 is where virtio-mmio has the configuration space, which begins at 0 here: \
         Cloud Hypervisor up to version 50 has this mistake"
    )]
    MmioConfigOffset,
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error("the memory regions cannot be used together")]
    Regions(#[from] GuestRegionCollectionError),
    #[error(transparent)]
    Stop(#[from] StopError),
    #[error("queue {index}: the driver cannot be called")]
    Call { index: u8, source: io::Error },
    #[error("queue {queue} cannot be started")]
    Start { queue: u16, source: StartError },
}

fn names(features: &ProtocolFeatures) -> String {
    let names: Vec<_> = features.iter_names().map(|(name, _)| name).collect();
    names.join("|")
}
