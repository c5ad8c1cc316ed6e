//! Privileges: none, and no way to any.

use std::io;

use caps::CapSet;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::set_no_new_privs;

use super::JailError;

/// The most file descriptors: more than any front-end can cause to be open, which is three for each
/// of 256 queues and one for each memory region.
const MAX_FILES: u64 = 2048;

/// How much memory may be locked, in bytes: what the kernel shares with 256 queues' rings for I/O
/// counts as that, once there is no capability for more.
const MAX_LOCKED: u64 = 64 << 20;

/// Gives up all capabilities, the way to new ones, and resources that the process does not need.
pub fn drop_all() -> Result<(), JailError> {
    for (resource, limit) in [(Resource::Core, 0), (Resource::Nofile, MAX_FILES)] {
        let hard = getrlimit(resource).maximum.unwrap_or(limit);
        let limit = Some(limit.min(hard));
        let limits = Rlimit {
            current: limit,
            maximum: limit,
        };
        setrlimit(resource, limits).map_err(|errno| JailError::Resources(errno.into()))?;
    }
    allow_locking();
    set_no_new_privs(true).map_err(|errno| JailError::Privileges(errno.into()))?;
    drop_capabilities().map_err(JailError::Privileges)
}

/// Raises the limit on locked memory as far as the user may. Where that is not far, queues do
/// without rings, which they say.
fn allow_locking() {
    let Rlimit { current, maximum } = getrlimit(Resource::Memlock);
    // Without a limit there is nothing to raise.
    let (Some(current), Some(maximum)) = (current, maximum) else {
        return;
    };
    for maximum in [maximum.max(MAX_LOCKED), maximum] {
        let limits = Rlimit {
            current: Some(current.max(MAX_LOCKED.min(maximum))),
            maximum: Some(maximum),
        };
        if setrlimit(Resource::Memlock, limits).is_ok() {
            return;
        }
    }
}

fn drop_capabilities() -> io::Result<()> {
    for set in [
        CapSet::Ambient,
        CapSet::Effective,
        CapSet::Inheritable,
        CapSet::Permitted,
    ] {
        caps::clear(None, set).map_err(io::Error::other)?;
    }
    Ok(())
}
