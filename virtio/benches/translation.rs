//! Measures the time to find a request's buffers in memory.

#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use virtio::test_utils::{DriverRing, anonymous_file, swapped_pages};
use virtio::{Chain, GuestMemory, Queue, Region};
use vm_memory::GuestAddress;

const REGION: u64 = 1 << 20;

/// Memory that consists of `regions` adjacent regions of `REGION` bytes each.
fn memory(regions: u64) -> Arc<GuestMemory> {
    let region = |n| {
        Region::map(
            anonymous_file(REGION),
            0,
            GuestAddress(REGION * n),
            REGION,
            true,
        )
    };
    let regions = (0..regions).map(|n| region(n).expect("memory"));
    Arc::new(GuestMemory::from_regions(regions.collect()).expect("regions in order"))
}

/// A request with 64 KiB of data in 16 pages.
fn chain(memory: &Arc<GuestMemory>) -> Chain {
    let mut driver = DriverRing::new(memory.clone(), 0x1000, 64);
    let mut buffers = vec![(0x8000, 16, false)];
    buffers.extend((0..16).map(|n| (0x2_0000 + 0x2000 * n, 4096, true)));
    driver.add(&buffers);
    let queue = Queue::new(memory.clone(), driver.layout(), 0, 0);
    let mut chain = Chain::default();
    let popped = queue.and_then(|mut queue| queue.pop(&mut chain));
    assert!(popped.expect("a sound ring"));
    chain
}

fn iovecs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("iovecs of 16 pages");
    let one = memory(1);
    let kinds = [
        ("one region", one.clone()),
        ("8 regions", memory(8)),
        ("behind an IOMMU", swapped_pages(&one, REGION).0),
    ];
    for (name, memory) in kinds {
        let chain = chain(&memory);
        let mut iovecs = Vec::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                iovecs.clear();
                let buffers = black_box(&chain.writable);
                buffers
                    .iovecs(&memory, 0, 16 * 4096, &mut iovecs)
                    .expect("buffers inside memory");
                black_box(iovecs.len())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, iovecs);
criterion_main!(benches);
