//! Limits on the speed of a disk.
//!
//! Each limit is a token bucket that all queues of the disk share. A request takes its tokens at
//! once, even if the bucket does not hold them yet. Then the request waits until the first of its
//! tokens has come. So requests proceed in the order in which they arrived. In each queue, only one
//! request waits at a time. So the queues take turns, even if some vrings hold more requests than
//! others.

mod gate;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::request::Request;

pub(crate) use gate::Gate;

/// A limit on the number of requests or bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests or bytes per second.
    pub per_second: u64,
    /// Number of requests or bytes that do not wait after a quiet time. A single request may have
    /// more bytes than this number. The next requests then wait longer.
    pub burst: u64,
}

impl Rate {
    /// A rate whose burst is a tenth of `per_second`, but at least 1.
    pub fn per_second(per_second: u64) -> Self {
        Self {
            per_second,
            burst: (per_second / 10).max(1),
        }
    }
}

/// The limits on the speed of a disk. By default the speed is not limited.
///
/// A request that discards, zeroes or erases counts as a write of 0 bytes. Flushes do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// The limit on requests of all kinds.
    pub iops: Option<Rate>,
    /// The limit on read requests.
    pub iops_read: Option<Rate>,
    /// The limit on write requests.
    pub iops_write: Option<Rate>,
    /// The limit on bytes that are read or written.
    pub bps: Option<Rate>,
    /// The limit on bytes that are read.
    pub bps_read: Option<Rate>,
    /// The limit on bytes that are written.
    pub bps_write: Option<Rate>,
}

impl RateLimits {
    /// Whether at least one limit is set.
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
    /// The cost of a request. `None` if the limits do not apply to the request.
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

/// A token bucket. All times are relative to the origin of the throttle.
#[derive(Debug)]
struct Bucket {
    /// The time at which the bucket was or will be full. A full bucket holds as many tokens as the
    /// burst of the rate. Each token that is taken from the bucket moves this time further into the
    /// future.
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

    /// The time in which this number of tokens comes into the bucket.
    fn time(&self, tokens: u64) -> Duration {
        let nanoseconds =
            u128::from(tokens) * 1_000_000_000 / u128::from(self.rate.per_second.max(1));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// Takes tokens, even if they have not come yet. Returns the time at which the first of these
    /// tokens comes. The request may begin at that time. A request does not wait for all its
    /// tokens, because it may need more tokens than the bucket can hold.
    fn take(&mut self, now: Duration, tokens: u64) -> Duration {
        // The request may begin when the bucket holds one token. At that time, N - 1 tokens are
        // missing from a bucket with a burst of N.
        let saved = self.time(self.rate.burst.saturating_sub(1));
        let start = self.empty_at.saturating_sub(saved);
        self.empty_at = self.empty_at.max(now).saturating_add(self.time(tokens));
        start
    }
}

/// The buckets of a disk.
#[derive(Debug)]
struct Buckets {
    /// Buckets that count requests, each with the direction that the bucket limits. `None` stands
    /// for both directions.
    requests: Vec<(Option<Direction>, Bucket)>,
    /// Buckets that count bytes, each with the direction that the bucket limits.
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

    /// Takes the tokens for a request. Returns the earliest time at which the request may begin.
    /// This time may be in the past.
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

/// Applies the limits of a disk to the requests of all its queues.
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

    /// Takes the tokens for a request. Returns the time until which the request has to wait, or
    /// `None` if the request need not wait.
    fn take(&self, request: &Request) -> Option<Instant> {
        let cost = Cost::of(request)?;
        let now = self.origin.elapsed();
        // A panic cannot leave the buckets inconsistent, because each change is one assignment.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let start = buckets.take(now, cost);
        let start = (start > now).then_some(start)?;
        // The addition overflows only for a time that is centuries ahead. In this case the request
        // does not wait.
        self.origin.checked_add(start)
    }
}

#[cfg(test)]
mod tests;
