//! Namespaces: the process sees nothing of the system but what it holds already.

use std::{fs, io};

use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::UnshareFlags;

use super::JailError;

/// Leaves the system's namespace of processes, with the next child. A user who is not root gets a
/// user namespace, too, and with it the right to leave the other namespaces.
pub fn leave_processes() -> Result<(), JailError> {
    let user = geteuid();
    if user.is_root() {
        return unshare(UnshareFlags::NEWPID);
    }
    let group = getegid();
    unshare(UnshareFlags::NEWPID | UnshareFlags::NEWUSER)?;
    map_user(user, group).map_err(JailError::UserMap)
}

/// Makes the user and the group in the new namespace the same as outside.
fn map_user(user: Uid, group: Gid) -> io::Result<()> {
    let (user, group) = (user.as_raw(), group.as_raw());
    // The kernel takes a group only from a process that cannot drop groups any more.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
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
    // SAFETY: the flags name namespaces only. None of them separates what threads of one process
    // share, such as memory or file descriptors.
    let result = unsafe { rustix::thread::unshare_unsafe(flags) };
    result.map_err(|errno| JailError::Namespaces(errno.into()))
}
