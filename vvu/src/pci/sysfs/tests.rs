use std::os::unix::fs::symlink;

use tempfile::TempDir;
use vhost_user::WithCauses;

use super::*;

/// A sysfs with one function that passes all checks. A test may then change a part of the sysfs.
struct FakeSysfs {
    root: TempDir,
}

const ADDRESS: &str = "0000:00:10.0";

impl FakeSysfs {
    fn new() -> Self {
        let fake = Self {
            root: tempfile::tempdir().unwrap(),
        };
        fake.add_device(ADDRESS, "0x1af4", "0x107d", Some("vfio-pci"));
        fake
    }

    fn device(&self, address: &str) -> PathBuf {
        self.root.path().join("bus/pci/devices").join(address)
    }

    fn add_device(&self, address: &str, vendor: &str, device: &str, driver: Option<&str>) {
        let path = self.device(address);
        fs::create_dir_all(&path).unwrap();
        for (file, value) in [
            ("vendor", vendor),
            ("device", device),
            ("subsystem_device", "0x5655"),
            ("class", "0x00ff00"),
        ] {
            fs::write(path.join(file), format!("{value}\n")).unwrap();
        }
        if let Some(driver) = driver {
            symlink(format!("../../drivers/{driver}"), path.join("driver")).unwrap();
        }
        let group = self.root.path().join("kernel/iommu_groups/7");
        fs::create_dir_all(group.join("devices")).unwrap();
        symlink(&group, path.join("iommu_group")).unwrap();
        symlink(&path, group.join("devices").join(address)).unwrap();
    }

    fn check(&self) -> Result<String, String> {
        SysfsDevice::find(self.root.path(), ADDRESS.parse().unwrap())
            .and_then(|device| device.check(|identity| identity.vendor == 0x1af4))
            .map_err(|error| WithCauses(&error).to_string())
    }
}

fn assert_says(result: Result<String, String>, parts: &[&str]) {
    let text = result.unwrap_err();
    assert!(!text.contains('\n'), "one line: {text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[test]
fn a_bound_device_alone_in_its_group_passes_the_checks() {
    assert_eq!(FakeSysfs::new().check(), Ok("7".to_owned()));
}

#[test]
fn the_error_for_a_missing_device_names_its_address() {
    let fake = FakeSysfs::new();
    fs::remove_dir_all(fake.device(ADDRESS)).unwrap();
    assert_says(fake.check(), &["no PCI device 0000:00:10.0", "lspci"]);
}

#[test]
fn the_error_for_another_driver_names_the_commands_that_replace_it() {
    let fake = FakeSysfs::new();
    fs::remove_file(fake.device(ADDRESS).join("driver")).unwrap();
    let commands = [
        "modprobe vfio-pci;",
        "echo vfio-pci > /sys/bus/pci/devices/0000:00:10.0/driver_override;",
        "echo 0000:00:10.0 > /sys/bus/pci/devices/0000:00:10.0/driver/unbind;",
        "echo 0000:00:10.0 > /sys/bus/pci/drivers_probe",
    ];
    assert_says(fake.check(), &["bound to no driver"]);
    assert_says(fake.check(), &commands);
    symlink(
        "../../drivers/virtio-pci",
        fake.device(ADDRESS).join("driver"),
    )
    .unwrap();
    assert_says(fake.check(), &["bound to virtio-pci, not to vfio-pci"]);
}

#[test]
fn the_error_for_a_missing_iommu_names_the_boot_options() {
    let fake = FakeSysfs::new();
    fs::remove_file(fake.device(ADDRESS).join("iommu_group")).unwrap();
    assert_says(fake.check(), &["no IOMMU", "intel_iommu=on"]);
}

#[test]
fn the_error_for_a_group_in_use_names_the_members_in_use() {
    let fake = FakeSysfs::new();
    fake.add_device("0000:00:11.0", "0x8086", "0x1234", Some("pcieport"));
    fake.add_device("0000:00:12.0", "0x8086", "0x1234", None);
    fake.add_device("0000:00:13.0", "0x8086", "0x1234", Some("vfio-pci"));
    assert_eq!(fake.check(), Ok("7".to_owned()), "none of these does DMA");
    fake.add_device("0000:00:14.0", "0x8086", "0x10d3", Some("e1000e"));
    assert_says(
        fake.check(),
        &["group 7", "(0000:00:14.0 with driver e1000e)", "not viable"],
    );
}

#[test]
fn the_error_for_another_device_names_what_it_is() {
    let fake = FakeSysfs::new();
    fs::write(fake.device(ADDRESS).join("vendor"), "0x8086\n").unwrap();
    fs::write(fake.device(ADDRESS).join("device"), "0x10d3\n").unwrap();
    assert_says(
        fake.check(),
        &["is another device", "8086:10d3", "82574L", "class 00ff00"],
    );
}

#[test]
fn invalid_text_in_sysfs_is_an_error() {
    let fake = FakeSysfs::new();
    fs::write(fake.device(ADDRESS).join("class"), "junk\n").unwrap();
    assert_says(fake.check(), &["sysfs", "class"]);
}
