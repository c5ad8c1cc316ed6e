//! What a request costs in the ring: ours beside virtio-queue's, driven by the same driver.

#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use virtio::queue::{PACKED, RING_FEATURES};
use virtio::test_utils::{AnyDriverRing, memory};
use virtio::vring::first_position;
use virtio::{Chain, GuestMemory, Queue, VringLayout};
use virtio_queue::{Queue as TheirQueue, QueueT};

const SIZE: u16 = 256;

/// Requests in a batch, each of a header, data and a status.
const BATCH: u16 = 32;

fn driver(packed: bool) -> (Arc<GuestMemory>, AnyDriverRing) {
    let memory = memory(1 << 20);
    let ring = AnyDriverRing::new(packed, memory.clone(), 0x1000, SIZE);
    (memory, ring)
}

/// Measures `serve`, which takes a batch and gives it back, but not the driver.
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

/// Serves with our queue.
fn ours(bencher: &mut Bencher<'_>, packed: bool) {
    let (memory, mut driver) = driver(packed);
    let features = RING_FEATURES | if packed { PACKED } else { 0 };
    let queue = Queue::new(memory, driver.layout(), features, first_position(packed));
    let mut queue = queue.expect("a layout inside memory");
    let mut chain = Chain::default();
    bencher.iter_custom(|iterations| {
        batches(&mut driver, iterations, || {
            while queue.pop(&mut chain).expect("a sound ring") {
                black_box(&chain);
                queue.push_used(chain.head, 4097).expect("a sound ring");
            }
            black_box(queue.needs_call().expect("a sound ring"));
        })
    });
}

fn rings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    group.throughput(Throughput::Elements(BATCH.into()));
    group.bench_function("ours, split", |bencher| ours(bencher, false));
    group.bench_function("ours, packed", |bencher| ours(bencher, true));
    group.bench_function("virtio-queue", |bencher| {
        let (memory, mut driver) = driver(false);
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
    });
    group.finish();
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

criterion_group!(benches, rings);
criterion_main!(benches);
