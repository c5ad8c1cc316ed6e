//! The example `null` serves a minimal device over each transport.

use hwtests::device::{Carrier, Device};
use hwtests::vm::Vm;
use hwtests::{Lab, Result, binaries, ensure, test};

#[test]
fn a_guest_gets_its_buffers_back_over_vhost_user() {
    test("null-socket", |lab| use_null(lab, Carrier::VhostUser));
}

#[test]
fn a_guest_gets_its_buffers_back_from_a_pci_function() {
    test("null-pci", |lab| use_null(lab, Carrier::VirtioPci));
}

#[test]
fn a_guest_gets_its_buffers_back_through_a_device_vm() {
    test("null-vvu", |lab| use_null(lab, Carrier::Vvu));
}

fn use_null(lab: &Lab, carrier: Carrier) -> Result<()> {
    let null = Device {
        program: binaries::example("vvu-carriers", "null")?,
        front_end: "vhost-user-rng-pci",
        driver: "virtio-rng",
    };
    null.use_over(lab, carrier, |guest| {
        let device = device(guest)?;
        let features = guest.check(&format!("cat /sys/bus/virtio/devices/{device}/features"))?;
        ensure!(
            features.as_bytes().get(32) == Some(&b'1'),
            "VIRTIO_F_VERSION_1: {features}"
        );
        ensure!(
            features.starts_with("0"),
            "features of the device type: {features}"
        );
        wait_for_interrupt(guest, &device)?;
        // Unbinding the driver stops the queue, and binding the driver starts the queue again.
        guest.check(&format!(
            "cd /sys/bus/virtio/drivers/virtio_rng; echo {device} > unbind; echo {device} > bind"
        ))?;
        wait_for_interrupt(guest, &device)
    })
}

/// The name of the entropy device in the guest's sysfs.
fn device(guest: &Vm) -> Result<String> {
    let found =
        guest.check("basename $(dirname $(grep -l 0x0004 /sys/bus/virtio/devices/*/device))")?;
    Ok(found.trim().to_owned())
}

/// Waits until the guest has got an interrupt for a returned buffer. In /proc/interrupts, the name
/// of the interrupt ends in `-input` with MSI-X. Without MSI-X, it is the name of the device.
fn wait_for_interrupt(guest: &Vm, device: &str) -> Result<()> {
    let line = format!("/{device}(-input)?$/");
    guest.check(&format!(
        "until awk '{line} && $2 > 0' /proc/interrupts | grep .; do :; done"
    ))?;
    Ok(())
}
