//! Memory that a device may change at any moment. All accesses of this crate to such memory are in
//! this module.

use std::fs::File;
use std::io;
use std::ptr;
use std::sync::Arc;

use virtio::memory::{Access, MappedRange};
use vm_memory::VolatileSlice;

/// An unsigned integer with the width of a bus access: 1, 2, 4 or 8 bytes.
pub trait Scalar: Copy + Sized + private::Sealed {
    /// The integer's little-endian bytes.
    type Bytes: AsRef<[u8]> + AsMut<[u8]> + Default;

    /// Swaps the bytes on a big-endian host.
    fn to_le(self) -> Self;
    /// Converts the integer to little-endian bytes.
    fn to_bytes(self) -> Self::Bytes;
    /// Converts little-endian bytes to the integer.
    fn from_bytes(bytes: Self::Bytes) -> Self;
}

mod private {
    pub trait Sealed {}
}

macro_rules! scalar {
    ($($int:ty),*) => {$(
        impl private::Sealed for $int {}
        impl Scalar for $int {
            type Bytes = [u8; size_of::<$int>()];

            fn to_le(self) -> Self {
                <$int>::to_le(self)
            }

            fn to_bytes(self) -> Self::Bytes {
                self.to_le_bytes()
            }

            fn from_bytes(bytes: Self::Bytes) -> Self {
                <$int>::from_le_bytes(bytes)
            }
        }
    )*};
}

scalar!(u8, u16, u32, u64);

/// Memory shared with a device. An access to an integer is one volatile, little-endian load or
/// store.
#[derive(Debug)]
pub struct Mapping(MappedRange);

impl Mapping {
    /// Maps `len` bytes of `file` from `offset` on, for reading and writing. `offset` need not be
    /// aligned to a page.
    ///
    /// # Errors
    ///
    /// When the operating system refuses the mapping.
    pub fn new(file: Arc<File>, offset: u64, len: u64) -> io::Result<Self> {
        let range = MappedRange::new(Access::ReadWrite, file, offset, len);
        Ok(Self(range.map_err(io::Error::other)?))
    }

    /// Whether a page of the mapping was missing when this process accessed the page. See
    /// [`MappedRange::is_lost`].
    pub fn is_lost(&self) -> bool {
        self.0.is_lost()
    }

    /// The length of the mapping in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Always false, because a mapping has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Loads an integer.
    ///
    /// # Panics
    ///
    /// When the integer is not inside the mapping or not aligned to its size.
    pub fn read<T: Scalar>(&self, offset: usize) -> T {
        let pointer = self.pointer::<T>(offset);
        // SAFETY: `pointer()` checked that the integer is aligned and inside the mapping, which
        // lives as long as `self`. Any bytes are a valid integer. Devices and other processes may
        // change the memory meanwhile, so the access is volatile, and no reference to this memory
        // exists.
        unsafe { ptr::read_volatile(pointer) }.to_le()
    }

    /// Stores an integer.
    ///
    /// # Panics
    ///
    /// As for [`Mapping::read`].
    pub fn write<T: Scalar>(&self, offset: usize, value: T) {
        let pointer = self.pointer::<T>(offset);
        // SAFETY: the argument for the load in `read()` holds for this store too, and the mapping
        // is writable.
        unsafe { ptr::write_volatile(pointer, value.to_le()) }
    }

    /// Copies `len` bytes out of the mapping.
    ///
    /// # Panics
    ///
    /// When the bytes are not inside the mapping.
    pub fn copy_out(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.slice(offset, len).copy_to(&mut bytes);
        bytes
    }

    /// Copies bytes into the mapping.
    ///
    /// # Panics
    ///
    /// When the bytes do not fit inside the mapping.
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) {
        self.slice(offset, bytes.len()).copy_from(bytes);
    }

    /// The address of the first byte of the mapping.
    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.0.as_ptr()
    }

    fn slice(&self, offset: usize, len: usize) -> VolatileSlice<'_> {
        self.check(offset, len);
        let slice = self.0.slice(offset, len);
        slice.expect("inside the mapping, as was checked")
    }

    fn pointer<T>(&self, offset: usize) -> *mut T {
        self.check(offset, size_of::<T>());
        let pointer = self.as_ptr().wrapping_add(offset).cast::<T>();
        assert!(pointer.is_aligned(), "{offset:#x} is not aligned");
        pointer
    }

    fn check(&self, offset: usize, len: usize) {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.len()),
            "{len} bytes at {offset:#x} are not inside the mapping"
        );
    }
}

/// The size of a page in bytes.
pub(super) fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use virtio::test_utils::anonymous_file;

    #[test]
    fn a_mapping_may_begin_inside_a_page() {
        let file = anonymous_file(0x3000);
        let mapping = Mapping::new(file.clone(), 0x1010, 0xff0).unwrap();
        assert_eq!(mapping.len(), 0xff0);
        mapping.write(2, 0x1234u16);
        mapping.copy_in(4, b"abc");
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, 0x1010).unwrap();
        assert_eq!(&bytes, b"\0\0\x34\x12abc\0");
        assert_eq!(mapping.read::<u32>(4), u32::from_le_bytes(*b"abc\0"));
        assert_eq!(mapping.copy_out(4, 3), b"abc");
    }

    #[test]
    #[should_panic(expected = "not inside the mapping")]
    fn an_access_past_the_end_panics() {
        let mapping = Mapping::new(anonymous_file(0x1000), 0, 0x1000).unwrap();
        mapping.read::<u16>(0xfff);
    }

    #[test]
    #[should_panic(expected = "not aligned")]
    fn an_unaligned_access_panics() {
        let mapping = Mapping::new(anonymous_file(0x1000), 0, 0x1000).unwrap();
        mapping.write(1, 0u16);
    }
}
