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
    /// The client cannot connect to the socket, for instance because no server listens at the path.
    #[error("{}: cannot connect", .path.display())]
    Connect {
        /// The path of the socket.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The socket failed, the server left, or the server sent bytes that are not a vfio-user
    /// message.
    #[error("the connection to the vfio-user server is lost")]
    Channel(#[from] ChannelError),
    /// No reply came within the time limit, for instance because the server serves another client.
    #[error(
        "the vfio-user server did not answer {command:?} within {limit:?}; it may be serving \
         another client"
    )]
    TimedOut {
        /// The command that got no reply.
        command: Command,
        /// The time limit.
        limit: Duration,
    },
    /// An earlier command failed in a way that ended the connection.
    #[error("the connection to the vfio-user server failed before")]
    Ended,
    /// The server refused the command.
    #[error("the vfio-user server refuses {command:?}")]
    Refused {
        /// The command.
        command: Command,
        /// The error that the server sent with the refusal. EIO if the server sent no valid errno.
        source: io::Error,
    },
    /// The server speaks a version of the protocol that this client does not support.
    #[error("the vfio-user server speaks version {major}.{minor}, not {MAJOR}.{MINOR} or less")]
    Version {
        /// The major version of the server.
        major: u16,
        /// The minor version of the server.
        minor: u16,
    },
    /// The reply belongs to another command, or its content is not valid.
    #[error("the vfio-user server's reply to {command:?} is wrong: {what}")]
    BadReply {
        /// The command.
        command: Command,
        /// The reason why the reply is wrong, for the error message.
        what: &'static str,
    },
    /// The access has more bytes than the server takes in one message.
    #[error("an access of {0} bytes is longer than the vfio-user server accepts")]
    TooLong(usize),
}

impl ClientError {
    /// Whether the connection cannot be used any more after this error.
    pub(super) fn ends_connection(&self) -> bool {
        !matches!(self, Self::Refused { .. } | Self::TooLong(_))
    }

    /// The error for a socket that failed.
    pub(super) fn from_io(error: io::Error) -> Self {
        Self::Channel(StreamError::Io(error).into())
    }
}
