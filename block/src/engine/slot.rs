//! The state that an engine keeps for one operation.

use std::io;

use super::EngineError;
use super::direct::Bounce;
use super::transfer::Transfer;

/// A slot of an engine, which holds one operation at a time.
#[derive(Default)]
pub(super) struct Slot {
    pub transfer: Transfer,
    pub bounce: Bounce,
    /// Whether the operation is in flight.
    pub busy: bool,
}

impl Slot {
    /// Returns the slot's transfer, in which the caller can set up another operation. Fails if the
    /// slot is busy.
    pub fn idle(&mut self) -> Result<&mut Transfer, EngineError> {
        if self.busy {
            return Err(EngineError::Io(io::ErrorKind::ResourceBusy.into()));
        }
        self.bounce.clear();
        Ok(&mut self.transfer)
    }

    /// Resets the slot after the end of an operation. Frees the memory that only unusually large
    /// operations need.
    pub fn clear(&mut self) {
        self.busy = false;
        self.transfer.clear();
        self.bounce.clear();
    }
}
