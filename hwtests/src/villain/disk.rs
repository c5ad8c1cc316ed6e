//! Requests to a disk, by whatever carrier.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use anyhow::{Result, ensure};
use ipc::{Interest, poll};
use virtio::test_utils::DriverRing;
use virtio_bindings::virtio_blk::{VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT};
use vm_memory::{Bytes, GuestAddress};

use super::PATIENCE;
use super::shared::{DATA, Shared};

/// The addresses of the parts of a request.
const STATUS: u64 = DATA;
const HEADER: u64 = DATA + 0x10;
const BUFFER: u64 = DATA + 0x1000;

/// A sector that well-behaved peers write and read.
const SECTOR: u64 = 7;

/// Puts a request for `len` bytes from `sector` on into a ring. Its buffer is not used by anything
/// else.
pub fn submit(
    shared: &Shared,
    ring: &mut DriverRing,
    write: bool,
    sector: u64,
    len: u32,
) -> Result<()> {
    let kind = if write {
        VIRTIO_BLK_T_OUT
    } else {
        VIRTIO_BLK_T_IN
    };
    let memory = shared.memory.as_ref();
    memory.write_obj(u64::from(kind), GuestAddress(HEADER))?;
    memory.write_obj(sector, GuestAddress(HEADER + 8))?;
    memory.write_obj(0xffu8, GuestAddress(STATUS))?;
    ring.add(&[
        (HEADER, 16, false),
        (BUFFER, len, !write),
        (STATUS, 1, true),
    ]);
    Ok(())
}

/// Writes a sector and reads it back. `kick` tells the device of a new request, and `call` is
/// readable when the device has used one.
pub fn check(
    shared: &Shared,
    ring: &mut DriverRing,
    mut kick: impl FnMut() -> Result<()>,
    call: BorrowedFd<'_>,
) -> Result<()> {
    let written = [0x5a; 512];
    let mut read = [0; 512];
    for (write, data) in [(true, written), (false, [0; 512])] {
        shared.memory.write_slice(&data, GuestAddress(BUFFER))?;
        submit(shared, ring, write, SECTOR, 512)?;
        kick()?;
        finish(ring, call)?;
        let status: u8 = shared.memory.read_obj(GuestAddress(STATUS))?;
        ensure!(
            status == 0,
            "a well-behaved peer's request failed: {status}"
        );
    }
    shared.memory.read_slice(&mut read, GuestAddress(BUFFER))?;
    ensure!(
        read == written,
        "a well-behaved peer reads other data than it wrote"
    );
    Ok(())
}

/// Waits until a request was used.
pub fn finish(ring: &mut DriverRing, call: BorrowedFd<'_>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while ring.pop_used().is_none() {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(
            !left.is_zero(),
            "a well-behaved peer's request does not end"
        );
        poll([Interest::Readable(call)], Some(left))?;
        // Without taking the signal, the next poll would not wait.
        let _ = rustix::io::read(call, &mut [0; 8]);
    }
    Ok(())
}
