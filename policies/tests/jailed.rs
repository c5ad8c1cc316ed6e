//! Whole programs inside a filter: what must go on working there, and how a panic ends.
//!
//! Run without arguments, it runs itself once for each context and task, as one test each. Without a
//! test harness, because its threads would be inside the filter, too.
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
        for context in Context::ALL {
            for task in ["thread", "memory", "sleep", "time", "hash", "log"] {
                let output = run(context, task, "0");
                assert!(
                    output.status.success(),
                    "{}: {task}: {output:?}",
                    context.name()
                );
            }
            for backtrace in ["0", "1", "full"] {
                panics(context, "panic", backtrace);
                panics(context, "panic-in-thread", backtrace);
            }
            aborts(context);
            println!("{}: ok", context.name());
        }
    }

    fn panics(context: Context, task: &str, backtrace: &str) {
        let output = run(context, task, backtrace);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let what = format!("{}: {task}, RUST_BACKTRACE={backtrace}", context.name());
        assert_eq!(output.status.code(), Some(101), "{what}: {output:?}");
        assert!(stderr.contains("something is wrong"), "{what}: {stderr}");
    }

    fn aborts(context: Context) {
        let output = run(context, "abort", "0");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
    }

    fn run(context: Context, task: &str, backtrace: &str) -> Output {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["inside", context.name(), task])
            .env("RUST_BACKTRACE", backtrace);
        command.output().unwrap()
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod inside {
    use policies::{Context, Violation, install};
    use std::collections::HashMap;
    use std::thread;
    use std::time::{Duration, Instant, SystemTime};

    pub fn run(context: &str, task: &str) {
        let context = Context::ALL
            .into_iter()
            .find(|c| c.name() == context)
            .unwrap();
        install(context, Violation::KillProcess).unwrap();
        match task {
            "thread" => thread_runs(),
            "memory" => memory(),
            "sleep" => thread::sleep(Duration::from_millis(2)),
            "time" => assert!(SystemTime::now() > SystemTime::UNIX_EPOCH),
            "hash" => assert_eq!(thread::spawn(hash).join().unwrap(), 2),
            "log" => eprintln!("{:?}", Instant::now()),
            "panic" => panic!("something is wrong"),
            "panic-in-thread" => thread::spawn(|| panic!("something is wrong"))
                .join()
                .unwrap(),
            "abort" => std::process::abort(),
            task => panic!("unknown task {task}"),
        }
    }

    fn thread_runs() {
        let threads = (0..4).map(|i| {
            let thread = thread::Builder::new().name(format!("queue {i}"));
            thread.spawn(memory).unwrap()
        });
        let threads: Vec<_> = threads.collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    }

    /// Small, large and growing memory, from the main and other arenas.
    fn memory() {
        let mut blocks = Vec::new();
        for shift in 4..24 {
            let mut block = vec![1u8; 1 << shift];
            block.resize(3 << shift, 2);
            blocks.push(block);
        }
        assert_eq!(
            blocks
                .iter()
                .map(|block| usize::from(block[0]))
                .sum::<usize>(),
            20
        );
    }

    fn hash() -> usize {
        HashMap::from([("a", 1), ("b", 2)]).len()
    }
}
