//! The hand-over between the device and the driver when one side goes to sleep at the moment at
//! which the other side publishes something. Two threads do both at the same moment, again and
//! again. Without the fences of this crate, a processor may execute a load of the device before an
//! earlier store of the device, and in some of the rounds both sides then miss each other.
//!
//! With the fences, the tests never fail. Without the fences, the tests may still pass on a busy
//! machine, because the threads then seldom run at the same moment.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize};
use std::sync::{Mutex, PoisonError};
use std::thread;

use vm_memory::{GuestAddress, GuestMemoryBackend, VolatileMemory};

use super::*;

const SIZE: u16 = 8;

/// The number of times that both sides meet.
const ROUNDS: u16 = 20_000;

/// Lets one test run at a time, because two threads have to run at the same moment.
static TURN: Mutex<()> = Mutex::new(());

/// Lets two threads go on at the same moment.
#[derive(Default)]
struct Meeting(AtomicUsize);

impl Meeting {
    /// Waits for the other thread. Both threads have to call this method equally often.
    fn wait(&self) {
        let both = (self.0.fetch_add(1, Ordering::SeqCst) / 2 + 1) * 2;
        let mut looks = 0;
        while self.0.load(Ordering::SeqCst) < both {
            looks += 1;
            assert!(looks < 1 << 28, "the other thread has failed");
            // The other thread may need this thread's processor.
            if looks % 4096 == 0 {
                thread::yield_now();
            }
        }
    }
}

/// Waits for some nanoseconds. The sides wait for times that differ from round to round, so that
/// they meet at different steps.
fn pause(steps: u16) {
    (0..steps).for_each(|_| std::hint::spin_loop());
}

/// What a driver does in each round: it stores to one number, and then loads another number. Each
/// number is given by its address.
struct Driver {
    store: u64,
    load: u64,
    /// The number to store in a round.
    stored: fn(u16) -> u16,
}

/// The number of rounds in which the sides miss each other. `device` is called once in each round,
/// at the moment at which the driver acts. It returns whether it noticed the driver. The driver
/// notices the device if it loads the number that `expected` returns for the round.
fn misses(
    queue: &mut SplitQueue,
    memory: &GuestMemory,
    driver: &Driver,
    expected: fn(u16) -> u16,
    device: fn(&mut SplitQueue) -> bool,
) -> usize {
    let slice = |addr| memory.regions().get_slice(GuestAddress(addr), 2).unwrap();
    let (store, load) = (slice(driver.store), slice(driver.load));
    let store = store.get_atomic_ref::<AtomicU16>(0).unwrap();
    let load = load.get_atomic_ref::<AtomicU16>(0).unwrap();
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (meeting, noticed) = (Meeting::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                meeting.wait();
                // Stores of the device take longer while the number is also in the cache of this
                // thread's processor.
                load.load(Ordering::Relaxed);
                pause(round / 16 % 16);
                store.store((driver.stored)(round).to_le(), Ordering::Release);
                fence(Ordering::SeqCst);
                let loaded = u16::from_le(load.load(Ordering::Relaxed));
                noticed.store(loaded == expected(round), Ordering::Relaxed);
                meeting.wait();
            }
        });
        let missed = |round: &u16| {
            meeting.wait();
            pause(round % 16);
            let device_noticed = device(queue);
            meeting.wait();
            !device_noticed && !noticed.load(Ordering::Relaxed)
        };
        (0..ROUNDS).filter(missed).count()
    })
}

fn queue() -> (Arc<GuestMemory>, VringLayout, SplitQueue) {
    let memory = memory(0x10000);
    let layout = DriverRing::new(memory.clone(), 0x1000, SIZE).layout();
    let features = Features {
        indirect: false,
        event_idx: true,
    };
    let queue = SplitQueue::new(&memory, layout, features, 0).unwrap();
    (memory, layout, queue)
}

#[test]
fn a_request_is_seen_or_kicked_for_when_it_comes_while_the_device_goes_to_sleep() {
    let (memory, layout, mut queue) = queue();
    let driver = Driver {
        store: layout.avail.0 + 2,
        load: layout.used.0 + 4 + 8 * u64::from(SIZE),
        stored: |round| round + 1,
    };
    let go_to_sleep = |queue: &mut SplitQueue| {
        let seen = queue.enable_kick().unwrap();
        queue.advance();
        queue.avail_index = queue.next_avail;
        seen
    };
    let misses = misses(&mut queue, &memory, &driver, |round| round, go_to_sleep);
    assert_eq!(misses, 0, "of {ROUNDS} requests");
}

#[test]
fn a_used_chain_is_seen_or_called_for_when_it_comes_while_the_driver_goes_to_sleep() {
    let (memory, layout, mut queue) = queue();
    let driver = Driver {
        store: layout.avail.0 + 4 + 2 * u64::from(SIZE),
        load: layout.used.0 + 2,
        stored: |round| round,
    };
    let publish = |queue: &mut SplitQueue| {
        let called = queue.needs_call().unwrap();
        queue.push_used(0, 0).unwrap();
        called
    };
    queue.push_used(0, 0).unwrap();
    let misses = misses(&mut queue, &memory, &driver, |round| round + 1, publish);
    assert_eq!(misses, 0, "of {ROUNDS} used chains");
}
