//! Tests which operations the io_uring of a jailed disk executes, and which operations it refuses.
//!
//! This program installs the seccomp filter in its own process. It has no test harness, because the
//! threads of a harness would be inside the filter, too.

#![allow(unsafe_code)]

use std::sync::Arc;

use block::{BlockDevice, Image, OpenOptions, Options};
use io_uring::{opcode, squeue, types};
use policies::{Context, DeviceName, TransportName, Violation};
use virtio::{Device, RingOptions, Runner};

fn main() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(4096).expect("room for it");
    let image = Image::open(file.path(), OpenOptions::default()).expect("an image");
    file.close().expect("its removal, while that is possible");
    let device = BlockDevice::new(Arc::new(image), Options::default()).expect("a device");
    let device = Arc::new(device);
    let runner = Runner::new(device.clone(), RingOptions::default());
    runner.prepare().expect("a ring");
    let context = Context::Device(DeviceName::Block, TransportName::VhostUser);
    policies::install(context, Violation::KillProcess).expect("a filter");

    let result = |entry: &squeue::Entry| {
        // SAFETY: each entry has static buffers or no buffers, and `in_ring` waits for its
        // completion.
        unsafe { block::testing::in_ring(&device, entry) }.expect("a ring that is enabled")
    };
    // A poll of an invalid descriptor fails with EBADF, which shows that the ring executes polls.
    let poll = opcode::PollAdd::new(types::Fd(-1), libc::POLLIN as u32).build();
    assert_eq!(result(&poll), -libc::EBADF);
    for (name, entry) in refused() {
        assert_eq!(result(&entry), -libc::EACCES, "{name}");
        println!("{name}: refused");
    }
    assert_eq!(device.kind().id, 2);
}

/// io_uring operations that no disk image needs. The ring must refuse them.
fn refused() -> [(&'static str, squeue::Entry); 8] {
    let root = c"/".as_ptr();
    [
        ("nop", opcode::Nop::new().build()),
        (
            "openat",
            opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), root).build(),
        ),
        ("socket", opcode::Socket::new(libc::AF_UNIX, 1, 0).build()),
        (
            "connect",
            opcode::Connect::new(types::Fd(0), std::ptr::null(), 0).build(),
        ),
        (
            "send",
            opcode::Send::new(types::Fd(0), std::ptr::null(), 0).build(),
        ),
        (
            "sendmsg",
            opcode::SendMsg::new(types::Fd(0), std::ptr::null()).build(),
        ),
        ("close", opcode::Close::new(types::Fd(0)).build()),
        (
            "unlinkat",
            opcode::UnlinkAt::new(types::Fd(libc::AT_FDCWD), root).build(),
        ),
    ]
}
