//! Front-ends for a disk with one queue. While a front-end waits for its requests, it sleeps until
//! the back-end sends a call, as a guest sleeps until an interrupt.

mod one_file;
mod packed;
pub mod virtio_driver;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// A connection to a disk. The connection has a number of slots. Each slot has a buffer, and can
/// have one request in flight.
pub trait FrontEnd {
    /// The buffer of a slot that has no request in flight. The result is `None` if the front-end
    /// does not give access to its buffers.
    fn buffer(&mut self, slot: usize) -> Option<&mut [u8]> {
        let _ = slot;
        None
    }

    /// The number of whole blocks that fit on the disk.
    fn blocks(&self) -> u64;

    /// Puts a request for a whole block into the ring. A read fills the buffer of `slot`, and a
    /// write takes its data from this buffer.
    fn submit(&mut self, write: bool, block: u64, slot: usize) -> Result<()>;

    /// Kicks the back-end if the back-end has asked for notifications of new requests.
    fn kick(&mut self) -> Result<()>;

    /// Adds the slots of completed requests to `slots`. It is an error if a request failed.
    fn ended(&mut self, slots: &mut Vec<usize>) -> Result<()>;

    /// Asks the back-end for a call, and sleeps until the call comes. Returns at once if a request
    /// has already completed.
    fn wait(&mut self) -> Result<()>;

    /// An eventfd. A write to the eventfd ends a [`FrontEnd::wait`].
    fn alarm(&self) -> Result<OwnedFd>;
}

/// The kinds of front-end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The front-end of the virtio-driver crate, which libblkio uses, too.
    VirtioDriver,
    /// The front-end of the virtio-driver crate with a packed virtqueue.
    Packed,
    /// A front-end with all its memory in the file at this path, for a back-end that can use only
    /// this file as memory.
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
