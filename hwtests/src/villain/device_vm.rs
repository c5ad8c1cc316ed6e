//! The device VM of a proxy: it drives the proxy's function and serves a disk to the front-end.
//!
//! It is a part of this process, so that the villain can measure how fast the proxy answers it.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use block::{BlockDevice, Image, OpenOptions, Options};
use ipc::SharedEventFd;
use virtio::memory::MemoryFiles;
use virtio::{RingOptions, Runner};
use vvu::VvuTransport;
use vvu::pci::{PciFunction, VFIO_USER_PREFIX};

use super::unwatched::Unwatched;

/// The time for which the latency is measured.
const TIME: Duration = Duration::from_millis(300);

/// A device VM that serves a disk.
#[derive(Debug)]
pub struct DeviceVm {
    /// The proxy's function.
    pub function: Arc<dyn PciFunction>,
    stop: SharedEventFd,
    thread: Option<JoinHandle<()>>,
}

/// How long the proxy takes for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// The median of many answers.
    pub median: Duration,
    /// The slowest answer.
    pub worst: Duration,
}

impl DeviceVm {
    /// Connects to the proxy, and serves the image until this value is dropped.
    pub fn start(socket: &Path, image: &Path) -> Result<Self> {
        let address = format!("{VFIO_USER_PREFIX}{}", socket.display());
        let function =
            vvu::driver::open(&address, MemoryFiles::default()).context("the device VM")?;
        let image = Image::open(image, OpenOptions::default())?;
        let device = BlockDevice::new(Arc::new(image), Options::default())?;
        let mut runner = Runner::new(Arc::new(device), RingOptions::default());
        runner.prepare()?;
        let driven = Arc::new(Unwatched(function.clone()));
        let mut transport = VvuTransport::new(driven, runner.queue_count(), None)?;
        let stop = SharedEventFd::new()?;
        let told = SharedEventFd::from_fd(stop.try_clone()?)?;
        let thread = thread::spawn(move || {
            // An error needs no report: the villain sees by its front-ends what is not served.
            let _ = vhost_user::session::serve(&mut transport, &mut runner, told.as_fd());
        });
        Ok(Self {
            function,
            stop,
            thread: Some(thread),
        })
    }

    /// Measures how long the proxy takes to read a register.
    pub fn latency(&self) -> Result<Latency> {
        let (begin, mut times) = (Instant::now(), Vec::new());
        while times.is_empty() || begin.elapsed() < TIME {
            let start = Instant::now();
            self.function
                .read_config(0, &mut [0; 4])
                .context("the device VM reads a register")?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        Ok(Latency { median, worst })
    }
}

impl Drop for DeviceVm {
    fn drop(&mut self) {
        let _ = self.stop.signal();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
