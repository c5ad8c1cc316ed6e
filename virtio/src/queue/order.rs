//! Holds chains back that end before earlier ones do (VIRTIO_F_IN_ORDER; virtio 1.2, sections 2.7.9
//! and 2.8.8).

use std::collections::VecDeque;

use super::QueueError;

/// The chains in flight, in the order in which they were made available.
#[derive(Debug)]
pub(super) struct Order {
    heads: VecDeque<u16>,
    /// By head.
    states: Box<[State]>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Free,
    InFlight,
    /// After the given number of bytes was written.
    Ended(u32),
}

impl Order {
    /// For a queue of this size.
    pub fn new(size: u16) -> Self {
        Self {
            heads: VecDeque::new(),
            states: vec![State::Free; usize::from(size)].into(),
        }
    }

    /// Puts a chain behind all others.
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

    /// Notes that a chain has ended, after `written` bytes were written to it.
    pub fn end(&mut self, head: u16, written: u32) {
        self.states[usize::from(head)] = State::Ended(written);
    }

    /// The next chain to give back with the bytes written to it, once it has ended.
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
