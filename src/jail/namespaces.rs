//! Namespaces: nothing of the system is left but what the process holds.

use std::fs;

use rustix::process::{getegid, geteuid};
use rustix::thread::UnshareFlags;

use super::JailError;

const ALL: UnshareFlags = UnshareFlags::NEWNS
    .union(UnshareFlags::NEWPID)
    .union(UnshareFlags::NEWNET)
    .union(UnshareFlags::NEWIPC)
    .union(UnshareFlags::NEWUTS);

/// Leaves the namespaces of the system; that of processes is left by the next child.
pub fn leave() -> Result<(), JailError> {
    let refused = JailError::refused("leave the system's namespaces", "unshare(2)");
    let (user, group) = (geteuid(), getegid());
    let flags = match user.is_root() {
        true => ALL,
        // Whoever is not root first has to be it somewhere.
        false => ALL | UnshareFlags::NEWUSER,
    };
    // SAFETY: no flag concerns what threads share within a process, such as its file descriptors.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(refused)?;
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
