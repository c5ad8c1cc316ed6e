//! The part of an operation that is not done yet. An operation may take several system calls.

use std::io;

use libc::iovec;

use crate::operation::{Operation, Range, Step};

/// Maximum number of buffers in one system call (IOV_MAX).
const MAX_IOVECS: usize = libc::UIO_MAXIOV as usize;

/// The part of an operation that is not done yet. A slot reuses its transfer, so that a busy queue
/// does not allocate memory.
#[derive(Debug, Default)]
pub(crate) struct Transfer {
    pub operation: Operation,
    /// Whether the data bypasses the page cache.
    pub direct: bool,
    /// Whether another thread copies the data while the queue's own thread does other work.
    pub aside: bool,
    /// The buffers of the operation. The data of the buffers before index `first` is already
    /// transferred. The data of the buffer at index `first` may be partly transferred.
    iovecs: Vec<iovec>,
    /// The number of buffers that the operation began with.
    count: usize,
    /// Index of the first buffer whose data is not completely transferred.
    first: usize,
    /// Offset in the image of the first byte that is not done yet.
    offset: u64,
    /// Number of bytes that are not done yet.
    remaining: u64,
    /// The steps that follow the current step, in reverse order.
    steps: Vec<Step>,
}

/// The state of a transfer after a system call.
#[derive(Debug)]
pub(crate) enum Progress {
    /// The transfer needs another system call.
    Again,
    /// The transfer is done.
    Done,
    /// The transfer has failed.
    Failed(io::Error),
}

impl Transfer {
    /// Sets up an operation. The caller fills the returned list with buffers of `range.len` bytes
    /// in total.
    pub fn reset(&mut self, operation: Operation, range: Range) -> &mut Vec<iovec> {
        self.clear();
        self.set_step(Step { operation, range });
        &mut self.iovecs
    }

    /// Counts the buffers after the caller has filled the list that [`Transfer::reset`] returned.
    /// Returns the buffers.
    pub fn filled(&mut self) -> &[iovec] {
        self.count = self.iovecs.len();
        &self.iovecs
    }

    /// The number of buffers that the operation began with. 0 after the operation has ended.
    pub fn buffers(&self) -> usize {
        self.count
    }

    /// Sets up operations that move no data. The operations run one after the other.
    pub fn reset_steps(&mut self, steps: &[Step]) {
        self.clear();
        self.steps.extend(steps.iter().rev());
        let step = self.steps.pop().unwrap_or(Step::FLUSH);
        self.set_step(step);
    }

    /// Removes the buffers and steps of an operation that has ended.
    pub fn clear(&mut self) {
        self.direct = false;
        self.aside = false;
        self.count = 0;
        self.first = 0;
        self.steps.clear();
        virtio::chain::clear(&mut self.iovecs);
    }

    fn set_step(&mut self, step: Step) {
        self.operation = step.operation;
        self.offset = step.range.offset;
        self.remaining = step.range.len;
    }

    fn next_step(&mut self) -> Progress {
        match self.steps.pop() {
            Some(step) => {
                self.set_step(step);
                Progress::Again
            }
            None => Progress::Done,
        }
    }

    fn replace_step(&mut self) -> Option<Progress> {
        let replacement = self.operation.replacement().iter().rev();
        let range = self.rest();
        self.steps
            .extend(replacement.map(|&operation| Step { operation, range }));
        match self.operation.replacement() {
            [] => None,
            _ => Some(self.next_step()),
        }
    }

    /// The part of the range that is not done yet.
    pub fn rest(&self) -> Range {
        Range {
            offset: self.offset,
            len: self.remaining,
        }
    }

    /// Makes `buffer` the only buffer of the next system call.
    pub fn set_buffer(&mut self, buffer: iovec) {
        self.first = 0;
        self.iovecs.clear();
        self.iovecs.push(buffer);
    }

    /// Offset in the image at which the next system call begins, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The buffers of the next system call.
    pub fn iovecs(&self) -> &[iovec] {
        let rest = &self.iovecs[self.first..];
        &rest[..rest.len().min(MAX_IOVECS)]
    }

    /// Records the result of a system call: the number of transferred bytes or a negated errno.
    pub fn advance(&mut self, result: i32) -> Progress {
        if result < 0 {
            return self.failed(-result);
        }
        if !self.operation.moves_data() {
            return self.next_step();
        }
        if result == 0 {
            // A call that moves 0 bytes shows that another program has shortened the image.
            return Progress::Failed(io::ErrorKind::UnexpectedEof.into());
        }
        self.consume(result as usize);
        match self.remaining {
            0 => Progress::Done,
            _ => Progress::Again,
        }
    }

    fn failed(&mut self, errno: i32) -> Progress {
        let failure = || Progress::Failed(io::Error::from_raw_os_error(errno));
        match errno {
            libc::EINTR | libc::EAGAIN => Progress::Again,
            libc::EOPNOTSUPP => self.replace_step().unwrap_or_else(failure),
            _ => failure(),
        }
    }

    fn consume(&mut self, mut count: usize) {
        self.offset += count as u64;
        self.remaining = self.remaining.saturating_sub(count as u64);
        while let Some(buffer) = self.iovecs.get_mut(self.first) {
            if count < buffer.iov_len {
                buffer.iov_base = buffer.iov_base.wrapping_byte_add(count);
                buffer.iov_len -= count;
                return;
            }
            count -= buffer.iov_len;
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr::without_provenance_mut;

    fn transfer(lengths: &[usize]) -> Transfer {
        let mut transfer = Transfer::default();
        let len = lengths.iter().sum::<usize>() as u64;
        let iovecs = transfer.reset(Operation::Read, Range { offset: 1024, len });
        for (index, &iov_len) in lengths.iter().enumerate() {
            let iov_base = without_provenance_mut(0x1000 * (index + 1));
            iovecs.push(iovec { iov_base, iov_len });
        }
        transfer
    }

    fn buffers(transfer: &Transfer) -> Vec<(usize, usize)> {
        let pair = |v: &iovec| (v.iov_base.addr(), v.iov_len);
        transfer.iovecs().iter().map(pair).collect()
    }

    #[test]
    fn after_a_short_result_the_rest_is_left() {
        let mut transfer = transfer(&[100, 200, 212]);
        assert!(matches!(transfer.advance(150), Progress::Again));
        assert_eq!(transfer.offset(), 1174);
        assert_eq!(buffers(&transfer), [(0x2032, 150), (0x3000, 212)]);
        assert!(matches!(transfer.advance(150), Progress::Again));
        assert_eq!(buffers(&transfer), [(0x3000, 212)]);
        assert!(matches!(transfer.advance(212), Progress::Done));
    }

    #[test]
    fn an_interrupted_call_is_repeated_and_an_error_ends_the_transfer() {
        let mut transfer = transfer(&[512]);
        assert!(matches!(transfer.advance(-libc::EINTR), Progress::Again));
        assert!(matches!(transfer.advance(-libc::EAGAIN), Progress::Again));
        assert_eq!(buffers(&transfer), [(0x1000, 512)]);
        assert!(matches!(transfer.advance(-libc::EIO), Progress::Failed(_)));
    }

    #[test]
    fn reaching_the_end_of_the_image_is_an_error() {
        let mut transfer = transfer(&[512]);
        assert!(matches!(transfer.advance(0), Progress::Failed(_)));
    }

    #[test]
    fn a_flush_is_done_without_moving_bytes() {
        let mut transfer = Transfer::default();
        assert!(matches!(transfer.advance(0), Progress::Done));
    }

    fn steps(operations: &[Operation]) -> Transfer {
        let range = Range { offset: 0, len: 9 };
        let steps: Vec<_> = operations
            .iter()
            .map(|&operation| Step { operation, range })
            .collect();
        let mut transfer = Transfer::default();
        transfer.reset_steps(&steps);
        transfer
    }

    #[test]
    fn steps_are_done_in_order() {
        let mut transfer = steps(&[Operation::Unmap, Operation::Discard]);
        assert_eq!(transfer.operation, Operation::Unmap);
        assert!(matches!(transfer.advance(-libc::EINTR), Progress::Again));
        assert!(matches!(transfer.advance(0), Progress::Again));
        assert_eq!(transfer.operation, Operation::Discard);
        assert!(matches!(transfer.advance(0), Progress::Done));
        // A new operation removes the steps that the previous operation has not carried out.
        let mut transfer = steps(&[Operation::Unmap, Operation::Discard]);
        transfer.reset(Operation::Flush, Step::FLUSH.range);
        assert!(matches!(transfer.advance(0), Progress::Done));
    }

    #[test]
    fn steps_use_the_page_cache_even_after_direct_io_in_the_same_slot() {
        let mut transfer = transfer(&[512]);
        transfer.direct = true;
        transfer.reset_steps(&[Step::FLUSH]);
        assert!(!transfer.direct);
        assert_eq!((transfer.buffers(), transfer.iovecs().len()), (0, 0));
    }

    #[test]
    fn zeroing_falls_back_on_the_operations_that_the_storage_knows() {
        let mut transfer = steps(&[Operation::Unmap, Operation::Flush]);
        let mut expect = |result, operation| {
            assert!(matches!(transfer.advance(result), Progress::Again));
            assert_eq!(transfer.operation, operation);
            if operation != Operation::Flush {
                assert_eq!(transfer.rest(), Range { offset: 0, len: 9 });
            }
        };
        expect(-libc::EOPNOTSUPP, Operation::Zero);
        expect(-libc::EOPNOTSUPP, Operation::Punch);
        expect(0, Operation::Allocate);
        expect(0, Operation::Flush);
        for operation in [Operation::Punch, Operation::Allocate, Operation::Discard] {
            let mut transfer = steps(&[operation, Operation::Flush]);
            let failed = transfer.advance(-libc::EOPNOTSUPP);
            assert!(matches!(failed, Progress::Failed(_)), "{operation:?}");
        }
        let failed = steps(&[Operation::Zero]).advance(-libc::ENOSPC);
        assert!(matches!(failed, Progress::Failed(_)));
    }

    #[test]
    fn a_system_call_takes_at_most_iov_max_buffers() {
        let mut transfer = transfer(&[1; MAX_IOVECS + 3]);
        assert_eq!(transfer.iovecs().len(), MAX_IOVECS);
        assert!(matches!(
            transfer.advance(MAX_IOVECS as i32),
            Progress::Again
        ));
        assert_eq!(transfer.iovecs().len(), 3);
        assert!(matches!(transfer.advance(3), Progress::Done));
    }
}
