//! Proposes the lines that a context lacks, and the policy file for each line.

use std::collections::BTreeMap;
use std::path::Path;

use policies::compiler::{Arch, Atom, Loaded, Op, call_name};

use super::MissingCalls;
use crate::names;
use crate::tree::name;

/// System calls that no program in a jail needs. They are made before the jail is closed, or by the
/// supervisor process outside the jail.
const OUTSIDE: [&str; 26] = [
    "bind",
    "chdir",
    "chmod",
    "chown",
    "connect",
    "creat",
    "execve",
    "fork",
    "kill",
    "listen",
    "memfd_create",
    "mkdir",
    "mkdirat",
    "mount",
    "openat2",
    "pidfd_open",
    "ptrace",
    "rename",
    "renameat2",
    "rmdir",
    "socket",
    "socketpair",
    "truncate",
    "unlink",
    "unlinkat",
    "vfork",
];
/// System calls that every device may need.
const COMMON: [&str; 29] = [
    "brk",
    "clock_gettime",
    "clock_nanosleep",
    "close",
    "dup",
    "exit",
    "exit_group",
    "futex",
    "getpid",
    "getrandom",
    "gettid",
    "madvise",
    "membarrier",
    "mprotect",
    "mremap",
    "munmap",
    "nanosleep",
    "poll",
    "ppoll",
    "prctl",
    "read",
    "restart_syscall",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "sigaltstack",
    "write",
];
/// System calls that the threads of queues need.
const QUEUES: [&str; 8] = [
    "clone",
    "clone3",
    "eventfd2",
    "preadv2",
    "rseq",
    "set_robust_list",
    "tgkill",
    "tkill",
];
/// System calls for the files and descriptors of a single device.
const DEVICE: [&str; 18] = [
    "copy_file_range",
    "fallocate",
    "fdatasync",
    "fsync",
    "ftruncate",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "lseek",
    "preadv",
    "pwritev",
    "pwritev2",
    "readv",
    "sync_file_range",
    "timerfd_create",
    "timerfd_gettime",
    "timerfd_settime",
    "writev",
];

/// Whether a system call is made only outside the jail, so that no line is proposed for it.
pub fn is_for_outside(call: &str) -> bool {
    OUTSIDE.contains(&call)
}

/// The proposed lines for each policy file. Each line has the number of times that the system call
/// was made.
pub fn lines(missing: &MissingCalls, loaded: &Loaded, arch: Arch) -> BTreeMap<String, Vec<String>> {
    let mut lines = BTreeMap::<String, Vec<String>>::new();
    for ((number, args), count) in missing {
        let call = call_name(arch, *number);
        let line = match call {
            Some(call) => format!("{:<44} # {count} times", statement(arch, call, args)),
            None => format!("# the unknown call {number}, {count} times"),
        };
        let file = file(call.unwrap_or_default(), loaded);
        lines.entry(file).or_default().push(line);
    }
    lines
}

fn statement(arch: Arch, call: &str, args: &[(u8, u64)]) -> String {
    let condition = |&(arg, value): &(u8, u64)| {
        let value = names::value(
            arch,
            call,
            &Atom {
                arg,
                op: Op::Equal,
                value,
            },
        );
        format!("arg{arg} == {value}")
    };
    match args {
        [] => format!("{call}: 1"),
        args => {
            let conditions: Vec<_> = args.iter().map(condition).collect();
            format!("{call}: {}", conditions.join(" && "))
        }
    }
}

/// The path of the included policy file that should name the system call. If no included file fits,
/// the path of the context's own file.
fn file(call: &str, loaded: &Loaded) -> String {
    let files = loaded.files();
    let own = files.first().map_or(Path::new(""), |path| path.as_path());
    // For example, the context `block_device_vvu` has the device `block`.
    let own_name = name(own);
    let (device, _) = own_name.split_once("_device").unwrap_or((&own_name, ""));
    let named = |wanted: &str| files[1..].iter().find(|path| name(path) == wanted);
    let found = if COMMON.contains(&call) {
        named("common").or_else(|| named("common_device"))
    } else if QUEUES.contains(&call) {
        named("queues").or_else(|| named("common_device"))
    } else if DEVICE.contains(&call) {
        named(device)
    } else {
        let others = ["common", "common_device", "queues", device];
        files[1..]
            .iter()
            .find(|path| !others.contains(&name(path).as_str()))
    };
    found
        .map_or(own, |path| path.as_path())
        .display()
        .to_string()
}
