//! Tests of the entropy device from the driver's side.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use std::sync::Arc;
use std::time::Duration;

use ipc::{Interest, SharedEventFd, poll};
use virtio::test_utils::{DriverRing, memory};
use virtio::{GuestMemory, RingOptions, Runner, Vring};
use vm_memory::{Bytes, GuestAddress};

use super::{EntropyDevice, MAX_BYTES};

const SIZE: u64 = 0x40000;
const DATA: u64 = 0x10000;
const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

struct Driver {
    memory: Arc<GuestMemory>,
    ring: DriverRing,
    kick: Arc<SharedEventFd>,
    call: Arc<SharedEventFd>,
    _runner: Runner,
}

impl Driver {
    fn new() -> Self {
        let memory = memory(SIZE);
        let ring = DriverRing::new(memory.clone(), 0, 16);
        let event = || Arc::new(SharedEventFd::new().unwrap());
        let (kick, call) = (event(), event());
        let mut runner = Runner::new(Arc::new(EntropyDevice), RingOptions::default());
        runner.prepare().unwrap();
        let vring = Vring {
            index: 0,
            features: runner.features() & 1 << 32,
            layout: ring.layout(),
            next_avail: 0,
            memory: memory.clone(),
            kick: Some(kick.clone()),
            call: Some(call.clone()),
            error: None,
        };
        runner.start(vring).unwrap();
        Self {
            memory,
            ring,
            kick,
            call,
            _runner: runner,
        }
    }

    /// Sends the device a request with these buffers, and returns the number of bytes that the
    /// device wrote.
    fn request(&mut self, buffers: &[(u64, u32, bool)]) -> usize {
        let head = self.ring.add(buffers);
        self.kick.signal().unwrap();
        // The start of the queue calls, too.
        let (used, written) = loop {
            let [called] = poll([Interest::readable(&*self.call)], PATIENCE).unwrap();
            assert!(called, "the device does not answer");
            self.call.take().unwrap();
            if let Some(used) = self.ring.pop_used() {
                break used;
            }
        };
        assert_eq!(used, u32::from(head));
        written as usize
    }

    fn read(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let read = self.memory.read_slice(&mut bytes, GuestAddress(addr));
        read.map(|()| bytes).unwrap()
    }
}

#[test]
fn a_request_is_filled_with_other_bytes_than_the_last_and_nothing_else_is_touched() {
    let mut driver = Driver::new();
    let mut last = vec![0; 48];
    for _ in 0..20 {
        let written = driver.request(&[(DATA, 16, true), (DATA + 0x100, 32, true)]);
        assert_eq!(written, 48);
        let bytes = [driver.read(DATA, 16), driver.read(DATA + 0x100, 32)].concat();
        assert_ne!(bytes, last);
        last = bytes;
    }
    assert_eq!(driver.read(DATA + 16, 0xf0), [0; 0xf0]);
    assert_eq!(driver.read(DATA + 0x120, 0x100), [0; 0x100]);
}

#[test]
fn a_large_request_gets_a_limited_part() {
    let mut driver = Driver::new();
    let written = driver.request(&[(DATA, 0x20000, true)]);
    assert!((1..=MAX_BYTES).contains(&written), "{written} bytes");
    let rest = driver.read(DATA + written as u64, 0x20000 - written);
    assert!(rest.iter().all(|byte| *byte == 0));
}

#[test]
fn a_request_without_usable_memory_gets_nothing_and_the_next_one_is_served() {
    let mut driver = Driver::new();
    assert_eq!(driver.request(&[(DATA, 16, false)]), 0, "not writable");
    assert_eq!(driver.read(DATA, 16), [0; 16]);
    assert_eq!(driver.request(&[(SIZE, 16, true)]), 0, "outside memory");
    assert_eq!(driver.request(&[(DATA, 16, true)]), 16);
}
