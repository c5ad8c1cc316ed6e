//! One queue of a function.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use ipc::SharedEventFd;
use vfio_user::IoEventFd;
use virtio::pci::isr;
use virtio::vring::first_position;
use virtio::{GuestMemory, Notifier, Runner, StartError, Vring, VringLayout};

use crate::blocked::Blocked;
use crate::function::Function;
use crate::intx::Intx;
use crate::msix::Line;
use crate::virtio_pci::{Layout, Registers};

/// One queue of the device.
pub(super) struct Queue {
    index: u16,
    /// The position of the next request in the ring. `None` means that the queue has not run since
    /// the last reset.
    next_avail: Option<u16>,
    /// The eventfd for kicks of the queue. Clients can also signal this eventfd and change its
    /// flags.
    kick: Arc<SharedEventFd>,
    /// The rings and the memory that the queue uses. `None` means that the queue does not run.
    run: Option<Run>,
}

struct Run {
    layout: VringLayout,
    memory: Arc<GuestMemory>,
}

impl Queue {
    pub(super) fn new(index: u16) -> io::Result<Self> {
        Ok(Self {
            index,
            next_avail: None,
            kick: Arc::new(SharedEventFd::new()?),
            run: None,
        })
    }

    /// Starts to serve the queue at the position where it was stopped, if the driver uses the queue
    /// and the client shares memory. `news` wakes the event loop.
    pub(super) fn start(
        &mut self,
        runner: &mut Runner,
        registers: &Registers,
        function: &mut Function,
        news: Arc<dyn Notifier>,
    ) -> Result<(), StartError> {
        let layout = registers.queue(self.index);
        let (Some(layout), Some(memory)) = (layout, function.dma.memory_for_queue()) else {
            return Ok(());
        };
        let interrupt = Interrupt {
            status: registers.isr().clone(),
            intx: function.intx.clone(),
            blocked: function.blocked.clone(),
            news: news.clone(),
            line: function
                .msix
                .line(registers.queue_vector(self.index))
                .cloned(),
        };
        runner.start(Vring {
            index: self.index,
            features: registers.features(),
            layout,
            next_avail: self.next_avail.unwrap_or(first_position(layout.packed)),
            memory: memory.clone(),
            kick: Some(self.kick.clone()),
            call: Some(Arc::new(interrupt)),
            error: Some(news),
        })?;
        self.run = Some(Run { layout, memory });
        Ok(())
    }

    /// Records that the queue was stopped. If the queue was running, `next_avail` is the position
    /// at which it was stopped.
    pub(super) fn stopped(&mut self, next_avail: Option<u16>) {
        if self.run.take().is_some() {
            self.next_avail = next_avail;
        }
    }

    /// Clears the position of a queue that does not run.
    pub(super) fn reset(&mut self) {
        self.next_avail = None;
    }

    /// Kicks the queue. The client has the eventfd, too, and can make this call block.
    pub(super) fn kick(&self, blocked: &Blocked) {
        blocked.signal(&self.kick);
    }

    /// Replaces the eventfd for kicks of a queue that does not run.
    pub(super) fn replace_kick(&mut self) -> io::Result<()> {
        self.kick = Arc::new(SharedEventFd::new()?);
        Ok(())
    }

    pub(super) fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// Whether the queue's rings or its buffers in flight overlap the addresses `first..=last`.
    pub(super) fn uses(&self, first: u64, last: u64) -> bool {
        self.run.as_ref().is_some_and(|run| {
            run.layout.overlaps(first, last) || run.memory.is_in_use(first, last)
        })
    }

    /// The eventfd that a client can signal instead of writing to the notification register.
    pub(super) fn io_event_fd(&self) -> IoEventFd {
        let (offset, size) = Layout::notification(self.index);
        IoEventFd {
            offset,
            size,
            eventfd: self.kick.clone(),
            datamatch: None,
        }
    }
}

/// Raises the interrupt of a queue.
#[derive(Debug)]
struct Interrupt {
    status: Arc<AtomicU8>,
    line: Option<Line>,
    intx: Option<Intx>,
    blocked: Blocked,
    news: Arc<dyn Notifier>,
}

impl Notifier for Interrupt {
    fn notify(&self) -> io::Result<()> {
        // Drivers that use INTx read the interrupt status. For other drivers the change of the
        // status has no effect.
        self.status.fetch_or(isr::QUEUE, Ordering::SeqCst);
        if let Some(line) = &self.line {
            line.trigger();
        }
        if let Some(intx) = &self.intx {
            intx.update();
        }
        if self.blocked.is_set() {
            // This wakes the event loop, which then drops the client.
            self.news.notify()?;
        }
        Ok(())
    }
}
