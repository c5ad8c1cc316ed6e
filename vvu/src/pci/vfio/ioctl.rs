//! VFIO ioctls. The vfio-ioctls crate lacks these ioctls or hides their results.

use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;

use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_IOMMU_INFO_CAPS, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, VFIO_TYPE,
    vfio_iommu_type1_info,
};
use vmm_sys_util::ioctl::{ioctl, ioctl_with_mut_ref};
use vmm_sys_util::ioctl_io_nr;

ioctl_io_nr!(VFIO_DEVICE_RESET, VFIO_TYPE.into(), VFIO_BASE + 11);
ioctl_io_nr!(VFIO_IOMMU_GET_INFO, VFIO_TYPE.into(), VFIO_BASE + 12);

/// Length of the buffer for the information about an IOMMU and its capabilities, in bytes.
const INFO_SIZE: usize = 4096;

/// The address ranges that are assumed if the kernel does not report the ranges of the IOMMU.
/// Kernels from 5.4 on report the ranges. Every Intel IOMMU translates at least 39 bits. The
/// interrupt window below 4 GiB is left out.
const FALLBACK_RANGES: [RangeInclusive<u64>; 2] = [0..=0xfedf_ffff, 0xfef0_0000..=0x7f_ffff_ffff];

/// A buffer for the information about an IOMMU, followed by the capabilities of the IOMMU.
#[repr(C, align(8))]
struct Info([u8; INFO_SIZE]);

/// The I/O virtual addresses that the container's IOMMU can map.
pub fn iova_ranges(container: &impl AsRawFd) -> io::Result<Vec<RangeInclusive<u64>>> {
    let mut info = Info([0; INFO_SIZE]);
    info.0[..4].copy_from_slice(&(INFO_SIZE as u32).to_ne_bytes());
    // SAFETY: the first field (argsz) holds the size of `info`. The kernel writes at most that
    // number of bytes, and `info` outlives the call.
    let result = unsafe { ioctl_with_mut_ref(container, VFIO_IOMMU_GET_INFO(), &mut info) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let ranges = parse_ranges(&info.0);
    Ok(ranges.unwrap_or_else(|| FALLBACK_RANGES.to_vec()))
}

/// Finds the ranges in the information about an IOMMU. `None` if the information has no ranges.
fn parse_ranges(info: &[u8]) -> Option<Vec<RangeInclusive<u64>>> {
    if u32_at(info, 4)? & VFIO_IOMMU_INFO_CAPS == 0 {
        return None;
    }
    let mut at = u32_at(
        info,
        std::mem::offset_of!(vfio_iommu_type1_info, cap_offset),
    )? as usize;
    // The loop ends because each capability has to lie behind the previous capability.
    while at != 0 {
        let next = u32_at(info, at + 4)? as usize;
        if u16_at(info, at)? == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE as u16 {
            let count = u32_at(info, at + 8)? as usize;
            return (0..count)
                .map(|i| range_at(info, at + 16 + 16 * i))
                .collect();
        }
        at = if next > at { next } else { 0 };
    }
    None
}

fn range_at(info: &[u8], at: usize) -> Option<RangeInclusive<u64>> {
    Some(u64_at(info, at)?..=u64_at(info, at + 8)?)
}

fn u16_at(info: &[u8], at: usize) -> Option<u16> {
    let bytes = info.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

fn u32_at(info: &[u8], at: usize) -> Option<u32> {
    let bytes = info.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn u64_at(info: &[u8], at: usize) -> Option<u64> {
    let bytes = info.get(at..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*bytes))
}

/// Resets the function. Returns false if the function has no reset.
pub fn reset(device: &File) -> io::Result<bool> {
    // SAFETY: `VFIO_DEVICE_RESET` takes no argument and accesses no memory of this process.
    if unsafe { ioctl(device, VFIO_DEVICE_RESET()) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOTTY)) => Ok(false),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Information about an IOMMU. An unrelated capability is at offset 24, and the capability with
    /// the address ranges is at offset 64.
    fn info(ranges: &[(u64, u64)]) -> Vec<u8> {
        let mut info = vec![0; 256];
        let mut put =
            |at: usize, value: u32| info[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        put(4, VFIO_IOMMU_INFO_CAPS);
        put(16, 24);
        put(24, 2);
        put(28, 64);
        put(64, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE);
        put(72, ranges.len() as u32);
        for (i, (start, end)) in ranges.iter().enumerate() {
            let at = 80 + 16 * i;
            info[at..at + 8].copy_from_slice(&start.to_ne_bytes());
            info[at + 8..at + 16].copy_from_slice(&end.to_ne_bytes());
        }
        info
    }

    #[test]
    fn ranges_behind_other_capabilities_are_found() {
        let parsed = parse_ranges(&info(&[(0, 0xfedf_ffff), (0xfef0_0000, u64::MAX)]));
        assert_eq!(parsed, Some(vec![0..=0xfedf_ffff, 0xfef0_0000..=u64::MAX]));
    }

    #[test]
    fn malformed_information_has_no_ranges() {
        let mut cut = info(&[(0, 1)]);
        cut.truncate(90);
        assert_eq!(parse_ranges(&cut), None);
        let mut looping = info(&[(0, 1)]);
        looping[28..32].copy_from_slice(&24u32.to_ne_bytes());
        assert_eq!(parse_ranges(&looping), None);
        let mut without = info(&[(0, 1)]);
        without[4] = 0;
        assert_eq!(parse_ranges(&without), None);
        assert_eq!(parse_ranges(&[]), None);
    }
}
