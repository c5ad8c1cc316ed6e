//! A device for tests. The device writes one byte into each chain as soon as the test allows it.
//!
//! Tests can make the device keep requests until they allow it to go on. The device also counts the
//! starts of its queues. Real devices do neither.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use virtio::queue::{PACKED, RING_FEATURES};
use virtio::{Chain, RingOptions, ServeError, ServedQueue, Wake};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;

use super::*;

const OWN: u64 = 1 << 5;
pub(super) const FEATURES: u64 = OWN | 1 << VIRTIO_F_VERSION_1 | RING_FEATURES | PACKED;
pub(super) const RINGS: RingOptions = RingOptions {
    max_size: 64,
    packed: true,
    in_order: false,
};
const CONFIG: [u8; 4] = [1, 2, 3, 4];
const TIMEOUT: Duration = Duration::from_secs(20);

pub(super) struct Toy(Watch);

/// The handle by which tests watch and control the device.
#[derive(Clone, Default)]
pub(super) struct Watch(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    starts: usize,
    running: usize,
    hold: bool,
    held: usize,
    stopping: usize,
    config: Option<Arc<dyn Notifier>>,
}

impl Watch {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    fn wait(&self, condition: impl Fn(&State) -> bool) {
        let state = self.0.0.lock().unwrap();
        let waiting = self
            .0
            .1
            .wait_timeout_while(state, TIMEOUT, |state| !condition(state));
        assert!(!waiting.unwrap().1.timed_out(), "deadline");
    }

    /// Waits until the test allows the device to go on. If a stop of the queue is requested during
    /// the wait, counts this request.
    fn wait_while_held(&self, wake: &Wake) {
        while self.0.0.lock().unwrap().hold {
            if wake.is_stop_requested() {
                self.change(|state| state.stopping += 1);
                return self.wait(|state| !state.hold);
            }
            thread::yield_now();
        }
    }

    /// Waits until queues were started `starts` times in total, and checks that there were no more
    /// starts.
    pub(super) fn wait_starts(&self, starts: usize) {
        self.wait(|state| state.starts >= starts);
        assert_eq!(self.0.0.lock().unwrap().starts, starts);
    }

    /// The number of queues that run.
    pub(super) fn running(&self) -> usize {
        self.0.0.lock().unwrap().running
    }

    /// Makes the device keep all chains that its queues take from now on, until [`Watch::go_on`].
    pub(super) fn hold(&self) {
        self.change(|state| state.hold = true);
    }

    pub(super) fn go_on(&self) {
        self.change(|state| state.hold = false);
    }

    pub(super) fn wait_held(&self) {
        self.wait(|state| state.held > 0);
    }

    pub(super) fn wait_stopping(&self) {
        self.wait(|state| state.stopping > 0);
    }
}

impl Toy {
    pub(super) fn new() -> (Self, Watch) {
        let watch = Watch::default();
        (Self(watch.clone()), watch)
    }
}

impl virtio::Device for Toy {
    fn kind(&self) -> DeviceKind {
        DeviceKind {
            id: 2,
            class: 0x01_0000,
        }
    }

    fn features(&self) -> u64 {
        OWN
    }

    fn queue_count(&self) -> u16 {
        2
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let bytes = CONFIG.iter().skip(offset);
        data.iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = *from);
    }

    fn watch_config(&self, notifier: Arc<dyn Notifier>) {
        self.0.change(|state| state.config = Some(notifier));
    }

    fn serve(&self, queue: &mut ServedQueue, wake: &Wake) -> Result<(), ServeError> {
        self.0.change(|state| {
            state.starts += 1;
            state.running += 1;
        });
        let served = self.serve_all(queue, wake);
        self.0.change(|state| state.running -= 1);
        served
    }
}

impl Toy {
    fn serve_all(&self, queue: &mut ServedQueue, wake: &Wake) -> Result<(), ServeError> {
        let mut chain = Chain::default();
        while queue.next(&mut chain, wake)? {
            self.0.change(|state| state.held += 1);
            self.0.wait_while_held(wake);
            self.0.change(|state| state.held -= 1);
            let _ = chain.writable.write(queue.memory(), 0, &[driver::MARK]);
            queue.give_back(&chain, 1)?;
        }
        Ok(())
    }
}
