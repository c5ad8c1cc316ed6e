//! Headers, commands, and the bytes of payloads.

/// Length of a header in bytes.
pub(crate) const HEADER_SIZE: usize = 16;

/// The maximum number of bytes that one message carries to or from a region. The protocol has the
/// same default.
pub(crate) const MAX_DATA: usize = 1024 * 1024;

/// The maximum length of a message in bytes, header included. Longer messages are refused.
pub(crate) const MAX_MESSAGE: usize = MAX_DATA + 4096;

/// The maximum number of file descriptors in one message. QEMU has the same limit.
pub(crate) const MAX_FDS: usize = 16;

/// The type of a message that answers the command with the same id.
const REPLY: u32 = 1;
/// The bits of a header's flags that contain the type of the message.
const TYPE: u32 = 0xf;
/// The flag of a command whose sender wants no reply.
const NO_REPLY: u32 = 0x10;
/// The flag of a reply to a command that failed.
const ERROR: u32 = 0x20;

/// The kind of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[expect(missing_docs, reason = "the specification's names")]
pub enum Command {
    Version = 1,
    DmaMap = 2,
    DmaUnmap = 3,
    DeviceGetInfo = 4,
    DeviceGetRegionInfo = 5,
    DeviceGetRegionIoFds = 6,
    DeviceGetIrqInfo = 7,
    DeviceSetIrqs = 8,
    RegionRead = 9,
    RegionWrite = 10,
    DmaRead = 11,
    DmaWrite = 12,
    DeviceReset = 13,
    RegionWriteMulti = 15,
}

impl Command {
    const ALL: [Self; 14] = [
        Self::Version,
        Self::DmaMap,
        Self::DmaUnmap,
        Self::DeviceGetInfo,
        Self::DeviceGetRegionInfo,
        Self::DeviceGetRegionIoFds,
        Self::DeviceGetIrqInfo,
        Self::DeviceSetIrqs,
        Self::RegionRead,
        Self::RegionWrite,
        Self::DmaRead,
        Self::DmaWrite,
        Self::DeviceReset,
        Self::RegionWriteMulti,
    ];

    /// The command with this number, if the protocol has one.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|command| *command as u16 == number)
    }
}

/// Whether a message is a command or a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The message is a command. If `no_reply` is true, the sender wants no reply.
    Command { no_reply: bool },
    /// The message answers a command. `errno` is `None` if the command succeeded. If the command
    /// failed, `errno` is the reason, or 0 for an unknown reason.
    Reply { errno: Option<u32> },
}

/// The beginning of every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The id of a command. The sender of the command chooses the id, and the reply repeats the id.
    pub(crate) id: u16,
    /// The number of a [`Command`], or a number that this crate does not know.
    pub(crate) command: u16,
    pub(crate) kind: Kind,
}

/// The reason why bytes are not a valid header.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// The header announces a message that is shorter or longer than allowed.
    #[error("a message of {0} bytes is announced; {HEADER_SIZE} to {MAX_MESSAGE} are allowed")]
    Size(u32),
    /// The message's type is neither command nor reply.
    #[error("a message with flags {0:#x} is neither a command nor a reply")]
    Flags(u32),
}

impl Header {
    /// The bytes of the header, for a payload of `payload` bytes.
    pub(crate) fn encode(&self, payload: usize) -> [u8; HEADER_SIZE] {
        let (flags, errno) = match self.kind {
            Kind::Command { no_reply: false } => (0, 0),
            Kind::Command { no_reply: true } => (NO_REPLY, 0),
            Kind::Reply { errno: None } => (REPLY, 0),
            Kind::Reply { errno: Some(errno) } => (REPLY | ERROR, errno),
        };
        let mut bytes = [0; HEADER_SIZE];
        bytes[0..2].copy_from_slice(&self.id.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.command.to_le_bytes());
        bytes[4..8].copy_from_slice(&((HEADER_SIZE + payload) as u32).to_le_bytes());
        bytes[8..12].copy_from_slice(&u32::to_le_bytes(flags));
        bytes[12..16].copy_from_slice(&errno.to_le_bytes());
        bytes
    }

    /// Reads a header. Returns the header and the length of the payload that follows.
    pub(crate) fn decode(bytes: &[u8; HEADER_SIZE]) -> Result<(Self, usize), HeaderError> {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
        let (size, flags) = (word(4), word(8));
        if !(HEADER_SIZE..=MAX_MESSAGE).contains(&(size as usize)) {
            return Err(HeaderError::Size(size));
        }
        let kind = match flags & TYPE {
            0 => Kind::Command {
                no_reply: flags & NO_REPLY != 0,
            },
            REPLY => Kind::Reply {
                errno: (flags & ERROR != 0).then(|| word(12)),
            },
            _ => return Err(HeaderError::Flags(flags)),
        };
        let header = Self {
            id: half(0),
            command: half(2),
            kind,
        };
        Ok((header, size as usize - HEADER_SIZE))
    }
}

/// Reads fields from the front of a payload. Each method returns `None` when the payload is too
/// short.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    /// Skips `count` bytes.
    pub(crate) fn skip(&mut self, count: usize) -> Option<()> {
        self.bytes(count).map(|_| ())
    }
}

/// A payload that is built by appending fields.
#[derive(Clone, Debug, Default)]
pub(crate) struct Payload(pub(crate) Vec<u8>);

impl Payload {
    pub(crate) fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_have_the_specified_bytes() {
        let header = Header {
            id: 0x1234,
            command: Command::DmaMap as u16,
            kind: Kind::Reply { errno: Some(22) },
        };
        let bytes = [0x34, 0x12, 2, 0, 0x30, 0, 0, 0, 0x21, 0, 0, 0, 22, 0, 0, 0];
        assert_eq!(header.encode(32), bytes);
        assert_eq!(Header::decode(&bytes), Ok((header, 32)));
    }

    #[test]
    fn a_header_with_an_impossible_size_or_type_is_refused() {
        let mut bytes = [0; HEADER_SIZE];
        bytes[4] = 15;
        assert_eq!(Header::decode(&bytes), Err(HeaderError::Size(15)));
        bytes[7] = 1;
        assert!(matches!(
            Header::decode(&bytes),
            Err(HeaderError::Size(0x0100_000f))
        ));
        bytes[4..8].copy_from_slice(&16u32.to_le_bytes());
        bytes[8] = 2;
        assert_eq!(Header::decode(&bytes), Err(HeaderError::Flags(2)));
    }

    proptest! {
        #[test]
        fn any_header_that_decodes_survives_the_round_trip(bytes: [u8; HEADER_SIZE]) {
            if let Ok((header, payload)) = Header::decode(&bytes) {
                prop_assert_eq!(Header::decode(&header.encode(payload)), Ok((header, payload)));
            }
        }
    }
}
