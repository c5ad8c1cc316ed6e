//! One vring, as the front-end's messages build it up.

use std::sync::Arc;

use ipc::SharedEventFd;
use virtio::queue::PACKED;
use virtio::vring::first_position;
use virtio::{Notifier, Vring, VringLayout};

use super::memory::SharedMemory;
use super::mistake::Mistake;

/// Where a vring is in the front-end's own address space.
#[derive(Clone, Copy)]
pub struct UserLayout {
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
}

impl UserLayout {
    /// The same place in the guest's address space; the rest is filled in by the caller.
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

/// What is known of a vring. It runs once everything that it needs is known.
pub struct VringSlot {
    index: u16,
    pub size: u16,
    pub layout: Option<UserLayout>,
    /// Where it was left; `None` as long as nobody has said so.
    pub next_avail: Option<u16>,
    pub enabled: bool,
    /// Set by SET_VRING_KICK, which starts the vring; the inner `None`: it is polled.
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

    /// Which of the device's queues it is.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Where it was left, as the front-end is told: of a packed vring, the position of the next
    /// request in the lower half and of the next used buffer in the upper one.
    pub fn base(&self, packed: bool) -> u32 {
        let position = self.next_avail.unwrap_or(first_position(packed));
        let used = if packed { position } else { 0 };
        u32::from(position) | u32::from(used) << 16
    }

    /// The vring to start, if all that it needs is known and it is enabled.
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
