//! A device that records the session's calls to it.

use super::*;

/// A device that serves no requests and records the calls to it.
#[derive(Clone, Default)]
pub(super) struct Recorder {
    pub(super) log: Arc<Mutex<Vec<String>>>,
    pub(super) vrings: Arc<Mutex<Vec<Served>>>,
    pub(super) config: Arc<Mutex<[u8; 16]>>,
}

/// The properties of a vring that the device has served.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) features: u64,
    pub(super) layout: VringLayout,
    pub(super) regions: usize,
    pub(super) kick: Option<Arc<SharedEventFd>>,
}

impl Recorder {
    pub(super) fn write(&self, line: String) {
        self.log.lock().unwrap().push(line);
    }

    /// Waits until a queue's thread has begun to serve.
    pub(super) fn wait_started(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.vrings.lock().unwrap().is_empty() {
            assert!(Instant::now() < deadline, "no queue was started");
            std::thread::yield_now();
        }
    }

    pub(super) fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    pub(super) fn last(&self) -> Served {
        self.vrings.lock().unwrap().last().unwrap().clone()
    }
}

impl Device for Recorder {
    fn kind(&self) -> DeviceKind {
        DeviceKind { id: 42, class: 0 }
    }

    fn features(&self) -> u64 {
        OWN
    }

    fn queue_count(&self) -> u16 {
        2
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let config = self.config.lock().unwrap();
        for (at, byte) in data.iter_mut().enumerate() {
            *byte = config.get(offset + at).copied().unwrap_or(0);
        }
    }

    fn write_config(&self, offset: usize, data: &[u8]) -> Result<(), ConfigError> {
        let end = offset + data.len();
        let mut config = self.config.lock().unwrap();
        let target = config.get_mut(offset..end);
        target
            .ok_or(ConfigError { offset, end })?
            .copy_from_slice(data);
        Ok(())
    }

    /// Serves no requests. Returns when the queue is stopped.
    fn serve(&self, queue: &mut ServedQueue, wake: &Wake) -> Result<(), ServeError> {
        let (index, position) = (queue.index, queue.ring.next_avail());
        self.write(format!("start {index} at {position}"));
        self.vrings.lock().unwrap().push(Served {
            features: queue.features,
            layout: queue.layout,
            regions: queue.memory().num_regions(),
            kick: queue.kick().cloned(),
        });
        ipc::poll([ipc::Interest::readable(wake)], None)?;
        self.write(format!("stop {index}"));
        Ok(())
    }
}
