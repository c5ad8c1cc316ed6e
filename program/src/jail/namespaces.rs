//! Moves the process to new namespaces, which hide the rest of the system from it.

use std::{fs, io};

use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::UnshareFlags;

use super::JailError;

/// Makes a new process-ID namespace, which all later child processes of this process enter. If the
/// user is not root, this process also enters a new user namespace, which gives it the right to
/// make other namespaces.
pub fn leave_processes() -> Result<(), JailError> {
    let user = geteuid();
    if user.is_root() {
        return unshare(UnshareFlags::NEWPID);
    }
    let group = getegid();
    unshare(UnshareFlags::NEWPID | UnshareFlags::NEWUSER)?;
    map_user(user, group).map_err(JailError::UserMap)
}

/// Gives the user and the group the same numbers in the new user namespace as outside of it.
fn map_user(user: Uid, group: Gid) -> io::Result<()> {
    let (user, group) = (user.as_raw(), group.as_raw());
    // The kernel accepts the `gid_map` of an unprivileged process only after the process has denied
    // setgroups(2) in the namespace.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

/// Moves this thread to new namespaces for network, IPC objects and host name.
pub fn leave_system() -> Result<(), JailError> {
    unshare(UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS)
}

/// Moves this thread to a new namespace for mounts.
pub fn leave_mounts() -> Result<(), JailError> {
    unshare(UnshareFlags::NEWNS)
}

fn unshare(flags: UnshareFlags) -> Result<(), JailError> {
    // SAFETY: all callers pass only flags of namespaces. These flags leave memory and file
    // descriptors shared between the threads of the process.
    let result = unsafe { rustix::thread::unshare_unsafe(flags) };
    result.map_err(|errno| JailError::Namespaces(errno.into()))
}
