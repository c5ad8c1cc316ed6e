//! The registers of a mock device.

use std::io;

use virtio::pci::{NO_VECTOR, common};

use super::{BarOffset, State};
use vvu_abi::{config, notification};

/// A structure of registers in a BAR of the mock device.
#[derive(Clone, Copy, Debug)]
enum Structure {
    Common,
    Config,
    Notify,
    Doorbell,
    Notification,
}

impl State {
    fn locate(&self, bar: u8, offset: u64) -> io::Result<(Structure, u64)> {
        let profile = &self.profile;
        [
            (Structure::Common, profile.common, common::SIZE),
            (Structure::Config, profile.config, config::SIZE),
            (Structure::Notify, profile.notify, 0x1000),
            (Structure::Doorbell, profile.doorbell, 0x2000),
            (
                Structure::Notification,
                profile.notification,
                notification::SIZE,
            ),
        ]
        .into_iter()
        .find_map(|(structure, BarOffset(at_bar, start), len)| {
            let inside = at_bar == bar && (start..start + len).contains(&offset);
            inside.then(|| (structure, offset - start))
        })
        .ok_or_else(|| io::Error::other(format!("nothing at {offset:#x} of BAR {bar}")))
    }

    pub(super) fn read(&mut self, bar: u8, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let value = match self.locate(bar, offset)? {
            (Structure::Common, at) => self.read_common(at),
            (Structure::Config, config::STATUS) => u64::from(self.read_config_status()),
            (Structure::Config, config::MAX_VHOST_QUEUES) => self.profile.max_vhost_queues.into(),
            (Structure::Notification, notification::SELECT) => self.notification_select.into(),
            (Structure::Notification, notification::VECTOR) => {
                let selected = usize::from(self.notification_select);
                self.notifications
                    .get(selected)
                    .copied()
                    .unwrap_or(NO_VECTOR)
                    .into()
            }
            (structure, at) => panic!("read of {structure:?}+{at:#x}"),
        };
        data.copy_from_slice(&value.to_le_bytes()[..data.len()]);
        Ok(())
    }

    fn read_config_status(&mut self) -> u32 {
        if self.config_status == 0 && self.lies.slow_disconnect > 0 {
            self.lies.slow_disconnect -= 1;
            return 1;
        }
        self.config_status
    }

    fn read_common(&mut self, at: u64) -> u64 {
        if at == common::DEVICE_STATUS {
            return self.read_status().into();
        }
        let selected = self.rings.get(usize::from(self.queue_select));
        let ring = selected.cloned().unwrap_or_default();
        match at {
            common::DEVICE_FEATURE if self.device_select > 1 => 0,
            common::DEVICE_FEATURE => {
                self.profile.features >> (32 * self.device_select) & 0xffff_ffff
            }
            common::CONFIG_MSIX_VECTOR => self.config_vector.into(),
            common::NUM_QUEUES => self.profile.queue_count.into(),
            common::QUEUE_SIZE => ring.size.into(),
            common::QUEUE_MSIX_VECTOR => ring.vector.into(),
            common::QUEUE_NOTIFY_OFF => ring.notify_off.into(),
            _ => panic!("read of common+{at:#x}"),
        }
    }

    fn read_status(&mut self) -> u8 {
        if self.status == 0 && self.lies.slow_reset > 0 {
            self.lies.slow_reset -= 1;
            return 0x80;
        }
        self.status
    }

    pub(super) fn write(&mut self, bar: u8, offset: u64, data: &[u8]) -> io::Result<()> {
        let (structure, at) = self.locate(bar, offset)?;
        let mut bytes = [0; 8];
        bytes[..data.len()].copy_from_slice(data);
        let value = u64::from_le_bytes(bytes);
        self.log(format!("{structure:?}+{at:#x}={value:#x}/{}", data.len()));
        match structure {
            Structure::Common => self.write_common(at, value),
            Structure::Config if at == config::STATUS => self.set_config_status(value as u32),
            Structure::Config => panic!("only the status may be written"),
            Structure::Notify => self.write_notify(at)?,
            Structure::Doorbell => self.rung.push((at, data.to_vec())),
            Structure::Notification if at == notification::SELECT => {
                self.notification_select = value as u16;
            }
            Structure::Notification => self.write_notification(value as u16),
        }
        Ok(())
    }

    fn write_notify(&mut self, at: u64) -> io::Result<()> {
        let place = |ring: &super::ring::Ring| u64::from(ring.notify_off) * 4;
        let index = self.rings.iter().position(|ring| place(ring) == at);
        let index = index.ok_or_else(|| io::Error::other("no queue has this register"))?;
        self.notified(index as u16);
        Ok(())
    }

    fn write_notification(&mut self, vector: u16) {
        let refused = self.lies.refuse_notifications;
        let selected = usize::from(self.notification_select);
        if let Some(slot) = self.notifications.get_mut(selected).filter(|_| !refused) {
            *slot = vector;
        }
    }

    fn write_common(&mut self, at: u64, value: u64) {
        let refused = self.lies.refuse_vector == Some(value as u16);
        let vector = if refused { NO_VECTOR } else { value as u16 };
        match at {
            common::DEVICE_FEATURE_SELECT => self.device_select = value as u32,
            common::DRIVER_FEATURE_SELECT => self.driver_select = value as u32,
            common::DRIVER_FEATURE => {
                let shift = 32 * self.driver_select;
                self.driver_features &= !(0xffff_ffff << shift);
                self.driver_features |= value << shift;
            }
            common::CONFIG_MSIX_VECTOR => self.config_vector = vector,
            common::DEVICE_STATUS => self.write_status(value as u8),
            common::QUEUE_SELECT => self.queue_select = value as u16,
            _ => self.write_ring(at, value, vector),
        }
    }

    fn write_status(&mut self, value: u8) {
        if value == 0 {
            return self.reset();
        }
        let unacceptable = self.profile.features & 1 << 33 & !self.driver_features != 0;
        let refused = self.lies.refuse_features || unacceptable;
        self.status = if refused { value & !8 } else { value };
        if value & 4 != 0 && self.lies.always_broken {
            self.break_down();
        }
    }

    fn write_ring(&mut self, at: u64, value: u64, vector: u16) {
        let fixed = self.lies.fixed_queue_size;
        let Some(ring) = self.rings.get_mut(usize::from(self.queue_select)) else {
            return;
        };
        assert!(
            !ring.enabled || vector == NO_VECTOR,
            "configured while in use"
        );
        let half = |old: u64, high: bool| {
            if high {
                old & 0xffff_ffff | value << 32
            } else {
                old & !0xffff_ffff | value
            }
        };
        match at {
            common::QUEUE_SIZE if fixed => {}
            common::QUEUE_SIZE => ring.size = value as u16,
            common::QUEUE_MSIX_VECTOR => ring.vector = vector,
            common::QUEUE_ENABLE => ring.enabled = true,
            0x20 | 0x24 => ring.desc = half(ring.desc, at == 0x24),
            0x28 | 0x2c => ring.avail = half(ring.avail, at == 0x2c),
            0x30 | 0x34 => ring.used = half(ring.used, at == 0x34),
            _ => panic!("write of common+{at:#x}"),
        }
    }
}
