//! Namespaces: nothing of the system is left but what the process holds.

use std::fs;

use rustix::process::{getegid, geteuid};
use rustix::thread::UnshareFlags;

use super::JailError;

/// Leaves the system's namespace of processes, with the next child, and gets the right to leave the
/// others.
pub fn leave_processes() -> Result<(), JailError> {
    let (user, group) = (geteuid(), getegid());
    let flags = match user.is_root() {
        true => UnshareFlags::NEWPID,
        // Whoever is not root first has to be it somewhere.
        false => UnshareFlags::NEWPID | UnshareFlags::NEWUSER,
    };
    unshare(flags)?;
    if user.is_root() {
        return Ok(());
    }
    let refused = JailError::refused("map the user into its namespace", "user_namespaces(7)");
    let (user, group) = (user.as_raw(), group.as_raw());
    fs::write("/proc/self/setgroups", "deny")
        .and_then(|()| fs::write("/proc/self/uid_map", format!("{user} {user} 1")))
        .and_then(|()| fs::write("/proc/self/gid_map", format!("{group} {group} 1")))
        .map_err(refused)
}

/// Leaves the system's network, IPC objects and host name.
pub fn leave_system() -> Result<(), JailError> {
    unshare(UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS)
}

/// Leaves the system's mounts.
pub fn leave_mounts() -> Result<(), JailError> {
    unshare(UnshareFlags::NEWNS)
}

fn unshare(flags: UnshareFlags) -> Result<(), JailError> {
    let refused = JailError::refused("leave the system's namespaces", "unshare(2)");
    // SAFETY: no flag used here concerns what threads share within a process, such as its file
    // descriptors.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(refused)
}
