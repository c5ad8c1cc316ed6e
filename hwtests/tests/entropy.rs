//! `vvu-entropy` gives random bytes to a Linux guest over each transport.

use hwtests::device::{Carrier, Device};
use hwtests::{Lab, Result, binaries, ensure, test};

#[test]
fn a_guest_reads_random_bytes_over_vhost_user() {
    test("entropy-socket", |lab| use_entropy(lab, Carrier::VhostUser));
}

#[test]
fn a_guest_reads_random_bytes_from_a_pci_function() {
    test("entropy-pci", |lab| use_entropy(lab, Carrier::VirtioPci));
}

#[test]
fn a_guest_reads_random_bytes_through_a_device_vm() {
    test("entropy-vvu", |lab| use_entropy(lab, Carrier::Vvu));
}

fn use_entropy(lab: &Lab, carrier: Carrier) -> Result<()> {
    let entropy = Device {
        program: binaries::build("vvu-block", "vvu-entropy")?,
        front_end: "vhost-user-rng-pci",
        driver: "virtio-rng",
    };
    entropy.use_over(lab, carrier, |guest| {
        let source = guest.check("cat /sys/class/misc/hw_random/rng_current")?;
        ensure!(source.starts_with("virtio_rng"), "the source is {source}");
        // Random bytes cannot be compressed, so the compressed size shows whether the bytes are
        // random.
        let size = guest.check("head -c 20000 /dev/hwrng > /tmp/a; gzip -c /tmp/a | wc -c")?;
        ensure!(size.trim().parse::<u32>()? > 20_000, "compressed to {size}");
        // Unbinding the driver stops the queue, and binding the driver starts the queue again.
        guest.check(
            "cd /sys/bus/virtio/drivers/virtio_rng; name=$(basename virtio*)
            echo $name > unbind; echo $name > bind
            head -c 20000 /dev/hwrng > /tmp/b; ! cmp -s /tmp/a /tmp/b",
        )?;
        Ok(())
    })
}
