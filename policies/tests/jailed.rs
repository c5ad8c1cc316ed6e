//! Tests of whole programs that run inside a seccomp filter. The programs allocate memory, sleep,
//! log, panic, abort and use threads.
//!
//! Without arguments, this program starts itself once for each context and task. It has no test
//! harness, because the threads of a harness would be inside the filter, too.
#![allow(clippy::unwrap_used, reason = "this is a test")]

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn main() {}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "inside", context, task] => inside::run(context, task),
        _ => outside::run_all(),
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod outside {
    use policies::Context;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Output};

    pub fn run_all() {
        for context in Context::all() {
            for task in ["memory", "sleep", "time", "hash", "log"] {
                succeeds(context, task);
            }
            panics(context, "panic");
            aborts(context);
            // Only contexts with a device have queue threads.
            if context.device().is_some() {
                succeeds(context, "threads");
                succeeds(context, "interrupt");
                panics(context, "panic-in-thread");
            }
            println!("{context}: ok");
        }
        let any = Context::VvuProxy;
        succeeds(any, "refused-for-another-thread");
    }

    fn succeeds(context: Context, task: &str) {
        let output = run(context, task, "0");
        assert!(output.status.success(), "{context}: {task}: {output:?}");
    }

    fn panics(context: Context, task: &str) {
        for backtrace in ["0", "1", "full"] {
            let output = run(context, task, backtrace);
            let stderr = String::from_utf8_lossy(&output.stderr);
            let what = format!("{context}: {task}, RUST_BACKTRACE={backtrace}");
            assert_eq!(output.status.code(), Some(101), "{what}: {output:?}");
            assert!(stderr.contains("something is wrong"), "{what}: {stderr}");
        }
    }

    fn aborts(context: Context) {
        let output = run(context, "abort", "0");
        let signal = output.status.signal();
        assert_eq!(signal, Some(libc::SIGABRT), "{context}: {output:?}");
    }

    fn run(context: Context, task: &str, backtrace: &str) -> Output {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let context = context.to_string();
        command
            .args(["inside", &context, task])
            .env("RUST_BACKTRACE", backtrace);
        command.output().unwrap()
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod inside {
    use policies::{Context, InstallError, Violation, install};
    use seccompiler::sock_filter;
    use std::collections::HashMap;
    use std::mem::MaybeUninit;
    use std::ptr::null_mut;
    use std::sync::Barrier;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::{Duration, Instant, SystemTime};

    pub fn run(context: &str, task: &str) {
        let context = Context::all().find(|c| c.to_string() == context).unwrap();
        if task == "refused-for-another-thread" {
            return refused_for_another_thread(context);
        }
        install_interrupt_handler();
        install(context, Violation::KillProcess).unwrap();
        match task {
            "threads" => threads(),
            "interrupt" => interrupt(),
            "memory" => memory(),
            "sleep" => thread::sleep(Duration::from_millis(2)),
            "time" => assert!(SystemTime::now() > SystemTime::UNIX_EPOCH),
            "hash" => assert_eq!(hash(), 2),
            "log" => eprintln!("{:?}", Instant::now()),
            "panic" => panic!("something is wrong"),
            "panic-in-thread" => thread::spawn(|| panic!("something is wrong"))
                .join()
                .unwrap(),
            "abort" => std::process::abort(),
            task => panic!("unknown task {task}"),
        }
    }

    /// A filter cannot be installed if another thread has a different filter.
    fn refused_for_another_thread(context: Context) {
        // The instruction BPF_RET, which returns SECCOMP_RET_ALLOW.
        let allow = sock_filter {
            code: 6,
            jt: 0,
            jf: 0,
            k: 0x7fff_0000,
        };
        let (filtered, end) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                seccompiler::apply_filter(&[allow]).unwrap();
                filtered.wait();
                end.wait();
            });
            filtered.wait();
            let result = install(context, Violation::KillProcess);
            end.wait();
            let error = result.unwrap_err();
            assert!(matches!(error, InstallError::Thread(_)), "{error:?}");
            assert!(
                error.to_string().contains("another seccomp filter"),
                "{error}"
            );
        });
    }

    fn threads() {
        let start = |i| {
            let thread = thread::Builder::new().name(format!("queue {i}"));
            thread.spawn(memory).unwrap()
        };
        let threads: Vec<_> = (0..4).map(start).collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }

    extern "C" fn ignore(_signal: libc::c_int) {}

    /// Sets a signal handler, as a program does before it installs its filter. Without SA_RESTART,
    /// the signal interrupts a system call that blocks.
    fn install_interrupt_handler() {
        // SAFETY: all zeroes is a valid `sigaction`, and the handler does nothing.
        unsafe {
            let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
            action.sa_sigaction = ignore as *const () as usize;
            assert_eq!(libc::sigaction(libc::SIGUSR1, &action, null_mut()), 0);
        }
    }

    /// Interrupts a thread that blocks in a read of an eventfd.
    fn interrupt() {
        // SAFETY: the call takes numbers only.
        let eventfd = unsafe { libc::eventfd(0, 0) };
        let (send, sent) = channel();
        let blocked = thread::spawn(move || {
            // SAFETY: the call takes no arguments.
            send.send(unsafe { libc::gettid() }).unwrap();
            let mut counter = 0u64;
            // SAFETY: `counter` has the 8 bytes that the kernel writes.
            let count = unsafe { libc::read(eventfd, (&raw mut counter).cast(), 8) };
            (count, std::io::Error::last_os_error().kind())
        });
        let target = sent.recv().unwrap();
        while !blocked.is_finished() {
            // SAFETY: the call takes numbers only.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), target, libc::SIGUSR1) };
            thread::yield_now();
        }
        let result = blocked.join().unwrap();
        assert_eq!(result, (-1, std::io::ErrorKind::Interrupted));
    }

    /// Allocates small and large blocks of memory and resizes them. In a thread other than the main
    /// thread, malloc uses another arena and therefore makes other system calls.
    fn memory() {
        let mut blocks = Vec::new();
        for shift in 4..24 {
            let mut block = vec![1u8; 1 << shift];
            block.resize(3 << shift, 2);
            blocks.push(block);
        }
        let sum: usize = blocks.iter().map(|block| usize::from(block[0])).sum();
        assert_eq!(sum, 20);
    }

    fn hash() -> usize {
        HashMap::from([("a", 1), ("b", 2)]).len()
    }
}
