//! Tests with devices that lack registers, queues or vectors, or break the rules.

use super::*;
use crate::pci::mock::Lies;
use virtio::pci::cfg_type as virtio_cfg;

fn refusal(profile: Profile) -> String {
    let mock = MockFunction::new(profile);
    WithCauses(&try_start(&mock, 4).unwrap_err()).to_string()
}

fn refusal_of_liar(lies: Lies) -> (Arc<MockFunction>, String) {
    let mock = MockFunction::new(Profile::ours());
    mock.state().lies = lies;
    let error = WithCauses(&try_start(&mock, 4).unwrap_err()).to_string();
    (mock, error)
}

#[test]
fn a_device_with_too_few_resources_is_refused() {
    let ours = Profile::ours;
    for (profile, expected) in [
        (
            Profile {
                vectors: 6,
                ..ours()
            },
            "6 MSI-X vectors; 7 are needed",
        ),
        (
            Profile {
                max_vhost_queues: 3,
                ..ours()
            },
            "relays for 3 vhost queues; 4 are needed",
        ),
        (
            Profile {
                queue_count: 1,
                ..ours()
            },
            "1 virtqueues; messages need 2",
        ),
        (
            ours().change(cfg_type::DOORBELL, |cap| cap.length = 3 * 4 + 1),
            "no doorbells for 4 vhost queues",
        ),
        (
            Profile {
                features: 1 << 33,
                ..ours()
            },
            "lacks virtio features 0x100000000",
        ),
    ] {
        let text = refusal(profile);
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_queue_of_an_impossible_size_is_refused() {
    for queue_size in [0, 3, 100] {
        let text = refusal(Profile {
            queue_size,
            ..Profile::ours()
        });
        assert_eq!(
            text,
            format!("the device's queue 0 has {queue_size} entries")
        );
    }
    let (_, text) = refusal_of_liar(Lies {
        fixed_queue_size: true,
        ..Lies::default()
    });
    assert_eq!(text, "the device's queue 0 has 256 entries");
}

#[test]
fn a_notification_register_out_of_range_is_refused() {
    let text = refusal(Profile {
        notify_offs: [0, 0x400],
        ..Profile::ours()
    });
    assert!(
        text.contains("queue 1") && text.contains("out of range"),
        "{text}"
    );
}

#[test]
fn a_device_that_keeps_another_vector_is_refused() {
    for vector in 0..3 {
        let (mock, text) = refusal_of_liar(Lies {
            refuse_vector: Some(vector),
            ..Lies::default()
        });
        assert_eq!(text, format!("the device refuses MSI-X vector {vector}"));
        assert_eq!(mock.state().status & 4, 0, "never DRIVER_OK");
    }
    let (_, text) = refusal_of_liar(Lies {
        refuse_notifications: true,
        ..Lies::default()
    });
    assert!(text.contains("kicks of vhost queue 0"), "{text}");
}

#[test]
fn a_device_that_refuses_its_own_features_gets_the_failed_status() {
    let (mock, text) = refusal_of_liar(Lies {
        refuse_features: true,
        ..Lies::default()
    });
    assert_eq!(
        text,
        "the device refuses virtio features 0x300000000, which it offered"
    );
    let writes = &mock.state().writes;
    assert!(
        writes.contains(&"Common+0x14=0x83/1".to_owned()),
        "{writes:#?}"
    );
}

#[test]
fn structures_that_are_missing_or_misplaced_are_refused() {
    for missing in [virtio_cfg::COMMON, virtio_cfg::NOTIFY, virtio_cfg::DEVICE] {
        let text = refusal(Profile::ours().without(missing));
        assert_eq!(
            text,
            format!("the device has no virtio capability of type {missing}")
        );
    }
    for (cfg_type, needed) in [
        (virtio_cfg::COMMON, 56),
        (virtio_cfg::NOTIFY, 2),
        (virtio_cfg::DEVICE, 24),
        (cfg_type::NOTIFICATION, 4),
        (cfg_type::DOORBELL, 2),
    ] {
        let outside = refusal(Profile::ours().change(cfg_type, |cap| cap.offset = 0x7fff_f000));
        assert!(outside.contains("at 0x7ffff000 of BAR"), "{outside}");
        let absent = refusal(Profile::ours().change(cfg_type, |cap| cap.bar = 1));
        assert!(absent.contains("BAR 1, which has 0x0 bytes"), "{absent}");
        let short = refusal(Profile::ours().change(cfg_type, |cap| cap.length = needed - 1));
        assert!(short.contains(&format!("{needed} are needed")), "{short}");
    }
}

#[test]
fn the_error_for_another_device_names_what_it_is_and_what_it_lacks() {
    let text = refusal(Profile {
        device: 0x1042,
        ..Profile::ours()
    });
    assert!(
        text.contains("mock is not a virtio-vhost-user device but 1af4:1042"),
        "{text}"
    );
    for missing in [6, 7, 8] {
        let memory_device = Profile::qemu().without(missing);
        let text = refusal(memory_device);
        let reason = format!("no virtio capability of type {missing}");
        assert!(
            text.contains("1af4:1058") && text.ends_with(&reason),
            "{text}"
        );
    }
}
