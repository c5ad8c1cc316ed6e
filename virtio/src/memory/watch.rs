//! Watches over ranges of addresses. A watch tells whether the result of an earlier look-up of the
//! addresses is still valid.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// A watch over a range of translated addresses. Until one of these addresses is unmapped, a ring
/// may use the result of its earlier look-up of the addresses.
#[derive(Debug)]
pub(crate) struct Watch {
    first: u64,
    last: u64,
    broken: AtomicBool,
}

impl Watch {
    /// True as long as none of the watched addresses has been unmapped. The result takes account of
    /// each [`Translation::unmap`](super::Translation::unmap) that happened before the call of this
    /// method.
    pub fn holds(&self) -> bool {
        !self.broken.load(Ordering::Acquire)
    }
}

/// All watches of one translation.
#[derive(Debug, Default)]
pub(super) struct Watches(Vec<Weak<Watch>>);

impl Watches {
    /// Begins to watch the addresses `first..=last`, until the returned watch is dropped.
    pub fn begin(&mut self, first: u64, last: u64) -> Arc<Watch> {
        self.0.retain(|watch| watch.strong_count() > 0);
        let watch = Arc::new(Watch {
            first,
            last,
            broken: AtomicBool::new(false),
        });
        self.0.push(Arc::downgrade(&watch));
        watch
    }

    /// Invalidates the watches whose ranges contain one of the addresses `first..=last`.
    pub fn break_in(&mut self, first: u64, last: u64) {
        self.0.retain(|watch| {
            let Some(watch) = watch.upgrade() else {
                return false;
            };
            let apart = watch.last < first || last < watch.first;
            if !apart {
                watch.broken.store(true, Ordering::Release);
            }
            apart
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_breaks_when_and_only_when_one_of_its_addresses_goes() {
        let ranges = || (0..8).flat_map(|first| (first..8).map(move |last| (first, last)));
        for (first, last) in ranges() {
            for (gone, until) in ranges() {
                let mut watches = Watches::default();
                let watch = watches.begin(first, last);
                watches.break_in(gone, until);
                let overlap = (first..=last).any(|address| (gone..=until).contains(&address));
                let message = format!("{first}..={last} without {gone}..={until}");
                assert_eq!(watch.holds(), !overlap, "{message}");
                assert_eq!(watches.0.len(), usize::from(!overlap), "{message}");
            }
        }
    }

    #[test]
    fn watches_that_nobody_keeps_are_forgotten() {
        let mut watches = Watches::default();
        let kept = watches.begin(0, 1);
        for _ in 0..100 {
            watches.begin(0, u64::MAX);
        }
        assert!(watches.0.len() <= 2);
        watches.break_in(5, 5);
        assert!(kept.holds());
        assert_eq!(watches.0.len(), 1);
    }
}
