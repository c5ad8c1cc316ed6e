//! Makes another process execute a system call, as an attacker who controls the process could.

use std::mem::MaybeUninit;
use std::ptr::null_mut;

/// Replaces the system call in which the process is blocked with the system call `number`.
pub fn call(pid: i32, number: i64, arguments: [u64; 3]) {
    // SAFETY: most of these requests take only numbers. The requests about registers get a pointer
    // to `registers`, which is valid memory for the structure that the kernel reads or writes.
    unsafe {
        ptrace(
            libc::PTRACE_SEIZE,
            pid,
            0,
            libc::PTRACE_O_TRACESYSGOOD as u64,
        );
        ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0);
        assert!(libc::WIFSTOPPED(wait(pid)));
        // The interrupted system call starts again, and the process stops at the entry of the call.
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
    // SAFETY: the caller passes only arguments that are valid for the request.
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
    // SAFETY: the pointer to `status` is valid. The null pointer means that no resource usage is
    // written.
    let waited = unsafe { libc::wait4(pid, &mut status, libc::__WALL, null_mut()) };
    assert_eq!(waited, pid);
    status
}
