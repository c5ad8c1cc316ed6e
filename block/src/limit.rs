//! Limits on the speed of a disk.
//!
//! Each limit is a token bucket that all queues of the disk share. A request that has to wait takes
//! its tokens at once and learns when they will be there, so requests go on in the order in which
//! they came. A queue waits with one request at a time. So queues take turns, however full their
//! vrings are.

mod gate;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::request::Request;

pub(crate) use gate::Gate;

/// How fast requests or bytes may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests or bytes per second.
    pub per_second: u64,
    /// How many requests or bytes may come at once after a quiet time. A single request may have
    /// more bytes than this; the requests after it then wait longer.
    pub burst: u64,
}

impl Rate {
    /// A rate whose burst is a tenth of a second's worth, at least 1.
    pub fn per_second(per_second: u64) -> Self {
        Self {
            per_second,
            burst: (per_second / 10).max(1),
        }
    }
}

/// The limits of a disk. By default there are none.
///
/// A request that discards, zeroes or erases counts as a write without bytes. Flushes do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Requests of any kind.
    pub iops: Option<Rate>,
    /// Reads.
    pub iops_read: Option<Rate>,
    /// Writes.
    pub iops_write: Option<Rate>,
    /// Bytes read or written.
    pub bps: Option<Rate>,
    /// Bytes read.
    pub bps_read: Option<Rate>,
    /// Bytes written.
    pub bps_write: Option<Rate>,
}

impl RateLimits {
    /// Whether there is any limit.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

/// The tokens that a request takes from the buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    direction: Direction,
    bytes: u64,
}

impl Cost {
    /// The cost of a request. `None` if it does not count.
    fn of(request: &Request) -> Option<Self> {
        let (direction, bytes) = match request {
            Request::Read(range) => (Direction::Read, range.len),
            Request::Write(range) => (Direction::Write, range.len),
            Request::Change(..) => (Direction::Write, 0),
            Request::Flush | Request::GetId { .. } => return None,
        };
        Some(Self { direction, bytes })
    }
}

/// A token bucket. Times count from the origin of the throttle.
#[derive(Debug)]
struct Bucket {
    /// When the bucket was or will be empty. So its level is the number of tokens that have come
    /// since then, up to the burst. If the time lies ahead, tokens were taken in advance.
    empty_at: Duration,
    rate: Rate,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        Self {
            empty_at: Duration::ZERO,
            rate,
        }
    }

    /// How long it takes until this number of tokens has come.
    fn time(&self, tokens: u64) -> Duration {
        let nanoseconds =
            u128::from(tokens) * 1_000_000_000 / u128::from(self.rate.per_second.max(1));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// Takes tokens, even if they are not there yet. Returns when the first of them is there. The
    /// request may begin then, because it may need more tokens than the bucket holds.
    fn take(&mut self, now: Duration, tokens: u64) -> Duration {
        // The request needs one token to begin, so N - 1 others can be saved of a burst of N.
        let saved = self.time(self.rate.burst.saturating_sub(1));
        let start = self.empty_at.saturating_sub(saved);
        self.empty_at = self.empty_at.max(now).saturating_add(self.time(tokens));
        start
    }
}

/// The buckets of a disk.
#[derive(Debug)]
struct Buckets {
    /// Buckets for requests, each with the direction that it limits. `None` stands for both.
    requests: Vec<(Option<Direction>, Bucket)>,
    /// Buckets for bytes.
    bytes: Vec<(Option<Direction>, Bucket)>,
}

impl Buckets {
    fn new(limits: RateLimits) -> Self {
        let buckets = |both, read, write| {
            [
                (None, both),
                (Some(Direction::Read), read),
                (Some(Direction::Write), write),
            ]
            .into_iter()
            .filter_map(|(direction, rate)| Some((direction, Bucket::new(rate?))))
            .collect()
        };
        Self {
            requests: buckets(limits.iops, limits.iops_read, limits.iops_write),
            bytes: buckets(limits.bps, limits.bps_read, limits.bps_write),
        }
    }

    /// Takes the tokens for a request. Returns when it may begin, which may lie in the past.
    fn take(&mut self, now: Duration, cost: Cost) -> Duration {
        let concerns =
            |direction: &Option<Direction>| direction.is_none_or(|d| d == cost.direction);
        let mut start = Duration::ZERO;
        for (buckets, tokens) in [(&mut self.requests, 1), (&mut self.bytes, cost.bytes)] {
            if tokens == 0 {
                continue;
            }
            for (_, bucket) in buckets.iter_mut().filter(|(d, _)| concerns(d)) {
                start = start.max(bucket.take(now, tokens));
            }
        }
        start
    }
}

/// Makes the requests of all queues of a disk keep to its limits.
#[derive(Debug)]
pub(crate) struct Throttle {
    origin: Instant,
    buckets: Mutex<Buckets>,
}

impl Throttle {
    pub fn new(limits: RateLimits) -> Self {
        Self {
            origin: Instant::now(),
            buckets: Mutex::new(Buckets::new(limits)),
        }
    }

    /// Takes the tokens for a request. Returns until when it has to wait, or `None` if it need not.
    fn take(&self, request: &Request) -> Option<Instant> {
        let cost = Cost::of(request)?;
        let now = self.origin.elapsed();
        // A panic cannot leave the buckets inconsistent, because each change is one assignment.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let start = buckets.take(now, cost);
        let start = (start > now).then_some(start)?;
        // Overflow lies centuries ahead. A request that would have to wait so long does not wait.
        self.origin.checked_add(start)
    }
}

#[cfg(test)]
mod tests;
