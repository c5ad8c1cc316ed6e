//! The driver's write cache: whether writes are stable at once or after a flush only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_FLUSH};

use crate::{Cache, Image};

/// What the driver has chosen, or else how the image was opened (virtio 1.2, section 5.2.5).
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

    /// True while writes are stable after a flush only.
    pub fn is_writeback(&self) -> bool {
        self.writeback.load(Ordering::Relaxed)
    }

    /// True when the driver may choose between write-back and write-through.
    pub fn can_change(&self) -> bool {
        self.can_change
    }

    /// Whether each write has to be stable for a driver with these features, whatever mode a driver,
    /// perhaps an earlier one, has chosen.
    pub fn is_write_through(&self, features: u64) -> bool {
        let has = |feature: u32| features & (1 << feature) != 0;
        // Virtio 1.2, section 5.2.6.2: stable once completed if the driver cannot flush.
        !has(VIRTIO_BLK_F_FLUSH)
            || !has(VIRTIO_BLK_F_CONFIG_WCE) && self.cache == Cache::Writethrough
    }

    /// Turns the cache on or off. The driver sends no flush any more for writes from before it turned
    /// the cache off, so the image is flushed, on a thread of its own because a flush may take long.
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
