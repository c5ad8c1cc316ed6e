//! Limits on how fast a disk is.
//!
//! Each limit is a token bucket of the whole disk. A request that has to wait takes its tokens at once
//! and is told when they will be there, so that requests go on in the order in which they came. As a
//! queue that has to wait does so with one request at a time, queues take turns, however full their
//! rings are.

mod gate;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::request::Request;

pub(crate) use gate::Gate;

/// How fast something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How often, or how many bytes, in a second.
    pub per_second: u64,
    /// How much may happen at once after a while without requests. One request may be larger, for
    /// which those after it wait longer.
    pub burst: u64,
}

impl Rate {
    /// A rate with a burst of what is allowed in a tenth of a second.
    pub fn per_second(per_second: u64) -> Self {
        Self {
            per_second,
            burst: (per_second / 10).max(1),
        }
    }
}

/// All limits of a disk; none by default.
///
/// What a driver discards or zeroes counts as a write without bytes. A flush is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Requests, of any kind.
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
    /// Whether there is any.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

/// What a request takes of the buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    direction: Direction,
    bytes: u64,
}

impl Cost {
    /// `None`: it is free.
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

/// A token bucket, as times since an origin: it is as full as the moment is late when it had been
/// empty last.
#[derive(Debug)]
struct Bucket {
    /// When all tokens that were taken are there, if none are saved.
    paid: Duration,
    rate: Rate,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        Self {
            paid: Duration::ZERO,
            rate,
        }
    }

    /// How long it takes to get so many tokens.
    fn time(&self, tokens: u64) -> Duration {
        let nanoseconds =
            u128::from(tokens) * 1_000_000_000 / u128::from(self.rate.per_second.max(1));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// Takes tokens, even if they are not there yet, and returns when the first of them is. A
    /// request begins with that: it may be larger than the bucket.
    fn take(&mut self, now: Duration, tokens: u64) -> Duration {
        // A burst of N has room for N - 1 besides the one that the request begins with.
        let saved = self.time(self.rate.burst.saturating_sub(1));
        let start = self.paid.saturating_sub(saved);
        self.paid = self.paid.max(now).saturating_add(self.time(tokens));
        start
    }
}

/// The buckets of a disk.
#[derive(Debug)]
struct Buckets {
    /// Each with what it is about; `None`: both directions.
    requests: Vec<(Option<Direction>, Bucket)>,
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

    /// Takes what a request costs and returns when it may begin, which may be past.
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

/// What all queues of a disk share.
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

    /// Takes what a request costs; `Some`: it has to wait until then.
    fn take(&self, request: &Request) -> Option<Instant> {
        let cost = Cost::of(request)?;
        let now = self.origin.elapsed();
        // Numbers are never left half changed.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let start = buckets.take(now, cost);
        let start = (start > now).then_some(start)?;
        // Nobody lives to see what cannot be said.
        self.origin.checked_add(start)
    }
}

#[cfg(test)]
mod tests;
