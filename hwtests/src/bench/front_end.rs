//! Drivers of a disk with one queue. Without anything to do they sleep until they are called, as a
//! guest sleeps until its interrupt.

mod one_file;
mod packed;
pub mod virtio_driver;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// A connected disk, with a buffer for each request that may be in flight (a slot).
pub trait FrontEnd {
    /// The buffer of a slot that has no request in flight; `None` where the front-end keeps it to
    /// itself.
    fn buffer(&mut self, slot: usize) -> Option<&mut [u8]> {
        let _ = slot;
        None
    }

    /// How many whole blocks the disk has.
    fn blocks(&self) -> u64;

    /// Puts a request for a whole block into the ring, from or to the buffer number `slot`.
    fn submit(&mut self, write: bool, block: u64, slot: usize) -> Result<()>;

    /// Kicks the back-end if it wants to be told of new requests.
    fn kick(&mut self) -> Result<()>;

    /// Adds the slots of requests that have ended. It is an error if one of them failed.
    fn ended(&mut self, slots: &mut Vec<usize>) -> Result<()>;

    /// Asks for a call and sleeps until there is one, unless something has ended meanwhile.
    fn wait(&mut self) -> Result<()>;

    /// An eventfd that ends a [`FrontEnd::wait`] when written to.
    fn alarm(&self) -> Result<OwnedFd>;
}

/// The kinds of front-end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// That of the virtio-driver crate, which is libblkio's.
    VirtioDriver,
    /// The same with a packed virtqueue.
    Packed,
    /// A front-end with all its memory in this file, for a back-end that accepts no other memory.
    OneFile(PathBuf),
}

impl Kind {
    /// Connects to the back-end at `socket`, with `count` buffers of `block` bytes.
    pub fn connect(&self, socket: &Path, block: usize, count: usize) -> Result<Box<dyn FrontEnd>> {
        Ok(match self {
            Self::VirtioDriver => {
                Box::new(virtio_driver::VirtioDriver::connect(socket, block, count)?)
            }
            Self::Packed => {
                let socket = packed::between(socket)?;
                Box::new(virtio_driver::VirtioDriver::packed(&socket, block, count)?)
            }
            Self::OneFile(file) => {
                Box::new(one_file::OneFile::connect(socket, file, block, count)?)
            }
        })
    }
}
