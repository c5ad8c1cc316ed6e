//! The io_uring instances (rings) of queues. They are made before the jail closes, and exist until
//! the device is dropped.
//!
//! A process that may make rings can bypass the jail's system call filter. So the ring of each
//! queue is made before the jail closes. The new ring is disabled. It is restricted forever to the
//! operations that an image and its queue need. The queue's thread only enables the ring. A stop of
//! the queue does not end the ring.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use io_uring::register::Restriction;
use io_uring::{Builder, IoUring, Parameters, opcode, squeue};

/// Number of entries of a ring. It does not depend on the size of the queue, because the engine
/// submits early when the ring is full. A ring with this number of entries takes four pages of
/// memory once it is used.
const ENTRIES: u32 = 128;

/// The operations that a ring may carry out: transfers, flushes, allocation and waits.
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

/// The ring of one queue. The queue's thread locks the ring while the thread serves the queue.
#[derive(Debug, Default)]
pub(crate) struct RingSlot(Mutex<Ring>);

/// A ring that may not exist yet, or may not be available.
#[derive(Default)]
pub(crate) struct Ring {
    state: State,
    /// Whether an operation in the ring may never end, so that the ring must not be used again.
    lost: bool,
    /// The thread that enabled the ring. The kernel takes entries from this thread only.
    owner: Option<ThreadId>,
}

#[derive(Default)]
enum State {
    /// The ring has not been made yet.
    #[default]
    Unmade,
    /// The ring is made and disabled.
    Prepared(Prepared),
    Enabled(IoUring),
    /// The kernel refused the ring, or the ring is lost.
    Absent,
}

/// An enabled ring, lent to the queue's thread.
pub(crate) struct Lent<'a> {
    pub ring: &'a mut IoUring,
    /// The borrower sets this flag if the ring must not be used again.
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
    /// Makes the ring at the first call.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the ring. Later calls return `Ok` without another attempt.
    pub fn prepare(&self) -> io::Result<()> {
        self.lock().prepare()
    }

    /// Locks the ring.
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

    /// Enables the ring for the calling thread. Returns `None` if the ring is not available, also
    /// because another thread has enabled it before: the ring is then closed.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to make or enable the ring.
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

/// A disabled ring. The ring is not mapped, so that an unused queue takes no memory of this
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
        // borrow ends before that.
        let descriptor = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) };
        Ok(Self {
            ring: descriptor.try_clone_to_owned()?,
            parameters: ring.params().clone(),
        })
    }

    fn enable(self) -> io::Result<IoUring> {
        // SAFETY: the descriptor is of an io_uring. `self` owned it and gives the ownership away.
        // The kernel returned the parameters when it made this ring.
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
    // SINGLE_ISSUER needs Linux 6.0, and DEFER_TASKRUN needs Linux 6.1. Older kernels refuse these
    // flags.
    let ring = ours.build(ENTRIES).or_else(|_| plain.build(ENTRIES))?;
    if ring.params().is_feature_ext_arg() {
        Ok(ring)
    } else {
        // Before Linux 5.11 a wait for completions cannot have a timeout.
        Err(io::ErrorKind::Unsupported.into())
    }
}
