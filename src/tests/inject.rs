//! Makes a process make a system call, as a peer could that has taken it over.

use std::mem::MaybeUninit;
use std::ptr::null_mut;

/// Puts the call in the place of the one that the process waits in.
pub fn call(pid: i32, number: i64, arguments: [u64; 3]) {
    // SAFETY: these requests take numbers only, but for those about registers, whose memory is
    // valid for the structure that the kernel reads or writes.
    unsafe {
        ptrace(
            libc::PTRACE_SEIZE,
            pid,
            0,
            libc::PTRACE_O_TRACESYSGOOD as u64,
        );
        ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0);
        assert!(libc::WIFSTOPPED(wait(pid)));
        // The interrupted call starts again.
        ptrace(libc::PTRACE_SYSCALL, pid, 0, 0);
        assert_eq!(libc::WSTOPSIG(wait(pid)), libc::SIGTRAP | 0x80);
        let mut registers = MaybeUninit::<libc::user_regs_struct>::zeroed().assume_init();
        ptrace(libc::PTRACE_GETREGS, pid, 0, &raw mut registers as u64);
        registers.orig_rax = number as u64;
        [registers.rdi, registers.rsi, registers.rdx] = arguments;
        ptrace(libc::PTRACE_SETREGS, pid, 0, &raw mut registers as u64);
        ptrace(libc::PTRACE_CONT, pid, 0, 0);
        let status = wait(pid);
        if libc::WIFSTOPPED(status) {
            assert_eq!(libc::WSTOPSIG(status), libc::SIGSYS);
            ptrace(libc::PTRACE_DETACH, pid, 0, libc::SIGSYS as u64);
        }
    }
}

unsafe fn ptrace(request: u32, pid: i32, address: u64, data: u64) {
    // SAFETY: as the caller promises.
    let result = unsafe { libc::ptrace(request, pid, address, data) };
    assert_eq!(
        result,
        0,
        "ptrace {request}: {}",
        std::io::Error::last_os_error()
    );
}

fn wait(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the status is valid memory; no usage is asked for.
    let waited = unsafe { libc::wait4(pid, &mut status, libc::__WALL, null_mut()) };
    assert_eq!(waited, pid);
    status
}
