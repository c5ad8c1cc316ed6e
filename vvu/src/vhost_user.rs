//! The vhost-user protocol's messages, and their exchange over a Unix socket.

mod message;
mod sharing;
mod socket;

pub use message::{
    DecodeError, Flags, HEADER_SIZE, Header, MAX_PAYLOAD, MAX_REGIONS, Message, PayloadError,
    VringFd, decode_regions, encode_regions,
};
pub use sharing::{Inspector, Outside, PrivateMemory, inspection};
pub use socket::{Connection, ConnectionError, ListenError, Listener, SocketPath};
