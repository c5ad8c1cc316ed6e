use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;

use ipc::SharedEventFd;
use rustix::event::{EventfdFlags, eventfd};

use super::*;

const SOURCE: Source = Source::Device(u32::MAX);

#[test]
fn each_signal_is_one_event_though_nobody_takes_it() {
    let poller = Poller::new().unwrap();
    let signal = SharedEventFd::new().unwrap();
    signal.signal().unwrap();
    poller.add(&signal, SOURCE, Until::Signalled).unwrap();
    assert_eq!(poller.ready(), [u32::MAX], "signalled before");
    assert!(poller.ready().is_empty());
    for _ in 0..3 {
        signal.signal().unwrap();
        signal.signal().unwrap();
        assert_eq!(poller.ready(), [u32::MAX]);
        assert!(poller.ready().is_empty());
    }
    poller.remove(&signal);
    signal.signal().unwrap();
    assert!(poller.ready().is_empty());
}

#[test]
fn an_eventfd_that_stays_readable_does_not_spin() {
    let poller = Poller::new().unwrap();
    let semaphore = eventfd(u32::MAX, EventfdFlags::SEMAPHORE).unwrap();
    poller.add(&semaphore, SOURCE, Until::Signalled).unwrap();
    assert_eq!(poller.ready().len(), 1);
    rustix::io::read(&semaphore, &mut [0; 8]).unwrap();
    assert!(poller.ready().is_empty());
}

#[test]
fn a_peer_that_hangs_up_is_always_seen() {
    let poller = Poller::new().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    poller.add(&ours, SOURCE, Until::Readable).unwrap();
    rustix::io::write(&theirs, &[1]).unwrap();
    assert_eq!((poller.ready().len(), poller.ready().len()), (1, 1));
    poller.change(&ours, SOURCE, Until::HungUp).unwrap();
    assert!(poller.ready().is_empty());
    poller.change(&ours, SOURCE, Until::Writable).unwrap();
    assert_eq!(poller.ready().len(), 1);
    poller.change(&ours, SOURCE, Until::HungUp).unwrap();
    drop(theirs);
    assert_eq!(poller.ready().len(), 1);
}

/// A descriptor that is always ready is reported again only after all other ready descriptors.
#[test]
fn among_many_ready_descriptors_each_has_its_turn() {
    let poller = Poller::new().unwrap();
    let count = 3 * BATCH as u32;
    let ready: Vec<_> = (0..count)
        .map(|number| {
            let signal = SharedEventFd::new().unwrap();
            signal.signal().unwrap();
            let source = Source::Device(number);
            poller.add(&signal, source, Until::Readable).unwrap();
            signal
        })
        .collect();
    let batches = (0..3).flat_map(|_| poller.ready());
    assert_eq!(batches.collect::<BTreeSet<_>>().len(), ready.len());
}
