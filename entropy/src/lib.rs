//! The virtio entropy device (virtio 1.2, section 5.4): it fills buffers with random bytes of the
//! host's kernel.

use std::io;

use rustix::io::retry_on_intr;
use rustix::rand::{GetRandomFlags, getrandom};
use virtio::{Chain, Device, DeviceKind, ServeError, ServedQueue, Wake};

/// How many bytes a request gets at most, whatever the size of its buffers.
pub const MAX_BYTES: usize = 64 << 10;

/// A source of random bytes, with one queue and no features.
#[derive(Debug)]
pub struct EntropyDevice;

impl Device for EntropyDevice {
    fn kind(&self) -> DeviceKind {
        DeviceKind {
            id: 4,
            class: 0x00_ff00,
        }
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_count(&self) -> u16 {
        1
    }

    /// Waits until the kernel has collected entropy after boot. No request has to wait for that
    /// later.
    fn prepare(&self) -> io::Result<()> {
        fill(&mut [0]).map(drop)
    }

    fn serve(&self, queue: &mut ServedQueue, wake: &Wake) -> Result<(), ServeError> {
        let mut chain = Chain::default();
        let mut bytes = vec![0; MAX_BYTES];
        while queue.next(&mut chain, wake)? {
            // At most MAX_BYTES, so each conversion is exact.
            let wanted = chain.writable.len().min(MAX_BYTES as u64) as usize;
            let count = fill(&mut bytes[..wanted])?;
            let written = chain.writable.write(queue.memory(), 0, &bytes[..count]);
            // A buffer outside the driver's memory gets nothing.
            let count = if written.is_ok() { count as u32 } else { 0 };
            queue.give_back(&chain, count)?;
        }
        Ok(())
    }
}

/// Writes random bytes to the beginning of a buffer, and returns how many. A signal makes them
/// fewer, but at least one if the buffer has room.
fn fill(buffer: &mut [u8]) -> io::Result<usize> {
    Ok(retry_on_intr(|| {
        getrandom(&mut *buffer, GetRandomFlags::empty())
    })?)
}

#[cfg(test)]
mod tests;
