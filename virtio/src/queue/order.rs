//! Gives chains back in the order in which they were made available (VIRTIO_F_IN_ORDER; virtio 1.2,
//! sections 2.7.9 and 2.8.8).

use std::collections::VecDeque;

use crate::QueueError;

/// The chains in flight, in the order in which they were made available.
#[derive(Debug)]
pub(super) struct Order {
    heads: VecDeque<u16>,
    /// The state of each chain. The index is the chain's head.
    states: Box<[State]>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Free,
    InFlight,
    /// The device has completed the chain, and has written this number of bytes to the chain.
    Ended(u32),
}

impl Order {
    /// The order for a queue of this size, with no chains in flight.
    pub fn new(size: u16) -> Self {
        Self {
            heads: VecDeque::new(),
            states: vec![State::Free; usize::from(size)].into(),
        }
    }

    /// Adds a chain that was made available after all other chains in flight.
    ///
    /// # Errors
    ///
    /// When a chain with this head is in flight, or the head is not below the queue's size.
    pub fn begin(&mut self, head: u16) -> Result<(), QueueError> {
        match self.states.get_mut(usize::from(head)) {
            Some(state @ State::Free) => *state = State::InFlight,
            _ => return Err(QueueError::InFlight(head)),
        }
        self.heads.push_back(head);
        Ok(())
    }

    /// Forgets the chain that was added last.
    pub fn cancel_last(&mut self) {
        if let Some(head) = self.heads.pop_back() {
            self.states[usize::from(head)] = State::Free;
        }
    }

    /// Records that a chain has ended, and that the device wrote `written` bytes to the chain.
    pub fn end(&mut self, head: u16, written: u32) {
        self.states[usize::from(head)] = State::Ended(written);
    }

    /// The head of the next chain to give back, and the number of bytes written to the chain.
    /// `None` if the device has not completed this chain yet.
    pub fn next_ended(&mut self) -> Option<(u16, u32)> {
        let head = *self.heads.front()?;
        let state = &mut self.states[usize::from(head)];
        let State::Ended(written) = *state else {
            return None;
        };
        *state = State::Free;
        self.heads.pop_front();
        Some((head, written))
    }
}
