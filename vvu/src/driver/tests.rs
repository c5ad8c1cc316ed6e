use std::os::unix::fs::FileExt;
use std::time::Duration;

use vhost_user::{MemoryRegion, MemoryTable, WithCauses};
use virtio::pci::{NO_VECTOR, config_space};
use vvu_abi::Doorbell;

use super::*;
use crate::pci::mock::{MockFunction, Profile};
use crate::virtio_pci::VirtioError;

mod lies;
mod noise;

/// Limits with which the driver checks the device only once.
pub(crate) const IMPATIENT: Patience = Patience {
    limit: Duration::ZERO,
    step: Duration::ZERO,
};
/// Limits with which the driver checks the device without pauses, for up to an hour.
pub(crate) const PATIENT: Patience = Patience {
    limit: Duration::from_secs(3600),
    step: Duration::ZERO,
};

fn try_start(mock: &Arc<MockFunction>, queues: u16) -> Result<VvuDriver, DriverError> {
    let mut driver = VvuDriver::new(mock.clone(), queues, None, IMPATIENT)?;
    driver.start()?;
    Ok(driver)
}

fn started(profile: Profile, queues: u16) -> (Arc<MockFunction>, VvuDriver) {
    let mock = MockFunction::new(profile);
    let driver = try_start(&mock, queues).unwrap();
    (mock, driver)
}

fn position(writes: &[String], wanted: &str) -> usize {
    let found = writes.iter().position(|write| write == wanted);
    found.unwrap_or_else(|| panic!("no {wanted} in {writes:#?}"))
}

#[test]
fn the_driver_starts_a_device_in_the_order_of_the_specification() {
    for profile in [Profile::ours(), Profile::qemu(), Profile::crosvm()] {
        let (mock, _driver) = started(profile, 2);
        let writes = mock.state().writes.clone();
        let order = [
            "Common+0x14=0x1/1",      // ACKNOWLEDGE
            "Common+0x14=0x3/1",      // DRIVER
            "Common+0x14=0xb/1",      // FEATURES_OK
            "msix 5",                 // before any vector is used
            "Common+0x10=0x0/2",      // configuration changes have their own vector
            "Common+0x18=0x10/2",     // the queue's size is written back
            "Common+0x1a=0x1/2",      // rx vector
            "Common+0x1a=0x2/2",      // tx vector
            "Notification+0x0=0x1/2", // vhost queue 1 ...
            "Notification+0x2=0x4/2", // ... raises vector 4
            "Common+0x1c=0x1/2",      // queues in use
            "Common+0x14=0xf/1",      // DRIVER_OK
            "Notify+0x0=0x0/2",       // receive buffers are there
            "Config+0x0=0x1/4",       // a front-end may come
        ];
        let positions: Vec<_> = order.iter().map(|write| position(&writes, write)).collect();
        assert!(positions.is_sorted(), "{writes:#?}");
        assert!(!writes.iter().any(|write| write.starts_with("early")));
        assert_eq!(mock.state().driver_features, 1 << 32 | 1 << 33);
        assert_eq!(mock.state().buffers(queue::RX), 16);
    }
}

#[test]
fn the_function_becomes_a_bus_master() {
    let (mock, _driver) = started(Profile::ours(), 1);
    let mut command = [0; 2];
    mock.read_config(config_space::COMMAND as u64, &mut command)
        .unwrap();
    assert_eq!(u16::from_le_bytes(command) & 6, 6);
}

#[test]
fn the_identity_chooses_the_dialect_unless_one_is_given() {
    for (profile, dialect) in [
        (Profile::ours(), Dialect::OURS),
        (Profile::qemu(), Dialect::QEMU),
        (Profile::crosvm(), Dialect::CROSVM),
    ] {
        let mock = MockFunction::new(profile);
        let driver = VvuDriver::new(mock.clone(), 1, None, IMPATIENT).unwrap();
        assert_eq!(*driver.dialect(), dialect);
        drop(driver);
        let driver = VvuDriver::new(mock, 1, Some(Dialect::SPEC), IMPATIENT).unwrap();
        assert_eq!(*driver.dialect(), Dialect::SPEC);
    }
}

#[test]
fn a_front_end_that_connects_before_the_start_stays_connected() {
    let mock = MockFunction::new(Profile::qemu());
    mock.state().connect();
    let _driver = try_start(&mock, 1).unwrap();
    assert_eq!(mock.state().config_status, 3);
}

#[test]
fn a_device_that_was_in_use_is_reset_first() {
    let mock = MockFunction::new(Profile::ours());
    mock.state().status = 0xf;
    mock.state().lies.slow_reset = 3;
    let mut driver = VvuDriver::new(mock.clone(), 1, None, PATIENT).unwrap();
    driver.start().unwrap();
    assert_eq!(mock.state().writes[0], "Common+0x14=0x0/1");
}

#[test]
fn a_reset_that_never_ends_is_an_error() {
    let mock = MockFunction::new(Profile::ours());
    mock.state().status = 0xf;
    mock.state().lies.slow_reset = u32::MAX;
    let error = try_start(&mock, 1).unwrap_err();
    assert!(matches!(
        error,
        DriverError::Virtio(VirtioError::ResetTimeout(_))
    ));
}

#[test]
fn a_doorbell_is_rung_by_a_16_bit_write_of_the_queue_index() {
    let (mock, driver) = started(Profile::qemu(), 6);
    driver
        .doorbell(Doorbell::Call(5))
        .unwrap()
        .notify()
        .unwrap();
    assert_eq!(mock.state().rung, [(0x14, vec![5, 0])]);
    assert!(
        driver.doorbell(Doorbell::Error(5)).is_none(),
        "QEMU has none"
    );
    assert!(driver.doorbell(Doorbell::Log).is_none());
    assert!(driver.doorbell(Doorbell::Call(1024)).is_none());
}

#[test]
fn error_doorbells_follow_the_call_doorbells() {
    let (mock, driver) = started(Profile::ours(), 3);
    driver
        .doorbell(Doorbell::Error(2))
        .unwrap()
        .notify()
        .unwrap();
    assert_eq!(mock.state().rung, [((16 + 2) * 4, vec![2, 0])]);
}

#[test]
fn a_mapped_doorbell_is_rung_by_a_store() {
    let profile = Profile {
        doorbells_mapped: true,
        ..Profile::ours()
    };
    let (mock, driver) = started(profile, 8);
    driver
        .doorbell(Doorbell::Call(5))
        .unwrap()
        .notify()
        .unwrap();
    let mut bytes = [0; 8];
    mock.doorbells().read_exact_at(&mut bytes, 0x12).unwrap();
    assert_eq!(bytes, [0, 0, 5, 0, 0, 0, 0, 0]);
    assert!(mock.state().rung.is_empty());
}

#[test]
fn queues_are_notified_at_the_offsets_that_the_device_chooses() {
    let profile = Profile {
        notify_offs: [7, 3],
        ..Profile::ours()
    };
    let (mock, mut driver) = started(profile, 1);
    position(&mock.state().writes, "Notify+0x1c=0x0/2");
    mock.state().connect();
    assert!(driver.channel().unwrap().send(&[0; 12]).unwrap());
    position(&mock.state().writes, "Notify+0xc=0x1/2");
    assert_eq!(mock.state().sent.len(), 1);
}

#[test]
fn small_virtqueues_are_used_as_they_are() {
    for size in [1, 2, 8] {
        let profile = Profile {
            queue_size: size,
            ..Profile::ours()
        };
        let (mock, _driver) = started(profile, 1);
        assert_eq!(mock.state().buffers(queue::RX), size);
    }
}

#[test]
fn the_next_front_end_finds_the_device_as_the_first_did() {
    let mock = MockFunction::new(Profile::qemu());
    let mut driver = VvuDriver::new(mock.clone(), 2, None, PATIENT).unwrap();
    driver.start().unwrap();
    for _ in 0..3 {
        mock.state().connect();
        assert!(!driver.frontend_lost().unwrap());
        mock.state().deliver(b"left behind");
        mock.state().leave();
        assert!(driver.frontend_lost().unwrap());
        mock.state().lies.slow_disconnect = 2;
        driver.next_frontend().unwrap();
        assert_eq!(mock.state().config_status, 1);
        assert_eq!(mock.state().notifications[..3], [3, 4, NO_VECTOR]);
        assert!(!driver.channel().unwrap().has_message());
        assert_eq!(mock.state().buffers(queue::RX), 16);
    }
}

#[test]
fn a_front_end_that_came_and_left_unseen_counts_as_lost() {
    let (mock, mut driver) = started(Profile::ours(), 1);
    assert!(!driver.frontend_lost().unwrap(), "none came yet");
    mock.state().connect();
    mock.state().leave();
    assert!(driver.frontend_lost().unwrap());
}

#[test]
fn a_front_end_that_the_device_does_not_drop_is_an_error() {
    let (mock, mut driver) = started(Profile::ours(), 1);
    mock.state().lies.slow_disconnect = u32::MAX;
    let error = driver.next_frontend().unwrap_err();
    assert!(matches!(error, DriverError::DisconnectTimeout(_)));
}

#[test]
fn a_dropped_driver_leaves_the_device_as_after_a_reset() {
    let (mock, driver) = started(Profile::ours(), 1);
    mock.state().writes.clear();
    drop(driver);
    let writes = mock.state().writes.clone();
    let order = [
        "Config+0x0=0x0/4",
        "Common+0x10=0xffff/2",
        "Common+0x1a=0xffff/2",
        "Notification+0x2=0xffff/2",
        "Common+0x14=0x0/1",
        "msix 0",
        "unmap 0x10000000",
    ];
    let positions: Vec<_> = order.iter().map(|write| position(&writes, write)).collect();
    assert!(positions.is_sorted(), "{writes:#?}");
    assert!(mock.state().dma.is_none());
}

#[test]
fn the_length_in_the_capability_of_the_memory_window_is_ignored() {
    for length in [0, 0x1000, u32::MAX] {
        for profile in [Profile::ours(), Profile::qemu()] {
            let profile = profile.change(cfg_type::SHARED_MEMORY, |cap| cap.length = length);
            let (_mock, mut driver) = started(profile, 1);
            let region = MemoryRegion {
                guest_addr: 0,
                size: 6 << 30,
                user_addr: 0x7f00_0000_0000,
                file_offset: 0,
                memory: (),
            };
            let table = MemoryTable::new(vec![region]).unwrap();
            assert_eq!(driver.window().place(&table).unwrap().len(), 1);
        }
    }
}
