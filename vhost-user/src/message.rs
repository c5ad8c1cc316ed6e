//! Messages as bytes: a header of 12 bytes and a payload.

use std::os::fd::OwnedFd;

use bitflags::bitflags;

use crate::table::{Answer, Kind, OnError};

/// Length of a header in bytes.
pub const HEADER_SIZE: usize = 12;

/// The longest payload that is taken, in bytes.
pub const MAX_PAYLOAD: usize = 4096;

bitflags! {
    /// The flags field of a header.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags: u32 {
        /// The protocol's version, which is 1. The other bit of the version is never set.
        const VERSION_1 = 1;
        /// The message answers one that went the other way.
        const REPLY = 4;
        /// The sender wants an answer even where the request has none of its own.
        const NEED_REPLY = 8;
    }
}

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The version is not 1 or a reserved flag is set.
    #[error("message {request} has flags {flags:#x}: not vhost-user version 1")]
    Flags {
        /// The message's request number.
        request: u32,
        /// Its flags.
        flags: u32,
    },
    /// The payload is too long.
    #[error("message {request} has a payload of {size} bytes; at most {MAX_PAYLOAD} are allowed")]
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

/// What a header says of its message, beside the payload's length: all that it takes to answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What the message asks for or answers: a number of the [`table`](crate::table).
    pub request: u32,
    /// How to take it.
    pub flags: Flags,
}

impl Head {
    /// Reads and checks a header. Gives the payload's length in bytes, too.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything that is not version 1 or too long.
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

    /// What the table says of the request; `None` when it does not know it.
    pub fn kind(&self) -> Option<&'static Kind> {
        Kind::find(self.request)
    }

    /// The request's name, or its number when it has none, for people.
    pub fn name(&self) -> String {
        match self.kind() {
            Some(kind) => kind.name.to_owned(),
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

    /// The answer to this request, with this payload.
    pub fn reply(&self, payload: &[u8]) -> Message {
        let flags = Flags::VERSION_1 | Flags::REPLY;
        let request = self.request;
        let head = Self { request, flags };
        let payload = payload.to_vec();
        Message { head, payload }
    }

    /// The answer to this request when it failed. `None`: the protocol has no answer for that, so
    /// the connection has to end. `acks` says whether acknowledgements were agreed on (REPLY_ACK).
    ///
    /// An acknowledgement in the place of a reply would be read as that reply.
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
    /// What it is about.
    pub head: Head,
    /// The payload, at most [`MAX_PAYLOAD`] bytes.
    pub payload: Vec<u8>,
}

impl Message {
    /// The request with this number and payload.
    pub fn request(request: u32, payload: &[u8]) -> Self {
        let flags = Flags::VERSION_1;
        Self {
            head: Head { request, flags },
            payload: payload.to_vec(),
        }
    }

    /// The same message, which wants an answer in any case.
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

    /// The payload as one number; `None` when it does not have exactly 8 bytes.
    pub fn as_number(&self) -> Option<u64> {
        as_number(&self.payload)
    }
}

fn as_number(payload: &[u8]) -> Option<u64> {
    payload.try_into().map(u64::from_le_bytes).ok()
}

/// What a request is answered with.
#[derive(Debug, Default)]
pub struct Reply {
    /// At most [`MAX_PAYLOAD`] bytes.
    pub payload: Vec<u8>,
    /// Descriptors that go along.
    pub fds: Vec<OwnedFd>,
}

impl Reply {
    /// A reply that is these bytes.
    pub fn bytes(payload: Vec<u8>) -> Self {
        let fds = Vec::new();
        Self { payload, fds }
    }

    /// A reply that is one number.
    pub fn number(value: u64) -> Self {
        Self::bytes(value.to_le_bytes().to_vec())
    }

    /// The payload as one number; `None` when it does not have exactly 8 bytes.
    pub fn as_number(&self) -> Option<u64> {
        as_number(&self.payload)
    }

    /// A reply that only says whether the request succeeded.
    pub fn ack(success: bool) -> Self {
        Self::number(u64::from(!success))
    }
}

#[cfg(test)]
mod tests;
