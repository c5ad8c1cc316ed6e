//! What can go wrong with a queue.

use std::io;
use std::time::Duration;

use crate::QueueError;

/// Why a vring could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The device has no such queue.
    #[error("the device has no queue {0}")]
    NoSuchQueue(u16),
    /// The queue was started before and not stopped since.
    #[error("queue {0} is running")]
    Running(u16),
    /// The rings are not where they were said to be.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The operating system refused a thread for the queue, or what wakes it.
    #[error("cannot start a queue's thread")]
    Thread(#[source] io::Error),
}

/// A queue did not stop in time: a request in flight takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("queue {queue} did not stop within {waited:?}, because a request in flight does not end")]
pub struct StopError {
    /// Which queue.
    pub queue: u16,
    /// How long it was waited for.
    pub waited: Duration,
}
