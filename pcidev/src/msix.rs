//! MSI-X interrupts. A vfio-user client can set an eventfd for each interrupt.
//!
//! The client emulates the MSI-X table for its guest, and masks vectors with the request
//! DEVICE_SET_IRQS. Software can also write the table in the BAR, but these writes do not change
//! the interrupts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipc::SharedEventFd;
use vfio_user::server::IrqAction;

use crate::blocked::Blocked;
use crate::padded::read_padded;
use crate::set_irqs::ClientInterrupt;

/// Length of a table entry in bytes.
pub const ENTRY_SIZE: usize = 16;

/// The bytes of a table entry after a reset. The vector is masked.
const ENTRY: [u8; ENTRY_SIZE] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];

/// The MSI-X interrupts of a function.
#[derive(Debug)]
pub struct Msix {
    vectors: Vec<Line>,
    table: Vec<u8>,
}

/// One interrupt, which any thread can raise.
#[derive(Clone, Debug)]
pub struct Line {
    vector: Arc<Mutex<Vector>>,
    blocked: Blocked,
}

#[derive(Debug, Default)]
struct Vector {
    eventfd: Option<Arc<SharedEventFd>>,
    masked: bool,
    pending: bool,
}

impl Line {
    fn new(blocked: &Blocked) -> Self {
        Self {
            vector: Arc::default(),
            blocked: blocked.clone(),
        }
    }

    /// Raises the interrupt, from any thread. An interrupt that is masked or has no eventfd stays
    /// pending until it is unmasked and has an eventfd.
    pub fn trigger(&self) {
        self.change(|vector| vector.pending = true);
    }

    /// Changes the vector, and then signals the client if the interrupt is pending and not masked.
    fn change(&self, change: impl FnOnce(&mut Vector)) {
        let mut vector = self.lock();
        change(&mut vector);
        let due = vector.take_due();
        // The lock is released before the eventfd is signalled. Otherwise other threads would wait
        // for the lock while a malicious client makes the signal block.
        drop(vector);
        if due.is_some_and(|eventfd| !self.blocked.signal(&eventfd)) {
            self.lock().pending = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vector> {
        self.vector.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientInterrupt for Line {
    fn act(&self, action: IrqAction) {
        self.change(|vector| match action {
            IrqAction::Mask => vector.masked = true,
            IrqAction::Unmask => vector.masked = false,
            IrqAction::Trigger => vector.pending = true,
        });
    }

    fn set_eventfd(&self, eventfd: Option<SharedEventFd>) {
        self.change(|vector| vector.eventfd = eventfd.map(Arc::new));
    }

    fn disconnect(&self) {
        *self.lock() = Vector::default();
    }
}

impl Vector {
    /// The eventfd to signal now. `None` means that no interrupt is pending, the vector is masked,
    /// or the vector has no eventfd.
    fn take_due(&mut self) -> Option<Arc<SharedEventFd>> {
        if !self.pending || self.masked {
            return None;
        }
        let eventfd = self.eventfd.clone()?;
        self.pending = false;
        Some(eventfd)
    }
}

impl Msix {
    /// The interrupts of `vectors` vectors, without eventfds.
    pub fn new(vectors: u16, blocked: &Blocked) -> Self {
        Self {
            vectors: (0..vectors).map(|_| Line::new(blocked)).collect(),
            table: ENTRY.repeat(usize::from(vectors)),
        }
    }

    /// Number of vectors.
    pub fn count(&self) -> u16 {
        self.vectors.len() as u16
    }

    /// Raises the interrupt of a vector. Ignores a vector that does not exist.
    pub fn trigger(&self, vector: u16) {
        if let Some(line) = self.line(vector) {
            line.trigger();
        }
    }

    /// The interrupt of a vector. `None` means that the vector does not exist.
    pub fn line(&self, vector: u16) -> Option<&Line> {
        self.vectors.get(usize::from(vector))
    }

    /// All interrupts, in the order of their vectors.
    pub fn lines(&self) -> &[Line] {
        &self.vectors
    }

    /// Drops the client's eventfds, all masks and all pending interrupts.
    pub fn disconnect(&self) {
        self.vectors.iter().for_each(Line::disconnect);
    }

    /// Drops all masks and all pending interrupts, but keeps the client's eventfds.
    pub fn reset(&mut self) {
        for line in &self.vectors {
            let mut vector = line.lock();
            (vector.masked, vector.pending) = (false, false);
        }
        self.table = ENTRY.repeat(self.vectors.len());
    }

    /// Reads the MSI-X table. Reads past the table's end return 0.
    pub fn read_table(&self, offset: usize, data: &mut [u8]) {
        read_padded(&self.table, offset as u64, data);
    }

    /// Writes the MSI-X table. A write that ends outside the table is ignored.
    pub fn write_table(&mut self, offset: usize, data: &[u8]) {
        let place = offset.checked_add(data.len()).map(|end| offset..end);
        if let Some(bytes) = place.and_then(|place| self.table.get_mut(place)) {
            bytes.copy_from_slice(data);
        }
    }

    /// Reads the pending bits. Reads past their end return 0.
    pub fn read_pending(&self, offset: usize, data: &mut [u8]) {
        let mut bits = vec![0; self.vectors.len().div_ceil(64) * 8];
        for (number, line) in self.vectors.iter().enumerate() {
            bits[number / 8] |= u8::from(line.lock().pending) << (number % 8);
        }
        read_padded(&bits, offset as u64, data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::set_irqs::tests::eventfd;

    #[test]
    fn an_interrupt_signals_the_eventfd_of_its_vector() {
        let msix = Msix::new(3, &Blocked::default());
        let (seen, fd) = eventfd();
        let fd = SharedEventFd::from_fd(fd).unwrap();
        msix.lines()[1].set_eventfd(Some(fd));
        msix.trigger(0);
        msix.trigger(0xffff);
        assert!(!seen.take().unwrap());
        msix.trigger(1);
        assert!(seen.take().unwrap());
        msix.lines()[1].act(IrqAction::Trigger);
        assert!(seen.take().unwrap(), "the client triggers it itself");
        msix.disconnect();
        msix.trigger(1);
        assert!(!seen.take().unwrap(), "disconnected");
    }

    #[test]
    fn a_masked_interrupt_is_pending_until_it_is_unmasked() {
        let msix = Msix::new(70, &Blocked::default());
        let (seen, fd) = eventfd();
        let line = msix.line(65).unwrap();
        line.set_eventfd(Some(SharedEventFd::from_fd(fd).unwrap()));
        line.act(IrqAction::Mask);
        msix.trigger(65);
        assert!(!seen.take().unwrap());
        let mut pending = [0; 16];
        msix.read_pending(0, &mut pending);
        assert_eq!(pending, [0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        line.act(IrqAction::Unmask);
        assert!(seen.take().unwrap());
        msix.read_pending(8, &mut pending);
        assert_eq!(pending, [0; 16]);
    }

    #[test]
    fn an_interrupt_waits_for_its_eventfd() {
        let msix = Msix::new(1, &Blocked::default());
        msix.trigger(0);
        let (seen, fd) = eventfd();
        msix.lines()[0].set_eventfd(Some(SharedEventFd::from_fd(fd).unwrap()));
        assert!(seen.take().unwrap());
    }

    #[test]
    fn the_table_keeps_what_was_written_within_it() {
        let mut msix = Msix::new(2, &Blocked::default());
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
