//! Threads that make blocking calls: where io_uring is not to be had, or is not enough.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ipc::{Interest, SharedEventFd, poll};

use super::calls::Call;
use super::wakers::{POLL_INTERVAL, Wakers};
use crate::image::Target;
use crate::transfer::Transfer;

/// The most threads of one pool: enough to keep a disk busy.
pub(super) const MAX_THREADS: usize = 16;

/// The threads of one queue. They start as they are needed and stay until it is dropped.
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    max_threads: usize,
    wakers: Wakers,
    /// Results that the threads have handed over, the first first.
    results: VecDeque<(u16, i32)>,
}

/// What the threads and the queue's own thread have in common.
struct Shared {
    jobs: Mutex<Jobs>,
    /// There is a job, or no more will come.
    changed: Condvar,
    results: Mutex<Results>,
    /// The stop eventfd, written as well when there is a result for a thread that sleeps.
    wake: Arc<SharedEventFd>,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<(u16, Call)>,
    /// How many threads have nothing to do.
    idle: usize,
    /// No more will come.
    closed: bool,
}

#[derive(Default)]
struct Results {
    ended: VecDeque<(u16, i32)>,
    /// The queue's thread sleeps, or is about to.
    sleeping: bool,
}

impl Pool {
    /// A pool of so many threads at most. Where none can be started, calls are made on the spot.
    pub fn new(max_threads: usize, wakers: Wakers) -> Self {
        let shared = Shared {
            jobs: Mutex::default(),
            changed: Condvar::new(),
            results: Mutex::default(),
            wake: wakers.stop.clone(),
        };
        Self {
            shared: Arc::new(shared),
            threads: Vec::new(),
            max_threads,
            wakers,
            results: VecDeque::new(),
        }
    }

    /// Has the next call of `transfer` made.
    ///
    /// # Safety
    ///
    /// The target, the transfer's list of buffers and these themselves must stay valid and unchanged
    /// until the result with this slot has been returned, or the pool was dropped.
    pub unsafe fn call(&mut self, slot: u16, target: Target<'_>, transfer: &Transfer) {
        let call = Call::new(target, transfer);
        let mut jobs = lock(&self.shared.jobs);
        if jobs.waiting.len() >= jobs.idle && self.threads.len() < self.max_threads {
            drop(jobs);
            self.start_thread();
            jobs = lock(&self.shared.jobs);
        }
        if self.threads.is_empty() {
            drop(jobs);
            // SAFETY: as the caller promises.
            let result = unsafe { call.result() };
            self.results.push_back((slot, result));
            return;
        }
        jobs.waiting.push_back((slot, call));
        let idle = jobs.idle > 0;
        drop(jobs);
        if idle {
            self.shared.changed.notify_one();
        }
    }

    /// Without another thread things go on, only slower.
    fn start_thread(&mut self) {
        let shared = self.shared.clone();
        let name = format!("aio-{}", self.threads.len());
        // SAFETY: whoever hands in a call promises that it can be made until the pool is dropped,
        // which waits for the thread.
        let run = move || unsafe { shared.make_calls() };
        match thread::Builder::new().name(name).spawn(run) {
            Ok(thread) => self.threads.push(thread),
            Err(error) => {
                self.max_threads = self.threads.len();
                let have = self.max_threads;
                tracing::warn!("a queue has {have} I/O threads, as no other can start: {error}");
            }
        }
    }

    pub fn next_result(&mut self) -> Option<(u16, i32)> {
        if self.results.is_empty() {
            mem::swap(&mut lock(&self.shared.results).ended, &mut self.results);
        }
        self.results.pop_front()
    }

    pub fn has_ended(&self) -> bool {
        !self.results.is_empty() || !lock(&self.shared.results).ended.is_empty()
    }

    /// Sleeps until there is a result, the kick or stop eventfd is written, or for this time, or the
    /// polling interval; not at all when there are results.
    pub fn wait(&mut self, time: Option<Duration>) -> io::Result<()> {
        if !self.results.is_empty() || !self.shared.fall_asleep() {
            return Ok(());
        }
        let slept = self.sleep(time);
        self.shared.wake_up()?;
        slept
    }

    fn sleep(&mut self, time: Option<Duration>) -> io::Result<()> {
        let wake = Interest::readable(&*self.shared.wake);
        let Some(kick) = &self.wakers.kick else {
            let time = time.map_or(POLL_INTERVAL, |time| time.min(POLL_INTERVAL));
            return poll([wake], Some(time)).map(drop);
        };
        let [_, kicked] = poll([wake, Interest::readable(&**kick)], time)?;
        if kicked && kick.take().is_err() {
            tracing::warn!("the kick is not an eventfd: polling the ring instead");
            self.wakers.kick = None;
        }
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.jobs).closed = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // It does nothing that panics.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// A thread's whole life.
    ///
    /// # Safety
    ///
    /// Each call that is handed in can be made until this returns.
    unsafe fn make_calls(&self) {
        while let Some((slot, call)) = self.next_job() {
            // SAFETY: as the caller promises.
            let result = unsafe { call.result() };
            self.end(slot, result);
        }
    }

    /// Waits for a job; `None` when no more will come.
    fn next_job(&self) -> Option<(u16, Call)> {
        let mut jobs = lock(&self.jobs);
        loop {
            if let Some(job) = jobs.waiting.pop_front() {
                return Some(job);
            }
            if jobs.closed {
                return None;
            }
            jobs.idle += 1;
            let woken = self.changed.wait(jobs);
            jobs = woken.unwrap_or_else(PoisonError::into_inner);
            jobs.idle -= 1;
        }
    }

    fn end(&self, slot: u16, result: i32) {
        let mut results = lock(&self.results);
        results.ended.push_back((slot, result));
        let sleeping = mem::take(&mut results.sleeping);
        drop(results);
        if sleeping && let Err(error) = self.wake.signal() {
            // Cannot happen with an eventfd of our own.
            tracing::error!("cannot wake a queue's thread: {error}");
        }
    }

    /// False when there is no need to sleep.
    fn fall_asleep(&self) -> bool {
        let mut results = lock(&self.results);
        results.sleeping = results.ended.is_empty();
        results.sleeping
    }

    /// To be told after sleep. When the stop eventfd was written for that as well, the flag that goes
    /// with it is set by now.
    fn wake_up(&self) -> io::Result<()> {
        let woken = !mem::take(&mut lock(&self.results).sleeping);
        match woken {
            true => self.wake.take().map(drop),
            false => Ok(()),
        }
    }
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
