//! The hand-over between the device and the driver when one side goes to sleep at the moment at
//! which the other side publishes something. Two threads do both at the same moment, again and
//! again. Without the fences of this crate, a processor may execute a load of the device before an
//! earlier store of the device, and in some of the rounds both sides then miss each other.
//!
//! With the fences, the tests never fail. Without the fences, the tests may still pass on a busy
//! machine, because the threads then seldom run at the same moment.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, PoisonError};
use std::thread;

use vm_memory::{GuestMemoryBackend, VolatileMemory};

use super::*;

/// The number of times that both sides meet.
pub(in crate::queue) const ROUNDS: u16 = 30_000;

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
pub(in crate::queue) struct Driver {
    pub store: u64,
    pub load: u64,
    /// The number to store in a round.
    pub stored: fn(u16) -> u16,
}

/// The number of rounds in which the sides miss each other. `device` is called once in each round,
/// at the moment at which the driver acts. It returns whether it noticed the driver. The driver
/// notices the device if it loads the number that `expected` returns for the round.
pub(in crate::queue) fn misses<Q>(
    queue: &mut Q,
    memory: &GuestMemory,
    driver: &Driver,
    expected: fn(u16) -> u16,
    device: fn(&mut Q) -> bool,
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
                pause(round / 32 % 32);
                store.store((driver.stored)(round).to_le(), Ordering::Release);
                fence(Ordering::SeqCst);
                let loaded = u16::from_le(load.load(Ordering::Relaxed));
                noticed.store(loaded == expected(round), Ordering::Relaxed);
                meeting.wait();
            }
        });
        let missed = |round: &u16| {
            meeting.wait();
            pause(round % 32);
            let device_noticed = device(queue);
            meeting.wait();
            !device_noticed && !noticed.load(Ordering::Relaxed)
        };
        (0..ROUNDS).filter(missed).count()
    })
}
