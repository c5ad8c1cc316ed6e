//! The io_uring instances of queues. They are made before the process enters its jail, and exist
//! until the device is dropped.
//!
//! A process that may make io_urings can bypass the jail's system call filter. So the jail forbids
//! new io_urings, and the io_uring of each queue is made earlier. A new io_uring is disabled, and
//! is permanently restricted to the operations that an image and its queue need. Later the queue's
//! thread only enables the io_uring. A stop of the queue does not close the io_uring.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use io_uring::register::Restriction;
use io_uring::{Builder, IoUring, Parameters, opcode, squeue};

/// Number of entries of an io_uring. The number does not depend on the size of the virtqueue,
/// because the engine submits entries early when the io_uring is full. An io_uring with this number
/// of entries takes four pages of memory after its first use.
const ENTRIES: u32 = 128;

/// The operations that an io_uring may carry out: transfers, flushes, allocation, waits and
/// cancellations.
const OPERATIONS: [u8; 8] = [
    opcode::Read::CODE,
    opcode::Readv::CODE,
    opcode::Write::CODE,
    opcode::Writev::CODE,
    opcode::Fsync::CODE,
    opcode::Fallocate::CODE,
    opcode::PollAdd::CODE,
    opcode::AsyncCancel::CODE,
];

/// The io_uring of one queue, behind a lock. The queue's thread holds the lock while the thread
/// serves the queue.
#[derive(Debug, Default)]
pub(crate) struct RingSlot(Mutex<Ring>);

/// The state of a queue's io_uring.
#[derive(Default)]
pub(crate) struct Ring {
    state: State,
    /// True if the io_uring must not be used again, because one of its operations may never end.
    lost: bool,
    /// The thread that enabled the io_uring. The kernel accepts entries only from this thread.
    owner: Option<ThreadId>,
}

#[derive(Default)]
enum State {
    /// The io_uring has not been made yet.
    #[default]
    Unmade,
    /// The io_uring is made and disabled.
    Prepared(Prepared),
    Enabled(IoUring),
    /// The kernel refused the io_uring, or the io_uring must not be used again.
    Absent,
}

/// An enabled io_uring, lent to the queue's thread.
pub(crate) struct Lent<'a> {
    pub ring: &'a mut IoUring,
    /// The borrower sets this flag if the io_uring must not be used again.
    pub lost: &'a mut bool,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.state {
            State::Unmade => "Unmade",
            State::Prepared(_) => "Prepared",
            State::Enabled(_) => "Enabled",
            State::Absent => "Absent",
        })
    }
}

impl RingSlot {
    /// Makes the io_uring at the first call.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the io_uring. Later calls return `Ok` without another attempt.
    pub fn prepare(&self) -> io::Result<()> {
        self.lock().prepare()
    }

    /// Locks the io_uring.
    pub fn lock(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn prepare(&mut self) -> io::Result<()> {
        if matches!(self.state, State::Unmade) {
            self.state = State::Absent;
            self.state = State::Prepared(Prepared::new()?);
        }
        Ok(())
    }

    /// Enables the io_uring for the calling thread. Returns `None` if the io_uring is not
    /// available. If another thread has already enabled the io_uring, closes the io_uring and
    /// returns `None`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to make or enable the io_uring.
    pub(crate) fn enable(&mut self) -> io::Result<Option<Lent<'_>>> {
        self.prepare()?;
        let caller = thread::current().id();
        let is_foreign = self.owner.is_some_and(|owner| owner != caller);
        let state = std::mem::replace(&mut self.state, State::Absent);
        self.state = match state {
            State::Prepared(prepared) => {
                self.owner = Some(caller);
                State::Enabled(prepared.enable()?)
            }
            State::Enabled(_) if self.lost || is_foreign => State::Absent,
            other => other,
        };
        let State::Enabled(ring) = &mut self.state else {
            return Ok(None);
        };
        let lost = &mut self.lost;
        Ok(Some(Lent { ring, lost }))
    }
}

/// A disabled io_uring. The io_uring is not mapped, so that an unused queue takes no memory of this
/// process.
struct Prepared {
    ring: OwnedFd,
    parameters: Parameters,
}

impl Prepared {
    fn new() -> io::Result<Self> {
        let ring = build()?;
        let mut restrictions: Vec<_> = OPERATIONS.map(Restriction::sqe_op).into();
        let flags = squeue::Flags::IO_LINK | squeue::Flags::ASYNC | squeue::Flags::SKIP_SUCCESS;
        restrictions.push(Restriction::sqe_flags_allowed(flags.bits()));
        ring.submitter().register_restrictions(&mut restrictions)?;
        // SAFETY: `ring` owns the descriptor and keeps it open until the end of this function. The
        // borrow ends before that time.
        let descriptor = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) };
        Ok(Self {
            ring: descriptor.try_clone_to_owned()?,
            parameters: ring.params().clone(),
        })
    }

    fn enable(self) -> io::Result<IoUring> {
        // SAFETY: the descriptor belongs to an io_uring. `self` owned the descriptor and gives the
        // ownership away. The kernel returned the parameters when it made this io_uring.
        let ring = unsafe { IoUring::from_fd(self.ring.into_raw_fd(), self.parameters) }?;
        ring.submitter().register_enable_rings()?;
        Ok(ring)
    }
}

fn build() -> io::Result<IoUring> {
    let mut plain: Builder = IoUring::builder();
    plain.setup_r_disabled();
    let mut ours = plain.clone();
    ours.setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag();
    // SINGLE_ISSUER needs Linux 6.0, and DEFER_TASKRUN needs Linux 6.1. Older kernels refuse an
    // io_uring with these flags, and then the io_uring is made without the flags.
    let ring = ours.build(ENTRIES).or_else(|_| plain.build(ENTRIES))?;
    if ring.params().is_feature_ext_arg() {
        Ok(ring)
    } else {
        // An io_uring of Linux before 5.11 is not used, because a wait for its completions cannot
        // have a timeout.
        Err(io::ErrorKind::Unsupported.into())
    }
}
