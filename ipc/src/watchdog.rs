//! Interrupts a write to an eventfd when a peer makes the write block.
//!
//! A write to an eventfd blocks while the eventfd's counter is full and O_NONBLOCK is clear.
//! Another process that has the eventfd can bring it into this state at any moment, and the kernel
//! cannot make a single write to an eventfd non-blocking. So one thread of this process, the
//! watchdog, looks at the writes of all other threads, once in each [`TICK`]. If a write lasts from
//! one look to the next, the watchdog interrupts the writing thread. While no thread writes, the
//! watchdog sleeps.

use std::cell::OnceCell;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::{self, Thread};
use std::time::Duration;

mod interrupt;

use interrupt::ThreadId;

/// The time between two looks of the watchdog. A write blocks for at most two ticks.
const TICK: Duration = Duration::from_millis(5);

/// The stack size of the watchdog's thread in bytes. The thread calls few functions.
const STACK_SIZE: usize = 64 * 1024;

static WATCHDOG: Watchdog = Watchdog::new();

thread_local! {
    /// The entry of this thread in the watchdog's list, from the thread's first write on.
    static ENTRY: OnceCell<Entry> = const { OnceCell::new() };
}

/// Starts the thread that interrupts blocked writes, and installs a handler of SIGUSR1. Does
/// nothing if the thread runs already.
///
/// The first [`SharedEventFd::signal`](crate::SharedEventFd::signal) of the process does the same.
/// A process that restricts itself calls this function earlier: after its last fork, after it gave
/// up its privileges, and before a filter forbids it to start threads. After this function has
/// returned, the thread only waits and sends SIGUSR1 to other threads of the process.
///
/// # Errors
///
/// When the operating system refuses the thread or the signal handler.
pub fn start_watchdog() -> io::Result<()> {
    WATCHDOG.start()
}

/// Writes to an eventfd that is shared with a peer. Blocks for at most two ticks.
///
/// # Errors
///
/// [`io::ErrorKind::Interrupted`] if the write blocked. A write that does not block is never
/// interrupted.
pub(crate) fn write(eventfd: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let written = ENTRY.try_with(|entry| {
        let writes = &entry_of_this_thread(entry)?.0;
        writes.begin();
        WATCHDOG.wake();
        let written = rustix::io::write(eventfd, bytes);
        writes.end();
        Ok(written?)
    });
    // The entry is missing only while the destructors of an ending thread run.
    written.unwrap_or_else(|missing| Err(io::Error::other(missing)))
}

fn entry_of_this_thread(entry: &OnceCell<Entry>) -> io::Result<&Entry> {
    if let Some(entry) = entry.get() {
        return Ok(entry);
    }
    WATCHDOG.start()?;
    let new = Entry(WATCHDOG.watch_this_thread());
    Ok(entry.get_or_init(|| new))
}

/// The entry of a thread in the watchdog's list. The entry leaves the list when the thread ends.
struct Entry(Arc<Writes>);

impl Drop for Entry {
    fn drop(&mut self) {
        WATCHDOG
            .lock()
            .retain(|other| !Arc::ptr_eq(&other.writes, &self.0));
    }
}

/// The number of times that a thread began or ended a write. The number is odd during a write.
#[derive(Debug, Default)]
struct Writes(AtomicU64);

impl Writes {
    fn begin(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn end(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    fn number(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A thread in the watchdog's list.
struct Watched {
    thread: ThreadId,
    writes: Arc<Writes>,
    /// The number of `writes` at the last look.
    seen: u64,
}

struct Watchdog {
    threads: Mutex<Vec<Watched>>,
    /// Whether the watchdog sleeps, or is about to sleep, until a thread wakes it.
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Watchdog {
    const fn new() -> Self {
        Self {
            threads: Mutex::new(Vec::new()),
            asleep: AtomicBool::new(false),
            thread: OnceLock::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&'static self) -> io::Result<()> {
        // The lock prevents the start of a second watchdog.
        let _threads = self.lock();
        if self.thread.get().is_some() {
            return Ok(());
        }
        interrupt::install_handler()?;
        let (starting, started) = mpsc::channel::<()>();
        let thread = thread::Builder::new()
            .name("watchdog".to_owned())
            .stack_size(STACK_SIZE);
        let thread = thread.spawn(move || {
            drop(starting);
            self.run()
        })?;
        // The standard library and the C library prepare a thread by system calls that a filter may
        // forbid. `recv` returns, with an error, when the thread has made these calls.
        let _ = started.recv();
        self.thread.get_or_init(|| thread.thread().clone());
        Ok(())
    }

    fn watch_this_thread(&self) -> Arc<Writes> {
        let writes = Arc::new(Writes::default());
        self.lock().push(Watched {
            thread: ThreadId::current(),
            writes: writes.clone(),
            seen: 0,
        });
        writes
    }

    fn run(&self) -> ! {
        loop {
            if self.look() {
                thread::sleep(TICK);
                continue;
            }
            if self.goes_to_sleep() {
                thread::park();
            }
            self.asleep.store(false, Ordering::SeqCst);
        }
    }

    /// Asks all threads to wake the watchdog when they begin a write. Returns false if the watchdog
    /// has to stay awake, because a thread may have begun a write earlier.
    fn goes_to_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        // A thread that began its write before `asleep` was set does not wake the watchdog. So look
        // once more.
        !self.look()
    }

    /// Interrupts each thread whose write has lasted since the last look. Returns false if no
    /// thread wrote since the last look.
    fn look(&self) -> bool {
        let mut any = false;
        for watched in &mut *self.lock() {
            let number = watched.writes.number();
            let lasts = number == watched.seen && number % 2 == 1;
            if lasts {
                watched.thread.interrupt();
            }
            any |= lasts || number != watched.seen;
            watched.seen = number;
        }
        any
    }

    /// Wakes the watchdog if it sleeps. To be called after [`Writes::begin`].
    fn wake(&self) {
        if self.asleep.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests;
