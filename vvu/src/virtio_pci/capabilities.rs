//! Finds the registers of a virtio device.

use std::io;
use std::sync::Arc;

use virtio::pci::{Capability, config_space};

use super::VirtioError;
use crate::pci::{BAR_COUNT, PciFunction, Registers};

/// Length in bytes of the conventional part of configuration space, which holds the capabilities.
const CONFIG_SIZE: usize = 256;
/// The first offset at which a capability can begin.
const FIRST: usize = 0x40;
/// The maximum number of capabilities in configuration space. Each capability has at least 4 bytes.
const MAX_CAPABILITIES: usize = (CONFIG_SIZE - FIRST) / 4;

/// The virtio capabilities of a device, in the order of the capability list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(Vec<Capability>);

impl Capabilities {
    /// Reads the capabilities from configuration space. Invalid capabilities are skipped.
    ///
    /// # Errors
    ///
    /// As for [`PciFunction::read_config`].
    pub fn read(function: &dyn PciFunction) -> io::Result<Self> {
        let mut config = [0; CONFIG_SIZE];
        for (i, word) in config.chunks_exact_mut(4).enumerate() {
            function.read_config(4 * i as u64, word)?;
        }
        Ok(Self::parse(&config))
    }

    /// Finds the capabilities in the bytes of configuration space.
    pub fn parse(config: &[u8; CONFIG_SIZE]) -> Self {
        let status = u16::from_le_bytes([
            config[config_space::STATUS],
            config[config_space::STATUS + 1],
        ]);
        if status & config_space::STATUS_CAPABILITIES == 0 {
            return Self::default();
        }
        let mut found: Vec<Capability> = Vec::new();
        let mut at = usize::from(config[config_space::CAPABILITIES] & !3);
        for _ in 0..MAX_CAPABILITIES {
            let Some(bytes) = config
                .get(at..)
                .filter(|bytes| at >= FIRST && bytes.len() >= 4)
            else {
                break;
            };
            found.extend(Capability::decode(bytes).filter(|cap| cap.bar < BAR_COUNT));
            at = usize::from(bytes[1] & !3);
        }
        Self(found)
    }

    /// The first capability of type `cfg_type`.
    ///
    /// # Errors
    ///
    /// [`VirtioError::MissingCapability`].
    pub fn find(&self, cfg_type: u8) -> Result<&Capability, VirtioError> {
        self.find_like(cfg_type, |_| true)
    }

    /// The first capability of type `cfg_type` for which `is_meant` returns true. Some capability
    /// types have more than one meaning.
    ///
    /// # Errors
    ///
    /// [`VirtioError::MissingCapability`].
    pub fn find_like(
        &self,
        cfg_type: u8,
        is_meant: fn(&Capability) -> bool,
    ) -> Result<&Capability, VirtioError> {
        let mut of_type = self.0.iter().filter(|cap| cap.cfg_type == cfg_type);
        let found = of_type.find(|cap| is_meant(cap));
        found.ok_or(VirtioError::MissingCapability(cfg_type))
    }

    /// The registers that the capability of type `cfg_type` describes, accessed by system calls or
    /// by messages to a vfio-user server. The registers have to be at least `needed` bytes long.
    ///
    /// # Errors
    ///
    /// [`VirtioError`] when the registers are missing, too short, or not inside their BAR.
    pub fn trapped(
        &self,
        function: &Arc<dyn PciFunction>,
        cfg_type: u8,
        needed: u64,
    ) -> Result<Registers, VirtioError> {
        let cap = self.checked(function.as_ref(), cfg_type, needed)?;
        let (offset, len) = (u64::from(cap.offset), u64::from(cap.length));
        Ok(Registers::trapped(function.clone(), cap.bar, offset, len))
    }

    /// The registers that the capability of type `cfg_type` describes, mapped into memory if the
    /// function allows a mapping. The registers have to be at least `needed` bytes long.
    ///
    /// # Errors
    ///
    /// As for [`Capabilities::trapped`], or when the operating system refuses a mapping.
    pub fn mapped(
        &self,
        function: &Arc<dyn PciFunction>,
        cfg_type: u8,
        needed: u64,
    ) -> Result<Registers, VirtioError> {
        let cap = self.checked(function.as_ref(), cfg_type, needed)?;
        let (offset, len) = (u64::from(cap.offset), u64::from(cap.length));
        Ok(Registers::mapped(function.clone(), cap.bar, offset, len)?)
    }

    fn checked(
        &self,
        function: &dyn PciFunction,
        cfg_type: u8,
        needed: u64,
    ) -> Result<&Capability, VirtioError> {
        let cap = self.find(cfg_type)?;
        let (offset, len) = (u64::from(cap.offset), u64::from(cap.length));
        let bar_size = function.bar_size(cap.bar);
        if offset + len > bar_size {
            return Err(VirtioError::OutsideBar {
                cfg_type,
                bar: cap.bar,
                offset,
                len,
                bar_size,
            });
        }
        if len < needed {
            return Err(VirtioError::TooShort {
                cfg_type,
                len,
                needed,
            });
        }
        Ok(cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A configuration space with these capabilities. The capabilities are 32 bytes apart and
    /// linked in order.
    fn config(capabilities: &[&[u8]]) -> [u8; CONFIG_SIZE] {
        let mut config = [0; CONFIG_SIZE];
        config[config_space::STATUS] = config_space::STATUS_CAPABILITIES as u8;
        let mut link = config_space::CAPABILITIES;
        for (i, bytes) in capabilities.iter().enumerate() {
            let at = FIRST + 32 * i;
            config[at..at + bytes.len()].copy_from_slice(bytes);
            config[link] = at as u8;
            link = at + 1;
        }
        config
    }

    fn capability(cfg_type: u8, bar: u8, offset: u32) -> Capability {
        Capability {
            cfg_type,
            bar,
            offset,
            length: 0x1000,
            multiplier: None,
        }
    }

    #[test]
    fn capabilities_of_known_devices_are_read() {
        let doorbell = [
            9, 0, 0x14, 6, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 4, 0, 0, 0,
        ];
        let notification = [9, 0, 0x10, 7, 2, 0, 0, 0, 0, 0x20, 0, 0, 0, 0x10, 0, 0];
        let qemu_memory = [9, 0, 0x10, 8, 2, 0, 0, 0, 0, 0x30, 0, 0, 0, 0x10, 0, 0];
        let crosvm_8g = [9, 0, 0x10, 8, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let crosvm_2g = [9, 0, 0x10, 8, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80];
        let found = Capabilities::parse(&config(&[&qemu_memory, &notification, &doorbell]));
        let doorbell = found.find(6).unwrap();
        assert_eq!(
            (doorbell.bar, doorbell.offset, doorbell.length),
            (2, 0, 0x2000)
        );
        assert_eq!(doorbell.multiplier, Some(4));
        assert_eq!(*found.find(7).unwrap(), capability(7, 2, 0x2000));
        assert_eq!(*found.find(8).unwrap(), capability(8, 2, 0x3000));
        for (bytes, length) in [(crosvm_8g, 0), (crosvm_2g, 0x8000_0000)] {
            let found = Capabilities::parse(&config(&[&bytes]));
            let memory = found.find(8).unwrap();
            assert_eq!((memory.bar, memory.offset, memory.length), (4, 0, length));
        }
    }

    #[test]
    fn the_first_capability_of_a_type_is_used_and_others_are_skipped() {
        let unknown = capability(99, 0, 0).encode();
        let first = capability(1, 0, 0x100).encode();
        let second = capability(1, 0, 0x200).encode();
        let msix = [0x11, 0, 0x12, 0];
        let found = Capabilities::parse(&config(&[&unknown, &msix, &first, &second]));
        assert_eq!(found.find(1).unwrap().offset, 0x100);
    }

    /// Virtio 1.2 gave the capability type of VVU's shared memory to another capability, which has
    /// 24 bytes.
    #[test]
    fn a_capability_is_found_among_others_of_its_type_by_its_meaning() {
        let memory_of_virtio_1_2 = [
            9, 0, 24, 8, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0,
        ];
        let plain = capability(8, 2, 0x3000);
        let found = Capabilities::parse(&config(&[&memory_of_virtio_1_2, &plain.encode()]));
        let is_plain = |cap: &Capability| cap.multiplier.is_none();
        assert_eq!(*found.find_like(8, is_plain).unwrap(), plain);
        assert_eq!(found.find(8).unwrap().bar, 4);
    }

    #[test]
    fn a_list_with_a_cycle_or_an_invalid_link_ends() {
        let first = capability(1, 0, 0).encode();
        let mut looping = config(&[&first]);
        looping[FIRST + 1] = FIRST as u8;
        assert!(Capabilities::parse(&looping).find(1).is_ok());
        for link in [1, 0x3f, 0xfe, 0xff] {
            let mut wild = config(&[&first]);
            wild[FIRST + 1] = link;
            assert!(Capabilities::parse(&wild).find(1).is_ok(), "link {link:#x}");
        }
        let mut low = config(&[&first]);
        low[config_space::CAPABILITIES] = 0x3c;
        assert_eq!(Capabilities::parse(&low), Capabilities::default());
    }

    #[test]
    fn invalid_capabilities_and_those_outside_of_a_list_are_skipped() {
        let short = [9, 0, 15, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let high_bar = capability(2, 6, 0).encode();
        let found = Capabilities::parse(&config(&[&short, &high_bar]));
        assert_eq!(found, Capabilities::default());
        assert!(matches!(
            found.find(8),
            Err(VirtioError::MissingCapability(8))
        ));
        let mut without_list = config(&[&capability(1, 0, 0).encode()]);
        without_list[config_space::STATUS] = 0;
        assert_eq!(Capabilities::parse(&without_list), Capabilities::default());
    }

    #[test]
    fn a_capability_that_runs_past_the_end_is_skipped() {
        let mut config = config(&[]);
        config[config_space::CAPABILITIES] = 0xfc;
        config[0xfc..].copy_from_slice(&[9, 0, 16, 1]);
        assert_eq!(Capabilities::parse(&config), Capabilities::default());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), CONFIG_SIZE)) {
            let mut config: [u8; CONFIG_SIZE] = bytes.try_into().unwrap();
            config[config_space::STATUS] |= config_space::STATUS_CAPABILITIES as u8;
            let Capabilities(found) = Capabilities::parse(&config);
            prop_assert!(found.len() <= MAX_CAPABILITIES);
            prop_assert!(found.iter().all(|cap| cap.bar < BAR_COUNT));
        }
    }
}
