//! What an engine keeps of each operation.

use std::io;

use super::BeginError;
use super::direct::Bounce;
use crate::transfer::Transfer;

#[derive(Default)]
pub(super) struct Slot {
    pub transfer: Transfer,
    /// The transfer goes through the slot's buffer.
    pub bounce: Option<Bounce>,
    pub busy: bool,
}

impl Slot {
    /// The transfer, to be set up for another operation.
    pub fn idle(&mut self) -> Result<&mut Transfer, BeginError> {
        self.bounce.take_if(|_| !self.busy);
        match self.busy {
            false => Ok(&mut self.transfer),
            true => Err(BeginError::Engine(io::ErrorKind::ResourceBusy.into())),
        }
    }
}
