//! Tests the filters by execution. A child process installs a filter and makes a system call.
#![cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod allowed;
mod attempt;

use attempt::{Outcome, attempt, attempt_with};
use libc::c_long;
use policies::{Context, DeviceName, ImageFormat, TransportName, Violation};

/// Asserts that the system call ends the process in each context for which `expected` holds, and in
/// no other context.
fn killed_where(expected: impl Fn(Context) -> bool, number: c_long, args: [c_long; 6]) {
    for context in Context::all() {
        let outcome = attempt(context, number, args);
        let killed = outcome == Outcome::Signal(libc::SIGSYS);
        assert_eq!(
            killed,
            expected(context),
            "{context}: call {number}: {outcome:?}"
        );
    }
}

fn killed_everywhere(number: c_long, args: [c_long; 6]) {
    killed_where(|_| true, number, args);
}

/// Asserts that the system call fails with the error `errno` in all contexts.
fn fails_everywhere(number: c_long, args: [c_long; 6], errno: i32) {
    for context in Context::all() {
        let outcome = attempt(context, number, args);
        assert_eq!(outcome, Outcome::Error(errno), "{context}");
    }
}

/// Whether the program in this context has a listening socket that peers connect to.
fn listens(context: Context) -> bool {
    match context {
        Context::Device(_, TransportName::Pci | TransportName::VhostUser) => true,
        Context::VvuProxy => true,
        Context::Device(..) | Context::Supervisor => false,
    }
}

/// An arbitrary context, for tests whose result is the same in all contexts.
const ANY: Context = Context::Device(DeviceName::Null, TransportName::Vvu);

const NO_FD: c_long = -1;
const PATH: *const libc::c_char = c"/dev/null".as_ptr();

#[test]
fn no_context_opens_a_file() {
    let path = PATH as c_long;
    fails_everywhere(
        libc::SYS_openat,
        [libc::AT_FDCWD.into(), path, 0, 0, 0, 0],
        libc::ENOENT,
    );
    #[cfg(target_arch = "x86_64")]
    {
        fails_everywhere(libc::SYS_open, [path, 0, 0, 0, 0, 0], libc::ENOENT);
        killed_everywhere(libc::SYS_creat, [path, 0, 0, 0, 0, 0]);
    }
    killed_everywhere(libc::SYS_openat2, [libc::AT_FDCWD.into(), path, 0, 0, 0, 0]);
    killed_everywhere(libc::SYS_open_by_handle_at, [0; 6]);
    killed_everywhere(libc::SYS_memfd_create, [path, 0, 0, 0, 0, 0]);
}

#[test]
fn only_the_supervisor_looks_at_files_by_name_and_removes_them() {
    let path = PATH as c_long;
    let mut buffer = [0u8; 256];
    let out = &raw mut buffer as c_long;
    let here = libc::AT_FDCWD.into();
    for context in Context::all() {
        let expected = match context {
            Context::Supervisor => Outcome::Done,
            _ => Outcome::Error(libc::ENOENT),
        };
        let outcome = attempt(context, libc::SYS_statx, [here, path, 0, 0, out, 0]);
        assert_eq!(outcome, expected, "{context}");
    }
    fails_everywhere(
        libc::SYS_readlinkat,
        [here, path, out, 9, 0, 0],
        libc::ENOENT,
    );
    killed_everywhere(libc::SYS_getdents64, [0; 6]);
    killed_everywhere(libc::SYS_renameat2, [here, path, here, path, 0, 0]);
    let others = |context| context != Context::Supervisor;
    killed_where(others, libc::SYS_unlinkat, [NO_FD, 0, 0, 0, 0, 0]);
}

#[test]
fn no_context_executes_a_program() {
    killed_everywhere(libc::SYS_execve, [PATH as c_long, 0, 0, 0, 0, 0]);
    killed_everywhere(libc::SYS_execveat, [0; 6]);
}

#[test]
fn no_context_starts_a_process() {
    killed_everywhere(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0, 0]);
    let new_user: c_long = (libc::CLONE_THREAD | libc::CLONE_NEWUSER).into();
    killed_everywhere(libc::SYS_clone, [new_user, 0, 0, 0, 0, 0]);
    for context in Context::all() {
        let expected = match context.device() {
            Some(_) => Outcome::Error(libc::ENOSYS),
            None => Outcome::Signal(libc::SIGSYS),
        };
        assert_eq!(
            attempt(context, libc::SYS_clone3, [0; 6]),
            expected,
            "{context}"
        );
    }
    killed_everywhere(
        libc::SYS_unshare,
        [libc::CLONE_NEWUSER.into(), 0, 0, 0, 0, 0],
    );
    killed_everywhere(libc::SYS_setns, [0; 6]);
    #[cfg(target_arch = "x86_64")]
    killed_everywhere(libc::SYS_vfork, [0; 6]);
}

#[test]
fn no_context_maps_executable_memory() {
    let (rw, x): (c_long, c_long) = (
        (libc::PROT_READ | libc::PROT_WRITE).into(),
        libc::PROT_EXEC.into(),
    );
    let anonymous: c_long = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).into();
    for access in [x, rw | x, libc::PROT_READ as c_long | x] {
        killed_everywhere(libc::SYS_mmap, [0, 4096, access, anonymous, NO_FD, 0]);
        let shared: c_long = (libc::MAP_SHARED | libc::MAP_NORESERVE).into();
        killed_everywhere(libc::SYS_mmap, [0, 4096, access, shared, 0, 0]);
        killed_everywhere(libc::SYS_mprotect, [0, 4096, access, 0, 0, 0]);
    }
    killed_everywhere(libc::SYS_pkey_mprotect, [0, 4096, rw, 0, 0, 0]);
    killed_everywhere(libc::SYS_shmat, [0; 6]);
    killed_everywhere(libc::SYS_remap_file_pages, [0; 6]);
    for context in Context::all() {
        let mapped = attempt(context, libc::SYS_mmap, [0, 4096, rw, anonymous, NO_FD, 0]);
        assert_eq!(mapped, Outcome::Done, "{context}");
    }
}

#[test]
fn no_context_debugs_or_signals_other_processes() {
    killed_everywhere(libc::SYS_ptrace, [0; 6]);
    killed_everywhere(libc::SYS_process_vm_readv, [0; 6]);
    killed_everywhere(libc::SYS_process_vm_writev, [0; 6]);
    killed_everywhere(libc::SYS_pidfd_getfd, [0; 6]);
    killed_everywhere(libc::SYS_kill, [1, 0, 0, 0, 0, 0]);
    killed_everywhere(libc::SYS_tgkill, [1, 1, libc::SIGKILL.into(), 0, 0, 0]);
    killed_everywhere(libc::SYS_tkill, [1, libc::SIGKILL.into(), 0, 0, 0, 0]);
    killed_everywhere(
        libc::SYS_rt_tgsigqueueinfo,
        [1, 1, libc::SIGUSR1.into(), 0, 0, 0],
    );
}

#[test]
fn only_the_supervisor_stops_a_process() {
    let others = |context| context != Context::Supervisor;
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        let args = [NO_FD, signal.into(), 0, 0, 0, 0];
        killed_where(others, libc::SYS_pidfd_send_signal, args);
    }
    let args = [NO_FD, libc::SIGSTOP.into(), 0, 0, 0, 0];
    killed_everywhere(libc::SYS_pidfd_send_signal, args);
    killed_everywhere(libc::SYS_pidfd_open, [1, 0, 0, 0, 0, 0]);
}

#[test]
fn no_context_makes_a_socket() {
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_NETLINK] {
        killed_everywhere(libc::SYS_socket, [family.into(), 1, 0, 0, 0, 0]);
    }
    killed_everywhere(libc::SYS_socketpair, [1, 1, 0, 0, 0, 0]);
    killed_everywhere(libc::SYS_connect, [0; 6]);
    killed_everywhere(libc::SYS_bind, [0; 6]);
    killed_everywhere(libc::SYS_listen, [0; 6]);
}

#[test]
fn no_context_gets_privileges_or_loosens_its_filter() {
    killed_everywhere(libc::SYS_setuid, [0; 6]);
    killed_everywhere(libc::SYS_mount, [0; 6]);
    killed_everywhere(libc::SYS_bpf, [0; 6]);
    killed_everywhere(libc::SYS_seccomp, [0; 6]);
    killed_everywhere(
        libc::SYS_prctl,
        [libc::PR_SET_SECCOMP.into(), 0, 0, 0, 0, 0],
    );
    let dumpable = [libc::PR_SET_DUMPABLE.into(), 1, 0, 0, 0, 0];
    killed_everywhere(libc::SYS_prctl, dumpable);
    // A new handler for SIGSYS could hide a violation that the original handler reports.
    killed_everywhere(libc::SYS_rt_sigaction, [libc::SIGSYS.into(), 0, 0, 8, 0, 0]);
}

#[test]
fn each_transport_uses_only_the_sockets_that_it_has() {
    let args = [NO_FD, 0, 0, 0, 0, 0];
    killed_where(|context| !listens(context), libc::SYS_accept4, args);
    let has_none = |context: Context| match context {
        Context::Device(_, transport) => transport == TransportName::Vvu,
        Context::VvuProxy => false,
        Context::Supervisor => true,
    };
    killed_where(has_none, libc::SYS_recvmsg, args);
    killed_where(has_none, libc::SYS_sendmsg, args);
    killed_everywhere(libc::SYS_sendto, args);
    for context in Context::all().filter(|context| listens(*context)) {
        let accepted = attempt(context, libc::SYS_accept4, args);
        assert_eq!(accepted, Outcome::Error(libc::EBADF), "{context}");
    }
}

#[test]
fn only_the_vfio_contexts_talk_to_vfio() {
    let others = |context: Context| context.transport() != Some(TransportName::Vvu);
    // The requests VFIO_DEVICE_SET_IRQS, VFIO_DEVICE_RESET and VFIO_IOMMU_UNMAP_DMA.
    for request in [0x3b6e, 0x3b6f, 0x3b72] {
        killed_where(others, libc::SYS_ioctl, [NO_FD, request, 0, 0, 0, 0]);
    }
    // The requests VFIO_IOMMU_MAP_DMA and VFIO_GROUP_GET_DEVICE_FD are used only before the jail is
    // closed.
    for request in [0x3b71, 0x3b6a] {
        killed_everywhere(libc::SYS_ioctl, [NO_FD, request, 0, 0, 0, 0]);
    }
}

#[test]
fn only_registers_and_the_proxys_memory_are_accessed_at_offsets() {
    let others = |context: Context| {
        context != Context::VvuProxy && context.transport() != Some(TransportName::Vvu)
    };
    killed_where(others, libc::SYS_pread64, [NO_FD, 0, 0, 0, 0, 0]);
    killed_where(others, libc::SYS_pwrite64, [NO_FD, 0, 0, 0, 0, 0]);
}

#[test]
fn no_context_talks_to_terminals_or_kvm() {
    // The requests TCGETS, TIOCSTI, KVM_CREATE_VM and UFFDIO_API.
    for request in [0x5401, 0x5412, 0xae01, 0xc018_aa3f] {
        killed_everywhere(libc::SYS_ioctl, [0, request, 0, 0, 0, 0]);
    }
}

#[test]
fn only_disks_use_images() {
    let without = |context: Context| context.image().is_none();
    killed_where(without, libc::SYS_preadv, [NO_FD, 0, 0, 0, 0, 0]);
    killed_where(without, libc::SYS_pwritev, [NO_FD, 0, 0, 0, 0, 0]);
    let punch: c_long = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE).into();
    killed_where(without, libc::SYS_fallocate, [NO_FD, punch, 0, 512, 0, 0]);
    // The filter of every context forbids allocating space past the end of an image, and removing a
    // range from an image.
    killed_everywhere(libc::SYS_fallocate, [NO_FD, 0, 0, 512, 0, 0]);
    let collapse: c_long = libc::FALLOC_FL_COLLAPSE_RANGE.into();
    killed_everywhere(libc::SYS_fallocate, [NO_FD, collapse | 1, 0, 512, 0, 0]);
}

#[test]
fn only_files_with_a_format_change_their_size() {
    let others = |context: Context| context.image() != Some(ImageFormat::Qcow2);
    killed_where(others, libc::SYS_ftruncate, [NO_FD, 0, 0, 0, 0, 0]);
    killed_where(others, libc::SYS_fsync, [NO_FD, 0, 0, 0, 0, 0]);
}

#[test]
fn only_raw_images_are_used_by_io_uring() {
    let others = |context: Context| context.image() != Some(ImageFormat::Raw);
    killed_where(others, libc::SYS_io_uring_enter, [NO_FD, 0, 0, 0, 0, 0]);
    killed_where(others, libc::SYS_io_uring_register, [NO_FD, 12, 0, 0, 0, 0]);
    // The filter of every context forbids creating an io_uring, and registering buffers, files,
    // personalities or restrictions with an existing io_uring.
    killed_everywhere(libc::SYS_io_uring_setup, [0; 6]);
    for operation in [0, 2, 9, 11, 13] {
        killed_everywhere(libc::SYS_io_uring_register, [NO_FD, operation, 0, 0, 0, 0]);
    }
}

#[test]
fn a_violation_does_what_was_chosen() {
    let attempt = |violation| attempt_with(ANY, violation, libc::SYS_getppid, [0; 6]);
    assert_eq!(
        attempt(Violation::KillProcess),
        Outcome::Signal(libc::SIGSYS)
    );
    assert_eq!(attempt(Violation::Trap), Outcome::Signal(libc::SIGSYS));
    assert_eq!(
        attempt(Violation::Errno(libc::EPERM as u16)),
        Outcome::Error(libc::EPERM)
    );
    assert_eq!(attempt(Violation::Log), Outcome::Done);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_call_of_x32_ends_the_process_whatever_was_chosen() {
    let read = libc::SYS_read | 0x4000_0000;
    for violation in [Violation::KillProcess, Violation::Errno(1), Violation::Log] {
        let outcome = attempt_with(ANY, violation, read, [NO_FD, 0, 0, 0, 0, 0]);
        assert_eq!(outcome, Outcome::Signal(libc::SIGSYS));
    }
}
