//! Limits on the speed of a disk.
//!
//! Each limit is a token bucket that all queues of the disk share. A request takes all its tokens
//! when it arrives, even if the bucket does not hold them yet, and then waits until they have been
//! added to the bucket. So requests begin in the order in which they arrived. In each queue, only
//! one request waits at a time. So the queues take turns, however full their vrings are.
//!
//! When a queue stops, its waiting request is put back into the vring, and the request's tokens are
//! returned to the buckets. So a driver cannot exceed the limits by resetting its device. No
//! request begins before all its tokens have been added. So when the next driver starts, the
//! buckets are at worst empty.

mod clock;
mod gate;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::request::{ChangedRange, Request};

pub(crate) use clock::Clock;
pub(crate) use gate::Gate;

/// A limit on the number of requests or bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests or bytes per second.
    pub per_second: u64,
    /// Number of requests or bytes that need not wait after a quiet time. A single request may have
    /// more bytes than this number. It then waits until the missing tokens have been added.
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
/// A request that discards, zeroes or erases ranges counts as a write of the same length. Flushes
/// do not count.
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

    /// The number of bytes that may be written per second. `None` if writes have no limit on bytes.
    pub(crate) fn written_per_second(&self) -> Option<u64> {
        let limits = [self.bps, self.bps_write].into_iter().flatten();
        limits.map(|rate| rate.per_second).min()
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
            Request::Change(_, ranges) => (Direction::Write, total(ranges)),
            Request::Flush | Request::GetId { .. } => return None,
        };
        Some(Self { direction, bytes })
    }
}

/// The number of bytes in these ranges together.
fn total(ranges: &[ChangedRange]) -> u64 {
    ranges.iter().map(|changed| changed.range.len).sum()
}

/// A token bucket. All times are those of the throttle's clock.
#[derive(Debug)]
struct Bucket {
    /// The time at which the bucket will be full if no more tokens are taken. The tokens that will
    /// be added until then are missing from the bucket. If more tokens are missing than the burst,
    /// some of them were taken in advance.
    full_at: Duration,
    rate: Rate,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        Self {
            full_at: Duration::ZERO,
            rate,
        }
    }

    /// The time in which the bucket gets `tokens` new tokens.
    fn time(&self, tokens: u64) -> Duration {
        let nanoseconds =
            u128::from(tokens) * 1_000_000_000 / u128::from(self.rate.per_second.max(1));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// Takes tokens, even if they have not been added to the bucket yet. Returns the time at which
    /// the last of these tokens is added. A request may take more tokens than the bucket can hold.
    fn take(&mut self, now: Duration, tokens: u64) -> Duration {
        self.full_at = self.full_at.max(now).saturating_add(self.time(tokens));
        self.full_at.saturating_sub(self.time(self.rate.burst))
    }

    /// Returns tokens that were taken and not used. The bucket never holds more tokens than its
    /// burst.
    fn refund(&mut self, tokens: u64) {
        self.full_at = self.full_at.saturating_sub(self.time(tokens));
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
        let starts = self
            .concerned(cost)
            .map(|(bucket, tokens)| bucket.take(now, tokens));
        starts.max().unwrap_or_default()
    }

    /// Returns the tokens of a request that was not carried out.
    fn refund(&mut self, cost: Cost) {
        for (bucket, tokens) in self.concerned(cost) {
            bucket.refund(tokens);
        }
    }

    /// The buckets from which a request takes tokens, and how many it takes.
    fn concerned(&mut self, cost: Cost) -> impl Iterator<Item = (&mut Bucket, u64)> {
        let requests = self.requests.iter_mut().map(|bucket| (bucket, 1));
        let bytes = self
            .bytes
            .iter_mut()
            .map(move |bucket| (bucket, cost.bytes));
        let all = requests.chain(bytes.filter(|(_, tokens)| *tokens > 0));
        all.filter_map(move |((direction, bucket), tokens)| {
            let concerned = direction.is_none_or(|direction| direction == cost.direction);
            concerned.then_some((bucket, tokens))
        })
    }
}

/// Makes the requests of all queues of a disk obey the limits of the disk.
#[derive(Debug)]
pub(crate) struct Throttle {
    clock: Clock,
    buckets: Mutex<Buckets>,
}

impl Throttle {
    pub fn new(limits: RateLimits, clock: Clock) -> Self {
        Self {
            clock,
            buckets: Mutex::new(Buckets::new(limits)),
        }
    }

    fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Takes the tokens for a request. Returns the time until which the request has to wait, or
    /// `None` if the request need not wait.
    fn take(&self, cost: Cost) -> Option<Duration> {
        let now = self.now();
        let start = self.buckets().take(now, cost);
        (start > now).then_some(start)
    }

    /// Returns the tokens of a request that was not carried out.
    fn refund(&self, cost: Cost) {
        self.buckets().refund(cost);
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        // A panic cannot leave the buckets inconsistent, because each change is one assignment.
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
