use super::*;

const OFFERED: u64 = 0x3_3000_0000;

fn registers() -> Registers {
    Registers::new(OFFERED, 2, 256, 19)
}

fn read(registers: &Registers, offset: u64, len: usize) -> u64 {
    let mut data = [0; 8];
    registers.read(offset, &mut data[..len]);
    u64::from_le_bytes(data)
}

fn write(registers: &mut Registers, offset: u64, len: usize, value: u64) -> Option<Change> {
    registers.write(offset, &value.to_le_bytes()[..len])
}

fn negotiate(registers: &mut Registers, features: u64) -> u64 {
    write(registers, common::DEVICE_STATUS, 1, 3);
    for half in 0..2 {
        write(registers, common::DRIVER_FEATURE_SELECT, 4, half);
        write(
            registers,
            common::DRIVER_FEATURE,
            4,
            features >> (32 * half) & 0xffff_ffff,
        );
    }
    write(registers, common::DEVICE_STATUS, 1, 0xb);
    read(registers, common::DEVICE_STATUS, 1)
}

#[test]
fn the_select_register_chooses_a_half_of_the_features() {
    let mut registers = registers();
    for (select, shown) in [(0, 0x3000_0000), (1, 3), (2, 0), (u32::MAX.into(), 0)] {
        write(&mut registers, common::DEVICE_FEATURE_SELECT, 4, select);
        assert_eq!(read(&registers, common::DEVICE_FEATURE, 4), shown);
    }
    write(&mut registers, common::DEVICE_FEATURE, 4, 0xffff_ffff);
    assert_eq!(read(&registers, common::DEVICE_FEATURE, 4), 0, "read-only");
}

#[test]
fn features_that_were_not_offered_or_lack_version_1_are_refused() {
    assert_eq!(negotiate(&mut registers(), OFFERED), 0xb);
    assert_eq!(negotiate(&mut registers(), 1 << 32), 0xb);
    assert_eq!(negotiate(&mut registers(), 0x3000_0000), 3, "no VERSION_1");
    assert_eq!(negotiate(&mut registers(), OFFERED | 1), 3, "not offered");
    let mut registers = registers();
    negotiate(&mut registers, 1 << 32);
    write(&mut registers, common::DRIVER_FEATURE, 4, 0);
    assert_eq!(registers.features(), 1 << 32, "too late to change");
}

#[test]
fn the_driver_sets_status_bits_and_only_a_reset_clears_them() {
    let mut registers = registers();
    assert_eq!(write(&mut registers, common::DEVICE_STATUS, 1, 7), None);
    assert_eq!(
        read(&registers, common::DEVICE_STATUS, 1),
        3,
        "no DRIVER_OK before FEATURES_OK"
    );
    negotiate(&mut registers, 1 << 32);
    let change = write(&mut registers, common::DEVICE_STATUS, 1, 0xf);
    assert_eq!(change, Some(Change::DriverOk));
    assert_eq!(write(&mut registers, common::DEVICE_STATUS, 1, 0xf), None);
    write(&mut registers, common::DEVICE_STATUS, 1, 0x41);
    assert_eq!(read(&registers, common::DEVICE_STATUS, 1), 0xf);
    assert!(registers.is_running());
    registers.set_needs_reset();
    assert!(!registers.is_running());
    assert_eq!(read(&registers, common::DEVICE_STATUS, 1), 0x4f);
    let change = write(&mut registers, common::DEVICE_STATUS, 1, 0);
    assert_eq!(change, Some(Change::Reset));
    assert_eq!(read(&registers, common::DEVICE_STATUS, 1), 0);
}

#[test]
fn a_queue_has_the_layout_that_the_driver_wrote() {
    let mut registers = registers();
    negotiate(&mut registers, OFFERED);
    write(&mut registers, common::QUEUE_SELECT, 2, 1);
    assert_eq!(read(&registers, common::QUEUE_SIZE, 2), 256);
    assert_eq!(read(&registers, common::QUEUE_NOTIFY_OFF, 2), 1);
    for bad in [0, 3, 512] {
        write(&mut registers, common::QUEUE_SIZE, 2, bad);
        assert_eq!(read(&registers, common::QUEUE_SIZE, 2), 256, "{bad}");
    }
    write(&mut registers, common::QUEUE_SIZE, 2, 64);
    write(&mut registers, common::QUEUE_DESC, 8, 0x1_2345_6780);
    write(&mut registers, common::QUEUE_DRIVER, 4, 0x1000);
    write(&mut registers, common::QUEUE_DRIVER + 4, 4, 2);
    write(&mut registers, common::QUEUE_DEVICE, 4, 0x3000);
    write(&mut registers, common::QUEUE_DEVICE + 2, 2, 0xffff);
    write(&mut registers, common::QUEUE_ENABLE, 2, 1);
    assert!(registers.queue(1).is_none(), "before DRIVER_OK");
    write(&mut registers, common::QUEUE_SIZE, 2, 32);
    write(&mut registers, common::QUEUE_ENABLE, 2, 0);
    write(&mut registers, common::DEVICE_STATUS, 1, 0xf);
    let layout = registers.queue(1).unwrap();
    assert_eq!(layout.size, 64, "fixed when enabled");
    assert_eq!(layout.desc.0, 0x1_2345_6780);
    assert_eq!((layout.avail.0, layout.used.0), (0x2_0000_1000, 0x3000));
    assert!(registers.queue(0).is_none() && registers.queue(2).is_none());
}

#[test]
fn a_packed_queue_may_have_any_size() {
    let mut registers = Registers::new(OFFERED | PACKED, 2, 256, 3);
    negotiate(&mut registers, OFFERED | PACKED);
    for (size, expected) in [(100, 100), (0, 100), (257, 100), (256, 256), (1, 1)] {
        write(&mut registers, common::QUEUE_SIZE, 2, size);
        assert_eq!(read(&registers, common::QUEUE_SIZE, 2), expected, "{size}");
    }
    write(&mut registers, common::QUEUE_ENABLE, 2, 1);
    write(&mut registers, common::DEVICE_STATUS, 1, 0xf);
    let layout = registers.queue(0).unwrap();
    assert_eq!((layout.packed, layout.size), (true, 1));
}

#[test]
fn no_queue_is_enabled_before_the_features() {
    let mut registers = registers();
    write(&mut registers, common::QUEUE_ENABLE, 2, 1);
    assert_eq!(read(&registers, common::QUEUE_ENABLE, 2), 0);
}

#[test]
fn a_queue_that_does_not_exist_has_size_0_and_ignores_writes() {
    let mut registers = registers();
    negotiate(&mut registers, OFFERED);
    write(&mut registers, common::QUEUE_SELECT, 2, 2);
    for (offset, len) in [
        (common::QUEUE_SIZE, 2),
        (common::QUEUE_ENABLE, 2),
        (common::QUEUE_DESC, 8),
    ] {
        write(&mut registers, offset, len, 1);
        assert_eq!(read(&registers, offset, len), 0);
    }
    write(&mut registers, common::QUEUE_MSIX_VECTOR, 2, 1);
    assert_eq!(
        read(&registers, common::QUEUE_MSIX_VECTOR, 2),
        u64::from(NO_VECTOR)
    );
}

#[test]
fn a_vector_that_does_not_exist_reads_as_none() {
    let mut registers = registers();
    for (wanted, got) in [(18, 18), (19, NO_VECTOR), (0, 0), (NO_VECTOR, NO_VECTOR)] {
        write(&mut registers, common::CONFIG_MSIX_VECTOR, 2, wanted.into());
        write(&mut registers, common::QUEUE_MSIX_VECTOR, 2, wanted.into());
        assert_eq!(
            read(&registers, common::CONFIG_MSIX_VECTOR, 2),
            u64::from(got)
        );
        assert_eq!(
            read(&registers, common::QUEUE_MSIX_VECTOR, 2),
            u64::from(got)
        );
    }
}

#[test]
fn the_interrupt_status_is_kept_until_it_is_read() {
    let mut registers = registers();
    write(&mut registers, common::CONFIG_MSIX_VECTOR, 2, 5);
    let generation = read(&registers, common::CONFIG_GENERATION, 1);
    assert_eq!(registers.config_changed(), 5);
    assert_ne!(read(&registers, common::CONFIG_GENERATION, 1), generation);
    assert_eq!(registers.queue_used(0), NO_VECTOR);
    assert_eq!(registers.queue_used(9), NO_VECTOR);
    assert_eq!(registers.take_isr(), isr::CONFIG | isr::QUEUE);
    assert_eq!(registers.take_isr(), 0);
}

#[test]
fn accesses_that_fit_no_register_change_nothing() {
    let mut registers = registers();
    for offset in 0..0x48 {
        for len in 0..12 {
            let before = read(&registers, common::NUM_QUEUES, 2);
            registers.write(offset, &[0x11; 12][..len]);
            registers.read(offset, &mut [0; 12][..len]);
            assert_eq!(read(&registers, common::NUM_QUEUES, 2), before);
        }
    }
    registers.read(u64::MAX, &mut [0; 4]);
    let mut data = [7; 8];
    registers.read(0x34, &mut data);
    assert_eq!(data[4..], [0; 4]);
}
