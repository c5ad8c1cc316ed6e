use super::*;
use crate::test_utils::RestlessKick;

const FOR_KICK: Sleep = Sleep {
    kick: true,
    limit: None,
};

fn pause(milliseconds: u64) -> Sleep {
    Sleep::without_kicks(Some(Duration::from_millis(milliseconds)))
}

/// The `Waiting` of a queue whose driver has already made a request.
fn waiting(has_kick: bool) -> Waiting {
    let mut waiting = Waiting::new(has_kick, Arc::default());
    waiting.looked(0, Found::Requests);
    waiting
}

/// Returns the next sleep, and records that the thread found `found` after this sleep.
fn sleep(waiting: &mut Waiting, found: Found) -> Sleep {
    let sleep = waiting.next_sleep();
    waiting.looked(0, found);
    sleep
}

#[test]
fn after_64_kicks_in_vain_pauses_get_longer_until_a_request_comes() {
    let mut waiting = waiting(true);
    for _ in 0..2 {
        for _ in 0..64 {
            assert_eq!(sleep(&mut waiting, Found::Nothing), FOR_KICK);
        }
        for milliseconds in [1, 2, 4, 8, 16, 32, 32, 32] {
            assert_eq!(sleep(&mut waiting, Found::Nothing), pause(milliseconds));
        }
        assert_eq!(sleep(&mut waiting, Found::Requests), pause(32));
    }
}

#[test]
fn a_queue_without_a_kick_is_looked_at_each_millisecond_and_later_less_often() {
    let mut waiting = waiting(false);
    for _ in 0..2 {
        for _ in 0..64 {
            assert_eq!(sleep(&mut waiting, Found::Nothing), pause(1));
        }
        for milliseconds in [1, 2, 4, 8, 16, 32, 32, 32] {
            assert_eq!(sleep(&mut waiting, Found::Nothing), pause(milliseconds));
        }
        waiting.looked(0, Found::Requests);
    }
}

#[test]
fn only_a_sleep_after_which_there_is_nothing_to_do_counts_as_a_kick_in_vain() {
    let mut waiting = waiting(true);
    for _ in 0..1000 {
        assert_eq!(sleep(&mut waiting, Found::Results), FOR_KICK);
        waiting.looked(0, Found::Nothing);
    }
    for _ in 0..63 {
        assert_eq!(sleep(&mut waiting, Found::Nothing), FOR_KICK);
    }
    // A request ends the row of sleeps that found nothing.
    sleep(&mut waiting, Found::Requests);
    assert_eq!(waiting.next_sleep(), FOR_KICK);
}

#[test]
fn a_queue_sleeps_for_a_second_at_most_once_before_the_first_request() {
    let mut waiting = Waiting::new(true, Arc::default());
    assert_eq!(sleep(&mut waiting, Found::Nothing), FOR_KICK);
    let Sleep { kick, limit } = waiting.next_sleep();
    assert!(kick && limit.is_some_and(|limit| limit <= Duration::from_secs(1)));
    waiting.looked(0, Found::Requests);
    assert_eq!(waiting.next_sleep(), FOR_KICK);
}

#[test]
fn a_sleep_takes_the_signals_that_it_waited_for_and_no_others() {
    let (wake, kick) = (SharedEventFd::new().unwrap(), RestlessKick::new());
    let kicked = Some(&**kick.eventfd());
    FOR_KICK.until(&wake, kicked).unwrap();
    assert_eq!(kick.taken(), 1);
    pause(1).until(&wake, kicked).unwrap();
    assert_eq!(kick.taken(), 1);
    wake.signal().unwrap();
    Sleep::without_kicks(None).until(&wake, kicked).unwrap();
    assert!(!wake.take().unwrap());
}
