//! io_uring: system calls in batches, with the wake-ups in the same queue.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{Builder, IoUring, cqueue, opcode, squeue};
use libc::iovec;

use super::backend::negated_errno;
use super::ranges;
use super::wakers::{POLL_INTERVAL, Wakers};
use crate::transfer::{Operation, Transfer};

/// Entries besides those of the slots: stop, and the two of the kick.
const EXTRA_ENTRIES: u32 = 3;

/// User data of the entries that belong to no slot; slots have their number.
const STOP: u64 = 1 << 32;
const KICK_POLL: u64 = STOP + 1;
const KICK_READ: u64 = STOP + 2;

/// Where the kernel puts the counters of all kick eventfds. Nobody looks, so they may share it; and
/// as it is always there, no pending read needs to be waited for.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// An io_uring for one thread.
pub(super) struct Uring {
    ring: IoUring,
    wakers: Wakers,
    kick: Kick,
    /// Results of system calls that the ring cannot make.
    made: VecDeque<(u16, i32)>,
}

/// Whether the ring waits for the kick eventfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kick {
    /// It has to be told to.
    Idle,
    /// It does.
    Armed,
    /// There is none, so that sleep is short.
    None,
}

impl Uring {
    /// A ring that holds an operation for each of `slots` slots; belongs to the calling thread.
    pub fn new(slots: u16, wakers: Wakers) -> Result<Self, (io::Error, Wakers)> {
        let ring = match build(u32::from(slots) + EXTRA_ENTRIES) {
            Ok(ring) => ring,
            Err(error) => return Err((error, wakers)),
        };
        let kick = match wakers.kick {
            Some(_) => Kick::Idle,
            None => Kick::None,
        };
        let mut uring = Self {
            ring,
            wakers,
            kick,
            made: VecDeque::new(),
        };
        match uring.arm_stop() {
            Ok(()) => Ok(uring),
            Err(error) => Err((error, uring.wakers)),
        }
    }

    /// Queues the next system call of `transfer`.
    ///
    /// # Safety
    ///
    /// The file, the transfer and its buffers must stay valid and unchanged until the result with
    /// this slot has been returned.
    pub unsafe fn push(
        &mut self,
        slot: u16,
        file: BorrowedFd<'_>,
        transfer: &Transfer,
    ) -> io::Result<()> {
        if ranges::is_ioctl(transfer.operation) {
            let failed = ranges::system_call(file, transfer.operation, transfer.rest()) == Some(-1);
            let result = if failed { negated_errno() } else { 0 };
            self.made.push_back((slot, result));
            return Ok(());
        }
        let mut entry = entry(Fd(file.as_raw_fd()), transfer).user_data(u64::from(slot));
        if transfer.aside {
            entry = entry.flags(squeue::Flags::ASYNC);
        }
        // SAFETY: as the caller promises.
        unsafe { push(&mut self.ring, &[entry]) }
    }

    /// Hands queued entries to the kernel and lets it do what completions need to be done on this
    /// thread; no system call when there are neither.
    pub fn submit(&mut self) -> io::Result<()> {
        let submission = self.ring.submission();
        if submission.is_empty() && !submission.taskrun() {
            return Ok(());
        }
        drop(submission);
        transient_is_ok(self.ring.submit())
    }

    /// Whether there are completions, or the kernel would find some on the next submission.
    pub fn has_ended(&mut self) -> bool {
        let is_to_be_run = self.ring.submission().taskrun();
        is_to_be_run || !self.ring.completion().is_empty()
    }

    /// Hands queued entries to the kernel and sleeps until there is a completion, or for this time.
    pub fn wait(&mut self, time: Option<Duration>) -> io::Result<()> {
        if !self.made.is_empty() {
            return Ok(());
        }
        self.arm_kick()?;
        let time = match self.kick {
            Kick::None => Some(time.map_or(POLL_INTERVAL, |time| time.min(POLL_INTERVAL))),
            _ => time,
        };
        let Some(time) = time else {
            return transient_is_ok(self.ring.submit_and_wait(1));
        };
        let time = Timespec::from(time);
        let args = SubmitArgs::new().timespec(&time);
        transient_is_ok(self.ring.submitter().submit_with_args(1, &args))
    }

    /// The next result of a slot.
    pub fn next_result(&mut self) -> Option<(u16, i32)> {
        if let Some(made) = self.made.pop_front() {
            return Some(made);
        }
        loop {
            let entry = self.ring.completion().next()?;
            match u16::try_from(entry.user_data()) {
                Ok(slot) => return Some((slot, entry.result())),
                Err(_) => self.woken(&entry),
            }
        }
    }

    fn woken(&mut self, entry: &cqueue::Entry) {
        // The poll only orders the read that is linked to it.
        if entry.user_data() != KICK_READ {
            return;
        }
        self.kick = match entry.result() {
            8 => Kick::Idle,
            error if error == -libc::EAGAIN || error == -libc::EINTR => Kick::Idle,
            _ => {
                tracing::warn!("the kick is no eventfd: polling the ring instead");
                Kick::None
            }
        };
    }

    /// Waits for the kick eventfd and resets it, all within the ring. It is polled first because not
    /// every kernel waits in a read of a non-blocking eventfd.
    fn arm_kick(&mut self) -> io::Result<()> {
        let (Kick::Idle, Some(kick)) = (self.kick, &self.wakers.kick) else {
            return Ok(());
        };
        // A success of it is nobody's business, and would only wake this thread once more.
        let mut flags = squeue::Flags::IO_LINK;
        if self.ring.params().is_feature_skip_cqe_on_success() {
            flags |= squeue::Flags::SKIP_SUCCESS;
        }
        let poll = poll_entry(kick.as_raw_fd())
            .user_data(KICK_POLL)
            .flags(flags);
        let read = opcode::Read::new(Fd(kick.as_raw_fd()), COUNTER.as_ptr().cast(), 8)
            .build()
            .user_data(KICK_READ);
        // SAFETY: the counter is always there and never looked at; the kernel holds the file.
        unsafe { push(&mut self.ring, &[poll, read]) }?;
        self.kick = Kick::Armed;
        Ok(())
    }

    /// Waits for the stop eventfd, once. Shows as well whether the kernel lets the ring be used.
    fn arm_stop(&mut self) -> io::Result<()> {
        let poll = poll_entry(self.wakers.stop.as_raw_fd()).user_data(STOP);
        // SAFETY: a poll has no buffers; the kernel holds the file.
        unsafe { push(&mut self.ring, &[poll]) }?;
        self.ring.submit().map(drop)
    }
}

fn build(entries: u32) -> io::Result<IoUring> {
    let mut plain: Builder = IoUring::builder();
    plain.dontfork();
    let mut ours = plain.clone();
    ours.setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag();
    // The flags are newer than io_uring: the first needs Linux 6.0, the second 6.1.
    let ring = ours.build(entries).or_else(|_| plain.build(entries))?;
    match ring.params().is_feature_ext_arg() {
        true => Ok(ring),
        // Before Linux 5.11 a wait takes no timeout.
        false => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn entry(file: Fd, transfer: &Transfer) -> squeue::Entry {
    let offset = transfer.offset();
    if let Some(mode) = ranges::fallocate_mode(transfer.operation) {
        return opcode::Fallocate::new(file, transfer.rest().len)
            .offset(offset)
            .mode(mode)
            .build();
    }
    let flags = match transfer.operation {
        Operation::Read => return read_entry(file, transfer.iovecs(), offset),
        Operation::Write => 0,
        Operation::WriteStable => libc::RWF_DSYNC,
        _ => return opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC).build(),
    };
    write_entry(file, transfer.iovecs(), offset, flags)
}

/// One buffer is passed as such, which saves the kernel reading a list.
fn read_entry(file: Fd, buffers: &[iovec], offset: u64) -> squeue::Entry {
    match buffers {
        [iovec { iov_base, iov_len }] if let Ok(len) = u32::try_from(*iov_len) => {
            opcode::Read::new(file, iov_base.cast(), len)
                .offset(offset)
                .build()
        }
        _ => opcode::Readv::new(file, buffers.as_ptr(), buffers.len() as u32)
            .offset(offset)
            .build(),
    }
}

/// As [`read_entry`].
fn write_entry(file: Fd, buffers: &[iovec], offset: u64, flags: i32) -> squeue::Entry {
    match buffers {
        [iovec { iov_base, iov_len }] if let Ok(len) = u32::try_from(*iov_len) => {
            opcode::Write::new(file, iov_base.cast::<u8>().cast_const(), len)
                .offset(offset)
                .rw_flags(flags)
                .build()
        }
        _ => opcode::Writev::new(file, buffers.as_ptr(), buffers.len() as u32)
            .offset(offset)
            .rw_flags(flags)
            .build(),
    }
}

fn poll_entry(file: RawFd) -> squeue::Entry {
    opcode::PollAdd::new(Fd(file), libc::POLLIN as u32).build()
}

/// # Safety
///
/// Files and buffers of the entries must stay valid until they have completed.
unsafe fn push(ring: &mut IoUring, entries: &[squeue::Entry]) -> io::Result<()> {
    // SAFETY: as the caller promises.
    let pushed = unsafe { ring.submission().push_multiple(entries) };
    // Never full: each slot and each eventfd has its entries at most once.
    pushed.map_err(|_| io::ErrorKind::ResourceBusy.into())
}

/// A wait may end early, and a busy kernel may take entries later: both are retried anyway.
fn transient_is_ok(result: io::Result<usize>) -> io::Result<()> {
    let transient = [libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ETIME];
    match result {
        Err(error) if !error.raw_os_error().is_some_and(|e| transient.contains(&e)) => Err(error),
        _ => Ok(()),
    }
}
