//! A device whose queues write one byte into each chain, when they are let.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use virtio::queue::RING_FEATURES;
use virtio::{Chain, ConfigError, Queue, QueueError, RunningVring, StartError, Vring};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;

use super::*;

pub(super) const FEATURES: u64 = 1 << 5 | 1 << VIRTIO_F_VERSION_1 | RING_FEATURES;
const CONFIG: [u8; 4] = [1, 2, 3, 4];
const TIMEOUT: Duration = Duration::from_secs(20);

pub(super) struct Toy(Watch);

/// What tests know of the device, and tell it.
#[derive(Clone, Default)]
pub(super) struct Watch(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    starts: usize,
    running: usize,
    hold: bool,
    held: usize,
    stopping: usize,
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

    /// How often a queue was started.
    pub(super) fn starts(&self) -> usize {
        self.0.0.lock().unwrap().starts
    }

    /// How many queues run.
    pub(super) fn running(&self) -> usize {
        self.0.0.lock().unwrap().running
    }

    /// Chains are kept from now on, once they are taken.
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
    fn features(&self) -> u64 {
        FEATURES
    }

    fn queue_count(&self) -> u16 {
        2
    }

    fn max_queue_size(&self) -> u16 {
        64
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let bytes = CONFIG.iter().skip(offset);
        data.iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = *from);
    }

    fn write_config(&self, offset: usize, data: &[u8]) -> Result<(), ConfigError> {
        let end = offset + data.len();
        Err(ConfigError { offset, end })
    }

    fn start(&self, vring: Vring) -> Result<Box<dyn RunningVring>, StartError> {
        let memory = vring.memory.clone();
        let queue = Queue::new(memory, vring.layout, vring.features, vring.next_avail)?;
        self.0.change(|state| {
            state.starts += 1;
            state.running += 1;
        });
        let (stop, kick) = (
            Arc::new(AtomicBool::new(false)),
            vring.kick.clone().unwrap(),
        );
        let (stopped, watch) = (stop.clone(), self.0.clone());
        let thread = thread::spawn(move || run(queue, &vring, &stopped, &watch));
        Ok(Box::new(Running {
            stop,
            kick,
            watch: self.0.clone(),
            thread,
        }))
    }
}

struct Running {
    stop: Arc<AtomicBool>,
    kick: Arc<vmm_sys_util::eventfd::EventFd>,
    watch: Watch,
    thread: JoinHandle<u16>,
}

impl RunningVring for Running {
    fn stop(self: Box<Self>) -> u16 {
        self.watch.change(|state| state.stopping += 1);
        self.stop.store(true, Ordering::SeqCst);
        self.kick.write(1).unwrap();
        let next = self.thread.join().unwrap();
        self.watch.change(|state| state.running -= 1);
        next
    }
}

fn run(mut queue: Queue, vring: &Vring, stop: &AtomicBool, watch: &Watch) -> u16 {
    let kick = crate::signal::duplicate(vring.kick.as_ref().unwrap()).unwrap();
    while !stop.load(Ordering::SeqCst) {
        if serve_all(&mut queue, vring, watch).is_err() {
            vring.error.as_ref().unwrap().notify().unwrap();
            break;
        }
        if !stop.load(Ordering::SeqCst) {
            driver::wait(&kick);
            let _ = vring.kick.as_ref().unwrap().read();
        }
    }
    queue.next_avail()
}

fn serve_all(queue: &mut Queue, vring: &Vring, watch: &Watch) -> Result<(), QueueError> {
    let mut chain = Chain::default();
    loop {
        if !queue.pop(&mut chain)? {
            match queue.enable_kick()? {
                true => continue,
                false => return Ok(()),
            }
        }
        watch.change(|state| state.held += 1);
        watch.wait(|state| !state.hold);
        watch.change(|state| state.held -= 1);
        let _ = chain.writable.write(&vring.memory, 0, &[driver::MARK]);
        queue.push_used(chain.head, 1)?;
        if queue.needs_call()? {
            vring.call.as_ref().unwrap().notify().unwrap();
        }
    }
}
