//! Checks a PCI function in sysfs before the function is opened.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Address, Identity, PciError, Wanted};

/// Drivers that do no DMA. VFIO can use an IOMMU group whose other members are bound to these
/// drivers.
const HARMLESS_DRIVERS: [&str; 2] = ["pcieport", "pci-stub"];

/// A PCI function's directory in sysfs.
#[derive(Debug)]
pub struct SysfsDevice {
    address: Address,
    path: PathBuf,
}

impl SysfsDevice {
    /// Finds a function below `root`, which is `/sys`, or another folder in tests.
    ///
    /// # Errors
    ///
    /// [`PciError::NoSuchDevice`].
    pub fn find(root: &Path, address: Address) -> Result<Self, PciError> {
        let path = root.join("bus/pci/devices").join(address.to_string());
        if !path.is_dir() {
            return Err(PciError::NoSuchDevice(address));
        }
        Ok(Self { address, path })
    }

    /// The function's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks the function and its IOMMU group. Returns the number of the group.
    ///
    /// # Errors
    ///
    /// See [`PciError`].
    pub fn check(&self, wanted: Wanted) -> Result<String, PciError> {
        self.check_identity(wanted)?;
        // The IOMMU group is checked before the driver, because binding to vfio-pci is useless if
        // the machine has no IOMMU.
        let group = link_name(&self.path.join("iommu_group"));
        let group = group.ok_or(PciError::NoIommuGroup(self.address))?;
        self.check_driver()?;
        self.check_members(&group)?;
        Ok(group)
    }

    fn check_identity(&self, wanted: Wanted) -> Result<(), PciError> {
        let what = "read what the device is from sysfs";
        let identity = self
            .identity()
            .map_err(|source| PciError::Io { what, source })?;
        if wanted(&identity) {
            return Ok(());
        }
        let address = self.address;
        Err(PciError::Unwanted { address, identity })
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(Identity {
            vendor: self.number("vendor")? as u16,
            device: self.number("device")? as u16,
            subsystem: self.number("subsystem_device")? as u16,
            class: self.number("class")?,
        })
    }

    fn number(&self, file: &str) -> io::Result<u32> {
        let text = fs::read_to_string(self.path.join(file))?;
        let digits = text.trim().trim_start_matches("0x");
        u32::from_str_radix(digits, 16)
            .map_err(|error| io::Error::other(format!("{file}: {error}")))
    }

    fn check_driver(&self) -> Result<(), PciError> {
        let driver = driver_of(&self.path);
        if driver.as_deref() == Some("vfio-pci") {
            return Ok(());
        }
        Err(PciError::NotBound {
            address: self.address,
            driver: driver.unwrap_or_else(|| "no driver".to_owned()),
        })
    }

    fn check_members(&self, group: &str) -> Result<(), PciError> {
        let members = self.members_in_use();
        if members.is_empty() {
            return Ok(());
        }
        Err(PciError::GroupNotViable {
            address: self.address,
            group: group.to_owned(),
            members: members.join(", "),
        })
    }

    /// The address and driver of each group member whose driver keeps VFIO from using the group.
    fn members_in_use(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path.join("iommu_group/devices")) else {
            return Vec::new();
        };
        let mut members: Vec<String> = entries
            .flatten()
            .filter_map(|entry| {
                let driver = driver_of(&entry.path())?;
                let harmless =
                    driver.starts_with("vfio") || HARMLESS_DRIVERS.contains(&driver.as_str());
                let address = entry.file_name();
                (!harmless).then(|| format!("{} with driver {driver}", address.display()))
            })
            .collect();
        members.sort();
        members
    }
}

fn driver_of(device: &Path) -> Option<String> {
    link_name(&device.join("driver"))
}

/// The last component of a symbolic link's target. `None` if `link` is not a symbolic link.
fn link_name(link: &Path) -> Option<String> {
    let target = fs::read_link(link).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
