//! Makes system calls through io_uring, in batches. The same io_uring also waits for the kick
//! eventfd and the stop eventfd.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use libc::iovec;
use virtio::Sleep;

use super::job::negated_errno;
use super::ranges;
use super::rings::Lent;
use super::transfer::Transfer;
use super::wakers::Wakers;
use crate::operation::Operation;

/// User data of the entries that do not belong to a slot. If an entry belongs to a slot, its user
/// data is the number of the slot.
const STOP: u64 = 1 << 32;
const KICK_POLL: u64 = STOP + 1;
const KICK_READ: u64 = STOP + 2;
const CANCEL: u64 = STOP + 3;

/// [`Uring::rest`] waits at most this number of times for the cancelled operations to end.
const CANCEL_WAITS: u32 = 100;
/// Maximum length of one wait for the cancelled operations.
const CANCEL_WAIT: Duration = Duration::from_millis(10);

/// The buffer for reads of kick eventfds. No code uses the counters that are read, so all io_urings
/// share the buffer. The buffer is static, so that a pending read can outlive its engine.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// The io_uring of a queue, used by the queue's thread.
pub(super) struct Uring<'a> {
    ring: &'a mut IoUring,
    /// Whether the io_uring must not be used again.
    lost: &'a mut bool,
    /// Number of operations in the io_uring that belong to slots.
    in_flight: usize,
    wakers: Wakers,
    /// Whether a poll of the kick eventfd is pending in the io_uring. An earlier sleep may leave
    /// the poll pending. If the next sleep should ignore kicks, the first kick still ends that
    /// sleep. Later kicks do not, because the poll ends with the first kick.
    kick_armed: bool,
    /// Whether the io_uring waits for the stop eventfd.
    stop_armed: bool,
    /// Number of entries in the io_uring that cancel other entries.
    cancels: usize,
    /// Results that [`Uring::next_result`] has not returned yet: results that were already taken
    /// out of the io_uring, and results of operations that io_uring does not support.
    made: VecDeque<(u16, i32)>,
}

impl<'a> Uring<'a> {
    /// Uses an enabled io_uring from the calling thread. No operation may be in flight in the
    /// io_uring.
    pub fn new(lent: Lent<'a>, wakers: Wakers) -> Self {
        Self {
            ring: lent.ring,
            lost: lent.lost,
            in_flight: 0,
            wakers,
            kick_armed: false,
            stop_armed: false,
            cancels: 0,
            made: VecDeque::new(),
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
        // SAFETY: the caller promises that the file and the buffers stay valid until the result has
        // been returned, which is after the entry has completed.
        unsafe { self.push_all(&[entry]) }?;
        self.in_flight += 1;
        Ok(())
    }

    /// Hands queued entries to the kernel. Also lets the kernel finish operations whose last step
    /// has to run on this thread. Makes no system call if there are neither queued entries nor such
    /// operations.
    pub fn submit(&mut self) -> io::Result<()> {
        let submission = self.ring.submission();
        if submission.is_empty() && !submission.taskrun() {
            return Ok(());
        }
        drop(submission);
        transient_is_ok(self.ring.submit())
    }

    /// Whether results are ready, or the next submission would make results ready.
    pub fn has_results(&mut self) -> bool {
        if !self.made.is_empty() {
            return true;
        }
        let is_to_be_run = self.ring.submission().taskrun();
        is_to_be_run || !self.ring.completion().is_empty()
    }

    /// Hands queued entries to the kernel and sleeps until there is a completion or one of the
    /// events of `sleep` comes.
    pub fn wait(&mut self, sleep: Sleep) -> io::Result<()> {
        if !self.made.is_empty() {
            return Ok(());
        }
        self.arm_stop()?;
        if sleep.kick {
            self.arm_kick()?;
        }
        let Some(limit) = sleep.limit else {
            return transient_is_ok(self.ring.submit_and_wait(1));
        };
        let time = Timespec::from(limit);
        let args = SubmitArgs::new().timespec(&time);
        transient_is_ok(self.ring.submitter().submit_with_args(1, &args))
    }

    /// The next result: its slot, and the number of transferred bytes or a negated errno.
    pub fn next_result(&mut self) -> Option<(u16, i32)> {
        if let Some(made) = self.made.pop_front() {
            return Some(made);
        }
        loop {
            let entry = self.ring.completion().next()?;
            match u16::try_from(entry.user_data()) {
                Ok(slot) => {
                    self.in_flight -= 1;
                    return Some((slot, entry.result()));
                }
                Err(_) => self.woken(&entry),
            }
        }
    }

    /// Handles the completion of an entry that does not belong to a slot.
    fn woken(&mut self, entry: &cqueue::Entry) {
        match entry.user_data() {
            STOP => {
                self.stop_armed = false;
                // Reset the stop eventfd. Otherwise each sleep would end at once until the
                // operations in flight have completed.
                let _ = self.wakers.stop.take();
            }
            CANCEL => self.cancels -= 1,
            KICK_READ => self.kick_armed = false,
            // If a poll is cancelled, the read linked to the poll may end without a completion.
            KICK_POLL if entry.result() < 0 => self.kick_armed = false,
            _ => {}
        }
    }

    /// Makes the io_uring wait for the kick eventfd and then reset it. A poll comes before the
    /// read, because some kernels do not wait in a read of a non-blocking eventfd.
    fn arm_kick(&mut self) -> io::Result<()> {
        let (false, Some(kick)) = (self.kick_armed, &self.wakers.kick) else {
            return Ok(());
        };
        // A successful poll produces no completion, because the completion would wake this thread a
        // second time for the same kick.
        let mut flags = squeue::Flags::IO_LINK;
        if self.ring.params().is_feature_skip_cqe_on_success() {
            flags |= squeue::Flags::SKIP_SUCCESS;
        }
        let kick = kick.as_fd().as_raw_fd();
        let poll = poll_entry(kick).user_data(KICK_POLL).flags(flags);
        let read = opcode::Read::new(Fd(kick), COUNTER.as_ptr().cast(), 8)
            .build()
            .user_data(KICK_READ);
        // SAFETY: the read writes 8 bytes to `COUNTER`, which is static, atomic and never read. The
        // kernel holds a reference to the file from the submission on, and `wakers` keeps the file
        // open until then.
        unsafe { self.push_all(&[poll, read]) }?;
        self.kick_armed = true;
        Ok(())
    }

    /// Makes the io_uring wait for the stop eventfd.
    fn arm_stop(&mut self) -> io::Result<()> {
        if self.stop_armed {
            return Ok(());
        }
        let poll = poll_entry(self.wakers.stop.as_fd().as_raw_fd()).user_data(STOP);
        // SAFETY: a poll has no buffers. The kernel holds a reference to the file from the
        // submission on, and `wakers` keeps the file open until then.
        unsafe { self.push_all(&[poll]) }?;
        self.stop_armed = true;
        Ok(())
    }

    /// Queues entries one directly after another. If the io_uring is full, first submits the
    /// earlier entries.
    ///
    /// # Safety
    ///
    /// Files and buffers of the entries must stay valid until the entries have completed.
    unsafe fn push_all(&mut self, entries: &[squeue::Entry]) -> io::Result<()> {
        // SAFETY: the caller promises that files and buffers stay valid until the entries complete.
        if unsafe { self.ring.submission().push_multiple(entries) }.is_ok() {
            return Ok(());
        }
        // The kernel accepts no entries while it has completions that do not fit in the completion
        // queue. So this function takes completions out before it submits entries.
        self.collect();
        transient_is_ok(self.ring.submit())?;
        // SAFETY: the caller promises that files and buffers stay valid until the entries complete.
        let pushed = unsafe { self.ring.submission().push_multiple(entries) };
        pushed.map_err(|_| io::ErrorKind::ResourceBusy.into())
    }

    /// Cancels the waits for eventfds, so that the io_uring can serve another vring. Returns false
    /// if an operation is still in flight afterwards.
    fn rest(&mut self) -> io::Result<bool> {
        let waits = [KICK_POLL, KICK_READ, STOP];
        let cancel = |wait| opcode::AsyncCancel::new(wait).build().user_data(CANCEL);
        // SAFETY: an entry that cancels another entry refers to no file and to no buffer.
        unsafe { self.push_all(&waits.map(cancel)) }?;
        self.cancels = waits.len();
        for _ in 0..CANCEL_WAITS {
            let timeout = Timespec::from(CANCEL_WAIT);
            let args = SubmitArgs::new().timespec(&timeout);
            transient_is_ok(self.ring.submitter().submit_with_args(1, &args))?;
            self.collect();
            if self.cancels == 0 && !self.kick_armed && !self.stop_armed {
                return Ok(self.in_flight == 0);
            }
        }
        Ok(false)
    }

    /// Moves all results out of the io_uring.
    fn collect(&mut self) {
        while let Some(entry) = { self.ring.completion().next() } {
            match u16::try_from(entry.user_data()) {
                Ok(slot) => {
                    self.in_flight -= 1;
                    self.made.push_back((slot, entry.result()));
                }
                Err(_) => self.woken(&entry),
            }
        }
    }
}

impl Drop for Uring<'_> {
    fn drop(&mut self) {
        if !matches!(self.rest(), Ok(true)) {
            tracing::warn!(
                "the io_uring of a queue is not used again: an operation in it does not end"
            );
            *self.lost = true;
        }
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

/// The entry for a read. A single buffer is passed without a list, so that the kernel need not read
/// a list.
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

/// The entry for a write. A single buffer is passed without a list, as in [`read_entry`].
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

/// Turns temporary errors into success. A wait may end early, and a busy kernel may refuse entries.
/// In both cases the caller waits and submits again.
fn transient_is_ok(result: io::Result<usize>) -> io::Result<()> {
    let transient = [libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ETIME];
    match result {
        Err(error) if !error.raw_os_error().is_some_and(|e| transient.contains(&e)) => Err(error),
        _ => Ok(()),
    }
}
