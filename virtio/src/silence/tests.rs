use std::sync::Mutex;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MOMENT: Duration = Duration::from_millis(1);

/// The state of a wait for the first request, and the list of the queues that the hints named.
fn awaited() -> (Arc<FirstRequest>, Arc<Mutex<Vec<u16>>>) {
    let hints = Arc::new(Mutex::new(Vec::new()));
    let list = hints.clone();
    let hint = move |event: NoRequests| list.lock().unwrap().push(event.queue);
    (FirstRequest::awaited(Arc::new(hint)), hints)
}

fn event(queue: u16) -> NoRequests {
    NoRequests { queue }
}

#[test]
fn the_hint_comes_a_second_after_the_first_kick_in_vain_and_only_once() {
    let (first, hints) = awaited();
    let start = Instant::now();
    let [one, two] = [(); 2].map(|()| Silence::new(first.clone()));
    assert_eq!(one.time_left(start), None);
    let one = one.look_in_vain(event(1), start).unwrap();
    let two = two.look_in_vain(event(2), start).unwrap();
    assert_eq!(one.time_left(start + MOMENT), Some(SECOND - MOMENT));
    let one = one.look_in_vain(event(1), start + SECOND - MOMENT).unwrap();
    assert!(hints.lock().unwrap().is_empty());
    assert!(one.look_in_vain(event(1), start + SECOND).is_none());
    assert!(two.look_in_vain(event(2), start + SECOND).is_none());
    assert_eq!(*hints.lock().unwrap(), [1]);
    // The next driver gets a hint of its own.
    let next = Silence::new(first.again());
    let next = next.look_in_vain(event(3), start).unwrap();
    assert!(next.look_in_vain(event(3), start + SECOND).is_none());
    assert_eq!(*hints.lock().unwrap(), [1, 3]);
}

#[test]
fn a_request_on_any_queue_means_that_no_hint_is_needed() {
    let (first, hints) = awaited();
    let start = Instant::now();
    let [one, two] = [(); 2].map(|()| Silence::new(first.clone()));
    let one = one.look_in_vain(event(1), start).unwrap();
    two.end();
    assert!(one.look_in_vain(event(1), start + SECOND).is_none());
    assert!(hints.lock().unwrap().is_empty());
}
