//! One queue: when it runs, and what it is connected to.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use vfio_user::IoEventFd;
use virtio::pci::isr;
use virtio::vring::first_position;
use virtio::{GuestMemory, Notifier, RunningVring, StartError, Vring, VringLayout};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::function::Function;
use crate::intx::Intx;
use crate::msix::Line;
use crate::signal::{self, Signal};
use crate::virtio_pci::{Layout, Registers};

/// A queue of the device.
pub(super) struct Queue {
    index: u16,
    /// Where it was left since the last reset.
    next_avail: Option<u16>,
    kick: Arc<EventFd>,
    /// The kick once more, for clients.
    doorbell: Arc<OwnedFd>,
    /// Tells the event loop that a queue has broken.
    broken: Arc<Signal>,
    run: Option<Run>,
}

/// A queue that is being served.
struct Run {
    vring: Box<dyn RunningVring>,
    layout: VringLayout,
    memory: Arc<GuestMemory>,
    breakage: Arc<Breakage>,
}

impl Queue {
    pub(super) fn new(index: u16, broken: Arc<Signal>) -> io::Result<Self> {
        let kick = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        Ok(Self {
            index,
            next_avail: None,
            doorbell: Arc::new(signal::duplicate(&kick)?),
            kick: Arc::new(kick),
            broken,
            run: None,
        })
    }

    /// Starts to serve the queue where it was left, if the driver uses it and there is memory.
    pub(super) fn start(
        &mut self,
        device: &dyn virtio::Device,
        registers: &Registers,
        function: &mut Function,
    ) -> Result<(), StartError> {
        let layout = registers.queue(self.index);
        let (Some(layout), Some(memory)) = (layout, function.dma.memory_for_queue()) else {
            return Ok(());
        };
        let breakage = Arc::new(Breakage {
            happened: AtomicBool::new(false),
            wake: self.broken.clone(),
        });
        let interrupt = Interrupt {
            status: registers.isr().clone(),
            intx: function.intx.clone(),
            line: function
                .msix
                .line(registers.queue_vector(self.index))
                .cloned(),
        };
        let vring = device.start(Vring {
            index: self.index,
            features: registers.features(),
            layout,
            next_avail: self.next_avail.unwrap_or(first_position(layout.packed)),
            memory: memory.clone(),
            kick: Some(self.kick.clone()),
            call: Some(Arc::new(interrupt)),
            error: Some(breakage.clone()),
        })?;
        self.run = Some(Run {
            vring,
            layout,
            memory,
            breakage,
        });
        Ok(())
    }

    /// Ends what is in flight; the memory is not touched afterwards.
    pub(super) fn stop(&mut self) {
        if let Some(run) = self.run.take() {
            self.next_avail = Some(run.vring.stop());
        }
    }

    /// Forgets where the queue, which does not run, was left.
    pub(super) fn reset(&mut self) {
        self.next_avail = None;
    }

    pub(super) fn kick(&self) {
        // It cannot fail but for a kick that is pending already.
        let _ = signal::raise(self.doorbell.as_fd());
    }

    pub(super) fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// Whether the queue stopped by itself.
    pub(super) fn is_broken(&self) -> bool {
        let run = self.run.as_ref();
        run.is_some_and(|run| run.breakage.happened.load(Ordering::SeqCst))
    }

    /// Whether its rings, or buffers in flight, are among these addresses.
    pub(super) fn uses(&self, first: u64, last: u64) -> bool {
        self.run.as_ref().is_some_and(|run| {
            run.layout.overlaps(first, last) || run.memory.is_in_use(first, last)
        })
    }

    /// The eventfd that stands for a notification.
    pub(super) fn io_event_fd(&self) -> IoEventFd {
        let (offset, size) = Layout::notification(self.index);
        IoEventFd {
            offset,
            size,
            fd: self.doorbell.clone(),
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
}

impl Notifier for Interrupt {
    fn notify(&self) -> io::Result<()> {
        // Read by drivers that do without MSI-X.
        self.status.fetch_or(isr::QUEUE, Ordering::SeqCst);
        if let Some(line) = &self.line {
            line.trigger();
        }
        if let Some(intx) = &self.intx {
            intx.update();
        }
        Ok(())
    }
}

/// Tells the event loop that a queue stopped by itself.
#[derive(Debug)]
struct Breakage {
    happened: AtomicBool,
    wake: Arc<Signal>,
}

impl Notifier for Breakage {
    fn notify(&self) -> io::Result<()> {
        self.happened.store(true, Ordering::SeqCst);
        self.wake.signal()
    }
}
