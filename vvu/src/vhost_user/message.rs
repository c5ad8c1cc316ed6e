//! Messages: a header of 12 bytes and a payload.
//!
//! Source: QEMU's `docs/interop/vhost-user.rst`. The payload structures are the `vhost` crate's.

use std::mem::size_of;

use bitflags::bitflags;
use vhost::vhost_user::message::{FrontendReq, VhostUserMemory, VhostUserMemoryRegion};
use vm_memory::ByteValued;

/// Length of a header in bytes.
pub const HEADER_SIZE: usize = 12;

/// The longest payload that is taken, in bytes.
pub const MAX_PAYLOAD: usize = 4096;

/// The most memory regions that one message may bring.
pub const MAX_REGIONS: usize = 32;

bitflags! {
    /// The flags field of a header.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags: u32 {
        /// The protocol's version, which is 1. Its other bit is never set.
        const VERSION_1 = 1;
        /// The message answers one that went the other way.
        const REPLY = 4;
        /// The sender wants an answer even where the request has none of its own.
        const NEED_REPLY = 8;
    }
}

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the message asks for or answers; see [`FrontendReq`].
    pub request: u32,
    /// How to take it.
    pub flags: Flags,
    /// Length of the payload in bytes, at most [`MAX_PAYLOAD`].
    pub size: u32,
}

/// Why bytes are no message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The version is not 1 or a reserved flag is set.
    #[error("message {request} has flags {flags:#x}: not vhost-user version 1")]
    Flags {
        /// The message's request number.
        request: u32,
        /// Its flags.
        flags: u32,
    },
    /// The payload is longer than any message's.
    #[error(
        "message {request} says that its payload has {size} bytes; at most {MAX_PAYLOAD} are allowed"
    )]
    TooLong {
        /// The message's request number.
        request: u32,
        /// Its payload's length in bytes.
        size: u32,
    },
    /// The header and what follows disagree.
    #[error("message has {actual} bytes, but its header stands for {expected}")]
    Length {
        /// Bytes that there should be, header included.
        expected: usize,
        /// Bytes that there are.
        actual: usize,
    },
}

impl Header {
    /// Reads and checks a header.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything that is not version 1 or too long.
    pub fn decode(bytes: &[u8; HEADER_SIZE]) -> Result<Self, DecodeError> {
        let [request, flags, size] = [0, 4, 8]
            .map(|at| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
        if size as usize > MAX_PAYLOAD {
            return Err(DecodeError::TooLong { request, size });
        }
        Flags::from_bits(flags)
            .filter(|flags| flags.contains(Flags::VERSION_1))
            .map(|flags| Self {
                request,
                flags,
                size,
            })
            .ok_or(DecodeError::Flags { request, flags })
    }
}

/// A whole message, without the file descriptors that may come with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What the message asks for or answers; see [`FrontendReq`].
    pub request: u32,
    /// How to take it.
    pub flags: Flags,
    /// The payload, at most [`MAX_PAYLOAD`] bytes.
    pub payload: Vec<u8>,
}

/// A payload that is not what its request calls for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("payload of {actual} bytes is no {expected}")]
pub struct PayloadError {
    /// What it should be.
    pub expected: &'static str,
    /// Its length in bytes.
    pub actual: usize,
}

impl Message {
    /// A request with this payload.
    pub fn request(request: FrontendReq, payload: &[u8]) -> Self {
        Self {
            request: request.into(),
            flags: Flags::VERSION_1,
            payload: payload.to_vec(),
        }
    }

    /// The answer to this message, with this payload.
    pub fn reply(&self, payload: &[u8]) -> Self {
        let flags = Flags::VERSION_1 | Flags::REPLY;
        Self {
            request: self.request,
            flags,
            payload: payload.to_vec(),
        }
    }

    /// The answer to this message that says only whether it worked.
    pub fn ack(&self, success: bool) -> Self {
        self.reply(&u64::from(!success).to_le_bytes())
    }

    /// The message as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let size = self.payload.len() as u32;
        let header = [self.request, self.flags.bits(), size].map(u32::to_le_bytes);
        let mut bytes = header.concat();
        bytes.extend(&self.payload);
        bytes
    }

    /// Reads exactly one message.
    ///
    /// # Errors
    ///
    /// [`DecodeError`], also when bytes are missing or left over.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wrong_length = |expected| DecodeError::Length {
            expected,
            actual: bytes.len(),
        };
        let (header, payload) = bytes
            .split_first_chunk::<HEADER_SIZE>()
            .ok_or_else(|| wrong_length(HEADER_SIZE))?;
        let header = Header::decode(header)?;
        if payload.len() != header.size as usize {
            return Err(wrong_length(HEADER_SIZE + header.size as usize));
        }
        Ok(Self {
            request: header.request,
            flags: header.flags,
            payload: payload.to_vec(),
        })
    }

    /// The request by name; `None` for a number that this protocol version does not know.
    pub fn code(&self) -> Option<FrontendReq> {
        FrontendReq::try_from(self.request).ok()
    }

    /// The request's name, or its number when it has none, for people.
    pub fn name(&self) -> String {
        match self.code() {
            Some(code) => format!("{code:?}"),
            None => format!("request {}", self.request),
        }
    }

    /// Whether the sender wants an answer even where the request has none of its own.
    pub fn needs_reply(&self) -> bool {
        self.flags.contains(Flags::NEED_REPLY)
    }

    /// Whether this is an answer.
    pub fn is_reply(&self) -> bool {
        self.flags.contains(Flags::REPLY)
    }

    /// The payload as one number.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] when it has not exactly 8 bytes.
    pub fn as_u64(&self) -> Result<u64, PayloadError> {
        let bytes = self.payload.as_slice().try_into();
        bytes
            .map(u64::from_le_bytes)
            .map_err(|_| self.payload_error("64-bit number"))
    }

    /// The payload as one structure.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] when its length is not exactly the structure's.
    pub fn as_struct<T: ByteValued + Default>(&self) -> Result<T, PayloadError> {
        let mut value = T::default();
        if self.payload.len() != size_of::<T>() {
            return Err(self.payload_error(std::any::type_name::<T>()));
        }
        value.as_mut_slice().copy_from_slice(&self.payload);
        Ok(value)
    }

    /// The payload of SET_VRING_KICK, SET_VRING_CALL or SET_VRING_ERR.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] when it has not exactly 8 bytes.
    pub fn as_vring_fd(&self) -> Result<VringFd, PayloadError> {
        let value = self.as_u64()?;
        Ok(VringFd {
            queue: (value & 0xff) as u16,
            has_fd: value & 0x100 == 0,
        })
    }

    /// The payload of ADD_MEM_REG or REM_MEM_REG.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] when its length is wrong.
    pub fn as_single_region(&self) -> Result<VhostUserMemoryRegion, PayloadError> {
        let error = || self.payload_error("single memory region");
        let (_padding, region) = self.payload.split_first_chunk::<8>().ok_or_else(error)?;
        decode_region(region).ok_or_else(error)
    }

    fn payload_error(&self, expected: &'static str) -> PayloadError {
        PayloadError {
            expected,
            actual: self.payload.len(),
        }
    }
}

/// The payload of SET_VRING_KICK, SET_VRING_CALL and SET_VRING_ERR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringFd {
    /// Which queue, 0 to 255.
    pub queue: u16,
    /// Whether a file descriptor comes along; without one the receiver polls, or stays silent.
    pub has_fd: bool,
}

fn decode_region(bytes: &[u8]) -> Option<VhostUserMemoryRegion> {
    let mut region = VhostUserMemoryRegion::default();
    if bytes.len() != size_of::<VhostUserMemoryRegion>() {
        return None;
    }
    region.as_mut_slice().copy_from_slice(bytes);
    Some(region)
}

/// Reads the payload of SET_MEM_TABLE: 1 to [`MAX_REGIONS`] regions.
///
/// # Errors
///
/// [`PayloadError`] when their number is out of range or does not go with the length.
pub fn decode_regions(payload: &[u8]) -> Result<Vec<VhostUserMemoryRegion>, PayloadError> {
    let error = || PayloadError {
        expected: "memory table",
        actual: payload.len(),
    };
    let (count, rest) = payload.split_first_chunk::<4>().ok_or_else(error)?;
    let (_padding, rest) = rest.split_first_chunk::<4>().ok_or_else(error)?;
    let count = u32::from_le_bytes(*count) as usize;
    let chunks = rest.chunks_exact(size_of::<VhostUserMemoryRegion>());
    let fits = (1..=MAX_REGIONS).contains(&count) && chunks.len() == count;
    if !fits || !chunks.remainder().is_empty() {
        return Err(error());
    }
    chunks
        .map(|bytes| decode_region(bytes).ok_or_else(error))
        .collect()
}

/// The payload of SET_MEM_TABLE with these regions.
pub fn encode_regions(regions: &[VhostUserMemoryRegion]) -> Vec<u8> {
    let mut payload = VhostUserMemory::new(regions.len() as u32)
        .as_slice()
        .to_vec();
    for region in regions {
        payload.extend(region.as_slice());
    }
    payload
}

#[cfg(test)]
mod tests;
