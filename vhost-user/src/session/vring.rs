//! One vring, as the front-end's messages build it up.

use std::sync::Arc;

use virtio::queue::PACKED;
use virtio::vring::first_position;
use virtio::{Device, Notifier, RunningVring, StartError, Vring, VringLayout};
use vmm_sys_util::eventfd::EventFd;

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
    pub kick: Option<Option<Arc<EventFd>>>,
    pub call: Option<Arc<dyn Notifier>>,
    pub error: Option<Arc<dyn Notifier>>,
    running: Option<Box<dyn RunningVring>>,
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
            running: None,
        }
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Where it was left, as the front-end is told: of a packed vring, the position of the next
    /// request in the lower half and of the next used buffer in the upper one.
    pub fn base(&self, packed: bool) -> u32 {
        let position = self.next_avail.unwrap_or(first_position(packed));
        let used = if packed { position } else { 0 };
        u32::from(position) | u32::from(used) << 16
    }

    /// Stops the vring if it runs, and remembers how far it got.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            self.next_avail = Some(running.stop());
        }
    }

    /// Starts the vring if it does not run and has all that it needs.
    pub fn start(
        &mut self,
        device: &dyn Device,
        memory: &SharedMemory,
        features: u64,
        always_enabled: bool,
    ) -> Result<(), Mistake> {
        let enabled = self.enabled || always_enabled;
        let (Some(kick), Some(layout)) = (&self.kick, &self.layout) else {
            return Ok(());
        };
        if self.is_running() || !enabled || self.size == 0 {
            return Ok(());
        }
        let layout = VringLayout {
            packed: features & PACKED != 0,
            size: self.size,
            ..layout.translate(memory)?
        };
        let vring = Vring {
            index: self.index,
            features,
            layout,
            next_avail: self.next_avail.unwrap_or(first_position(layout.packed)),
            memory: memory.guest().clone(),
            kick: kick.clone(),
            call: self.call.clone(),
            error: self.error.clone(),
        };
        let queue = self.index;
        let failed = |source: StartError| Mistake::Start { queue, source };
        self.running = Some(device.start(vring).map_err(failed)?);
        Ok(())
    }
}
