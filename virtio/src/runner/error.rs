//! The errors of starting and stopping queues.

use std::io;
use std::time::Duration;

use crate::QueueError;

/// The reason for which a vring could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The device has no queue with this index.
    #[error("the device has no queue {0}")]
    NoSuchQueue(u16),
    /// The queue was started earlier, and has not been stopped since.
    #[error("queue {0} is running")]
    Running(u16),
    /// The layout of the vring is invalid, or the vring is not inside memory.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The operating system refused a thread for the queue, or an eventfd to wake the thread.
    #[error("cannot start a queue's thread")]
    Thread(#[source] io::Error),
}

/// A queue did not stop in time, because a request in flight takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("queue {queue} did not stop within {waited:?}, because a request in flight does not end")]
pub struct StopError {
    /// The index of the queue.
    pub queue: u16,
    /// The time that the runner waited for the queue.
    pub waited: Duration,
}
