//! Drops the privileges of the process, and prevents new privileges.

use std::io;

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::set_no_new_privs;

use super::JailError;

/// The maximum number of open file descriptors. This number suffices for 256 queues with six
/// descriptors each (kick, call, error, io_uring, and two descriptors that wake threads), and for
/// the memory regions of a front-end.
const MAX_FILES: u64 = 2048;

/// The limits of resources that the program does not need, or needs little of.
///
/// The following resources have no limit, because a limit would make the program fail for some
/// users:
///
/// * Address space and data: the memory of front-ends may have any size. If a front-end truncates
///   its memory, private memory replaces the missing pages.
/// * Processes: the kernel counts all processes of the user, not only those of the program.
/// * Pending signals: the kernel counts all signals of the user, and timers of threads need some.
/// * File size: the limit would also apply to an existing image, and to a log file.
/// * Stack: the limit would apply only to the first thread. All others have stacks of a fixed size.
const LIMITS: [(Resource, u64); 6] = [
    (Resource::Core, 0),
    (Resource::Nofile, MAX_FILES),
    // The memory of io_urings and the memory for DMA are locked before the process enters the jail.
    (Resource::Memlock, 0),
    (Resource::Msgqueue, 0),
    // No thread gets a higher priority than the program was started with.
    (Resource::Nice, 0),
    (Resource::Rtprio, 0),
];

/// The capability to remove files from folders of other users. Only root has it.
pub const TO_REMOVE_FILES: Capability = Capability::CAP_DAC_OVERRIDE;

/// Drops all capabilities, prevents new capabilities, and limits the resources of the process.
pub fn drop_all() -> Result<(), JailError> {
    drop_all_but(None)
}

/// Does the same as [`drop_all`], but keeps the capability `kept` if the process has it.
pub fn drop_all_but(kept: Option<Capability>) -> Result<(), JailError> {
    for (resource, limit) in LIMITS {
        let hard = getrlimit(resource).maximum.unwrap_or(limit);
        let limit = Some(limit.min(hard));
        let limits = Rlimit {
            current: limit,
            maximum: limit,
        };
        setrlimit(resource, limits).map_err(|errno| JailError::Resources(errno.into()))?;
    }
    set_no_new_privs(true).map_err(|errno| JailError::Privileges(errno.into()))?;
    drop_capabilities(kept).map_err(|error| JailError::Privileges(io::Error::other(error)))
}

fn drop_capabilities(kept: Option<Capability>) -> Result<(), CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = kept
        .into_iter()
        .filter(|one| permitted.contains(one))
        .collect();
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}
