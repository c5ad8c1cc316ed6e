//! The state of the connection to one front-end.

use std::sync::Arc;

use ipc::SharedEventFd;
use virtio::memory::MemoryLost;
use virtio::queue::PACKED;
use virtio::{Notifier, Region, Runner, Vring};

use super::failure::Failure;
use super::memory::SharedMemory;
use super::mistake::{MAX_CONFIG_SIZE, Mistake};
use super::vring::{UserLayout, VringSlot};
use crate::features::{F_PROTOCOL_FEATURES, ProtocolFeatures};
use crate::memory::{MAX_SLOTS, MemoryError, MemoryTable};
use crate::message::{Head, Reply};
use crate::payload::{ConfigAccess, VringAddr, VringFd, VringState};
use crate::request::Request;
use crate::resources::Attached;

/// The offset of the configuration space among the registers of virtio-mmio.
const MMIO_CONFIG_OFFSET: u32 = 0x100;

/// The agreed features, the memory and the vrings of one front-end.
pub struct Conversation<'a> {
    runner: &'a mut Runner,
    offered_protocol: ProtocolFeatures,
    protocol: ProtocolFeatures,
    features: u64,
    memory: SharedMemory,
    vrings: Vec<VringSlot>,
    /// Signalled when a vring has failed.
    failure: Arc<SharedEventFd>,
}

impl<'a> Conversation<'a> {
    /// A conversation with the first front-end. `failure` is signalled when a vring has failed.
    pub fn new(
        runner: &'a mut Runner,
        offered_protocol: ProtocolFeatures,
        failure: Arc<SharedEventFd>,
    ) -> Self {
        Self {
            vrings: new_slots(runner),
            runner,
            offered_protocol,
            protocol: ProtocolFeatures::empty(),
            features: 0,
            memory: SharedMemory::default(),
            failure,
        }
    }

    /// Returns an error if a page of the front-end's memory was missing when this process accessed
    /// the page.
    pub fn check_memory(&self) -> Result<(), MemoryLost> {
        self.memory.guest().check()
    }

    /// Stops all vrings, and resets the state for the next front-end.
    pub fn restart(&mut self) {
        self.end();
        self.runner.forget_driver();
        self.protocol = ProtocolFeatures::empty();
        self.features = 0;
        self.memory = SharedMemory::default();
        self.vrings = new_slots(self.runner);
    }

    fn end(&mut self) {
        if let Err(error) = self.runner.stop_all() {
            tracing::error!("{error}");
        }
    }

    /// Whether acknowledgements (REPLY_ACK) were agreed on.
    pub fn acks(&self) -> bool {
        self.protocol.contains(ProtocolFeatures::REPLY_ACK)
    }

    fn offered_features(&self) -> u64 {
        self.runner.features() | F_PROTOCOL_FEATURES
    }

    /// Handles a request. Returns a reply if the request has a reply of its own.
    pub fn handle(
        &mut self,
        head: Head,
        request: Request<Attached>,
    ) -> Result<Option<Reply>, Mistake> {
        self.check_negotiated(head)?;
        let number = |value| Ok(Some(Reply::number(value)));
        match request {
            Request::GetFeatures => return number(self.offered_features()),
            Request::GetProtocolFeatures => return number(self.offered_protocol.bits()),
            Request::GetQueueNum => return number(self.vrings.len() as u64),
            Request::GetMaxMemSlots => return number(MAX_SLOTS as u64),
            Request::GetConfig(access) => return self.get_config(access).map(Some),
            Request::GetVringBase(state) => return self.get_vring_base(state).map(Some),

            // The front-end is the only owner, so SET_OWNER changes nothing. RESET_OWNER is
            // deprecated, and the specification allows ignoring it.
            Request::SetOwner | Request::ResetOwner => {}
            Request::SetFeatures(features) => self.set_features(features)?,
            Request::SetProtocolFeatures(features) => self.set_protocol_features(features)?,
            Request::SetConfig(access) => self.set_config(&access)?,
            Request::SetMemTable(table) => self.set_memory(|_| Ok(table))?,
            Request::AddMemReg(table) => {
                let mut added = table.into_regions().into_iter();
                self.set_memory(|memory| {
                    added.try_fold(memory.table().clone(), |table, region| table.with(region))
                })?;
            }
            Request::RemMemReg(region) => {
                self.set_memory(|memory| memory.table().without(&region))?;
            }
            Request::SetVringNum(state) => self.set_vring_num(state)?,
            Request::SetVringAddr(addr) => self.set_vring_addr(&addr)?,
            Request::SetVringBase(state) => self.set_vring_base(state)?,
            Request::SetVringEnable(state) => self.set_vring_enable(state)?,
            Request::SetVringKick(VringFd { index, fd }) => {
                self.change_vring(index.into(), |vring| vring.kick = Some(fd))?;
            }
            Request::SetVringCall(VringFd { index, fd }) => {
                self.set_vring_call(index, fd)?;
            }
            Request::SetVringErr(VringFd { index, fd }) => {
                self.set_vring_err(index, fd)?;
            }
            Request::SetBackEndReqFd(_) => return Err(Mistake::NotOffered),
            Request::Raw { .. } if head.kind().is_some() => return Err(Mistake::NotOffered),
            Request::Raw { .. } => return Err(Mistake::Unknown),
        }
        Ok(None)
    }

    /// Refuses requests that belong to a protocol feature that was not agreed on.
    fn check_negotiated(&self, head: Head) -> Result<(), Mistake> {
        let needed = head.kind().map(|kind| kind.needs).unwrap_or_default();
        if !self.offered_protocol.contains(needed) {
            return Err(Mistake::NotOffered);
        }
        if !self.protocol.contains(needed) {
            return Err(Mistake::NotNegotiated(needed));
        }
        Ok(())
    }

    fn set_features(&mut self, features: u64) -> Result<(), Mistake> {
        let unknown = features & !self.offered_features();
        if unknown != 0 {
            return Err(Mistake::Features(unknown));
        }
        if features == self.features {
            return Ok(());
        }
        self.stop_all()?;
        self.features = features;
        self.start_all()
    }

    fn set_protocol_features(&mut self, features: ProtocolFeatures) -> Result<(), Mistake> {
        let unknown = features.bits() & !self.offered_protocol.bits();
        if unknown != 0 {
            return Err(Mistake::ProtocolFeatures(unknown));
        }
        self.protocol = features;
        Ok(())
    }

    fn get_config(&self, access: ConfigAccess) -> Result<Reply, Mistake> {
        check_range(&access)?;
        let mut data = vec![0; access.size as usize];
        self.runner
            .device()
            .read_config(access.offset as usize, &mut data);
        Ok(Reply::bytes(ConfigAccess { data, ..access }.encode()))
    }

    fn set_config(&self, access: &ConfigAccess) -> Result<(), Mistake> {
        check_range(access)?;
        let offset = access.offset as usize;
        Ok(self.runner.device().write_config(offset, &access.data)?)
    }

    /// Stops every vring, changes the memory, and starts the vrings again in the new memory. If the
    /// change is refused, no vring is stopped.
    fn set_memory(
        &mut self,
        change: impl FnOnce(&SharedMemory) -> Result<MemoryTable<Arc<Region>>, MemoryError>,
    ) -> Result<(), Mistake> {
        let memory = SharedMemory::new(change(&self.memory)?)?;
        self.stop_all()?;
        self.memory = memory;
        self.start_all()
    }

    fn set_vring_num(&mut self, state: VringState) -> Result<(), Mistake> {
        let (size, max) = (state.num, self.runner.max_queue_size());
        let possible = size.is_power_of_two() || size > 0 && self.is_packed();
        if !possible || size > u32::from(max) {
            return Err(Mistake::QueueSize { size, max });
        }
        self.change_vring(state.index, |vring| vring.size = size as u16)
    }

    fn set_vring_base(&mut self, state: VringState) -> Result<(), Mistake> {
        let base = match self.is_packed() {
            // The lower half is the position of the next request, and the upper half is the
            // position of the next used buffer. A stopped vring has no requests in flight, so the
            // positions are equal. The upper half is ignored, because some front-ends do not set
            // it.
            true => state.num as u16,
            false => u16::try_from(state.num).map_err(|_| Mistake::Base(state.num))?,
        };
        self.change_vring(state.index, |vring| vring.next_avail = Some(base))
    }

    fn set_vring_addr(&mut self, addr: &VringAddr) -> Result<(), Mistake> {
        let layout = UserLayout {
            desc: addr.desc,
            avail: addr.avail,
            used: addr.used,
        };
        layout.translate(&self.memory)?;
        self.change_vring(addr.index, |vring| vring.layout = Some(layout))
    }

    fn set_vring_enable(&mut self, state: VringState) -> Result<(), Mistake> {
        let enabled = match state.num {
            0 => false,
            1 => true,
            other => return Err(Mistake::Enable(other)),
        };
        if self.vring(state.index)?.enabled == enabled {
            return Ok(());
        }
        self.change_vring(state.index, |vring| vring.enabled = enabled)
    }

    fn set_vring_err(
        &mut self,
        index: u8,
        error: Option<Arc<dyn Notifier>>,
    ) -> Result<(), Mistake> {
        self.vring(index.into())?.error = error.clone();
        self.runner.set_error(index.into(), self.report_to(error));
        Ok(())
    }

    /// The notifier that reports a failed vring to the session and to the front-end.
    fn report_to(&self, front_end: Option<Arc<dyn Notifier>>) -> Option<Arc<dyn Notifier>> {
        Some(Arc::new(Failure {
            session: self.failure.clone(),
            front_end,
        }))
    }

    fn set_vring_call(
        &mut self,
        index: u8,
        call: Option<Arc<dyn Notifier>>,
    ) -> Result<(), Mistake> {
        self.vring(index.into())?.call = call.clone();
        self.runner.set_call(index.into(), call.clone());
        // Signal now, because the device may have used buffers while there was no call notifier.
        match call {
            Some(call) if self.runner.is_started(index.into()) => {
                let called = call.notify();
                called.map_err(|source| Mistake::Call { index, source })
            }
            _ => Ok(()),
        }
    }

    fn get_vring_base(&mut self, state: VringState) -> Result<Reply, Mistake> {
        let packed = self.is_packed();
        self.stop(state.index)?;
        let vring = self.vring(state.index)?;
        vring.kick = None;
        let num = vring.base(packed);
        Ok(Reply::bytes(VringState { num, ..state }.encode()))
    }

    fn is_packed(&self) -> bool {
        self.features & PACKED != 0
    }

    fn vring(&mut self, index: u32) -> Result<&mut VringSlot, Mistake> {
        let found = self.vrings.get_mut(index as usize);
        found.ok_or(Mistake::Queue(index))
    }

    fn change_vring(
        &mut self,
        index: u32,
        change: impl FnOnce(&mut VringSlot),
    ) -> Result<(), Mistake> {
        self.stop(index)?;
        change(self.vring(index)?);
        self.start(index)
    }

    /// Stops a vring if it runs, and remembers the vring's position.
    fn stop(&mut self, index: u32) -> Result<(), Mistake> {
        let slot = self.vring(index)?;
        let queue = slot.index();
        if self.runner.is_started(queue) {
            self.runner.stop([queue])?;
            self.vring(index)?.next_avail = self.runner.next_avail(queue);
        }
        Ok(())
    }

    /// Starts a vring if it does not run, is enabled, and has all settings that it needs.
    fn start(&mut self, index: u32) -> Result<(), Mistake> {
        let always_enabled = self.features & F_PROTOCOL_FEATURES == 0;
        let slot = self.vrings.get(index as usize);
        let slot = slot.ok_or(Mistake::Queue(index))?;
        let queue = slot.index();
        if self.runner.is_started(queue) {
            return Ok(());
        }
        let Some(vring) = slot.complete(&self.memory, self.features, always_enabled)? else {
            return Ok(());
        };
        let started = self.runner.start(Vring {
            error: self.report_to(vring.error),
            ..vring
        });
        started.map_err(|source| Mistake::Start { queue, source })
    }

    /// Starts all vrings that can be started. Returns the first failure.
    fn start_all(&mut self) -> Result<(), Mistake> {
        let indices = 0..self.vrings.len() as u32;
        let results: Vec<_> = indices.map(|index| self.start(index)).collect();
        results.into_iter().collect()
    }

    /// Stops all running vrings at the same time, and remembers their positions.
    fn stop_all(&mut self) -> Result<(), Mistake> {
        let slots = self.vrings.iter_mut();
        let running: Vec<_> = slots
            .filter(|slot| self.runner.is_started(slot.index()))
            .collect();
        let stopped = self.runner.stop_all();
        for slot in running {
            slot.next_avail = self.runner.next_avail(slot.index());
        }
        Ok(stopped?)
    }
}

impl Drop for Conversation<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

fn new_slots(runner: &Runner) -> Vec<VringSlot> {
    (0..runner.queue_count()).map(VringSlot::new).collect()
}

/// Checks that an access lies inside the maximum size of a configuration space.
fn check_range(access: &ConfigAccess) -> Result<(), Mistake> {
    let &ConfigAccess { offset, size, .. } = access;
    match offset.checked_add(size) {
        Some(end) if end <= MAX_CONFIG_SIZE => Ok(()),
        _ if offset == MMIO_CONFIG_OFFSET => Err(Mistake::MmioConfigOffset),
        _ => Err(Mistake::ConfigRange { offset, size }),
    }
}
