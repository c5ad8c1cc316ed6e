//! The settings of one vring, which come in several messages of the front-end.

use std::sync::Arc;

use ipc::SharedEventFd;
use virtio::queue::PACKED;
use virtio::vring::first_position;
use virtio::{Notifier, Vring, VringLayout};

use super::memory::SharedMemory;
use super::mistake::Mistake;

/// The addresses of a vring's parts in the virtual address space of the front-end process.
#[derive(Clone, Copy)]
pub struct UserLayout {
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
}

impl UserLayout {
    /// The layout with guest-physical addresses. The caller fills in the fields `packed` and
    /// `size`.
    pub fn translate(&self, memory: &SharedMemory) -> Result<VringLayout, Mistake> {
        Ok(VringLayout {
            packed: false,
            size: 0,
            desc: memory.translate(self.desc)?,
            avail: memory.translate(self.avail)?,
            used: memory.translate(self.used)?,
        })
    }
}

/// The known settings of a vring. The vring runs when it is enabled and all settings that it needs
/// are known.
pub struct VringSlot {
    index: u16,
    pub size: u16,
    pub layout: Option<UserLayout>,
    /// The position at which the vring stopped or is to start. `None` means that the position is
    /// not known yet.
    pub next_avail: Option<u16>,
    pub enabled: bool,
    /// The eventfd for kicks from SET_VRING_KICK, which starts the vring. The outer `None` means
    /// that the front-end has not sent this request. The inner `None` means that the device polls
    /// the vring.
    pub kick: Option<Option<Arc<SharedEventFd>>>,
    pub call: Option<Arc<dyn Notifier>>,
    pub error: Option<Arc<dyn Notifier>>,
}

impl VringSlot {
    pub fn new(index: u16) -> Self {
        Self {
            index,
            size: 0,
            layout: None,
            next_avail: None,
            enabled: false,
            kick: None,
            call: None,
            error: None,
        }
    }

    /// The index of the device's queue to which the vring belongs.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The position at which the vring stopped, in the form that GET_VRING_BASE returns. For a
    /// packed vring, the lower half is the position of the next request, and the upper half is the
    /// position of the next used buffer.
    pub fn base(&self, packed: bool) -> u32 {
        let position = self.next_avail.unwrap_or(first_position(packed));
        let used = if packed { position } else { 0 };
        u32::from(position) | u32::from(used) << 16
    }

    /// The vring to start. `None` means that the vring is not enabled, or a setting that it needs
    /// is not known yet.
    pub fn complete(
        &self,
        memory: &SharedMemory,
        features: u64,
        always_enabled: bool,
    ) -> Result<Option<Vring>, Mistake> {
        let enabled = self.enabled || always_enabled;
        let (Some(kick), Some(layout)) = (&self.kick, &self.layout) else {
            return Ok(None);
        };
        if !enabled || self.size == 0 {
            return Ok(None);
        }
        let layout = VringLayout {
            packed: features & PACKED != 0,
            size: self.size,
            ..layout.translate(memory)?
        };
        Ok(Some(Vring {
            index: self.index,
            features,
            layout,
            next_avail: self.next_avail.unwrap_or(first_position(layout.packed)),
            memory: memory.guest().clone(),
            kick: kick.clone(),
            call: self.call.clone(),
            error: self.error.clone(),
        }))
    }
}
