//! The identity of a PCI function.

use std::fmt;
use std::io;

use virtio::pci::config_space;

use super::PciFunction;

/// The identity of a PCI function, which consists of the ids in its configuration space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Subsystem id.
    pub subsystem: u16,
    /// Class, subclass and programming interface, 8 bits each.
    pub class: u32,
}

impl Identity {
    /// Reads the identity from configuration space.
    ///
    /// # Errors
    ///
    /// As for [`PciFunction::read_config`].
    pub fn read(function: &dyn PciFunction) -> io::Result<Self> {
        let mut header = [0; 0x40];
        function.read_config(0, &mut header)?;
        let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let class = &header[config_space::CLASS..config_space::CLASS + 3];
        Ok(Self {
            vendor: u16_at(config_space::VENDOR_ID),
            device: u16_at(config_space::DEVICE_ID),
            subsystem: u16_at(config_space::SUBSYSTEM_ID),
            class: u32::from_le_bytes([class[0], class[1], class[2], 0]),
        })
    }

    fn name(&self) -> Option<String> {
        let known = pci_ids::Device::from_vid_pid(self.vendor, self.device)?;
        Some(format!("{} {}", known.vendor().name(), known.name()))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        let name = name.as_deref().unwrap_or("unknown");
        let Self { vendor, device, .. } = self;
        write!(
            f,
            "{vendor:04x}:{device:04x}, {name}, class {:06x}",
            self.class
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(vendor: u16, device: u16) -> Identity {
        Identity {
            vendor,
            device,
            class: 0x02_0000,
            ..Identity::default()
        }
    }

    #[test]
    fn the_text_has_the_name_of_a_known_device_and_the_class() {
        for (vendor, device, shown) in [
            (0x8086, 0x10d3, "82574L Gigabit Network Connection"),
            (0xfffe, 0x0001, "unknown"),
        ] {
            let text = identity(vendor, device).to_string();
            assert!(text.contains(shown), "{text}");
            assert!(text.ends_with("class 020000"), "{text}");
        }
    }
}
