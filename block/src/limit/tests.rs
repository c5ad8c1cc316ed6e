use super::*;
use crate::operation::Range;

const SECOND: Duration = Duration::from_secs(1);

fn rate(per_second: u64, burst: u64) -> Option<Rate> {
    Some(Rate { per_second, burst })
}

fn read(bytes: u64) -> Cost {
    Cost {
        direction: Direction::Read,
        bytes,
    }
}

fn write(bytes: u64) -> Cost {
    Cost {
        direction: Direction::Write,
        bytes,
    }
}

/// A queue that always has a request. The next request is added when the previous request begins.
struct Queue {
    cost: Cost,
    next: Duration,
    begun: u64,
}

/// Simulates queues until `end`. In each step, the queue with the earliest next request begins this
/// request. Returns the number of requests that each queue has begun.
fn run<const N: usize>(limits: RateLimits, costs: [Cost; N], end: Duration) -> [u64; N] {
    let mut buckets = Buckets::new(limits);
    let mut queues = costs.map(|cost| Queue {
        cost,
        next: Duration::ZERO,
        begun: 0,
    });
    loop {
        let queue = queues.iter_mut().min_by_key(|queue| queue.next).unwrap();
        if queue.next >= end {
            return queues.map(|queue| queue.begun);
        }
        let now = queue.next;
        queue.next = buckets.take(now, queue.cost).max(now);
        queue.begun += u64::from(queue.next < end);
    }
}

#[test]
fn after_a_burst_requests_begin_at_the_rate() {
    let limits = RateLimits {
        iops: rate(100, 10),
        ..RateLimits::default()
    };
    // First the ten requests of the burst begin, and then one request every 10 ms.
    assert_eq!(run(limits, [read(512)], SECOND), [109]);
    assert_eq!(run(limits, [write(1 << 20)], 10 * SECOND), [1009]);
}

#[test]
fn bytes_begin_at_the_rate_also_in_requests_larger_than_the_burst() {
    let limits = RateLimits {
        bps: rate(1 << 20, 4096),
        ..RateLimits::default()
    };
    let [small] = run(limits, [read(4096)], 10 * SECOND);
    assert!((2560..=2562).contains(&small), "{small}");
    // Each of these requests waits for its own 4 seconds.
    let [large] = run(limits, [write(4 << 20)], 40 * SECOND);
    assert!((9..=10).contains(&large), "{large}");
}

#[test]
fn no_more_than_the_burst_is_saved() {
    let mut buckets = Buckets::new(RateLimits {
        iops: rate(10, 5),
        ..RateLimits::default()
    });
    let now = 1000 * SECOND;
    let waiting = (0..8).filter(|_| buckets.take(now, read(512)) > now);
    assert_eq!(waiting.count(), 3);
    // At first the bucket held five tokens. So of the eight requests, the last has to wait for 0.3
    // s. The ninth request has to wait for 0.4 s.
    assert_eq!(buckets.take(now, read(512)), now + SECOND * 4 / 10);
}

#[test]
fn queues_get_the_same_number_of_requests() {
    let limits = RateLimits {
        iops: rate(300, 1),
        ..RateLimits::default()
    };
    let begun = run(limits, [read(512), write(4096), read(65536)], 10 * SECOND);
    assert!(begun.iter().all(|n| (999..=1001).contains(n)), "{begun:?}");
}

#[test]
fn reads_and_writes_have_separate_limits() {
    let limits = RateLimits {
        iops: rate(1000, 1),
        iops_write: rate(10, 1),
        ..RateLimits::default()
    };
    let [reads, writes] = run(limits, [read(512), write(512)], 10 * SECOND);
    assert!((99..=101).contains(&writes), "{writes}");
    assert!((9890..=9910).contains(&reads), "{reads}");

    let limits = RateLimits {
        bps_read: rate(1 << 20, 1),
        ..RateLimits::default()
    };
    let mut buckets = Buckets::new(limits);
    assert_eq!(buckets.take(SECOND, write(1 << 30)), Duration::ZERO);
    assert!(buckets.take(SECOND, read(1)) <= SECOND);
    let start = buckets.take(SECOND, read(1 << 20));
    assert_eq!(start.as_millis(), 2000);
}

#[test]
fn extreme_rates_do_not_overflow() {
    for (per_second, burst) in [(0, 0), (1, u64::MAX), (u64::MAX, u64::MAX), (u64::MAX, 0)] {
        let mut buckets = Buckets::new(RateLimits {
            iops: rate(per_second, burst),
            bps: rate(per_second, burst),
            ..RateLimits::default()
        });
        for _ in 0..3 {
            buckets.take(SECOND, write(u64::MAX));
        }
    }
}

#[test]
fn a_request_begins_when_all_its_tokens_have_come_so_no_debt_is_left() {
    let mut buckets = Buckets::new(RateLimits {
        bps: rate(1000, 100),
        ..RateLimits::default()
    });
    let mut now = SECOND;
    for bytes in [100, 5000, 1, 100, 101, 70_000] {
        now = now.max(buckets.take(now, read(bytes)));
        // When a request begins, the bucket is at worst empty. It takes 0.1 s to fill.
        let (_, bucket) = &buckets.bytes[0];
        assert!(bucket.full_at <= now + SECOND / 10, "{bytes}");
    }
    assert_eq!((now - SECOND).as_millis(), 75_202);
}

#[test]
fn a_refund_undoes_what_a_request_took_and_no_more() {
    let limits = RateLimits {
        iops: rate(10, 2),
        iops_write: rate(5, 1),
        bps: rate(1000, 100),
        bps_read: rate(1000, 100),
        ..RateLimits::default()
    };
    let mut buckets = Buckets::new(limits);
    for cost in [read(100), write(100)] {
        buckets.take(SECOND, cost);
    }
    let before = format!("{buckets:?}");
    for cost in [read(5), write(1 << 40), write(0)] {
        buckets.take(SECOND, cost);
        assert_ne!(format!("{buckets:?}"), before);
        buckets.refund(cost);
        assert_eq!(format!("{buckets:?}"), before);
    }
    // A bucket that is full does not get more tokens.
    let later = 100 * SECOND;
    buckets.refund(read(100));
    assert_eq!(buckets.take(later, read(100)), later);
    assert!(buckets.take(later, read(100)) > later);
}

#[test]
fn changes_count_as_writes_of_their_ranges_and_flushes_do_not_count() {
    use crate::request::{Change, ChangedRange};
    let range = Range {
        offset: 0,
        len: 4096,
    };
    assert_eq!(Cost::of(&Request::Read(range)), Some(read(4096)));
    assert_eq!(Cost::of(&Request::Write(range)), Some(write(4096)));
    let unmap = false;
    for change in [Change::Discard, Change::WriteZeroes, Change::SecureErase] {
        for count in [0, 1, 3] {
            let ranges = vec![ChangedRange { range, unmap }; count];
            let cost = Cost::of(&Request::Change(change, ranges));
            assert_eq!(cost, Some(write(4096 * count as u64)));
        }
    }
    assert_eq!(Cost::of(&Request::Flush), None);
    assert_eq!(Cost::of(&Request::GetId { len: 20 }), None);
}
