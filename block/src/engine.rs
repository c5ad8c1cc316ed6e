//! Carries out operations on an image. The data is in the memory of one driver.
//!
//! This module passes addresses to the kernel, so it has unsafe code. To keep the addresses valid,
//! an engine owns the memory, the image and the buffer lists until all operations are completed.
//! When an engine is dropped, it first waits for all operations. If waiting fails, it leaks the
//! objects that the operations use.

#![allow(unsafe_code)]

use std::io;
use std::sync::Arc;

use virtio::{BufferError, GuestMemory, Segments, Sleep};

use crate::Image;
use crate::image::Target;
use crate::operation::{Operation, Range, Step};

mod at_once;
mod direct;
mod executor;
mod job;
mod pool;
mod ranges;
mod rings;
mod slot;
mod transfer;
mod uring;
mod wakers;

use at_once::AtOnce;
use direct::{Buffers, Way, is_aligned};
use executor::Executor;
pub(crate) use rings::{Ring, RingSlot};
use slot::Slot;
use transfer::Progress;
pub(crate) use wakers::Wakers;

/// The way in which an engine makes system calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// The queue's own thread makes calls that do not wait, and io_uring makes the other calls.
    /// Threads replace io_uring if the kernel refuses io_uring or the image is not raw.
    #[default]
    Auto,
    /// Like [`EngineKind::Auto`], but the queue's own thread makes no calls.
    Uring,
    /// A few threads for each queue make all calls.
    Threads,
    /// The queue's own thread makes all calls, one at a time.
    #[cfg(any(test, feature = "fuzzing"))]
    OnTheSpot,
}

/// An I/O engine with a fixed number of slots, each of which holds one operation.
pub(crate) struct Engine<'a> {
    executor: Executor<'a>,
    at_once: AtOnce,
    slots: Box<[Slot]>,
    in_flight: usize,
    image: Arc<Image>,
    memory: Arc<GuestMemory>,
    /// Private buffers for data. Transfers of images that are not raw need these buffers, and so
    /// does direct I/O that cannot use the driver's memory. If the allocation of the buffers
    /// failed, transfers of images that are not raw fail, and the direct I/O goes through the page
    /// cache instead.
    buffers: Option<Buffers>,
}

/// The driver's buffers for the data of a transfer. The data begins at offset `skip` in these
/// buffers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Data<'a> {
    buffers: &'a Segments,
    skip: u64,
}

impl<'a> Data<'a> {
    pub fn new(buffers: &'a Segments, skip: u64) -> Self {
        Self { buffers, skip }
    }
}

/// The state of an operation after its start.
#[derive(Debug)]
pub(crate) enum Started {
    /// The operation is in flight. [`Engine::next_completion`] will return its result.
    InFlight,
    /// The operation is completed, with this result.
    Completed(io::Result<()>),
}

/// The reason for which an engine refuses an operation.
#[derive(Debug)]
pub(crate) enum EngineError {
    /// A buffer cannot be accessed.
    Buffer(BufferError),
    /// The operating system refuses the operation, or the operation's slot is busy.
    Io(io::Error),
}

impl EngineKind {
    /// Whether the queues of a device that serves `image` need an io_uring.
    pub(crate) fn uses_rings(self, image: &Image) -> bool {
        matches!(self.fit_for(image), Self::Auto | Self::Uring)
    }

    /// The kind of engine that fits the image. An image that is not raw needs threads, because the
    /// kernel cannot read its format.
    fn fit_for(self, image: &Image) -> Self {
        match self {
            Self::Auto | Self::Uring if image.is_formatted() => Self::Threads,
            kind => kind,
        }
    }
}

impl<'a> Engine<'a> {
    /// An engine with `slots` slots for the calling thread. The engine uses `ring` if `kind` needs
    /// an io_uring.
    pub fn new(
        kind: EngineKind,
        image: Arc<Image>,
        memory: Arc<GuestMemory>,
        slots: u16,
        wakers: Wakers,
        ring: &'a mut Ring,
    ) -> Self {
        let kind = kind.fit_for(&image);
        let at_once = match kind {
            EngineKind::Auto => AtOnce::new(image.in_memory()),
            _ => AtOnce::NEVER,
        };
        Self {
            executor: Executor::new(kind, slots, wakers, ring),
            at_once,
            slots: (0..slots).map(|_| Slot::default()).collect(),
            in_flight: 0,
            buffers: if image.direct().is_some() || image.is_formatted() {
                Buffers::new(slots).ok()
            } else {
                None
            },
            image,
            memory,
        }
    }

    /// The number of buffers of the operation in this slot. 0 if the slot is free.
    pub fn buffers(&self, slot: u16) -> usize {
        self.slots[usize::from(slot)].transfer.buffers()
    }

    /// Number of operations whose completion [`Engine::next_completion`] has not returned yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether a read of `len` bytes should run on another thread if more requests wait in the
    /// vring.
    pub fn is_better_aside(&self, len: u64) -> bool {
        self.at_once.is_better_aside(len)
    }

    /// Starts to read `range` of the image into `data`, or to write `data` to `range`. If `aside`
    /// is true, another thread copies the data even if this thread could copy it at once.
    pub fn transfer(
        &mut self,
        slot: u16,
        operation: Operation,
        range: Range,
        data: Data<'_>,
        aside: bool,
    ) -> Result<Started, EngineError> {
        let transfer = self.slots[usize::from(slot)].idle()?;
        let iovecs = transfer.reset(operation, range);
        data.buffers
            .iovecs(&self.memory, data.skip, range.len, iovecs)
            .map_err(EngineError::Buffer)?;
        let iovecs = transfer.filled();
        if self.image.is_formatted() {
            self.require_bounce(slot, data)?;
        } else if let Some(direct) = self.image.direct() {
            let pinnable = self.memory.direct_io();
            let way = Way::of(direct.alignment, pinnable, range, iovecs);
            self.take_way(slot, way, data);
        } else if aside {
            transfer.aside = true;
            self.start(slot)?;
            // The read is submitted now, so that it runs while this thread serves the next
            // requests. If the submission fails, the engine submits the read again when it waits.
            let _ = self.submit();
            return Ok(Started::InFlight);
        } else if let Some(result) = self.do_at_once(slot) {
            self.slots[usize::from(slot)].clear();
            return Ok(Started::Completed(result));
        }
        self.start(slot)?;
        Ok(Started::InFlight)
    }

    /// Moves the data through the slot's private buffer. The qcow2 library needs a private buffer,
    /// because the driver may change its own buffers at any time.
    fn require_bounce(&mut self, slot: u16, data: Data<'_>) -> Result<(), EngineError> {
        if self.buffers.is_none() {
            return Err(EngineError::Io(io::ErrorKind::OutOfMemory.into()));
        }
        self.take_way(slot, Way::Bounced, data);
        Ok(())
    }

    fn take_way(&mut self, slot: u16, way: Way, data: Data<'_>) {
        let Slot {
            transfer, bounce, ..
        } = &mut self.slots[usize::from(slot)];
        let bounced = way == Way::Bounced && self.buffers.is_some();
        if bounced {
            bounce.start(data.buffers, data.skip);
        }
        transfer.direct = way == Way::Direct || bounced;
    }

    /// Starts a flush. When the flush completes, all data whose writes had completed before the
    /// start is on stable storage.
    pub fn flush(&mut self, slot: u16) -> Result<(), EngineError> {
        let nothing = Range { offset: 0, len: 0 };
        self.slots[usize::from(slot)]
            .idle()?
            .reset(Operation::Flush, nothing);
        self.start(slot)
    }

    /// Starts operations that move no data. The operations run one after the other.
    pub fn steps(&mut self, slot: u16, steps: &[Step]) -> Result<(), EngineError> {
        self.slots[usize::from(slot)].idle()?.reset_steps(steps);
        self.start(slot)
    }

    /// Hands started operations to the kernel and lets the kernel report results. Does not wait.
    pub fn submit(&mut self) -> io::Result<()> {
        self.executor.submit()
    }

    /// Whether results are ready. This check makes no system call, so it may miss results.
    pub fn has_results(&mut self) -> bool {
        self.executor.has_results()
    }

    /// Sleeps until there is a result, the stop eventfd is written, or one of the events of `sleep`
    /// comes.
    pub fn wait(&mut self, sleep: Sleep) -> io::Result<()> {
        self.executor.wait(sleep)
    }

    /// The slot and result of the next operation that is completed.
    pub fn next_completion(&mut self) -> Option<(u16, io::Result<()>)> {
        loop {
            let (slot, result) = self.executor.next_result()?;
            let result = self.unload_bounce(slot, result);
            match self.slots[usize::from(slot)].transfer.advance(result) {
                Progress::Again => match self.push_call(slot) {
                    Ok(()) => continue,
                    Err(error) => return Some((slot, self.complete(slot, Err(error)))),
                },
                Progress::Done => return Some((slot, self.complete(slot, Ok(())))),
                Progress::Failed(error) => {
                    let transfer = &self.slots[usize::from(slot)].transfer;
                    self.image.failed(transfer.operation, transfer.direct);
                    return Some((slot, self.complete(slot, Err(error))));
                }
            }
        }
    }

    /// Carries out as much of a transfer as is possible without waiting. Returns `None` if part of
    /// the transfer is left.
    fn do_at_once(&mut self, slot: u16) -> Option<io::Result<()>> {
        let transfer = &mut self.slots[usize::from(slot)].transfer;
        let Target::File(file) = self.image.target(transfer.operation, false) else {
            return None;
        };
        loop {
            // SAFETY: all buffers of the transfer are in `self.memory`, where `iovecs()` found
            // them. The memory stays mapped as long as `self` owns it.
            let result = unsafe { self.at_once.try_call(file, transfer) }?;
            match transfer.advance(result) {
                Progress::Again => {}
                Progress::Done => return Some(Ok(())),
                Progress::Failed(error) => return Some(Err(error)),
            }
        }
    }

    fn start(&mut self, slot: u16) -> Result<(), EngineError> {
        self.push_call(slot).map_err(EngineError::Io)?;
        self.slots[usize::from(slot)].busy = true;
        self.in_flight += 1;
        Ok(())
    }

    fn complete(&mut self, slot: u16, result: io::Result<()>) -> io::Result<()> {
        self.slots[usize::from(slot)].clear();
        self.in_flight -= 1;
        result
    }

    /// After a read into the slot's private buffer, copies the data to the driver's memory. Does
    /// nothing if the transfer does not use the private buffer.
    fn unload_bounce(&mut self, slot: u16, result: i32) -> i32 {
        let Slot {
            transfer, bounce, ..
        } = &mut self.slots[usize::from(slot)];
        match &mut self.buffers {
            Some(buffers) => bounce.unload(buffers, slot, &self.memory, transfer.operation, result),
            None => result,
        }
    }

    /// Prepares the next call of a transfer that uses direct I/O or the slot's private buffer.
    fn prepare(&mut self, slot: u16) -> io::Result<()> {
        let Slot {
            transfer, bounce, ..
        } = &mut self.slots[usize::from(slot)];
        if transfer.direct
            && let Some(direct) = self.image.direct()
        {
            // A call may move less data than requested. The remaining range may then be unaligned.
            transfer.direct = is_aligned(direct.alignment, transfer.rest());
        }
        match &mut self.buffers {
            Some(buffers) => bounce.load(buffers, slot, &self.memory, transfer),
            None => Ok(()),
        }
    }

    fn push_call(&mut self, slot: u16) -> io::Result<()> {
        self.prepare(slot)?;
        let transfer = &self.slots[usize::from(slot)].transfer;
        let target = self.image.target(transfer.operation, transfer.direct);
        // SAFETY: the data is in `self.memory` or `self.buffers`, and the target is part of
        // `self.image`. These objects live as long as `self`. The transfer does not move, because
        // the slots are in a box that is never resized. `Slot::idle` lends the transfer for changes
        // only when the slot is not busy, and `Slot::clear` comes after the operation's end. `drop`
        // waits for all operations, or leaks the objects that they use.
        unsafe { self.executor.push(slot, target, transfer) }
    }

    /// Waits until no operation is in flight. Returns false if waiting fails.
    fn settle(&mut self) -> bool {
        while self.in_flight > 0 {
            while self.next_completion().is_some() {}
            if self.in_flight > 0 && self.wait(Sleep::without_kicks(None)).is_err() {
                return false;
            }
        }
        true
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        if !self.settle() {
            // The kernel may still access these objects, so they are never freed.
            std::mem::forget(self.memory.clone());
            std::mem::forget(std::mem::take(&mut self.slots));
            std::mem::forget(self.buffers.take());
        }
    }
}

#[cfg(test)]
mod tests;
