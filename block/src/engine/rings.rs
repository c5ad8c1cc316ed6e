//! io_uring instances that exist before they are used, and after.
//!
//! A process that may make rings can make system calls that no filter sees. So each queue's ring is
//! made before the jail's filter closes: disabled, and restricted for good to the operations that an
//! image and its queue need. The queue's thread only enables it. The ring outlives stops of the queue.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use io_uring::register::Restriction;
use io_uring::{Builder, IoUring, Parameters, opcode, squeue};

/// Entries of a ring, whatever the size of its queue: what does not fit is submitted in between. A ring
/// of this size takes four pages once it is used.
const ENTRIES: u32 = 128;

/// The operations that a ring can make: transfers, flushes, allocation, and what waiting takes.
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

/// The ring of one queue, which the queue's thread locks while it serves.
#[derive(Debug, Default)]
pub(crate) struct RingSlot(Mutex<Ring>);

/// A ring in one of the states of its life.
#[derive(Default)]
pub(crate) struct Ring {
    state: State,
    /// Something may be in flight for ever, so the ring must not be used again.
    lost: bool,
}

#[derive(Default)]
enum State {
    /// Nobody has tried to make the ring.
    #[default]
    Unmade,
    /// Made, and disabled.
    Prepared(Prepared),
    Enabled(IoUring),
    /// Refused by the kernel, or lost.
    Absent,
}

/// An enabled ring in the hands of the queue's thread.
pub(crate) struct Lent<'a> {
    pub ring: &'a mut IoUring,
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
    /// Makes the ring, unless that was tried before.
    ///
    /// # Errors
    ///
    /// Whatever the kernel says. It is not tried again.
    pub fn prepare(&self) -> io::Result<()> {
        self.lock().prepare()
    }

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

    /// The ring, enabled for the calling thread, which has to be the same each time. `None`: there is
    /// none.
    ///
    /// # Errors
    ///
    /// Whatever the kernel says.
    pub(crate) fn enable(&mut self) -> io::Result<Option<Lent<'_>>> {
        self.prepare()?;
        let state = std::mem::replace(&mut self.state, State::Absent);
        self.state = match state {
            State::Prepared(prepared) => State::Enabled(prepared.enable()?),
            State::Enabled(_) if self.lost => State::Absent,
            other => other,
        };
        let State::Enabled(ring) = &mut self.state else {
            return Ok(None);
        };
        let lost = &mut self.lost;
        Ok(Some(Lent { ring, lost }))
    }
}

/// A disabled ring. It is not mapped, so that a queue out of use takes no memory of this process.
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
        // SAFETY: `ring` keeps its descriptor open for longer than it is borrowed.
        let descriptor = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) };
        Ok(Self {
            ring: descriptor.try_clone_to_owned()?,
            parameters: ring.params().clone(),
        })
    }

    fn enable(self) -> io::Result<IoUring> {
        // SAFETY: the descriptor is an io_uring's, owned here and given away whole; the parameters are
        // those that the kernel returned for it.
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
    // The flags are newer than io_uring: the first needs Linux 6.0, the second 6.1.
    let ring = ours.build(ENTRIES).or_else(|_| plain.build(ENTRIES))?;
    match ring.params().is_feature_ext_arg() {
        true => Ok(ring),
        // Before Linux 5.11 a wait takes no timeout.
        false => Err(io::ErrorKind::Unsupported.into()),
    }
}
