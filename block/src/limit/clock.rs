//! The clock for limits on the speed of a disk.

use std::time::{Duration, Instant};

/// A clock that shows the time since its start.
#[derive(Debug)]
pub(crate) enum Clock {
    /// The system's clock, which was started at this moment.
    System(Instant),
    /// A clock that stands still until a test moves it. The number is in nanoseconds.
    #[cfg(test)]
    Manual(std::sync::Arc<std::sync::atomic::AtomicU64>),
}

impl Clock {
    /// Starts a clock.
    pub fn start() -> Self {
        Self::System(Instant::now())
    }

    pub fn now(&self) -> Duration {
        match self {
            Self::System(start) => start.elapsed(),
            #[cfg(test)]
            Self::Manual(time) => {
                Duration::from_nanos(time.load(std::sync::atomic::Ordering::SeqCst))
            }
        }
    }
}
