//! Any virtio device as a PCI function of its own (virtio 1.2, section 4.1).
//!
//! The device runs its queues on threads of its own, which raise interrupts by themselves. This
//! side only starts and stops them, as the driver, or a change of the client's memory, demands.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::event::EventfdFlags;
use tracing::{debug, info, warn};
use vfio_user::IoEventFd;
use virtio::pci::{MODERN_ID_BASE, VENDOR_ID};
use virtio::{GuestMemory, VringLayout};
use virtio_bindings::virtio_config::VIRTIO_F_ACCESS_PLATFORM;

use crate::config_space::{ConfigSpace, Identity};
use crate::dma::DmaTable;
use crate::function::{Device, Function, trapped_bar};
use crate::intx::Intx;
use crate::msix::Msix;
use crate::signal::Signal;
use crate::virtio_pci::{Event, Layout, Registers, Structures};

mod queue;

use queue::Queue;

/// The revision of functions that drivers of legacy devices leave alone.
const REVISION: u8 = 1;

/// The length of device-specific configuration that is offered. A device has less; the rest is 0.
const CONFIG_SIZE: u32 = 0x1000;

/// What kind of device a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The virtio device id (virtio 1.2, section 5), 1 to 63.
    pub device: u16,
    /// The PCI class, subclass and programming interface, in the three low bytes.
    pub class: u32,
}

/// A virtio device as a PCI function, for [`crate::serve`].
pub struct VirtioFunction {
    device: Arc<dyn virtio::Device>,
    function: Function,
    structures: Structures,
    queues: Vec<Queue>,
    /// Signalled when a queue that runs has broken.
    broken: Arc<Signal>,
    /// What the queues were started in.
    memory: Option<Arc<GuestMemory>>,
}

impl VirtioFunction {
    /// A function of this kind for `device`, with an interrupt for each queue and one more.
    ///
    /// # Errors
    ///
    /// When the operating system is out of file descriptors.
    pub fn new(kind: Kind, device: Arc<dyn virtio::Device>) -> io::Result<Self> {
        let queues = device.queue_count();
        let vectors = queues + 1;
        let layout = Layout::new(queues, vectors);
        let features = device.features() | 1 << VIRTIO_F_ACCESS_PLATFORM;
        let registers = Registers::new(features, queues, device.max_queue_size(), vectors);
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let broken = Arc::new(Signal::new(rustix::event::eventfd(0, flags)?)?);
        let new_queue = |index| Queue::new(index, broken.clone());
        Ok(Self {
            function: function(kind, &layout, vectors, Intx::new(registers.isr().clone())),
            queues: (0..queues).map(new_queue).collect::<io::Result<_>>()?,
            structures: Structures { layout, registers },
            device,
            broken,
            memory: None,
        })
    }

    /// Starts the queues that do not run but should. Those whose rings are not in memory are left
    /// for later: a client may take memory away for a moment, when it changes what is next to it.
    fn start(&mut self) {
        self.memory = self.function.dma.memory();
        let Some(memory) = &self.memory else {
            return;
        };
        let memory = memory.clone();
        for index in 0..self.queues.len() {
            let layout = self.waiting(index);
            if layout.is_some_and(|layout| layout.is_in(&memory)) {
                self.start_queue(index);
            }
        }
    }

    /// Where the rings of a queue are that the driver uses but that does not run.
    fn waiting(&self, index: usize) -> Option<VringLayout> {
        let layout = self.structures.registers.queue(index as u16)?;
        (!self.queues.get(index)?.is_running()).then_some(layout)
    }

    fn start_queue(&mut self, index: usize) {
        let started = self.queues[index].start(
            self.device.as_ref(),
            &self.structures.registers,
            &mut self.function,
        );
        if let Err(error) = started {
            self.fail(&format!("queue {index}: {error}"));
        }
    }

    fn stop(&mut self) {
        self.queues.iter_mut().for_each(Queue::stop);
        self.memory = None;
    }

    /// There is no going on without a reset, which the driver is told.
    fn fail(&mut self, why: &str) {
        warn!("driver needs to reset the device: {why}");
        self.stop();
        self.structures.registers.set_needs_reset();
        self.structures.config_changed(&self.function.msix);
        if let Some(intx) = &self.function.intx {
            intx.update();
        }
    }

    fn notify(&mut self, index: usize) {
        if self.waiting(index).is_some() {
            self.fail(&format!(
                "the rings of queue {index} are not in memory that the client shares (for QEMU: a \
                 memory backend with share=on)"
            ));
        } else if let Some(queue) = self.queues.get(index) {
            queue.kick();
        }
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let written = usize::try_from(offset).map(|offset| self.device.write_config(offset, data));
        if let Ok(Err(error)) = written {
            debug!("driver's write is ignored: {error}");
        }
    }

    fn write_structure(&mut self, offset: u64, data: &[u8]) {
        let event = self.structures.write(&mut self.function.msix, offset, data);
        match event {
            Some(Event::Reset) => Device::reset(self),
            Some(Event::DriverOk) => {
                info!("driver is ready");
                self.start();
            }
            Some(Event::Config(offset)) => self.write_config(offset, data),
            Some(Event::Notify(index)) => self.notify(index.into()),
            None => {}
        }
    }

    fn read_structure(&mut self, offset: u64, data: &mut [u8]) {
        let event = self.structures.read(&self.function.msix, offset, data);
        if let Some(Event::Config(offset)) = event {
            data.fill(0);
            self.device.read_config(offset as usize, data);
        }
    }
}

impl Device for VirtioFunction {
    fn function(&mut self) -> &mut Function {
        &mut self.function
    }

    fn bar_read(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        match bar {
            0 => self.read_structure(offset, data),
            _ => data.fill(0),
        }
    }

    fn bar_write(&mut self, bar: usize, offset: u64, data: &[u8]) {
        if bar == 0 {
            self.write_structure(offset, data);
        }
    }

    fn io_event_fds(&self, bar: usize) -> Vec<IoEventFd> {
        match bar {
            0 => self.queues.iter().map(Queue::io_event_fd).collect(),
            _ => Vec::new(),
        }
    }

    fn give_memory_up(&mut self, first: u64, last: u64) {
        let queues = self.queues.iter_mut();
        let users = queues.filter(|queue| queue.uses(first, last));
        users.for_each(Queue::stop);
    }

    /// Queues that run see most changes by themselves.
    fn memory_changed(&mut self) {
        let same = match (self.function.dma.memory(), &self.memory) {
            (Some(new), Some(old)) => Arc::ptr_eq(&new, old),
            _ => false,
        };
        if !same {
            self.stop();
        }
        self.start();
    }

    fn reset(&mut self) {
        self.stop();
        self.queues.iter_mut().for_each(Queue::reset);
        self.structures.registers.reset();
    }

    fn events(&self) -> BorrowedFd<'_> {
        self.broken.as_fd()
    }

    fn process(&mut self) -> io::Result<()> {
        if !self.broken.take()? {
            return Ok(());
        }
        // A queue that was stopped in the meantime is no longer broken.
        let broken = self.queues.iter().position(Queue::is_broken);
        if let Some(index) = broken {
            self.fail(&format!("queue {index} is broken"));
        }
        Ok(())
    }
}

/// What can be seen of the function without knowing the device.
fn function(kind: Kind, layout: &Layout, vectors: u16, intx: Intx) -> Function {
    let device = MODERN_ID_BASE + kind.device;
    let mut config = ConfigSpace::new(&Identity {
        vendor: VENDOR_ID,
        device,
        revision: REVISION,
        class: kind.class,
        subsystem_vendor: VENDOR_ID,
        subsystem: device,
    });
    let window = Some(layout.describe(&mut config, CONFIG_SIZE));
    config.add_function_level_reset();
    config.add_intx();
    let mut bars: [_; 6] = Default::default();
    bars[0] = trapped_bar(layout.size());
    Function {
        config,
        msix: Msix::new(vectors),
        intx: Some(intx),
        dma: DmaTable::default(),
        bars,
        window,
    }
}

#[cfg(test)]
mod tests;
