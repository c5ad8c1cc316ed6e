//! The virtio entropy device (virtio 1.2, section 5.4). The device fills buffers with random bytes
//! from the host's kernel.

use std::io;

use rustix::io::retry_on_intr;
use rustix::rand::{GetRandomFlags, getrandom};
use virtio::{Chain, Device, DeviceKind, ServeError, ServedQueue, Wake};

/// The maximum number of random bytes in a request, even if the buffers of the request are larger.
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

    /// Waits until the kernel has collected entropy after boot. Later requests then do not have to
    /// wait for entropy.
    fn prepare(&self) -> io::Result<()> {
        fill(&mut [0]).map(drop)
    }

    fn serve(&self, queue: &mut ServedQueue, wake: &Wake) -> Result<(), ServeError> {
        let mut chain = Chain::default();
        let mut bytes = vec![0; MAX_BYTES];
        while queue.next(&mut chain, wake)? {
            // The length is at most MAX_BYTES, so each conversion is exact.
            let wanted = chain.writable.len().min(MAX_BYTES as u64) as usize;
            let count = fill(&mut bytes[..wanted])?;
            let written = chain.writable.write(queue.memory(), 0, &bytes[..count]);
            // If a buffer is outside the driver's memory, the device reports 0 written bytes.
            let count = if written.is_ok() { count as u32 } else { 0 };
            queue.give_back(&chain, count)?;
        }
        Ok(())
    }
}

/// Writes random bytes to the beginning of a buffer, and returns the number of bytes. A signal can
/// end the write early, but at least one byte is written if the buffer is not empty.
fn fill(buffer: &mut [u8]) -> io::Result<usize> {
    Ok(retry_on_intr(|| {
        getrandom(&mut *buffer, GetRandomFlags::empty())
    })?)
}

#[cfg(test)]
mod tests;
