//! The INTx interrupt of a virtio function: a level, which a vfio-user client takes as an eventfd.
//!
//! As in a kernel's VFIO, it is masked once it was signalled. The client unmasks it when its guest has
//! looked, and is signalled again if the interrupt status is still not 0.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use tracing::debug;
use vfio_user::server::{IrqAction, IrqData, SetIrqs};

use crate::signal::Signal;

/// The interrupt, for any thread.
#[derive(Clone, Debug)]
pub struct Intx(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// virtio's interrupt status: the line is up as long as it is not 0.
    status: Arc<AtomicU8>,
    /// Whether there is an eventfd, so that those who use MSI-X need not lock.
    heard: AtomicBool,
    wire: Mutex<Wire>,
}

#[derive(Debug, Default)]
struct Wire {
    signal: Option<Signal>,
    /// By the client, or because it was signalled.
    masked: bool,
    /// By software, in the command register.
    disabled: bool,
}

impl Intx {
    /// An interrupt that nobody listens to, for a device with this interrupt status.
    pub fn new(status: Arc<AtomicU8>) -> Self {
        Self(Arc::new(Shared {
            status,
            heard: AtomicBool::new(false),
            wire: Mutex::default(),
        }))
    }

    /// Tells the client if the interrupt status is not 0 and it was not told yet. To be called after
    /// each change.
    pub fn update(&self) {
        if self.0.heard.load(Ordering::SeqCst) {
            self.deliver(&mut self.lock());
        }
    }

    /// Does what a client asks for.
    ///
    /// # Errors
    ///
    /// EINVAL when it asks for other interrupts or a file is no eventfd, EOPNOTSUPP for eventfds that
    /// are to mask or unmask.
    pub fn set(&self, request: SetIrqs) -> Result<(), Errno> {
        let SetIrqs {
            start,
            count,
            action,
            data,
            ..
        } = request;
        if start.checked_add(count).is_none_or(|end| end > 1) {
            return Err(Errno::INVAL);
        }
        match (data, action) {
            (IrqData::None, IrqAction::Trigger) if count == 0 => self.disconnect(),
            (IrqData::None, action) if count == 1 => self.act(action),
            (IrqData::Bool(chosen), action) if chosen.contains(&true) => self.act(action),
            (IrqData::EventFds(mut fds), IrqAction::Trigger) if count == 1 => {
                let signal = fds.pop().flatten().map(Signal::new).transpose();
                self.listen(signal.map_err(|_: io::Error| Errno::INVAL)?);
            }
            (IrqData::EventFds(_), IrqAction::Mask | IrqAction::Unmask) => {
                return Err(Errno::OPNOTSUPP);
            }
            _ => {}
        }
        Ok(())
    }

    /// Follows the command register's bit that holds it back.
    pub fn disable(&self, disabled: bool) {
        let mut wire = self.lock();
        wire.disabled = disabled;
        self.deliver(&mut wire);
    }

    /// Forgets the client's eventfd.
    pub fn disconnect(&self) {
        self.listen(None);
    }

    /// Lets it through as at the start, but still to the same listener.
    pub fn reset(&self) {
        let mut wire = self.lock();
        (wire.masked, wire.disabled) = (false, false);
    }

    fn listen(&self, signal: Option<Signal>) {
        let mut wire = self.lock();
        self.0.heard.store(signal.is_some(), Ordering::SeqCst);
        (wire.signal, wire.masked) = (signal, false);
        self.deliver(&mut wire);
    }

    fn act(&self, action: IrqAction) {
        let mut wire = self.lock();
        match action {
            IrqAction::Mask => wire.masked = true,
            IrqAction::Unmask => {
                wire.masked = false;
                self.deliver(&mut wire);
            }
            IrqAction::Trigger => wire.signal(),
        }
    }

    fn deliver(&self, wire: &mut Wire) {
        let quiet = wire.masked || wire.disabled || wire.signal.is_none();
        if !quiet && self.0.status.load(Ordering::SeqCst) != 0 {
            wire.signal();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Wire> {
        self.0.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wire {
    fn signal(&mut self) {
        self.masked = true;
        if let Some(Err(error)) = self.signal.as_ref().map(Signal::signal) {
            debug!("the eventfd of INTx is of no use: {error}");
            self.signal = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn request(count: u32, action: IrqAction, data: IrqData) -> SetIrqs {
        SetIrqs {
            index: 0,
            start: 0,
            count,
            action,
            data,
        }
    }

    /// An interrupt with a listener, and the interrupt status.
    fn heard() -> (Intx, Signal, Arc<AtomicU8>) {
        let status = Arc::new(AtomicU8::new(0));
        let intx = Intx::new(status.clone());
        let fd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let copy: OwnedFd = fd.as_fd().try_clone_to_owned().unwrap();
        let fds = IrqData::EventFds(vec![Some(copy)]);
        intx.set(request(1, IrqAction::Trigger, fds)).unwrap();
        (intx, Signal::new(fd).unwrap(), status)
    }

    fn raise(intx: &Intx, status: &AtomicU8) {
        status.store(1, Ordering::SeqCst);
        intx.update();
    }

    #[test]
    fn it_is_signalled_once_until_it_is_unmasked() {
        let (intx, seen, status) = heard();
        intx.update();
        assert!(!seen.take().unwrap(), "nothing happened");
        raise(&intx, &status);
        assert!(seen.take().unwrap());
        raise(&intx, &status);
        assert!(!seen.take().unwrap(), "masked by itself");
        let unmask = || request(1, IrqAction::Unmask, IrqData::None);
        intx.set(unmask()).unwrap();
        assert!(seen.take().unwrap(), "the status was not read");
        status.store(0, Ordering::SeqCst);
        intx.set(unmask()).unwrap();
        assert!(!seen.take().unwrap());
        raise(&intx, &status);
        assert!(seen.take().unwrap());
    }

    #[test]
    fn masked_or_disabled_it_waits() {
        let (intx, seen, status) = heard();
        let mask = |action, chosen| request(1, action, IrqData::Bool(vec![chosen]));
        intx.set(mask(IrqAction::Mask, true)).unwrap();
        raise(&intx, &status);
        intx.set(mask(IrqAction::Unmask, false)).unwrap();
        assert!(!seen.take().unwrap());
        intx.disable(true);
        intx.set(mask(IrqAction::Unmask, true)).unwrap();
        assert!(!seen.take().unwrap());
        intx.disable(false);
        assert!(seen.take().unwrap());
    }

    #[test]
    fn a_late_listener_hears_of_it_and_one_that_left_does_not() {
        let (intx, seen, status) = heard();
        intx.set(request(0, IrqAction::Trigger, IrqData::None))
            .unwrap();
        raise(&intx, &status);
        assert!(!seen.take().unwrap());
        let copy = seen.as_fd().try_clone_to_owned().unwrap();
        let fds = IrqData::EventFds(vec![Some(copy)]);
        intx.set(request(1, IrqAction::Trigger, fds)).unwrap();
        assert!(seen.take().unwrap());
        intx.set(request(1, IrqAction::Trigger, IrqData::None))
            .unwrap();
        assert!(seen.take().unwrap(), "the client triggers it itself");
    }

    #[test]
    fn impossible_requests_are_refused() {
        let (intx, ..) = heard();
        let two = request(2, IrqAction::Mask, IrqData::None);
        assert_eq!(intx.set(two), Err(Errno::INVAL));
        let resample = IrqData::EventFds(vec![None]);
        let resample = request(1, IrqAction::Unmask, resample);
        assert_eq!(intx.set(resample), Err(Errno::OPNOTSUPP));
    }
}
