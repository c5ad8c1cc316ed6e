//! Tests with front-ends that leave and with devices that fail.

use vvu_abi::queue;

use super::*;

#[test]
fn a_frontend_that_leaves_makes_room_for_the_next() {
    for profile in [Profile::ours(), Profile::qemu()] {
        let mut setup = Setup::new(profile, IMPATIENT);
        for _ in 0..3 {
            setup.send(&get_features()).unwrap();
            setup.mock.state().leave();
            setup.assert_left();
            setup.assert_serves_the_next();
        }
    }
}

#[test]
fn a_frontend_that_leaves_while_buffers_are_exhausted_leaves_nothing_behind() {
    let profile = Profile {
        queue_size: 1,
        ..Profile::ours()
    };
    let mut setup = Setup::new(profile, IMPATIENT);
    setup.mock.state().deliver(&number(100).encode());
    setup.mock.state().deliver(&number(101).encode());
    assert_eq!(setup.mock.state().buffers(queue::RX), 0);
    setup.mock.state().leave();
    setup.assert_left();
    setup.assert_serves_the_next();
}

#[test]
fn crosvm_says_that_the_frontend_left_by_an_empty_message() {
    let mut setup = Setup::new(Profile::crosvm(), IMPATIENT);
    for _ in 0..5 {
        setup.send(&get_features()).unwrap();
        setup.mock.state().leave();
        setup.assert_left();
        assert_eq!(setup.mock.state().buffers(queue::RX), 16);
        setup.assert_serves_the_next();
    }
}

#[test]
fn a_reply_does_not_reach_the_next_frontend() {
    let mut setup = Setup::ours();
    setup.send(&get_features()).unwrap();
    setup.mock.state().leave();
    setup.reply(&get_features(), &[0; 8]);
    setup.mock.state().connect();
    assert!(setup.mock.state().sent.is_empty());
    assert!(setup.mock.state().stray.is_empty());
    setup.assert_left();
    setup.send(&get_features()).unwrap();
}

#[test]
fn a_message_that_is_none_costs_the_connection() {
    let short = "message has 11 bytes, but its header announces 12";
    let mut setup = Setup::ours();
    let mut version_2 = get_features();
    version_2.head.flags = Flags::NEED_REPLY;
    let mut too_long = get_features().encode();
    too_long[8] = 1;
    for (bytes, reason) in [
        (vec![0; 11], short),
        (
            version_2.encode(),
            "message 1 has flags 0x8: not vhost-user version 1",
        ),
        (
            too_long,
            "message has 12 bytes, but its header announces 13",
        ),
        (vec![], "message has 0 bytes, but its header announces 12"),
    ] {
        setup.mock.state().put(&bytes);
        setup.assert_dropped(reason);
        assert!(!setup.mock.state().peer, "the device was told");
        setup.assert_serves_the_next();
    }
}

#[test]
fn a_device_that_keeps_the_frontend_is_restarted() {
    let mut setup = Setup::ours();
    setup.mock.state().lies.slow_disconnect = 1;
    setup.mock.state().put(&[0; 11]);
    setup.assert_dropped("the device did not drop the front-end within 0ns");
    setup.assert_serves_the_next();
}

#[test]
fn a_device_that_asks_for_it_is_reset() {
    let mut setup = Setup::ours();
    for _ in 0..5 {
        setup.mock.state().break_down();
        setup.assert_dropped("the device asks to be reset");
        setup.assert_serves_the_next();
    }
}

#[test]
fn a_message_longer_than_any_buffer_breaks_the_device() {
    let mut setup = Setup::ours();
    setup.mock.state().deliver(&[0; 5000]);
    setup.assert_dropped("the device asks to be reset");
    setup.assert_serves_the_next();
}

#[test]
fn a_device_that_lies_in_its_ring_is_restarted() {
    for (id, len, steps, reason) in [
        (
            16,
            12,
            1,
            "the device returned buffer 16, which it does not have",
        ),
        (
            0,
            4161,
            1,
            "the device says that it wrote 4161 bytes to a buffer of 4160",
        ),
        (
            0,
            12,
            17,
            "the device returned 17 buffers at once; there are only 16",
        ),
    ] {
        let mut setup = Setup::ours();
        setup.mock.state().lie_in_ring(queue::RX, id, len, steps);
        setup.assert_dropped(reason);
        setup.assert_serves_the_next();
    }
}

#[test]
fn a_device_that_lies_about_replies_is_restarted() {
    let mut setup = Setup::ours();
    setup.mock.state().lie_in_ring(queue::TX, 3, 0, 1);
    setup.reply(&get_features(), &[0; 8]);
    setup.assert_dropped("the device returned buffer 3, which it does not have");
    setup.assert_serves_the_next();
}

#[test]
fn a_device_that_is_always_broken_is_given_up() {
    let mut setup = Setup::ours();
    setup.mock.state().lies.always_broken = true;
    setup.mock.state().break_down();
    for _ in 0..MAX_RESTARTS {
        setup.assert_dropped("the device asks to be reset");
    }
    let text = WithCauses(&setup.try_next().unwrap_err()).to_string();
    assert_eq!(
        text,
        "the device failed again after 3 restarts: the device asks to be reset"
    );
}

#[test]
fn a_device_that_cannot_be_restarted_is_given_up() {
    let mut setup = Setup::ours();
    setup.mock.state().lies.refuse_features = true;
    setup.mock.state().break_down();
    let text = WithCauses(&setup.try_next().unwrap_err()).to_string();
    assert!(
        text.starts_with("cannot restart the device, which failed (the device asks"),
        "{text}"
    );
    assert!(setup.try_next().is_err(), "and stays given up");
}

#[test]
fn a_reply_waits_for_a_buffer() {
    let mut setup = Setup::new(Profile::ours(), PATIENT);
    setup.mock.state().lies.hold_tx = true;
    for _ in 0..16 {
        setup.reply(&get_features(), &[0; 8]);
    }
    let mock = setup.mock.clone();
    let taker = std::thread::spawn(move || {
        let mut state = mock.state();
        state.lies.hold_tx = false;
        state.take_tx();
    });
    setup.reply(&get_features(), &[0; 8]);
    taker.join().unwrap();
    setup.mock.state().take_tx();
    assert_eq!(setup.mock.state().sent.len(), 17);
    setup.assert_idle();
}

#[test]
fn a_device_that_takes_no_replies_is_restarted() {
    let mut setup = Setup::ours();
    setup.mock.state().lies.hold_tx = true;
    for _ in 0..17 {
        setup.reply(&get_features(), &[0; 8]);
    }
    setup.mock.state().lies.hold_tx = false;
    setup.assert_dropped("the device did not return a transmit buffer in time");
    setup.assert_serves_the_next();
}

#[test]
fn a_frontend_that_leaves_ends_the_wait_for_a_buffer() {
    let mut setup = Setup::new(Profile::ours(), PATIENT);
    setup.mock.state().lies.hold_tx = true;
    for _ in 0..16 {
        setup.reply(&get_features(), &[0; 8]);
    }
    let mock = setup.mock.clone();
    let leaver = std::thread::spawn(move || mock.state().leave());
    setup.reply(&get_features(), &[0; 8]);
    leaver.join().unwrap();
    setup.assert_left();
}

#[test]
fn a_function_that_is_gone_ends_it_all() {
    let mut setup = Setup::ours();
    setup.mock.unplug();
    let text = WithCauses(&setup.try_next().unwrap_err()).to_string();
    assert_eq!(text, "mock is gone");
}
