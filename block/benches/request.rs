//! Measures the time to read and check a request's header.

#![allow(missing_docs)]

use std::hint::black_box;

use block::fuzzing::parse;
use criterion::{Criterion, criterion_group, criterion_main};
use virtio::test_utils::{DriverRing, memory};
use virtio::{Chain, Queue};
use vm_memory::{Bytes, GuestAddress};

fn request(criterion: &mut Criterion) {
    let memory = memory(1 << 20);
    let mut driver = DriverRing::new(memory.clone(), 0x1000, 64);
    let header = [0u64, 7];
    memory
        .write_obj(header, GuestAddress(0x8000))
        .expect("inside memory");
    driver.add(&[(0x8000, 16, false), (0x9000, 4096, true), (0x8010, 1, true)]);
    let queue = Queue::new(memory.clone(), driver.layout(), 0, 0);
    let mut chain = Chain::default();
    let popped = queue.and_then(|mut queue| queue.pop(&mut chain));
    assert!(popped.expect("a sound ring") && parse(&chain, &memory));
    criterion.bench_function("parse a read", |bencher| {
        bencher.iter(|| parse(black_box(&chain), &memory));
    });
}

criterion_group!(benches, request);
criterion_main!(benches);
