//! The operating system's interfaces that vhost-user and vfio-user need: messages with descriptors
//! over Unix stream sockets, listeners, and eventfds that are shared with another process.
//!
//! The other process may be hostile. It may split messages anywhere, stop in the middle of a
//! message, send too many descriptors, never read, or change the flags and the counter of an
//! eventfd at any moment. The functions that send, receive or accept do not block. Only [`poll`]
//! waits, with a time limit that the caller chooses.
//!
//! ```
//! use std::os::unix::net::UnixStream;
//! use ipc::{Framed, StreamError};
//!
//! /// A protocol whose messages are one byte that gives their length, and that many bytes.
//! fn missing(received: &[u8]) -> Result<usize, StreamError> {
//!     Ok(match received.first() {
//!         None => 1,
//!         Some(len) => 1 + usize::from(*len) - received.len(),
//!     })
//! }
//!
//! let (ours, theirs) = UnixStream::pair()?;
//! let (mut ours, mut theirs) = (Framed::new(ours, 0)?, Framed::new(theirs, 0)?);
//! ours.send(b"\x02hi", &[])?;
//! let message = theirs.receive(missing)?.expect("a whole message was sent");
//! assert_eq!(message.bytes, b"\x02hi");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod connect;
mod eventfd;
mod framed;
mod inherited;
mod listener;
mod poll;
mod socket_access;
mod socket_path;
mod stream;
mod watchdog;

pub use connect::connect;
pub use eventfd::{SharedEventFd, SharedEventFdError};
pub use framed::{Frame, Framed};
pub use inherited::{InheritError, Inherited};
pub use listener::{Accepted, Listener};
pub use poll::{Interest, poll};
pub use socket_access::SocketAccess;
pub use socket_path::{ListenError, SocketPath};
pub use stream::{Stream, StreamError};
pub use watchdog::start_watchdog;
