//! The write cache that the driver sees. While the cache is on, written data is on stable storage
//! only after a flush.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_FLUSH};

use crate::{Cache, Image};

/// The state of the write cache: on or off. Until the driver sets the state, it depends on the
/// cache mode with which the image was opened (virtio 1.2, section 5.2.5).
#[derive(Debug)]
pub(crate) struct WriteCache {
    cache: Cache,
    writeback: AtomicBool,
    can_change: bool,
    flusher: Arc<Flusher>,
}

/// Flushes the image on separate threads. At most two of these threads exist at a time, even if the
/// driver asks for many flushes. The first thread flushes. The second thread waits for the first
/// thread, and then flushes the data that was written in the meantime.
#[derive(Debug, Default)]
struct Flusher {
    /// Whether a thread waits to begin a flush.
    waiting: AtomicBool,
    /// A thread holds this lock during a flush.
    running: Mutex<()>,
}

impl WriteCache {
    /// The write cache of a device that serves `image`. No driver has set its state yet.
    pub fn of(image: &Image) -> Self {
        let cache = image.cache();
        Self {
            cache,
            writeback: AtomicBool::new(cache != Cache::Writethrough),
            can_change: !image.read_only() && image.flushes(),
            flusher: Arc::default(),
        }
    }

    /// Whether the cache is on. If it is on, written data is on stable storage only after a flush.
    pub fn is_writeback(&self) -> bool {
        self.writeback.load(Ordering::Relaxed)
    }

    /// Whether the driver may turn the cache on and off.
    pub fn can_change(&self) -> bool {
        self.can_change
    }

    /// Whether the data of each completed write has to be on stable storage, for a driver with
    /// these feature bits. If the driver cannot change the cache's state, a state that an earlier
    /// driver set has no effect.
    pub fn is_write_through(&self, features: u64) -> bool {
        let has = |feature: u32| features & (1 << feature) != 0;
        // If the driver cannot flush, the data of completed writes has to be on stable storage
        // (virtio 1.2, section 5.2.6.2).
        !has(VIRTIO_BLK_F_FLUSH)
            || !has(VIRTIO_BLK_F_CONFIG_WCE) && self.cache == Cache::Writethrough
    }

    /// Turns the cache on or off. Turning the cache off flushes the image, because from then on the
    /// driver sends no flushes, not even for its earlier writes. The flush runs on another thread,
    /// because it may take long.
    pub fn set_writeback(&self, writeback: bool, image: &Arc<Image>) {
        let was_on = self.writeback.swap(writeback, Ordering::Relaxed);
        if writeback || !was_on {
            return;
        }
        let image = image.clone();
        self.flusher.start(move || {
            if let Err(error) = image.sync() {
                tracing::error!(
                    "cannot flush the image after its write cache was turned off: {error}"
                );
            }
        });
    }
}

impl Flusher {
    /// Starts a thread that calls `flush`. Does nothing if another thread already waits to begin a
    /// flush.
    fn start(self: &Arc<Self>, flush: impl FnOnce() + Send + 'static) {
        if self.waiting.swap(true, Ordering::SeqCst) {
            return;
        }
        let flusher = self.clone();
        let thread = thread::Builder::new().name("flush".to_owned());
        if let Err(error) = thread.spawn(move || flusher.run(flush)) {
            self.waiting.store(false, Ordering::SeqCst);
            tracing::error!("cannot flush the image after its write cache was turned off: {error}");
        }
    }

    fn run(&self, flush: impl FnOnce()) {
        let _running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // This flush need not include data that is written later. For that data, `start` may now
        // start another thread.
        self.waiting.store(false, Ordering::SeqCst);
        flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[test]
    fn many_requests_to_flush_make_two_flushes() {
        let flusher = Arc::new(Flusher::default());
        let (began, begins) = channel();
        let (end, ends) = channel::<()>();
        let first = began.clone();
        flusher.start(move || {
            first.send(()).unwrap();
            ends.recv_timeout(DEADLINE).unwrap();
        });
        begins.recv_timeout(DEADLINE).unwrap();
        for _ in 0..100 {
            let began = began.clone();
            flusher.start(move || began.send(()).unwrap());
        }
        assert!(begins.try_recv().is_err(), "two flushes at once");
        end.send(()).unwrap();
        begins.recv_timeout(DEADLINE).unwrap();
        drop(began);
        assert!(begins.recv_timeout(DEADLINE).is_err(), "a third flush");
    }
}
