//! Tests that the filters allow the system calls that contexts need.

use libc::c_long;
use policies::{Context, ImageFormat, TransportName};

use crate::attempt::{Outcome, attempt};
use crate::{NO_FD, listens};

/// Asserts that the filters allow these system calls in all contexts that `chosen` selects. Each
/// system call is harmless with its arguments.
fn made_where(chosen: impl Fn(Context) -> bool, calls: &[(c_long, [c_long; 6])]) {
    let mut contexts = 0;
    for context in Context::all().filter(|context| chosen(*context)) {
        contexts += 1;
        for (number, args) in calls {
            let outcome = attempt(context, *number, *args);
            let ended = matches!(outcome, Outcome::Signal(_));
            assert!(!ended, "{context}: call {number}: {outcome:?}");
        }
    }
    assert_ne!(contexts, 0);
}

/// The arguments of a system call. All arguments after the second are 0.
fn with(first: c_long, second: c_long) -> [c_long; 6] {
    [first, second, 0, 0, 0, 0]
}

#[test]
fn all_contexts_wait_and_use_open_descriptors() {
    let anything = with(NO_FD, 0);
    let no_wait: c_long = libc::RWF_NOWAIT.into();
    made_where(
        |_| true,
        &[
            (libc::SYS_read, anything),
            (libc::SYS_preadv2, [NO_FD, 0, 0, 0, 0, no_wait]),
            (libc::SYS_pwritev2, [STDERR, 0, 0, 0, 0, no_wait]),
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

const STDERR: c_long = libc::STDERR_FILENO as c_long;

/// A timeout of zero.
static NOW: libc::timespec = libc::timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

#[test]
fn queues_are_woken() {
    made_where(
        |context| context.device().is_some(),
        &[(libc::SYS_eventfd2, with(0, 0))],
    );
}

#[test]
fn writes_that_block_are_interrupted() {
    let interrupt = [NO_FD, NO_FD, libc::SIGUSR1.into(), 0, 0, 0];
    let peers = |context| context != Context::Supervisor;
    made_where(peers, &[(libc::SYS_tgkill, interrupt)]);
}

#[test]
fn disks_use_their_images() {
    let punch: c_long = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE).into();
    made_where(
        |context| context.image().is_some(),
        &[
            (libc::SYS_preadv, with(NO_FD, 0)),
            (libc::SYS_pwritev, with(NO_FD, 0)),
            (libc::SYS_fallocate, [NO_FD, punch, 0, 512, 0, 0]),
        ],
    );
}

#[test]
fn raw_images_are_used_by_io_uring_and_by_calls() {
    let zero: c_long = (libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE).into();
    let allocate: c_long = libc::FALLOC_FL_KEEP_SIZE.into();
    let ring: c_long = (libc::MAP_SHARED | libc::MAP_POPULATE).into();
    let (no_wait, stable) = (libc::RWF_NOWAIT.into(), libc::RWF_DSYNC.into());
    made_where(
        |context| context.image() == Some(ImageFormat::Raw),
        &[
            (libc::SYS_pwritev2, [NO_FD, 0, 0, 0, 0, no_wait]),
            (libc::SYS_pwritev2, [NO_FD, 0, 0, 0, 0, stable]),
            (libc::SYS_fdatasync, with(NO_FD, 0)),
            (libc::SYS_fallocate, [NO_FD, zero, 0, 512, 0, 0]),
            (libc::SYS_fallocate, [NO_FD, allocate, 0, 512, 0, 0]),
            // The requests BLKDISCARD and BLKSECDISCARD.
            (libc::SYS_ioctl, with(NO_FD, 0x1277)),
            (libc::SYS_ioctl, with(NO_FD, 0x127d)),
            (libc::SYS_io_uring_enter, with(NO_FD, 0)),
            // Operation 12 is IORING_REGISTER_ENABLE_RINGS.
            (libc::SYS_io_uring_register, with(NO_FD, 12)),
            (libc::SYS_mmap, [0, 4096, READ_WRITE, ring, NO_FD, 0]),
        ],
    );
}

#[test]
fn files_with_a_format_grow() {
    made_where(
        |context| context.image() == Some(ImageFormat::Qcow2),
        &[
            (libc::SYS_fsync, with(NO_FD, 0)),
            (libc::SYS_ftruncate, with(NO_FD, 0)),
        ],
    );
}

const READ_WRITE: c_long = (libc::PROT_READ | libc::PROT_WRITE) as c_long;

#[test]
fn all_contexts_with_a_driver_map_its_memory() {
    let shared: c_long = (libc::MAP_SHARED | libc::MAP_NORESERVE).into();
    let map = (libc::SYS_mmap, [0, 4096, READ_WRITE, shared, NO_FD, 0]);
    made_where(|context| context != Context::Supervisor, &[map]);
}

/// The system calls of the signal handler that replaces missing pages.
#[test]
fn all_contexts_survive_the_loss_of_memory() {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // The length 0 is an error.
    let map = (libc::SYS_mmap, [0, 0, READ_WRITE, flags.into(), NO_FD, 0]);
    let restore = (libc::SYS_rt_sigaction, with(libc::SIGBUS.into(), 0));
    made_where(|_| true, &[map, restore]);
}

#[test]
fn each_transport_has_its_calls() {
    let messages = [
        (libc::SYS_recvmsg, with(NO_FD, 0)),
        (libc::SYS_sendmsg, with(NO_FD, 0)),
        (libc::SYS_fcntl, with(NO_FD, libc::F_DUPFD_CLOEXEC.into())),
    ];
    made_where(listens, &messages);
    // Request 0x5421 is FIONBIO.
    let seals = libc::F_GET_SEALS.into();
    let of_descriptors = [
        (libc::SYS_ioctl, with(NO_FD, 0x5421)),
        (libc::SYS_fcntl, with(NO_FD, seals)),
    ];
    made_where(listens, &of_descriptors);
    let over = |transport| move |context: Context| context.transport() == Some(transport);
    made_where(over(TransportName::VvuVfioUser), &messages);
    let at_offsets = [
        (libc::SYS_pread64, with(NO_FD, 0)),
        (libc::SYS_pwrite64, with(NO_FD, 0)),
    ];
    made_where(over(TransportName::Vvu), &at_offsets);
    made_where(|context| context == Context::VvuProxy, &at_offsets);
    made_where(
        over(TransportName::Vvu),
        &[
            // The requests VFIO_DEVICE_SET_IRQS, VFIO_DEVICE_RESET and VFIO_IOMMU_UNMAP_DMA.
            (libc::SYS_ioctl, with(NO_FD, 0x3b6e)),
            (libc::SYS_ioctl, with(NO_FD, 0x3b6f)),
            (libc::SYS_ioctl, with(NO_FD, 0x3b72)),
        ],
    );
}

#[test]
fn the_supervisor_stops_its_child_flushes_the_image_and_removes_sockets() {
    made_where(
        |context| context == Context::Supervisor,
        &[
            (libc::SYS_waitid, [libc::P_PIDFD.into(), NO_FD, 0, 0, 0, 0]),
            (
                libc::SYS_pidfd_send_signal,
                with(NO_FD, libc::SIGTERM.into()),
            ),
            (
                libc::SYS_pidfd_send_signal,
                with(NO_FD, libc::SIGKILL.into()),
            ),
            (libc::SYS_close_range, with(1 << 30, 1 << 30)),
            (libc::SYS_fdatasync, with(NO_FD, 0)),
            (libc::SYS_unlinkat, with(NO_FD, 0)),
        ],
    );
}

#[test]
fn servers_of_pci_functions_wait_with_epoll() {
    let wait = [(libc::SYS_epoll_pwait, with(NO_FD, 0))];
    let serves_pci = |context: Context| match context {
        Context::Device(_, transport) => transport == TransportName::Pci,
        Context::VvuProxy => true,
        Context::Supervisor => false,
    };
    made_where(serves_pci, &wait);
}
