//! The client, which uses a PCI function that another process emulates.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::channel::Channel;
use crate::codec::{self, INFO_SIZE, REGION_INFO_SIZE};
use crate::types::{DeviceInfo, DmaFlags, IoEventFd, IrqInfo, RegionFlags, RegionInfo};
use crate::version::{MAJOR, MINOR, Version};
use crate::wire::{Command, Fields, Payload};

mod error;
mod exchange;
mod irqs;

pub use error::ClientError;

/// The usual time limit for a reply of a server.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum length in bytes of a reply that describes a region or its eventfds. The client does
/// not accept longer replies.
const MAX_DESCRIPTION: u32 = 64 * 1024;

/// A connection to a vfio-user server. Each method sends one command, or several, and waits for the
/// replies. After an error other than [`ClientError::Refused`] and [`ClientError::TooLong`] the
/// connection cannot be used any more, and later commands fail at once.
#[derive(Debug)]
pub struct Client {
    channel: Channel,
    next_id: u16,
    server: Version,
    timeout: Duration,
    /// Whether a command failed in a way that ended the connection.
    ended: bool,
}

type Result<T> = std::result::Result<T, ClientError>;

impl Client {
    /// Connects to the server that listens at `path`, and negotiates the version. `timeout` is the
    /// time limit for the connection and for each reply, also for the replies to later commands.
    /// The usual limit is [`DEFAULT_TIMEOUT`].
    ///
    /// # Errors
    ///
    /// [`ClientError`], for instance when the server is busy with another client.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self> {
        let stream = ipc::connect(path, timeout).map_err(|source| ClientError::Connect {
            path: path.to_owned(),
            source,
        })?;
        Self::from_stream(stream, timeout)
    }

    /// Takes a connected socket, and negotiates the version as [`Client::connect`] does.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn from_stream(stream: UnixStream, timeout: Duration) -> Result<Self> {
        let ours = Version::ours();
        let mut client = Self {
            channel: Channel::new(stream, timeout).map_err(ClientError::from_io)?,
            next_id: 0,
            server: ours,
            timeout,
            ended: false,
        };
        let reply = client.call(Command::Version, ours.encode(), &[])?;
        let server = Version::decode(reply.payload())
            .ok_or_else(|| bad(Command::Version, "it has no version"))?;
        if server.major != MAJOR || server.minor > MINOR {
            return Err(ClientError::Version {
                major: server.major,
                minor: server.minor,
            });
        }
        client.server = server;
        Ok(client)
    }

    /// Asks for the kind of the device, the number of its regions, and the number of its interrupt
    /// kinds.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn device_info(&mut self) -> Result<DeviceInfo> {
        let command = Command::DeviceGetInfo;
        let request = Payload::default().u32(INFO_SIZE).u32(0).u32(0).u32(0);
        let reply = self.call(command, request, &[])?;
        codec::decode_device(reply.payload()).ok_or_else(|| bad(command, "it is too short"))
    }

    /// Asks for the description of the region with number `index` (see [`crate::index`]). All areas
    /// of the description lie inside the region. A description with areas has a file to map, but
    /// the file may be shorter than the areas require.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn region_info(&mut self, index: u32) -> Result<RegionInfo> {
        let command = Command::DeviceGetRegionInfo;
        let request = |argsz: u32| {
            let head = Payload::default().u32(argsz).u32(0).u32(index).u32(0);
            head.u64(0).u64(0)
        };
        let mut reply = self.call(command, request(REGION_INFO_SIZE), &[])?;
        let needed = Fields(reply.payload()).u32().unwrap_or(0);
        if needed > MAX_DESCRIPTION {
            return Err(bad(command, "it announces a very long description"));
        }
        if needed as usize > reply.payload().len() {
            reply = self.call(command, request(needed), &[])?;
        }
        let mut info = codec::decode_region(reply.payload())
            .ok_or_else(|| bad(command, "it contradicts itself"))?;
        info.file = reply.fds.into_iter().next().map(|fd| Arc::new(fd.into()));
        if info.file.is_none() {
            // Some servers announce areas to map but send no file. Such a region can still be read
            // and written by messages.
            info.areas.clear();
            info.flags.remove(RegionFlags::MMAP);
        }
        Ok(info)
    }

    /// The eventfds that can be signalled instead of writing to a part of a region. This method
    /// does not check whether each part lies inside the region.
    ///
    /// # Errors
    ///
    /// [`ClientError`]. A server without such eventfds may refuse the command.
    pub fn region_io_fds(&mut self, index: u32) -> Result<Vec<IoEventFd>> {
        let command = Command::DeviceGetRegionIoFds;
        let request = |argsz: u32| Payload::default().u32(argsz).u32(0).u32(index).u32(0);
        let mut reply = self.call(command, request(INFO_SIZE), &[])?;
        let needed = codec::io_fds_needed(reply.payload()).unwrap_or(0);
        if needed > MAX_DESCRIPTION {
            return Err(bad(command, "it announces a very long description"));
        }
        if needed as usize > reply.payload().len() {
            reply = self.call(command, request(needed), &[])?;
        }
        let fds = std::mem::take(&mut reply.fds);
        codec::decode_io_fds(reply.payload(), fds)
            .ok_or_else(|| bad(command, "it contradicts itself"))
    }

    /// Reads from a region.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn region_read(&mut self, index: u32, offset: u64, data: &mut [u8]) -> Result<()> {
        let command = Command::RegionRead;
        let request = self.access(index, offset, data.len())?;
        let reply = self.call(command, request, &[])?;
        let (_, bytes) = reply.payload().split_at_checked(16).unwrap_or_default();
        if bytes.len() != data.len() {
            return Err(bad(command, "it does not have the length of the access"));
        }
        data.copy_from_slice(bytes);
        Ok(())
    }

    /// Writes to a region, and waits until the server confirms the write.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn region_write(&mut self, index: u32, offset: u64, data: &[u8]) -> Result<()> {
        let request = self.access(index, offset, data.len())?.bytes(data);
        self.call(Command::RegionWrite, request, &[])?;
        Ok(())
    }

    fn access(&self, index: u32, offset: u64, len: usize) -> Result<Payload> {
        if len > self.server.max_data {
            return Err(ClientError::TooLong(len));
        }
        Ok(Payload::default().u64(offset).u32(index).u32(len as u32))
    }

    /// Lets the device access `size` bytes at address `iova`. The memory at this address is the
    /// file `fd` from `offset` on.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn dma_map(
        &mut self,
        iova: u64,
        size: u64,
        fd: BorrowedFd<'_>,
        offset: u64,
        access: DmaFlags,
    ) -> Result<()> {
        let head = Payload::default().u32(32).u32(access.bits());
        let request = head.u64(offset).u64(iova).u64(size);
        self.call(Command::DmaMap, request, &[fd])?;
        Ok(())
    }

    /// Lets the device access memory that is not in a file. The device has to ask the client for
    /// each access to this memory, and this client refuses such requests.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn dma_map_without_file(&mut self, iova: u64, size: u64, access: DmaFlags) -> Result<()> {
        let head = Payload::default().u32(32).u32(access.bits()).u64(0);
        self.call(Command::DmaMap, head.u64(iova).u64(size), &[])?;
        Ok(())
    }

    /// Ends the device's access to `size` bytes at address `iova`.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn dma_unmap(&mut self, iova: u64, size: u64) -> Result<()> {
        let request = Payload::default().u32(24).u32(0).u64(iova).u64(size);
        self.call(Command::DmaUnmap, request, &[])?;
        Ok(())
    }

    /// Asks for the description of the interrupts of kind `index` (see [`crate::index`]).
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn irq_info(&mut self, index: u32) -> Result<IrqInfo> {
        let command = Command::DeviceGetIrqInfo;
        let request = Payload::default().u32(INFO_SIZE).u32(0).u32(index).u32(0);
        let reply = self.call(command, request, &[])?;
        codec::decode_irq(reply.payload()).ok_or_else(|| bad(command, "it is too short"))
    }

    /// Resets the device.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn reset(&mut self) -> Result<()> {
        self.call(Command::DeviceReset, Payload::default(), &[])?;
        Ok(())
    }
}

impl AsFd for Client {
    /// The client's socket. Between two commands, the socket is readable only if the server left,
    /// sent a command or broke the protocol.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

fn bad(command: Command, what: &'static str) -> ClientError {
    ClientError::BadReply { command, what }
}

#[cfg(test)]
mod tests;
