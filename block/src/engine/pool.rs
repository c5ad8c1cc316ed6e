//! Threads that make blocking calls, for hosts without io_uring and for images that are not raw.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use ipc::SharedEventFd;
use virtio::Sleep;

use super::job::Job;
use super::transfer::Transfer;
use super::wakers::Wakers;
use crate::image::Target;

/// Maximum number of threads of one pool. This number is enough to keep a disk busy.
pub(super) const MAX_THREADS: usize = 16;

/// The threads of one queue. Each thread starts when it is needed and stays until the pool is
/// dropped.
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    max_threads: usize,
    kick: Option<Arc<SharedEventFd>>,
    /// Results that were taken from the threads, in the order in which they came.
    results: VecDeque<(u16, i32)>,
}

/// The state that the threads share with the queue's own thread.
struct Shared {
    jobs: Mutex<Jobs>,
    /// Notified when a job is added, or when no more jobs will come.
    changed: Condvar,
    results: Mutex<Results>,
    /// The stop eventfd. Threads of the pool also write it, to wake the queue's thread when there
    /// are results.
    wake: Arc<SharedEventFd>,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<(u16, Job)>,
    /// Number of threads that wait for a job.
    idle: usize,
    /// Whether the pool is closed, so that no more jobs will come.
    closed: bool,
}

#[derive(Default)]
struct Results {
    done: VecDeque<(u16, i32)>,
    /// Whether the queue's thread sleeps or is about to sleep.
    sleeping: bool,
}

impl Pool {
    /// A pool of at most `max_threads` threads. If the pool has no threads, the calling thread
    /// makes all calls.
    pub fn new(max_threads: usize, wakers: Wakers) -> Self {
        let shared = Shared {
            jobs: Mutex::default(),
            changed: Condvar::new(),
            results: Mutex::default(),
            wake: wakers.stop,
        };
        Self {
            shared: Arc::new(shared),
            threads: Vec::new(),
            max_threads,
            kick: wakers.kick,
            results: VecDeque::new(),
        }
    }

    /// Lets a thread make the next call of `transfer`.
    ///
    /// # Safety
    ///
    /// The target, the transfer's list of buffers and the buffers must stay valid until the result
    /// with this slot has been returned or the pool was dropped. The list must not change.
    pub unsafe fn push(&mut self, slot: u16, target: Target<'_>, transfer: &Transfer) {
        let job = Job::new(target, transfer);
        let mut jobs = lock(&self.shared.jobs);
        if jobs.waiting.len() >= jobs.idle && self.threads.len() < self.max_threads {
            drop(jobs);
            self.start_thread();
            jobs = lock(&self.shared.jobs);
        }
        if self.threads.is_empty() {
            drop(jobs);
            // SAFETY: the caller promises that target, list and buffers are valid.
            let result = unsafe { job.run() };
            self.results.push_back((slot, result));
            return;
        }
        jobs.waiting.push_back((slot, job));
        let idle = jobs.idle > 0;
        drop(jobs);
        if idle {
            self.shared.changed.notify_one();
        }
    }

    /// Starts another thread. If the start fails, the pool continues with the threads that it has.
    fn start_thread(&mut self) {
        let shared = self.shared.clone();
        let name = format!("aio-{}", self.threads.len());
        // SAFETY: the callers of `push` promise that each job is safe to run until the pool is
        // dropped. The pool's `drop` joins this thread, so no job runs later.
        let run = move || unsafe { shared.run_jobs() };
        match thread::Builder::new().name(name).spawn(run) {
            Ok(thread) => self.threads.push(thread),
            Err(error) => {
                self.max_threads = self.threads.len();
                let have = self.max_threads;
                tracing::warn!(
                    "a queue has only {have} I/O threads, because no more can start: {error}"
                );
            }
        }
    }

    /// The next result: its slot, and the number of transferred bytes or a negated errno.
    pub fn next_result(&mut self) -> Option<(u16, i32)> {
        if self.results.is_empty() {
            mem::swap(&mut lock(&self.shared.results).done, &mut self.results);
        }
        self.results.pop_front()
    }

    /// Whether there are results.
    pub fn has_results(&self) -> bool {
        !self.results.is_empty() || !lock(&self.shared.results).done.is_empty()
    }

    /// Sleeps until there is a result, the stop eventfd is written, or one of the events of `sleep`
    /// comes. Returns at once if there are results.
    pub fn wait(&mut self, sleep: Sleep) -> io::Result<()> {
        if !self.results.is_empty() || !self.shared.fall_asleep() {
            return Ok(());
        }
        let slept = sleep.until(&self.shared.wake, self.kick.as_deref());
        self.shared.wake_up();
        slept
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.jobs).closed = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // The join cannot fail, because the code of the thread does not panic.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Runs jobs until the pool is dropped. Each thread of the pool calls this function once.
    ///
    /// # Safety
    ///
    /// Each pushed job must be safe to run until this function returns.
    unsafe fn run_jobs(&self) {
        while let Some((slot, job)) = self.next_job() {
            // SAFETY: the caller promises that all pushed jobs are safe to run.
            let result = unsafe { job.run() };
            self.hand_over(slot, result);
        }
    }

    /// Waits for a job. Returns `None` when no more jobs will come.
    fn next_job(&self) -> Option<(u16, Job)> {
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

    /// Passes a result on to the queue's thread, and wakes the queue's thread if it sleeps.
    fn hand_over(&self, slot: u16, result: i32) {
        let mut results = lock(&self.results);
        results.done.push_back((slot, result));
        let sleeping = mem::take(&mut results.sleeping);
        drop(results);
        if sleeping && let Err(error) = self.wake.signal() {
            // This should not happen, because the eventfd is private to this process.
            tracing::error!("cannot wake a queue's thread: {error}");
        }
    }

    /// Announces that the queue's thread is about to sleep. Returns false if there are results. The
    /// thread must then not sleep.
    fn fall_asleep(&self) -> bool {
        let mut results = lock(&self.results);
        results.sleeping = results.done.is_empty();
        results.sleeping
    }

    /// Records that the queue's thread is awake. A thread of the pool that saw it asleep may still
    /// write the eventfd. Then the next sleep ends at once.
    fn wake_up(&self) {
        lock(&self.results).sleeping = false;
    }
}

/// Locks a mutex of the pool. These mutexes are never poisoned, because no code panics while it
/// holds their locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
