//! The file system: an empty one, and nothing may be done even with that.

use std::env;
use std::os::fd::AsFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus,
    Scope,
};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, unmount,
};
use rustix::process::{chroot, fchdir, pivot_root};

use super::{JailError, namespaces};

/// Replaces the root, for this process alone, by an empty file system that cannot be written.
pub fn leave_root() -> Result<(), JailError> {
    namespaces::leave_mounts()?;
    replace_root().map_err(JailError::refused(
        "replace the root file system",
        "pivot_root(2)",
    ))
}

fn replace_root() -> Result<(), Errno> {
    // No mount of ours is to be seen outside.
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    let empty = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(empty.as_fd(), "size", "0")?;
    fsconfig_set_string(empty.as_fd(), "mode", "555")?;
    fsconfig_create(empty.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = fsmount(empty.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(root.as_fd(), "", CWD, "/tmp", flags)?;
    fchdir(root.as_fd())?;
    match pivot_root(".", ".") {
        // What was the root is now mounted over the new one.
        Ok(()) => unmount(".", UnmountFlags::DETACH)?,
        // An initramfs cannot be unmounted, but covered.
        Err(Errno::INVAL) => {
            rustix::mount::mount_move(".", "/")?;
            chroot(".")?;
        }
        Err(errno) => return Err(errno),
    }
    env::set_current_dir("/").map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Forbids every access to files by path, TCP, and signals and abstract sockets to the outside.
pub fn forbid_all() -> Result<(), JailError> {
    let refused = |error: landlock::RulesetError| {
        let source = std::io::Error::other(error);
        JailError::Refused {
            what: "set Landlock up",
            see: "landlock(7)",
            source,
        }
    };
    let abi = ABI::V6;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(abi)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(abi)))
        .and_then(|ruleset| ruleset.create())
        .and_then(|ruleset| ruleset.restrict_self())
        .map_err(refused)?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err(JailError::NoLandlock),
        _ => Ok(()),
    }
}
