//! Why a queue cannot be started or stopped.

use std::io;
use std::time::Duration;

use crate::QueueError;

/// Why a vring could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The device has no queue with this index.
    #[error("the device has no queue {0}")]
    NoSuchQueue(u16),
    /// The queue was started before and not stopped since.
    #[error("queue {0} is running")]
    Running(u16),
    /// The layout of the vring is invalid, or the vring is not inside memory.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The operating system refused a thread for the queue, or the eventfd that wakes it.
    #[error("cannot start a queue's thread")]
    Thread(#[source] io::Error),
}

/// A queue did not stop in time: a request in flight takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("queue {queue} did not stop within {waited:?}, because a request in flight does not end")]
pub struct StopError {
    /// The queue.
    pub queue: u16,
    /// How long the runner waited for it.
    pub waited: Duration,
}
