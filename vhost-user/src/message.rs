//! Messages as bytes. A message consists of a header of 12 bytes and a payload.

use std::os::fd::OwnedFd;

use bitflags::bitflags;

use crate::table::{Answer, Kind, OnError};

/// The length of a header in bytes.
pub const HEADER_SIZE: usize = 12;

/// The maximum length of a payload in bytes. Messages with longer payloads are refused.
pub const MAX_PAYLOAD: usize = 4096;

bitflags! {
    /// The flags field of a header.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags: u32 {
        /// Version 1 of the protocol. The version has two bits in the flags field, and the upper
        /// bit is never set.
        const VERSION_1 = 1;
        /// The message is the answer to an earlier request of the receiver.
        const REPLY = 4;
        /// The sender asks for an answer, even if the request has no reply of its own.
        const NEED_REPLY = 8;
    }
}

/// The reason why bytes are not a valid message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The version is not 1 or a reserved flag is set.
    #[error("message {request} has flags {flags:#x}: not vhost-user version 1")]
    Flags {
        /// The message's request number.
        request: u32,
        /// The message's flags.
        flags: u32,
    },
    /// The payload is too long.
    #[error("message {request} has a payload of {size} bytes; at most {MAX_PAYLOAD} are allowed")]
    TooLong {
        /// The message's request number.
        request: u32,
        /// The length of the message's payload in bytes.
        size: u32,
    },
    /// The message is longer or shorter than its header says.
    #[error("message has {actual} bytes, but its header announces {expected}")]
    Length {
        /// The expected number of bytes, header included.
        expected: usize,
        /// The actual number of bytes.
        actual: usize,
    },
}

/// A message's header without the payload's length. The header of an answer is made from this part
/// of the request's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The number of the message's request in the [`table`](crate::table). An answer has the number
    /// of the request that it answers.
    pub request: u32,
    /// The flags of the message.
    pub flags: Flags,
}

impl Head {
    /// Reads and checks a header. Returns the [`Head`] and the payload's length in bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the version is not 1, a reserved flag is set, or the payload is too long.
    pub fn decode(bytes: &[u8; HEADER_SIZE]) -> Result<(Self, usize), DecodeError> {
        let [request, flags, size] = [0, 4, 8]
            .map(|at| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
        if size as usize > MAX_PAYLOAD {
            return Err(DecodeError::TooLong { request, size });
        }
        let known = Flags::from_bits(flags).filter(|flags| flags.contains(Flags::VERSION_1));
        let head = known.map(|flags| Self { request, flags });
        let head = head.ok_or(DecodeError::Flags { request, flags })?;
        Ok((head, size as usize))
    }

    /// The table's row for the request. `None` means that the request is unknown.
    pub fn kind(&self) -> Option<&'static Kind> {
        Kind::find(self.request)
    }

    /// The request's name for logs and errors. The name of an unknown request is its number.
    pub fn name(&self) -> String {
        match self.kind() {
            Some(kind) => kind.name.to_owned(),
            None => format!("request {}", self.request),
        }
    }

    /// Whether the sender asks for an answer, even if the request has no reply of its own.
    pub fn needs_reply(&self) -> bool {
        self.flags.contains(Flags::NEED_REPLY)
    }

    /// Whether the message is an answer.
    pub fn is_reply(&self) -> bool {
        self.flags.contains(Flags::REPLY)
    }

    /// The answer to this request with the given payload.
    pub fn reply(&self, payload: &[u8]) -> Message {
        let flags = Flags::VERSION_1 | Flags::REPLY;
        let request = self.request;
        let head = Self { request, flags };
        let payload = payload.to_vec();
        Message { head, payload }
    }

    /// The answer that reports the failure of this request. `None` means that the protocol has no
    /// such answer, so the connection has to end. `acks` says whether REPLY_ACK was agreed on.
    ///
    /// A request that has a reply of its own never gets an acknowledgement, because the sender
    /// would take the acknowledgement for the reply.
    pub fn refusal(&self, acks: bool) -> Option<Reply> {
        if self.is_reply() {
            return None;
        }
        let answer = self.kind().map_or(Answer::Ack, |kind| kind.answer);
        match answer {
            Answer::Ack => (acks && self.needs_reply()).then(|| Reply::ack(false)),
            Answer::Reply { on_error, .. } => match on_error {
                OnError::EmptyReply => Some(Reply::default()),
                OnError::EndConnection => None,
            },
        }
    }
}

/// A whole message, without the descriptors that may come with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The message's header, without the payload's length.
    pub head: Head,
    /// The payload, at most [`MAX_PAYLOAD`] bytes.
    pub payload: Vec<u8>,
}

impl Message {
    /// A request with the given number and payload.
    pub fn request(request: u32, payload: &[u8]) -> Self {
        let flags = Flags::VERSION_1;
        Self {
            head: Head { request, flags },
            payload: payload.to_vec(),
        }
    }

    /// The same message with the flag NEED_REPLY. The flag asks for an answer even if the request
    /// has no reply of its own.
    #[must_use]
    pub fn needing_reply(mut self) -> Self {
        self.head.flags |= Flags::NEED_REPLY;
        self
    }

    /// The message as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let Head { request, flags } = self.head;
        let size = self.payload.len() as u32;
        let mut bytes = [request, flags.bits(), size].map(u32::to_le_bytes).concat();
        bytes.extend(&self.payload);
        bytes
    }

    /// Reads exactly one message.
    ///
    /// # Errors
    ///
    /// [`DecodeError`], also when bytes are missing or left over.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let actual = bytes.len();
        let wrong_length = |expected| DecodeError::Length { expected, actual };
        let split = bytes.split_first_chunk::<HEADER_SIZE>();
        let (header, payload) = split.ok_or_else(|| wrong_length(HEADER_SIZE))?;
        let (head, size) = Head::decode(header)?;
        if payload.len() != size {
            return Err(wrong_length(HEADER_SIZE + size));
        }
        let payload = payload.to_vec();
        Ok(Self { head, payload })
    }

    /// The payload as one number. `None` means that the payload does not have exactly 8 bytes.
    pub fn as_number(&self) -> Option<u64> {
        as_number(&self.payload)
    }
}

fn as_number(payload: &[u8]) -> Option<u64> {
    payload.try_into().map(u64::from_le_bytes).ok()
}

/// The payload and the descriptors of an answer.
#[derive(Debug, Default)]
pub struct Reply {
    /// The payload of the answer, at most [`MAX_PAYLOAD`] bytes.
    pub payload: Vec<u8>,
    /// The descriptors that are sent with the payload.
    pub fds: Vec<OwnedFd>,
}

impl Reply {
    /// A reply with the given payload and without descriptors.
    pub fn bytes(payload: Vec<u8>) -> Self {
        let fds = Vec::new();
        Self { payload, fds }
    }

    /// A reply whose payload is one number of 8 bytes.
    pub fn number(value: u64) -> Self {
        Self::bytes(value.to_le_bytes().to_vec())
    }

    /// The payload as one number. `None` means that the payload does not have exactly 8 bytes.
    pub fn as_number(&self) -> Option<u64> {
        as_number(&self.payload)
    }

    /// An acknowledgement, whose number is 0 if the request succeeded and 1 if it failed.
    pub fn ack(success: bool) -> Self {
        Self::number(u64::from(!success))
    }
}

#[cfg(test)]
mod tests;
