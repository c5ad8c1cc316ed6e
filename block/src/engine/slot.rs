//! An engine's record of one operation.

use std::io;

use super::EngineError;
use super::direct::Bounce;
use super::transfer::Transfer;

/// Room for one operation.
#[derive(Default)]
pub(super) struct Slot {
    pub transfer: Transfer,
    pub bounce: Bounce,
    /// The operation is in flight.
    pub busy: bool,
}

impl Slot {
    /// The transfer, for the caller to set up another operation in it. Fails if the slot is busy.
    pub fn idle(&mut self) -> Result<&mut Transfer, EngineError> {
        if self.busy {
            return Err(EngineError::Io(io::ErrorKind::ResourceBusy.into()));
        }
        self.bounce.clear();
        Ok(&mut self.transfer)
    }

    /// Forgets an operation that has ended. Gives memory back that few operations need.
    pub fn clear(&mut self) {
        self.busy = false;
        self.transfer.clear();
        self.bounce.clear();
    }
}
