//! Which buffers are in use, for those who take memory away.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Chain, Segment};

/// The buffers of chains that were taken and not given back.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<Vec<Use>>);

/// The buffers of the chains with one head. There should be one such chain, but the driver may
/// have lied.
#[derive(Debug, Default)]
struct Use {
    chains: u32,
    segments: Vec<Segment>,
}

impl Uses {
    pub(super) fn hold(&self, chain: &Chain) {
        let mut uses = self.lock();
        let index = usize::from(chain.head);
        if uses.len() <= index {
            uses.resize_with(index + 1, Use::default);
        }
        let held = &mut uses[index];
        held.chains += 1;
        for buffers in [&chain.readable, &chain.writable] {
            held.segments.extend(buffers.range(0, buffers.len()));
        }
    }

    pub(super) fn release(&self, head: u16) {
        let mut uses = self.lock();
        let Some(held) = uses.get_mut(usize::from(head)) else {
            return;
        };
        held.chains = held.chains.saturating_sub(1);
        if held.chains == 0 {
            held.segments.clear();
        }
    }

    pub(super) fn overlap(&self, first: u64, last: u64) -> bool {
        let uses = self.lock();
        let mut segments = uses.iter().flat_map(|held| &held.segments);
        segments.any(|segment| {
            let end = segment.addr.0.saturating_add(u64::from(segment.len) - 1);
            segment.addr.0 <= last && first <= end
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Use>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
