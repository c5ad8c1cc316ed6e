//! The client's end: uses a PCI function that another process emulates.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipc::StreamError;

use crate::channel::{Channel, ChannelError};
use crate::codec::{self, INFO_SIZE, REGION_INFO_SIZE};
use crate::types::{DeviceInfo, DmaFlags, IoEventFd, IrqInfo, RegionFlags, RegionInfo};
use crate::version::{MAJOR, MINOR, Version};
use crate::wire::{Command, Fields, Payload};

mod exchange;
mod irqs;

/// How long a server may take to reply where nothing else is asked for.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest description of a region that is asked for, in bytes.
const MAX_DESCRIPTION: u32 = 64 * 1024;

/// A connection to a vfio-user server. Each method sends one command (or as many as it takes) and
/// waits for its reply; after an error other than [`ClientError::Refused`] the connection is of no
/// more use.
#[derive(Debug)]
pub struct Client {
    channel: Channel,
    next_id: u16,
    server: Version,
    timeout: Duration,
}

/// Why a command did not work.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens at the path.
    #[error("{path}: cannot connect: {source}")]
    Connect {
        /// The path of the socket.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The connection is of no more use.
    #[error("vfio-user server: {0}")]
    Channel(#[from] ChannelError),
    /// No reply came within the time limit. A server with another client does not answer either.
    #[error("vfio-user server does not answer {command:?} within {limit:?}; is it in use?")]
    TimedOut {
        /// The command without a reply.
        command: Command,
        /// The time limit.
        limit: Duration,
    },
    /// The server refused the command.
    #[error("vfio-user server refuses {command:?}: {source}")]
    Refused {
        /// The command.
        command: Command,
        /// The errno that came with the refusal.
        source: io::Error,
    },
    /// The server speaks another version of the protocol.
    #[error("vfio-user server speaks version {major}.{minor}, not {MAJOR}.{MINOR} or less")]
    Version {
        /// Its major version.
        major: u16,
        /// Its minor version.
        minor: u16,
    },
    /// The reply makes no sense.
    #[error("vfio-user server's reply to {command:?} is wrong: {what}")]
    BadReply {
        /// The command.
        command: Command,
        /// What is wrong with the reply.
        what: &'static str,
    },
    /// The caller asks for more than one message can carry.
    #[error("access of {0} bytes is longer than the vfio-user server takes")]
    TooLong(usize),
}

impl ClientError {
    fn from_io(error: io::Error) -> Self {
        Self::Channel(StreamError::Io(error).into())
    }
}

type Result<T> = std::result::Result<T, ClientError>;

impl Client {
    /// Connects to the server that listens at `path` and negotiates the version. Each reply, now
    /// and later, may take `timeout`; see [`DEFAULT_TIMEOUT`].
    ///
    /// # Errors
    ///
    /// [`ClientError`], for instance when the server is busy with another client.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self> {
        let failed = |source| ClientError::Connect {
            path: path.to_owned(),
            source,
        };
        Self::from_stream(UnixStream::connect(path).map_err(failed)?, timeout)
    }

    /// As [`Client::connect`], over a socket that is connected already.
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
        };
        let reply = client.call(Command::Version, ours.encode(), &[])?;
        let server = Version::decode(reply.payload())
            .ok_or_else(|| bad(Command::Version, "no version in it"))?;
        if server.major != MAJOR || server.minor > MINOR {
            return Err(ClientError::Version {
                major: server.major,
                minor: server.minor,
            });
        }
        client.server = server;
        Ok(client)
    }

    /// What the device has.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn device_info(&mut self) -> Result<DeviceInfo> {
        let command = Command::DeviceGetInfo;
        let request = Payload::default().u32(INFO_SIZE).u32(0).u32(0).u32(0);
        let reply = self.call(command, request, &[])?;
        codec::decode_device(reply.payload()).ok_or_else(|| bad(command, "too short"))
    }

    /// Describes region number `index`; see [`crate::index`]. All areas lie inside the region, and
    /// there is a file when there are areas. Nothing is known about the file's length.
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
            return Err(bad(command, "says that it is very long"));
        }
        if needed as usize > reply.payload().len() {
            reply = self.call(command, request(needed), &[])?;
        }
        let mut info =
            codec::decode_region(reply.payload()).ok_or_else(|| bad(command, "inconsistent"))?;
        info.file = reply.fds.into_iter().next().map(|fd| Arc::new(fd.into()));
        if info.file.is_none() {
            // Some servers have nothing to map after all. Reads and writes still work.
            info.areas.clear();
            info.flags.remove(RegionFlags::MMAP);
        }
        Ok(info)
    }

    /// The eventfds that can stand for writes to a region; every part lies inside the region.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; a server without them may refuse.
    pub fn region_io_fds(&mut self, index: u32) -> Result<Vec<IoEventFd>> {
        let command = Command::DeviceGetRegionIoFds;
        let request = |argsz: u32| Payload::default().u32(argsz).u32(0).u32(index).u32(0);
        let mut reply = self.call(command, request(INFO_SIZE), &[])?;
        let needed = codec::io_fds_needed(reply.payload()).unwrap_or(0);
        if needed > MAX_DESCRIPTION {
            return Err(bad(command, "says that it is very long"));
        }
        if needed as usize > reply.payload().len() {
            reply = self.call(command, request(needed), &[])?;
        }
        let fds = std::mem::take(&mut reply.fds);
        codec::decode_io_fds(reply.payload(), fds).ok_or_else(|| bad(command, "inconsistent"))
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
            return Err(bad(command, "not as long as the access"));
        }
        data.copy_from_slice(bytes);
        Ok(())
    }

    /// Writes to a region, and waits until the device has seen it.
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

    /// Lets the device access `size` bytes of memory at address `iova`: the file's from `offset` on.
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

    /// Lets the device access memory through this client only, which it may not be able to.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn dma_map_without_file(&mut self, iova: u64, size: u64, access: DmaFlags) -> Result<()> {
        let head = Payload::default().u32(32).u32(access.bits()).u64(0);
        self.call(Command::DmaMap, head.u64(iova).u64(size), &[])?;
        Ok(())
    }

    /// Takes memory away from the device.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn dma_unmap(&mut self, iova: u64, size: u64) -> Result<()> {
        let request = Payload::default().u32(24).u32(0).u64(iova).u64(size);
        self.call(Command::DmaUnmap, request, &[])?;
        Ok(())
    }

    /// Describes interrupt kind number `index`; see [`crate::index`].
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn irq_info(&mut self, index: u32) -> Result<IrqInfo> {
        let command = Command::DeviceGetIrqInfo;
        let request = Payload::default().u32(INFO_SIZE).u32(0).u32(index).u32(0);
        let reply = self.call(command, request, &[])?;
        codec::decode_irq(reply.payload()).ok_or_else(|| bad(command, "too short"))
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
    /// The socket: readable outside a method call only when the server is gone or misbehaves.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

fn bad(command: Command, what: &'static str) -> ClientError {
    ClientError::BadReply { command, what }
}

#[cfg(test)]
mod tests;
