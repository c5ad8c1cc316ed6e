//! Privileges: none, and no way to any.

use std::io;

use caps::CapSet;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::set_no_new_privs;

use super::JailError;

/// The most file descriptors. It is enough for six for each of 256 queues (kick, call, error,
/// io_uring, and two that wake threads), and for the memory regions of a front-end.
const MAX_FILES: u64 = 2048;

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
    set_no_new_privs(true).map_err(|errno| JailError::Privileges(errno.into()))?;
    drop_capabilities().map_err(JailError::Privileges)
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
