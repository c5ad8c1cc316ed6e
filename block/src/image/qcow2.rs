//! qcow2 images. An image needs space only for the data that was written to its disk. An image may
//! have a backing image, which holds the data that was not written to the image itself. The imago
//! crate reads and writes the format.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use imago::FormatAccess;
use imago::file::File;

use super::abilities::Abilities;
use crate::operation::{Operation, Range};

mod chain;
mod folders;
mod header;

pub(super) use header::MAGIC;

/// The best unit in bytes for reads and writes of a qcow2 image. It is the page size of most hosts.
const BEST_BLOCK: u32 = 4096;

/// An open image and all its backing images. The size of the disk never changes.
#[derive(Debug)]
pub(crate) struct Qcow2 {
    /// The disk, protected by a lock. Several reads and writes of the disk may hold the lock at the
    /// same time. An operation that discards or zeroes a range holds the lock alone, because it may
    /// free clusters that hold data. It may also check whether a whole cluster is zero before it
    /// changes the cluster.
    disk: Arc<RwLock<FormatAccess<File>>>,
    size: u64,
    cluster_size: u32,
    /// Whether ranges can be zeroed by a mark in the image's tables. These marks need version 3 of
    /// the format.
    zeroes: bool,
    /// Whether the qcow2 library has panicked. After a panic, the library's state may be wrong, so
    /// the image must not be used any more.
    broken: AtomicBool,
    /// The files of the image and its backing images. The open files hold the locks.
    files: Vec<fs::File>,
}

impl Qcow2 {
    /// Size of the disk in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file of the image itself.
    pub fn file(&self) -> &fs::File {
        &self.files[0]
    }

    /// The abilities of the image. They do not depend on the abilities of its files.
    pub fn abilities(&self) -> Abilities {
        Abilities {
            physical_block: BEST_BLOCK,
            min_io: BEST_BLOCK,
            opt_io: self.cluster_size,
            discard: self.zeroes.then_some(self.cluster_size),
            zero: self.zeroes,
            ..Abilities::default()
        }
    }

    /// Carries out an operation and waits for the operation's end. If the operation moves data, it
    /// uses the whole `buffer`. Returns the number of bytes that were moved.
    pub fn carry_out(
        &self,
        operation: Operation,
        range: Range,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let carry_out = AssertUnwindSafe(|| self.try_carry_out(operation, range, buffer));
        catch_unwind(carry_out).unwrap_or_else(|_| {
            self.give_up();
            Err(io::Error::from_raw_os_error(libc::EIO))
        })
    }

    fn try_carry_out(
        &self,
        operation: Operation,
        Range { offset, len }: Range,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        match operation {
            Operation::Read => self.shared().read(&mut *buffer, offset)?,
            Operation::Write => self.shared().write(&*buffer, offset)?,
            Operation::WriteStable => {
                self.shared().write(&*buffer, offset)?;
                self.flush()?;
            }
            Operation::Flush => self.flush()?,
            Operation::Zero => self.alone(|disk| disk.write_zeroes(offset, len))?,
            Operation::Unmap => self.alone(|disk| disk.discard_to_zero(offset, len))?,
            Operation::Punch => self.alone(|disk| disk.discard_to_any(offset, len))?,
            Operation::Discard | Operation::SecureErase | Operation::Allocate => {
                return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
            }
        }
        Ok(buffer.len())
    }

    /// Puts all data written so far, and the tables that locate the data, on stable storage.
    pub fn flush(&self) -> io::Result<()> {
        let disk = self.shared();
        disk.flush()?;
        disk.sync()
    }

    fn shared(&self) -> RwLockReadGuard<'_, FormatAccess<File>> {
        self.disk.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone<T>(&self, change: impl FnOnce(&mut FormatAccess<File>) -> T) -> T {
        change(&mut self.disk.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stops all use of the image after a panic. After this call nothing is written to the image,
    /// not even when the image is closed.
    fn give_up(&self) {
        tracing::error!("internal error in the qcow2 library; all requests fail from now on");
        self.broken.store(true, Ordering::Relaxed);
        std::mem::forget(self.disk.clone());
    }
}

#[cfg(test)]
mod tests;
