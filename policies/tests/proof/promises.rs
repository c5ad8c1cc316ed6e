//! Tests properties of the policies that do not depend on the exact rules.

use policies::compiler::{CallRules, call_number};
use policies::{Context, ImageFormat, TransportName};

use crate::{KILL, each, returned};

/// System calls that no policy may name. The only exceptions are unlink and unlinkat in the policy
/// of the supervisor.
const NEVER: [&str; 40] = [
    "execve",
    "execveat",
    "ptrace",
    "socket",
    "socketpair",
    "connect",
    "bind",
    "listen",
    "fork",
    "vfork",
    "unshare",
    "setns",
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "openat2",
    "creat",
    "open_by_handle_at",
    "memfd_create",
    "unlink",
    "unlinkat",
    "rename",
    "renameat2",
    "truncate",
    "kill",
    "bpf",
    "seccomp",
    "setuid",
    "setresuid",
    "capset",
    "process_vm_readv",
    "process_vm_writev",
    "pidfd_getfd",
    "io_uring_setup",
    "userfaultfd",
    "pkey_mprotect",
    "init_module",
    "kexec_load",
    "personality",
];

#[test]
fn some_calls_are_never_made() {
    each(|arch, context, policy, _| {
        // The supervisor removes the program's sockets.
        let supervisor = context == Context::Supervisor;
        let removes = |name: &str| supervisor && name.starts_with("unlink");
        for name in NEVER.into_iter().filter(|name| !removes(name)) {
            assert!(policy.call(name).is_none(), "{arch}/{context} {name}");
        }
    });
}

#[test]
fn no_memory_can_be_executed() {
    each(|arch, context, policy, program| {
        for (number, call) in &policy.calls {
            if !["mmap", "mmap2", "mprotect"].contains(&call.name) {
                continue;
            }
            for access in (0..8).filter(|access| access & 4 != 0) {
                for flags in [0x1, 0x2, 0x22, 0x20022, 0x4001, 0x8001] {
                    let args = [0, 4096, access, flags, 0, 0];
                    let got = returned(program, arch, *number, args);
                    assert_eq!(got, KILL, "{arch}/{context} {} {args:?}", call.name);
                }
            }
        }
    });
}

#[test]
fn no_file_can_be_opened() {
    let permits = |call: &CallRules| {
        let mut rules = call.chains.iter().flat_map(|chain| &chain.rules);
        rules.any(|rule| rule.action.permits())
    };
    each(|arch, context, policy, _| {
        for name in ["open", "openat"] {
            let permitted = policy.call(name).is_some_and(permits);
            assert!(!permitted, "{arch}/{context} {name}");
        }
    });
}

/// The ioctl requests that the policy of a context must allow. It must allow no other requests.
/// This list is independent of the policies.
fn requests(context: Context) -> Vec<u64> {
    let image: &[u64] = match context.image() {
        Some(ImageFormat::Raw) => &[BLKDISCARD, BLKSECDISCARD],
        Some(ImageFormat::Qcow2) | None => &[],
    };
    let transport: &[u64] = match (context, context.transport()) {
        (Context::VvuProxy, _) => &[FIONBIO],
        (_, Some(TransportName::Pci | TransportName::VhostUser)) => &[FIONBIO],
        (_, Some(TransportName::Vvu)) => &[SET_IRQS, RESET, UNMAP_DMA],
        (_, Some(TransportName::VvuVfioUser) | None) => &[],
    };
    [image, transport].concat()
}

const FIONBIO: u64 = 0x5421;
const BLKDISCARD: u64 = 0x1277;
const BLKSECDISCARD: u64 = 0x127d;
/// The request VFIO_DEVICE_SET_IRQS.
const SET_IRQS: u64 = 0x3b6e;
/// The request VFIO_DEVICE_RESET.
const RESET: u64 = 0x3b6f;
/// The request VFIO_IOMMU_UNMAP_DMA.
const UNMAP_DMA: u64 = 0x3b72;

#[test]
fn ioctls_are_few_and_known() {
    let wide = [
        0xc018_aa3f,
        0x8004_5430,
        0x1_0000_5421,
        0xffff_ffff_0000_5421,
    ];
    each(|arch, context, _, program| {
        let number = call_number(arch, "ioctl").unwrap();
        let expected = requests(context);
        let fits = |request: &u64| arch.is_64_bit() || *request <= u32::MAX.into();
        for request in (0..0x10000u64).chain(wide).filter(fits) {
            let allowed = returned(program, arch, number, [3, request, 0, 0, 0, 0]) != KILL;
            let expected = expected.contains(&request);
            assert_eq!(allowed, expected, "{arch}/{context} {request:#x}");
        }
    });
}

/// Asserts that a context's policy names all of these system calls if `expected` holds for the
/// context, and otherwise none of them.
fn named_where(names: &[&str], expected: impl Fn(Context) -> bool) {
    each(|arch, context, policy, _| {
        let mut known = names
            .iter()
            .filter(|name| call_number(arch, name).is_some());
        assert!(
            known.clone().next().is_some(),
            "{arch} has none of {names:?}"
        );
        let expected = expected(context);
        let named = known.all(|name| policy.call(name).is_some() == expected);
        assert!(named, "{arch}/{context} {names:?}: expected {expected}");
    });
}

#[test]
fn an_image_is_used_as_its_format_needs() {
    let has = |format| move |context: Context| context.image() == Some(format);
    named_where(&["fsync"], has(ImageFormat::Qcow2));
    // 32-bit programs use ftruncate64, which has a 64-bit size.
    each(|arch, context, policy, _| {
        let resizes = ["ftruncate", "ftruncate64"]
            .iter()
            .any(|name| policy.call(name).is_some());
        assert_eq!(
            resizes,
            has(ImageFormat::Qcow2)(context),
            "{arch}/{context}"
        );
    });
    named_where(
        &["io_uring_enter", "io_uring_register"],
        has(ImageFormat::Raw),
    );
    named_where(&["fdatasync"], |context| {
        has(ImageFormat::Raw)(context) || context == Context::Supervisor
    });
    named_where(&["preadv", "pwritev", "fallocate"], |context| {
        context.image().is_some()
    });
}

#[test]
fn only_stderr_and_raw_images_are_written_with_flags() {
    let (no_wait, stable) = (libc::RWF_NOWAIT as u64, libc::RWF_DSYNC as u64);
    each(|arch, context, _, program| {
        let number = call_number(arch, "pwritev2").unwrap();
        let is_raw = context.image() == Some(ImageFormat::Raw);
        for file in [0, 1, 2, 3, 1 << 31 | 2] {
            for flags in 0..64 {
                let got = returned(program, arch, number, [file, 0, 0, 0, 0, flags]);
                let to_stderr = file == 2 && flags == no_wait;
                let to_image = is_raw && [no_wait, stable].contains(&flags);
                let expected = to_stderr || to_image;
                assert_eq!(got != KILL, expected, "{arch}/{context} {file} {flags:#x}");
            }
        }
    });
}

/// The only operation of io_uring_register that a queue's thread uses.
const IORING_REGISTER_ENABLE_RINGS: u64 = 12;

#[test]
fn a_ring_can_only_be_enabled() {
    each(|arch, context, _, program| {
        let number = call_number(arch, "io_uring_register").unwrap();
        let has_rings = context.image() == Some(ImageFormat::Raw);
        for registration in (0..64).chain([1 << 31, 1 << 31 | 12]) {
            let got = returned(program, arch, number, [3, registration, 0, 0, 0, 0]);
            let expected = has_rings && registration == IORING_REGISTER_ENABLE_RINGS;
            assert_eq!(got != KILL, expected, "{arch}/{context} {registration}");
        }
    });
}

#[test]
fn queues_have_threads_and_the_proxy_has_none() {
    named_where(&["clone", "clone3"], |context| context.device().is_some());
}

#[test]
fn threads_signal_each_other_only_to_abort_or_to_interrupt_a_write() {
    each(|arch, context, _, program| {
        for signal in 0..=64 {
            let aborts = signal == libc::SIGABRT as u64;
            let has_peers = context != Context::Supervisor;
            let interrupts = signal == libc::SIGUSR1 as u64 && has_peers;
            for (name, [a, b, c], expected) in [
                ("tgkill", [1, 2, signal], aborts || interrupts),
                ("tkill", [2, signal, 0], aborts),
            ] {
                let number = call_number(arch, name).unwrap();
                let allowed = returned(program, arch, number, [a, b, c, 0, 0, 0]) != KILL;
                assert_eq!(allowed, expected, "{arch}/{context} {name} {signal}");
            }
        }
    });
}
