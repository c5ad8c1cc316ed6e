//! The INTx interrupt of a virtio function. The interrupt is level-triggered, and signals an
//! eventfd of a vfio-user client.
//!
//! Each signal masks the interrupt, as in the VFIO of Linux. The client unmasks the interrupt after
//! the guest has handled it. If the interrupt status is still not 0, the client is signalled again.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipc::SharedEventFd;
use vfio_user::server::IrqAction;

use crate::blocked::Blocked;
use crate::set_irqs::ClientInterrupt;

/// The INTx interrupt, which any thread can raise.
#[derive(Clone, Debug)]
pub struct Intx(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The virtio interrupt status. The interrupt line is active as long as the status is not 0.
    status: Arc<AtomicU8>,
    /// Whether the client has set an eventfd. Without an eventfd, [`Intx::update`] takes no lock,
    /// so the queues of a driver that uses MSI-X do not wait for the lock.
    connected: AtomicBool,
    wire: Mutex<Wire>,
    blocked: Blocked,
}

#[derive(Debug, Default)]
struct Wire {
    eventfd: Option<Arc<SharedEventFd>>,
    /// Whether the interrupt is masked, by the client or by the last signal of the interrupt.
    masked: bool,
    /// Whether software has disabled the interrupt in the command register.
    disabled: bool,
}

impl Intx {
    /// The INTx interrupt of a device whose interrupt status is `status`. The interrupt has no
    /// eventfd yet.
    pub fn new(status: Arc<AtomicU8>, blocked: Blocked) -> Self {
        Self(Arc::new(Shared {
            status,
            connected: AtomicBool::new(false),
            wire: Mutex::default(),
            blocked,
        }))
    }

    /// Signals the client if the interrupt status is not 0 and the interrupt is not masked. Callers
    /// have to call this method after each change of the interrupt status.
    pub fn update(&self) {
        if self.0.connected.load(Ordering::SeqCst) {
            self.change(|_| {});
        }
    }

    /// Disables or enables the interrupt, after software has written the command register.
    pub fn disable(&self, disabled: bool) {
        self.change(|wire| wire.disabled = disabled);
    }

    /// Unmasks and enables the interrupt, but keeps the client's eventfd.
    pub fn reset(&self) {
        let mut wire = self.lock();
        (wire.masked, wire.disabled) = (false, false);
    }

    /// Changes the state of the interrupt. Then signals the client if the interrupt status is not 0
    /// and the interrupt is neither masked nor disabled.
    fn change(&self, change: impl FnOnce(&mut Wire)) {
        let mut wire = self.lock();
        change(&mut wire);
        let up = self.0.status.load(Ordering::SeqCst) != 0;
        let due = up && !wire.masked && !wire.disabled;
        self.signal(wire, due);
    }

    /// If `due` is true and the client has set an eventfd, masks the interrupt and signals the
    /// client.
    fn signal(&self, mut wire: MutexGuard<'_, Wire>, due: bool) {
        let Some(eventfd) = wire.eventfd.clone().filter(|_| due) else {
            return;
        };
        wire.masked = true;
        // The lock is released before the eventfd is signalled. Otherwise other threads would wait
        // for the lock while a malicious client makes the signal block.
        drop(wire);
        if !self.0.blocked.signal(&eventfd) {
            self.lock().masked = false;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Wire> {
        self.0.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientInterrupt for Intx {
    fn act(&self, action: IrqAction) {
        match action {
            IrqAction::Mask => self.change(|wire| wire.masked = true),
            IrqAction::Unmask => self.change(|wire| wire.masked = false),
            IrqAction::Trigger => self.signal(self.lock(), true),
        }
    }

    fn set_eventfd(&self, eventfd: Option<SharedEventFd>) {
        self.change(|wire| {
            self.0.connected.store(eventfd.is_some(), Ordering::SeqCst);
            (wire.eventfd, wire.masked) = (eventfd.map(Arc::new), false);
        });
    }

    fn disconnect(&self) {
        self.set_eventfd(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::set_irqs::tests::eventfd;

    /// An interrupt with an eventfd, the eventfd to read, and the interrupt status.
    fn connected() -> (Intx, SharedEventFd, Arc<AtomicU8>) {
        let status = Arc::new(AtomicU8::new(0));
        let intx = Intx::new(status.clone(), Blocked::default());
        let (seen, fd) = eventfd();
        intx.set_eventfd(Some(SharedEventFd::from_fd(fd).unwrap()));
        (intx, seen, status)
    }

    fn raise(intx: &Intx, status: &AtomicU8) {
        status.store(1, Ordering::SeqCst);
        intx.update();
    }

    #[test]
    fn it_is_signalled_once_until_it_is_unmasked() {
        let (intx, seen, status) = connected();
        intx.update();
        assert!(!seen.take().unwrap(), "nothing happened");
        raise(&intx, &status);
        assert!(seen.take().unwrap());
        raise(&intx, &status);
        assert!(!seen.take().unwrap(), "masked by itself");
        intx.act(IrqAction::Unmask);
        assert!(seen.take().unwrap(), "the status was not read");
        status.store(0, Ordering::SeqCst);
        intx.act(IrqAction::Unmask);
        assert!(!seen.take().unwrap());
        raise(&intx, &status);
        assert!(seen.take().unwrap());
    }

    #[test]
    fn it_waits_while_it_is_masked_or_disabled() {
        let (intx, seen, status) = connected();
        intx.act(IrqAction::Mask);
        raise(&intx, &status);
        assert!(!seen.take().unwrap());
        intx.disable(true);
        intx.act(IrqAction::Unmask);
        assert!(!seen.take().unwrap());
        intx.disable(false);
        assert!(seen.take().unwrap());
    }

    #[test]
    fn a_late_listener_hears_of_it_and_one_that_left_does_not() {
        let (intx, seen, status) = connected();
        intx.disconnect();
        raise(&intx, &status);
        assert!(!seen.take().unwrap());
        let again = SharedEventFd::from_fd(seen.try_clone().unwrap()).unwrap();
        intx.set_eventfd(Some(again));
        assert!(seen.take().unwrap());
        intx.act(IrqAction::Trigger);
        assert!(seen.take().unwrap(), "the client triggers it itself");
    }
}
