//! MSI-X interrupts, which a vfio-user client takes as eventfds.
//!
//! The client emulates the table for its guest, so that what software writes into it here is kept
//! but means nothing: a vector is masked by DEVICE_SET_IRQS.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use tracing::debug;
use vfio_user::server::{IrqAction, IrqData, SetIrqs};

use crate::signal::Signal;

/// Length of a table entry in bytes.
pub const ENTRY_SIZE: usize = 16;

/// A table entry after a reset: masked.
const ENTRY: [u8; ENTRY_SIZE] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];

/// The interrupts of a function.
#[derive(Debug)]
pub struct Msix {
    vectors: Vec<Line>,
    table: Vec<u8>,
}

/// One interrupt, to be raised by any thread.
#[derive(Clone, Debug, Default)]
pub struct Line(Arc<Mutex<Vector>>);

impl Line {
    /// Raises the interrupt. Without an eventfd, or masked, it comes when that changes.
    pub fn trigger(&self) {
        self.lock().trigger();
    }

    fn lock(&self) -> MutexGuard<'_, Vector> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Vector {
    signal: Option<Signal>,
    masked: bool,
    pending: bool,
}

impl Vector {
    /// Signals the client; an interrupt that cannot reach it now is kept.
    fn trigger(&mut self) {
        self.pending = true;
        self.deliver();
    }

    fn deliver(&mut self) {
        let Some(signal) = self
            .signal
            .as_ref()
            .filter(|_| self.pending && !self.masked)
        else {
            return;
        };
        match signal.signal() {
            Ok(()) => self.pending = false,
            Err(error) => {
                debug!("an interrupt's eventfd is of no use: {error}");
                self.signal = None;
            }
        }
    }

    fn act(&mut self, action: IrqAction) {
        match action {
            IrqAction::Mask => self.masked = true,
            IrqAction::Trigger => self.trigger(),
            IrqAction::Unmask => {
                self.masked = false;
                self.deliver();
            }
        }
    }
}

impl Msix {
    /// This many vectors, none of which anybody listens to.
    pub fn new(vectors: u16) -> Self {
        Self {
            vectors: (0..vectors).map(|_| Line::default()).collect(),
            table: ENTRY.repeat(usize::from(vectors)),
        }
    }

    /// Number of vectors.
    pub fn count(&self) -> u16 {
        self.vectors.len() as u16
    }

    /// Raises an interrupt. One without an eventfd, or masked, comes when that changes; one that
    /// there is not is ignored.
    pub fn trigger(&self, vector: u16) {
        if let Some(line) = self.line(vector) {
            line.trigger();
        }
    }

    /// One interrupt, if there is that one.
    pub fn line(&self, vector: u16) -> Option<&Line> {
        self.vectors.get(usize::from(vector))
    }

    /// Does what a client asks for.
    ///
    /// # Errors
    ///
    /// EINVAL when there are not that many vectors or a file is no eventfd, EOPNOTSUPP for eventfds
    /// that are to tell of masking.
    pub fn set(&self, request: SetIrqs) -> Result<(), Errno> {
        let SetIrqs {
            start,
            count,
            action,
            data,
            ..
        } = request;
        if let (IrqData::None, IrqAction::Trigger, 0, 0) = (&data, action, start, count) {
            self.disconnect();
            return Ok(());
        }
        let range = start as usize..start as usize + count as usize;
        let lines = self.vectors.get(range).ok_or(Errno::INVAL)?;
        match data {
            IrqData::None => lines.iter().for_each(|line| line.lock().act(action)),
            IrqData::Bool(chosen) => {
                let chosen = lines.iter().zip(chosen).filter(|(_, chosen)| *chosen);
                chosen.for_each(|(line, _)| line.lock().act(action));
            }
            IrqData::EventFds(fds) if action == IrqAction::Trigger => {
                let signals = fds.into_iter().map(|fd| fd.map(Signal::new).transpose());
                let signals: Vec<_> = signals
                    .collect::<io::Result<_>>()
                    .map_err(|_| Errno::INVAL)?;
                for (line, signal) in lines.iter().zip(signals) {
                    let mut vector = line.lock();
                    vector.signal = signal;
                    vector.deliver();
                }
            }
            IrqData::EventFds(_) => return Err(Errno::OPNOTSUPP),
        }
        Ok(())
    }

    /// Forgets the client's eventfds and what it was not told.
    pub fn disconnect(&self) {
        let lines = self.vectors.iter();
        lines.for_each(|line| *line.lock() = Vector::default());
    }

    /// Forgets what was not delivered, but not to whom.
    pub fn reset(&mut self) {
        for line in &self.vectors {
            let mut vector = line.lock();
            (vector.masked, vector.pending) = (false, false);
        }
        self.table = ENTRY.repeat(self.vectors.len());
    }

    /// Reads the table.
    pub fn read_table(&self, offset: usize, data: &mut [u8]) {
        copy_from(&self.table, offset, data);
    }

    /// Writes the table.
    pub fn write_table(&mut self, offset: usize, data: &[u8]) {
        let place = offset.checked_add(data.len()).map(|end| offset..end);
        if let Some(bytes) = place.and_then(|place| self.table.get_mut(place)) {
            bytes.copy_from_slice(data);
        }
    }

    /// Reads the pending bits.
    pub fn read_pending(&self, offset: usize, data: &mut [u8]) {
        let mut bits = vec![0; self.vectors.len().div_ceil(64) * 8];
        for (number, line) in self.vectors.iter().enumerate() {
            bits[number / 8] |= u8::from(line.lock().pending) << (number % 8);
        }
        copy_from(&bits, offset, data);
    }
}

/// Reads bytes from `offset` on; those that there are not are 0.
fn copy_from(bytes: &[u8], offset: usize, data: &mut [u8]) {
    data.fill(0);
    let found = bytes.get(offset..).unwrap_or_default();
    let len = found.len().min(data.len());
    data[..len].copy_from_slice(&found[..len]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};
    use std::os::fd::{AsFd, OwnedFd};

    fn listener() -> (Signal, OwnedFd) {
        let fd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let copy = fd.as_fd().try_clone_to_owned().unwrap();
        (Signal::new(fd).unwrap(), copy)
    }

    fn request(start: u32, count: u32, action: IrqAction, data: IrqData) -> SetIrqs {
        SetIrqs {
            index: 2,
            start,
            count,
            action,
            data,
        }
    }

    #[test]
    fn vectors_signal_their_eventfds() {
        let msix = Msix::new(3);
        let (seen, fd) = listener();
        let fds = IrqData::EventFds(vec![Some(fd), None]);
        msix.set(request(1, 2, IrqAction::Trigger, fds)).unwrap();
        msix.trigger(0);
        msix.trigger(0xffff);
        assert!(!seen.take().unwrap());
        msix.trigger(1);
        assert!(seen.take().unwrap());
        let data = IrqData::Bool(vec![true, false]);
        msix.set(request(1, 2, IrqAction::Trigger, data)).unwrap();
        assert!(seen.take().unwrap(), "triggered by the client itself");
        msix.set(request(0, 0, IrqAction::Trigger, IrqData::None))
            .unwrap();
        msix.trigger(1);
        assert!(!seen.take().unwrap(), "switched off");
    }

    #[test]
    fn masked_vectors_pend() {
        let msix = Msix::new(70);
        let (seen, fd) = listener();
        let fds = IrqData::EventFds(vec![Some(fd)]);
        msix.set(request(65, 1, IrqAction::Trigger, fds)).unwrap();
        msix.set(request(0, 70, IrqAction::Mask, IrqData::None))
            .unwrap();
        msix.trigger(65);
        assert!(!seen.take().unwrap());
        let mut pending = [0; 16];
        msix.read_pending(0, &mut pending);
        assert_eq!(pending, [0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        msix.set(request(65, 1, IrqAction::Unmask, IrqData::None))
            .unwrap();
        assert!(seen.take().unwrap());
        msix.read_pending(8, &mut pending);
        assert_eq!(pending, [0; 16]);
    }

    #[test]
    fn an_interrupt_waits_for_its_eventfd() {
        let msix = Msix::new(1);
        msix.trigger(0);
        let (seen, fd) = listener();
        let fds = IrqData::EventFds(vec![Some(fd)]);
        msix.set(request(0, 1, IrqAction::Trigger, fds)).unwrap();
        assert!(seen.take().unwrap());
    }

    #[test]
    fn impossible_requests_are_refused() {
        let msix = Msix::new(4);
        let beyond = request(3, 2, IrqAction::Mask, IrqData::None);
        assert_eq!(msix.set(beyond), Err(Errno::INVAL));
        let fds = IrqData::EventFds(vec![None]);
        let masking = request(0, 1, IrqAction::Mask, fds);
        assert_eq!(msix.set(masking), Err(Errno::OPNOTSUPP));
    }

    #[test]
    fn the_table_is_kept() {
        let mut msix = Msix::new(2);
        let mut data = [0; 8];
        msix.read_table(28, &mut data);
        assert_eq!(data, [1, 0, 0, 0, 0, 0, 0, 0]);
        msix.write_table(16, &[1, 2, 3, 4]);
        msix.write_table(30, &[1, 2, 3, 4]);
        msix.write_table(usize::MAX, &[1]);
        msix.read_table(16, &mut data);
        assert_eq!(data, [1, 2, 3, 4, 0, 0, 0, 0]);
    }
}
