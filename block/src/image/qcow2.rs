//! qcow2 images: a format in which a disk takes but the space of what was written to it, perhaps on
//! top of another image. Reading and writing the format is up to the imago crate.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use imago::FormatAccess;
use imago::file::File;

use crate::request::Range;
use crate::transfer::Operation;

mod chain;
mod error;
mod header;

pub use error::Qcow2Error;
pub(super) use header::MAGIC;

/// An open image and all those below it. Its size never changes.
#[derive(Debug)]
pub(crate) struct Qcow2 {
    /// Whoever discards takes the place of data away, so nobody else may be looking for it; and whoever
    /// zeroes a part of a cluster looks whether all of it is zero, which nobody may change meanwhile.
    disk: Arc<RwLock<FormatAccess<File>>>,
    size: u64,
    cluster_size: u32,
    /// Can ranges be made zero without moving data? Not before version 3 of the format.
    zeroes: bool,
    /// What is known of the image may be wrong, so it must not be used any more.
    broken: AtomicBool,
    /// The files of the image and those below it, which hold the locks.
    _files: Vec<fs::File>,
}

impl Qcow2 {
    /// Size of the disk in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Size in bytes of what is allocated, and freed, at once.
    pub fn cluster_size(&self) -> u32 {
        self.cluster_size
    }

    /// Whether ranges can be zeroed and discarded without moving data.
    pub fn can_zero(&self) -> bool {
        self.zeroes
    }

    /// Carries an operation out, and waits for its end: on the whole of `buffer`, or of `len` bytes
    /// for an operation without data. The answer is how many bytes were moved.
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

    /// Puts everything written so far, and what is known of where it is, onto stable storage.
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

    /// After a panic nothing more is written, not even when the image is closed.
    fn give_up(&self) {
        tracing::error!("internal error in the qcow2 image, which is not used any more");
        self.broken.store(true, Ordering::Relaxed);
        std::mem::forget(self.disk.clone());
    }
}

#[cfg(test)]
mod tests;
