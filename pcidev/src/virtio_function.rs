//! A PCI function for one virtio device of any kind (virtio 1.2, section 4.1).
//!
//! Each queue has its own thread, which also raises the queue's interrupts. The event loop starts
//! and stops queues when the driver requests it or the client's memory changes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipc::SharedEventFd;
use tracing::{debug, info, warn};
use vfio_user::IoEventFd;
use virtio::memory::MemoryFiles;
use virtio::pci::{MODERN_ID_BASE, VENDOR_ID};
use virtio::{DeviceKind, GuestMemory, Notifier, Runner, VringLayout};
use virtio_bindings::virtio_config::VIRTIO_F_ACCESS_PLATFORM;

use crate::blocked::Blocked;
use crate::config_space::{ConfigSpace, Identity};
use crate::dma::DmaTable;
use crate::function::{Device, Function, trapped_bar};
use crate::intx::Intx;
use crate::msix::Msix;
use crate::poller::{Poller, Source, Until};
use crate::virtio_pci::{Event, Layout, Registers, Structures};

mod queue;

use queue::Queue;

/// The PCI revision id of a modern virtio device. Drivers for legacy devices do not bind to this
/// revision.
const REVISION: u8 = 1;

/// Length in bytes of the device-specific configuration. The part that a device does not use reads
/// as 0.
const CONFIG_SIZE: u32 = 0x1000;

/// A virtio device as a PCI function, for [`crate::serve`].
///
/// # Examples
///
/// A client reads the identity of a function. The function's device is a `Disk`, which implements
/// [`virtio::Device`]:
///
/// ```
/// use std::os::fd::AsFd;
/// use std::sync::Arc;
/// use std::thread;
///
/// use ipc::{Listener, SharedEventFd};
/// use pcidev::VirtioFunction;
/// use vfio_user::client::DEFAULT_TIMEOUT;
/// use vfio_user::{Client, index};
/// use virtio::{Device, RingOptions, Runner};
/// # use virtio::{ConfigError, DeviceKind, ServeError, ServedQueue, Wake};
/// # struct Disk;
/// # impl Device for Disk {
/// #     fn kind(&self) -> DeviceKind { DeviceKind { id: 2, class: 0x01_0000 } }
/// #     fn features(&self) -> u64 { 0 }
/// #     fn queue_count(&self) -> u16 { 4 }
/// #     fn read_config(&self, _: usize, data: &mut [u8]) { data.fill(0) }
/// #     fn write_config(&self, at: usize, data: &[u8]) -> Result<(), ConfigError> {
/// #         Err(ConfigError::new(at, data))
/// #     }
/// #     fn serve(&self, _: &mut ServedQueue, wake: &Wake) -> Result<(), ServeError> {
/// #         Ok(ipc::poll([ipc::Interest::readable(wake)], None).map(drop)?)
/// #     }
/// # }
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("disk.sock");
/// let clients = Listener::bind(&path)?;
/// let stop = Arc::new(SharedEventFd::new()?);
/// let stopped = stop.clone();
/// let runner = Runner::new(Arc::new(Disk), RingOptions::default());
/// let server = thread::spawn(move || {
///     let mut function = VirtioFunction::new(runner)?;
///     pcidev::serve(&mut function, &clients, stopped.as_fd())
/// });
///
/// // QEMU is such a client, with `-device vfio-user-pci`.
/// let mut client = Client::connect(&path, DEFAULT_TIMEOUT)?;
/// let mut ids = [0; 4];
/// client.region_read(index::CONFIG, 0, &mut ids)?;
/// assert_eq!(ids, [0xf4, 0x1a, 0x42, 0x10], "virtio's vendor, and 0x1040 + 2");
/// let vectors = client.irq_info(index::MSIX)?.count;
/// assert_eq!(vectors, 5, "an interrupt for each queue, and one for the configuration");
///
/// stop.signal()?;
/// server.join().expect("it does not panic")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct VirtioFunction {
    runner: Runner,
    function: Function,
    structures: Structures,
    queues: Vec<Queue>,
    news: Arc<News>,
    /// The poller, which watches the eventfd of `news`.
    poller: Poller,
    /// The client's memory with which the running queues were started.
    memory: Option<Arc<GuestMemory>>,
}

/// The events that the device and its queues report to the event loop.
#[derive(Debug)]
struct News {
    event: SharedEventFd,
    config_changed: AtomicBool,
}

/// Reports that a queue has failed, or that the client has to be dropped.
impl Notifier for News {
    fn notify(&self) -> io::Result<()> {
        self.event.signal()
    }
}

/// Reports that the device-specific configuration changed.
#[derive(Debug)]
struct ConfigNews(Arc<News>);

impl Notifier for ConfigNews {
    fn notify(&self) -> io::Result<()> {
        self.0.config_changed.store(true, Ordering::SeqCst);
        self.0.event.signal()
    }
}

impl VirtioFunction {
    /// A function for the device of `runner`, with an interrupt for each queue and one for
    /// configuration changes.
    ///
    /// # Errors
    ///
    /// When the operating system is out of file descriptors.
    pub fn new(runner: Runner) -> io::Result<Self> {
        let queues = runner.queue_count();
        let vectors = queues + 1;
        let layout = Layout::new(queues, vectors);
        let features = runner.features() | 1 << VIRTIO_F_ACCESS_PLATFORM;
        let registers = Registers::new(features, queues, runner.max_queue_size(), vectors);
        let blocked = Blocked::default();
        let intx = Intx::new(registers.isr().clone(), blocked.clone());
        let news = Arc::new(News {
            event: SharedEventFd::new()?,
            config_changed: AtomicBool::new(false),
        });
        let poller = Poller::new()?;
        poller.add(&news.event, Source::Device(0), Until::Signalled)?;
        let device = runner.device();
        device.watch_config(Arc::new(ConfigNews(news.clone())));
        Ok(Self {
            function: function(device.kind(), &layout, vectors, intx, blocked),
            queues: (0..queues).map(Queue::new).collect::<io::Result<_>>()?,
            structures: Structures { layout, registers },
            runner,
            news,
            poller,
            memory: None,
        })
    }

    /// Accepts clients' memory in files of these kinds.
    #[must_use]
    pub fn accepting(mut self, files: MemoryFiles) -> Self {
        self.function.dma = DmaTable::new(files);
        self
    }

    /// Starts the queues that the driver uses and that do not run yet, if their rings are in
    /// memory. Skips queues whose rings are not in memory, because a client may remove memory for a
    /// moment while it changes an adjacent range.
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

    /// The layout of the rings of a queue that can be started. `None` means that the queue already
    /// runs, or the driver does not use the queue.
    fn waiting(&self, index: usize) -> Option<VringLayout> {
        let layout = self.structures.registers.queue(index as u16)?;
        (!self.queues.get(index)?.is_running()).then_some(layout)
    }

    fn start_queue(&mut self, index: usize) {
        let started = self.queues[index].start(
            &mut self.runner,
            &self.structures.registers,
            &mut self.function,
            self.news.clone(),
        );
        if let Err(error) = started {
            self.fail(&format!("queue {index}: {error}"));
        }
    }

    /// Stops all queues.
    fn stop(&mut self) {
        self.stop_queues(|_| true);
        self.memory = None;
    }

    /// Stops all queues for which `which` is true, at the same time.
    fn stop_queues(&mut self, which: impl Fn(&Queue) -> bool) {
        let queues = self.queues.iter_mut().zip(0..);
        let mut stopped: Vec<_> = queues.filter(|(queue, _)| which(queue)).collect();
        let indices = stopped.iter().map(|(_, index)| *index);
        if let Err(error) = self.runner.stop(indices) {
            // A queue that did not stop keeps its memory mapped, even if the client unmaps the
            // memory.
            warn!("{error}");
        }
        for (queue, index) in &mut stopped {
            queue.stopped(self.runner.next_avail(*index));
        }
    }

    /// Stops all queues, sets DEVICE_NEEDS_RESET, and raises the configuration interrupt.
    fn fail(&mut self, why: &str) {
        warn!("driver needs to reset the device: {why}");
        self.stop();
        self.structures.registers.set_needs_reset();
        self.config_changed();
    }

    /// Tells the driver that the status or the configuration changed.
    fn config_changed(&mut self) {
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
            queue.kick(&self.function.blocked);
        }
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let written =
            usize::try_from(offset).map(|offset| self.runner.device().write_config(offset, data));
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
            self.runner.device().read_config(offset as usize, data);
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

    fn replace_io_event_fds(&mut self) {
        let mut queues = self.queues.iter_mut();
        if let Err(error) = queues.try_for_each(Queue::replace_kick) {
            warn!("the last client can still kick queues: {error}");
        }
    }

    fn give_memory_up(&mut self, first: u64, last: u64) {
        self.stop_queues(|queue| queue.uses(first, last));
    }

    /// Running queues see changes of the memory ranges without a restart. Only when the client adds
    /// or removes a file, all queues are restarted.
    fn memory_changed(&mut self) {
        let same = match (self.function.dma.memory(), &self.memory) {
            (Some(new), Some(old)) => Arc::ptr_eq(&new, old),
            _ => false,
        };
        if !same {
            self.stop();
        }
        self.start();
        if self.memory.is_none() {
            // The client has left, or has removed all its memory.
            self.runner.forget_driver();
        }
    }

    fn reset(&mut self) {
        self.stop();
        self.queues.iter_mut().for_each(Queue::reset);
        self.structures.registers.reset();
    }

    fn poller(&self) -> &Poller {
        &self.poller
    }

    fn process(&mut self, _number: u32) -> io::Result<()> {
        if self.news.config_changed.swap(false, Ordering::SeqCst) {
            self.config_changed();
        }
        // If the queue was stopped after it reported the failure, it no longer counts as failed.
        let mut queues = 0..self.runner.queue_count();
        if let Some(index) = queues.find(|&queue| self.runner.has_failed(queue)) {
            self.fail(&format!("queue {index} has failed"));
        }
        Ok(())
    }
}

/// The parts of the function that do not depend on the device.
fn function(
    kind: DeviceKind,
    layout: &Layout,
    vectors: u16,
    intx: Intx,
    blocked: Blocked,
) -> Function {
    let device = MODERN_ID_BASE + kind.id;
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
        msix: Msix::new(vectors, &blocked),
        intx: Some(intx),
        blocked,
        dma: DmaTable::default(),
        bars,
        window,
    }
}

#[cfg(test)]
mod tests;
