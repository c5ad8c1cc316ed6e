//! Calls that have to be made.

use libc::c_long;
use policies::Context;

use crate::NO_FD;
use crate::attempt::{Outcome, attempt};
use Context::{
    BlockDevice, BlockDeviceVhostUser, BlockDeviceVvu, BlockDeviceVvuVfioUser, VvuProxyDevice,
};

/// Asserts that these calls, each harmless with what it is given, are made in these contexts.
fn made_in(contexts: &[Context], calls: &[(c_long, [c_long; 6])]) {
    for context in contexts {
        for (number, args) in calls {
            let outcome = attempt(*context, *number, *args);
            let name = context.name();
            assert!(
                !matches!(outcome, Outcome::Signal(_)),
                "{name}: call {number}: {outcome:?}"
            );
        }
    }
}

/// Arguments of which only the first two matter.
fn with(first: c_long, second: c_long) -> [c_long; 6] {
    [first, second, 0, 0, 0, 0]
}

#[test]
fn all_use_what_is_open_and_wait() {
    let anything = with(NO_FD, 0);
    made_in(
        &Context::ALL,
        &[
            (libc::SYS_read, anything),
            (libc::SYS_write, anything),
            (libc::SYS_writev, anything),
            (libc::SYS_close, anything),
            (libc::SYS_fstat, anything),
            (libc::SYS_fcntl, with(NO_FD, libc::F_GETFD.into())),
            (
                libc::SYS_statx,
                [NO_FD, 0, libc::AT_EMPTY_PATH.into(), 0, 0, 0],
            ),
            (libc::SYS_ppoll, [0, 0, &raw const NOW as c_long, 0, 0, 0]),
            (libc::SYS_futex, with(0, libc::FUTEX_WAKE.into())),
            (libc::SYS_clock_gettime, anything),
            (libc::SYS_getrandom, with(0, 0)),
        ],
    );
}

/// A timeout that is over at once.
static NOW: libc::timespec = libc::timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

#[test]
fn the_block_devices_use_their_image() {
    let devices: Vec<_> = Context::ALL
        .into_iter()
        .filter(|c| *c != VvuProxyDevice)
        .collect();
    let zero: c_long = (libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE).into();
    let ring: c_long = (libc::MAP_SHARED | libc::MAP_POPULATE).into();
    made_in(
        &devices,
        &[
            (libc::SYS_preadv, with(NO_FD, 0)),
            (libc::SYS_pwritev, with(NO_FD, 0)),
            (libc::SYS_pwritev2, with(NO_FD, 0)),
            (libc::SYS_fdatasync, with(NO_FD, 0)),
            (libc::SYS_fsync, with(NO_FD, 0)),
            (libc::SYS_ftruncate, with(NO_FD, 0)),
            (libc::SYS_fallocate, [NO_FD, zero, 0, 512, 0, 0]),
            (libc::SYS_fallocate, [NO_FD, 1, 0, 512, 0, 0]),
            (libc::SYS_ioctl, with(NO_FD, 0x1277)),
            (libc::SYS_io_uring_setup, with(0, 0)),
            (libc::SYS_io_uring_enter, with(NO_FD, 0)),
            (libc::SYS_mmap, [0, 4096, READ_WRITE, ring, NO_FD, 0]),
            (libc::SYS_eventfd2, with(0, 0)),
        ],
    );
}

const READ_WRITE: c_long = (libc::PROT_READ | libc::PROT_WRITE) as c_long;

#[test]
fn transports_have_their_calls() {
    let shared: c_long = (libc::MAP_SHARED | libc::MAP_NORESERVE).into();
    let map = (libc::SYS_mmap, [0, 4096, READ_WRITE, shared, NO_FD, 0]);
    made_in(&Context::ALL, &[map]);
    let listening = [BlockDevice, BlockDeviceVhostUser, VvuProxyDevice];
    let receive = [
        (libc::SYS_recvmsg, with(NO_FD, 0)),
        (libc::SYS_sendmsg, with(NO_FD, 0)),
    ];
    made_in(&listening, &receive);
    made_in(&[BlockDeviceVvuVfioUser], &receive);
    made_in(&listening, &[(libc::SYS_ioctl, with(NO_FD, 0x5421))]);
    made_in(
        &[BlockDeviceVhostUser],
        &[(libc::SYS_sendto, with(NO_FD, 0))],
    );
    made_in(
        &[BlockDeviceVvu],
        &[
            (libc::SYS_pread64, with(NO_FD, 0)),
            (libc::SYS_pwrite64, with(NO_FD, 0)),
            (libc::SYS_ioctl, with(NO_FD, 0x3b6e)),
            (libc::SYS_ioctl, with(NO_FD, 0x3b6f)),
            (libc::SYS_ioctl, with(NO_FD, 0x3b72)),
        ],
    );
    made_in(
        &[VvuProxyDevice],
        &[(libc::SYS_epoll_pwait, with(NO_FD, 0))],
    );
}
