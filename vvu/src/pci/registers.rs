//! A structure of registers in a BAR.

use std::io;
use std::sync::Arc;

use super::{Mapping, PciFunction, Scalar, map_bar};

/// A structure of registers in a BAR. An access to a mapped structure is one load or store. An
/// access to a trapped structure is a system call or a message to a vfio-user server.
#[derive(Clone, Debug)]
pub struct Registers {
    function: Arc<dyn PciFunction>,
    bar: u8,
    offset: u64,
    len: u64,
    mapping: Option<Arc<Mapping>>,
}

/// A page of the registers' memory was missing when this process accessed the page.
#[derive(Debug, thiserror::Error)]
#[error("the file of the device's registers was truncated")]
struct RegistersLost;

impl Registers {
    /// A structure of `len` bytes at `offset` in a BAR. Each access is a system call or a message
    /// to a vfio-user server.
    pub fn trapped(function: Arc<dyn PciFunction>, bar: u8, offset: u64, len: u64) -> Self {
        Self {
            function,
            bar,
            offset,
            len,
            mapping: None,
        }
    }

    /// A structure of `len` bytes at `offset` in a BAR. The structure is mapped if the BAR allows a
    /// mapping, and otherwise trapped.
    ///
    /// # Errors
    ///
    /// When the operating system refuses a mapping that should be possible.
    pub fn mapped(
        function: Arc<dyn PciFunction>,
        bar: u8,
        offset: u64,
        len: u64,
    ) -> io::Result<Self> {
        let mapping = map_bar(function.as_ref(), bar, offset, len)?.map(Arc::new);
        let trapped = Self::trapped(function, bar, offset, len);
        Ok(Self { mapping, ..trapped })
    }

    /// The length of the structure in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the structure has no registers.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The BAR that the structure is in.
    pub fn bar(&self) -> u8 {
        self.bar
    }

    /// The offset in the BAR at which the structure begins, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The function that the structure belongs to.
    pub fn function(&self) -> &dyn PciFunction {
        self.function.as_ref()
    }

    /// Reads a register.
    ///
    /// # Errors
    ///
    /// When the register is not inside the structure or not aligned, or when the function or the
    /// register's memory is gone.
    pub fn read<T: Scalar>(&self, at: u64) -> io::Result<T> {
        self.check::<T>(at)?;
        if let Some(mapping) = &self.mapping {
            let value = mapping.read(at as usize);
            return Self::check_loss(mapping).map(|()| value);
        }
        let mut bytes = T::Bytes::default();
        let offset = self.offset + at;
        self.function.read_bar(self.bar, offset, bytes.as_mut())?;
        Ok(T::from_bytes(bytes))
    }

    /// Writes a register.
    ///
    /// # Errors
    ///
    /// As for [`Registers::read`].
    pub fn write<T: Scalar>(&self, at: u64, value: T) -> io::Result<()> {
        self.check::<T>(at)?;
        if let Some(mapping) = &self.mapping {
            mapping.write(at as usize, value);
            return Self::check_loss(mapping);
        }
        let bytes = value.to_bytes();
        let offset = self.offset + at;
        self.function.write_bar(self.bar, offset, bytes.as_ref())
    }

    /// Returns an error if a page of the mapping was missing when this process accessed the page.
    fn check_loss(mapping: &Mapping) -> io::Result<()> {
        if mapping.is_lost() {
            return Err(io::Error::other(RegistersLost));
        }
        Ok(())
    }

    fn check<T>(&self, at: u64) -> io::Result<()> {
        let size = size_of::<T>() as u64;
        let aligned = (self.offset + at).is_multiple_of(size);
        let inside = at.checked_add(size).is_some_and(|end| end <= self.len);
        if aligned && inside {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "there is no {size}-byte register at {at:#x} of {:#x} bytes",
                self.len
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::mock::{BarOffset, MockFunction, Profile};

    #[test]
    fn registers_whose_file_was_truncated_cannot_be_accessed() {
        virtio::memory::survive_losses().unwrap();
        let profile = Profile {
            doorbells_mapped: true,
            ..Profile::ours()
        };
        let BarOffset(bar, offset) = profile.doorbell;
        let function = MockFunction::new(profile);
        let file = function.bar_file(bar, offset, 0x1000).unwrap().file;
        let registers = Registers::mapped(function, bar, offset, 0x1000).unwrap();
        registers.write(0, 7u16).unwrap();
        file.set_len(0).unwrap();
        assert!(registers.write(0, 7u16).is_err());
        let error = registers.read::<u16>(0).unwrap_err();
        assert!(error.to_string().contains("truncated"), "{error}");
    }
}
