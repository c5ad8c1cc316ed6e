//! What the programs do on all architectures, without running them: an interpreter of classic BPF
//! goes through every rule of every context, and just past its limits.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::PathBuf;

use policies::compiler::interpreter::{CallData, run};
use policies::compiler::{
    Arch, CallRules, Clause, Instruction, Options, Policy, call_name, call_number, compile, decide,
    load,
};
use policies::{Context, ImageFormat, TransportName, program, sources};

const KILL: u32 = 0x8000_0000;

fn policy(arch: Arch, context: Context) -> Policy {
    let path = PathBuf::from(arch.name()).join(format!("{context}.policy"));
    let loaded = load(&sources(), &path, &Options::default()).unwrap();
    Policy::merge(&loaded, arch).unwrap()
}

fn each(mut check: impl FnMut(Arch, Context, &Policy, &[Instruction])) {
    for arch in Arch::ALL {
        for context in Context::all() {
            let policy = policy(arch, context);
            check(arch, context, &policy, program(arch, context));
        }
    }
}

fn returned(program: &[Instruction], arch: Arch, number: u32, args: [u64; 6]) -> u32 {
    let arch = arch.audit();
    run(program, &CallData { number, arch, args }).unwrap()
}

/// Arguments for which a clause holds, if a little search finds some.
fn witness(clause: &Clause) -> Option<[u64; 6]> {
    let mut args = [0; 6];
    for arg in 0..6u8 {
        let atoms = clause.atoms().iter().filter(|atom| atom.arg == arg);
        let atoms: Vec<_> = atoms.collect();
        let values = atoms.iter().map(|atom| atom.value);
        let both = |a: u64| atoms.iter().map(move |atom| a & atom.value);
        let candidates = values.clone().chain(values.flat_map(both)).chain([0, 1]);
        let near = candidates.flat_map(|v| [v, v.wrapping_add(1), v.wrapping_sub(1)]);
        let mut good = near.filter(|v| atoms.iter().all(|atom| atom.op.holds(*v, atom.value)));
        args[usize::from(arg)] = good.next()?;
    }
    Some(args)
}

/// Values next to the limit of a comparison, in it and past it.
fn around(arch: Arch, value: u64) -> impl Iterator<Item = u64> {
    let width = if arch.is_64_bit() { 64 } else { 32 };
    let mask = u64::MAX >> (64 - width);
    let bits = (0..width).map(move |bit| value ^ (1 << bit));
    let near = [
        value,
        value.wrapping_add(1),
        value.wrapping_sub(1),
        0,
        u64::MAX,
    ];
    bits.chain(near).map(move |v| v & mask)
}

#[test]
fn what_is_embedded_is_what_the_policies_say() {
    each(|_, _, policy, program| assert_eq!(compile(policy).unwrap(), program));
}

#[test]
fn every_rule_does_what_it_says_and_no_more() {
    let mut tried = 0;
    each(|arch, context, policy, program| {
        for (number, call) in &policy.calls {
            for rule in call.chains.iter().flat_map(|chain| &chain.rules) {
                let what = format!("{arch}/{context} {}: {rule}", call.name);
                let args = witness(&rule.clause).expect(&what);
                let got = returned(program, arch, *number, args);
                assert_eq!(got, rule.action.code(), "{what}");
                for atom in rule.clause.atoms() {
                    for value in around(arch, atom.value) {
                        let mut args = args;
                        args[usize::from(atom.arg)] = value;
                        let expected = decide(policy, *number, &args).action.code();
                        let got = returned(program, arch, *number, args);
                        assert_eq!(got, expected, "{what} with {value:#x}");
                        tried += 1;
                    }
                }
            }
        }
    });
    assert!(tried > 10_000, "{tried}");
}

#[test]
fn what_no_rule_names_ends_the_process() {
    each(|arch, _, policy, program| {
        for number in (0..1024).chain([0x3fff_ffff, 0x4000_0000, 0x8000_0000, u32::MAX]) {
            if !policy.calls.contains_key(&number) {
                assert_eq!(returned(program, arch, number, [0; 6]), KILL, "{number}");
            }
        }
    });
}

#[test]
fn other_architectures_end_the_process() {
    each(|arch, _, policy, program| {
        let foreign = Arch::ALL.into_iter().filter(|other| *other != arch);
        // i386 on x86_64, and nonsense.
        let foreign = foreign.map(Arch::audit).chain([0x4000_0003, 0, u32::MAX]);
        for foreign in foreign {
            for number in policy.calls.keys() {
                let call = CallData {
                    number: *number,
                    arch: foreign,
                    args: [0; 6],
                };
                assert_eq!(run(program, &call).unwrap(), KILL);
            }
        }
    });
}

/// Calls that no context of any architecture makes, whatever the arguments.
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
    "io_uring_register",
    "userfaultfd",
    "pkey_mprotect",
    "init_module",
    "kexec_load",
    "personality",
];

#[test]
fn calls_that_are_never_made() {
    each(|arch, context, policy, _| {
        for name in NEVER {
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

/// Requests of ioctl that are allowed, written down apart from the policies.
fn requests(context: Context) -> Vec<u64> {
    let image: &[u64] = match context.image() {
        Some(ImageFormat::Raw) => &[BLKDISCARD, BLKSECDISCARD],
        Some(ImageFormat::Qcow2) | None => &[],
    };
    let transport: &[u64] = match context.transport() {
        Some(TransportName::Pci | TransportName::VhostUser) | None => &[FIONBIO],
        Some(TransportName::Vvu) => &[SET_IRQS, RESET, UNMAP_DMA],
        Some(TransportName::VvuVfioUser) => &[],
    };
    [image, transport].concat()
}

const FIONBIO: u64 = 0x5421;
const BLKDISCARD: u64 = 0x1277;
const BLKSECDISCARD: u64 = 0x127d;
/// VFIO_DEVICE_SET_IRQS.
const SET_IRQS: u64 = 0x3b6e;
/// VFIO_DEVICE_RESET.
const RESET: u64 = 0x3b6f;
/// VFIO_IOMMU_UNMAP_DMA.
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

/// Asserts that the policies of exactly those contexts for which this holds name these calls.
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
    // Of 32-bit programs, the call with 64-bit sizes.
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
    named_where(&["io_uring_enter"], has(ImageFormat::Raw));
    named_where(&["fdatasync", "pwritev2"], has(ImageFormat::Raw));
    named_where(&["preadv", "pwritev", "fallocate"], |context| {
        context.image().is_some()
    });
}

#[test]
fn queues_have_threads_and_the_proxy_has_none() {
    named_where(&["clone", "clone3", "preadv2"], |context| {
        context.device().is_some()
    });
}

#[test]
fn threads_signal_each_other_to_abort_or_to_interrupt_a_queue() {
    each(|arch, context, _, program| {
        for signal in 0..=64 {
            let aborts = signal == libc::SIGABRT as u64;
            let interrupts = signal == libc::SIGUSR1 as u64 && context.device().is_some();
            let expected = aborts || interrupts;
            for (name, args) in [("tgkill", [1, 2, signal]), ("tkill", [2, signal, 0])] {
                let number = call_number(arch, name).unwrap();
                let [a, b, c] = args;
                let allowed = returned(program, arch, number, [a, b, c, 0, 0, 0]) != KILL;
                assert_eq!(allowed, expected, "{arch}/{context} {name} {signal}");
            }
        }
    });
}

#[test]
fn programs_are_short() {
    each(|arch, context, _, program| {
        let length = program.len();
        assert!(length < 500, "{arch}/{context}: {length}");
    });
}

#[test]
fn every_architecture_allows_as_much() {
    let names = |arch, context| -> Vec<String> {
        let calls = policy(arch, context).calls;
        let names = calls.keys().map(|number| call_name(arch, *number).unwrap());
        // Names that differ for one and the same thing; calls that only old architectures have.
        let names = names.map(|name| name.replace("mmap2", "mmap"));
        let names = names.map(|name| {
            name.trim_end_matches("64")
                .trim_end_matches("_time")
                .to_owned()
        });
        let names = names.map(|name| name.replace("newfstatat", "fstatat"));
        let old = ["open", "readlink", "stat", "lstat", "sigreturn"];
        let mut names: Vec<_> = names.filter(|name| !old.contains(&name.as_str())).collect();
        names.sort();
        names.dedup();
        names
    };
    for context in Context::all() {
        let reference = names(Arch::X86_64, context);
        for arch in [Arch::Aarch64, Arch::Arm] {
            assert_eq!(names(arch, context), reference, "{arch}/{context}");
        }
    }
}
