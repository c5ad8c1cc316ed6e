//! Privileges: none, and no way to any.

use std::io;

use caps::CapSet;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::set_no_new_privs;

use super::JailError;

/// More file descriptors than any front-end can cause to be open: 256 queues with three each, and
/// its memory regions.
const MAX_FILES: u64 = 2048;

/// Gives up all capabilities, the way to new ones, and resources that are not needed.
pub fn drop_all() -> Result<(), JailError> {
    let refused = JailError::refused("limit resources", "setrlimit(2)");
    for (resource, limit) in [(Resource::Core, 0), (Resource::Nofile, MAX_FILES)] {
        let hard = getrlimit(resource).maximum.unwrap_or(limit);
        let limit = Some(limit.min(hard));
        let limits = Rlimit {
            current: limit,
            maximum: limit,
        };
        setrlimit(resource, limits).map_err(&refused)?;
    }
    set_no_new_privs(true).map_err(JailError::refused("forbid new privileges", "prctl(2)"))?;
    drop_capabilities().map_err(JailError::refused("drop capabilities", "capabilities(7)"))
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
