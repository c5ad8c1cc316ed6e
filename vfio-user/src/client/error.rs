//! Why commands fail.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ipc::StreamError;

use crate::channel::ChannelError;
use crate::version::{MAJOR, MINOR};
use crate::wire::Command;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nothing listens at the path.
    #[error("{}: cannot connect", .path.display())]
    Connect {
        /// The path of the socket.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The socket failed, or the server sent something that is not a message.
    #[error("the connection to the vfio-user server is lost")]
    Channel(#[from] ChannelError),
    /// No reply came within the time limit, for instance because the server serves another client.
    #[error(
        "the vfio-user server did not answer {command:?} within {limit:?}; it may be serving \
         another client"
    )]
    TimedOut {
        /// The command without a reply.
        command: Command,
        /// The time limit.
        limit: Duration,
    },
    /// The server refused the command.
    #[error("the vfio-user server refuses {command:?}")]
    Refused {
        /// The command.
        command: Command,
        /// The errno that came with the refusal.
        source: io::Error,
    },
    /// The server speaks another version of the protocol.
    #[error("the vfio-user server speaks version {major}.{minor}, not {MAJOR}.{MINOR} or less")]
    Version {
        /// The major version of the server.
        major: u16,
        /// The minor version of the server.
        minor: u16,
    },
    /// The reply does not answer the command.
    #[error("the vfio-user server's reply to {command:?} is wrong: {what}")]
    BadReply {
        /// The command.
        command: Command,
        /// What is wrong with the reply.
        what: &'static str,
    },
    /// The access has more bytes than the server takes in one message.
    #[error("an access of {0} bytes is longer than the vfio-user server takes")]
    TooLong(usize),
}

impl ClientError {
    /// The socket failed.
    pub(super) fn from_io(error: io::Error) -> Self {
        Self::Channel(StreamError::Io(error).into())
    }
}
