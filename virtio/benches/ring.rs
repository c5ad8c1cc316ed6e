//! Compares the time that a request takes in this crate's queue and in the queue of the crate
//! virtio-queue. Both queues have the same driver.

#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use libc::iovec;
use virtio::queue::{PACKED, RING_FEATURES};
use virtio::test_utils::{AnyDriverRing, memory, swapped_pages};
use virtio::vring::first_position;
use virtio::{Chain, GuestMemory, Queue, VringLayout};
use virtio_queue::{Queue as TheirQueue, QueueT};

const SIZE: u16 = 256;

/// The number of requests in a batch. Each request has a header, data and a status.
const BATCH: u16 = 32;

/// The size of the memory in bytes. If addresses are translated, the memory has 256 mappings.
const MEMORY: u64 = 1 << 20;

/// Makes the memory that driver and device share, and the driver's side of a ring in this memory.
fn driver(packed: bool, translated: bool) -> (Arc<GuestMemory>, AnyDriverRing) {
    let mut memory = memory(MEMORY);
    if translated {
        memory = swapped_pages(&memory, MEMORY).0;
    }
    let ring = AnyDriverRing::new(packed, memory.clone(), 0x1000, SIZE);
    (memory, ring)
}

/// Measures the time of `serve`, which takes a batch of requests from the ring and gives them back
/// to the driver. The result does not include the driver's own time.
fn batches(driver: &mut AnyDriverRing, iterations: u64, mut serve: impl FnMut()) -> Duration {
    let mut time = Duration::ZERO;
    for _ in 0..iterations {
        for n in 0..u64::from(BATCH) {
            let (request, data) = (0x1_0000 + 32 * n, 0x2_0000 + 4096 * n);
            driver.add(&[
                (request, 16, false),
                (data, 4096, true),
                (request + 16, 1, true),
            ]);
        }
        let begin = Instant::now();
        serve();
        time += begin.elapsed();
        while driver.pop_used().is_some() {}
    }
    time
}

/// Measures this crate's queue. Takes each request, calls `work` with the request, and gives the
/// request back.
fn ours(
    bencher: &mut Bencher<'_>,
    (packed, translated): (bool, bool),
    mut work: impl FnMut(&Chain, &GuestMemory),
) {
    let (memory, mut driver) = driver(packed, translated);
    let features = RING_FEATURES | if packed { PACKED } else { 0 };
    let first = first_position(packed);
    let queue = Queue::new(memory.clone(), driver.layout(), features, first);
    let mut queue = queue.expect("a layout inside memory");
    let mut chain = Chain::default();
    bencher.iter_custom(|iterations| {
        batches(&mut driver, iterations, || {
            while queue.pop(&mut chain).expect("a sound ring") {
                work(black_box(&chain), &memory);
                queue.push_used(chain.head, 4097).expect("a sound ring");
            }
            black_box(queue.needs_call().expect("a sound ring"));
        })
    });
}

/// Accesses a request's memory as a block device does. Reads the header, looks up the data's
/// memory, and writes the status.
fn access(chain: &Chain, memory: &GuestMemory, iovecs: &mut Vec<iovec>) {
    let mut header = [0; 16];
    let read = chain.readable.read(memory, 0, &mut header);
    iovecs.clear();
    let found = chain.writable.iovecs(memory, 0, 4096, iovecs);
    let written = chain.writable.write(memory, 4096, &[0]);
    assert!(read.is_ok() && found.is_ok() && written.is_ok());
    black_box((header, iovecs.len()));
}

/// The benchmarks. Each entry has a name, whether the ring is packed, and whether addresses are
/// translated.
const KINDS: [(&str, bool, bool); 4] = [
    ("split", false, false),
    ("packed", true, false),
    ("split, behind an IOMMU", false, true),
    ("packed, behind an IOMMU", true, true),
];

fn rings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    group.throughput(Throughput::Elements(BATCH.into()));
    for (name, packed, translated) in KINDS {
        group.bench_function(name, |bencher| {
            ours(bencher, (packed, translated), |_, _| {});
        });
    }
    group.bench_function("virtio-queue", theirs);
    group.finish();
}

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring and buffers");
    group.throughput(Throughput::Elements(BATCH.into()));
    for (name, packed, translated) in KINDS {
        let mut iovecs = Vec::new();
        group.bench_function(name, |bencher| {
            ours(bencher, (packed, translated), |chain, memory| {
                access(chain, memory, &mut iovecs);
            });
        });
    }
    group.finish();
}

/// Measures the queue of the crate virtio-queue. Takes each request, and gives the request back.
fn theirs(bencher: &mut Bencher<'_>) {
    let (memory, mut driver) = driver(false, false);
    let mut queue = their_queue(driver.layout());
    bencher.iter_custom(|iterations| {
        batches(&mut driver, iterations, || {
            while let Some(chain) = queue.pop_descriptor_chain(memory.as_ref()) {
                let head = chain.head_index();
                let buffers = chain.map(black_box).count();
                assert_eq!(buffers, 3);
                queue
                    .add_used(memory.as_ref(), head, 4097)
                    .expect("a sound ring");
            }
            let call = queue.needs_notification(memory.as_ref());
            black_box(call.expect("a sound ring"));
        })
    });
}

fn their_queue(layout: VringLayout) -> TheirQueue {
    let mut queue = TheirQueue::new(SIZE).expect("a power of two");
    let set = queue
        .try_set_desc_table_address(layout.desc)
        .and_then(|()| queue.try_set_avail_ring_address(layout.avail))
        .and_then(|()| queue.try_set_used_ring_address(layout.used));
    set.expect("aligned addresses");
    queue.set_event_idx(true);
    queue.set_ready(true);
    queue
}

criterion_group!(benches, rings, requests);
criterion_main!(benches);
