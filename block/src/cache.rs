//! The write cache that the driver sees. While the cache is on, writes become stable only with a
//! flush.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_FLUSH};

use crate::{Cache, Image};

/// The state of the write cache: on or off. The driver may choose the state. Without a choice of
/// the driver, the state follows from the cache mode with which the image was opened (virtio 1.2,
/// section 5.2.5).
#[derive(Debug)]
pub(crate) struct WriteCache {
    cache: Cache,
    writeback: AtomicBool,
    can_change: bool,
}

impl WriteCache {
    /// The cache of a device that serves `image`.
    pub fn of(image: &Image) -> Self {
        let cache = image.cache();
        Self {
            cache,
            writeback: AtomicBool::new(cache != Cache::Writethrough),
            can_change: !image.read_only() && image.flushes(),
        }
    }

    /// Whether the cache is on, so that writes become stable only with a flush.
    pub fn is_writeback(&self) -> bool {
        self.writeback.load(Ordering::Relaxed)
    }

    /// Whether the driver may turn the cache on and off.
    pub fn can_change(&self) -> bool {
        self.can_change
    }

    /// Whether a driver with these features needs each write to be stable at once, whatever an
    /// earlier driver chose.
    pub fn is_write_through(&self, features: u64) -> bool {
        let has = |feature: u32| features & (1 << feature) != 0;
        // Virtio 1.2, section 5.2.6.2: if the driver cannot flush, completed writes are stable.
        !has(VIRTIO_BLK_F_FLUSH)
            || !has(VIRTIO_BLK_F_CONFIG_WCE) && self.cache == Cache::Writethrough
    }

    /// Turns the cache on or off. Turning the cache off flushes the image, because the driver will
    /// not flush its earlier writes. The flush runs on another thread, because it may take long.
    pub fn set_writeback(&self, writeback: bool, image: &Arc<Image>) {
        let was_on = self.writeback.swap(writeback, Ordering::Relaxed);
        if writeback || !was_on {
            return;
        }
        let flushed = image.clone();
        let spawned = thread::Builder::new()
            .name("flush".to_owned())
            .spawn(move || flush(&flushed));
        if spawned.is_err() {
            flush(image);
        }
    }
}

fn flush(image: &Image) {
    if let Err(error) = image.sync() {
        tracing::error!("cannot flush the image after its write cache was turned off: {error}");
    }
}
