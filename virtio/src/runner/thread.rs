//! The thread of a queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use super::StartError;
use crate::served::Targets;
use crate::silence::FirstRequest;
use crate::{Device, ServeError, ServedQueue, Vring, Wake};

/// The thread of one queue. It serves one vring after another.
pub(super) struct QueueThread(Arc<Shared>);

/// The state that the thread shares with its runner.
struct Shared {
    wake: Wake,
    targets: Arc<Targets>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    phase: Phase,
    /// Whether the runner was dropped. The thread then gets no more vrings.
    over: bool,
    /// Whether the device returned an error or panicked while it served the last vring.
    failed: bool,
    /// The position of the first request that the device did not take from the last vring. `None`
    /// before the first start.
    next_avail: Option<u16>,
}

enum Phase {
    /// The thread waits for a vring.
    Idle,
    /// The thread has a vring and has not begun to serve it.
    Start(Box<ServedQueue>),
    /// The thread serves a vring.
    Serving,
}

impl QueueThread {
    /// A thread for queue `index` of the device.
    pub fn spawn(index: u16, device: Arc<dyn Device>) -> Result<Self, StartError> {
        let state = State {
            phase: Phase::Idle,
            over: false,
            failed: false,
            next_avail: None,
        };
        let shared = Arc::new(Shared {
            wake: Wake::new().map_err(StartError::Thread)?,
            targets: Arc::default(),
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let its = shared.clone();
        thread::Builder::new()
            .name(format!("vring-{index}"))
            .spawn(move || its.run(device.as_ref()))
            .map_err(StartError::Thread)?;
        Ok(Self(shared))
    }

    pub fn targets(&self) -> &Targets {
        &self.0.targets
    }

    /// Gives the thread a vring to serve. The thread has to be idle.
    pub fn start(&self, vring: Vring, first: Arc<FirstRequest>) -> Result<(), StartError> {
        let queue = ServedQueue::new(vring, self.0.targets.clone(), first)?;
        self.0.wake.reset();
        let mut state = self.0.lock();
        state.next_avail = Some(queue.ring.next_avail());
        state.failed = false;
        state.phase = Phase::Start(Box::new(queue));
        drop(state);
        self.0.changed.notify_all();
        Ok(())
    }

    pub fn ask_to_stop(&self) {
        self.0.wake.request_stop();
    }

    /// Whether the device returned an error or panicked while it served the last vring.
    pub fn has_failed(&self) -> bool {
        self.0.lock().failed
    }

    /// Waits until the thread is idle. Returns false if the thread is not idle by the deadline.
    pub fn wait_idle(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let busy = |state: &mut State| !matches!(state.phase, Phase::Idle);
        let waited = self.0.changed.wait_timeout_while(self.0.lock(), left, busy);
        let (_state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }

    /// The position of the first request that the device did not take from the last vring. `None`
    /// before the first start.
    pub fn next_avail(&self) -> Option<u16> {
        self.0.lock().next_avail
    }
}

impl Drop for QueueThread {
    /// Tells the thread to end, but does not wait for the end, because the thread may be blocked in
    /// the kernel. All objects that the thread uses stay alive until the thread ends.
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    /// Serves vrings until the runner is dropped.
    fn run(&self, device: &dyn Device) {
        while let Some(mut queue) = self.next_vring() {
            self.serve(device, &mut queue);
            let mut state = self.lock();
            state.next_avail = Some(queue.ring.next_avail());
            drop(queue);
            state.phase = Phase::Idle;
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Waits for a vring. Returns `None` when the runner has been dropped.
    fn next_vring(&self) -> Option<Box<ServedQueue>> {
        let mut state = self.lock();
        loop {
            match std::mem::replace(&mut state.phase, Phase::Serving) {
                Phase::Start(queue) => return Some(queue),
                other => state.phase = other,
            }
            if state.over {
                return None;
            }
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn serve(&self, device: &dyn Device, queue: &mut ServedQueue) {
        let index = queue.index;
        let served = catch_unwind(AssertUnwindSafe(|| {
            queue.call_at_start()?;
            device.serve(queue, &self.wake)
        }));
        match served {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.report(index, &WithSource(&error)),
            // The device panicked, and the panic hook has printed the message.
            Err(_) => self.report(index, &"internal error"),
        }
    }

    /// Reports to the log and to the carrier that a queue has failed.
    fn report(&self, index: u16, failure: &dyn std::fmt::Display) {
        self.lock().failed = true;
        tracing::warn!("queue {index} takes no more requests: {failure}");
        if let Err(error) = self.targets.notify_error() {
            tracing::warn!("queue {index}: cannot report the failure to the front-end: {error}");
        }
    }

    /// Locks the state. The lock is never poisoned, because no code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Displays an error together with its source.
struct WithSource<'a>(&'a ServeError);

impl std::fmt::Display for WithSource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        match std::error::Error::source(self.0) {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}
