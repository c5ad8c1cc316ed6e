//! Translates errors of VFIO.

use std::io;
use std::path::PathBuf;

use vfio_ioctls::VfioError;

use crate::pci::{Address, PciError};

/// The error for a function at `address`, of IOMMU group `group`, that cannot be opened.
pub fn explain(error: VfioError, address: Address, group: &str) -> PciError {
    let container = PathBuf::from("/dev/vfio/vfio");
    let group_node = PathBuf::from(format!("/dev/vfio/{group}"));
    match error {
        VfioError::OpenContainer(error) => explain_open(error, container, address),
        VfioError::OpenGroup(error, _) => explain_open(error, group_node, address),
        VfioError::ContainerSetIOMMU(error) if error.errno() == libc::EPERM => {
            PciError::NoInterruptRemapping(address)
        }
        VfioError::GroupViable => PciError::GroupNotViable {
            address,
            group: group.to_owned(),
            members: format!("see /sys/kernel/iommu_groups/{group}/devices"),
        },
        VfioError::VfioExtension => PciError::NoType1(address),
        source => PciError::Vfio { address, source },
    }
}

fn explain_open(source: io::Error, node: PathBuf, address: Address) -> PciError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => PciError::NoPermission(node),
        io::ErrorKind::NotFound => PciError::NoVfio(node),
        io::ErrorKind::ResourceBusy => PciError::Busy(node),
        _ => PciError::Node {
            address,
            node,
            source,
        },
    }
}

/// The error for `len` bytes that cannot be mapped for DMA.
pub fn explain_dma(error: VfioError, len: usize) -> PciError {
    match error {
        VfioError::IommuDmaMap(error) if error.errno() == libc::ENOMEM => PciError::MemlockLimit {
            kib: len.div_ceil(1024),
        },
        VfioError::IommuDmaMap(error) => PciError::Io {
            what: "map memory for DMA",
            source: error.into(),
        },
        error => PciError::Io {
            what: "map memory for DMA",
            source: io::Error::other(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vhost_user::WithCauses;
    use vmm_sys_util::errno::Error as Errno;

    fn text(error: VfioError) -> String {
        WithCauses(&explain(error, "00:10.0".parse().unwrap(), "7")).to_string()
    }

    #[test]
    fn each_error_names_the_cause_and_what_to_do() {
        let os = io::Error::from_raw_os_error;
        for (error, parts) in [
            (
                VfioError::OpenContainer(os(libc::ENOENT)),
                ["/dev/vfio/vfio does not exist", "modprobe vfio-pci"],
            ),
            (
                VfioError::OpenGroup(os(libc::EACCES), "7".into()),
                ["no permission to open /dev/vfio/7", "root"],
            ),
            (
                VfioError::OpenGroup(os(libc::EBUSY), "7".into()),
                ["/dev/vfio/7 is in use", "another process"],
            ),
            (
                VfioError::ContainerSetIOMMU(Errno::new(libc::EPERM)),
                ["does not remap interrupts", "allow_unsafe_interrupts=1"],
            ),
            (VfioError::GroupViable, ["group 7", "not viable"]),
            (
                VfioError::VfioExtension,
                ["0000:00:10.0", "vfio_iommu_type1"],
            ),
            (
                VfioError::OpenGroup(os(libc::EIO), "7".into()),
                ["/dev/vfio/7", "error"],
            ),
        ] {
            let text = text(error);
            assert!(!text.contains('\n'), "{text}");
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }

    #[test]
    fn the_error_for_a_low_memlock_limit_names_ulimit() {
        let error = explain_dma(VfioError::IommuDmaMap(Errno::new(libc::ENOMEM)), 8193);
        let text = error.to_string();
        assert!(
            text.contains("9 KiB") && text.contains("ulimit -l"),
            "{text}"
        );
    }
}
