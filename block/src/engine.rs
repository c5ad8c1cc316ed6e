//! Carries transfers out between one image and one driver's memory.
//!
//! The only module with unsafe code: it hands addresses to the kernel. It keeps them valid by owning
//! the memory, the image and the buffer lists until each operation has ended, also when it is dropped.

#![allow(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use virtio::{GuestMemory, Segments};

use crate::Image;
use crate::image::Target;
use crate::request::Range;
use crate::transfer::{Operation, Progress, Step};

mod at_once;
mod backend;
mod calls;
mod direct;
mod pool;
mod ranges;
mod rings;
mod slot;
mod uring;
mod wakers;

use at_once::AtOnce;
use backend::Backend;
use direct::{Bounce, Buffers, Way, is_aligned};
pub(crate) use rings::{Ring, RingSlot};
use slot::Slot;
pub(crate) use wakers::Wakers;

/// How system calls are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// At once where nothing has to be waited for, else through io_uring; or by threads, where the
    /// kernel refuses that or the image has a format.
    #[default]
    Auto,
    /// The same, but never at once.
    Uring,
    /// By a few threads for each queue.
    Threads,
    /// By the queue's own thread, one at a time.
    #[cfg(any(test, feature = "fuzzing"))]
    OnTheSpot,
}

/// An I/O engine with a fixed number of slots, each of which holds one operation.
pub(crate) struct Engine<'a> {
    backend: Backend<'a>,
    at_once: AtOnce,
    slots: Box<[Slot]>,
    in_flight: usize,
    image: Arc<Image>,
    memory: Arc<GuestMemory>,
    /// For images with a format, which need it, and for direct I/O with memory that is not fit for it,
    /// in place of which the page cache is used where there is none.
    buffers: Option<Buffers>,
}

/// What a transfer moves: the bytes of `buffers` from `skip` on.
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

/// How far an operation got when it was begun.
#[derive(Debug)]
pub(crate) enum Begun {
    /// [`Engine::next_ended`] will tell.
    InFlight,
    /// It has ended, and this is how.
    Ended(io::Result<()>),
}

/// Why an operation could not be begun.
#[derive(Debug)]
pub(crate) enum BeginError {
    /// A buffer is outside of memory.
    OutsideMemory,
    /// The engine cannot take it.
    Engine(io::Error),
}

impl EngineKind {
    /// Whether queues of a device that serves `image` are to have rings.
    pub(crate) fn uses_rings(self, image: &Image) -> bool {
        matches!(self.fit_for(image), Self::Auto | Self::Uring)
    }

    /// This kind, or threads for an image with a format, which no ring can read and write.
    fn fit_for(self, image: &Image) -> Self {
        match self {
            Self::Auto | Self::Uring if image.is_formatted() => Self::Threads,
            kind => kind,
        }
    }
}

impl<'a> Engine<'a> {
    /// An engine with `slots` slots and perhaps the ring in `ring`. Belongs to the calling thread.
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
            backend: Backend::new(kind, slots, wakers, ring),
            at_once,
            slots: (0..slots).map(|_| Slot::default()).collect(),
            in_flight: 0,
            buffers: match image.direct().is_some() || image.is_formatted() {
                true => Buffers::new(slots).ok(),
                false => None,
            },
            image,
            memory,
        }
    }

    /// Number of operations that have not ended.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether a read of so many bytes had better be made aside if others wait behind it.
    pub fn is_better_aside(&self, len: u64) -> bool {
        self.at_once.is_better_aside(len)
    }

    /// Begins to move `range` of the image from or to `data`; `aside`: what could be done at once is
    /// left to another thread.
    pub fn transfer(
        &mut self,
        slot: u16,
        operation: Operation,
        range: Range,
        data: Data<'_>,
        aside: bool,
    ) -> Result<Begun, BeginError> {
        let transfer = self.slots[usize::from(slot)].idle()?;
        let iovecs = transfer.reset(operation, range);
        data.buffers
            .iovecs(&self.memory, data.skip, range.len, iovecs)
            .map_err(|_| BeginError::OutsideMemory)?;
        if self.image.is_formatted() {
            self.bounce(slot, data)?;
        } else if let Some(direct) = self.image.direct() {
            let pinnable = self.memory.direct_io();
            let way = Way::of(direct.alignment, pinnable, range, iovecs);
            self.take_way(slot, way, data);
        } else if aside {
            transfer.aside = true;
            self.begin(slot)?;
            // It is to run while those others are worked on here. What fails, fails again when waiting.
            let _ = self.submit();
            return Ok(Begun::InFlight);
        } else if let Some(result) = self.do_at_once(slot) {
            return Ok(Begun::Ended(result));
        }
        self.begin(slot)?;
        Ok(Begun::InFlight)
    }

    /// Who knows the format does not share memory with others.
    fn bounce(&mut self, slot: u16, data: Data<'_>) -> Result<(), BeginError> {
        if self.buffers.is_none() {
            return Err(BeginError::Engine(io::ErrorKind::OutOfMemory.into()));
        }
        self.take_way(slot, Way::Bounced, data);
        Ok(())
    }

    fn take_way(&mut self, slot: u16, way: Way, data: Data<'_>) {
        let Slot {
            transfer, bounce, ..
        } = &mut self.slots[usize::from(slot)];
        if way == Way::Bounced && self.buffers.is_some() {
            *bounce = Some(Bounce::new(data.buffers, data.skip));
        }
        transfer.direct = way == Way::Direct || bounce.is_some();
    }

    /// Begins to make all that was written before stable.
    pub fn flush(&mut self, slot: u16) -> Result<(), BeginError> {
        let nothing = Range { offset: 0, len: 0 };
        self.slots[usize::from(slot)]
            .idle()?
            .reset(Operation::Flush, nothing);
        self.begin(slot)
    }

    /// Begins operations without buffers, which are done one after the other.
    pub fn steps(&mut self, slot: u16, steps: &[Step]) -> Result<(), BeginError> {
        self.slots[usize::from(slot)].idle()?.reset_steps(steps);
        self.begin(slot)
    }

    /// Hands what was begun to the kernel, and lets it say what has ended, without waiting.
    pub fn submit(&mut self) -> io::Result<()> {
        self.backend.submit()
    }

    /// Whether something has ended, as far as that can be seen without a system call.
    pub fn has_ended(&mut self) -> bool {
        self.backend.has_ended()
    }

    /// Sleeps until an operation ends, the driver kicks, the stop eventfd is written, or the time is
    /// over.
    pub fn wait(&mut self, time: Option<Duration>) -> io::Result<()> {
        self.backend.wait(time)
    }

    /// The next operation that ended: its slot and how.
    pub fn next_ended(&mut self) -> Option<(u16, io::Result<()>)> {
        loop {
            let (slot, result) = self.backend.next_result()?;
            let result = self.bounced(slot, result);
            match self.slots[usize::from(slot)].transfer.advance(result) {
                Progress::Again => match self.call(slot) {
                    Ok(()) => continue,
                    Err(error) => return Some((slot, self.ended(slot, Err(error)))),
                },
                Progress::Done => return Some((slot, self.ended(slot, Ok(())))),
                Progress::Failed(error) => {
                    if self.slots[usize::from(slot)].transfer.operation == Operation::Flush {
                        self.image.flush_failed();
                    }
                    return Some((slot, self.ended(slot, Err(error))));
                }
            }
        }
    }

    /// Does as much of a transfer as possible without waiting; `None` when that is not all of it.
    fn do_at_once(&mut self, slot: u16) -> Option<io::Result<()>> {
        let Target::File(file) = self.image.target(false) else {
            return None;
        };
        let transfer = &mut self.slots[usize::from(slot)].transfer;
        loop {
            // SAFETY: the buffers lie in `memory`, which outlives the call.
            let result = unsafe { self.at_once.call(file, transfer) }?;
            match transfer.advance(result) {
                Progress::Again => {}
                Progress::Done => return Some(Ok(())),
                Progress::Failed(error) => return Some(Err(error)),
            }
        }
    }

    fn begin(&mut self, slot: u16) -> Result<(), BeginError> {
        self.call(slot).map_err(BeginError::Engine)?;
        self.slots[usize::from(slot)].busy = true;
        self.in_flight += 1;
        Ok(())
    }

    fn ended(&mut self, slot: u16, result: io::Result<()>) -> io::Result<()> {
        self.slots[usize::from(slot)].busy = false;
        self.in_flight -= 1;
        result
    }

    /// Takes note of the result of a transfer that goes through a buffer.
    fn bounced(&mut self, slot: u16, result: i32) -> i32 {
        let Slot {
            transfer, bounce, ..
        } = &mut self.slots[usize::from(slot)];
        let (Some(bounce), Some(buffers)) = (bounce, &mut self.buffers) else {
            return result;
        };
        bounce.end(buffers, slot, &self.memory, transfer.operation, result)
    }

    /// Prepares the next system call of a transfer where direct I/O takes more than that.
    fn prepare(&mut self, slot: u16) -> io::Result<()> {
        let Slot {
            transfer, bounce, ..
        } = &mut self.slots[usize::from(slot)];
        if let (true, Some(direct)) = (transfer.direct, self.image.direct()) {
            // A system call that did less than asked for may leave a rest that is not aligned.
            transfer.direct = is_aligned(direct.alignment, transfer.rest());
        }
        match (bounce, &mut self.buffers) {
            (Some(bounce), Some(buffers)) => bounce.begin(buffers, slot, &self.memory, transfer),
            _ => Ok(()),
        }
    }

    fn call(&mut self, slot: u16) -> io::Result<()> {
        self.prepare(slot)?;
        let transfer = &self.slots[usize::from(slot)].transfer;
        let target = self.image.target(transfer.direct);
        // SAFETY: `image`, `memory` and `buffers`, which the data lies in, live as long as `self`; the
        // transfer stays where it is and unchanged while its slot is busy; and `drop` ends all
        // operations or leaks what they use.
        unsafe { self.backend.call(slot, target, transfer) }
    }

    /// Waits for what is in flight; false when that is not possible.
    fn settle(&mut self) -> bool {
        while self.in_flight > 0 {
            while self.next_ended().is_some() {}
            if self.in_flight > 0 && self.wait(None).is_err() {
                return false;
            }
        }
        true
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        if !self.settle() {
            // The kernel may still write to this memory, so it must stay what it is.
            std::mem::forget(self.memory.clone());
            std::mem::forget(std::mem::take(&mut self.slots));
            std::mem::forget(self.buffers.take());
        }
    }
}

#[cfg(test)]
mod tests;
