//! Drops the privileges of the process, and prevents new privileges.

use std::io;

use caps::CapSet;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::set_no_new_privs;

use super::JailError;

/// The maximum number of open file descriptors. This number suffices for 256 queues with six
/// descriptors each (kick, call, error, io_uring, and two descriptors that wake threads), and for
/// the memory regions of a front-end.
const MAX_FILES: u64 = 2048;

/// Drops all capabilities, prevents new capabilities, and limits the resources of the process.
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
